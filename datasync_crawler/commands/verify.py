"""``scrapy verify``: compares ledger, table and the API's total.

Exit status: 0 complete, 1 not, 2 an invalid setting.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar, Final

from datasync_crawler.commands.base import ConfiguredCommand, Options

if TYPE_CHECKING:
    import argparse

    from datasync_crawler.config import Config
    from datasync_crawler.monitor.audit import Audit
    from datasync_crawler.store.verify import LedgerFigures

#: Pages of one audit.
MOST_PAGES: Final = 100_000


class Command(ConfiguredCommand):
    """Prints the proof, or the problems."""

    summary = "Prove that everything is there, or list what is missing (exit 0 or 1)"
    description = (
        "Compares ledger, table and the API's total: no offset without its committed range, "
        "received = inserted + duplicates + rejected, every inserted event still stored. Sends "
        "one request, for the API's total. Exit status: 0 complete, 1 not, 2 an invalid setting."
    )
    options: ClassVar[Options] = {
        "--offline": {"action": "store_true", "help": "use the last known total, send no request"},
        "--json": {"action": "store_true", "help": "print one JSON object"},
        "--audit": {
            "metavar": "N",
            "help": "fetch N pages at random again and compare each event with the stored one",
        },
    }

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Prints the report and sets the exit status."""
        from datasync_crawler.commands import demonstration  # noqa: PLC0415

        self.check_no_arguments(args)
        pages = _pages(opts.audit)
        assert self.settings is not None  # Scrapy sets it before run()
        if opts.offline and not pages:
            self._verify(self.configured(), opts, pages)
            return
        with demonstration.lent(self.settings):
            self._verify(self.configured(require_api=True), opts, pages)

    def _verify(self, config: Config, opts: argparse.Namespace, pages: int) -> None:
        """As `act`; sends requests unless `--offline`."""
        from datasync_crawler.monitor import audit as auditing  # noqa: PLC0415
        from datasync_crawler.monitor import report  # noqa: PLC0415

        figures, chain = _read(config, offline=opts.offline, with_chain=opts.json)
        audited = _audit(config, figures, pages) if pages else None
        excess = report.too_many_rejected(figures, config.max_rejected)
        if opts.json:
            values = {**report.proof_values(figures, excess), "chain": chain}
            if audited is not None:
                values["audit"] = {**asdict(audited), "meaning": auditing.meaning(audited)}
            print(json.dumps(values, ensure_ascii=False))
        else:
            self.say(report.proof_lines(figures))
            if audited is not None:
                self.say(auditing.lines(audited))
            if excess:
                self.say([excess])
        good = not (report.problems(figures) or excess) and (audited is None or audited.is_clean)
        self.exitcode = 0 if good else 1


def _pages(text: str | None) -> int:
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415

    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:7]) <= MOST_PAGES):
        raise ConfigError(
            f"--audit is {text!r}: give it a number of pages between 1 and {MOST_PAGES:,}."
        )
    return int(text)


def _audit(config: Config, figures: LedgerFigures, pages: int) -> Audit:
    """Fetches pages at random offsets below the total, one by one as the limit allows."""
    from datasync_crawler.api.addresses import Addresses  # noqa: PLC0415
    from datasync_crawler.crawl.values import Ask  # noqa: PLC0415
    from datasync_crawler.errors import ConfigError  # noqa: PLC0415
    from datasync_crawler.events.timestamps import normalize_timestamps  # noqa: PLC0415
    from datasync_crawler.handlers import asking  # noqa: PLC0415
    from datasync_crawler.monitor.audit import Audit, rows_by_id  # noqa: PLC0415
    from datasync_crawler.store.connection import Connector  # noqa: PLC0415
    from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

    if figures.is_by_cursor:
        raise ConfigError(
            "--audit fetches pages at random offsets, and this API is read by cursor. Leave it "
            "out: scrapy redrive --all reads everything again and compares it."
        )
    addresses = Addresses.of(config)
    audited = Audit()
    size = min(config.page_size, figures.page_size or config.page_size)
    for _ in range(pages):
        offset = secrets.randbelow(max(1, figures.total or 0))
        if addresses.numbered_from is not None:
            offset -= offset % size
        body = asyncio.run(asking.page(addresses.url(Ask(1, offset, size)), config))
        page = asking.decoded(body, config)
        bad = normalize_timestamps(page.events)
        unreadable = {place for place, _ in bad}
        served = [one for place, one in enumerate(page.events) if place not in unreadable]
        with ProofReader(Connector(config.database), config.schema) as reader:
            stored = rows_by_id(reader.events([event.id for event in served]))
        audited.add(served, stored, page.received - len(served))
    return audited


def _read(
    config: Config, *, offline: bool, with_chain: bool
) -> tuple[LedgerFigures, list[dict[str, Any]]]:
    """The figures and the chain. The API's total is read first: rows committed meanwhile are
    only more.
    """
    from datasync_crawler.errors import SchemaConflict  # noqa: PLC0415
    from datasync_crawler.handlers.proxies import unencrypted  # noqa: PLC0415
    from datasync_crawler.store.connection import Connector  # noqa: PLC0415
    from datasync_crawler.store.rate_limits import keep_pause  # noqa: PLC0415
    from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

    if not offline and (warning := unencrypted(config.api_base_url)):
        print(f"datasync-crawler: {warning}", file=sys.stderr)
    if not offline:
        keep_pause(config.database, config.schema, config.api_key)
    now = None if offline else asyncio.run(_ask(config))
    with ProofReader(Connector(config.database), config.schema) as reader:
        source, total = reader.source()
        if config.api_base_url and source != config.api_base_url:
            raise SchemaConflict(
                f"Schema {config.schema} holds the events of {source}, not of "
                f"{config.api_base_url}: set DB_SCHEMA or API_BASE_URL to what is to be verified."
            )
        origin = "the API sends none now; the last known"
        if offline:
            origin = "the last known; the API wasn't asked"
        if now is not None:
            total, origin = now, "as the API says now"
        chain = reader.chain() if with_chain else []
        return reader.figures(source, total, origin), chain


async def _ask(config: Config) -> int | None:
    """The API's total, the larger of header and body; None when it sends none.

    One request for one event; where there is no bulk endpoint, a second one by cursor. Redirects
    aren't followed, certificates are verified. Raises CrawlError.
    """
    from datasync_crawler.api.totals import read_total  # noqa: PLC0415
    from datasync_crawler.errors import CrawlError  # noqa: PLC0415
    from datasync_crawler.handlers import asking  # noqa: PLC0415

    try:
        _, (status, headers, body) = await asking.front(config, 1)
    except CrawlError as error:
        raise CrawlError(f"{error} Or use --offline.") from None
    if status != 200:
        why = "the key is wrong or has expired" if status in {401, 403} else f"HTTP {status}"
        raise CrawlError(
            f"The API's total couldn't be fetched ({why}): try later, or use --offline."
        )
    if config.total_key == "none":
        return None
    in_body = asking.decoded(body, config, "try later, or use --offline").total
    total, _ = read_total(headers.get("X-Total-Count", ""), in_body)
    return total
