"""The writer against a real PostgreSQL: rows, counts, refusals, lost connections."""

import asyncio
import json
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import msgspec
import psycopg2
import pytest
from faults.crashes import CrashingWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy import COMMIT, CuttingProxy
from rooms import Room, event, page

from datasync_crawler.crawl.values import Ask
from datasync_crawler.errors import DatabaseLost
from datasync_crawler.events.event import Rejection
from datasync_crawler.store import rejected_rows
from datasync_crawler.store import writer as writer_module
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger
from datasync_crawler.store.session import Session
from datasync_crawler.store.targets import EmbeddedTarget

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value, ensure_ascii=False))
TRICKY = ["\\N", "\\.", "\t", "a\nb", "\r\n", "\\\\n", '"', "'", "🙂", "\x01\x7f", "\\t", "", "é"]


def test_writer_stores_a_page_with_its_ledger_row(room):
    """A page's events, its rejection and its ledger row are there after one write."""
    one = page(["a", "b", None], total=3)
    room.write(one)
    assert room.ids() == ["a", "b"]
    assert (one.committed, one.inserted, one.duplicates, one.rejected) == (True, 2, 0, 1)
    assert room.query("SELECT position, page_offset, reason, raw FROM rejected_events") == [
        (2, 0, "no id", b"{}")
    ]
    assert room.counts() == [(1, 0, 3, 2, 0, 0, 1)]
    assert room.query("SELECT total FROM source") == [(3,)]


