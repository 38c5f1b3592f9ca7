"""Deliveries, attempts, outcomes and the one table of states; everything that affects a state is read from here."""

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
    """Where a delivery stands."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    UNKNOWN = "unknown"
    CLOSED = "closed"


class Transition(NamedTuple):
    """One row of the table of states: from where, to where, and by what."""

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
    Transition(State.DEAD, State.WAITING, "replay, or the call-back came again"),
    Transition(State.DEAD, State.CLOSED, "operator: nothing more is needed"),
    Transition(State.SUCCEEDED, State.WAITING, "replay --again"),
)
"""Every change of state there is. `ledger.move` refuses what is not in it."""

ALLOWED_TRANSITIONS: Final = frozenset((row.source, row.target) for row in TRANSITIONS)
COMPLETED_STATES: Final = frozenset({State.SUCCEEDED, State.CLOSED})
"""The states in which nothing more is needed."""


MAX_DELAY_SECONDS: Final = 30 * 86400
"""The longest time after which an attempt may ask to be made again."""


class OutcomeKind(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REJECTED = "rejected"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        kind: succeeded, failed, rejected or lost.
        value: what the handler returned, if JSON can hold it; else None.
        error: one line for people, without the traceback; `""` when it succeeded.
        traceback: the handler's traceback, for operators only; `""` when there is none.
        retry_after: seconds that a `RetryAfter` asked for, or None.
        entered: whether the handler's function was entered. An attempt that failed
            before that is made again whatever `retry=` says.

    Raises:
        ValueError: there is no such kind, or `retry_after` is not 0 to 30 days.
        TypeError: a text is none.
    """

    kind: OutcomeKind
    value: Any = None
    error: str = ""
    traceback: str = ""
    retry_after: float | None = None
    entered: bool = True

    def __post_init__(self) -> None:
        # Plugins make outcomes too: what makes no sense is refused here, where its maker can be named.
        object.__setattr__(self, "kind", OutcomeKind(self.kind))
        if not isinstance(self.error, str) or not isinstance(self.traceback, str):
            raise TypeError("an outcome's error and traceback are strings")
        if self.retry_after is not None and not 0 <= self.retry_after <= MAX_DELAY_SECONDS:
            raise ValueError(f"retry_after is 0 to {MAX_DELAY_SECONDS} seconds, not {self.retry_after!r}")

    @property
    def succeeded(self) -> bool:
        """Whether the attempt did its work."""
        return self.kind is OutcomeKind.SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event for one handler, as its handler sees it during an attempt.

    Attributes:
        id: the same over all attempts: the idempotency key to pass on to other systems.
        event_id: whose event it is.
        handler: the handler's id, `plugin:name`.
        attempt: the number of this attempt, from 1.
    """

    id: str
    event_id: str
    handler: str
    attempt: int
    _entered: list[bool] = field(default_factory=list, repr=False, compare=False)
    _begin_transaction: Callable[[], AbstractContextManager[Connection]] | None = field(
        default=None, repr=False, compare=False
    )
    _isolated_call: Callable[[Event, Delivery], Any] | None = field(default=None, repr=False, compare=False)

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction on the ledger's own PostgreSQL, which commits what is written in it together with the outcome.

        Used once, by `with`, in the handler's own thread. It stays open when its block is left, and commits when the
        handler has returned: what was written and that the attempt has succeeded are durable together, or neither
        is. An exception rolls back, whether it leaves the block or comes after it.

        Returns:
            A context manager that gives a SQLAlchemy `Connection`. It is for the block alone, and cannot commit or
            roll back; `connection.begin_nested()` undoes parts.

        Raises:
            FlowhooksError: the ledger is not on PostgreSQL, this is not the current attempt (any more), the handler
                runs in a process of its own, or it is used in another way. Raised by `with`, where it begins or ends;
                nothing was written.
        """
        if self._begin_transaction is None:
            raise TransactionError("delivery.transaction() is for the handler, while it runs as an attempt")
        return self._begin_transaction()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a delivery, as the ledger remembers it.

    Attributes:
        number: from 1.
        started_at: microseconds since 1970 (UTC).
        finished_at: microseconds since 1970 (UTC); None while it runs.
        outcome: None while it runs.
        error: one line; `""` when it succeeded.
        traceback: `""` when there is none.
        result: what the handler returned, as JSON text; None when nothing was kept.
        process: the id of the process that ran it.
    """

    number: int
    started_at: int
    finished_at: int | None
    outcome: OutcomeKind | None
    error: str
    traceback: str
    result: str | None
    process: str


class IsolatedCalls(NamedTuple):
    """How a handler is called that runs in a process of its own.

    Both raise what the function raised, as a `HandlerRaised` if it was neither `Reject` nor `RetryAfter`; `HandlerLost`
    where its process ended; and `HandlerProcessUnavailable` where there was none.

    Attributes:
        run: calls its function, and marks the delivery as entered when that may have begun.
        probe: calls its probe.
    """

    run: Callable[[Event, Delivery], Any]
    probe: Callable[[Event, Delivery], Any]


class ReadyDelivery(NamedTuple):
    """What a runner needs to know of a delivery that may run.

    Attributes:
        delivery_id: the delivery.
        handler: its handler's id; runners may queue by it.
        attempt: how many attempts have been made: the claim is a compare-and-set on it.
        probe: whether it is *unknown* and its handler's `probe=` is to be asked, rather than run.
        ordered: whether it has to wait for its turn.
        load_event: makes its event anew, where it is being stored just now. Not to be kept: it holds the body.
    """

    delivery_id: str
    handler: str
    attempt: int
    probe: bool = False
    ordered: bool = False
    load_event: Callable[[], Event] | None = None

    def to_claimed_attempt(self) -> ClaimedAttempt | None:
        """The first attempt of a delivery that is stored as running; None if it is not being stored just now."""
        return None if self.load_event is None else ClaimedAttempt(event=self.load_event(), attempt=1, retry_base=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedAttempt:
    """An attempt that has begun: its delivery is durably marked as running.

    Attributes:
        event: read anew, so that this attempt shares its data with no other.
        attempt: the attempt's number, from 1.
        retry_base: attempts made before the present retry schedule.
    """

    event: Event
    attempt: int
    retry_base: int


class ConcurrencyLimitReached:
    """Instead of an attempt: as many of its handler's deliveries run as may, here and elsewhere."""

    __slots__ = ()


