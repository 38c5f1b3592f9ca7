"""The rounds of one source, one at a time, and what happens to their errors."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.background.reconciliation.clients import CallCancelled, call_limit
from flowhooks.background.reconciliation.context import (
    BUSY,
    STOPPED,
    STORAGE,
    Lease,
    RoundResult,
    RoundStopped,
    SourceContext,
    storage_text,
)
from flowhooks.background.reconciliation.due import decline
from flowhooks.background.reconciliation.round import Round
from flowhooks.background.reconciliation.rules import OVERLAP, Candidates, Rule
from flowhooks.errors import EngineError, FlowhooksError, LedgerError, LedgerUnusable, Unavailable
from flowhooks.failpoints import hit
from flowhooks.ledger import engine_book, first_contact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowhooks.background.reconciliation.clients import BoundedClient
    from flowhooks.clock import Clock
    from flowhooks.intake.callback import Callback, TakenIn
    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import EngineSettings, Source

LEASE_MARGIN: Final = 60.0
"""Seconds that a lease lasts longer than one call of the client may take."""

log = structlog.get_logger(__name__)


class RoundLock:
    """Lets the rounds of a source follow each other, and one request wait for the round in progress."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._place = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock, after the round in progress."""
        with self._lock:
            yield

    @contextmanager
    def held_for_request(self) -> Iterator[bool]:
        """Hold the lock, after the round in progress, unless another request waits; return whether it is held."""
        if not self._lock.acquire(blocking=False):
            if not self._place.acquire(blocking=False):
                yield False
                return
            self._lock.acquire()
            self._place.release()
        try:
            yield True
        finally:
            self._lock.release()

    def is_awaited(self) -> bool:
        """Return whether a request waits."""
        return self._place.locked()


