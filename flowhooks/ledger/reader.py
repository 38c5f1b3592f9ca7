"""The ledger for those who only look."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from flowhooks.clock import to_text
from flowhooks.errors import EventPurged, LedgerUnusable, NotFound
from flowhooks.ledger import circuit_breaker, database, events, handlers, pauses, processes, purge, queries
from flowhooks.ledger.consistency import ConsistencyReport, verify
from flowhooks.ledger.file_guard import PUT_BACK_ADVICE
from flowhooks.ledger.lock import why_misplaced
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.reroute import ParkedGroup, parked_groups, parked_reasons
from flowhooks.ledger.stats import LedgerStats, Totals, count_by_state, read_stats, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from flowhooks.ledger.file_guard import FileGuard
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.pauses import CircuitState
    from flowhooks.ledger.processes import LiveProcess
    from flowhooks.ledger.purge import Cutoffs, PurgePage
    from flowhooks.ledger.queries import DeliveryStatus, EventFilter, StoredEvent
    from flowhooks.model.delivery import Attempt, ReadyDelivery
    from flowhooks.model.event import Event


class Reader:
    """The ledger for those who only look: it can change nothing, whatever it is asked.

    Args:
        url: the database.
        statement_timeout: seconds in which a shared one must answer a question; default: it may take its time.

    Attributes:
        shared: whether other processes may use the database, too.
        guard: whether the file is the one at its path, for the process that writes it; None for all others.

    Raises:
        LedgerSchemaTooOld: the database is empty or of an older version.
        LedgerUnusable: the database is missing, cannot be read, is no ledger, or is of a newer version.
    """

    guard: FileGuard | None = None

    def __init__(self, url: str, *, statement_timeout: float | None = None) -> None:
        file = database.database_file(url)
        if file is not None and (why := why_misplaced(file)):
            raise LedgerUnusable(f"cannot use the database {file}: {why}; {PUT_BACK_ADVICE}")
        if file is not None and not file.exists():
            raise LedgerUnusable(
                f"there is no database at {file}: start the server once, or run `flowhooks db upgrade`"
            )
        self.shared = database.is_shared(url)
        self._engine = database.open_engine(url, writing=False, statement_timeout=statement_timeout)
        try:
            with name_database_in_errors(url), self._engine.connect() as connection:
                runner.check(connection)
        except LedgerUnusable:
            database.dispose(self._engine)
            raise

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection that reads one moment's state.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        # Not opened: a new connection to another file at the path would take the log beside it for that file's.
        if self.guard is not None and (why := self.guard.find_problem()):
            raise LedgerUnusable(f"the database cannot be read: {why}")
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            if self.guard is not None and database.is_damage(error):
                self.guard.report_damage(database.error_text(error))
            raise LedgerUnusable(f"the database cannot be read: {database.error_text(error)}") from error

    def close(self) -> None:
        """Let go of the database."""
        database.dispose(self._engine)

    def find(self, event_filter: EventFilter, *, limit: int, after: str = "") -> list[StoredEvent]:
        """The newest events that a filter means, `limit` at the most, going on after the id `after`."""
        with self.connection() as connection:
            return queries.find(connection, event_filter, limit=limit, after=after)

    def event(self, event_id: str) -> StoredEvent:
        """One event.

        Raises:
            Purged: there was one with this id.
            NotFound: there is none, and was none.
        """
        with self.connection() as connection:
            matches = queries.find(connection, queries.EventFilter(ids=(event_id,)), limit=1)
        if matches:
            return matches[0]
        if (received_at := self.purged_event_received_at(event_id)) is not None:
            raise EventPurged(event_id, to_text(received_at))
        raise NotFound(f"there is no event {event_id}")

    def purged_event_received_at(self, event_id: str) -> int | None:
        """When an event that was purged had been received, in microseconds since 1970; None if none was."""
        with self.connection() as connection:
            identity = purge.find_purged_event(connection, event_id)
        return None if identity is None else identity.received_at

    def is_stored(self, identity: tuple[str, str, str, str]) -> bool:
        """Whether there is an event of this identity, as `Event.identity` has it."""
        with self.connection() as connection:
            return events.is_stored(connection, identity)

    def delivery_statuses(self, event_id: str) -> tuple[DeliveryStatus, ...]:
        """How the deliveries of an event stand."""
        with self.connection() as connection:
            return queries.delivery_statuses(connection, [event_id]).get(event_id, ())

    def delivery(self, delivery_id: str) -> tuple[Event, DeliveryStatus] | None:
        """One delivery and its event, or None."""
        with self.connection() as connection:
            return queries.delivery(connection, delivery_id)

    def due_deliveries(self, now: int, limit_for: Callable[[str], int]) -> list[ReadyDelivery]:
        """What may run or be probed by `now`; `limit_for` says how many of a handler are wanted."""
        with self.connection() as connection:
            return queries.due_deliveries(connection, now, limit_for)

    def page(self, event_filter: EventFilter, *, limit: int, after: str = "") -> list[StoredEvent]:
        """The oldest events that a filter means, `limit` at the most, going on after the id `after`."""
        with self.connection() as connection:
            return queries.find(connection, event_filter, limit=limit, after=after, newest_first=False)

    def count_events(self, event_filter: EventFilter) -> int:
        """How many events a filter means."""
        with self.connection() as connection:
            return queries.count_events(connection, event_filter)

    def attempts(self, delivery_id: str, *, last: int | None = None) -> tuple[Attempt, ...]:
        """Every attempt of a delivery, the first one first; or only the `last` ones."""
        with self.connection() as connection:
            return queries.attempts_of(connection, delivery_id, last=last)

    def conflicts(self, event_id: str) -> list[tuple[int, str]]:
        """The differing bodies that came under an event's identity: when, and what."""
        with self.connection() as connection:
            return queries.conflicts_of(connection, event_id)

    def purgeable(self, cutoffs: Cutoffs, *, event_filter: queries.EventFilter, after: str, limit: int) -> PurgePage:
        """The oldest events, `limit` at the most, and which of them may go, as `flowhooks.ledger.purge` has it."""
        with self.connection() as connection:
            return purge.find_purgeable(connection, cutoffs, event_filter=event_filter, after=after, limit=limit)

    def count_purge_candidates(self, cutoffs: Cutoffs, *, since: int | None = None) -> int:
        """How many events `purgeable` looks at in all."""
        with self.connection() as connection:
            return purge.count_candidates(connection, cutoffs, since=since)

    def parked(self) -> list[ParkedGroup]:
        """What is parked, by what a router looks at."""
        with self.connection() as connection:
            return parked_groups(connection)

    def parked_reasons(self) -> list[tuple[ParkedGroup, str | None]]:
        """What is parked, by what a router looks at and by the stored reason, each group with that reason."""
        with self.connection() as connection:
            return parked_reasons(connection)

    def read_stats(self, now: int) -> LedgerStats:
        """How the ledger fares at `now`, microseconds since 1970."""
        with self.connection() as connection:
            return read_stats(connection, now)

    def totals(self) -> Totals:
        """What the ledger has taken in, and holds."""
        with self.connection() as connection:
            return totals(connection)

    def count_by_state(self) -> dict[str, int]:
        """How much is waiting, running, dead, unknown and parked."""
        with self.connection() as connection:
            return count_by_state(connection)

    def registered_handlers(self) -> list[RegisteredHandler]:
        """Every handler that was ever loaded and not retired."""
        with self.connection() as connection:
            return handlers.registered_handlers(connection)

    def paused(self) -> dict[str, int]:
        """Since when each handler is paused that is, by its id."""
        with self.connection() as connection:
            return pauses.paused(connection)

    def open_circuits(self) -> dict[str, CircuitState]:
        """The open circuits, by the ids of their handlers."""
        with self.connection() as connection:
            return circuit_breaker.open_circuits(connection)

    def live_processes(self, heartbeat_timeout: float) -> list[LiveProcess]:
        """The processes that share the ledger and have given a sign of life in the last `heartbeat_timeout` seconds.

        None where one process has it to itself: that holds its lock instead.
        """
        if not self.shared:
            return []
        with self.connection() as connection:
            return processes.live_processes(connection, heartbeat_timeout=heartbeat_timeout)

    def verify(self) -> ConsistencyReport:
        """Whether the books balance."""
        with self.connection() as connection:
            return verify(connection)

    def quick_check(self) -> str | None:
        """What the database says is wrong with its file, or None."""
        try:
            return database.quick_check(self._engine)
        except SQLAlchemyError as error:
            return database.error_text(error)


@contextmanager
def name_database_in_errors(url: str) -> Iterator[None]:
    """Have whatever keeps a database from being opened say which one it is."""
    name = database.display_name(url)
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerUnusable(f"cannot use the database {name}: {database.error_text(error)}") from error
    except LedgerUnusable as error:
        raise type(error)(f"cannot use the database {name}: {error}") from error
