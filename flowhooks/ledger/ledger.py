"""The ledger: the durable record of events, deliveries and attempts; it must not know HTTP, plugins or runners."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.failpoints import reached
from flowhooks.ledger import (
    attempts,
    circuit_breaker,
    database,
    due_times,
    file_guard,
    handlers,
    pauses,
    processes,
    purge,
)
from flowhooks.ledger.attempts import Claim, Settlement, Settling
from flowhooks.ledger.consistency import Books
from flowhooks.ledger.counters import count
from flowhooks.ledger.events import Accepted, Accepting, NewEvent
from flowhooks.ledger.group_commit import Ticket, Transaction, Writer, run
from flowhooks.ledger.handler_transaction import CommitUnanswered, Joint, Joints
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.migrations.upgrade import bring_up, upgrade
from flowhooks.ledger.ordering import Turns
from flowhooks.ledger.pauses import Pauses
from flowhooks.ledger.processes import Pulse
from flowhooks.ledger.queries import due, due_of
from flowhooks.ledger.reader import Reader, naming
from flowhooks.ledger.requeue import Again, requeue
from flowhooks.ledger.reroute import Rerouted, reroute
from flowhooks.model.delivery import Claimed, NoRoom, Queued, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.clock import Clock
    from flowhooks.ledger.handlers import KnownHandler
    from flowhooks.ledger.purge import Before, Gone
    from flowhooks.ledger.queries import Standing
    from flowhooks.model.delivery import Runner
    from flowhooks.model.handler import Handler

__all__ = [
    "Accepted",
    "Books",
    "Claimed",
    "CommitUnanswered",
    "Joint",
    "Ledger",
    "NewEvent",
    "Reader",
    "Settlement",
    "Transaction",
    "upgrade",
]

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Ledger(Reader):
    """The ledger for the one process that writes. The caller holds the lock.

    Args:
        url: the database. SQLite's tables are brought up to this version; PostgreSQL's must be.
        runner: is told, within the transactions, what may run.
        clock: time and ids.
        queue: how much work may queue before more is refused.
        timeout: seconds that a piece of work may take until it is durable.
        stale_after: seconds without a sign of life after which the others take a process for dead.
        kind: what this process is, `"server"`, `"worker"` or `"command"`.
        runs: ids of the handlers whose deliveries it runs.
        committed: called after each commit, with how many pieces of work it had and the seconds that it took.
        joint: how many handlers may have a transaction of their own open at once.
        pauses: learns which handlers are paused; default: one of its own.
        identities_for: microseconds for which the identity of an event is kept after it was received; None: for ever.

    Attributes:
        beat_every: seconds between this process's signs of life.
        pauses: which handlers are paused, as far as this process has heard.
        stale_after: as given.
        timeout: as given.
        process: this process's id in the ledger.
        newest: the newest time that was stored before this process stored anything; None if nothing was.
        upgraded_from: the migration that the database stood at; None for a new one.

    Raises:
        LedgerOutdated: a database that is shared is empty or of an older version.
        LedgerUnusable: the database cannot be opened or written, is no ledger, or is of a newer version.
    """

    def __init__(
        self,
        url: str,
        *,
        runner: Runner,
        clock: Clock,
        queue: int = 10_000,
        timeout: float = 5.0,
        stale_after: float = 30.0,
        kind: str = "server",
        runs: Collection[str] = (),
        committed: Callable[[int, float], None] = lambda _items, _seconds: None,
        joint: int = 8,
        pauses: Pauses | None = None,
        identities_for: int | None = None,
    ) -> None:
        self._identities_for = identities_for
        self.stale_after = stale_after
        self._kind, self._runs = kind, frozenset(runs)
        self.beat_every = stale_after / processes.BEATS
        self._clock = clock
        self._clock_off = 0
        self.newest: int | None = None
        self._closing = False
        self.timeout = timeout
        self._writing = database.open_engine(url, writing=True, answers_within=database.ANSWERS_WITHIN)
        try:
            with naming(url):
                self.upgraded_from = self._brought_up(url)
            super().__init__(url, answers_within=database.ANSWERS_WITHIN)
            self.guard = file_guard.guard(url)
        except LedgerUnusable:
            database.let_go(self._writing)
            raise
        self._url = url
        self.process = clock.new_id()
        self._pulse = Pulse(stale_after)
        self._runner = runner
        self._hands = attempts.Hands()
        self.pauses = pauses or Pauses()
        self._turns = Turns(
            runner=runner,
            clock=clock,
            due=due_of,
            shared=self.shared,
            write=lambda function: self._writer.submit(run, function),
        )
        limits = self._turns.limits
        self._accepting = Accepting(
            runner=runner,
            process=self.process,
            hands=self._hands,
            limits=limits,
            shared=self.shared,
            pauses=self.pauses,
        )
        self._settling = Settling(runner=runner, hands=self._hands, limits=limits)
        self._joints = Joints(url, settling=self._settling, finish=self._turns.finish, most=joint)
        self._writer = Writer(
            self._writing,
            limit=queue,
            committed=committed,
            last=self._claim_batch,
            finish=self._turns.finish,
            guard=self.guard,
        )
        self._writer.start()
        try:
            self._at_start(self._signed_on)
        except LedgerUnusable:
            self.close()
            raise

    def _brought_up(self, url: str) -> str | None:
        """Bring the tables up to this version; where other processes may be at work on them, only see that they are."""
        if not database.is_shared(url):
            return bring_up(self._writing, url)
        with self._writing.connect() as connection:
            runner.check(connection)
            self._set_clock(connection)
        return runner.HEAD

    def _set_clock(self, connection: Connection) -> None:
        """Go by the database's clock where this machine's is wrong: others go by what is written with its times."""
        self._clock_off = processes.follow(connection, self._clock, before=self._clock_off)

    def _signed_on(self, transaction: Transaction) -> None:
        self.newest = self.newest or due_times.newest(transaction.connection)
        processes.sign_on(transaction, self.process, kind=self._kind, handlers=self._runs, now=self._clock.now())
        self._pulse.begin()

    def close(self) -> None:
        """Commit what was submitted, sign off, let go of the database."""
        self._closing = True
        with suppress(Unavailable):  # full, or closed already
            self._writer.submit(
                run, lambda transaction: processes.sign_off(transaction, self.process, self._clock.now())
            )
        self._writer.close()
        self._joints.close()
        super().close()
        database.let_go(self._writing)

    def write(self, function: Callable[[Transaction], T], timeout: float | None = None, *, certain: bool = True) -> T:
        """Call `function` in the writer's thread, in a transaction, and wait until that is durable.

        Args:
            function: may be called a second time if the transaction failed.
            timeout: seconds until it must have begun; default the ledger's own.
            certain: wait on for what has begun, so that `Unavailable` means that nothing was changed.

        Raises:
            Unavailable: it could not be done, or not in time.
            FlowhooksError: whatever `function` raised; nothing was changed.
        """
        ticket: Ticket[T] = self._writer.submit(run, function)
        return self._result(ticket, timeout, certain=certain)

    def accept(self, new: NewEvent) -> Accepted:
        """Store an event and its deliveries in one transaction, and wait until that is durable.

        Raises:
            Unavailable: it is not known to be stored; calling again is safe.
        """
        return self.submit(new)(self.timeout)

    def submit(
        self, new: NewEvent, then: Callable[[Accepted | None], None] | None = None
    ) -> Callable[[float], Accepted]:
        """Have an event stored, and go on meanwhile.

        Args:
            new: the event.
            then: called in the writer's thread with what became of it, None if it was not stored; must be quick.

        Returns:
            A function that waits some seconds until the event is durable, and returns or raises what `accept` does.

        Raises:
            Unavailable: it was not taken; calling again is safe.
        """
        if self._writer.waits > self.timeout:
            # Whoever waits in vain with others costs a thread, and none is left for who could be told at once.
            raise Unavailable("ledger_slow")
        self._show_life()
        told = None if then is None else lambda ticket: then(ticket.peek())
        ticket = self._writer.submit(self._accepting, new, told)
        return lambda timeout: self._result(ticket, timeout)

    def due(self, now: int, most: Callable[[str], int]) -> list[Queued]:
        """What may run or be probed by `now`, of a limited handler only as much as there is room for.

        Args:
            now: microseconds since 1970.
            most: how many of a handler are wanted at the most; 0 passes it over.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        with self.connection() as connection:
            return due(connection, now, self._turns.within(connection, most))

    def claim(self, queued: Queued) -> Claimed | NoRoom | None:
        """Mark a delivery as running, durably.

        Returns:
            Its attempt. None if it is no longer as its runner knew it, or if it is not its turn; `NoRoom` if as many
            of its handler's run as may.

        Raises:
            Unavailable: it could not be begun in time, or failed; nothing is marked.
        """
        self._show_life()
        # Certain: a mark that comes through after its runner has given up would be one that nobody runs.
        limit = self._turns.limits.get(queued.handler)
        ticket = self._writer.submit(self._claim_batch, Claim(queued, self._clock.now(), limit))
        return self._result(ticket, certain=True)

    def _claim_batch(self, transaction: Transaction, claims: list[Claim]) -> list[Claimed | NoRoom | None]:
        # `self.process` is read here, in the writer's thread: a heartbeat in the same batch may have changed it.
        return attempts.claim(transaction, claims, self._hands, process=self.process)

    def settle(self, settlement: Settlement) -> bool:
        """Record how an attempt ended; False if it was no longer the current one, which then changes nothing.

        Raises:
            Unavailable: it could not be done in time.
        """
        return self._result(self._writer.submit(self._settling, settlement))

    def settle_soon(self, settlement: Settlement, then: Callable[[bool | None], None]) -> None:
        """Have it recorded how an attempt ended, and go on meanwhile.

        Args:
            settlement: how it ended.
            then: called in the writer's thread, when it is durable, with what `settle` returns; with None if it
                could not be recorded. Must be quick.

        Raises:
            Unavailable: it was not taken.
        """
        self._writer.submit(self._settling, settlement, lambda ticket: then(ticket.peek()))

    def joint(self, delivery_id: str, attempt: int) -> Joint:
        """The transaction that the handler of an attempt may open; for the thread that runs it."""
        return self._joints.of(delivery_id, attempt)

    def requeue(
        self,
        transaction: Transaction,
        standings: Sequence[Standing],
        *,
        absent: Collection[str] = (),
        fresh: bool = False,
        note: str | None = None,
    ) -> set[str]:
        """Have deliveries run again, as `flowhooks.ledger.requeue` does; the ids of those that now wait."""
        again = Again(self._clock.now(), absent=absent, fresh=fresh, note=note)
        return requeue(transaction, standings, again, runner=self._runner)

    def reroute(self, transaction: Transaction, items: list[Rerouted], *, absent: Collection[str] = ()) -> set[str]:
        """Give events their new states and deliveries; the ids of those that were still as they were read."""
        return reroute(transaction, items, runner=self._runner, absent=absent, now=self._clock.now())

    def try_out(self, handler: str, again_at: int) -> tuple[Queued, Claimed] | None:
        """Begin one delivery of a handler that is held, if it is time for it: see `ledger.circuit_breaker`."""
        self._show_life()
        trial = circuit_breaker.Trial(handler, again_at, self._turns.limits.get(handler))
        return self.write(
            lambda transaction: circuit_breaker.try_out(
                transaction, trial, self._hands, self.process, self._clock.now()
            )
        )

    def purge(self, transaction: Transaction, ids: Sequence[str], before: Before) -> Gone:
        """Delete those of some events that may still go, as `flowhooks.ledger.purge` does."""
        kept_from = 0 if self._identities_for is None else self._clock.now() - self._identities_for
        return purge.purge(transaction, ids, before, kept_from=kept_from, process=self.process)

    def meet(self, loaded: Collection[Handler], releases: Mapping[str, str] | None = None) -> list[KnownHandler]:
        """Write down which handlers are loaded, let run what waits for them, and return those known but missing.

        What was held for what another release of its plugin did runs, too: `releases` says which it is of by now.
        """

        def met(transaction: Transaction) -> list[KnownHandler]:
            now = self._clock.now()
            self._turns.limits.update({one.id: one.concurrency for one in loaded if one.concurrency is not None})
            # Where the ledger is shared, another process may have what is missing here.
            missing = handlers.meet(transaction, loaded, now, shelving=not self.shared)
            self.pauses.hear(pauses.paused(transaction.connection))
            circuit_breaker.renewed(transaction, releases or {}, now, self.pauses)
            return missing

        return self._at_start(met)

    def recover(self, *, absent: Collection[str] = ()) -> dict[Any, int]:
        """Settle as lost what processes that do not live any more left running; how many went where.

        On SQLite that is every other process, for only one has the database at a time; where it is shared, those
        that ended or have been silent for too long.

        Args:
            absent: ids of handlers that are not loaded: their deliveries wait for them.

        Raises:
            LedgerUnusable: the database cannot be written.
        """

        def recovered(transaction: Transaction) -> dict[Any, int]:
            now = self._clock.now()
            self._turns.call_up_missed(transaction)
            if not self.shared:
                return attempts.recover(transaction, self._settling, now, chance=self._clock.chance, absent=absent)
            if self._pulse.has_heard_all():
                processes.bury(transaction, now, stale_after=self.stale_after)
            lost = attempts.recover(
                transaction, self._settling, now, chance=self._clock.chance, shared=True, absent=absent
            )
            lost[State.WAITING] += self.take_back(transaction, absent)
            return lost

        settled = self._at_start(recovered)
        if any(settled.values()):
            reached("recover.committed")
        return settled

    def correct_due_times(self, transaction: Transaction) -> int:
        """Let be due now what is due later than any schedule has it, as `flowhooks.ledger.due_times` does."""
        return due_times.correct_due_times(transaction, self._clock.now(), runner=self._runner)

    def beat(self) -> None:
        """Say that this process lives; if the others took it for dead meanwhile, go on as a new one.

        Raises:
            Unavailable: it could not be said; what is not said for long ends this process in the others' eyes.
        """
        self.write(self._live, certain=False)

    def leads(self) -> bool:
        """Whether this process is to do what one process does for all that share the ledger.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        if not self.shared:
            return True
        with self.connection() as connection:
            return processes.eldest(connection) == self.process

    def _show_life(self) -> None:
        """Before anything is begun: a process that was stopped for long may have been taken for dead."""
        if self.shared and self._pulse.is_late():
            self.beat()

    def _live(self, transaction: Transaction) -> None:
        if self._closing:
            return  # this process may be signed off already: a new row for it would never be
        if self.shared:
            self._set_clock(transaction.connection)
        if processes.beat(transaction, self.process):
            self._pulse.beaten()
            return
        log.error(
            "taken_for_dead", process=self.process, next="what it ran is retried or unknown; it goes on as a new one"
        )
        self.process = self._clock.new_id()
        self._accepting.process = self.process
        self._signed_on(transaction)

    def _at_start(self, function: Callable[[Transaction], T]) -> T:
        """Write what must be written before anything else, however much it is.

        Raises:
            LedgerUnusable: that cannot be done.
        """
        with naming(self._url):
            try:
                return self.write(function, timeout=600)
            except Unavailable as error:
                raise (error.__cause__ or LedgerUnusable(str(error))) from error

    def take_back(self, transaction: Transaction, absent: Collection[str] = ()) -> int:
        """Let run again what is marked as running here and was never begun; how many there were."""
        hands, now = self._hands, self._clock.now()
        return attempts.take_back(transaction, self._settling, hands, now, process=self.process, absent=absent)

    @property
    def queued(self) -> int:
        """How many pieces of work wait to be committed."""
        return self._writer.queued

    @property
    def failing(self) -> str | None:
        """Why the last write failed, if it did, or for how long one has been waiting: the kind of error."""
        if (waits := self._writer.waits) > self.timeout:
            return f"the database has not answered for {waits:.0f} seconds"
        return self._writer.failing

    def mended(self) -> bool:
        """Whether the database can be written again after a failure: a small write is tried.

        Else a server that is sent nothing while it says that it is in trouble would say so for ever.
        """
        with suppress(Unavailable):
            # One more each time, for SQLite does not write a row that stays as it was.
            self.write(lambda transaction: count(transaction, "tried", self.process, 1), timeout=1.0, certain=False)
        return self.failing is None

    def _result(self, ticket: Ticket[T], timeout: float | None = None, *, certain: bool = False) -> T:
        try:
            return ticket.result(self.timeout if timeout is None else timeout, certain=certain)
        except SQLAlchemyError as error:
            raise Unavailable("ledger_down") from error
