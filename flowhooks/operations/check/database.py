"""The part of a check that looks at the database; it must not know settings or plugins."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_text
from flowhooks.errors import FlowhooksError, LedgerSchemaTooOld
from flowhooks.ledger import database, required_credentials
from flowhooks.ledger.backlog import backlog
from flowhooks.ledger.file_guard import PUT_BACK_ADVICE
from flowhooks.ledger.lock import Lock, reject_network_file_system, why_misplaced
from flowhooks.ledger.processes import handlers_run_by
from flowhooks.ledger.reader import Reader
from flowhooks.operations.check.finding import Finding, Mark, note, ok, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.ledger.processes import LiveProcess

_FIXED: Final = (3, 51, 3)
_FIXED_EARLIER: Final = ((3, 44, 6), (3, 50, 7))
_BEGAN: Final = (3, 7, 0)
"""Releases of SQLite with the WAL-reset bug: from 3.7.0 to before 3.51.3, but for 3.44.6, 3.50.7 and what follows
those in their branches (https://sqlite.org/wal.html#walresetbug)."""
_MOST_NAMED: Final = 3
_NO_SERVER: Final = "; no server runs"


class Database:
    """What is found of the database; looked at once, for several parts of the list.

    Args:
        url: the database.
        stale_after: seconds without a sign of life after which a process that shares it counts as dead.

    Attributes:
        known: the handlers that the ledger remembers.
        waiting: how many deliveries wait for each handler.
        required: since when each kind of credential is required.
        living: the servers and workers that share it and live.
        run: the ids of the handlers whose deliveries they run.
        counts: the findings on what it holds.
    """

    def __init__(self, url: str, *, stale_after: float) -> None:
        self.known: list[RegisteredHandler] = []
        self.waiting: Mapping[str, int] = {}
        self.required: Mapping[str, int] = {}
        self.living: list[LiveProcess] = []
        self.run: frozenset[str] = frozenset()
        self.counts: list[Finding] = []
        self._url = url
        self._stale_after = stale_after

    def findings(self) -> Iterator[Finding]:
        """Everything, the file first."""
        file = database.database_file(self._url)
        if file is None:
            yield from self._contents(database.display_name(self._url))
            return
        if is_affected(version := database.library_version()):
            yield note(
                "database",
                f"SQLite {version} has the WAL-reset bug, which 3.51.3 mended",
                "two processes that write at once can spoil a database; flowhooks lets only one write, so it is safe",
                "open the file with nothing else that writes while the server runs",
            )
        place = list(_place(file))
        yield from place
        if any(one.mark is Mark.TROUBLE for one in place):
            return
        holder, finding = _holder(file)
        yield finding
        log = file.resolve().with_name(f"{file.resolve().name}-wal")
        if holder and holder.admin and not log.exists():
            # Not read: that would make a new log, without what the server has stored in the old one.
            yield trouble(
                "database", f"{log}, which the server writes, is gone", "it holds the newest data", PUT_BACK_ADVICE
            )
        elif file.exists():
            yield from self._contents(str(file), idle="" if holder and holder.admin else _NO_SERVER)

    def _contents(self, name: str, *, idle: str = "") -> Iterator[Finding]:
        try:
            reader = Reader(self._url)
        except LedgerSchemaTooOld as error:
            if database.is_shared(self._url):
                yield trouble("database", str(error), "a start does not: other processes may be using it")
            else:
                yield note("database", str(error), "the next start upgrades it")
            return
        except FlowhooksError as error:
            yield trouble("database", str(error))
            return
        try:
            if why := reader.quick_check():
                yield trouble("database", f"{name} is damaged: {why}", "", "stop the server and restore a backup")
                return
            self.known = reader.registered_handlers()
            with reader.connection() as connection:
                self.required = required_credentials.required(connection)
                self.waiting = {handler: one.waiting for handler, one in backlog(connection).items()}
            self._share(reader)
            self.counts = list(_counts(reader, idle=self._idle() if reader.shared else idle))
            yield ok("database", f"{name} is a ledger of this version, and whole")
            if reader.shared:
                yield from self._processes()
        except FlowhooksError as error:
            yield trouble("database", f"{name}: {error}")
        finally:
            reader.close()

    def _share(self, reader: Reader) -> None:
        """See who shares it; not whoever is at work for a moment, such as a command."""
        self.living = [one for one in reader.live_processes(self._stale_after) if one.kind != "command"]
        self.run = handlers_run_by(self.living)

    def _processes(self) -> Iterator[Finding]:
        if not self.living:
            yield note("processes", "none lives that shares this ledger", "what waits is run when one starts")
        for one in self.living:
            yield ok(
                "processes",
                f"{one.kind or 'process'} {one.pid} on {one.host}, since {to_text(one.since)}, "
                f"runs {len(one.handlers):,} handler{'' if len(one.handlers) == 1 else 's'}",
                host=one.host,
                pid=one.pid,
                kind=one.kind,
                since=to_text(one.since),
                handlers=len(one.handlers),
            )

    def _idle(self) -> str:
        """What keeps deliveries from coming or from being run, in all processes together."""
        if not any(one.kind != "worker" for one in self.living):
            return f"{_NO_SERVER}, only workers" if self.living else _NO_SERVER
        return "" if self.run else "; no process runs handlers"


def _place(file: Path) -> Iterator[Finding]:
    """What keeps the file from being made or written, without trying."""
    folder = file.parent
    lock = Lock(file).path
    try:
        if not folder.is_dir():
            yield trouble("database", f"there is no folder {folder}", "", "make it, or name another: --database")
        elif file.is_dir():
            yield trouble("database", f"{file} is a folder", "", "name a file: --database")
        elif why := why_misplaced(file):
            yield trouble("database", why, "what it stores is not in the file at that path", PUT_BACK_ADVICE)
        elif unwritable := [one for one in (folder, file, lock) if one.exists() and not os.access(one, os.W_OK)]:
            yield trouble(
                "database", f"{unwritable[0]} cannot be written", "the server writes the file, and others beside it"
            )
        else:
            reject_network_file_system(folder)
            if not file.exists():
                yield note("database", f"there is none yet at {file}", "the first start makes it")
    except (OSError, FlowhooksError) as error:
        yield trouble("database", str(error))


def _holder(file: Path) -> tuple[LockOwner | None, Finding]:
    try:
        holder = Lock(file).owner()
    except FlowhooksError as error:
        return None, trouble("server", str(error))
    if holder is None:
        return None, note("server", "none runs on this database", "what waits is run when one starts")
    if not holder.admin:
        return holder, note("server", f"none yet: process {holder.pid} has the database to itself just now")
    return holder, ok("server", f"process {holder.pid} serves; its administration is at {holder.admin}")


def _counts(reader: Reader, *, idle: str) -> Iterator[Finding]:
    tally = Counter(reader.count_by_state())
    yield ok(
        "deliveries",
        f"{tally['waiting']:,} waiting, {tally['running']:,} running{idle}",
    )
    if tally["shelved"]:
        yield note("deliveries", f"{tally['shelved']:,} wait for handlers that are not loaded")
    if tally["unknown"]:
        yield note(
            "deliveries",
            f"{tally['unknown']:,} unknown",
            "the process was killed while they ran: they may or may not have done their work",
            "`flowhooks events list --state unknown`, then `flowhooks events resolve`",
        )
    if tally["dead"]:
        yield note(
            "deliveries",
            f"{tally['dead']:,} dead",
            "they failed for good",
            "`flowhooks events list --state dead`, then `flowhooks events replay`",
        )
    if tally["parked"]:
        groups = reader.parked()
        named = [_wanted(group.callback_class, group.process_key, group.events) for group in groups[:_MOST_NAMED]]
        more = f" and {len(groups) - _MOST_NAMED:,} more" if len(groups) > _MOST_NAMED else ""
        yield note(
            "deliveries",
            f"{tally['parked']:,} parked",
            f"when they came, no class or key handler wanted {'; '.join(named)}{more}",
            "`flowhooks events list --state parked`; install a handler, or see `flowhooks routes --key KEY`",
        )


def _wanted(callback_class: str, process_key: str | None, events: int) -> str:
    names = [f"class {callback_class}"] if callback_class else []
    names += [f"key {process_key}"] if process_key else []
    return f"{' and '.join(names) or 'neither class nor key'} ({events:,})"


def is_affected(version: str) -> bool:
    """Whether a release of SQLite has the WAL-reset bug.

    Args:
        version: such as `"3.46.1"`; one that cannot be read counts as affected.
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if not _BEGAN <= numbers < _FIXED:
        return not numbers
    return not any(numbers[:2] == fixed[:2] and numbers >= fixed for fixed in _FIXED_EARLIER)
