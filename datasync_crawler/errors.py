"""What stops a crawl: errors whose message is a sentence for the user, without a traceback.

Each knows its exit status (design: 1 stopped or incomplete, 2 bad configuration) and the finish
reason that the run is closed with. They live in the outermost module so that every room may raise
and catch them.
"""

from typing import ClassVar


class CrawlError(Exception):
    """Base of all errors that are told to the user as they are."""

    reason: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1


class ConfigError(CrawlError):
    """A setting is missing or wrong. Raised by `config` and `store.targets`."""

    reason = "configuration"
    exit_status = 2


class DatabaseRefused(CrawlError):
    """The server answered with an error: password, rights, name, disk full. Raised by `store`."""

    reason = "database_refused"
    exit_status = 2


class TablesMissing(DatabaseRefused):
    """A table or column isn't there: no crawl yet, or not the crawler's. Raised by
    `store.statements`.
    """


class SchemaConflict(CrawlError):
    """A table of ours has another shape, or the schema holds another API's events.

    Raised by `store.schema` and `store.session`.
    """

    reason = "schema_conflict"
    exit_status = 2


class DatabaseUnreachable(CrawlError):
    """No answer from the server at the start. Raised by `store.connection`."""

    reason = "database_unreachable"


class DatabaseLost(CrawlError):
    """The database went away in mid-crawl and didn't come back in time. Raised by `store`."""

    reason = "database_lost"


class CrawlLocked(CrawlError):
    """Another process crawls into this schema. Raised by `store.session`."""

    reason = "locked"
