"""Scrapy's settings and the crawler's own: the only reader of the environment and of ``.env``.

Precedence: ``scrapy … -s NAME=value``, environment, ``.env`` beside ``scrapy.cfg``, default.
An empty value is an unset one. Values stay text here; `datasync_crawler.config` makes them typed
and rejects what is wrong with a sentence.
"""

import os
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dotenv.parser import parse_stream
from scrapy.utils.conf import closest_scrapy_cfg

from datasync_crawler.extensions.machine import memory_limit_mb

_CFG: Final = closest_scrapy_cfg()
# In an egg under Scrapyd there is no scrapy.cfg: the working directory takes its place.
PROJECT_DIR: Final = str(Path(_CFG).parent if _CFG else Path.cwd())

_ENVIRONMENT: Final = {name: value for name, value in os.environ.items() if value.strip()}


def _read_dotenv() -> dict[str, str]:
    """The names and values in .env. Nothing is expanded: a password may hold "${".

    A line that can't be read ends the process: without the DATABASE_URL that it was meant to set,
    rows would go to another database.
    """
    file = Path(PROJECT_DIR, ".env")
    try:
        with file.open(encoding="utf-8-sig") as stream:
            lines = list(parse_stream(stream))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it isn't UTF-8 text"
        print(f"datasync-crawler: {file} can't be read ({cause}).", file=sys.stderr)
        raise SystemExit(2) from None
    for line in lines:
        if line.error:  # not echoed: it may hold a key
            text = line.original.string
            number = line.original.line + text[: -len(text.lstrip())].count("\n")
            print(
                f"datasync-crawler: line {number} of {file} can't be read: write NAME=value, with "
                "the value in single quotes where it holds a blank, a # or a quote.",
                file=sys.stderr,
            )
            raise SystemExit(2)
    values = {line.key: line.value for line in lines if line.key}
    return {name: value for name, value in values.items() if value and value.strip()}


_DOTENV: Final = _read_dotenv()


_own: Final[set[str]] = set()  # names of the crawler's settings, in the order of this file


def _setting(name: str, default: str = "") -> str:
    _own.add(name)
    return _ENVIRONMENT.get(name) or _DOTENV.get(name) or default


def _pick(first: str, others: tuple[str, ...]) -> str:
    """Value of *first*, unless a higher level names one of *others* (then: unset)."""
    _own.add(first)
    for level in (_ENVIRONMENT, _DOTENV):
        if first in level:
            return level[first]
        if any(name in level for name in others):
            return ""
    return ""


# --- The crawler's own. Each line says who uses it. -------------------------------------------
API_BASE_URL = _setting("API_BASE_URL")  # spider, handler: ends in /api/v1
API_KEY = _pick("API_KEY", ("API_KEY_FILE",))  # handler alone
API_KEY_HEADER = _setting("API_KEY_HEADER", "X-API-Key")  # handler, verify: the key's header
QUERY_PARAMS = _setting("QUERY_PARAMS")  # spider: fixed parameters of each request, a=1&b=2
API_KEY_FILE = _setting("API_KEY_FILE")  # config reads it; handler alone uses the key
WORKERS = _setting("WORKERS")  # throttle, handler: requests in flight at most; empty: learned
BULK_PAGE_SIZE = _setting("BULK_PAGE_SIZE", "5000")  # spider: events asked for in one request
DATABASE_URL = _pick(  # store
    "DATABASE_URL", ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")
)
DB_HOST = _setting("DB_HOST")  # store; neither this nor DATABASE_URL: embedded PostgreSQL
DB_PORT = _setting("DB_PORT")  # store, embedded
DB_NAME = _setting("DB_NAME", "datasync")  # store, embedded
DB_USER = _setting("DB_USER")  # store
DB_PASSWORD = _setting("DB_PASSWORD")  # store
DB_SCHEMA = _setting("DB_SCHEMA", "public")  # store: one source a schema
DB_WRITERS = _setting("DB_WRITERS", "2")  # Postgres pipeline: connections that COPY
BATCH_ROWS = _setting("BATCH_ROWS", "5000")  # Postgres pipeline: rows a transaction waits for
DB_MAX_WAIT = _setting("DB_MAX_WAIT", "120")  # store: s that a lost database is waited for
DATA_DIR = _setting("DATA_DIR", ".datasync")  # embedded: relative to the project's folder
PAGINATION = _setting("PAGINATION", "auto")  # spider: auto, offset, page, cursor
BULK_PATH = _setting("BULK_PATH", "/events/bulk")  # spider
CURSOR_PATH = _setting("CURSOR_PATH", "/events")  # spider
PAGE_START = _setting("PAGE_START", "1")  # spider: the first page's number (PAGINATION=page)
OFFSET_PARAM = _setting("OFFSET_PARAM", "offset")  # spider
LIMIT_PARAM = _setting("LIMIT_PARAM", "limit")  # spider
CURSOR_PARAM = _setting("CURSOR_PARAM", "cursor")  # spider
EVENTS_KEY = _setting("EVENTS_KEY", "data")  # spider: dotted path in the body
TOTAL_KEY = _setting("TOTAL_KEY")  # spider: dotted path in the body; empty: the usual places
NEXT_KEY = _setting("NEXT_KEY")  # spider: the same, of the next page's cursor or address
ID_FIELD = _setting("ID_FIELD", "id")  # spider: the event's field that holds its id
TIMESTAMP_FIELD = _setting("TIMESTAMP_FIELD", "timestamp")  # spider: the same, of its time
MAX_REJECTED = _setting("MAX_REJECTED", "0.01")  # spider, verify: share, 0 to 1
ON_DUPLICATE = _setting("ON_DUPLICATE", "keep")  # store: keep the first, or update
FOLLOW = _setting("FOLLOW")  # spider: s between two looks; empty: one run, one look
RATE_LIMIT = _setting("RATE_LIMIT")  # handler: a limit that the user knows, such as 10/60s
RATE_LIMIT_SHARE = _setting("RATE_LIMIT_SHARE", "1.0")  # handler: our part of any limit
RATE_LIMIT_MAX_WAIT = _setting("RATE_LIMIT_MAX_WAIT", "3600")  # handler: s, longest pause
MAX_BYTES_IN_FLIGHT = _setting("MAX_BYTES_IN_FLIGHT", "64000000")  # handler: bodies, also waiting
DASHBOARD_HOST = _setting("DASHBOARD_HOST", "127.0.0.1")  # dashboard: where the page listens
DASHBOARD_PORT = _setting("DASHBOARD_PORT")  # dashboard: empty: no page while crawling; 0: any
DASHBOARD_PASSWORD = _setting("DASHBOARD_PASSWORD")  # dashboard: needed beyond this machine


