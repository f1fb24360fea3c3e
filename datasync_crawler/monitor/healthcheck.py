"""The health check of a container: exit status 0 while this host's crawl has a heartbeat, else 1.

    python -m datasync_crawler.monitor.healthcheck

Reads the same settings as the crawl. Must not start a server or send a request to the API.
"""

import os
import sys
from typing import Final

from scrapy.settings import Settings

from datasync_crawler.config import Config
from datasync_crawler.errors import CrawlError, TablesMissing
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.freshness import read_heartbeat
from datasync_crawler.store.targets import EmbeddedTarget

#: In seconds, for a heartbeat every second: a short outage of the database is no failure.
STALE_AFTER_S: Final = 60.0


def main() -> int:
    """Prints the crawl's health as one line; returns the exit status."""
    settings = Settings()
    settings.setmodule(os.environ.get("SCRAPY_SETTINGS_MODULE", "datasync_crawler.settings"))
    try:
        config = Config.from_settings(settings, require_api=False)
        if isinstance(config.database, EmbeddedTarget):
            print("No database is configured: set DATABASE_URL or DB_HOST.")
            return 1
        alive, sentence = health(Connector(config.database), config.schema)
    except CrawlError as error:
        alive, sentence = False, str(error)
    print(sentence)
    return 0 if alive else 1


def health(connector: Connector, schema: str) -> tuple[bool, str]:
    """Whether this host's newest run has a recent heartbeat or has ended, and a sentence on it.

    Raises CrawlError.
    """
    try:
        beat = read_heartbeat(connector, schema)
    except TablesMissing as error:
        return False, f"The heartbeat can't be read. {error}"
    if beat is None:
        return False, "No crawl has begun on this host."
    age_s, has_ended = beat
    if has_ended:
        return True, f"The crawl has ended, {age_s:.0f} s ago."
    if age_s < -STALE_AFTER_S:
        return False, "The newest heartbeat is in the future, where no crawl has written it."
    return age_s <= STALE_AFTER_S, f"The last heartbeat is {age_s:.0f} s old."


if __name__ == "__main__":
    sys.exit(main())
