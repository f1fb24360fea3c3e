"""``scrapy source``: which API the stored events come from; ``--move-to URL`` when it has moved.

Owns the check that the API at the new address serves the same events. Every ``scrapy …`` start
imports this module, so the rest is imported when the command was chosen.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from datasync_crawler.commands.base import ConfiguredCommand, Options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from datasync_crawler.config import Config
    from datasync_crawler.events.decoding import WirePage
    from datasync_crawler.store.source import Anchors


class Command(ConfiguredCommand):
    """Print or move it; `exitcode` 1 when the API or the database doesn't answer or nothing is
    stored, 2 for a wrong setting and for an API that serves other events.
    """

    summary = "Print which API the stored events come from; --move-to URL when it has moved"
    description = (
        "Prints the API's address that this schema's events come from. With --move-to URL it "
        "requests the first and the last stored event from the API at the new address. If it "
        "serves both, as far from each other as before, the new address takes the place of the "
        "old one; else nothing is changed."
    )
    options: ClassVar[Options] = {
        "--move-to": {
            "metavar": "URL",
            "help": "the API's new address, up to and including /api/v1",
        },
    }

    def act(self, args: list[str], opts: argparse.Namespace) -> None:
        """Prints or moves it."""
        from datasync_crawler.store.connection import Connector  # noqa: PLC0415
        from datasync_crawler.store.verify import ProofReader  # noqa: PLC0415

        self.check_no_arguments(args)
        assert self.settings is not None  # Scrapy sets it before run()
        if opts.move_to:
            self.settings.set("API_BASE_URL", opts.move_to, "cmdline")
        config = self.configured(require_api=bool(opts.move_to))
        with ProofReader(Connector(config.database), config.schema) as reader:
            (source, _), running = reader.source(), reader.is_running()
        self.say([_moved(config, source, running=running) if opts.move_to else source])


def _moved(config: Config, source: str, *, running: bool) -> str:
    """What was done, in a sentence. Raises CrawlError when nothing was."""
    from datasync_crawler.errors import CrawlError, SchemaConflict  # noqa: PLC0415
    from datasync_crawler.store.connection import Connector  # noqa: PLC0415
    from datasync_crawler.store.rate_limits import keep_pause  # noqa: PLC0415
    from datasync_crawler.store.source import move, read_anchors  # noqa: PLC0415

    new, connector = config.api_base_url, Connector(config.database)
    if new == source:
        return f"Schema {config.schema} holds the events of {source} already."
    if running:
        raise CrawlError(
            f"A crawl is running into schema {config.schema}: stop it first, then run this again."
        )
    try:
        keep_pause(config.database, config.schema, config.api_key)
        stored = asyncio.run(read_anchors(connector, config.schema))
        refusal = asyncio.run(_differs(config, stored)) if stored else ""
        if refusal:
            raise SchemaConflict(
                f"{new} doesn't serve the events of {source}: {refusal}. Nothing is changed. If it "
                "is another API, set DB_SCHEMA to a new schema for it."
            )
        move(connector, config.schema, source, new)
    finally:
        connector.release()
    same = ""
    if stored:
        same = f": it serves the first and the last of {stored.count:,} events as before"
    return (
        f"Schema {config.schema} holds the events of {new} from now on, no longer of {source}"
        f"{same}. Set API_BASE_URL to the new address."
    )


async def _differs(config: Config, stored: Anchors) -> str:
    """How the events at the new address differ from the stored ones; "" when both ends agree."""
    page, by_cursor = await _front(config)
    ids = _ids(config, page)
    if stored.head_id not in ids:
        return f"the first stored event ({stored.head_id}) isn't among the first {len(ids):,} there"
    place = ids.index(stored.head_id) + stored.count - 1
    if by_cursor:  # the end can't be asked for: its distance has to do
        if page.total is None or page.total <= place:
            return f"it counts {page.total or 0:,} events, and {place + 1:,} would be needed"
        return ""
    last = ids[place] if place < len(ids) else await _at(config, place)
    if last != stored.tail_id:
        what = f"is {last}" if last else "isn't there"
        return f"the event at offset {place:,} {what}; stored is {stored.tail_id}"
    return ""


async def _front(config: Config) -> tuple[WirePage, bool]:
    """The first page, and whether it came by cursor: where there is no bulk endpoint."""
    from datasync_crawler.api.addresses import Addresses  # noqa: PLC0415
    from datasync_crawler.handlers import asking  # noqa: PLC0415

    url, (status, _, body) = await asking.front(config, config.page_size)
    if status != 200:
        body = await asking.page(url, config)  # which waits where the rate limit asks for it
    by_cursor = not url.startswith(f"{Addresses.of(config).bulk_url}?")
    return asking.decoded(body, config), by_cursor


async def _at(config: Config, place: int) -> str:
    """The id of the event at an offset; "" when there is none."""
    from datasync_crawler.api.addresses import Addresses  # noqa: PLC0415
    from datasync_crawler.crawl.values import Ask  # noqa: PLC0415
    from datasync_crawler.handlers import asking  # noqa: PLC0415

    addresses = Addresses.of(config)
    first, count = place, 1
    if addresses.numbered_from is not None:
        first, count = place - place % config.page_size, config.page_size
    body = await asking.page(addresses.url(Ask(1, first, count)), config)
    ids = _ids(config, asking.decoded(body, config))
    return ids[place - first] if place - first < len(ids) else ""


def _ids(config: Config, page: WirePage) -> Sequence[str]:
    from datasync_crawler.api.answers import known_by  # noqa: PLC0415

    return known_by(page, config.id_field)
