"""handlers.py and middlewares.py in a real crawl, in a process of its own, against a real server.

What a limiter's answers lead to is test_ratelimit_controller's; here it is about who gets the key,
what is sent again, and that whatever waits can be told to stop.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[3]
KEY = "kanarienvogel"
#: A crawl that has to be killed has failed; none here takes more than two seconds.
LONGEST_S = 60

#: Fetches the addresses it is given, with the project's settings, and prints what it saw.
PROBE = """
import json, pickle, sys
import scrapy
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.settings import Settings

settings = Settings()
settings.setmodule("datasync_crawler.settings")
settings.setdict({
    "ITEM_PIPELINES": {}, "LOG_LEVEL": "DEBUG", "AUTOTHROTTLE_ENABLED": False,
    "EXTENSIONS": {"datasync_crawler.extensions.stop.StopControl": 0,
                   "scrapy.extensions.telnet.TelnetConsole": None},
    "RETRY_BACKOFF_BASE": 0.001, "RETRY_TIMES": 2,
    **json.loads(sys.argv[1]),
}, priority="cmdline")
seen = []

class Probe(scrapy.Spider):
    name = "probe"

    async def start(self):
        for number, url in enumerate(sys.argv[2:]):
            yield scrapy.Request(url, self.parse, errback=self.failed, priority=-number,
                                 dont_filter=True)

    def note(self, request, outcome):
        held = pickle.dumps(request.to_dict(spider=self)) + repr(request.headers).encode()
        seen.append({"url": request.url, "outcome": outcome, "held": held.decode("latin-1"),
                     "latency": request.meta.get("download_latency"),
                     "retries": request.meta.get("retry_times", 0)})

    def parse(self, response):
        self.note(response.request, response.status)

    def failed(self, failure):
        self.note(failure.request, type(failure.value).__name__)

process = AsyncCrawlerProcess(settings)
crawler = process.create_crawler(Probe)
process.crawl(crawler)
process.start()
stats = {name: str(value) for name, value in crawler.stats.get_stats().items()}
print(json.dumps({"seen": seen, "stats": stats}))
"""


class Api(ThreadingHTTPServer):
    """/status/N answers N, with the headers of the query; /hang doesn't answer until the end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, str, str | None]] = []
        self.came = threading.Event()
        self.over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        host, key = self.headers["Host"], self.headers["X-API-Key"]
        self.server.asked.append((host, self.path, key))
        path, _, query = self.path.partition("?")
        if path == "/hang":
            self.server.came.set()
            self.server.over.wait(LONGEST_S)
            return
        status = int(path.rsplit("/", 1)[1])
        if path.startswith("/once") and len(self.server.asked) > 1:
            status = 200
        self.send_response(status)
        for name, value in filter(all, (pair.split("=") for pair in query.split("&") if pair)):
            self.send_header(name, value)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
        if status == 429:
            self.server.came.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def probe(api: Api, *paths: str, **settings: object) -> Iterator[subprocess.Popen[str]]:
    own = {"API_BASE_URL": f"{api.address}/api/v1", "API_KEY": KEY, **settings}
    urls = [path if path.startswith("http") else api.address + path for path in paths]
    process = subprocess.Popen(
        [sys.executable, "-c", PROBE, json.dumps(own), *urls],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "no_proxy": "*"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def report(process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], dict[str, str], str]:
    """What the probe saw, Scrapy's stats, and the log, when it has ended."""
    output, log = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 0, log
    said = json.loads(output)
    return said["seen"], said["stats"], log