class SourceReconciler:
    """Makes the rounds of one source, one at a time.

    Args:
        name: the name of the source.
        source: its settings.
        client: asks the engine.
        ledger: has the book and the events.
        take_in: stores an instance as an event: `Intake.take_in`.
        schemas: the schemas of callbacks.
        clock: the time.
        identity_days: returns for how many days identities of purged events are kept; 0: forever.
        ready_since: returns since when this process has taken callbacks, in microseconds since 1970.
        not_ready_at: returns when this process was last not ready for callbacks since then; 0: never.
        rounds: held during a round, also by a reconciler that had the source before the settings changed.

    Attributes:
        name: as given.
        engine: the section `engine` of the source.
        client: as given.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        client: BoundedClient,
        *,
        ledger: Ledger,
        take_in: Callable[[Callback], TakenIn],
        schemas: Schemas,
        clock: Clock,
        identity_days: Callable[[], int],
        ready_since: Callable[[], int],
        not_ready_at: Callable[[], int],
        rounds: RoundLock,
    ) -> None:
        if source.engine is None:
            raise ValueError(f"source {name} has no engine")
        self.name = name
        self.engine: EngineSettings = source.engine
        self.client = client
        self._ledger = ledger
        self._clock = clock
        self._rounds = rounds
        self._last_error = ""
        self._uncounted, self._uncounted_since = 0, 0
        self._context = SourceContext(
            name=name,
            names=(name, *source.former_names),
            engine=source.engine,
            candidates=Candidates(name, source, source.engine, schemas),
            client=client,
            ledger=ledger,
            take_in=take_in,
            clock=clock,
            identity_days=identity_days,
            ready_since=ready_since,
            not_ready_at=not_ready_at,
            lease_seconds=call_limit(source.engine) + LEASE_MARGIN,
            pace=client.pace,
        )

    def stop(self) -> None:
        """End the round in progress soon, and make no other."""
        self._context.stopping.set()
        self.client.cancel()

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def position(self) -> EnginePosition | None:
        """Return how far the history was read; None before the first round.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        return self._context.position()

    def run(self) -> RoundResult:
        """Make a regular round; wait for the one in progress first. It raises nothing: the result has the error."""
        with self._rounds.held():
            return self._make_round(None, declined=False, dry_run=False)

    def run_for_request(self, *, since: int | None, declined: bool, dry_run: bool) -> RoundResult:
        """Make a round for an operator, after the one in progress. It raises nothing: the result has the error.

        If another request waits already, the result is *busy* at once.

        Args:
            since: the earliest end to read, by the engine's clock, in microseconds since 1970, also before the first
                contact; None: the regular window.
            declined: whether to decide instances again that an operator declined.
            dry_run: whether to write nothing.
        """
        with self._rounds.held_for_request() as is_held:
            if is_held:
                return self._make_round(since, declined=declined, dry_run=dry_run)
        return RoundResult(source=self.name, dry_run=dry_run, reason=BUSY, error=self._awaited_text)

    def decline(self, seen_until: int | None, note: str) -> int:
        """Let a rule skip the instances that wait for an operator, after the round in progress; return their number.

        Args:
            seen_until: instances that were first seen until this time, in microseconds since 1970; None: as many as the
                last round has counted.
            note: why.

        Raises:
            LedgerError: another process reconciles the source, its history is read under another name, another request
                waits for the round in progress, or it was not stored.
        """
        with self._rounds.held_for_request() as is_held:
            if not is_held:
                raise LedgerError(self._awaited_text)
            process = self._ledger.process
            if refusal := self._take_lease(process):
                raise LedgerError(refusal)
            try:
                return decline(self._context, Lease(self._context, process), seen_until, note)
            except RoundStopped:
                raise LedgerError(self._busy_text) from None
            finally:
                self._release_lease(process)

    @property
    def _busy_text(self) -> str:
        return f"another process reconciles {self.name}: try again when its round has ended"

    @property
    def _awaited_text(self) -> str:
        return f"another request waits for the round of {self.name} in progress: try again when that round has ended"

    def _make_round(self, since: int | None, *, declined: bool, dry_run: bool) -> RoundResult:
        result = RoundResult(source=self.name, dry_run=dry_run)
        calls = self.client.calls
        try:
            self._run(result, since, declined=declined, dry_run=dry_run)
        except (RoundStopped, CallCancelled):
            result.reason, result.error = STOPPED, "the process stops, or another process reconciles this source"
        except (Unavailable, LedgerUnusable) as error:
            result.reason, result.error = STORAGE, f"not stored: {storage_text(error)}"
            log.warning(
                "reconciliation_postponed", source=self.name, why=result.error, next="the next round repeats it"
            )
            if not self._context.stopping.is_set() and not dry_run:
                self._count_storage_failure(result.error)
        except EngineError as error:
            # Only a dry run: a real one records its error.
            result.reason, result.error = error.reason, error.why
        except Exception as error:
            # A defect in flowhooks must not end the rounds: instances would be missed without a visible reason.
            log.exception("reconciliation_fault", source=self.name)
            result.reason, result.error = "invalid", f"{type(error).__name__}: {error}"
        result.requests = self.client.calls - calls
        return result

    def _run(self, result: RoundResult, since: int | None, *, declined: bool, dry_run: bool) -> None:
        if dry_run:
            Round(self._context, result, "").preview(since, declined=declined)
            return
        process = self._ledger.process
        if refusal := self._take_lease(process):
            result.reason, result.error = BUSY, refusal
            return
        try:
            hit("reconcile.leased")
            self._run_with_lease(Round(self._context, result, process), since, declined=declined)
            hit("reconcile.finished")
        finally:
            self._release_lease(process)

    def _run_with_lease(self, current: Round, since: int | None, *, declined: bool) -> None:
        try:
            current.run(since, declined=declined)
        except (RoundStopped, CallCancelled, Unavailable, LedgerUnusable):
            raise
        except EngineError as error:
            self._context.is_checked = False
            self._record_failure(current, error)
        except Exception as error:
            log.exception("reconciliation_fault", source=self.name)
            self._record_failure(
                current, EngineError("invalid", f"flowhooks has a defect: {type(error).__name__}: {error}")
            )
        else:
            if self._last_error:
                log.info("reconciliation_recovered", source=self.name)
            self._last_error = ""
            self._uncounted, self._uncounted_since = 0, 0

    def _record_failure(self, current: Round, error: EngineError) -> None:
        current.result.reason, current.result.error = error.reason, error.why
        current.record_failure(error)
        if error.why != self._last_error:
            log.error(
                "reconciliation_failed",
                source=self.name,
                reason=error.reason,
                why=error.why,
                next=f"each round tries again; `flowhooks check` asks the engine of {self.name}",
            )
        self._last_error = error.why

    def _count_storage_failure(self, why: str) -> None:
        """Count a round that the ledger has failed, unless another process reconciles the source.

        If the ledger still fails, the failure is counted with the next one.
        """
        self._last_error = why
        self._uncounted += 1
        self._uncounted_since = self._uncounted_since or self._clock.now()
        process, count, now = self._ledger.process, self._uncounted, self._clock.now()

        def record(transaction: WriteTransaction) -> None:
            if not engine_book.take_lease(transaction, self.name, process, self._context.lease_seconds):
                return
            known = engine_book.position(transaction.connection, self.name)
            if known is None:
                return
            values = {
                "round_at": now,
                "failed_since": known.failed_since or self._uncounted_since,
                "reason": STORAGE,
                "error": why,
                "failures": known.failures + count,
            }
            engine_book.update_position(transaction, self.name, values)
            engine_book.release_lease(transaction, self.name, process)

        try:
            self._ledger.write(record)
        except FlowhooksError:
            return  # it is logged, and `flowhooks_engine_last_success_age_seconds` grows
        self._uncounted, self._uncounted_since = 0, 0

    def _take_lease(self, process: str) -> str:
        """Take the lease; return why that is not possible, or `""` if it is taken."""

        def take(transaction: WriteTransaction) -> str:
            now, former_names = self._clock.now(), self._context.names[1:]
            present = first_contact.make_first_contact(transaction, self.name, former_names, now)
            if present != self.name:
                return (
                    f"the history of {self.name} is read as {present}: add {present} to former_names of {self.name}, "
                    f"unless a server still uses the name {present}"
                )
            if not engine_book.take_lease(transaction, self.name, process, self._context.lease_seconds):
                return self._busy_text
            rule = Rule.DECLINED.value
            first_contact.take_over(transaction, self.name, former_names, overlap=OVERLAP, rule=rule, now=now)
            return ""

        return self._ledger.write(take)

    def _release_lease(self, process: str) -> None:
        try:
            self._ledger.write(lambda transaction: engine_book.release_lease(transaction, self.name, process))
        except FlowhooksError as error:
            log.warning("lease_not_released", source=self.name, why=str(error), next="it ends by itself")
