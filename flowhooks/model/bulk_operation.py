"""Bulk operations: what an operator does to all deliveries that match a filter, as an object with a plan and progress.

An operation is planned, then started, and may be paused, resumed and cancelled. It acts on each planned delivery at
most once, and only if the delivery is still as it was planned. It acts on no other delivery.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class BulkAction(StrEnum):
    """The change that an operation makes to each delivery."""

    REPLAY = "replay"
    """Run a *dead* delivery again, with a new retry schedule."""
    RERUN = "rerun"
    """Run a *succeeded* or *dead* delivery again, with a new retry schedule. Its handler does its work once more."""
    MARK_DONE = "mark-done"
    """Record that an *unknown* delivery did its work."""
    MARK_NOT_DONE = "mark-not-done"
    """Record that an *unknown* delivery did not do its work, and run it again."""
    CLOSE = "close"
    """Close a *waiting*, *dead* or *unknown* delivery: nothing more is needed."""
    RUN_NOW = "run-now"
    """Run a *waiting* delivery now instead of at its scheduled time."""


class OperationState(StrEnum):
    """The state of an operation."""

    PLANNING = "planning"
    """Its deliveries are being listed."""
    PLANNED = "planned"
    """It waits for an operator to start it. It is deleted if nobody does."""
    RUNNING = "running"
    """It releases its deliveries, or waits until the released ones have been executed."""
    PAUSED = "paused"
    """It releases no further delivery until it is resumed."""
    CANCELLED = "cancelled"
    """It releases no further delivery."""
    FINISHED = "finished"
    """Each of its deliveries was executed, closed, or had changed since the plan."""


class ItemStatus(StrEnum):
    """The progress of an operation with one planned delivery."""

    PLANNED = "planned"
    """Nothing yet."""
    RELEASED = "released"
    """It has acted on the delivery."""
    CHANGED = "changed"
    """The delivery was no longer as planned, so it was left alone."""


class ItemResult(StrEnum):
    """The present result of a delivery of an operation's plan; of a purged one, the result that it had."""

    SUCCEEDED = "succeeded"
    """It was released and has succeeded, or the operation's action needed no attempt of it."""
    FAILED = "failed"
    """It was released and is dead, unknown or closed again; or the attempt that `run-now` asked for failed, and it
    waits again."""
    REMAINING = "remaining"
    """It is not released, or it was released and is not executed yet. Once the operation has ended, only deliveries
    that were not released remain."""


ITEM_CHOICES: Final = (*(status.value for status in ItemStatus), *(result.value for result in ItemResult))
"""The values by which the deliveries of an operation's plan are listed."""


def parse_item_choice(text: str) -> ItemStatus | ItemResult:
    """Return the status or the result that one of `ITEM_CHOICES` stands for."""
    return ItemStatus(text) if text in set(ItemStatus) else ItemResult(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A bulk operation.

    Attributes:
        id: its id.
        action: what it does with each delivery.
        event_filter: the filter that it was planned for, as JSON values.
        note: the operator's reason; `""` if none.
        rate: maximum number of deliveries that it releases per second; None: no limit.
        state: its state.
        actor: the operator who planned it.
        interface: `"console"`, `"api"` or `"cli"`.
        created_at: when it was planned, in microseconds since 1970, as all times.
        started_at: when it was first started; None: never.
        changed_at: when its state last changed.
        finished_at: when it ended; None: it has not.
        planned: exact number of deliveries of its plan.
        released: number of deliveries that it has acted on.
        changed: number of deliveries that were left alone because they had changed since the plan.
        succeeded: number of released deliveries that have succeeded (or are closed, for `close`).
        failed: number of released deliveries that have ended *dead*, *unknown* or closed after failing again; for
            `run-now` also of those that wait for their next attempt after the one that it asked for.
        remaining: number of planned deliveries that are not released, or released and not executed yet.
    """

    id: str
    action: BulkAction
    event_filter: Mapping[str, Any]
    note: str
    rate: float | None
    state: OperationState
    actor: str
    interface: str
    created_at: int
    started_at: int | None
    changed_at: int
    finished_at: int | None
    planned: int
    released: int
    changed: int
    succeeded: int
    failed: int
    remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationItem:
    """One delivery of an operation's plan.

    Attributes:
        operation_id: the operation.
        delivery_id: the delivery.
        event_id: its event.
        handler: its handler's id.
        status: what the operation has done with it.
        state: the present state of the delivery.
        released_at: when the operation acted on it; None: not yet.
    """

    operation_id: str
    delivery_id: str
    event_id: str
    handler: str
    status: ItemStatus
    state: str
    released_at: int | None
