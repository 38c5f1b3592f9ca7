"""Process membership: registration, heartbeats, and the expiry of processes that stopped sending them.

Theory of operation
-------------------
Processes that share a ledger detect each other's failure by heartbeats and protect themselves from a process that was
wrongly taken for failed by *fencing*.

- Each process has a row, with an id in the order of start. It updates `heartbeat_at` every sixth of
  `ledger.heartbeat_timeout`, by the database's clock, so that the clocks of the machines do not matter.
- Any process may mark another one as stopped (`expire_stale`) after `ledger.heartbeat_timeout` without a heartbeat.
  Attempts that the expired process was running are then recorded as lost.
- A process expires others only if it was itself connected during that whole time (`HeartbeatState.covers_window`).
  Otherwise the first process that reconnects after a database outage would expire all the others.
- If the database's clock steps, the last heartbeats of all processes look old, or are in the future. So a process
  compares those of others with its own last one, and counts a step between two of its own like a gap
  (`HeartbeatState.on_sent`). It expires nobody after a step that it has not counted yet (`ExpiryLimits`).
- A process that died while the database's clock was ahead has left a heartbeat in the future. A live process replaces
  such a heartbeat soon, so one that is still there after the gap belongs to a process that has died.
- An expired process may still be running: it was suspended, or cut off from the database. Its next heartbeat updates no
  row, because `stopped_at` is set. It then continues under a new id.
- **Fencing**: an attempt is identified by its delivery and its number. Every result is written on the condition that
  the delivery is still *running* and that this number is its current attempt (`deliveries.StateChange`). After a
  delivery has been recovered, the late result of the earlier attempt matches no row and changes nothing. The
  transaction of a handler is checked in the same way before its COMMIT (`handler_transaction`).
- A process whose own heartbeat is overdue starts its next transaction with one (`HeartbeatState.is_overdue`). It thus
  learns that it was expired before it starts work under the old id. The time in which its machine slept counts.
- The clocks of a virtual machine stand still while it is paused. So the statement that starts attempts also reads and
  locks the row of their process (`attempt_starts`). If the process has expired, the transaction is rolled back, and its
  batch is executed again after a heartbeat. A process that holds this lock is expired after its transaction.
- A heartbeat counts once it is durable. After a failed one, every transaction starts with another one until it is
  (`ProcessRegistration`), because attempts under an id that is not stored would be recorded as lost while they run.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import func, or_, select, update

from flowhooks.clock import SECOND, seconds_since_boot
from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import processes
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from flowhooks.clock import Clock
    from flowhooks.ledger.transaction import WriteTransaction

log = get_logger(__name__)

# A few heartbeats may be missed, or late.
HEARTBEATS_PER_TIMEOUT: Final = 6
"""Number of heartbeats that a process sends within `ledger.heartbeat_timeout`."""
_ANY_AGE: Final = 1e9
"""Seconds: any heartbeat is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """A process that is alive.

    Attributes:
        host: the host name of its machine.
        pid: its process id on that machine.
        kind: `"server"`, `"worker"` or `"command"`; `""` if an older version registered it.
        since: when it was registered, in microseconds since 1970.
        handlers: the ids of the handlers whose deliveries it runs.
    """

    host: str
    pid: int
    kind: str
    since: int
    handlers: frozenset[str]


class Heartbeat(NamedTuple):
    """A heartbeat that this process stored.

    Attributes:
        sent_at: when its statement was sent, by `seconds_since_boot`.
        confirmed_at: when the reply to its statement arrived, by the same clock.
        stored_at: its time by the database's clock, in microseconds since 1970.
    """

    sent_at: float
    confirmed_at: float
    stored_at: int


class ExpiryLimits(NamedTuple):
    """Which heartbeats are of processes that have expired: times of the database's clock, in microseconds since 1970.

    Attributes:
        before: a heartbeat from before this time is too old.
        after: one from after this time was stored while the clock was ahead, and was not replaced since.
        now_from: the earliest present time, unless the clock has stepped back.
        now_until: the latest present time, unless the clock has stepped ahead.
    """

    before: int
    after: int
    now_from: int
    now_until: int


def register(transaction: WriteTransaction, process: str, *, kind: str, handlers: Collection[str], now: int) -> int:
    """Register this process and the handlers whose deliveries it runs; return the time of its first heartbeat."""
    if transaction.connection.dialect.name == "sqlite":
        # This process has the lock, so all processes that did not stop were killed.
        killed = update(processes).where(processes.c.stopped_at.is_(None)).values(stopped_at=now)
        transaction.connection.execute(killed)
    transaction.notice.handlers |= bool(handlers)
    stored_at: int = transaction.connection.execute(
        database.insert(processes)
        .values(
            id=process,
            host=socket.gethostname(),
            pid=os.getpid(),
            kind=kind,
            handlers=json.dumps(sorted(handlers), ensure_ascii=False),
            started_at=now,
            heartbeat_at=database.Now(),
        )
        .returning(processes.c.heartbeat_at)
    ).scalar_one()
    return stored_at


