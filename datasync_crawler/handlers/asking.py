"""Single requests to the API, for commands that ask it without a crawl.

Commands import this late: aiohttp takes 0.3 s.
"""

import asyncio
import ssl
import sys
from typing import TYPE_CHECKING, Final

import aiohttp

from datasync_crawler.api.addresses import Addresses
from datasync_crawler.api.statuses import NO_ENDPOINT
from datasync_crawler.crawl.values import Ask
from datasync_crawler.errors import CrawlError
from datasync_crawler.events.decoding import PageDecoder, WireError, WirePage
from datasync_crawler.handlers.proxies import proxy_of
from datasync_crawler.handlers.reach import diagnose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasync_crawler.config import Config

    Answer = tuple[int, Mapping[str, str], bytes]

#: Waited for the API's answer, in seconds, and read of it at most, in bytes.
ANSWER_TIMEOUT_S: Final = 60
MOST_BYTES: Final = 64 * 1024 * 1024
PIECE_BYTES: Final = 1024 * 1024
#: Events of an answer at most, if no more than a tenth of that were asked for.
MOST_EVENTS: Final = 100_000


async def front(config: "Config", limit: int) -> "tuple[str, Answer]":
    """The URL and the answer of a request for the first *limit* events: by cursor where there is
    no bulk endpoint. Raises CrawlError when there is no answer.
    """
    addresses = Addresses.of(config)
    bulk = addresses.url(Ask(1, 0, limit))
    if config.pagination != "cursor":
        answer = await get(bulk, config)
        if config.pagination != "auto" or answer[0] not in NO_ENDPOINT:
            return bulk, answer
    by_cursor = addresses.url(Ask(1, 0, limit, cursor=""))
    return by_cursor, await get(by_cursor, config)


def decoded(body: bytes, config: "Config", remedy: str = "try later") -> WirePage:
    """The page in a body. Raises CrawlError, which names *remedy*, for what is no page."""
    most = max(MOST_EVENTS, 10 * config.page_size)
    try:
        return PageDecoder(config.page_format).decode(body, most)
    except WireError as error:
        reason = config.without_key(error.reason)
        raise CrawlError(f"The API's answer is no page ({reason}): {remedy}.") from None


async def page(url: str, config: "Config") -> bytes:
    """One page's body; a refusal by the rate limit is waited for. Raises CrawlError."""
    waited_s = 0.0
    while True:
        status, headers, body = await get(url, config)
        if status == 200:
            return body
        text = headers.get("Retry-After", "").strip()
        delay_s = float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 30.0
        if status not in {429, 503} or waited_s + delay_s > config.rate_limit_max_wait_s:
            raise CrawlError(f"A page can't be fetched (HTTP {status}): try later.")
        print(f"The API's rate limit: waiting {delay_s:.0f} s.", file=sys.stderr)
        await asyncio.sleep(delay_s)
        waited_s += delay_s


async def get(url: str, config: "Config") -> "Answer":
    """Status, headers and body. Redirects aren't followed, certificates are verified.

    Raises CrawlError when there is no answer.
    """
    context = ssl.create_default_context()
    context.hostname_checks_common_name = False  # as a crawl: RFC 9525 §2 has no common names
    headers = {config.api_key_header: config.api_key, "Accept": "application/json"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(
                url, headers=headers, allow_redirects=False, ssl=context, proxy=proxy_of(url)
            ) as answer,
        ):
            body = bytearray()  # grown in place: aiohttp's own read() of a bomb took 470 MB
            while len(body) <= MOST_BYTES and (piece := await answer.content.read(PIECE_BYTES)):
                body += piece
            if len(body) > MOST_BYTES:
                raise CrawlError(
                    f"The API's answer is longer than {MOST_BYTES:,} bytes: try later."
                )
            return answer.status, answer.headers, bytes(body)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        unreachable = await asyncio.to_thread(diagnose, config.api_base_url, error, proxy_of(url))
        if unreachable is not None:
            raise CrawlError(unreachable.sentence()) from None
        cause = config.without_key(str(error)) or type(error).__name__
        raise CrawlError(f"The API's answer couldn't be fetched ({cause}): try later.") from None
