"""Named statements: every file can be read, and a schema's name is quoted for where it goes."""

import pytest

from datasync_crawler.store import queries


def test_quote_identifier_doubles_quotes():
    """A double quote in a name is doubled, everything else stays."""
    assert queries.quote_identifier('My "odd" schema%') == '"My ""odd"" schema%"'


@pytest.mark.parametrize("file", ["events", "gaps", "ledger", "runs", "schema", "verify"])
def test_every_statement_has_a_name_and_one_schema(file):
    """No placeholder of ours is left, and no statement is empty."""
    statements = queries.load(file, "crawl")
    assert statements
    assert all("{schema}" not in body for body in statements.values())
    assert all(body.rstrip().endswith(";") for body in statements.values())


def test_a_percent_sign_is_doubled_only_where_parameters_are_filled_in():
    """psycopg2 reads %% as % only in a statement that it fills parameters into."""
    assert '"a%%b"' in queries.load("gaps", "a%b")["gaps"]
    assert '"a%b"' in queries.load("schema", "a%b")["events"]
