"""The address of each request, for offsets, numbered pages and cursors. Pure.

Paths and parameter names come from the settings.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from datasync_crawler.crawl.values import Ask

if TYPE_CHECKING:
    from datasync_crawler.config import Config


@dataclass(frozen=True, slots=True)
class Addresses:
    """Paths and parameter names of one server. *numbered_from*: None for offsets, else 0 or
    1. *fixed*: parameters of every request.
    """

    bulk_url: str
    cursor_url: str
    offset_param: str
    limit_param: str
    cursor_param: str
    numbered_from: int | None = None
    fixed: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, config: "Config") -> "Addresses":
        """From the settings."""
        return cls(
            bulk_url=config.api_base_url + config.bulk_path,
            cursor_url=config.api_base_url + config.cursor_path,
            offset_param=config.offset_param,
            limit_param=config.limit_param,
            cursor_param=config.cursor_param,
            fixed=config.query_params,
            numbered_from=config.page_start if config.pagination == "page" else None,
        )

    def url(self, ask: Ask) -> str:
        """The URL of a request. A cursor may be a URL of the same origin."""
        limit = ask.limit
        if ask.cursor is not None:
            if ask.cursor.startswith(("http://", "https://")):
                return ask.cursor
            query: list[tuple[str, object]] = [*self.fixed, (self.limit_param, limit)]
            if ask.cursor:
                query.append((self.cursor_param, ask.cursor))
            return f"{self.cursor_url}?{urlencode(query)}"
        place = ask.offset
        if self.numbered_from is not None:
            place = place // limit + self.numbered_from
        query = [*self.fixed, (self.offset_param, place), (self.limit_param, limit)]
        return f"{self.bulk_url}?{urlencode(query)}"


def next_address(url: str, link: str) -> str | None:
    """The URL of the next page that the response of *url* links to; None if it is of another
    origin, where the key must not go.

    Servers behind a proxy that ends TLS name their own host with http:// and no port: that is
    followed by https://.
    """
    address = urljoin(url, link)
    ours, theirs = urlsplit(url), urlsplit(address)
    if (theirs.scheme, theirs.netloc) == ("http", ours.netloc):
        address = theirs._replace(scheme=ours.scheme).geturl()
    return address if origin(address) == origin(url) else None


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of *url* (RFC 6454 §4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def without_query(url: str) -> str:
    """A URL for a message: the query may hold a secret."""
    return url.split("?", maxsplit=1)[0]