def similar(name: str, likeness: float) -> str | None:
    """The setting of ours that *name* may be a slip for; None: it is one, or is like none."""
    near = get_close_matches(name.upper(), _own - {name}, n=1, cutoff=likeness)
    return near[0] if near and name not in _own else None


#: What docker-compose.yml takes from .env beside the crawler's settings.
_COMPOSE: Final = {
    "DATASYNC_TAG", "DEMO_EVENTS", "POSTGRES_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE",
    "POSTGRES_PUBLISHED_PORT", "PROMETHEUS_PUBLISHED_PORT", "GRAFANA_PUBLISHED_PORT",
    "SCRAPYD_PUBLISHED_PORT", "DASHBOARD_PUBLISHED_PORT", "SCRAPYD_PASSWORD", "GRAFANA_USER",
    "GRAFANA_PASSWORD",
}  # fmt: skip


def _reject_misspelt() -> None:
    """Ends the process for an unknown name in .env, and for one in the environment that is close to
    a setting that isn't set: ignored, it could send rows to another database.
    """
    problem = ""
    for name in _DOTENV:
        if name not in _own | _COMPOSE and not name.startswith("COMPOSE_"):
            meant = similar(name, 0.6)
            way_out = (
                f"did you mean {meant}?"
                if meant
                else ("take it out, or set it in the environment if it is another program's.")
            )
            problem = f"{Path(PROJECT_DIR, '.env')} sets {name}, which isn't a setting: {way_out}"
    for name in _ENVIRONMENT:
        meant = similar(name, 0.9)
        if meant and name not in _COMPOSE and not (meant in _ENVIRONMENT or meant in _DOTENV):
            problem = (
                f"The environment sets {name}, which isn't a setting: did you mean {meant}? If it "
                f"is another program's, set {meant} too, or unset {name} for this command."
            )
    if problem:
        print(f"datasync-crawler: {problem}", file=sys.stderr)
        raise SystemExit(2)


_reject_misspelt()

# --- Scrapy's: what differs from its defaults, and why. ----------------------------------------
BOT_NAME = "datasync_crawler"
SPIDER_MODULES = ["datasync_crawler.spiders"]
NEWSPIDER_MODULE = "datasync_crawler.spiders"  # where scrapy genspider puts one
COMMANDS_MODULE = "datasync_crawler.commands"
USER_AGENT = "datasync-crawler"

DEFAULT_REQUEST_HEADERS = {"Accept": "application/json"}
DOWNLOAD_VERIFY_CERTIFICATES = True  # Scrapy's default is off
DOWNLOAD_HANDLERS = {
    "http": "datasync_crawler.handlers.PacedDownloadHandler",
    "https": "datasync_crawler.handlers.PacedDownloadHandler",
    "data": None,
    "file": None,
    "ftp": None,
    "s3": None,
}
DOWNLOAD_DELAY = 0
DOWNLOAD_DELAY_JITTER = 0.0  # ±50 % by default: the rate limiter paces, nothing else
DOWNLOAD_TIMEOUT = 120  # s; a page of 1.7 MB at 20 kB/s
DOWNLOAD_MAXSIZE = 64 * 1024 * 1024  # bytes, after decompression too: a bomb costs one page
DOWNLOAD_WARNSIZE = 0
# The spider yields a page's own request anew on purpose, with its number of tries.
META_COPY_WARN_SKIP_KEYS = ["download_latency", "retry_times"]
# Requests in flight: at the start and at least, and at most; the throttle finds from latency what
# helps.
CONCURRENT_REQUESTS = 8
CONCURRENT_REQUESTS_PER_DOMAIN = 64  # also the HTTP pool's size
CONCURRENT_ITEMS = 1  # one page a response; Scrapy starts this many tasks for each
# Bodies being parsed or waiting for their commit, in bytes: this bounds the memory. 5 MB, the
# default, is three pages, too few for two writers. A page takes four times its body while it waits:
# 20 MB made 220 MB of the process, 12 MB makes 190, at the same rate.
SCRAPER_SLOT_MAX_ACTIVE_SIZE = 12_000_000

