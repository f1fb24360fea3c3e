"""Health of the newest run on this host, read from its heartbeat. Must not write anything."""

import math
import platform
from contextlib import closing
from dataclasses import dataclass

from datasync_crawler.errors import DatabaseLost, DatabaseRefused, SchemaConflict
from datasync_crawler.store import schema as tables
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.statements import Statements, translating


@dataclass(frozen=True, slots=True)
class Health:
    """`alive`: the newest run has a recent heartbeat, or has ended. `sentence` is for the user."""

    alive: bool
    sentence: str


def read_health(connector: Connector, schema: str, *, stale_after_s: float) -> Health:
    """The health of the newest run that was started on this host (a container has its own).

    Raises what `Connector.connect` raises.
    """
    with closing(Statements(("health",), schema, connector.connect_to_read)) as statements:
        connection = statements.open()
        try:
            with translating(schema):
                tables.refuse_strange_columns(connection, schema)
            rows = statements.run("last_heartbeat", host=platform.node())
        except (DatabaseLost, DatabaseRefused, SchemaConflict) as error:
            return Health(alive=False, sentence=f"The heartbeat can't be read. {error}")
    if not rows:
        return Health(alive=False, sentence="No crawl has begun on this host.")
    age_s, ended = rows[0]
    if age_s is None or not -stale_after_s <= age_s < math.inf:
        return Health(alive=False, sentence="The newest heartbeat isn't one that a crawl writes.")
    if ended:
        return Health(alive=True, sentence=f"The crawl has ended, {age_s:.0f} s ago.")
    return Health(
        alive=age_s <= stale_after_s, sentence=f"The last heartbeat is {age_s:.0f} s old."
    )
