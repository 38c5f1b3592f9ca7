"""Deliveries, attempts, outcomes, and the table of state transitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from flowhooks.errors import TransactionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from threading import Event as Flag

    from sqlalchemy import Connection

    from flowhooks.model.event import Event


class State(StrEnum):
    """The state of a delivery."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    UNKNOWN = "unknown"
    CLOSED = "closed"


class Transition(NamedTuple):
    """One row of the table of states.

    Attributes:
        source: the state before; None for a new delivery.
        target: the state after.
        by: what causes the transition.
    """

    source: State | None
    target: State
    by: str


TRANSITIONS: Final = (
    Transition(None, State.WAITING, "accept, reroute"),
    Transition(State.WAITING, State.RUNNING, "claim, committed before the function is entered"),
    Transition(State.WAITING, State.DEAD, "operator"),
    Transition(State.WAITING, State.CLOSED, "operator, or its handler's condition is false"),
    Transition(State.RUNNING, State.SUCCEEDED, "it returned"),
    Transition(State.RUNNING, State.WAITING, "failed or lost, and its handler may run again"),
    Transition(State.RUNNING, State.DEAD, "failed for good, or Reject"),
    Transition(State.RUNNING, State.CLOSED, "its handler's condition is false: not entered"),
    Transition(State.RUNNING, State.UNKNOWN, "lost mid-run, no retry= declared"),
    Transition(State.UNKNOWN, State.SUCCEEDED, "probe= or an operator: it did its work"),
    Transition(State.UNKNOWN, State.WAITING, "probe= or an operator: it did not"),
    Transition(State.UNKNOWN, State.CLOSED, "operator"),
    Transition(State.DEAD, State.WAITING, "replay, or the callback was sent again"),
    Transition(State.DEAD, State.CLOSED, "operator: nothing more is needed"),
    Transition(State.SUCCEEDED, State.WAITING, "replay --again"),
)
"""All allowed transitions. `flowhooks.ledger.deliveries` refuses any other."""

ALLOWED_TRANSITIONS: Final = frozenset((row.source, row.target) for row in TRANSITIONS)
COMPLETED_STATES: Final = frozenset({State.SUCCEEDED, State.CLOSED})
"""The states of a delivery that needs no further work."""


MAX_DELAY_SECONDS: Final = 30 * 86400
"""Maximum seconds (30 days) that `RetryAfter` can ask for."""


class OutcomeKind(StrEnum):
    """The kinds of outcome."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        kind: succeeded, failed, rejected or lost.
        value: the handler's return value; it is stored if it can be encoded as JSON with at most 65,536 characters.
            Default: None.
        error: one line for people, without the traceback; `""` if the attempt succeeded.
        traceback: the handler's traceback, for operators only; `""` if there is none.
        retry_after: seconds until the next attempt, from `RetryAfter`; None if the handler did not raise it.
        entered: whether the handler's function was entered. If it was not, a failed attempt is retried even if `retry=`
            does not allow it, up to 8 attempts in total.

    Raises:
        ValueError: `kind` is not an `OutcomeKind`, or `retry_after` is not between 0 seconds and 30 days.
        TypeError: `error` or `traceback` is not a string.
    """

    kind: OutcomeKind
    value: Any = None
    error: str = ""
    traceback: str = ""
    retry_after: float | None = None
    entered: bool = True

    def __post_init__(self) -> None:
        # Plugins create outcomes, too. An invalid one fails here, so that the traceback names the plugin.
        object.__setattr__(self, "kind", OutcomeKind(self.kind))
        if not isinstance(self.error, str) or not isinstance(self.traceback, str):
            raise TypeError("an outcome's error and traceback are strings")
        if self.retry_after is not None and not 0 <= self.retry_after <= MAX_DELAY_SECONDS:
            raise ValueError(f"retry_after is 0 to {MAX_DELAY_SECONDS} seconds, not {self.retry_after!r}")

    @property
    def succeeded(self) -> bool:
        """Whether the attempt succeeded."""
        return self.kind is OutcomeKind.SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one handler, as its handler sees it during an attempt.

    Attributes:
        id: the delivery's id, the same in all attempts. Use it as the idempotency key for other systems.
        event_id: the id of the event.
        handler: the handler's id, `plugin:name`.
        attempt: the number of this attempt, from 1.
    """

    id: str
    event_id: str
    handler: str
    attempt: int
    _entered: list[bool] = field(default_factory=list, repr=False, compare=False)
    _dropped: list[str] = field(default_factory=list, repr=False, compare=False)
    _begin_transaction: Callable[[], AbstractContextManager[Connection]] | None = field(
        default=None, repr=False, compare=False
    )
    _isolated_call: Callable[[Event, Delivery], Any] | None = field(default=None, repr=False, compare=False)

    def transaction(self) -> AbstractContextManager[Connection]:
        """Open a transaction in the ledger's PostgreSQL database that commits together with the attempt's outcome.

        Use it once per attempt, with `with`, in the handler's own thread. The transaction stays open at the end of the
        `with` block and commits after the handler has returned: either both the handler's writes and the outcome
        `succeeded` are durable, or neither is. An exception rolls the transaction back, whether it is raised inside the
        block or after it.

        Returns:
            A context manager that returns a SQLAlchemy `Connection`. Use the connection only inside the block. It
            cannot commit or roll back; `connection.begin_nested()` creates a savepoint.

        Raises:
            FlowhooksError: the ledger is not on PostgreSQL, this attempt is not (or no longer) the current one, the
                handler runs in a process of its own, or the transaction is used in another way than described. It is
                raised at the start or the end of the `with` block; nothing was written.
        """
        if self._begin_transaction is None:
            raise TransactionError("delivery.transaction() may be used only while the handler runs as an attempt")
        return self._begin_transaction()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a delivery, as stored in the ledger.

    Attributes:
        number: the attempt's number, from 1.
        started_at: microseconds since 1970 (UTC).
        finished_at: microseconds since 1970 (UTC); None while the attempt is running.
        outcome: how the attempt ended; None while it is running.
        error: one line; `""` if the attempt succeeded.
        traceback: the handler's traceback; `""` if there is none.
        result: the handler's return value as JSON text; None if none was stored.
        result_dropped: why the handler's return value could not be stored; `""` if it was, or there was none.
        process: the id of the process that ran the attempt.
    """

    number: int
    started_at: int
    finished_at: int | None
    outcome: OutcomeKind | None
    error: str
    traceback: str
    result: str | None
    process: str
    result_dropped: str = ""


