"""`scrapy export`: what is stored, whole and exact, in each format; and when it can't be."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from crawling import EPOCH, PROJECT, crawl, environment
from databases import own_database
from mockserver import MockServer
from test_verify import SETTINGS, scrapy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from databases import Database, Server

EVENTS = 3000
COLUMNS = ["id", "session_id", "user_id", "type", "name", "properties", "timestamp", "session",
           "extra"]  # fmt: skip
#: What a line format could stumble over.
ODD = 'a "quoted", comma; back\\slash\ttab\nnew line \x02 \x1b ü 漢 \u2028 \\.'


@pytest.fixture(scope="module")
def crawled(server: Server) -> Iterator[str]:
    """The database of a crawl, to be copied: a crawled table, with an event of odd text."""
    with own_database(server) as database:
        with MockServer("--events", str(EVENTS)) as mock:
            assert crawl(mock, database, *SETTINGS).status == 0
        database.execute(
            "UPDATE events SET name = %(odd)s, properties = %(json)s, extra = '{\"n\": 1.50}', "
            "user_id = NULL, session_id = '' WHERE id = (SELECT min(id) FROM events)",
            {"odd": ODD, "json": json.dumps({"odd": ODD, "n": [1, None, True]})},
        )
        database.close()  # a database that is copied has no connections
        yield database.params["dbname"]


@pytest.fixture
def filled(server: Server, crawled: str) -> Iterator[Database]:
    """A copy of the test's own of what was crawled."""
    with own_database(server, crawled) as database:
        yield database


def stored(database: Database, where: str = "true") -> dict[str, list[Any]]:
    """Rows by id as text, JSON parsed, the timestamp in microseconds."""
    rows = database.execute(
        "SELECT id, session_id, user_id, type, name, properties, "
        f'"timestamp", session, extra FROM events WHERE {where}'
    )
    return {row[0]: [*row[:6], (row[6] - EPOCH), *row[7:]] for row in rows}


def lines_of(path: Path) -> list[str]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return text.split("\n")


def read_jsonl(path: Path) -> dict[str, list[Any]]:
    *lines, end = lines_of(path)
    assert end == ""
    found = {}
    for line in lines:
        event = json.loads(line)
        assert list(event) == COLUMNS
        event["timestamp"] = datetime.fromisoformat(event["timestamp"]) - EPOCH
        found[event["id"]] = list(event.values())
    assert len(found) == len(lines)
    return found


def read_csv(path: Path) -> dict[str, list[Any]]:
    """None is nothing, the empty text is nothing in quotes: Python's reader can't tell them."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        text = file.read().decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == COLUMNS
    found = {}
    for row in rows:
        values: list[Any] = [value or None for value in row]
        for place in (5, 7, 8):
            values[place] = None if values[place] is None else json.loads(values[place])
        values[6] = datetime.fromisoformat(values[6]) - EPOCH
        found[row[0]] = values
    assert len(found) == len(rows)
    return found


def without_empty(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {key: [None if value == "" else value for value in row] for key, row in rows.items()}


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz", "Events.CSV", "e.csv.gz"])
def test_every_row_is_there_as_it_is_stored(filled: Database, tmp_path: Path, name: str) -> None:
    """Each column of each row; said how many; a second time it is said that a file was replaced."""
    file = tmp_path / name
    done = scrapy(None, filled, "export", str(file))
    assert done.status == 0, done.log
    size = f"{file.stat().st_size:,}"
    assert done.log.strip().endswith(f"{name}: 3,000 events, {size} bytes.")
    if "jsonl" in name:
        assert read_jsonl(file) == stored(filled)
    else:
        assert read_csv(file) == without_empty(stored(filled))
        again = scrapy(None, filled, "export", str(file))
        assert "in place of an earlier file" in again.log
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="there is no pyarrow")
def test_parquet(filled: Database, tmp_path: Path) -> None:
    """The same, with an instant for a timestamp and NULL apart from the empty text."""
    from pyarrow import parquet  # noqa: PLC0415

    file = tmp_path / "events.parquet"
    done = scrapy(None, filled, "export", str(file))
    assert done.status == 0, done.log
    table = parquet.read_table(file)
    assert table.column_names == COLUMNS
    assert str(table.schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    found = {}
    for row in table.to_pylist():
        for name in ("properties", "session", "extra"):
            row[name] = None if row[name] is None else json.loads(row[name])
        row["timestamp"] -= EPOCH
        found[row["id"]] = list(row.values())
    assert found == stored(filled)


def test_since(filled: Database, tmp_path: Path) -> None:
    """Events from that instant on, itself included; nonsense is refused."""
    middle = filled.value('SELECT "timestamp"::text FROM events ORDER BY "timestamp" OFFSET 1500')
    file = tmp_path / "events.jsonl"
    done = scrapy(None, filled, "export", "--since", middle.replace("+00", "Z"), str(file))
    assert done.status == 0, done.log
    wanted = stored(filled, f"\"timestamp\" >= '{middle}'")
    assert 0 < len(wanted) < EVENTS
    assert read_jsonl(file) == wanted
    wrong = scrapy(None, filled, "export", "--since", "yesterday", str(file))
    assert (wrong.status, "--since is 'yesterday'" in wrong.log) == (2, True)


def test_what_cant_be_exported(database: Database, tmp_path: Path) -> None:
    """Exit 2 for a wrong name, 1 for nothing to read; each with a sentence, and no file."""
    for arguments, status, said in (
        ([], 2, "takes one file"),
        (["events.xlsx"], 2, "has no known ending"),
        ([str(tmp_path / "no" / "events.csv")], 2, "name a file in a folder that exists"),
        ([str(tmp_path / "events.csv")], 1, "Nothing has been crawled into schema public yet."),
    ):
        done = scrapy(None, database, "export", *arguments)
        assert done.status == status, done.log
        assert said in done.log
        assert "Traceback" not in done.log
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="there is pyarrow")
def test_parquet_without_pyarrow(database: Database, tmp_path: Path) -> None:
    """Exit 2, and what to install."""
    done = scrapy(None, database, "export", str(tmp_path / "events.parquet"))
    assert (done.status, "-m pip install pyarrow" in done.log) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_export_leaves_nothing(filled: Database, tmp_path: Path, number: int) -> None:
    """Exit 1, the file that was there stays, and no part of the new one is left."""
    file = tmp_path / "events.csv.gz"
    file.write_text("before")
    filled.execute(
        "INSERT INTO events SELECT id || '-' || n, session_id, user_id, type, name, properties, "
        '"timestamp", session, extra FROM events, generate_series(1, 100) AS n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "scrapy", "export", str(file)],
        cwd=PROJECT,
        env=environment(None, filled),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob(".*.part")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1, output
    assert output.strip().endswith("events.csv.gz wasn't written.")
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv.gz"]
    assert file.read_text() == "before"


def test_a_folder_that_may_not_be_written_to(filled: Database) -> None:
    """Exit 1 and a sentence, for root, too."""
    done = scrapy(None, filled, "export", "/proc/events.csv")
    assert done.status == 1, done.log
    assert "/proc/events.csv can't be written" in done.log
