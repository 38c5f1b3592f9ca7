"""Describe bulk operations in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.cli.output import format_time, pluralize
from flowhooks.model.bulk_operation import BulkAction, OperationState

if TYPE_CHECKING:
    from flowhooks.ledger.operation_summary import PlanSummary
    from flowhooks.model.bulk_operation import Operation

_CANNOT_BE_UNDONE: Final = "The effects of a handler cannot be undone."
PLAN_TEXTS: Final = {
    BulkAction.REPLAY: "will run again",
    BulkAction.RERUN: "will run again; succeeded deliveries do their work a second time",
    BulkAction.MARK_DONE: "will be marked as done",
    BulkAction.MARK_NOT_DONE: "will be marked as not done and run again",
    BulkAction.CLOSE: "will be closed",
    BulkAction.RUN_NOW: "will run now instead of at the scheduled time",
}
"""The effect of each action on the deliveries of a plan."""
WARNINGS: Final = {
    BulkAction.REPLAY: _CANNOT_BE_UNDONE,
    BulkAction.RERUN: _CANNOT_BE_UNDONE,
    BulkAction.MARK_DONE: "Only `events replay --again` runs them again.",
    BulkAction.MARK_NOT_DONE: _CANNOT_BE_UNDONE,
    BulkAction.CLOSE: "This is final: a closed delivery does not run again.",
    BulkAction.RUN_NOW: _CANNOT_BE_UNDONE,
}
"""Warning before each action, which says whether it can be undone."""
NOTHING_TEXTS: Final = {
    BulkAction.REPLAY: "No matching delivery is dead.",
    BulkAction.RERUN: "No matching delivery is dead or succeeded.",
    BulkAction.MARK_DONE: "No matching delivery is unknown.",
    BulkAction.MARK_NOT_DONE: "No matching delivery is unknown.",
    BulkAction.CLOSE: "No matching delivery is waiting, dead or unknown.",
    BulkAction.RUN_NOW: "No matching delivery waits for a scheduled time.",
}
"""The line that describes an empty plan."""


def deliveries_text(count: int) -> str:
    """Return a number of deliveries, such as `1 delivery` or `2 deliveries`."""
    return pluralize(count, "delivery", "deliveries")


def plan_text(action: BulkAction, planned: int, summary: PlanSummary) -> str:
    """Describe a plan in one line: the exact number, and when the events were received."""
    states = [group.name for group in summary.states]
    named = deliveries_text(planned)
    if len(states) == 1:
        named = pluralize(planned, f"{states[0]} delivery", f"{states[0]} deliveries")
    elif states:
        parts = ", ".join(f"{group.deliveries:,} {group.name}" for group in summary.states)
        named = f"{named} ({parts})"
    span = ""
    if summary.oldest_at is not None:
        oldest, newest = format_time(summary.oldest_at), format_time(summary.newest_at)
        span = f" Received {oldest}" + (f" to {newest}" if newest != oldest else "") + " (UTC)."
    return f"{named} {PLAN_TEXTS[action]}.{span}"


def progress_text(operation: Operation) -> str:
    """Describe the progress of an operation in one line."""
    parts = [f"{operation.succeeded:,} succeeded", f"{operation.failed:,} failed again"]
    if operation.action is BulkAction.CLOSE:
        parts = [f"{operation.succeeded:,} closed"]
    elif operation.action is BulkAction.MARK_DONE:
        parts = [f"{operation.succeeded:,} marked as done"]
    parts += _remaining_texts(operation)
    if operation.changed:
        parts.append(f"{operation.changed:,} left alone because they had changed since the plan")
    return f"Operation {operation.id} {_STATE_TEXTS[operation.state]}: {', '.join(parts)}."


def _remaining_texts(operation: Operation) -> list[str]:
    if operation.state is not OperationState.CANCELLED:
        return [f"{operation.remaining:,} remaining"] if operation.remaining else []
    # Released deliveries run although the operation is cancelled.
    executing = max(0, operation.released - operation.succeeded - operation.failed)
    texts = [f"{executing:,} released and not executed yet"] if executing else []
    left = operation.remaining - executing
    return [*texts, f"{left:,} not released"] if left > 0 else texts


_STATE_TEXTS: Final = {
    OperationState.PLANNING: "is being planned",
    OperationState.PLANNED: "is planned and not started",
    OperationState.RUNNING: "is running",
    OperationState.PAUSED: "is paused",
    OperationState.CANCELLED: "is cancelled",
    OperationState.FINISHED: "has finished",
}


def rate_text(rate: float | None) -> str:
    """Return a rate, such as `5/s`; `no limit` for None."""
    return "no limit" if rate is None else f"{rate:g}/s"
