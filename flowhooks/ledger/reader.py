"""Read-only access to the ledger."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from flowhooks.clock import to_text
from flowhooks.errors import EventPurged, LedgerUnusable, NotFound
from flowhooks.ledger import (
    attempts,
    circuit_state,
    corrections,
    database,
    due_deliveries,
    engine_queries,
    filtered_events,
    handlers,
    identities,
    ignored_requests,
    instance_events,
    late_callbacks,
    pauses,
    processes,
    purge,
    queries,
)
from flowhooks.ledger.file_guard import NOT_A_DATABASE, NOT_A_DATABASE_ADVICE, PUT_BACK_ADVICE, reject_damaged_log
from flowhooks.ledger.lock import is_held, why_misplaced
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.route_changes import ParkedGroup, ParkedWindow, parked_groups, parked_window
from flowhooks.ledger.stats import LedgerStats, Totals, count_by_state, read_stats, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from flowhooks.ledger.consistency import ConsistencyReport
    from flowhooks.ledger.corrections import Conflict
    from flowhooks.ledger.engine_queries import EngineStats
    from flowhooks.ledger.file_guard import FileGuard
    from flowhooks.ledger.filtered_events import EventPage
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.ignored_requests import IgnoredRule
    from flowhooks.ledger.late_callbacks import LateCallback
    from flowhooks.ledger.pauses import CircuitState
    from flowhooks.ledger.processes import LiveProcess
    from flowhooks.ledger.purge import Cutoffs, PurgePage
    from flowhooks.ledger.queries import DeliveryStatus, EventFilter, StoredEvent
    from flowhooks.ledger.search import EventSummary
    from flowhooks.model.delivery import Attempt
    from flowhooks.model.event import Event
    from flowhooks.model.ready_delivery import ReadyDelivery


class Reader:
    """Read-only access to the ledger. Its connections cannot write.

    Args:
        url: the database.
        statement_timeout: seconds within which a shared database must answer a statement; default: no timeout.

    Attributes:
        shared: whether other processes may use the database as well.
        guard: the guard of the database file, in the process that writes it; None in all others.

    Raises:
        LedgerSchemaTooOld: the database is empty or of an older version.
        LedgerUnusable: the database is missing, cannot be read, is not a ledger, or is of a newer version.
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
        if file is not None and not is_held(file):
            with name_database_in_errors(url):
                reject_damaged_log(url)
        self.shared = database.is_shared(url)
        self._engine = database.open_engine(url, writing=False, statement_timeout=statement_timeout)
        try:
            with name_database_in_errors(url), self._engine.connect() as connection:
                runner.check(connection)
        except BaseException:
            database.dispose(self._engine)
            raise

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Open a connection that reads one snapshot.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        # No new connection if there is a problem: it might open another file at the path, and use the write-ahead log
        # beside it for that file.
        if self.guard is not None and (why := self.guard.find_problem()):
            raise LedgerUnusable(f"the database cannot be read: {why}")
        try:
            with self._engine.connect() as connection:
                yield connection
        except UnicodeDecodeError as error:  # of SQLite's own error text, which quotes a damaged table definition
            raise LedgerUnusable("the database cannot be read: its table definitions are damaged") from error
        except SQLAlchemyError as error:
            if self.guard is not None and database.is_damage(error):
                self.guard.report_damage(database.error_text(error))
            raise LedgerUnusable(f"the database cannot be read: {database.error_text(error)}") from error

    def close(self) -> None:
        """Close the connections."""
        database.dispose(self._engine)

    def find(self, event_filter: EventFilter, *, limit: int, after: str = "") -> list[StoredEvent]:
        """Return at most `limit` events that match a filter, newest first, starting after the id `after`."""
        with self.connection() as connection:
            return filtered_events.find(connection, event_filter, limit=limit, after=after)

    def find_summaries(self, event_filter: EventFilter, *, limit: int, after: str = "") -> list[EventSummary]:
        """Do the same without reading the bodies."""
        with self.connection() as connection:
            return filtered_events.find_summaries(connection, event_filter, limit=limit, after=after)

    def event(self, event_id: str) -> StoredEvent:
        """Return one event.

        Raises:
            EventPurged: the event with this id was purged.
            NotFound: there is no event with this id, and never was.
        """
        with self.connection() as connection:
            matches = filtered_events.find(connection, queries.EventFilter(ids=(event_id,)), limit=1)
        if matches:
            return matches[0]
        if (received_at := self.purged_event_received_at(event_id)) is not None:
            raise EventPurged(event_id, to_text(received_at))
        raise NotFound(f"there is no event {event_id}")

    def purged_event_received_at(self, event_id: str) -> int | None:
        """Return when a purged event was received, in microseconds since 1970; None if no such event was purged."""
        with self.connection() as connection:
            identity = purge.find_purged_event(connection, event_id)
        return None if identity is None else identity.received_at

    def is_stored(self, identity: tuple[str, str, str, str]) -> bool:
        """Return whether an event with this `Event.identity` is stored or was purged."""
        with self.connection() as connection:
            return identities.is_stored(connection, identity)

    def is_taken_in(self, source: str, flow_instance_id: str) -> bool:
        """Return whether reconciliation has stored an event of this process instance of a source."""
        with self.connection() as connection:
            return instance_events.is_taken_in(connection, source, flow_instance_id)

    def delivery_statuses(self, event_id: str) -> tuple[DeliveryStatus, ...]:
        """Return the statuses of an event's deliveries."""
        with self.connection() as connection:
            return queries.delivery_statuses(connection, [event_id]).get(event_id, ())

    def delivery(self, delivery_id: str) -> tuple[Event, DeliveryStatus] | None:
        """Return a delivery's event and status, or None."""
        with self.connection() as connection:
            return queries.delivery(connection, delivery_id)

    def shown_delivery(self, delivery_id: str) -> tuple[str, DeliveryStatus, str] | None:
        """Return the id of a delivery's event, its status and its damage, or None; for operators."""
        with self.connection() as connection:
            return queries.shown_delivery(connection, delivery_id)

    def due_deliveries(self, now: int, limit_for: Callable[[str], int]) -> list[ReadyDelivery]:
        """Return deliveries that may run or be probed by `now`, at most `limit_for(handler)` of each handler."""
        with self.connection() as connection:
            return due_deliveries.due_deliveries(connection, now, limit_for)

    def page(self, event_filter: EventFilter, *, limit: int, after: str = "") -> list[StoredEvent]:
        """Return at most `limit` events that match a filter, oldest first, starting after the id `after`."""
        with self.connection() as connection:
            return filtered_events.find(connection, event_filter, limit=limit, after=after, newest_first=False)

    def bounded_page(self, event_filter: EventFilter, *, limit: int, after: str = "") -> EventPage:
        """Do the same, with fewer events if they are large."""
        with self.connection() as connection:
            return filtered_events.bounded_page(connection, event_filter, limit=limit, after=after)

    def count_events(self, event_filter: EventFilter) -> int:
        """Return the number of events that match a filter."""
        with self.connection() as connection:
            return filtered_events.count_events(connection, event_filter)

    def attempts(self, delivery_id: str, *, last: int | None = None) -> tuple[Attempt, ...]:
        """Return the attempts of a delivery, first one first, or only the `last` ones."""
        with self.connection() as connection:
            return attempts.attempts_of(connection, delivery_id, last=last)

    def conflicts(self, event_id: str) -> list[Conflict]:
        """Return the conflicting bodies of an event, oldest first."""
        with self.connection() as connection:
            return corrections.conflicts_of(connection, event_id)

    def late_callbacks(self, event_id: str) -> list[LateCallback]:
        """Return the bodies that are kept beside an event which reconciliation took in, oldest first."""
        with self.connection() as connection:
            return late_callbacks.bodies_beside(connection, event_id)

    def ignored_rules(self, source: str | None = None) -> list[IgnoredRule]:
        """Return the rules that ignored requests, of one source or of all, as `ignored_requests` does."""
        with self.connection() as connection:
            return ignored_requests.ignored_rules(connection, source)

    def ignored_counts(self) -> dict[tuple[str, str], int]:
        """Return the number of ignored requests by source and rule."""
        with self.connection() as connection:
            return ignored_requests.counts(connection)

    def purgeable(self, cutoffs: Cutoffs, *, event_filter: queries.EventFilter, after: str, limit: int) -> PurgePage:
        """Return a page of the oldest events with those that may be purged, as `flowhooks.ledger.purge` does."""
        with self.connection() as connection:
            return purge.find_purgeable(connection, cutoffs, event_filter=event_filter, after=after, limit=limit)

    def count_purge_candidates(self, cutoffs: Cutoffs, *, since: int | None = None) -> int:
        """Return the number of events that `purgeable` examines in total."""
        with self.connection() as connection:
            return purge.count_candidates(connection, cutoffs, since=since)

    def parked(self) -> list[ParkedGroup]:
        """Return the parked events, grouped by the properties that a router uses."""
        with self.connection() as connection:
            return parked_groups(connection)

    def parked_window(self, *, after: str, limit: int) -> ParkedWindow:
        """Return the groups of the next parked events, as `flowhooks.ledger.route_changes` does."""
        with self.connection() as connection:
            return parked_window(connection, after=after, limit=limit)

    def read_stats(self, now: int) -> LedgerStats:
        """Return the open work of the ledger at `now`, in microseconds since 1970."""
        with self.connection() as connection:
            return read_stats(connection, now)

    def totals(self) -> Totals:
        """Return the numbers of accepted, purged and stored events."""
        with self.connection() as connection:
            return totals(connection)

    def read_engine_stats(self) -> EngineStats:
        """Return the state of the engines, for metrics."""
        with self.connection() as connection:
            return engine_queries.engine_stats(connection)

    def book_totals(self) -> dict[tuple[str, str, str], int]:
        """Return the number of all finished instances by source, disposition and rule, as `engine_queries` does."""
        with self.connection() as connection:
            return engine_queries.book_totals(connection)

    def count_by_state(self) -> dict[str, int]:
        """Return the number of open deliveries by state, and of parked events."""
        with self.connection() as connection:
            return count_by_state(connection)

    def registered_handlers(self) -> list[RegisteredHandler]:
        """Return all registered handlers that are not retired."""
        with self.connection() as connection:
            return handlers.registered_handlers(connection)

    def paused(self) -> dict[str, int]:
        """Return when each paused handler was paused, by its id, in microseconds since 1970."""
        with self.connection() as connection:
            return pauses.paused(connection)

    def open_circuits(self) -> dict[str, CircuitState]:
        """Return the open circuits by handler id."""
        with self.connection() as connection:
            return circuit_state.open_circuits(connection)

    def live_processes(self, heartbeat_timeout: float) -> list[LiveProcess]:
        """Return the processes that share the ledger and sent a heartbeat in the last `heartbeat_timeout` seconds.

        Empty on SQLite, where the only process holds the lock instead.
        """
        if not self.shared:
            return []
        with self.connection() as connection:
            return processes.live_processes(connection, heartbeat_timeout=heartbeat_timeout)

    def verify(self) -> ConsistencyReport:
        """Check the consistency of the ledger."""
        # Import here: only a few commands verify, and the statements take a tenth of the ledger's imports.
        from flowhooks.ledger.consistency import verify  # noqa: PLC0415 (only `verify` needs it)

        with self.connection() as connection:
            return verify(connection)

    def quick_check(self) -> str | None:
        """Return the damage that the database reports for its file, or None."""
        try:
            return database.quick_check(self._engine)
        except SQLAlchemyError as error:
            return database.error_text(error)


@contextmanager
def name_database_in_errors(url: str) -> Iterator[None]:
    """Raise database errors as `LedgerUnusable` with the name of the database."""
    name = database.display_name(url)
    try:
        yield
    except UnicodeDecodeError as error:  # as above
        raise LedgerUnusable(f"cannot use the database {name}: its table definitions are damaged") from error
    except SQLAlchemyError as error:
        raise LedgerUnusable(f"cannot use the database {name}: {_add_advice(database.error_text(error))}") from error
    except LedgerUnusable as error:
        raise type(error)(f"cannot use the database {name}: {_add_advice(str(error))}") from error


def _add_advice(why: str) -> str:
    return f"{why}: {NOT_A_DATABASE_ADVICE}" if why == NOT_A_DATABASE else why
