"""The tables: made once, checked ever after, never changed when they are somebody else's."""

import asyncio
import threading
from contextlib import closing

import pytest
from rooms import Room, page

from datasync_crawler.errors import DatabaseRefused, SchemaConflict
from datasync_crawler.store import queries, schema

TABLES = {
    "events", "checkpoint", "rejected_events", "source", "rate_limits", "crawl_runs",
    "crawl_samples", "seams", "proofs", "leases",
}  # fmt: skip


def migrate(database, name="public", **params):
    connecting = type(database)({**database.params, **params})
    with closing(connecting.connect()) as connection:
        connection.autocommit = False
        schema.migrate(connection, name)


def tables(database, name="public"):
    return {
        row[0]
        for row in database.execute(
            "SELECT relname FROM pg_class "
            "WHERE relkind = 'r' AND relnamespace = to_regnamespace(%s)",
            (queries.quote_identifier(name),),
        )
    }


def test_migrate_makes_the_tables_once(database):
    """All tables are there after the first time, and the second time writes nothing."""
    migrate(database)
    assert tables(database) == TABLES
    catalogue = database.execute("SELECT oid, xmin FROM pg_class ORDER BY oid")
    migrate(database)
    assert database.execute("SELECT oid, xmin FROM pg_class ORDER BY oid") == catalogue


def test_a_role_that_owns_nothing_but_its_tables_can_crawl(database):
    """Without CREATE on schema or database, a role whose tables exist crawls."""
    role = "r" + database.params["dbname"]
    migrate(database)
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        for table in TABLES:
            database.execute(f"ALTER TABLE {table} OWNER TO {role}")
        room = Room(type(database)({**database.params, "user": role, "password": "p"}))
        room.write(page(["a"]))
        room.write(page(["a"], first=1))
        assert room.ids() == ["a"]
        room.close()
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_a_role_without_rights_is_told_what_to_grant(database):
    """No tables and no right to make them: a sentence that says so."""
    role = "r" + database.params["dbname"]
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        with pytest.raises(DatabaseRefused, match="Grant this role CREATE"):
            migrate(database, user=role, password="p")
        migrate(database)  # now the tables are there, but somebody else's
        owner = database.value("SELECT current_user")
        with pytest.raises(SchemaConflict, match=f"belongs to the role {owner}"):
            Room(type(database)({**database.params, "user": role, "password": "p"}))
    finally:
        database.execute(f"DROP ROLE {role}")


OTHERS = {
    "a column missing": ("id text PRIMARY KEY, at date", "session_id is missing"),
    "no key": (None, "(id) has no unique index"),
    "a column that needs a value": ("PLUS", "customer is not ours and must have a value"),
    "a column of ours that does": ("NOT NULL", "type must have a value"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_table_of_another_shape_is_refused_and_left_untouched(database, kind):
    """Somebody else's events table stops the crawl with a sentence, and nothing else is made."""
    columns, said = OTHERS[kind]
    ours = queries.load("schema", "public")["events"]
    if columns is None:
        ours = ours.replace(" PRIMARY KEY", "")
    elif columns == "NOT NULL":
        ours = ours.replace("type text", "type text NOT NULL")
    elif columns == "PLUS":
        ours = ours.replace("session jsonb", "session jsonb, customer text NOT NULL")
    else:
        ours = f"CREATE TABLE events ({columns})"
    database.execute(ours)
    before = database.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'events'::regclass"
    )
    with pytest.raises(SchemaConflict, match="another shape") as caught:
        migrate(database)
    assert said in str(caught.value)
    assert tables(database) == {"events"}
    assert before == database.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'events'::regclass"
    )


def test_a_table_with_more_to_it_is_accepted(database):
    """Columns and indexes that a user has added to our tables don't disturb."""
    migrate(database)
    database.execute("ALTER TABLE events ADD COLUMN note text, ADD COLUMN n int NOT NULL DEFAULT 1")
    database.execute("CREATE INDEX ON events (name)")
    migrate(database)


@pytest.mark.parametrize("name", ["Capitals", 'a "quoted" one', "50%", "%s", "it's", "ein Schéma"])
def test_odd_schema_names_work_all_the_way(database, name):
    """A schema's name may hold anything: tables, rows, duplicates, rejections, gaps, sums."""
    room = Room(database, schema=name)
    room.write(page(["a", None], total=5))
    room.write(page(["a"], first=3))
    room.writer(on_duplicate="update").write([page(["a"], first=4)])
    quoted = queries.quote_identifier(name)
    assert database.value(f"SELECT count(*) FROM {quoted}.events") == 1

    async def told():
        gaps = await room.ledger.gaps(1, 5, most=9)
        return gaps, await room.ledger.figures(1), await room.ledger.state()

    gaps, figures, state = asyncio.run(told())
    assert [gap.first for gap in gaps] == [2]
    assert (figures.inserted, figures.distinct, state.last_total) == (1, 2, None)
    assert tables(database, name) == TABLES
    room.close()


def test_two_processes_may_migrate_at_once(database):
    """Several connections that migrate in the same instant all succeed."""
    problems = []
    gate = threading.Barrier(4)

    def run():
        gate.wait()
        try:
            migrate(database, "fresh")
        except Exception as error:  # noqa: BLE001  # told below
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert tables(database, "fresh") == TABLES
