"""Feed exports (``-O events.jsonl``): one line per event, under the columns' names.

Pages are exported after they are committed. Must not change an event.
"""

import codecs
import csv
import logging
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any, Final, Self

import msgspec
from scrapy.exporters import BaseItemExporter

from datasync_crawler.api.secrets import without_password
from datasync_crawler.errors import ConfigError
from datasync_crawler.events.copyrows import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

    from datasync_crawler.events.event import Event
    from datasync_crawler.items import EventPage

logger = logging.getLogger(__name__)

#: Formats with one event per line.
LINE_FORMATS: Final = ("jsonl", "jsonlines", "jl", "csv")


def check_feed(uri: str, options: "Mapping[str, Any]", settings: "BaseSettings") -> None:
    """Raises ConfigError for a feed option that the exporters don't support."""

    def option(name: str, setting: str) -> Any:
        value = options.get(name)
        return settings.get(setting) if value is None else value

    shown = without_password(uri)
    if options.get("format") not in LINE_FORMATS:
        raise ConfigError(
            f"{shown} has the format {options.get('format')!r}, which doesn't hold one event per "
            f"line. Use one of {', '.join(LINE_FORMATS)}, such as -O events.jsonl."
        )
    fields = options.get("fields") or settings.getdictorlist("FEED_EXPORT_FIELDS")
    if unknown := [name for name in fields or () if name not in COLUMNS]:
        raise ConfigError(
            f"{shown} has the unknown field {unknown[0]!r}: set FEED_EXPORT_FIELDS, or the feed's "
            f"fields, to some of {', '.join(COLUMNS)}."
        )
    encoding = option("encoding", "FEED_EXPORT_ENCODING")
    if encoding and not _is_utf8(str(encoding)):
        raise ConfigError(
            f"{shown} has the encoding {encoding!r}, and exports are always UTF-8: leave out "
            "FEED_EXPORT_ENCODING and the feed's encoding."
        )
    if option("batch_item_count", "FEED_EXPORT_BATCH_ITEM_COUNT"):
        raise ConfigError(
            f"{shown} has a batch_item_count, which would count pages, not events: leave out "
            "FEED_EXPORT_BATCH_ITEM_COUNT and batch_item_count, and split the file afterwards "
            "(split --lines=500000 events.jsonl)."
        )
    if str(option("indent", "FEED_EXPORT_INDENT") or 0) != "0" or options.get("item_export_kwargs"):
        raise ConfigError(
            f"{shown} has an indent or item_export_kwargs, and an export holds one event per line: "
            "leave out FEED_EXPORT_INDENT, indent and item_export_kwargs."
        )


def _is_utf8(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding).name == "utf-8"
    except LookupError:
        return False


class EventExporter(BaseItemExporter):
    """The base of both formats. Stats: feedexport/failed_count/…, as Scrapy names them.

    A file that can't be written (a full disk) ends the export, not the crawl.
    """

    def __init__(self, file: IO[bytes], *, crawler: "Crawler | None" = None, **kwargs: Any) -> None:
        super().__init__(dont_fail=True, **kwargs)
        self._file = file
        self._crawler = crawler
        self._has_failed = False
        fields = self.fields_to_export or COLUMNS
        #: Name in the export by column (FEED_EXPORT_FIELDS, a feed's fields).
        self.names = dict(
            fields if isinstance(fields, Mapping) else zip(fields, fields, strict=True)
        )

    @classmethod
    def from_crawler(cls, crawler: "Crawler", *args: Any, **kwargs: Any) -> Self:
        """Scrapy's constructor."""
        return cls(*args, crawler=crawler, **kwargs)

    def export_item(self, item: "EventPage") -> None:
        """Writes the page's stored events."""
        if self._has_failed or (item.checks and not item.inserted):
            return  # a page that checks others holds no new events
        try:
            self.write(item)
        except OSError as error:
            self._has_failed = True
            logger.error("The export can't be written (%s): it is incomplete.", error.strerror)
            if self._crawler is not None:
                self._crawler.stats.inc_value(f"feedexport/failed_count/{type(self).__name__}")

    def write(self, page: "EventPage") -> None:
        """Writes the page's stored events in the format."""
        raise NotImplementedError


class EventLinesExporter(EventExporter):
    """JSON Lines. Numbers inside properties, session and extra stay as they were served."""

    def __init__(self, file: IO[bytes], **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self._encoder = msgspec.json.Encoder()

    def write(self, page: "EventPage") -> None:
        """Writes a line for each of the page's stored events."""
        names = self.names.items()
        rows = [{label: _on_one_line(getattr(event, name)) for name, label in names}
                for event in page.events]  # fmt: skip
        self._file.write(self._encoder.encode_lines(rows))


class EventCsvExporter(EventExporter):
    """CSV with a header line; JSON columns as their JSON text, a missing value as nothing."""

    def __init__(self, file: IO[bytes], **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self._writer = csv.writer(_Utf8(file))

    def start_exporting(self) -> None:
        """Writes the header, unless the file has content already (``-o``)."""
        if not (self._file.seekable() and self._file.tell()):
            self._writer.writerow(self.names.values())

    def write(self, page: "EventPage") -> None:
        """Writes a row for each of the page's stored events."""
        self._writer.writerows(_texts(event, self.names) for event in page.events)


class _Utf8:
    """A binary file with the `write` that csv.writer needs."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _on_one_line(value: Any) -> Any:
    """JSON served over several lines as one line; numbers and texts stay as they are."""
    if isinstance(value, msgspec.Raw) and (b"\n" in bytes(value) or b"\r" in bytes(value)):
        return msgspec.Raw(msgspec.json.format(bytes(value), indent=-1))
    return value


def _texts(event: "Event", names: "Iterable[str]") -> list[str]:
    return [_text(getattr(event, name)) for name in names]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, msgspec.Raw | bytes):
        return bytes(value).decode()
    return str(value.isoformat())
