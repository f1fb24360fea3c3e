"""The meaning of statuses other than 200. Pure."""

import re
from typing import Final

from datasync_crawler.api.addresses import without_query
from datasync_crawler.crawl.values import (
    Ask,
    CursorExpired,
    Empty,
    Failed,
    LimitRefused,
    NoEndpoint,
    Outcome,
)

#: Answers to a page size above the server's maximum, where the server doesn't cap it silently.
LIMIT_REFUSED: Final = {400, 413, 422}
#: The endpoint doesn't exist.
NO_ENDPOINT: Final = {404, 405, 501}
#: Some servers answer with these instead of an empty page behind the end.
NOTHING_THERE: Final = {204, 404, 416}
#: Answers to an expired cursor.
CURSOR_REFUSED: Final = {400, 404, 410, 422}


def read_status(status: int, body: bytes, url: str, ask: Ask, limit_param: str) -> Outcome:
    """The outcome of an answer with *status*; of *body* the first 4 kB are read."""
    if ask.cursor and status in CURSOR_REFUSED:
        return CursorExpired(ask)
    at_front = ask.offset == 0 and not ask.cursor
    named = limit_param.lower() in body[:4096].decode(errors="replace").lower()
    if at_front and named and status in LIMIT_REFUSED:
        return LimitRefused(ask)
    if at_front and ask.cursor is None and status in NO_ENDPOINT:
        return NoEndpoint(f"There is no bulk endpoint at {without_query(url)} (HTTP {status})")
    if status in NOTHING_THERE and ask.cursor is None:
        return Empty(ask)
    return Failed(ask, f"HTTP {status}")


def remedy(status: int, body: bytes = b"") -> str | None:
    """What the user can do about a status; None where trying again may help."""
    if status == 400 and re.search(rb"https (port|server)|ssl-enabled", body[:4096], re.IGNORECASE):
        return "This server speaks https on that port: set API_BASE_URL to https://…"
    if status in {401, 403} or status >= 500:
        return None
    if 300 <= status < 400:
        return "Redirects aren't followed (the key would travel along): set API_BASE_URL to it"
    if status in NO_ENDPOINT:
        return "Check API_BASE_URL (it ends in /api/v1), BULK_PATH and PAGINATION"
    return "Check BULK_PAGE_SIZE, OFFSET_PARAM and LIMIT_PARAM"