def deregister(transaction: WriteTransaction, process: str, now: int) -> None:
    """Mark a process as stopped. The next recovery finds the attempts that it left running."""
    ended = update(processes).where(processes.c.id == process).values(stopped_at=now)
    transaction.connection.execute(ended)
    transaction.notice.handlers = True


def heartbeat(transaction: WriteTransaction, process: str) -> int | None:
    """Store a heartbeat of a process; return its time, or None if other processes have expired the process."""
    lives = update(processes).where(processes.c.id == process, processes.c.stopped_at.is_(None))
    sent = lives.values(heartbeat_at=database.Now()).returning(processes.c.heartbeat_at)
    stored_at: int | None = transaction.connection.execute(sent).scalar_one_or_none()
    return stored_at


def expire_stale(transaction: WriteTransaction, now: int, limits: ExpiryLimits) -> list[str]:
    """Mark processes as stopped whose last heartbeat is outside the limits; return their ids."""
    silent = or_(processes.c.heartbeat_at < limits.before, processes.c.heartbeat_at > limits.after)
    # Within the statement that reads the heartbeats: another process may have sent one after a step of the clock.
    is_steady = database.Now().between(limits.now_from, limits.now_until)
    is_stale = processes.c.stopped_at.is_(None) & silent & is_steady
    # A locked process has an open transaction that starts attempts: it is expired once that transaction has ended.
    stale = select(processes.c.id).where(is_stale).with_for_update(skip_locked=True)
    ended = update(processes).where(processes.c.id.in_(stale), is_stale).values(stopped_at=now)
    buried = list(transaction.connection.execute(ended.returning(processes.c.id)).scalars())
    transaction.notice.handlers |= bool(buried)
    return buried


def leader_id(connection: Connection) -> str | None:
    """Return the id of the process that started first: it does the work that one process does for all.

    A command may run for hours, and does none of this work.
    """
    candidates = processes.c.stopped_at.is_(None), processes.c.kind != "command"
    return connection.execute(select(func.min(processes.c.id)).where(*candidates)).scalar()


def count_earlier(connection: Connection, process: str) -> int:
    """Return the number of processes that run deliveries and started before a process."""
    earlier = processes.c.stopped_at.is_(None), processes.c.handlers != "[]", processes.c.id < process
    return connection.execute(select(func.count()).select_from(processes).where(*earlier)).scalar_one()


def live_processes(connection: Connection, *, heartbeat_timeout: float) -> list[LiveProcess]:
    """Return the processes that are registered and not stopped, in the order of their start.

    A process whose last heartbeat is older than `heartbeat_timeout` seconds is left out. So is one whose last heartbeat
    is that far in the future: the database's clock was ahead, and the process may have died since.
    """
    timeout = int(heartbeat_timeout * SECOND)
    is_alive = processes.c.heartbeat_at.between(database.Now() - timeout, database.Now() + timeout)
    query = select(processes).where(processes.c.stopped_at.is_(None), is_alive).order_by(processes.c.id)
    return [
        LiveProcess(
            host=row.host,
            pid=row.pid,
            kind=row.kind,
            since=row.started_at,
            handlers=frozenset(json.loads(row.handlers)),
        )
        for row, _ in (repair(row, list(processes.c)) for row in connection.execute(query))
    ]


def processes_with_pid(connection: Connection, pid: int) -> list[LiveProcess]:
    """Return the registered processes with a process id. On SQLite, the lock tells which of them is alive."""
    return [process for process in live_processes(connection, heartbeat_timeout=_ANY_AGE) if process.pid == pid]


def handlers_run_by(live: Iterable[LiveProcess]) -> frozenset[str]:
    """Return the ids of the handlers whose deliveries these processes run."""
    return frozenset().union(*(process.handlers for process in live))


def sync_clock(connection: Connection, clock: Clock, *, before: int) -> int:
    """Synchronize a clock with the database's; log when a difference between them appears or disappears.

    Args:
        connection: any connection.
        clock: the clock.
        before: the previous difference, in microseconds.

    Returns:
        The present difference, in microseconds.
    """
    skew = clock.sync(lambda: database.database_time(connection))
    if skew and not before:
        why = "the database's time is used instead; set this machine's clock"
        log.warning("clock_skew_detected", seconds=round(skew / SECOND, 3), next=why)
    elif before and not skew:
        log.info("clock_skew_resolved", seconds=0)
    return skew


