"""A database that other roles use, too: what they plant there doesn't run as the crawler's role."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from databases import Database
from rooms import API, Room

from datasync_crawler.errors import DatabaseRefused, SchemaConflict
from datasync_crawler.store import connection as connections
from datasync_crawler.store import queries, schema
from datasync_crawler.store.connection import Connector, is_remote
from datasync_crawler.store.freshness import read_freshness
from datasync_crawler.store.rate_limits import LimitMemory
from datasync_crawler.store.reader import DashboardReader
from datasync_crawler.store.session import Session
from datasync_crawler.store.targets import ServerTarget
from datasync_crawler.store.verify import ProofReader

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What mallory's functions do: they write down as whom they were run.
TRAP = """
    CREATE TABLE IF NOT EXISTS mallorys.victims (name text);
    GRANT ALL ON mallorys.victims TO PUBLIC; GRANT USAGE ON SCHEMA mallorys TO PUBLIC;
    CREATE OR REPLACE FUNCTION mallorys.trap() RETURNS void LANGUAGE sql VOLATILE AS
        'INSERT INTO mallorys.victims SELECT current_user';
"""


@pytest.fixture
def mallory(database: Database) -> Iterator[Database]:
    """The database as another role sees it, which may create in `public` and has its own schema."""
    role = f"mallory_{database.params['dbname']}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'm'")
    database.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    database.execute(f"CREATE SCHEMA mallorys AUTHORIZATION {role}")
    theirs = Database({**database.params, "user": role, "password": "m"})
    theirs.execute(TRAP)
    yield theirs
    database.execute(f"DROP OWNED BY {role} CASCADE")
    database.execute(f"DROP ROLE {role}")


def connector(database: Database) -> Connector:
    return Connector(ServerTarget(database.params))


def victims(mallory: Database) -> list[str]:
    return [row[0] for row in mallory.execute("SELECT DISTINCT name FROM mallorys.victims")]


def test_an_operator_that_matches_better_is_not_used(database: Database, mallory: Database) -> None:
    """`numeric * interval` in public is nobody's but its owner's: remember_limits passes it by."""
    room = Room(database)
    mallory.execute("""
        CREATE FUNCTION public.times(numeric, interval) RETURNS interval LANGUAGE plpgsql AS
            'BEGIN PERFORM mallorys.trap(); RETURN $2; END';
        CREATE OPERATOR public.* (FUNCTION = public.times, LEFTARG = numeric, RIGHTARG = interval);
    """)
    memory = LimitMemory(room.connector, "public", "a key")
    memory.remember({"limit": 6}, paused_for_s=1.5)
    assert memory.recall().learned == {"limit": 6}
    assert victims(mallory) == []
    room.close()


def test_every_connection_finds_postgresqls_own_names_alone(database: Database) -> None:
    """Whatever the role, the database or the URL says, the search path is pg_catalog."""
    database.execute(f"ALTER DATABASE {database.params['dbname']} SET search_path = evil, public")
    params = {**database.params, "options": "-c search_path=evil"}
    for connect in (connector(database).connect, Connector(ServerTarget(params)).connect_to_read):
        with closing(connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW search_path")
            assert cursor.fetchone() == ("pg_catalog, pg_temp",)


def test_a_table_of_another_role_is_refused(database: Database, mallory: Database) -> None:
    """Of the right shape, with a trigger: nothing is written to it, and the sentence names it."""
    mallory.execute(queries.load("schema", "public")["events"])
    mallory.execute("""
        CREATE FUNCTION mallorys.fire() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM mallorys.trap(); RETURN NEW; END';
        CREATE TRIGGER fire BEFORE INSERT ON public.events
            FOR EACH ROW EXECUTE FUNCTION mallorys.fire();
        GRANT ALL ON public.events TO PUBLIC;
    """)
    session = Session(connector(database), "public")
    with pytest.raises(SchemaConflict) as caught:
        session.open(api_base_url=API, pagination="offset")
    role = mallory.params["user"]
    assert f"The table events in schema public belongs to the role {role}" in str(caught.value)
    assert 'ALTER TABLE "public"."events" OWNER TO' in str(caught.value)
    assert victims(mallory) == []
    assert database.value("SELECT to_regclass('checkpoint')") is None


PLANTED = {
    "a view": """
        CREATE VIEW public.crawl_runs AS
        SELECT 1::bigint AS id, 'h'::text AS host, 1 AS pid, now() AS started_at,
               now() AS heartbeat_at, now() AS finished_at, 'finished'::text AS finish_reason,
               mallorys.json() AS stats
    """,
    "a policy": """
        CREATE TABLE public.crawl_runs (id bigint, host text, pid integer, started_at timestamptz,
            heartbeat_at timestamptz, finished_at timestamptz, finish_reason text, stats jsonb);
        INSERT INTO public.crawl_runs VALUES (1);
        ALTER TABLE public.crawl_runs ENABLE ROW LEVEL SECURITY;
        CREATE POLICY trap ON public.crawl_runs USING (mallorys.json() IS NULL)
    """,
    "a cast": """
        CREATE TYPE mallorys.kind AS ENUM ('now');
        CREATE FUNCTION mallorys.cast(mallorys.kind) RETURNS timestamptz LANGUAGE plpgsql AS
            'BEGIN PERFORM mallorys.json(); RETURN now(); END';
        CREATE CAST (mallorys.kind AS timestamptz) WITH FUNCTION mallorys.cast AS IMPLICIT;
        CREATE TABLE public.crawl_runs (id bigint, host text, pid integer,
            started_at mallorys.kind, heartbeat_at timestamptz, finished_at timestamptz,
            finish_reason text, stats jsonb);
        INSERT INTO public.crawl_runs (id, started_at) VALUES (1, 'now')
    """,
}


@pytest.mark.parametrize("kind", PLANTED)
def test_reading_runs_nothing_of_anybodys(
    server: Database, database: Database, mallory: Database, kind: str
) -> None:
    """A planted view, policy or type of columns is refused by the page: it isn't evaluated."""
    # What a function that only reads can do: it raises a sequence, also in a read-only transaction.
    mallory.execute("""
        CREATE FUNCTION mallorys.json() RETURNS jsonb LANGUAGE plpgsql AS
            'BEGIN RAISE EXCEPTION ''run as %'', current_user; END';
    """)
    mallory.execute(PLANTED[kind])
    mallory.execute("GRANT ALL ON public.crawl_runs TO PUBLIC")
    # Not a superuser, to whom row security wouldn't apply.
    role = f"reader_{database.params['dbname']}"
    database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'r'")
    reading = DashboardReader(
        connector(Database({**database.params, "user": role, "password": "r"})), "public"
    )
    try:
        with pytest.raises((DatabaseRefused, SchemaConflict)) as caught:
            reading.runs()
        assert "run as" not in str(caught.value)
    finally:
        reading.close()
        database.execute(f"DROP ROLE {role}")


