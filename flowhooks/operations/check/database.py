"""Check the database."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_text
from flowhooks.errors import FlowhooksError, LedgerSchemaTooOld
from flowhooks.ledger import database, event_fields, required_credentials
from flowhooks.ledger.file_guard import PUT_BACK_ADVICE
from flowhooks.ledger.lock import Lock, reject_network_file_system, why_misplaced
from flowhooks.ledger.processes import handlers_run_by, processes_with_pid
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.stats import backlog
from flowhooks.model.event import ParkedBy
from flowhooks.operations.check.finding import CheckFinding, Severity, note, ok, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.ledger.processes import LiveProcess
    from flowhooks.ledger.route_changes import ParkedGroup

_WAL_BUG_FIXED_IN: Final = (3, 51, 3)
_WAL_BUG_BACKPORTS: Final = ((3, 44, 6), (3, 50, 7))
_WAL_BUG_SINCE: Final = (3, 7, 0)
"""SQLite releases with the WAL-reset bug: 3.7.0 up to, but without, 3.51.3. It is also fixed in the branch 3.44 since
3.44.6 and in the branch 3.50 since 3.50.7 (https://sqlite.org/wal.html#walresetbug).
"""
_MAX_NAMED: Final = 3
_OLDEST_EVENTS: Final = 100
"""Number of events whose indexed fields are compared with the setting."""
_NO_SERVER: Final = "; no server runs"


class DatabaseCheck:
    """Findings about the database, read once and used by several parts of the check.

    Args:
        url: URL of the database.
        heartbeat_timeout: seconds without a heartbeat after which a process that shares the database counts as expired.
        indexed_fields: the setting `search.fields`.

    Attributes:
        registered_handlers: the registered handlers.
        waiting_by_handler: number of waiting deliveries by handler id.
        required_credentials: time since which each kind of credential is required, in microseconds since 1970.
        live_processes: the live servers and workers that share the database.
        executed_handlers: ids of the handlers whose deliveries the live processes run.
        server: the server that holds the lock of a SQLite database; None if none does.
        server_handlers: ids of the handlers whose deliveries this server runs; None if they are not known.
        counts: findings about the stored deliveries.
    """

    def __init__(self, url: str, *, heartbeat_timeout: float, indexed_fields: Sequence[str] = ()) -> None:
        self.registered_handlers: list[RegisteredHandler] = []
        self.waiting_by_handler: Mapping[str, int] = {}
        self.required_credentials: Mapping[str, int] = {}
        self.live_processes: list[LiveProcess] = []
        self.executed_handlers: frozenset[str] = frozenset()
        self.server: LockOwner | None = None
        self.server_handlers: frozenset[str] | None = None
        self.counts: list[CheckFinding] = []
        self._url = url
        self._heartbeat_timeout = heartbeat_timeout
        self._indexed_fields = indexed_fields

    def findings(self) -> Iterator[CheckFinding]:
        """Yield all findings, those about the file first."""
        file = database.database_file(self._url)
        if file is None:
            yield from self._check_contents(database.display_name(self._url))
            return
        if is_affected(version := database.library_version()):
            yield note(
                "database",
                f"SQLite {version} has the WAL-reset bug (fixed in 3.51.3)",
                "two processes that write at once can damage a database; flowhooks is safe, because only one process "
                "writes",
                "do not let another program write to the file while the server runs",
            )
        location = list(_check_location(file))
        yield from location
        if any(result.mark is Severity.PROBLEM for result in location):
            return
        holder, finding = _check_lock(file)
        self.server = holder if holder and holder.admin else None
        yield finding
        log = file.resolve().with_name(f"{file.resolve().name}-wal")
        if self.server and not log.exists():
            # Do not read the database: opening it would create a new WAL file without the data that the server stored
            # in the deleted one.
            yield problem(
                "database", f"the server's write-ahead log {log} is missing", "it has the newest data", PUT_BACK_ADVICE
            )
        elif file.exists():
            yield from self._check_contents(str(file), idle="" if self.server else _NO_SERVER)

    def _check_contents(self, name: str, *, idle: str = "") -> Iterator[CheckFinding]:
        try:
            reader = Reader(self._url)
        except LedgerSchemaTooOld as error:
            if database.is_shared(self._url):
                yield problem(
                    "database", str(error), "a start does not upgrade it, because other processes may be using it"
                )
            else:
                yield note("database", str(error), "the next start upgrades it")
            return
        except FlowhooksError as error:
            yield problem("database", str(error))
            return
        try:
            if why := reader.quick_check():
                yield problem("database", f"{name} is damaged: {why}", "", "stop the server and restore a backup")
                return
            self.registered_handlers = reader.registered_handlers()
            with reader.connection() as connection:
                self.required_credentials = required_credentials.required(connection)
                self.waiting_by_handler = {
                    handler: handler_backlog.waiting for handler, handler_backlog in backlog(connection).items()
                }
            self._read_processes(reader)
            self.counts = list(_check_deliveries(reader, idle=self._idle_text() if reader.shared else idle))
            yield ok("database", f"{name} is a ledger of this version and is not damaged")
            yield from self._check_fields(reader)
            if reader.shared:
                yield from self._check_processes()
        except FlowhooksError as error:
            yield problem("database", f"{name}: {error}")
        finally:
            reader.close()

    def _check_fields(self, reader: Reader) -> Iterator[CheckFinding]:
        # `flowhooks db index` begins with the oldest events, so these show whether it has run.
        with reader.connection() as connection:
            page = event_fields.find_changes(connection, self._indexed_fields, after="", limit=_OLDEST_EVENTS)
        if page.changes:
            yield note(
                "database",
                "stored events are not indexed by the fields of search.fields",
                "a search by a field finds only the events that were received with this setting",
                "`flowhooks db index` indexes them while the server runs",
            )

    def _read_processes(self, reader: Reader) -> None:
        # Commands are left out: they run only for a moment.
        self.live_processes = [
            process for process in reader.live_processes(self._heartbeat_timeout) if process.kind != "command"
        ]
        self.executed_handlers = handlers_run_by(self.live_processes)
        if self.server is not None:
            with reader.connection() as connection:
                own = processes_with_pid(connection, self.server.pid)
            if own:
                self.server_handlers = handlers_run_by(own)

    def _check_processes(self) -> Iterator[CheckFinding]:
        if not self.live_processes:
            yield note("processes", "no live process uses this ledger", "waiting deliveries run when a process starts")
        for process in self.live_processes:
            yield ok(
                "processes",
                f"{process.kind or 'process'} {process.pid} on {process.host}, since {to_text(process.since)}, "
                f"runs {len(process.handlers):,} handler{'' if len(process.handlers) == 1 else 's'}",
                host=process.host,
                pid=process.pid,
                kind=process.kind,
                since=to_text(process.since),
                handlers=len(process.handlers),
            )

    def _idle_text(self) -> str:
        if not any(process.kind != "worker" for process in self.live_processes):
            return f"{_NO_SERVER}, only workers" if self.live_processes else _NO_SERVER
        return "" if self.executed_handlers else "; no process runs handlers"


def _check_location(file: Path) -> Iterator[CheckFinding]:
    folder = file.parent
    lock = Lock(file).path
    try:
        if not folder.is_dir():
            yield problem(
                "database", f"the folder {folder} does not exist", "", "create it, or name another file: --database"
            )
        elif file.is_dir():
            yield problem("database", f"{file} is a folder", "", "name a file: --database")
        elif why := why_misplaced(file):
            yield problem(
                "database", why, "the server stores its data in another file than the one at that path", PUT_BACK_ADVICE
            )
        elif unwritable := [path for path in (folder, file, lock) if path.exists() and not os.access(path, os.W_OK)]:
            yield problem(
                "database",
                f"{unwritable[0]} cannot be written",
                "the server writes this file and other files in its folder",
            )
        else:
            reject_network_file_system(folder)
            if not file.exists():
                yield note("database", f"{file} does not exist yet", "the first start creates it")
    except (OSError, FlowhooksError) as error:
        yield problem("database", str(error))


def _check_lock(file: Path) -> tuple[LockOwner | None, CheckFinding]:
    try:
        holder = Lock(file).owner()
    except FlowhooksError as error:
        return None, problem("server", str(error))
    if holder is None:
        return None, note("server", "no server runs on this database", "waiting deliveries run when a server starts")
    if not holder.admin:
        return holder, note("server", f"no server runs yet: process {holder.pid} is using the database exclusively")
    return holder, ok("server", f"process {holder.pid} serves; its administration is at {holder.admin}")


def _check_deliveries(reader: Reader, *, idle: str) -> Iterator[CheckFinding]:
    counts = Counter(reader.count_by_state())
    yield ok(
        "deliveries",
        f"{counts['waiting']:,} waiting, {counts['running']:,} running{idle}",
    )
    if counts["handler_missing"]:
        yield note("deliveries", f"{counts['handler_missing']:,} wait for handlers that are not loaded")
    if counts["unknown"]:
        yield note(
            "deliveries",
            f"{counts['unknown']:,} unknown",
            "a process was killed while they ran, so they may or may not have done their work",
            "`flowhooks events list --state unknown`, then `flowhooks events resolve`",
        )
    if counts["dead"]:
        yield note(
            "deliveries",
            f"{counts['dead']:,} dead",
            "they failed and have no retry left",
            "`flowhooks events list --state dead`, then `flowhooks events replay`",
        )
    if counts["parked"]:
        yield from _check_parked(reader, counts["parked"])


_PARKED: Final = {
    ParkedBy.HANDLER: (
        "no handler took them when they were received: {named}",
        "install a handler, or run `flowhooks routes --key KEY` or `--class CLASS`",
    ),
    ParkedBy.CONDITION: (
        "the condition of a handler is undecided: {named}",
        "correct what the engine sends, or the handler, then run `flowhooks events reroute --parked`",
    ),
    ParkedBy.NAME: (
        "they have neither class nor key, so no handler can match them",
        "correct what the engine sends, then `flowhooks events dismiss`",
    ),
    ParkedBy.END_STATE: (
        "the engine's history does not tell how their instances ended: {named}",
        "find out in the engine, then `flowhooks events reroute ID` or `flowhooks events dismiss ID`",
    ),
    ParkedBy.REUSED_ID: (
        "an event of the day before has the same process instance id: {named}",
        "compare both with the engine, then `flowhooks events reroute ID` or `flowhooks events dismiss ID`",
    ),
}
"""Why events are parked, and the next step."""


def _check_parked(reader: Reader, n_parked: int) -> Iterator[CheckFinding]:
    by_reason: dict[ParkedBy, Counter[str]] = {}
    for group, stored in reader.parked_window(after="", limit=n_parked).groups:
        reason = ParkedBy(stored) if stored in set(ParkedBy) else ParkedBy.HANDLER
        by_reason.setdefault(reason, Counter())[_name_text(group)] += group.events
    for reason, names in sorted(by_reason.items(), key=lambda item: -item[1].total()):
        named = [f"{name} ({events:,})" for name, events in names.most_common(_MAX_NAMED)]
        more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
        why, next_step = _PARKED[reason]
        yield note(
            "deliveries",
            f"{names.total():,} parked",
            why.format(named="; ".join(named) + more),
            f"`flowhooks events list --state parked` lists them; {next_step}",
        )


def _name_text(group: ParkedGroup) -> str:
    names = [f"class {group.callback_class}"] if group.callback_class else []
    names += [f"key {group.process_key}"] if group.process_key else []
    return " and ".join(names) or "neither class nor key"


def is_affected(version: str) -> bool:
    """Tell whether a release of SQLite has the WAL-reset bug.

    Args:
        version: version of SQLite, such as `"3.46.1"`; an unreadable one counts as affected.
    """
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if not _WAL_BUG_SINCE <= numbers < _WAL_BUG_FIXED_IN:
        return not numbers
    return not any(numbers[:2] == fixed[:2] and numbers >= fixed for fixed in _WAL_BUG_BACKPORTS)