@given(
    texts=st.lists(
        st.tuples(ANY_TEXT | st.sampled_from(TRICKY), JSON_TEXT), min_size=1, max_size=20
    )
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.parametrize("merging", [False, True])
def test_writer_brings_any_text_back(room, merging, texts):
    """Any text and any JSON comes back as it went in, by COPY and by merge alike."""
    room.truncate()
    if merging:
        room.write(page(["x"], first=10_000))
        room.write(page(["x"], first=20_000))
    written = [
        event(f"{number}{text}", session_id=text, user_id=text, type=text, name=text,
              properties=msgspec.Raw(raw.encode()), extra=msgspec.Raw(raw.encode()))
        for number, (text, raw) in enumerate(texts)
    ]  # fmt: skip
    room.write(page(written))
    stored = {
        row[0]: row[1:]
        for row in room.query(
            "SELECT id, session_id, user_id, type, name, properties::text, extra::text FROM events "
            "WHERE id <> 'x'"
        )
    }
    assert stored.keys() == {item.id for item in written}
    for item, (text, raw) in zip(written, texts, strict=True):
        *columns, properties, extra = stored[item.id]
        assert columns == [text] * 4
        assert json.loads(properties) == json.loads(extra) == json.loads(raw)


def test_writer_counts_duplicates_and_changes_per_page(room):
    """Duplicates in a page, across a batch and against the table are counted where they came."""
    room.write(page(["a", event("b", name="old")]))
    first = page(["c", "c", event("b", name="new")], first=10)
    second = page(["c", "d", event("d", name="other"), "a"], first=20)
    room.write(first, second)
    assert (first.inserted, first.duplicates, first.changed) == (1, 2, 1)
    assert (second.inserted, second.duplicates, second.changed) == (1, 3, 1)
    assert room.query("SELECT name FROM events WHERE id IN ('b', 'd') ORDER BY id") == [
        ("old",),
        ("n",),
    ]


def test_writer_updates_when_told_to(room):
    """With ON_DUPLICATE=update the last content wins, also within a page, and each that differs is
    counted; what is the same isn't written again.
    """
    room.write(page(["a", event("b", name="old")]))
    stored_at = room.query("SELECT ingested_at FROM events WHERE id = 'a'")
    updating = room.writer(on_duplicate="update")
    again = page(["a", event("b", name="new"), event("c", name="1"), event("c", name="2")], first=9)
    updating.write([again])
    assert (again.inserted, again.duplicates, again.changed) == (1, 3, 2)
    assert room.query("SELECT id, name FROM events ORDER BY id") == [
        ("a", "n"), ("b", "new"), ("c", "2")
    ]  # fmt: skip
    assert room.query("SELECT ingested_at FROM events WHERE id = 'a'") == stored_at
    same = page(["a", event("b", name="new")], first=19)
    updating.write([same])
    assert (same.inserted, same.duplicates, same.changed) == (0, 2, 0)
    fresh = page(["d", "e", "f"], first=29), page(["f", "g"], first=39), page(["a"], first=49)
    updating.write(fresh)
    assert [one.inserted for one in fresh] == [2, 2, 0]  # "f" is the last one's


def test_writer_copies_again_when_duplicates_have_ended(room):
    """After a swarm of duplicates, clean pages go straight into the table again."""
    writer = room.writer()
    writer.write([page(["a"])])
    assert writer.stats.merges == 0
    writer.write([page(["a"], first=1)])
    for number in range(writer_module.MERGE_FIRST):
        writer.write([page([f"clean {number}"], first=10 + number)])
    merges = writer.stats.merges
    writer.write([page(["b"], first=100)])
    assert writer.stats.merges == merges == 1 + writer_module.MERGE_FIRST


REFUSED = {
    "NUL in JSON": (lambda: event("bad", properties=msgspec.Raw(b'"\\u0000"')), "22P05"),
    "NUL in text": (lambda: event("bad", name="a\0b"), "22021"),
    "invalid UTF-8": (lambda: event("bad", properties=msgspec.Raw(b'"\xff"')), "22021"),
    "huge number": (lambda: event("bad", properties=msgspec.Raw(b"1e200000")), "22003"),
    "long id": (lambda: event(random.Random(1).randbytes(3000).hex()), "54000"),
    "lone surrogate in JSON": (
        lambda: event("bad", properties=msgspec.Raw(b'"\\ud800"')),
        "22P02",
    ),
    "lone surrogate in text": (lambda: event("bad", name="\ud800"), "not valid Unicode"),
    "deep nesting": (
        lambda: event("bad", properties=msgspec.Raw(b"[" * 100_000 + b"]" * 100_000)),
        "54001",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("merging", [False, True])
def test_writer_rejects_only_the_row_that_postgres_refuses(room, kind, merging):
    """What PostgreSQL refuses costs itself alone, beside duplicates and in a batch of pages."""
    make, reason = REFUSED[kind]
    room.write(page(["a", "b"]))
    if merging:
        room.write(page(["a"], first=5))
    other = page(["e"], first=20)
    one = page(["c", "a", make(), "c", "d"], first=10)
    room.write(other, one)
    assert room.ids() == ["a", "b", "c", "d", "e"]
    assert (one.inserted, one.duplicates, one.rejected) == (2, 2, 1)
    [(position, said, raw)] = room.query("SELECT position, reason, raw FROM rejected_events")
    assert (position, raw) == (12, b"raw 2")
    assert reason in said
    assert other.inserted == 1


def test_writer_finds_refused_rows_where_the_message_names_no_line(room, monkeypatch):
    """The server's messages may be in another language: then the rows are halved."""
    monkeypatch.setattr(rejected_rows, "_line", lambda _: None)
    bad = {3, 4, 11}
    one = page([event(f"{n}", name="a\0b" if n in bad else "good") for n in range(13)])
    room.write(one)
    assert (one.inserted, one.rejected) == (10, 3)
    assert {rejection.index for rejection in one.rejections} == bad


def test_writer_finds_many_refused_rows(room):
    """Two hundred refused rows of many kinds among 5,000 are found, each at its place."""
    makers = [make for make, _ in REFUSED.values()][:-1]
    chosen = random.Random(7).sample(range(5000), 200)
    bad = {place: makers[number % len(makers)]() for number, place in enumerate(chosen)}
    for place, item in bad.items():
        item.id = f"{place} {item.id}"
    one = page([bad.get(place, f"id {place}") for place in range(5000)])
    room.write(one)
    assert (one.inserted, one.rejected) == (4800, 200)
    assert {row[0] for row in room.query("SELECT position FROM rejected_events")} == set(bad)


def test_writer_replaces_rejections_of_a_range_fetched_again(room):
    """A rejection is replaced, or removed when its event is good now; its neighbours stay."""
    room.write(page(["a", None, None]), page([None], first=3))
    again = page(["a", "b", None], pass_no=2)
    room.write(again)
    assert room.query("SELECT position FROM rejected_events ORDER BY 1") == [(2,), (3,)]
    assert room.ids() == ["a", "b"]


def test_the_later_of_overlapping_pages_in_one_batch_says_what_is_rejected(room):
    """What an earlier page of the same transaction rejected is removed where it is good now."""
    room.write(page(["a", None, None]), page(["b", None], first=1))
    assert room.query("SELECT position, page_offset FROM rejected_events") == [(2, 1)]


def test_two_writers_in_opposite_order_end_without_loss(room):
    """Two writers that store the same ids in opposite order both end, and every id is there."""
    ids = [f"id {number}" for number in range(3000)]
    pages = [
        [page(ids, first=10_000 * number) for number in range(4)],
        [page(ids[::-1], first=10_000 * number, pass_no=2) for number in range(4)],
    ]
    problems = []

    def run(batch):
        writer = room.writer()
        try:
            for one in batch:
                writer.write([one])
        except Exception as error:  # noqa: BLE001  # told below
            problems.append(error)

    threads = [threading.Thread(target=run, args=(batch,)) for batch in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert room.ids() == sorted(ids)
    assert sum(one.inserted for batch in pages for one in batch) == 3000
    assert all(one.duplicates + one.inserted == 3000 for batch in pages for one in batch)


CUTS = {
    "before COPY": lambda proxy: proxy.cut_before(b"COPY "),
    "mid-COPY": lambda proxy: proxy.cut_before(b"id 4000"),
    "before COMMIT": lambda proxy: proxy.cut_before(b"INSERT INTO"),
    "COMMIT on its way": lambda proxy: proxy.cut_before(COMMIT),
    "COMMIT done, answer lost": lambda proxy: proxy.cut_after(COMMIT),
}


@pytest.mark.parametrize("where", CUTS)
def test_a_cut_connection_loses_nothing(database, where):
    """Wherever the connection is cut, the page is committed exactly once, with right counts."""
    with CuttingProxy(database.params["host"], int(database.params["port"])) as proxy:
        room = Room(database, port=proxy.port)
        writer = room.writer()
        writer.write([page(["a", "b"])])
        CUTS[where](proxy)
        one = page(["a", *(f"id {number}" for number in range(5000)), None], first=10)
        two = page(["a"], first=6000)
        writer.write([one, two])
        assert (proxy.cuts, writer.stats.reconnects) == (1, 1)
        assert (one.inserted, one.duplicates, one.rejected) == (5000, 1, 1)
        assert (two.inserted, two.duplicates) == (0, 1)
        assert len(room.ids()) == 5002
        assert room.counts()[1:] == [(1, 10, 5002, 5000, 1, 0, 1), (1, 6000, 1, 0, 1, 0, 0)]
        room.close()


def test_a_partition_leaves_no_lock_behind(database):
    """A server that never hears of the cut gives up the crawl's lock and its rows all the same."""
    with CuttingProxy(database.params["host"], int(database.params["port"])) as proxy:
        room = Room(database, port=proxy.port)
        cut = []

        def crash_point(where):
            if where == "after_copy" and not cut:
                cut.append(where)
                proxy.cut_client_sides()

        one = page(["a", "b"])
        room.writer(crash_point=crash_point).write([one])
        assert cut
        assert one.inserted == 2
        assert room.counts() == [(1, 0, 2, 2, 0, 0, 0)]
        room.close()


def test_a_database_that_stays_away_is_given_up(database):
    """DB_MAX_WAIT passed: DatabaseLost, nothing claimed."""
    with CuttingProxy(database.params["host"], int(database.params["port"])) as proxy:
        room = Room(database, port=proxy.port)
        writer = room.writer(max_wait_s=0.2)
        writer.write([page(["a"])])
    one = page(["b"], first=1)
    with pytest.raises(DatabaseLost, match="DB_MAX_WAIT"):
        writer.write([one])
    assert not one.committed


def test_a_writer_told_to_stop_waits_no_longer_than_its_grace(database, monkeypatch):
    """The stop event ends the wait for a lost database, whatever DB_MAX_WAIT says."""
    monkeypatch.setattr(writer_module, "STOP_GRACE_S", 0.2)
    stop = threading.Event()
    with CuttingProxy(database.params["host"], int(database.params["port"])) as proxy:
        room = Room(database, port=proxy.port)
        writer = room.writer(max_wait_s=3600, stop=stop)
        writer.write([page(["a"])])
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(DatabaseLost):
        writer.write([page(["b"], first=1)])


def test_an_error_that_no_row_is_to_blame_for_commits_nothing(room):
    """A table dropped under the crawl raises, and nothing of the batch is claimed."""
    room.query("ALTER TABLE checkpoint RENAME TO elsewhere")
    one = page(["a"])
    writer = room.writer()
    with pytest.raises(psycopg2.errors.UndefinedTable):
        writer.write([one])
    assert (one.committed, room.ids()) == (False, [])
    room.query("ALTER TABLE elsewhere RENAME TO checkpoint")
    writer.write([one])
    assert (one.committed, room.ids()) == (True, ["a"])


def test_a_refusal_that_no_row_explains_is_raised(room):
    """A ledger figure out of range is nobody's row: the writer says so instead of going round."""
    one = page(["a"])
    one.ask = Ask(1, 0, 1 << 40)
    with pytest.raises(psycopg2.ProgrammingError, match="none of its rows"):
        room.writer().write([one])
    assert room.ids() == []


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_instants_are_the_same_under_any_zone_and_date_style(database, monkeypatch, zone):
    """TZ of the process, time zone and date style of the database change no instant."""
    monkeypatch.setenv("TZ", zone)
    name = database.params["dbname"]
    database.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    database.execute(f"ALTER DATABASE {name} SET datestyle = 'German, DMY'")
    room = Room(database)
    when = [
        datetime(2026, 3, 29, 1, 30, 0, 123456, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
    ]
    room.write(page([event(f"{n}", timestamp=at) for n, at in enumerate(when)]))
    room.write(page([event(f"m{n}", timestamp=at) for n, at in enumerate([*when, when[0]])] + ["0"],
                    first=10))  # fmt: skip
    stored = room.query(
        "SELECT id, to_char(\"timestamp\" AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') "
        "FROM events WHERE id ~ '^m?[012]$' ORDER BY id"
    )
    said = ["2026-03-29 01:30:00.123456", "0001-01-01 00:00:00.000000",
            "9999-12-31 23:59:59.999999"]  # fmt: skip
    assert [text for _, text in stored] == said * 2
    room.close()


def test_a_server_killed_in_mid_batch_is_started_again_and_waited_for(tmp_path):
    """The embedded server dies in mid-COPY: it is started again, and the batch committed once."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    connector = Connector(EmbeddedTarget(tmp_path, port, "datasync"))
    session = Session(connector, "public")
    session.open(api_base_url="http://127.0.0.1/api/v1", pagination="offset")
    killed = []

    def crash_point(where):
        if where == "after_copy" and not killed:
            home = connector._embedded.home
            [pid_file] = home.rglob("postmaster.pid")
            killed.append(int(pid_file.read_text().split()[0]))
            os.kill(killed[0], signal.SIGQUIT)  # what pg_ctl stop -m immediate sends

    stop = threading.Event()
    writer = CrashingWriter(
        session, on_duplicate="keep", max_wait_s=60, stop=stop, crash_point=crash_point
    )
    one = page(["a", "b", "a"])
    try:
        writer.write([one])
        assert killed
        assert (one.inserted, one.duplicates) == (2, 1)
        ledger = Ledger(connector, "public", max_wait_s=5, stop=threading.Event())
        figures = asyncio.run(ledger.figures(1))
        assert (figures.covered, figures.inserted) == (3, 2)
        asyncio.run(ledger.close())
    finally:
        writer.close()
        connector.release()


def test_a_full_disk_commits_nothing_and_the_range_is_done_when_there_is_room(room):
    """Disk full (53100, raised by a trigger here) isn't waited for, and blames no row."""
    room.query(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE 'No space left on device' USING ERRCODE = '53100'; END$$"
    )
    room.query("CREATE TRIGGER full_disk BEFORE INSERT ON checkpoint EXECUTE FUNCTION full_disk()")
    writer = room.writer()
    one = page(["a", None])
    with pytest.raises(psycopg2.errors.DiskFull):
        writer.write([one])
    assert (one.committed, room.ids(), room.counts()) == (False, [], [])
    assert room.query("SELECT count(*) FROM rejected_events") == [(0,)]
    room.query("DROP TRIGGER full_disk ON checkpoint")
    writer.write([one])
    assert (one.inserted, one.rejected, room.ids()) == (1, 1, ["a"])


def test_a_failed_batch_does_not_claim_to_have_told_the_total(room):
    """The total of a batch that failed is written with the next one that doesn't."""
    room.query("ALTER TABLE checkpoint ADD CONSTRAINT never CHECK (first_offset <> 7)")
    writer = room.writer()
    with pytest.raises(psycopg2.errors.CheckViolation):
        writer.write([page(["a"], first=7, total=99)])
    writer.write([page(["a"], total=99)])
    assert room.query("SELECT total FROM source") == [(99,)]


def test_a_deadlock_is_tried_again(room):
    """Chosen as a deadlock's victim, the writer writes its page again, and counts it rightly."""
    with closing(room.database.connect()) as other, other.cursor() as cursor:
        other.autocommit = False
        cursor.execute("SET deadlock_timeout = '1h'")  # so that the writer is the one that ends
        cursor.execute("INSERT INTO events (id) VALUES ('y')")
        one = page(["x", "y", "z"])
        writing = threading.Thread(target=room.writer().write, args=([one],))
        writing.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while room.query(waiting) == [(0,)]:
            pass
        cursor.execute("INSERT INTO events (id) VALUES ('x')")
        other.commit()
        writing.join(30)
    assert (one.committed, one.inserted, one.duplicates, one.changed) == (True, 1, 2, 2)
    assert room.ids() == ["x", "y", "z"]


def test_a_reading_that_checks_replaces_no_rejection(room):
    """Rejections that stand already are counted as known; a new one takes no other's place."""
    one = page(["a", None, None], first=10)
    one.rejections = [Rejection(1, "no id", b"first"), Rejection(2, "no id", b"second")]
    again = page(["a", None, None, None], first=11, pass_no=-1)
    again.rejections = [
        Rejection(1, "no id", b"second"), Rejection(2, "no id", b"first"),
        Rejection(3, "no id", b"third"),
    ]  # fmt: skip
    room.write(one)
    room.write(again)
    assert (again.inserted, again.duplicates, again.rejected) == (0, 3, 1)
    assert room.query('SELECT "position", raw FROM rejected_events ORDER BY 1') == [
        (11, b"first"), (12, b"second"), (14, b"third")
    ]  # fmt: skip
    more = page([None, None], first=11, pass_no=-2)
    more.rejections = [Rejection(0, "no id", b"fourth"), Rejection(1, "no id", b"fifth")]
    room.write(more)
    assert room.query('SELECT "position", raw FROM rejected_events WHERE "position" > 14') == [
        (15, b"fourth"), (16, b"fifth")
    ]  # fmt: skip
    clean = page(["a"], first=10, pass_no=-3)
    room.write(clean)
    assert (clean.duplicates, clean.rejected) == (1, 0)


def test_rejections_that_are_fetched_again_are_said_anew(room):
    """A redrive is no pass over the set, but what is good now leaves rejected_events."""
    room.write(page(["a", None], first=0))
    good = page(["a", "b"], first=0, pass_no=-1)
    good.ask = Ask(-1, 0, 2, redrive=True)
    room.write(good)
    assert room.query("SELECT count(*) FROM rejected_events") == [(0,)]
    assert room.ids() == ["a", "b"]


def test_a_process_stopped_in_mid_transaction_holds_nobody_up_for_ever(room: Room) -> None:
    """SIGSTOP between COPY and COMMIT: TCP goes on answering, and another process waits for the
    keys. The server ends such a transaction after a time; the stopped one finds its page stored.
    """
    woken = threading.Event()

    def stop(where: str) -> None:
        assert stopped._connection is not None
        with stopped._connection.cursor() as cursor:
            if where == "before_copy":
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 300")  # not 20 s
            elif where == "before_commit" and not woken.wait(30):
                raise TimeoutError

    stopped, other = room.writer(crash_point=stop), room.writer()
    first, again = page(["a", "b"]), page(["a", "b"])
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(stopped.write, [first])
        while not room.query("SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"):
            time.sleep(0.01)
        other.write([again])
        woken.set()
        writing.result()
    assert again.committed
    assert first.committed
    assert room.counts() == [(1, 0, 2, 2, 0, 0, 0)]
