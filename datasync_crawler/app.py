"""What one crawl is made of: built once for a crawler, and handed to its components.

Owns how configuration, database, limiter and planner are put together. Must not run anything.
"""

import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

from scrapy import signals as scrapy_signals
from scrapy.utils.asyncio import run_in_thread

from datasync_crawler import signals
from datasync_crawler.config import Config
from datasync_crawler.crawl.reader import Reader
from datasync_crawler.ratelimit.in_flight import InFlightLimit
from datasync_crawler.ratelimit.limiter import Limiter
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.leases import Leases
from datasync_crawler.store.ledger import Ledger

if TYPE_CHECKING:
    from scrapy.crawler import Crawler
    from scrapy.settings import BaseSettings

    from datasync_crawler.crawl.ports import World


class Component:
    """The base of what Scrapy makes for a crawler, and calls by its signals or by name."""

    def __init__(self, crawler: "Crawler") -> None:
        raise NotImplementedError

    @classmethod
    def from_crawler(cls, crawler: "Crawler") -> Self:
        """Scrapy's constructor."""
        return cls(crawler)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class App:
    """`settings`: Scrapy's; `config`: ours, checked; `database`: opens connections; `stop`: set
    when the crawl is closing, for whatever waits on a thread.
    """

    settings: "BaseSettings"
    config: Config
    database: Connector
    stop: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(cls, crawler: "Crawler") -> "App":
        """The one of *crawler*. Raises ConfigError."""
        app = _apps.get(crawler)
        if app is None:
            config = Config.from_settings(crawler.settings)
            app = _apps[crawler] = cls(crawler.settings, config, Connector(config.database))
            crawler.signals.connect(app._stopping, signals.stopping)
            crawler.signals.connect(app._ended, scrapy_signals.engine_stopped)
        return app

    @property
    def most_in_flight(self) -> int:
        """Requests that may be in flight: WORKERS, or Scrapy's own bound."""
        return self.config.workers or self.settings.getint("CONCURRENT_REQUESTS_PER_DOMAIN")

    def limiter(self) -> Limiter:
        """The rate limiter of the configured key."""
        config = self.config
        return Limiter(
            in_flight_limit=InFlightLimit(
                first=self.settings.getint("CONCURRENT_REQUESTS"),
                most=self.most_in_flight,
                max_bytes=config.max_bytes_in_flight,
            ),
            max_wait_s=config.rate_limit_max_wait_s,
            random=random.random,
            limits=config.rate_limits,
            share=config.rate_limit_share,
        )

    def ledger(self) -> Ledger:
        """The ledger of the configured schema."""
        config = self.config
        return Ledger(self.database, config.schema, max_wait_s=config.db_max_wait_s, stop=self.stop)

    def leases(self) -> Leases:
        """The leases of the configured schema."""
        config = self.config
        return Leases(
            self.database, config.schema, settings=config.shared, max_wait_s=config.db_max_wait_s,
            stop=self.stop,
        )  # fmt: skip

    def reader(self, world: "World") -> Reader:
        """What reads ranges of the configured API."""
        return Reader(
            world,
            page_size=self.config.page_size,
            in_flight=self.most_in_flight,
            numbered=self.config.pagination == "page",
        )

    def _stopping(self) -> None:
        self.stop.set()

    async def _ended(self) -> None:
        """Releases the embedded server when all components have closed."""
        await run_in_thread(self.database.release)


_apps: "WeakKeyDictionary[Crawler, App]" = WeakKeyDictionary()
