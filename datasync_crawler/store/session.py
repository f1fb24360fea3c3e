"""The beginning of a run in the database: schema, source and the row in ``crawl_runs``.

Must not read or write events.
"""

import os
import platform
from typing import TYPE_CHECKING

import psycopg2

from datasync_crawler.errors import DatabaseRefused, SchemaConflict
from datasync_crawler.store import schema
from datasync_crawler.store.connection import Connector, close_quietly, execute
from datasync_crawler.store.statements import Statements, translate

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


class Session:
    """Opened once per run."""

    def __init__(self, connector: Connector, schema_name: str) -> None:
        self.connector = connector
        self.schema = schema_name
        self.run_id: int | None = None

    def open(self, *, api_base_url: str, pagination: str) -> int:
        """Makes missing tables, records source and run; returns the run's id.

        Raises any CrawlError of the store.
        """
        connection = self.connector.connect_autocommit()
        statements = Statements(("runs",), self.schema, lambda: connection, reconnects=False)
        try:
            self._check_encoding(connection)
            self._check_writable(connection)
            connection.autocommit = False
            schema.migrate(connection, self.schema)
            connection.autocommit = True
            self._name_source(statements, api_base_url, pagination)
            rows = statements.run("start_run", host=platform.node(), pid=os.getpid())
        except psycopg2.Error as error:
            raise translate(error, self.schema) from error
        finally:
            close_quietly(connection)
        self.run_id = int(rows[0][0])
        return self.run_id

    def _check_encoding(self, connection: "Connection") -> None:
        ((encoding,),) = execute(connection, "SHOW server_encoding")
        if encoding != "UTF8":
            raise DatabaseRefused(
                f"This database's encoding is {encoding}, which can't hold every event. Make one "
                "with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0 and set DB_NAME."
            )

    def _check_writable(self, connection: "Connection") -> None:
        if execute(connection, "SHOW transaction_read_only") == [("on",)]:
            raise DatabaseRefused(
                "This database is read-only: a standby, or default_transaction_read_only is on. "
                "Set DB_HOST or DATABASE_URL to a server that can be written to."
            )

    def _name_source(self, statements: Statements, api_base_url: str, pagination: str) -> None:
        statements.run("name_source", api_base_url=api_base_url, pagination=pagination)
        source = statements.run("read_source")[0][0]
        if source != api_base_url:
            raise SchemaConflict(
                f"Schema {self.schema} holds the events of {source}, not of {api_base_url}. "
                "Set DB_SCHEMA to a new schema for this API, or API_BASE_URL back to that one; if "
                f"that API has moved here, run scrapy source --move-to {api_base_url}"
            )