class HeartbeatState:
    """When this process sent its last heartbeat, and since when it has sent them without a gap.

    Args:
        heartbeat_timeout: seconds without a heartbeat after which other processes expire this one.
    """

    def __init__(self, heartbeat_timeout: float) -> None:
        self._heartbeat_timeout = heartbeat_timeout
        self.on_started(Heartbeat(seconds_since_boot(), seconds_since_boot(), 0))

    def on_started(self, heartbeat: Heartbeat) -> None:
        """Record the first heartbeat."""
        self._in_touch_since = heartbeat.sent_at
        self._sent_at, self._confirmed_at, self._stored_at = heartbeat

    def on_sent(self, heartbeat: Heartbeat) -> None:
        """Record a heartbeat. After a long gap, or a step of the database's clock, the time without a gap starts again.

        A long gap means that the database was unavailable.
        """
        # The database read its clock before each reply, so only a step lets that clock advance by less or by more.
        least, most = heartbeat.sent_at - self._confirmed_at, heartbeat.confirmed_at - self._sent_at
        advanced = (heartbeat.stored_at - self._stored_at) / SECOND
        is_step = not least - self._interval <= advanced <= most + self._interval
        if heartbeat.sent_at - self._sent_at > self._max_gap or is_step:
            self._in_touch_since = heartbeat.sent_at
        self._sent_at, self._confirmed_at, self._stored_at = heartbeat

    def is_overdue(self) -> bool:
        """Return whether other processes may soon expire this one."""
        return seconds_since_boot() - self._sent_at > self._heartbeat_timeout - self._interval

    def covers_window(self) -> bool:
        """Return whether this process has been connected for the whole heartbeat timeout, and may expire others.

        No process can send heartbeats while the database is unavailable. The first one that reconnects must therefore
        not expire the others, and neither must a process that has just started, because it does not know what happened
        before.
        """
        now = seconds_since_boot()
        return now - self._sent_at < self._max_gap and now - self._in_touch_since >= self._heartbeat_timeout

    def expiry_limits(self) -> ExpiryLimits:
        """Return which heartbeats are of processes that have expired, if `covers_window`."""
        now, timeout = seconds_since_boot(), int(self._heartbeat_timeout * SECOND)
        return ExpiryLimits(
            before=self._stored_at - timeout,
            after=self._stored_at + timeout,
            now_from=self._stored_at + int((now - self._confirmed_at - self._max_gap) * SECOND),
            now_until=self._stored_at + int((now - self._sent_at + self._max_gap) * SECOND),
        )

    @property
    def _interval(self) -> float:
        """Seconds between two heartbeats."""
        return self._heartbeat_timeout / HEARTBEATS_PER_TIMEOUT

    @property
    def _max_gap(self) -> float:
        """Seconds between two heartbeats beyond which the database must have been unavailable."""
        return self._heartbeat_timeout / 2


class ProcessRegistration:
    """The registration of this process: its id, and its heartbeats. Changed by the writer's thread only.

    Args:
        clock: the source of times and ids.
        kind: the kind of this process: `"server"`, `"worker"` or `"command"`.
        handlers: ids of the handlers whose deliveries it runs.
        heartbeat_timeout: seconds without a heartbeat after which other processes expire this one.

    Attributes:
        id: the id of this process; another one after other processes have expired it.
        heartbeats: the heartbeats that are durable.
    """

    def __init__(self, clock: Clock, *, kind: str, handlers: Collection[str], heartbeat_timeout: float) -> None:
        self._clock = clock
        self._kind, self._handlers = kind, frozenset(handlers)
        self.id = clock.new_id()
        self.heartbeats = HeartbeatState(heartbeat_timeout)
        self._durable_id: str | None = None
        self._is_requested = False

    def register(self, transaction: WriteTransaction) -> None:
        """Register this process under its id."""
        sent_at = seconds_since_boot()
        stored_at = register(transaction, self.id, kind=self._kind, handlers=self._handlers, now=self._clock.now())
        self._await_commit(transaction, sent_at, stored_at)

    def request_heartbeat(self) -> None:
        """Make a heartbeat due in the next transaction. Any thread may call this."""
        self._is_requested = True

    def is_heartbeat_due(self, *, shared: bool) -> bool:
        """Return whether the next transaction stores a heartbeat; an overdue one matters on a `shared` ledger only."""
        return self._is_requested or (shared and self.heartbeats.is_overdue())

    def send_heartbeat(self, transaction: WriteTransaction) -> None:
        """Store a heartbeat. If other processes have expired this one, register it under a new id."""
        sent_at = seconds_since_boot()
        if (stored_at := heartbeat(transaction, self.id)) is not None:
            self._await_commit(transaction, sent_at, stored_at)
            return
        # It stays due until it is durable. The id is not restored after a rollback: the COMMIT may have succeeded
        # although its reply was lost, and the next heartbeat finds out.
        self._is_requested = True
        self.id = self._clock.new_id()
        self.register(transaction)

    def _await_commit(self, transaction: WriteTransaction, sent_at: float, stored_at: int) -> None:
        sent = Heartbeat(sent_at, seconds_since_boot(), stored_at)
        transaction.after_commit(partial(self._on_durable, self.id, sent))

    def _on_durable(self, process: str, sent: Heartbeat) -> None:
        self._is_requested = False
        if process == self._durable_id:
            self.heartbeats.on_sent(sent)
            return
        if self._durable_id is not None:
            log.error(
                "process_expired",
                process=self._durable_id,
                next="its attempts are retried or unknown; it continues as a new process",
            )
        self._durable_id = process
        self.heartbeats.on_started(sent)
