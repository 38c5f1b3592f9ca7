"""Copies of a ledger's rows into another database, and their comparison.

Every table is read in the byte order of its key, which is the same in every database. The rows in memory at one time
are bounded, however many are stored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, case, func, select

from flowhooks.errors import LedgerUnusable
from flowhooks.failpoints import hit
from flowhooks.ledger import database
from flowhooks.ledger.reader import name_database_in_errors
from flowhooks.ledger.row_stream import batches
from flowhooks.ledger.tables import metadata, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, Table

    Advance = Callable[[int], None]

TABLES: Final = tuple(metadata.sorted_tables)
"""All tables, each after those that it refers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDigest:
    """The number of rows of a table, and a digest of them.

    Attributes:
        rows: number of rows.
        digest: SHA-256 over all rows as JSON, one a line, in the byte order of the key.
    """

    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class DatabaseSnapshot:
    """One of the two databases, read as one snapshot.

    Attributes:
        url: its URL.
        connection: the connection that reads it.
    """

    url: str
    connection: Connection

    def batches(self, query: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
        """Yield the rows of a query in batches of bounded size.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        # The caller's work on a batch is outside `name_database_in_errors`, so that only errors of this database get
        # its name.
        stream = batches(self.connection, query)
        while batch := self._next(stream):
            yield batch

    def _next(self, stream: Iterator[Sequence[Row[Any]]]) -> Sequence[Row[Any]]:
        with name_database_in_errors(self.url):
            return next(stream, ())

    def rows(self, query: Select[Any], parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Return all rows of a query, which must be few.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        with name_database_in_errors(self.url):
            return self.connection.execute(query, parameters).all()


def count_rows(connection: Connection) -> int:
    """Return the number of rows in all tables of a ledger."""
    return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES)


def compare(source: DatabaseSnapshot, target: DatabaseSnapshot, advance: Advance) -> dict[str, int]:
    """Check that the target holds only rows of the source.

    Args:
        source: the database to copy.
        target: the database to copy into, with the rows of an earlier, incomplete copy.
        advance: called with the number of rows that were compared since the last call.

    Returns:
        Number of rows that each table of the target has.

    Raises:
        LedgerUnusable: the target holds other rows, or one of the databases cannot be read.
    """
    counts = dict.fromkeys((table.name for table in TABLES), 0)
    for table in TABLES:
        query = _by_key(table)
        for batch in target.batches(select(table)):
            keys = json.dumps([_key(table, row) for row in batch])
            source_rows = {tuple(_key(table, row)): row for row in source.rows(query, {"keys": keys})}
            for row in batch:
                _reject_difference(table, row, source_rows.get(tuple(_key(table, row))), target.url)
            counts[table.name] += len(batch)
            advance(len(batch))
    return counts


def copy(source: DatabaseSnapshot, url: str, target: Engine, advance: Advance) -> dict[str, TableDigest]:
    """Copy every row of the source into the target, unless the target has a row with its key.

    Args:
        source: the database to copy.
        url: the URL of the target.
        target: the target, opened for writing, with tables at this version.
        advance: called with the number of rows that were copied durably since the last call.

    Returns:
        The digests of the source, by table.

    Raises:
        LedgerUnusable: one of the databases cannot be read or written.
    """
    digests = {}
    for table in TABLES:
        add = database.insert(table).on_conflict_do_nothing(index_elements=list(table.primary_key))
        digest = _Digest(table)
        for batch in source.batches(_in_order(table, _columns_to_copy(table))):
            with name_database_in_errors(url), target.begin() as connection:
                connection.execute(add, [dict(row._mapping) for row in batch])  # noqa: SLF001 (public, by SQLAlchemy's naming)
                hit("copy.written")
            hit("copy.committed")
            digest.add(batch)
            advance(len(batch))
        digests[table.name] = digest.result()
    return digests


def digest_tables(snapshot: DatabaseSnapshot, advance: Advance) -> dict[str, TableDigest]:
    """Return the digests of a ledger, by table.

    Raises:
        LedgerUnusable: the database cannot be read.
    """
    digests = {}
    for table in TABLES:
        digest = _Digest(table)
        for batch in snapshot.batches(_in_order(table, list(table.c))):
            digest.add(batch)
            advance(len(batch))
        digests[table.name] = digest.result()
    return digests


class _Digest:
    def __init__(self, table: Table) -> None:
        self._rows = 0
        self._digest = hashlib.sha256()
        self._line([column.name for column in table.c])

    def add(self, batch: Sequence[Row[Any]]) -> None:
        self._rows += len(batch)
        for row in batch:
            self._line(list(row))

    def result(self) -> TableDigest:
        return TableDigest(rows=self._rows, digest=self._digest.hexdigest())

    def _line(self, values: list[Any]) -> None:
        self._digest.update(json.dumps(values).encode() + b"\n")


def _columns_to_copy(table: Table) -> list[ColumnElement[Any]]:
    """Return a table's columns as they are copied; processes are marked as stopped.

    A killed process has no end: it gets the time of its last heartbeat, so that the copy's first start recovers its
    attempts. The result is the same each time, so that a copy can be resumed.
    """
    if table is not processes:
        return list(table.c)
    last = case(
        (processes.c.heartbeat_at > processes.c.started_at, processes.c.heartbeat_at), else_=processes.c.started_at
    )
    ended = func.coalesce(processes.c.stopped_at, last).label("stopped_at")
    return [ended if column is processes.c.stopped_at else column for column in processes.c]


def _in_order(table: Table, columns: list[ColumnElement[Any]]) -> Select[Any]:
    return select(*columns).order_by(*map(database.bytewise_order, table.primary_key))


@cache
def _by_key(table: Table) -> Select[Any]:
    """Select the rows of a table whose keys are in the parameter `keys`."""
    keys = database.row_array("keys", **{column.name: column.type for column in table.primary_key})
    same = and_(*(column == keys.c[column.name] for column in table.primary_key))
    return select(*_columns_to_copy(table)).join_from(keys, table, same)


def _key(table: Table, row: Row[Any]) -> list[Any]:
    return [row._mapping[column.name] for column in table.primary_key]  # noqa: SLF001 (as above)


def _reject_difference(table: Table, row: Row[Any], source_row: Row[Any] | None, url: str) -> None:
    if source_row is not None and tuple(source_row) == tuple(row):
        return
    name = f"a row of {table.name} ({', '.join(map(str, _key(table, row)))})"
    if source_row is None:
        difference = f"it has {name}, which the source does not have"
    else:
        columns = [
            column.name for column, expected, actual in zip(table.c, source_row, row, strict=True) if expected != actual
        ]
        difference = f"it has {name}, which differs from the source ({', '.join(columns)})"
    raise LedgerUnusable(
        f"cannot copy into {database.display_name(url)}: {difference}. Nothing was copied. Copy into an empty "
        "database. Existing data is kept only if an earlier copy of the same source left it and neither database has "
        "been used since"
    )
