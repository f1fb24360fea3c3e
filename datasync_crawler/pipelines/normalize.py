"""Normalising of timestamps: an aware UTC datetime, or a rejection.

Must not do I/O.
"""

from typing import TYPE_CHECKING

from datasync_crawler.events.timestamps import normalize_timestamps

if TYPE_CHECKING:
    from datasync_crawler.items import EventPage


class NormalizePipeline:
    """Uses no settings."""

    def process_item(self, item: "EventPage") -> "EventPage":
        """Replaces each event's timestamp by a datetime; unreadable ones become rejections."""
        item.reject(normalize_timestamps(item.events))
        return item
