"""exporters.py: each stored event a line, with nothing changed."""

from __future__ import annotations

import csv
import gzip
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from scrapy.utils.test import get_crawler

from datasync_crawler.api import answers
from datasync_crawler.crawl.values import Ask
from datasync_crawler.errors import ConfigError
from datasync_crawler.events.copyrows import COLUMNS
from datasync_crawler.events.decoding import PageDecoder
from datasync_crawler.exporters import EventCsvExporter, EventLinesExporter, check_feed
from datasync_crawler.items import EventPage
from datasync_crawler.pipelines.normalize import NormalizePipeline

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"""{"data": [
{"id": "plain", "type": "click", "timestamp": 1769541612369,
 "properties": {"n": 123456789012345678901234567890, "f": 1.10, "e": 1E400}},
{"id": "odd, \\"quoted\\"\\n\\u2028 \xc3\xa4", "timestamp": "2026-01-27T19:20:12+05:00",
 "session": {
   "id": "over\\nlines",
   "n": 1.000000000000000000000000000001
 }, "colour": "blue"},
{"id": "bad", "timestamp": "10:30"}
], "meta": {"total": 3}}"""


def page() -> EventPage:
    """BODY as the pipelines leave it: two events and a rejection."""
    decoder = PageDecoder()
    wire = decoder.decode(BODY)
    made = EventPage(
        ask=Ask(1, 0, 3),
        ids=answers.known_by(wire),
        events=wire.events,
        indexes=range(len(wire.events)) if wire.indexes is None else wire.indexes,
        rejections=list(wire.rejections),
        body=BODY,
        decoder=decoder,
    )
    return NormalizePipeline().process_item(made)


def exported(
    kind: type[EventLinesExporter | EventCsvExporter], pages: int = 1, **options: Any
) -> bytes:
    file = io.BytesIO()
    exporter = kind(file, **options)
    exporter.start_exporting()
    for _ in range(pages):
        exporter.export_item(page())
    exporter.finish_exporting()
    return file.getvalue()


def test_json_lines_hold_an_event_each() -> None:
    """A line per stored event, the columns as keys, JSON columns as JSON and null for nothing."""
    lines = exported(EventLinesExporter, pages=2).split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == 4
    first, second = (json.loads(line) for line in lines[:2])
    assert tuple(first) == COLUMNS
    assert (first["id"], first["type"], first["session"]) == ("plain", "click", None)
    assert datetime.fromisoformat(first["timestamp"]) == datetime(
        2026, 1, 27, 19, 20, 12, 369000, tzinfo=UTC
    )
    assert second["id"] == 'odd, "quoted"\n\u2028 ä'
    assert second["extra"] == {"colour": "blue"}
    assert second["session"]["id"] == "over\nlines"


def test_json_that_came_over_several_lines_stays_one() -> None:
    """A pretty-printing API doesn't break the lines, and its numbers keep every digit."""
    text = exported(EventLinesExporter)
    assert b'"n":1.000000000000000000000000000001' in text
    assert b"123456789012345678901234567890" in text
    assert b"1E400" in text
    assert b"1.10" in text


def test_csv_has_the_columns_names_once() -> None:
    """A header, then a row per stored event, JSON columns as their text, nothing for null."""
    rows = list(csv.DictReader(io.StringIO(exported(EventCsvExporter, 2).decode(), newline="")))
    assert len(rows) == 4
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["session"] == ""
    assert rows[0]["timestamp"] == "2026-01-27T19:20:12.369000+00:00"
    assert rows[1]["id"] == 'odd, "quoted"\n\u2028 ä'
    assert json.loads(rows[1]["session"])["id"] == "over\nlines"
    assert "123456789012345678901234567890" in rows[0]["properties"]


def test_csv_that_is_appended_to_keeps_its_one_header(tmp_path: Path) -> None:
    """`-o` opens the file at its end: no second header in the middle."""
    path = tmp_path / "events.csv"
    for _ in range(2):
        with path.open("ab") as file:
            exporter = EventCsvExporter(file)
            exporter.start_exporting()
            exporter.export_item(page())
    with path.open(newline="", encoding="utf-8") as file:
        assert [row[0] for row in csv.reader(file)].count("id") == 1


def test_csv_goes_into_a_stream_that_cant_be_sought(tmp_path: Path) -> None:
    """Standard output and compressing files have no position to ask for."""
    path = tmp_path / "events.csv.gz"
    with gzip.open(path, "wb") as file:
        exporter = EventCsvExporter(file)  # type: ignore[arg-type]
        exporter.start_exporting()
        exporter.export_item(page())
    assert gzip.decompress(path.read_bytes()).startswith(b"id,session_id,")


@pytest.mark.parametrize("kind", [EventLinesExporter, EventCsvExporter])
def test_a_rejected_event_isnt_exported(kind: type[EventLinesExporter | EventCsvExporter]) -> None:
    """What is exported is what is stored."""
    assert b'"bad"' not in exported(kind)
    assert b"\nbad," not in exported(kind)


def test_fields_are_chosen_and_renamed() -> None:
    """As FEED_EXPORT_FIELDS or a feed's fields say: a list, or names for names, in their order."""
    lines = exported(EventLinesExporter, fields_to_export=["type", "id"]).splitlines()
    assert lines[0] == b'{"type":"click","id":"plain"}'
    lines = exported(EventCsvExporter, fields_to_export={"id": "key", "name": "n"}).splitlines()
    assert lines[:2] == [b"key,n", b"plain,"]


@pytest.mark.parametrize(
    ("options", "settings", "word"),
    [
        ({"format": "xml"}, {}, "format 'xml'"),
        ({"format": "csv", "fields": ["colour"]}, {}, "'colour'"),
        ({"format": "csv", "fields": {"colour": "c"}}, {}, "'colour'"),
        ({"format": "csv", "encoding": "latin-1"}, {}, "'latin-1'"),
        ({"format": "csv", "encoding": "no such"}, {}, "'no such'"),
        ({"format": "csv", "batch_item_count": 500}, {}, "batch_item_count"),
        ({"format": "csv"}, {"FEED_EXPORT_BATCH_ITEM_COUNT": "500"}, "count pages, not events"),
        ({"format": "csv"}, {"FEED_EXPORT_BATCH_ITEM_COUNT": 0}, None),
        ({"format": "csv", "indent": 1}, {}, "indent"),
        ({"format": "csv", "item_export_kwargs": {"x": 1}}, {}, "item_export_kwargs"),
        ({"format": "csv"}, {"FEED_EXPORT_FIELDS": "id,colour"}, "'colour'"),
        ({"format": "csv", "fields": ["id"]}, {"FEED_EXPORT_FIELDS": "colour"}, None),
        ({"format": "csv", "encoding": "utf8"}, {"FEED_EXPORT_ENCODING": "latin-1"}, None),
        ({"format": "jl"}, {"FEED_EXPORT_FIELDS": {"id": "key"}}, None),
    ],
)
def test_what_an_export_cannot_do_is_refused(
    options: dict[str, Any], settings: dict[str, Any], word: str | None
) -> None:
    """With a sentence, without the address's password; a feed's own options come first."""
    asked = ("ftp://me:s3cret@host/x", options, get_crawler(settings_dict=settings).settings)
    if word is None:
        check_feed(*asked)
        return
    with pytest.raises(ConfigError, match=word) as caught:
        check_feed(*asked)
    assert "ftp://me:***@host/x" in str(caught.value)