class IsolatedCalls(NamedTuple):
    """The call functions of an isolated handler.

    Both raise `Reject` and `RetryAfter` as the handler's function raised them, `HandlerRaised` for any other exception
    of it, `HandlerLost` if its process ended, and `HandlerProcessUnavailable` if no process was available.

    Attributes:
        run: calls the handler's function, and marks the delivery as entered if the function may have been entered.
        probe: calls the handler's probe.
    """

    run: Callable[[Event, Delivery], Any]
    probe: Callable[[Event, Delivery], Any]


class ReadyDelivery(NamedTuple):
    """A delivery that may run, as runners queue it.

    Attributes:
        delivery_id: the delivery's id.
        handler: the handler's id; runners may queue by it.
        attempt: number of attempts made so far. The claim succeeds only if the ledger still has this number.
        probe: whether the delivery is *unknown*, so that the handler's `probe=` is called instead of its function.
        ordered: whether the delivery has an order key.
        load_event: returns a new copy of the event while the delivery is being stored; None otherwise. Runners must
            not keep it, because it references the body.
    """

    delivery_id: str
    handler: str
    attempt: int
    probe: bool = False
    ordered: bool = False
    load_event: Callable[[], Event] | None = None

    def to_claimed_attempt(self) -> ClaimedAttempt | None:
        """Return the first attempt of a delivery that is being stored as running; None without `load_event`."""
        return None if self.load_event is None else ClaimedAttempt(event=self.load_event(), attempt=1, retry_base=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedAttempt:
    """An attempt whose delivery is durably marked as running.

    Attributes:
        event: a copy of the event that no other attempt shares.
        attempt: the attempt's number, from 1.
        retry_base: number of attempts made before the current retry schedule started.
    """

    event: Event
    attempt: int
    retry_base: int


class ConcurrencyLimitReached:
    """Returned instead of an attempt if the handler's concurrency limit over all processes is reached."""

    __slots__ = ()


class TransactionHooks(Protocol):
    """The ledger transaction in which a runner receives deliveries.

    Attributes:
        connection: the database connection, for runners whose queue is in the same database.
    """

    connection: Any

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the COMMIT is confirmed, and only then."""

    def notify_peers(self) -> None:
        """Notify the other processes of new deliveries once the transaction is durable."""

    def after_rollback(self, callback: Callable[[], None]) -> None:
        """Call `callback` if the COMMIT is not confirmed."""


class ExecuteFn(Protocol):
    """Runs one attempt if the delivery is unchanged since the runner read it, and is neither blocked nor paused."""

    def __call__(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None, /) -> ConcurrencyLimitReached | None:
        """Run the attempt; return `ConcurrencyLimitReached` if the handler's concurrency limit prevented it."""


class Runner(Protocol):
    """Decides when and where `execute` is called.

    The ledger alone decides which attempt is made, so a missing or duplicate call is harmless. The default runner is
    `flowhooks.execution.runners.embedded`.
    """

    def reserve(self, transaction: TransactionHooks, deliveries: Sequence[ReadyDelivery]) -> Sequence[ReadyDelivery]:
        """Return those of `deliveries`, which are about to be stored, that run as soon as `transaction` is durable.

        They are stored as *running* at once, which saves the claim. A runner in another process returns none.
        """

    def enqueue(self, transaction: TransactionHooks, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Queue, within `transaction`, deliveries that may run from `not_before` (microseconds since 1970)."""

    def run(self, execute: ExecuteFn, stop: Flag) -> None:
        """Call `execute` for ready deliveries in its own threads until `stop` is set; then wait for running attempts.

        For a reserved delivery the runner passes the claimed attempt. If `execute` returns `ConcurrencyLimitReached`,
        no delivery of that handler can start until one of them has ended; they are then offered again.
        """

    def sweep(self, transaction: TransactionHooks) -> None:
        """Remove the runner's own records of expired processes."""

    def health(self) -> str | None:
        """Return why this runner cannot run deliveries at present, or None."""