class TransactionHooks(Protocol):
    """The ledger transaction in which a runner is told of deliveries.

    Attributes:
        connection: the database connection, for runners whose queue lives in the same database.
    """

    connection: Any

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once the transaction is durable; never if it is not."""

    def notify_peers(self) -> None:
        """Have the other processes told, once the transaction is durable, that there is something to run for them."""

    def after_rollback(self, callback: Callable[[], None]) -> None:
        """Have `callback` called if the transaction comes to nothing."""


class ExecuteFn(Protocol):
    """Makes one attempt, if the delivery still is as its runner knew it and nothing holds it back."""

    def __call__(self, queued: ReadyDelivery, claimed: ClaimedAttempt | None, /) -> ConcurrencyLimitReached | None:
        """Make it; `ConcurrencyLimitReached` if that could not be because of its handler's others."""


class Runner(Protocol):
    """Decides when and where `execute` is called; the ledger stays the only truth: a lost or doubled call is harmless.

    The first one is `flowhooks.execution.runners.embedded`.
    """

    def reserve(self, transaction: TransactionHooks, deliveries: Sequence[ReadyDelivery]) -> Sequence[ReadyDelivery]:
        """Choose which of `deliveries`, about to be stored, are run as soon as `transaction` is durable.

        Those are stored as running at once, which saves claiming them. A runner that works elsewhere chooses none.
        """

    def enqueue(self, transaction: TransactionHooks, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Take note, within `transaction`, that `deliveries` may run from `not_before` (microseconds since 1970)."""

    def run(self, execute: ExecuteFn, stop: Flag) -> None:
        """Call `execute` for what may run, from threads of its own, until `stop` is set; then wait for what runs.

        For what it had reserved it hands over the claim, too. Where `execute` returns `ConcurrencyLimitReached`, none
        of that handler's deliveries can begin: they are offered again once one has ended.
        """

    def sweep(self, transaction: TransactionHooks) -> None:
        """Recover what processes that died have left behind."""

    def health(self) -> str | None:
        """Why this runner cannot run deliveries just now, or None."""
