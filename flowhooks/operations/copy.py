"""A ledger moves house: copied into another database, and verified; it must not know what the tables hold.

The caller holds the locks of both, where there are locks.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import copy as copying
from flowhooks.ledger import database, processes
from flowhooks.ledger.copy import DatabaseSnapshot
from flowhooks.ledger.migrations.upgrade import upgrade
from flowhooks.ledger.reader import Reader, name_database_in_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from flowhooks.ledger.consistency import ConsistencyReport

    Progress = Callable[[str, Callable[[], int]], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What has become of a table.

    Attributes:
        rows: how many it has, on both sides.
        kept: how many of them the target had already.
        digest: SHA-256 over all of them, the same on both sides.
    """

    rows: int
    kept: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A ledger that has been copied, and was found to be the same.

    Attributes:
        made: whether the target had no tables before.
        tables: by name.
        books: the target's.
    """

    made: bool
    tables: Mapping[str, Copied]
    books: ConsistencyReport


def copy(source: str, target: str, *, stale_after: float, progress: Progress) -> Moved:
    """Copy a ledger into an empty database, or go on with a copy that was cut off.

    Args:
        source: the URL of a ledger at this version.
        target: the URL of where to. Its tables are made, or brought up to this version, first.
        stale_after: seconds without a sign of life after which a process that shares one of them counts as dead.
        progress: shows how far a part of the work is, given its name and what counts the whole of it.

    Returns:
        What was copied. Whatever the books say of it, they said of the source.

    Raises:
        LedgerOutdated: the source is of an older version.
        LedgerUnusable: somebody uses one of them, the target holds anything that the source does not, one of them
            cannot be read or written, or they are not the same at the end.
    """
    with closing(Reader(source)) as reader:
        _refuse_used(reader, source, stale_after)
        before, _ = upgrade(target)
        with _seen(reader, source) as ours:
            with closing(Reader(target)) as its_reader:
                _refuse_used(its_reader, target, stale_after)
                with (
                    _seen(its_reader, target) as its,
                    progress("compare", lambda: copying.count_rows(its.connection)) as advance,
                ):
                    kept = copying.compare(ours, its, advance)
            with progress("copy", lambda: copying.count_rows(ours.connection)) as advance:
                wanted = _written(ours, target, advance)
        with closing(Reader(target)) as its_reader, _seen(its_reader, target) as its:
            with progress("verify", lambda: copying.count_rows(its.connection)) as advance:
                found = copying.digest_tables(its, advance)
            books = its_reader.verify()
        _refuse_used(reader, source, stale_after)
    for name, content in wanted.items():
        if found[name] != content:
            raise LedgerUnusable(
                f"{database.display_name(target)} is no true copy of {database.display_name(source)}: its {name} have "
                f"{found[name].rows:,} rows with the digest {found[name].digest}, "
                f"the source's {content.rows:,} with {content.digest}. "
                "Has somebody used it meanwhile? Copy into an empty database"
            )
    tables = {
        name: Copied(rows=content.rows, kept=kept[name], digest=content.digest) for name, content in wanted.items()
    }
    return Moved(made=before is None, tables=tables, books=books)


def _written(ours: DatabaseSnapshot, target: str, advance: Callable[[int], None]) -> dict[str, copying.TableDigest]:
    engine = database.open_engine(target, writing=True)
    try:
        return copying.copy(ours, target, engine, advance)
    finally:
        engine.dispose()


@contextmanager
def _seen(reader: Reader, url: str) -> Iterator[DatabaseSnapshot]:
    """A ledger as it is at one moment."""
    with reader.connection() as connection:
        yield DatabaseSnapshot(url, connection)


def _refuse_used(reader: Reader, url: str, stale_after: float) -> None:
    """Refuse a ledger that other processes use; that of a file is locked, so that there is none."""
    if not database.is_shared(url):
        return
    with name_database_in_errors(url), reader.connection() as connection:
        living = processes.live_processes(connection, stale_after=stale_after)
    if living:
        who = ", ".join(f"{one.pid} on {one.host}" for one in living[:5])
        raise LedgerUnusable(
            f"{database.display_name(url)} is in use by process {who}: stop what uses it, then copy again "
            f"(one that was killed counts as alive until it has been silent for {stale_after:g} s)"
        )
