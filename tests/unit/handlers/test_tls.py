"""Certificates of every shape: only one of a known authority, in date, for the host is good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from certificates import BAD, GOOD, Authority, Https, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).resolve().parents[3]
KEY = "kanarienvogel"
HOSTS = ("localhost", "127.0.0.1")

#: Fetches the addresses it is given with the project's handler, each as the API's own.
PROBE = """
import asyncio, json, sys
from scrapy import Request
from scrapy.crawler import AsyncCrawlerProcess
from scrapy.settings import Settings
import scrapy

class Probe(scrapy.Spider):
    name = "probe"

    async def start(self):
        from datasync_crawler.handlers.transport import BoundedHandler
        outcomes = {}
        handler = BoundedHandler(self.crawler)
        for url in sys.argv[2:]:
            try:
                request = Request(url, headers={"X-API-Key": sys.argv[1]})
                outcomes[url] = (await handler.download_request(request)).status
            except Exception as error:
                outcomes[url] = repr(error)
        print(json.dumps(outcomes))
        await handler.close()
        return
        yield

settings = Settings()
settings.setmodule("datasync_crawler.settings")
settings.setdict({"ITEM_PIPELINES": {}, "EXTENSIONS": {}, "LOG_ENABLED": False}, priority="cmdline")
process = AsyncCrawlerProcess(settings)
process.crawl(Probe)
process.start()
"""


#: The same with the client of `scrapy verify`, which makes its context when it is imported.
VERIFY = """
import asyncio, json, sys
from types import SimpleNamespace
from datasync_crawler.handlers import asking

outcomes = {}
for url in sys.argv[2:]:
    try:
        config = SimpleNamespace(
            api_key=sys.argv[1], api_key_header="X-API-Key", api_base_url=url, without_key=str
        )
        outcomes[url] = asyncio.run(asking.get(url, config))[0]
    except Exception as error:
        outcomes[url] = repr(error)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def servers(authority: Authority) -> Iterator[dict[str, Https]]:
    with serving({shape: authority.certificate(shape) for shape in (GOOD, *BAD)}) as servers:
        yield servers


@pytest.mark.parametrize("probe", [PROBE, VERIFY], ids=["crawl", "verify"])
def test_the_key_goes_to_a_good_certificate_alone(
    authority: Authority, servers: dict[str, Https], probe: str
) -> None:
    """A name that isn't proved, for whatever reason, ends the handshake before the key is sent."""
    urls = {}
    for shape, server in servers.items():
        server.asked.clear()
        for host in HOSTS:
            urls[shape, host] = f"https://{host}:{server.server_port}/"
    ended = subprocess.run(
        [sys.executable, "-c", probe, KEY, *urls.values()],
        cwd=PROJECT,
        env={**os.environ, "SSL_CERT_FILE": str(authority.file)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    outcomes = json.loads(ended.stdout)
    taken = {place for place, url in urls.items() if outcomes[url] == 200}
    assert taken == {(GOOD, host) for host in HOSTS}, outcomes
    assert {shape for shape, server in servers.items() if server.asked} == {GOOD}
    assert servers[GOOD].asked == [KEY] * len(HOSTS)
