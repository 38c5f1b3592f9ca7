"""The ledger: the durable record of events, deliveries and attempts."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.failpoints import hit
from flowhooks.ledger import (
    attempts,
    bulk_release,
    circuit_state,
    database,
    due_times,
    file_guard,
    handlers,
    pauses,
    processes,
    purge,
    recovery,
)
from flowhooks.ledger.attempt_starts import InFlightAttempts
from flowhooks.ledger.attempts import AttemptResult, ResultRecorder
from flowhooks.ledger.counters import increment
from flowhooks.ledger.database.guarded_session import SessionPool
from flowhooks.ledger.deliveries import ClaimRequest
from flowhooks.ledger.due_deliveries import due_deliveries, due_deliveries_of
from flowhooks.ledger.events import EventInserter
from flowhooks.ledger.group_commit import GroupCommitWriter, call_alone, call_each
from flowhooks.ledger.handler_transaction import HandlerTransaction
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.ordering import OrderScheduler
from flowhooks.ledger.pauses import PausedHandlers
from flowhooks.ledger.processes import ProcessRegistration
from flowhooks.ledger.reader import Reader, name_database_in_errors
from flowhooks.ledger.requeue import RequeueOptions, requeue
from flowhooks.ledger.route_changes import RouteChange, reroute
from flowhooks.ledger.start_limits import limits_of
from flowhooks.ledger.upgrade import upgrade_on_open
from flowhooks.logger import get_logger
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from concurrent.futures import Future

    from sqlalchemy import Connection

    from flowhooks.clock import Clock
    from flowhooks.ledger.accept_results import AcceptResult, EventBatch
    from flowhooks.ledger.attempts import SlotRequest
    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.new_event import NewEvent
    from flowhooks.ledger.purge import Cutoffs, PurgeCounts
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.delivery import Trigger
    from flowhooks.model.handler import Handler
    from flowhooks.model.plugin_version import PluginVersion
    from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached, ReadyDelivery

T = TypeVar("T")

log = get_logger(__name__)


class Ledger(Reader):
    """The ledger of a process that writes. On SQLite the caller holds the lock.

    Args:
        url: the database. The tables of SQLite are upgraded to this version; those of PostgreSQL must be at this
            version.
        runner: receives, within the transactions, the deliveries that may run.
        clock: the source of times and ids.
        max_queued_writes: maximum number of queued write requests; more are refused.
        write_timeout: seconds that a write may take until it is durable.
        heartbeat_timeout: seconds without a heartbeat after which other processes expire this one.
        kind: the kind of this process: `"server"`, `"worker"` or `"command"`.
        handler_ids: ids of the handlers whose deliveries it runs.
        on_commit: called after each commit with the number of requests and the seconds that it took.
        max_handler_transactions: maximum number of handler transactions that are open at the same time.
        pauses: the cached set of paused handlers; default: a new one.
        limits: the limits of the loaded handlers, by id, which `register_handlers` sets; default: a new mapping.

    Attributes:
        heartbeat_interval: seconds between heartbeats of this process.
        pauses: the paused handlers, as far as this process knows.
        heartbeat_timeout, runner, write_timeout: as given.
        newest: the newest time that was stored before this process stored anything; None if nothing was stored.
        upgraded_from: the migration of the database before it was opened; None for a new database.

    Raises:
        LedgerSchemaTooOld: a shared database is empty or of an older version.
        LedgerUnusable: the database cannot be opened or written, is not a ledger, or is of a newer version.
    """

    def __init__(
        self,
        url: str,
        *,
        runner: DeliveryQueue,
        clock: Clock,
        max_queued_writes: int = 10_000,
        write_timeout: float = 5.0,
        heartbeat_timeout: float = 30.0,
        kind: str = "server",
        handler_ids: Collection[str] = (),
        on_commit: Callable[[int, float], None] = lambda _items, _seconds: None,
        max_handler_transactions: int = 8,
        pauses: PausedHandlers | None = None,
        limits: dict[str, StartLimits] | None = None,
    ) -> None:
        self.heartbeat_timeout = heartbeat_timeout
        self.heartbeat_interval = heartbeat_timeout / processes.HEARTBEATS_PER_TIMEOUT
        self._clock, self._clock_skew = clock, 0
        self.newest: int | None = None
        self._closing = False
        self.write_timeout = write_timeout
        self._write_engine = database.open_engine(url, writing=True, statement_timeout=database.STATEMENT_TIMEOUT)
        with ExitStack() as on_error:
            on_error.callback(database.dispose, self._write_engine)
            with name_database_in_errors(url):
                self.upgraded_from = self._upgrade_tables(url)
            super().__init__(url, statement_timeout=database.STATEMENT_TIMEOUT)
            on_error.callback(super().close)
            self.guard = file_guard.open_guard(url)
            on_error.pop_all()
        self._url = url
        self._registration = ProcessRegistration(
            clock, kind=kind, handlers=handler_ids, heartbeat_timeout=heartbeat_timeout
        )
        self.runner = runner
        self._in_flight = in_flight = InFlightAttempts(self._registration.request_heartbeat)
        self.pauses = pauses or PausedHandlers()
        self._order_scheduler = OrderScheduler(
            runner=runner,
            clock=clock,
            due=due_deliveries_of,
            shared=self.shared,
            write=lambda function: self._writer.submit(call_each, function),
            limits={} if limits is None else limits,
        )
        self._ordered_handlers: set[str] = set()
        shared, pauses, limits = self.shared, self.pauses, self._order_scheduler.limits
        self._event_inserter = EventInserter(
            runner=runner, process=self.process, in_flight=in_flight, limits=limits, shared=shared, pauses=pauses
        )
        self._result_recorder = ResultRecorder(runner=runner, in_flight=in_flight, limits=limits)
        self._handler_sessions = SessionPool(url, max_handler_transactions)
        self._writer = GroupCommitWriter(
            self._write_engine,
            max_queued=max_queued_writes,
            on_commit=on_commit,
            on_begin=self._send_due_heartbeat,
            run_last=(self._claim_batch, self._claim_slots, self._claim_trials),
            before_last=self._order_scheduler.promote_next,
            before_commit=self._order_scheduler.fill_free_slots,
            guard=self.guard,
        )
        self._writer.start()
        try:
            self._write_at_start(self._register_process)
        except LedgerUnusable:
            self.close()
            raise

    def _upgrade_tables(self, url: str) -> str | None:
        """Run pending migrations; on a shared database only check that there are none."""
        if not database.is_shared(url):
            return upgrade_on_open(self._write_engine, url)
        with self._write_engine.connect() as connection:
            runner.check(connection)
            self._sync_clock(connection)
        return runner.HEAD

    def _sync_clock(self, connection: Connection) -> None:
        # Other processes compare their times with the ones that are stored.
        self._clock_skew = processes.sync_clock(connection, self._clock, before=self._clock_skew)

    def _register_process(self, transaction: WriteTransaction) -> None:
        self.newest = self.newest or due_times.newest(transaction.connection)
        self._registration.register(transaction)

    def close(self) -> None:
        """Commit all submitted work, deregister this process, and close the database."""
        self._closing = True
        with suppress(Unavailable):  # the queue is full, or the writer is closed
            self._writer.submit(
                call_each, lambda transaction: processes.deregister(transaction, self.process, self._clock.now())
            )
        self._writer.close()
        self._handler_sessions.close()
        super().close()
        database.dispose(self._write_engine)

    def write(
        self,
        function: Callable[[WriteTransaction], T],
        timeout: float | None = None,
        *,
        certain: bool = True,
        alone: bool = False,
    ) -> T:
        """Call `function` in the writer's thread, in a transaction, and wait until the transaction is durable.

        `function` may be called again if the transaction failed; `timeout` and `certain` are those of `wait_for`. A
        function that changes rows of `handlers` needs a transaction that does nothing else: `alone`.

        Raises:
            Unavailable: the work was not done, or not in time.
            FlowhooksError: the error that `function` raised; nothing was changed.
        """
        future: Future[T] = self._writer.submit(call_alone if alone else call_each, function)
        return self.wait_for(future, timeout, certain=certain)

    def wait_for(self, future: Future[T], timeout: float | None = None, *, certain: bool = False) -> T:
        """Wait until a write is durable, and return its result.

        Args:
            future: the write.
            timeout: seconds; default: `write_timeout`.
            certain: whether to wait longer for a write that was started in time, so that `Unavailable` means that
                nothing was changed.

        Raises:
            Unavailable: the write is not known to be done. If it had not been started, it is withdrawn.
        """
        try:
            return future.result(self.write_timeout if timeout is None else timeout)
        except TimeoutError:
            if not future.done() and (future.cancel() or not certain):
                raise Unavailable("ledger_slow") from None
            return future.result()

    @overload
    def accept(self, item: NewEvent) -> Future[AcceptResult]: ...

    @overload
    def accept(self, item: EventBatch) -> Future[list[AcceptResult]]: ...

    def accept(self, item: NewEvent | EventBatch) -> Future[Any]:
        """Store an event or a batch, with deliveries, in one transaction; `wait_for` waits until they are durable.

        If the webhook id of a batch was reused, nothing is stored and each result says so. The future raises
        `BatchRolledBack` if an event of a batch repeats an event that cannot be read.

        Raises:
            Unavailable: nothing was queued; calling again is safe.
        """
        if self._writer.blocked_seconds > self.write_timeout:
            # A client that waited in vain would occupy a thread, and no thread would be left to refuse others at once.
            raise Unavailable("ledger_slow")
        return self._writer.submit(self._event_inserter, item)

    def due_deliveries(self, now: int, limit_for: Callable[[str], int]) -> list[ReadyDelivery]:
        """Return the deliveries that may run or be probed by `now`; of a limited handler about as many as may start.

        `limit_for` returns the maximum number of deliveries of a handler; 0 skips the handler.
        """
        with self.connection() as connection:
            return due_deliveries(connection, now, self._order_scheduler.limit_to_free_slots(connection, limit_for))

    def claim(self, queued: ReadyDelivery) -> ClaimedAttempt | LimitReached | None:
        """Claim one delivery, as `claim_all` does."""
        return self.claim_all([queued])[0]

    def claim_all(self, deliveries: Sequence[ReadyDelivery]) -> list[ClaimedAttempt | LimitReached | None]:
        """Mark deliveries as running, durably in one commit, and return the attempt of each.

        None if it has changed since its runner read it, is being changed, or is not first of its order group;
        `LimitReached` if the handler is at its concurrency limit or at its rate.

        Raises:
            Unavailable, DamagedRow: the claims could not be made in time, or one of them failed; nothing is marked.
        """
        now, limits = self._clock.now(), self._order_scheduler.limits
        requests = [ClaimRequest(queued, now, limits.get(queued.handler)) for queued in deliveries]
        # `certain`, because nobody would run a delivery that is marked after its runner has given up.
        return self.wait_for(self._writer.submit(self._claim_batch, requests), certain=True)

    def claim_next(self, request: SlotRequest) -> Future[Any]:
        """Mark the next due deliveries of a handler as running, one for each free slot; `request` receives them.

        Raises:
            Unavailable: the request was not queued.
        """
        return self._writer.submit(self._claim_slots, request)

    def _claim_batch(self, transaction: WriteTransaction, batches: list[list[ClaimRequest]]) -> list[Any]:
        # `self.process` is read here, in the writer's thread: this transaction may have changed it.
        process, now = self.process, self._clock.now()
        return attempts.claim_batch(transaction, batches, self._in_flight, process=process, now=now)

    def _claim_slots(self, transaction: WriteTransaction, requests: list[SlotRequest]) -> list[None]:
        process, now = self.process, self._clock.now()
        limits, ordered = self._order_scheduler.limits, self._ordered_handlers
        attempts.claim_next(
            transaction, requests, self._in_flight, process=process, now=now, limits=limits, ordered=ordered
        )
        return [None] * len(requests)

    def record_result(self, result: AttemptResult) -> Future[bool]:
        """Record the result of an attempt.

        The future is True once it is durable; False if the attempt is no longer the current one: nothing is changed.

        Raises:
            Unavailable: the result was not queued.
        """
        return self._writer.submit(self._result_recorder, result)

    def handler_transaction(self, delivery_id: str, attempt: int) -> HandlerTransaction:
        """Return the transaction that the handler of an attempt may open, for the thread that runs it."""
        recorder, before_commit = self._result_recorder, self._order_scheduler.before_commit
        return HandlerTransaction(
            self._handler_sessions, delivery_id, attempt, result_recorder=recorder, before_commit=before_commit
        )

    def requeue(
        self,
        transaction: WriteTransaction,
        delivery_statuses: Sequence[DeliveryStatus],
        *,
        trigger: Trigger,
        actor: str | None = None,
        operation_id: str | None = None,
        missing_handlers: Collection[str] = (),
        reset_retries: bool = False,
        comment: str | None = None,
    ) -> set[str]:
        """Make deliveries wait again, as `flowhooks.ledger.requeue` does; return the ids of those that now wait."""
        now = self._clock.now()
        options = RequeueOptions(now, trigger, actor, operation_id, missing_handlers, reset_retries, comment)
        return requeue(transaction, delivery_statuses, options, runner=self.runner)

    def reroute(
        self, transaction: WriteTransaction, items: list[RouteChange], *, missing_handlers: Collection[str] = ()
    ) -> set[str]:
        """Change the routes of events; return the ids of the changed events."""
        now, runner = self._clock.now(), self.runner
        return reroute(transaction, items, runner=runner, missing_handlers=missing_handlers, now=now)

    def release(self, transaction: WriteTransaction, request: bulk_release.Release) -> bulk_release.Released | None:
        """Act on the next deliveries of a bulk operation, as `flowhooks.ledger.bulk_release` does."""
        return bulk_release.release(transaction, request, runner=self.runner)

    def claim_trial_delivery(self, trial: circuit_state.TrialDelivery) -> tuple[ReadyDelivery, ClaimedAttempt] | None:
        """Start a trial of a handler whose circuit is open, if one is due: see `ledger.circuit_state`."""
        trial = trial._replace(limits=self._order_scheduler.limits.get(trial.handler))
        return self.wait_for(self._writer.submit(self._claim_trials, trial), certain=True)

    def _claim_trials(
        self, transaction: WriteTransaction, trials: list[circuit_state.TrialDelivery]
    ) -> list[tuple[ReadyDelivery, ClaimedAttempt] | None]:
        # One, because the circuit breaker makes one trial after the other.
        start, process, now = circuit_state.claim_trial_delivery, self.process, self._clock.now()
        return [start(transaction, trial, self._in_flight, process, now) for trial in trials]

    def purge(
        self, transaction: WriteTransaction, ids: Sequence[str], cutoffs: Cutoffs, *, kept_from: int = 0
    ) -> PurgeCounts:
        """Delete events that may still be purged, as `flowhooks.ledger.purge` does; by default keep all identities."""
        return purge.purge(transaction, ids, cutoffs, kept_from=kept_from, process=self.process)

    def register_handlers(
        self, loaded: Collection[Handler], plugin_versions: Mapping[str, PluginVersion] = MappingProxyType({})
    ) -> list[RegisteredHandler]:
        """Register the loaded handlers, make their suspended deliveries due, and return the handlers that are missing.

        Also closes circuits that another version of a handler's plugin opened. `plugin_versions` is by handler id.
        """

        def met(transaction: WriteTransaction) -> list[RegisteredHandler]:
            now, self._in_flight.plugin_versions = self._clock.now(), plugin_versions
            self._order_scheduler.limits.update(limits_of(loaded))
            self._ordered_handlers.update(handler.id for handler in loaded if handler.order_by is not None)
            missing = handlers.register_loaded(transaction, loaded, now)
            self.pauses.replace(pauses.paused(transaction.connection))
            circuit_state.reset_for_new_version(transaction, plugin_versions, now, self.pauses)
            return missing

        missing = self._write_at_start(met)
        # Afterwards, because it may take minutes, and claims of other processes change rows of handlers.
        self._write_at_start(lambda later: handlers.wake_loaded(later, loaded, self._clock.now(), shared=self.shared))
        return missing

    def recover(self, *, missing_handlers: Collection[str] = ()) -> dict[Any, int]:
        """Record attempts of processes that are no longer alive as lost; return the number of deliveries by new state.

        On SQLite these are all other processes, because only one process has the database at a time. On a shared
        ledger, they are the stopped ones and those whose heartbeat timed out. Deliveries of missing handlers are
        suspended.

        Raises:
            LedgerUnusable: the database cannot be written.
        """

        def recovered(transaction: WriteTransaction) -> dict[Any, int]:
            now, heartbeats = self._clock.now(), self._registration.heartbeats
            if self.shared and heartbeats.covers_window():
                processes.expire_stale(transaction, now, heartbeats.expiry_limits())
            recorder, random = self._result_recorder, self._clock.random
            lost = recovery.recover_lost(
                transaction, recorder, now, random=random, shared=self.shared, missing_handlers=missing_handlers
            )
            if self.shared:
                lost[State.WAITING] += self.recover_unstarted(transaction, missing_handlers)
            return lost

        settled = self._write_at_start(recovered)
        if any(settled.values()):
            hit("recover.committed")
        return settled

    def correct_due_times(self, transaction: WriteTransaction) -> int:
        """Make deliveries due that are due later than any schedule allows, as `flowhooks.ledger.due_times` does."""
        return due_times.correct_due_times(transaction, self._clock.now(), runner=self.runner)

    def heartbeat(self) -> None:
        """Send a heartbeat. If other processes have expired this one, register it again under a new id.

        Raises:
            Unavailable: the heartbeat was not stored; after `heartbeat_timeout` without one, other processes expire
                this process.
        """
        self._registration.request_heartbeat()
        self.write(lambda _transaction: None, certain=False)

    def is_leader(self) -> bool:
        """Return whether this process does the work that one process does for all that share the ledger.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        if not self.shared:
            return True
        with self.connection() as connection:
            return processes.leader_id(connection) == self.process

    def _send_due_heartbeat(self, transaction: WriteTransaction) -> None:
        # A process that was suspended may have been expired by the others.
        if not self._registration.is_heartbeat_due(shared=self.shared):
            return
        if self._closing:
            return  # this process may be deregistered already: a new row for it would never be removed
        if self.shared:
            self._sync_clock(transaction.connection)
        self._registration.send_heartbeat(transaction)
        self._event_inserter.process = self.process

    def _write_at_start(self, function: Callable[[WriteTransaction], T]) -> T:
        """Write before the server serves; raise `LedgerUnusable` if that fails."""
        with name_database_in_errors(self._url):
            try:
                return self.write(function, timeout=600)
            except Unavailable as error:
                raise (error.__cause__ or LedgerUnusable(str(error))) from error

    def recover_unstarted(self, transaction: WriteTransaction, missing_handlers: Collection[str] = ()) -> int:
        """Make deliveries wait again that this process marked as running and never started; return their number."""
        in_flight, now = self._in_flight, self._clock.now()
        return recovery.recover_unstarted(
            transaction, self._result_recorder, in_flight, now, process=self.process, missing_handlers=missing_handlers
        )

    @property
    def process(self) -> str:
        """This process's id in the ledger; another one after other processes have expired it."""
        return self._registration.id

    @property
    def queue_size(self) -> int:
        """Number of write requests that wait."""
        return self._writer.queue_size

    @property
    def written(self) -> int:
        """Number of write requests of this process that were committed."""
        return self._writer.written

    @property
    def write_error(self) -> str | None:
        """Why the last write failed, or for how long one has been blocked; None if neither is the case."""
        if (waits := self._writer.blocked_seconds) > self.write_timeout:
            return f"the database has not answered for {waits:.0f} seconds"
        return self._writer.write_error

    def probe_writable(self) -> bool:
        """Return whether the database can be written again after a failure, by a small write.

        Otherwise a server that reports a failure, and therefore gets no callbacks, would report it forever.
        """
        with suppress(Unavailable):
            # A new value each time, because SQLite does not write a row that does not change.
            self.write(lambda transaction: increment(transaction, "tried", self.process, 1), timeout=1.0, certain=False)
        return self.write_error is None
