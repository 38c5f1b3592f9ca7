"""Rows of a large table, in batches of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row, Select

MAX_BATCH_ROWS: Final = 500
"""Maximum number of rows of a batch."""
MAX_BATCH_CHARS: Final = 4 * 1024 * 1024
"""Characters of text after which a batch ends, even if it has fewer rows."""
# Each row may have a body as large as the server accepts.
FETCH_SIZE: Final = 50
"""Rows that are fetched at one time."""
_STREAM_OPTIONS: Final = {"stream_results": True, "yield_per": FETCH_SIZE}


def batches(connection: Connection, query: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
    """Yield the rows of a query in batches whose size in memory is bounded."""
    with connection.execute(query, execution_options=_STREAM_OPTIONS) as result:
        rows = iter(result)
        while batch := _next_batch(rows):
            yield batch


def first_batch(connection: Connection, query: Select[Any]) -> tuple[Sequence[Row[Any]], bool]:
    """Return the first batch of the rows of a query, and whether more rows follow."""
    with connection.execute(query, execution_options=_STREAM_OPTIONS) as result:
        rows = iter(result)
        return _next_batch(rows), next(rows, None) is not None


def _next_batch(rows: Iterator[Row[Any]]) -> list[Row[Any]]:
    batch: list[Row[Any]] = []
    characters = 0
    for row in rows:
        batch.append(row)
        for value in row:
            if type(value) is str:
                characters += len(value)
        if len(batch) >= MAX_BATCH_ROWS or characters >= MAX_BATCH_CHARS:
            break
    return batch
