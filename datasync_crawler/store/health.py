"""Whether a crawl of this host lives, as its heartbeat says. Must not write anything."""

import platform
from dataclasses import dataclass

import psycopg2

from datasync_crawler.store import queries
from datasync_crawler.store.connection import Connector, close_quietly, describe


@dataclass(frozen=True, slots=True)
class Health:
    """`alive`: the newest run of this host beats. `sentence` says what is known, for a person."""

    alive: bool
    sentence: str


def read_health(connector: Connector, schema: str, *, stale_after_s: float) -> Health:
    """The health of the newest run that was started on this host (a container has its own).

    Raises what `Connector.connect` raises.
    """
    connection = connector.connect_to_read()
    try:
        with connection.cursor() as cursor:
            cursor.execute(queries.load("health", schema)["last_heartbeat"], _this_host())
            row = cursor.fetchone()
    except psycopg2.Error as error:
        return Health(alive=False, sentence=f"The heartbeat can't be read: {describe(error)}.")
    finally:
        close_quietly(connection)
    if row is None:
        return Health(alive=False, sentence="No crawl has begun on this host.")
    age_s, ended = row
    if ended:
        return Health(alive=True, sentence=f"The crawl has ended, {age_s:.0f} s ago.")
    return Health(
        alive=age_s <= stale_after_s, sentence=f"The last heartbeat is {age_s:.0f} s old."
    )


def _this_host() -> dict[str, str]:
    return {"host": platform.node()}
