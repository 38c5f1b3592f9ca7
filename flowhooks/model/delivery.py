"""Deliveries, attempts, outcomes, and the table of state transitions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from flowhooks.errors import MAX_DELAY_SECONDS
from flowhooks.model.invocation import begin_transaction

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection


class State(StrEnum):
    """The state of a delivery."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    UNKNOWN = "unknown"
    CLOSED = "closed"


StateName: TypeAlias = Literal["waiting", "running", "succeeded", "dead", "unknown", "closed"]
"""The values of `State`, for type checkers."""


class Trigger(StrEnum):
    """Why an attempt was started."""

    FIRST = "first"
    """It is the first attempt of a delivery of a callback."""
    RETRY = "retry"
    """The attempt before it failed or was lost, and the handler's `retry=` allows another one."""
    TRIAL = "trial"
    """It is the trial of a handler whose circuit is open."""
    RECONCILED = "reconciled"
    """It is the first attempt of a delivery of an event that was taken in from an engine's history."""
    REPEATED = "repeated"
    """The engine sent the callback of a *dead* delivery again."""
    PROBE = "probe"
    """The handler's probe said that the work of an *unknown* delivery was not done."""
    REPLAY = "replay"
    """An operator replayed the delivery."""
    RESOLVED = "resolved"
    """An operator decided that the work of an *unknown* delivery was not done."""
    RUN_NOW = "run-now"
    """An operator ran a *waiting* delivery before its scheduled time."""


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
        value: the handler's return value; it is stored if it can be encoded as JSON with at most 65,536 characters and
            100 nested levels. Default: None.
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
        return begin_transaction(self.id, self.attempt)


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
        plugin_version: the version of the handler's plugin that ran; `""` if the plugin has none.
        plugin_digest: SHA-256 of the files of the handler's plugin that ran; `""` if it has no files.
        trigger: why the attempt was started; None if that was not recorded.
        actor: the operator who asked for it; `""` if no operator did.
        operation_id: the bulk operation that asked for it; `""` if none did.
        error_group: the fingerprint of its error; `""` if it has none.
        log: the last log records of the handler, one line each, the oldest first; `""` if there are none.
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
    plugin_version: str = ""
    plugin_digest: str = ""
    trigger: Trigger | None = None
    actor: str = ""
    operation_id: str = ""
    error_group: str = ""
    log: str = ""

    @property
    def run_time(self) -> int | None:
        """How long the attempt ran, in microseconds; None while it runs, and if it was lost at an unknown time."""
        if self.finished_at is None or self.outcome is OutcomeKind.LOST:
            return None
        return max(0, self.finished_at - self.started_at)