def test_a_table_that_somebody_is_just_making_is_waited_for_with_an_end(
    database: Database, mallory: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of another role that never ends costs a sentence, not a crawl that hangs."""
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_MS", 100)
    with closing(mallory.connect()) as theirs, theirs.cursor() as cursor:
        theirs.autocommit = False
        cursor.execute("CREATE TABLE public.events (id integer)")
        with pytest.raises(DatabaseRefused, match="Another transaction has been making"):
            Session(connector(database), "public").open(api_base_url=API, pagination="offset")


MALFORMED = {
    "a list": "[]",
    "a number": "7",
    "5,000 digits": '{"events/inserted": 1e5000}',
    "more than a float holds": '{"events/inserted": 1e400}',
    "a megabyte": f'{{"crawl/x": "{"x" * 1_000_000}"}}',
    "deeply nested": f'{{"events/inserted": {"[" * 3000}{"]" * 3000}}}',
    "text for a number": '{"events/inserted": "many"}',
    "text for a flag": '{"crawl/complete": "maybe"}',
    "a flag for a number": '{"crawl/total": true}',
    "an object for a number": '{"latency/bucket/x": {}}',
    "a list for now": '{"now": []}',
    "text for a pause": '{"now": {"traffic": {"paused_for_s": "soon"}}}',
    "numbers for ranges": '{"ranges": {"flight": [1]}}',
}


@pytest.mark.parametrize("stats", MALFORMED.values(), ids=MALFORMED)
def test_malformed_stats_are_said_and_harm_nothing(database: Database, stats: str) -> None:
    """Whatever another role has written there, the page gets a run that says so, and its list."""
    from datasync_crawler.monitor import board, metrics  # noqa: PLC0415

    room = Room(database)
    room.query("UPDATE crawl_runs SET stats = %s", (stats,))
    room.query(
        "INSERT INTO crawl_samples (run_id, figures) SELECT id, %s FROM crawl_runs", (stats,)
    )
    reader = DashboardReader(connector(database), "public")
    run = reader.run(None)
    assert run is not None
    assert (run.malformed, run.stats) == (True, {})
    assert board.words(run)[0] == board.MALFORMED
    state = board.run_state(run, reader.ledger(10))
    plots = board.series(0.0, reader.series(run.id, 10))
    json.dumps([state, board.run_lines(reader.runs()), plots], allow_nan=False)
    metrics.exposition(run, None, up=True)
    reader.close()
    room.close()


TIMES = ("'-infinity'", "'infinity'", "'4713-01-01 BC'", "'294276-01-01'", "NULL")


@pytest.mark.parametrize("time", TIMES)
def test_times_and_texts_of_another_role_cost_no_traceback(database: Database, time: str) -> None:
    """Status, page and alarms have lines for a run that no crawl has written, without escapes."""
    from datasync_crawler.monitor import board, freshness, report  # noqa: PLC0415

    room = Room(database)
    for column in ("host", "started_at", "heartbeat_at", "pid"):
        room.query(f"ALTER TABLE crawl_runs ALTER {column} DROP NOT NULL")
    evil = "evil\n\x1b[2J" + "x" * 1_000_000
    room.query(
        f"UPDATE crawl_runs SET started_at = {time}, heartbeat_at = {time}, finished_at = {time}, "
        "host = %s, finish_reason = %s, pid = NULL",
        (evil, evil),
    )
    room.query("INSERT INTO proofs (pass, head_id, tail_id, count, method, proved_at) "
               f"VALUES (1, 'a', 'b', 1, 'x', coalesce({time}, now()))")  # fmt: skip
    room.query("UPDATE source SET api_base_url = %s", (evil[:1000],))
    room.query("INSERT INTO rejected_events VALUES (1, 1, %s, '', now())", (evil[:200],))
    with ProofReader(connector(database), "public") as proof:
        figures = proof.figures(*proof.source(), "the last known")
        seen = figures, proof.reasons(), proof.runs(), proof.processes()
    fresh = read_freshness(connector(database), "public")
    stale = freshness.problems(fresh, max_age_s=60.0)
    said = [*report.status_lines(*seen), *freshness.lines(fresh), *stale]
    assert max(map(len, said)) < 2_000
    assert all(line.isprintable() for line in said)
    reader = DashboardReader(connector(database), "public")
    run = reader.run(None)
    assert run is not None
    state = board.run_state(run, None)
    json.dumps([report.status_values(*seen), state, board.run_lines(reader.runs())],
               allow_nan=False)  # fmt: skip
    reader.close()
    room.close()


@pytest.mark.parametrize(
    ("own", "peer", "remote"),
    [
        ("10.0.0.5", "10.0.0.6", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("10.0.0.5", "10.0.0.5", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "::1", False),
        ("::ffff:10.0.0.5", "::ffff:127.0.0.1", False),
    ],
)
def test_which_connections_leave_this_machine(own: str, peer: str, remote: bool) -> None:
    """Loopback and an address of one's own don't, whatever name was given."""
    assert is_remote(own, peer) is remote


def test_a_remote_server_without_tls_is_warned_of_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line, with what to set and without the password, however many connections follow."""
    monkeypatch.setattr(connections, "is_remote", lambda own, peer: True)
    monkeypatch.setattr(connections, "_warned", connections.threading.Event())
    target = connector(Database({**database.params, "host": "127.0.0.1", "sslmode": "disable"}))
    for _ in range(2):
        target.connect().close()
    [line] = [record.getMessage() for record in caplog.records]
    assert "isn't encrypted" in line
    assert "sslmode=verify-full" in line
    assert database.params.get("password", "no password") not in line