def test_the_key_goes_to_the_apis_origin_and_is_kept_nowhere(api: Api, tmp_path: Path) -> None:
    """It is in the request on the wire; in none for another host or port, in no Request object as a
    callback sees or pickles it, nor in JOBDIR, stats or the log at DEBUG.
    """
    other = Api()
    threading.Thread(target=other.serve_forever, daemon=True).start()
    try:
        elsewhere = [
            f"http://localhost:{api.server_port}/status/200",
            f"{other.address}/status/200",
        ]
        paths = ("/api/v1/status/200", "/status/500", *elsewhere)
        with probe(api, *paths, JOBDIR=str(tmp_path)) as process:
            seen, stats, log = report(process)
    finally:
        other.shutdown()
        other.server_close()
    here = f"127.0.0.1:{api.server_port}"
    assert {(host, key) for host, _, key in api.asked} == {
        (here, KEY),
        (f"localhost:{api.server_port}", None),
    }
    assert [key for _, _, key in other.asked] == [None]
    assert len(seen) == 4
    assert KEY not in json.dumps(seen) + json.dumps(stats) + log
    assert all(one["latency"] is not None for one in seen)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in kept)


def test_a_failure_is_tried_again_and_given_up(api: Api) -> None:
    """500 goes again RETRY_TIMES times, then the callback gets it; 404 isn't tried again."""
    with probe(api, "/status/500", "/status/404") as process:
        seen, stats, _ = report(process)
    assert sorted(path for _, path, _ in api.asked) == ["/status/404", *["/status/500"] * 3]
    assert {one["outcome"]: one["retries"] for one in seen} == {500: 2, 404: 0}
    assert stats["retry/count"] == "2"
    assert stats["retry/reason_count/HTTP 500"] == "2"


def test_a_connection_that_fails_is_tried_again(api: Api) -> None:
    """Nobody listens: tried again, then the errback gets the reason."""
    with probe(api, "http://127.0.0.1:1/") as process:
        seen, stats, _ = report(process)
    assert [(one["outcome"], one["retries"]) for one in seen] == [
        ("DownloadConnectionRefusedError", 2)
    ]
    assert stats["retry/count"] == "2"


@pytest.mark.parametrize("status", [429, 503])
def test_too_many_requests_is_no_failure_of_the_page(api: Api, status: int) -> None:
    """429, and 503 that says when to come back: the same request again, without a retry's cost."""
    with probe(api, f"/once/{status}?Retry-After=0", RETRY_TIMES=0) as process:
        seen, stats, _ = report(process)
    assert [(one["outcome"], one["retries"]) for one in seen] == [(200, 0)]
    assert stats[f"rate_limit/answers_{status}"] == "1"
    assert "retry/count" not in stats


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_crawl(api: Api, status: int) -> None:
    """At the first answer, with a sentence that names the setting."""
    with probe(
        api, f"/status/{status}", "/status/200", WORKERS="1", CONCURRENT_REQUESTS=1
    ) as process:
        _, stats, log = report(process)
    assert stats["finish_reason"] == "unauthorized"
    assert f"The API rejects the key (HTTP {status})" in stats["crawl/stop_sentence"]
    assert "Set API_KEY" in log


def test_a_pause_beyond_the_longest_ends_the_crawl(api: Api) -> None:
    """RATE_LIMIT_MAX_WAIT: nobody waits for longer; the sentence says when to come back."""
    with probe(api, "/status/429?Retry-After=500", RATE_LIMIT_MAX_WAIT="100") as process:
        _, stats, _ = report(process)
    assert stats["finish_reason"] == "rate_limited"
    assert "longer than RATE_LIMIT_MAX_WAIT (100 s)" in stats["crawl/stop_sentence"]


@pytest.mark.parametrize("path", ["/hang", "/status/429?Retry-After=600"])
def test_what_waits_can_be_told_to_stop(api: Api, path: str) -> None:
    """A download that never ends and a pause of ten minutes both end with the signal, and aren't
    counted as failures or tried again.
    """
    # Nothing else is sent before the first answer: two requests stand in the queue by then.
    with probe(api, path, "/status/200", "/status/200") as process:
        assert api.came.wait(LONGEST_S)
        process.send_signal(signal.SIGTERM)
        _, stats, log = report(process)
    assert stats["finish_reason"] == "shutdown"
    assert "retry/count" not in stats
    assert "Traceback" not in log
