"""Feed exports (``-O events.jsonl``): a line per event, with the columns' names.

Pages come here when they are committed. Must not change an event.
"""

import csv
from typing import IO, TYPE_CHECKING, Any, Final

import msgspec
from scrapy.exporters import BaseItemExporter

from datasync_crawler.core.copyrows import COLUMNS

if TYPE_CHECKING:
    from datasync_crawler.core.events import Event
    from datasync_crawler.items import EventPage

#: Formats that hold an event a line.
LINE_FORMATS: Final = ("jsonl", "jsonlines", "jl", "csv")


class EventLinesExporter(BaseItemExporter):
    """JSON Lines. Numbers inside properties, session and extra stay as they were served."""

    def __init__(self, file: IO[bytes], **kwargs: Any) -> None:
        super().__init__(dont_fail=True, **kwargs)
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def export_item(self, item: "EventPage") -> None:
        """Writes the page's stored events."""
        rows = [{name: _on_one_line(getattr(event, name)) for name in COLUMNS}
                for event in item.events]  # fmt: skip
        self._file.write(self._encoder.encode_lines(rows))


class EventCsvExporter(BaseItemExporter):
    """CSV with a header line; JSON columns as their JSON text, a missing value as nothing."""

    def __init__(self, file: IO[bytes], **kwargs: Any) -> None:
        super().__init__(dont_fail=True, **kwargs)
        self._file = file
        self._writer = csv.writer(_Utf8(file))

    def start_exporting(self) -> None:
        """Writes the header, but not into the middle of a file (``-o``) that has one."""
        if not (self._file.seekable() and self._file.tell()):
            self._writer.writerow(COLUMNS)

    def export_item(self, item: "EventPage") -> None:
        """Writes the page's stored events."""
        self._writer.writerows(_texts(event) for event in item.events)


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
