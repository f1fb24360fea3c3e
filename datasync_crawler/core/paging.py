"""How a range is asked for: the query parameters of each kind of pagination.

Pure. `offset`: any range, by its first offset and its length. `page`: numbered pages of one fixed
size. `cursor`: one page after another, each named by the one before. Servers differ in names alone;
the names come from the settings.
"""

from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlencode

from datasync_crawler.core.ranges import Range


@dataclass(frozen=True, slots=True)
class Wanted:
    """A range to be fetched in pass *pass_no*; *cursor*: reached by that one ("": the first)."""

    pass_no: int
    range: Range
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Paging:
    """Paths and parameter names of one server. *numbered_from*: None for offsets, else 0 or 1."""

    bulk_url: str
    cursor_url: str
    offset_param: str
    limit_param: str
    cursor_param: str
    numbered_from: int | None = None

    def url(self, wanted: Wanted) -> str:
        """The address that serves *wanted*."""
        first, count = wanted.range.first, wanted.range.count
        if wanted.cursor is not None:
            query: dict[str, object] = {self.limit_param: count}
            if wanted.cursor:
                query[self.cursor_param] = wanted.cursor
            return f"{self.cursor_url}?{urlencode(query)}"
        place = first
        if self.numbered_from is not None:
            place = first // count + self.numbered_from
        query = {self.offset_param: place, self.limit_param: count}
        return f"{self.bulk_url}?{urlencode(query)}"

    def aligned(self, wanted: Range, page_size: int) -> Range:
        """What a request for *wanted* really brings: numbered pages begin at multiples."""
        if self.numbered_from is None:
            return wanted
        return Range(wanted.first - wanted.first % page_size, page_size)

    def behind(self, end: int, page_size: int) -> list[Range]:
        """Where to look whether there is anything from *end* on.

        A numbered page that holds *end* may have come short: it is asked for again, and the next.
        """
        looks = [Range(end, page_size)]
        if self.numbered_from is not None and end % page_size:
            looks.append(Range(end + page_size, page_size))
        return looks


class RepeatWatch:
    """Notices a server that answers different offsets with the same page.

    Keeps the edges (first id, last id, length) of the first pages and of the latest. One page at
    two offsets may be a mishap, to be tried again; a server that has never served but one page
    ignores the offset.
    """

    def __init__(self, most: int = 50) -> None:
        self._most = most
        self._offsets: dict[tuple[str | None, str | None, int], int] = {}
        self._strikes = 0

    def repeats(self, first_offset: int, first_id: str | None, last_id: str | None, n: int) -> bool:
        """Whether the page at *first_offset* is one that another offset has brought already."""
        if n < 2 or first_id is None:
            return False
        edges = first_id, last_id, n
        again = self._offsets.setdefault(edges, first_offset) != first_offset
        if len(self._offsets) > 2 * self._most:
            del self._offsets[next(islice(self._offsets, self._most, None))]
        self._strikes += again
        return again

    @property
    def offset_is_ignored(self) -> bool:
        """Three pages were the same one, and never another came."""
        return self._strikes >= 3 and len(self._offsets) == 1
