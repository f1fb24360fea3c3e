"""Export of the stored events to a file, from one snapshot and in constant memory.

Reads only. Owns the formats. Must not choose the file or remove it after an error:
`commands.export` does.
"""

from collections.abc import Callable
from datetime import datetime
from typing import IO, Any, Final, Self

from datasync_crawler.errors import CrawlError, TablesMissing
from datasync_crawler.events.copyrows import COLUMNS
from datasync_crawler.store import queries
from datasync_crawler.store.connection import Connector
from datasync_crawler.store.statements import Statements, translating

#: Rows of a Parquet row group, and fetched at once: 20 MB of events.
GROUP_ROWS: Final = 50_000

#: Called with the number of rows written since the last call.
Advance = Callable[[int], None]


class EventExport:
    """A context manager over one connection and one snapshot.

    Entering it raises what `Connector.connect` raises; each call CrawlError, and what writing to
    the file raises.
    """

    def __init__(self, connector: Connector, schema_name: str, since: datetime | None) -> None:
        self._connector, self._schema = connector, schema_name
        self._queries = queries.load("export", schema_name)
        self._params = {"since": since}
        self._statements = Statements.read_only((), schema_name, connector, snapshot=True)
        self._connection: Any = None

    def __enter__(self) -> Self:
        try:
            self._connection = self._statements.open()
            self._run(lambda cursor: cursor.execute("SET LOCAL TIME ZONE 'UTC'"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._statements.close()
        self._connector.release()

    def count(self) -> int:
        """The number of events to export."""

        def count(cursor: Any) -> int:
            cursor.execute(self._queries["count"], self._params)
            return int(cursor.fetchone()[0])

        found: int = self._run(count)
        return found

    def write(self, kind: str, file: IO[bytes], advance: Advance) -> int:
        """*kind*: csv, jsonl or parquet. Returns the number of events."""

        def write(cursor: Any) -> int:
            if kind == "parquet":
                return self._write_parquet(file, advance)
            return self._copy(kind, cursor, file, advance)

        written: int = self._run(write)
        return written

    def _copy(self, kind: str, cursor: Any, file: IO[bytes], advance: Advance) -> int:
        """Writes CSV or JSON Lines in UTF-8, as formatted by the server."""
        statement = cursor.mogrify(self._queries[kind], self._params)
        cursor.copy_expert(statement, _Counted(file, advance))
        return int(cursor.rowcount)

    def _write_parquet(self, file: IO[bytes], advance: Advance) -> int:
        """Texts as strings, JSON as its text, the timestamp as an instant in microseconds, UTC."""
        import pyarrow as pa  # noqa: PLC0415  # optional: the command has checked for it
        from pyarrow import parquet  # noqa: PLC0415

        kinds = {"timestamp": pa.timestamp("us", tz="UTC")}
        shape = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
        written = 0
        with (
            self._connection.cursor("export") as cursor,  # named: the server keeps the rows
            parquet.ParquetWriter(file, shape, compression="zstd") as writer,
        ):
            cursor.execute(self._queries["rows"], self._params)
            while rows := cursor.fetchmany(GROUP_ROWS):
                columns = zip(*rows, strict=True)
                arrays = [
                    pa.array(column, kind.type) for column, kind in zip(columns, shape, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=shape))
                advance(len(rows))
                written += len(rows)
        return written

    def _run(self, work: Callable[[Any], Any]) -> Any:
        try:
            with translating(self._schema), self._connection.cursor() as cursor:
                return work(cursor)
        except TablesMissing:
            raise CrawlError(f"Nothing has been crawled into schema {self._schema} yet.") from None


class _Counted:
    """A file with the `write` that COPY needs. libpq passes one row at a time."""

    EACH: Final = 1000

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        self._file, self._advance = file, advance
        self._rows = 0

    def write(self, row: bytes) -> int:
        self._rows += 1
        if self._rows % self.EACH == 0:
            self._advance(self.EACH)
        return self._file.write(row)