# A last resort: responses are bounded to far less. Half of the machine's memory, or four fifths of
# what its container or unit may have.
MEMUSAGE_LIMIT_MB = memory_limit_mb()
MEMUSAGE_CHECK_INTERVAL_SECONDS = 1.0

AUTOTHROTTLE_ENABLED = True

SCHEDULER = "datasync_crawler.scheduler.LedgerScheduler"
DUPEFILTER_CLASS = "scrapy.dupefilters.BaseDupeFilter"  # the ledger is the memory

COOKIES_ENABLED = False
REDIRECT_ENABLED = False  # a redirect could lead the key elsewhere
METAREFRESH_ENABLED = False
ROBOTSTXT_OBEY = False  # an API that we hold a key for
REFERER_ENABLED = False
HTTPERROR_ALLOW_ALL = True  # the spider says what a status means
TELNETCONSOLE_ENABLED = False
REMOTE_CONTROL_ENABLED = False

RETRY_TIMES = 8  # with backoff: about two minutes; then the range is a gap, requested again later
# Middleware and spider: the first wait between two tries of one page, and the longest, in seconds.
RETRY_BACKOFF_BASE = 0.5
RETRY_BACKOFF_CAP = 60.0
# Scrapy imports all that its own two lists name, also what is switched off. So they are given anew,
# without what a crawl never uses: 0.15 s of every start, most of it aiohttp (remote control) and
# requests (cookies).
DOWNLOADER_MIDDLEWARES_BASE = {
    "scrapy.downloadermiddlewares.downloadtimeout.DownloadTimeoutMiddleware": 350,
    "scrapy.downloadermiddlewares.defaultheaders.DefaultHeadersMiddleware": 400,
    "scrapy.downloadermiddlewares.useragent.UserAgentMiddleware": 500,
    "datasync_crawler.handlers.decompression.BoundedDecompression": 590,
    "datasync_crawler.handlers.proxies.RemoteProxyMiddleware": 750,
    "scrapy.downloadermiddlewares.stats.DownloaderStats": 850,
    "scrapy.downloadermiddlewares.httpcache.HttpCacheMiddleware": 900,
}
EXTENSIONS_BASE = {
    "scrapy.extensions.corestats.CoreStats": 0,
    "scrapy.extensions.logcount.LogCount": 0,
    "datasync_crawler.extensions.memory.MemoryLimit": 0,  # in place of Scrapy's MemoryUsage
    "scrapy.extensions.memdebug.MemoryDebugger": 0,
    "scrapy.extensions.closespider.CloseSpider": 0,
    "scrapy.extensions.feedexport.FeedExporter": 0,
}
DOWNLOADER_MIDDLEWARES = {
    # 550 is RetryMiddleware's own place. What fails in decompression (590) passes it by: the spider
    # tries that again.
    "datasync_crawler.middlewares.BackoffRetryMiddleware": 550,
}
ITEM_PIPELINES = {
    "datasync_crawler.pipelines.normalize.NormalizePipeline": 100,  # before anything is stored
    "datasync_crawler.pipelines.postgres.PostgresPipeline": 900,  # last: what is exported is stored
}
EXTENSIONS = {
    # Scrapy's AutoThrottle has ours as its subclass, its LogStats is Progress, its SpiderState
    # is the ledger.
    "datasync_crawler.extensions.stop.StopControl": 0,
    "datasync_crawler.extensions.throttle.LatencyThrottle": 0,
    "datasync_crawler.extensions.flight.Flight": 0,
    "datasync_crawler.extensions.heartbeat.Heartbeat": 0,
    "datasync_crawler.extensions.progress.Progress": 0,
    "datasync_crawler.extensions.page.Dashboard": 0,
}
FEED_EXPORTERS = {
    "jsonl": "datasync_crawler.exporters.EventLinesExporter",
    "jsonlines": "datasync_crawler.exporters.EventLinesExporter",
    "jl": "datasync_crawler.exporters.EventLinesExporter",
    "csv": "datasync_crawler.exporters.EventCsvExporter",
}

HEARTBEAT_INTERVAL = 1.0  # heartbeat: s
PROGRESS_INTERVAL = 10.0  # progress: s between two lines; 0 for none
STATS_DUMP = False
LOG_LEVEL = "INFO"
LOG_FORMAT = "%(asctime)s [%(module)s] %(levelname)s: %(message)s"  # shorter: without the package
LOG_FORMATTER = "datasync_crawler.monitor.log.QuietLogFormatter"
