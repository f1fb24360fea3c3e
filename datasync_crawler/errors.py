"""Errors that end a crawl. The message is a sentence for the user, shown without a traceback.

`exit_status`: 1 stopped or incomplete, 2 something has to be set up differently. `reason`: the
finish reason in ``crawl_runs``. Every room may raise and catch them.
"""

from typing import ClassVar

#: What is said of a signal that comes before there is anything to stop.
STOPPED_EARLY = (
    "Stopped before the crawl had begun; what earlier runs have committed is safe. Run the same "
    "command again: it goes on where it was."
)


class CrawlError(Exception):
    """Base of all errors whose message is shown to the user as it is."""

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
    """A table isn't there: no crawl yet, or another schema. Raised by
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
    """An open connection failed, the server is out of disk, memory or connections, or the database
    stayed away for DB_MAX_WAIT. Raised by `store`.
    """

    reason = "database_lost"
