"""The health check of a container: exit status 0 while this host's crawl has a heartbeat, else 1.

    python -m datasync_crawler.monitor.healthcheck

Reads the same settings as the crawl. Must not start a server or send a request to the API.
"""

import os
import sys
from typing import Final

from scrapy.settings import Settings

from datasync_crawler.config import Config
from datasync_crawler.errors import CrawlError
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.health import read_health
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
        health = read_health(Connector(config.database), config.schema, stale_after_s=STALE_AFTER_S)
    except CrawlError as error:
        print(error)
        return 1
    print(health.sentence)
    return 0 if health.alive else 1


if __name__ == "__main__":
    sys.exit(main())
