"""Feed exports (``-O events.jsonl``): a line per event, with the columns' names.

Pages come here when they are committed. Must not change an event.
"""

import csv
import logging
from typing import IO, TYPE_CHECKING, Any, Final, Self

import msgspec
from scrapy.exporters import BaseItemExporter

from datasync_crawler.core.copyrows import COLUMNS

if TYPE_CHECKING:
    from scrapy.crawler import Crawler

    from datasync_crawler.core.events import Event
    from datasync_crawler.items import EventPage

logger = logging.getLogger(__name__)

#: Formats that hold an event a line.
LINE_FORMATS: Final = ("jsonl", "jsonlines", "jl", "csv")


class EventExporter(BaseItemExporter):
    """What both formats share. Stats: feedexport/failed_count/…, which Scrapy's own begins with.

    A file that can't be written to (a full disk) ends the export, not the crawl.
    """

    def __init__(self, file: IO[bytes], *, crawler: "Crawler | None" = None, **kwargs: Any) -> None:
        super().__init__(dont_fail=True, **kwargs)
        self._file = file
        self._crawler = crawler
        self._has_failed = False

    @classmethod
    def from_crawler(cls, crawler: "Crawler", *args: Any, **kwargs: Any) -> Self:
        """Scrapy's constructor."""
        return cls(*args, crawler=crawler, **kwargs)

    def export_item(self, item: "EventPage") -> None:
        """Writes the page's stored events."""
        if self._has_failed or (item.checks and not item.inserted):
            return  # a reading that checks others has nothing of its own
        try:
            self.write(item)
        except OSError as error:
            self._has_failed = True
            logger.error("The export can't be written (%s): it isn't whole.", error.strerror)
            if self._crawler is not None:
                self._crawler.stats.inc_value(f"feedexport/failed_count/{type(self).__name__}")

    def write(self, page: "EventPage") -> None:
        """Writes them in the format."""
        raise NotImplementedError


class EventLinesExporter(EventExporter):
    """JSON Lines. Numbers inside properties, session and extra stay as they were served."""

    def __init__(self, file: IO[bytes], **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self._encoder = msgspec.json.Encoder()

    def write(self, page: "EventPage") -> None:
        """Writes a line for each of the page's stored events."""
        rows = [{name: _on_one_line(getattr(event, name)) for name in COLUMNS}
                for event in page.events]  # fmt: skip
        self._file.write(self._encoder.encode_lines(rows))


class EventCsvExporter(EventExporter):
    """CSV with a header line; JSON columns as their JSON text, a missing value as nothing."""

    def __init__(self, file: IO[bytes], **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self._writer = csv.writer(_Utf8(file))

    def start_exporting(self) -> None:
        """Writes the header, but not into the middle of a file (``-o``) that has one."""
        if not (self._file.seekable() and self._file.tell()):
            self._writer.writerow(COLUMNS)

    def write(self, page: "EventPage") -> None:
        """Writes a row for each of the page's stored events."""
        self._writer.writerows(_texts(event) for event in page.events)


class _Utf8:
    """The one method that csv.writer needs, over a binary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _on_one_line(value: Any) -> Any:
    """JSON that was served over several lines, on one; its numbers and texts stay as they are."""
    if isinstance(value, msgspec.Raw) and (b"\n" in bytes(value) or b"\r" in bytes(value)):
        return msgspec.Raw(msgspec.json.format(bytes(value), indent=-1))
    return value


def _texts(event: "Event") -> list[str]:
    return [_text(getattr(event, name)) for name in COLUMNS]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, msgspec.Raw | bytes):
        return bytes(value).decode()
    return str(value.isoformat())
