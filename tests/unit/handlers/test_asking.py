"""Single requests: their answers are bounded as a crawl's are."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import brotli
import pytest
from scrapy.settings import Settings

from datasync_crawler.config import Config
from datasync_crawler.errors import CrawlError
from datasync_crawler.handlers import asking

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Bomb(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        packer = brotli.Compressor(quality=3)
        parts = [packer.process(b" " * 1_000_000) for _ in range(100)]
        body = b"".join([*parts, packer.finish()])
        self.send_response(200)
        self.send_header("Content-Encoding", "br")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def bomb() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Bomb) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def config(url: str) -> Config:
    settings = Settings()
    settings.setmodule("datasync_crawler.settings")
    settings.setdict({"API_BASE_URL": url, "API_KEY": "a-key"}, priority="cmdline")
    return Config.from_settings(settings)


def test_a_bomb_ends_with_a_sentence(bomb: str) -> None:
    """It isn't cut and taken for a page, nor unpacked to its end."""
    with pytest.raises(CrawlError, match="longer than 67,108,864 bytes"):
        asyncio.run(asking.get(f"{bomb}/events", config(bomb)))


def test_a_page_far_longer_than_asked_for_is_refused() -> None:
    """As in a crawl, before it is built."""
    events = b'{"data":[' + b'{"id":"a"},' * 100_000 + b'{"id":"b"}]}'
    with pytest.raises(CrawlError, match="holds more than 100,000 events"):
        asking.decoded(events, config("http://127.0.0.1:1"))
