"""The anchors of a schema's events, and the change of its source. Must not ask the API."""

import threading
from contextlib import closing
from dataclasses import dataclass

from datasync_crawler.errors import CrawlError
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.ledger import Ledger
from datasync_crawler.store.statements import Statements


@dataclass(frozen=True, slots=True)
class Anchors:
    """The first and the last event of what was proved, or else committed, and how many events there
    are from the one to the other.
    """

    head_id: str
    tail_id: str
    count: int


async def read_anchors(connector: Connector, schema: str) -> Anchors | None:
    """None when nothing is committed. Raises CrawlError."""
    ledger = Ledger(connector, schema, max_wait_s=0.0, stop=threading.Event())
    try:
        state = await ledger.state()
        if state.proof is not None and state.open_pass is None:
            return Anchors(state.proof.head_id, state.proof.tail_id, state.proof.count)
        end = await ledger.end(state.pass_no)
        figures = await ledger.figures(state.pass_no)
        return None if end is None else Anchors(figures.first_id, end.last_id, end.stop)
    finally:
        await ledger.close()


def move(connector: Connector, schema: str, old: str, new: str) -> None:
    """Names *new* as the source. Raises CrawlError when another command was first."""
    with closing(Statements(("source",), schema, connector.connect_autocommit)) as statements:
        if not statements.run("move_source", **{"from": old, "to": new}):
            raise CrawlError(f"Another command has changed the source of schema {schema}.")
