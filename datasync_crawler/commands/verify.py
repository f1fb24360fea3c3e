"""``scrapy verify``: holds ledger, table and the API's total against each other.

Exit status: 0 all is there, 1 not, 2 a wrong setting. Every ``scrapy …`` start imports this module,
so the rest is imported when the command was chosen.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from datasync_crawler.command import ConfiguredCommand

if TYPE_CHECKING:
    import argparse

    from datasync_crawler.config import Config
    from datasync_crawler.core.report import Figures

#: Waited for the API's answer, in seconds, and read of it, in bytes: it is one event's page.
ANSWER_TIMEOUT_S: Final = 60
MOST_BYTES: Final = 16 * 1024 * 1024


class Command(ConfiguredCommand):
    """Print the proof, or what speaks against it."""

    def short_desc(self) -> str:
        """Describe the command in `scrapy --help`."""
        return "Prove that everything is there, or say what is missing (exit 0 or 1)"

    def long_desc(self) -> str:
        """Describe the command in `scrapy verify --help`."""
        return (
            "Holds ledger, table and the API's total against each other: no offset without its "
            "committed range, received = inserted + duplicates + rejected, every inserted event "
            "still there. Asks the API once for its total. Exit status: 0 complete, 1 not, 2 a "
            "wrong setting."
        )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Ours beside Scrapy's."""
        super().add_options(parser)
        parser.add_argument(
            "--offline", action="store_true", help="use the last known total, don't ask the API"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Print the report and set the exit status."""
        from datasync_crawler.core import report  # noqa: PLC0415

        self.refuse(args)
        offline = opts.offline or self.is_demonstration  # its API has ended with it
        figures = _read(self.configured(require_api=not offline), offline=offline)
        if opts.json:
            print(json.dumps(report.proof_values(figures), ensure_ascii=False))
        else:
            print("\n".join(report.proof_lines(figures)))
        self.exitcode = 1 if report.problems(figures) else 0


def _read(config: Config, *, offline: bool) -> Figures:
    """Asks the API first: what is committed meanwhile only helps."""
    from datasync_crawler.errors import SchemaConflict  # noqa: PLC0415
    from datasync_crawler.store.connection import Connector  # noqa: PLC0415
    from datasync_crawler.store.limits import keep_pause  # noqa: PLC0415
    from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

    if not offline:
        keep_pause(config.database, config.schema, config.api_key)
    said = None if offline else asyncio.run(_ask(config))
    with ProofReader(Connector(config.database), config.schema) as reader:
        source, total = reader.source()
        if config.api_base_url and source != config.api_base_url:
            raise SchemaConflict(
                f"Schema {config.schema} holds the events of {source}, not of "
                f"{config.api_base_url}: set DB_SCHEMA or API_BASE_URL to what is to be verified."
            )
        said_by = "the last known" if offline else "the API says none now; the last known"
        if said is not None:
            total, said_by = said, "the API's word just now"
        return reader.figures(source, total, said_by)


async def _ask(config: Config) -> int | None:
    """The API's total, by one request for one event; None when it says none.

    A second request, by cursor, only where there is no bulk endpoint. Redirects aren't followed,
    certificates are verified. Raises CrawlError.
    """
    from datasync_crawler.core.paging import Paging, Wanted  # noqa: PLC0415
    from datasync_crawler.core.ranges import Range  # noqa: PLC0415
    from datasync_crawler.errors import CrawlError  # noqa: PLC0415

    paging = Paging(
        bulk_url=config.api_base_url + config.bulk_path,
        cursor_url=config.api_base_url + config.cursor_path,
        offset_param=config.offset_param,
        limit_param=config.limit_param,
        cursor_param=config.cursor_param,
        numbered_from=config.page_start if config.pagination == "page" else None,
    )
    bulk = paging.url(Wanted(1, Range(0, 1)))
    regular = paging.url(Wanted(1, Range(0, 1), ""))
    status, header, body = await _get(regular if config.pagination == "cursor" else bulk, config)
    if status in {404, 405, 501} and config.pagination == "auto":
        status, header, body = await _get(regular, config)
    if status != 200:
        why = "the key is wrong or has expired" if status in {401, 403} else f"HTTP {status}"
        raise CrawlError(f"The API doesn't say its total ({why}): try later, or use --offline.")
    return _largest(header, body, config)


async def _get(url: str, config: Config) -> tuple[int, str, bytes]:
    """Status, X-Total-Count and body."""
    import aiohttp  # noqa: PLC0415

    from datasync_crawler.errors import CrawlError  # noqa: PLC0415

    headers = {"X-API-Key": config.api_key, "Accept": "application/json"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as client,
            client.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            body = await answer.content.read(MOST_BYTES)
            while len(body) < MOST_BYTES and (more := await answer.content.read(MOST_BYTES)):
                body += more
            return answer.status, answer.headers.get("X-Total-Count", ""), body
    except (aiohttp.ClientError, OSError, ValueError) as error:
        cause = str(error) or type(error).__name__
        raise CrawlError(
            f"The API can't be asked for its total ({cause}): try later, or use --offline."
        ) from None


def _largest(header: str, body: bytes, config: Config) -> int | None:
    """The largest of header and body; what isn't a number doesn't count."""
    from datasync_crawler.core.wire import PageDecoder, PageFormat, WireError  # noqa: PLC0415
    from datasync_crawler.errors import CrawlError  # noqa: PLC0415

    words = []
    try:
        said = PageDecoder(PageFormat(config.events_key, config.total_key)).decode(body).total
    except WireError as error:
        reason = config.without_key(error.reason)
        raise CrawlError(
            f"The API's answer is no page ({reason}): try later, or use --offline."
        ) from None
    if said is not None:
        words.append(said)
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) <= 15:
        words.append(int(text))
    return max(words, default=None)
