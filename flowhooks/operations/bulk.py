"""Bulk operations: an operator plans what is done to many deliveries, sees the exact number, and starts it.

The deliveries are released in the background, by `flowhooks.background.bulk_operations`.
"""

from __future__ import annotations

import time
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

from flowhooks.background.bulk_operations import POLL_INTERVAL, OperationReleaser
from flowhooks.clock import SECOND
from flowhooks.errors import InvalidTransition, NotFound, SettingsError
from flowhooks.failpoints import hit
from flowhooks.ledger import bulk_operations, bulk_plans
from flowhooks.logger import get_logger
from flowhooks.model.bulk_operation import BulkAction, Operation, OperationState
from flowhooks.operations.context import AuditRecord
from flowhooks.operations.error_groups import complete_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.operations.context import OperationContext

log = get_logger(__name__)

MIN_RATE: Final = 0.0001
MAX_RATE: Final = 10_000
REST_PER_PAGE: Final = 2.0
"""Rest after a page of a plan while others write, as a multiple of the time that the page took."""
MAX_REST: Final = 0.05
"""Maximum seconds of that rest."""
RATE_SCHEMA: Final = {"minimum": MIN_RATE, "maximum": MAX_RATE}
"""Requirements on a rate, as JSON Schema for the API description."""
_UNFINISHED: Final = (OperationState.PLANNED, OperationState.RUNNING, OperationState.PAUSED)


def plan_operation(
    context: OperationContext,
    action: BulkAction,
    event_filter: EventFilter,
    *,
    note: str = "",
    rate: Annotated[float | None, RATE_SCHEMA] = None,
) -> Operation:
    """List the deliveries that an operation will act on, with their present states; nothing else is changed.

    An operation that nobody starts is deleted after a day.

    Args:
        context: what operations work with.
        action: the change that is made to each delivery.
        event_filter: which deliveries: those that meet all its conditions, and whose state the action can change.
        note: reason, stored with the operation, its deliveries and in the audit log.
        rate: maximum number of deliveries released per second; None: no limit.

    Returns:
        The operation, in state `planned`, with the exact number of deliveries.

    Raises:
        SettingsError: the rate is too low or too high.
        NotFound: there is no such error group, or more than one.
        InvalidTransition: the action changes no delivery in the filter's state.
        Unavailable: the ledger could not be written. A part of the plan may be stored, which cannot be started.
    """
    _check_rate(rate)
    event_filter = complete_filter(context.reader, event_filter, context.settings.search.fields)
    bulk_plans.check_states(action, event_filter)
    ledger, now = context.ledger, context.clock.now()
    operation = Operation(
        id=context.clock.new_id(),
        action=action,
        event_filter=event_filter.to_json(),
        note=note,
        rate=rate,
        state=OperationState.PLANNING,
        actor="" if context.by is None else context.by.name,
        interface="cli" if context.by is None else context.by.interface,
        created_at=now,
        started_at=None,
        changed_at=now,
        finished_at=None,
        planned=0,
        released=0,
        changed=0,
        succeeded=0,
        failed=0,
        remaining=0,
    )
    plan = bulk_plans.Plan(operation.id, action, event_filter, now)
    ledger.write(lambda transaction: bulk_operations.insert_operation(transaction, operation))
    pages = _PlanPages(ledger)
    for page in bulk_plans.candidate_pages(ledger.connection, plan, lambda: pages.size):
        pages.store(plan, page)
    ledger.write(lambda transaction: bulk_plans.finish_plan(transaction, plan))
    return _read(context, operation.id)


def start_operation(
    context: OperationContext,
    operation_id: str,
    *,
    note: str = "",
    rate: Annotated[float | None, RATE_SCHEMA] = None,
    unlimited: bool = False,
) -> Operation:
    """Start a planned operation: a process releases its deliveries from now on.

    Args:
        context: what operations work with.
        operation_id: id of the operation.
        note: reason; default: the one of the plan.
        rate: maximum number of deliveries released per second; None: the rate of the plan.
        unlimited: whether to ignore the rate of the plan. A given `rate` applies anyway.

    Raises:
        NotFound: there is no such operation.
        InvalidTransition: it is not in state `planned`.
        SettingsError: the rate is too low or too high.
        Unavailable: the ledger could not be written; the operation is not started.
    """
    _check_rate(rate)
    plan = _read(context, operation_id)
    note, rate = note or plan.note, plan.rate if rate is None and not unlimited else rate
    interval = bulk_operations.to_interval(rate)
    change = _Change(
        "started",
        (OperationState.PLANNED,),
        OperationState.RUNNING,
        {"started_at": context.clock.now(), "note": note, "release_interval": interval},
        {
            "operation": plan.action.value,
            "event_filter": dict(plan.event_filter),
            "deliveries": plan.planned,
            "rate": rate,
            "note": note,
        },
    )
    operation = _change(context, operation_id, change)
    log.info(
        "operation_started",
        operation=operation_id,
        action=operation.action.value,
        deliveries=operation.planned,
        rate=operation.rate,
        by=context.actor,
    )
    return operation


def pause_operation(context: OperationContext, operation_id: str) -> Operation:
    """Pause a running operation: it releases no further delivery. Released deliveries are executed.

    Args:
        context: what operations work with.
        operation_id: id of the operation.

    Raises:
        NotFound: there is no such operation.
        InvalidTransition: it is not running.
        Unavailable: the ledger could not be written; the operation is not paused.
    """
    change = _Change("paused", (OperationState.RUNNING,), OperationState.PAUSED)
    operation = _change(context, operation_id, change)
    log.info("operation_paused", operation=operation_id, released=operation.released, by=context.actor)
    return operation


def resume_operation(context: OperationContext, operation_id: str) -> Operation:
    """Resume a paused operation.

    Args:
        context: what operations work with.
        operation_id: id of the operation.

    Raises:
        NotFound: there is no such operation.
        InvalidTransition: it is not paused.
        Unavailable: the ledger could not be written; the operation is not resumed.
    """
    change = _Change("resumed", (OperationState.PAUSED,), OperationState.RUNNING)
    operation = _change(context, operation_id, change)
    log.info("operation_resumed", operation=operation_id, released=operation.released, by=context.actor)
    return operation


def cancel_operation(context: OperationContext, operation_id: str) -> Operation:
    """Cancel an operation: it never releases a further delivery. Released deliveries are executed.

    Args:
        context: what operations work with.
        operation_id: id of the operation.

    Raises:
        NotFound: there is no such operation.
        InvalidTransition: it has ended, or is being planned.
        Unavailable: the ledger could not be written; the operation is not cancelled.
    """
    finished = {"finished_at": context.clock.now()}
    change = _Change("cancelled", _UNFINISHED, OperationState.CANCELLED, finished)
    operation = _change(context, operation_id, change)
    log.info("operation_cancelled", operation=operation_id, released=operation.released, by=context.actor)
    return operation


def set_operation_rate(
    context: OperationContext, operation_id: str, rate: Annotated[float | None, RATE_SCHEMA] = None
) -> Operation:
    """Change the rate of an operation that has not ended.

    Args:
        context: what operations work with.
        operation_id: id of the operation.
        rate: maximum number of deliveries released per second; None: no limit.

    Raises:
        NotFound: there is no such operation.
        InvalidTransition: it has ended, or is being planned.
        SettingsError: the rate is too low or too high.
        Unavailable: the ledger could not be written; the rate is not changed.
    """
    _check_rate(rate)
    operation, interval = _read(context, operation_id), bulk_operations.to_interval(rate)
    changed = context.change(
        lambda transaction: bulk_operations.set_interval(transaction, operation_id, interval, _UNFINISHED),
        lambda _changed: AuditRecord("operation", operation_id, {"change": "rate", "rate": rate}),
    )
    if not changed:
        raise InvalidTransition(f"operation {operation_id} is {operation.state}: its rate cannot be changed")
    context.wake_operations()
    return _read(context, operation_id)


class _PlanPages:
    """Stores the pages of a plan. The time of a commit dominates, so pages are large while nobody else writes.

    Attributes:
        size: maximum number of deliveries of the next page.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._written = ledger.written
        self.size = bulk_plans.PAGE_SIZE

    def store(self, plan: bulk_plans.Plan, page: Sequence[str]) -> None:
        """Store a page; then rest if callbacks wait for the writer."""
        ledger, began = self._ledger, time.monotonic()
        ledger.write(partial(bulk_plans.insert_page, plan=plan, delivery_ids=page))
        hit("operation.plan_committed")
        others = ledger.written - self._written > 1
        self._written = ledger.written
        self.size = bulk_plans.PAGE_SIZE if others else min(2 * self.size, bulk_plans.MAX_PAGE_SIZE)
        if ledger.queue_size:
            time.sleep(min(MAX_REST, (time.monotonic() - began) * REST_PER_PAGE))


class _Change(NamedTuple):
    """A change of an operation's state.

    Attributes:
        done: what is done, as a participle.
        before: the states in which it is possible.
        after: the new state.
        values: other columns to change.
        detail: more for the audit log.
    """

    done: str
    before: tuple[OperationState, ...]
    after: OperationState
    values: Mapping[str, object] = MappingProxyType({})
    detail: Mapping[str, object] = MappingProxyType({})


def release_all(
    context: OperationContext, operation_id: str, on_progress: Callable[[int], object] = lambda _items: None
) -> Operation:
    """Release all deliveries of a running operation in this thread, at its rate: for a command without a server.

    It returns when the operation releases no further delivery. Released deliveries that are to run again wait for a
    server.

    Args:
        context: what operations work with.
        operation_id: id of the operation.
        on_progress: called after each transaction with the number of deliveries that were released or had changed.

    Raises:
        NotFound: there is no such operation.
        Unavailable: the ledger could not be written; the operation continues when it is resumed, or a server starts.
    """
    releaser = OperationReleaser(context.ledger, context.clock, lambda: context.missing_handlers)
    while _read(context, operation_id).state is OperationState.RUNNING:
        released = releaser.release(operation_id)
        if released is None:  # another process releases them
            time.sleep(POLL_INTERVAL)
            continue
        on_progress(released.released + released.changed)
        if released.is_last:
            break
        time.sleep(min(POLL_INTERVAL, max(0.0, (released.next_at - context.clock.now()) / SECOND)))
    for operation in releaser.open_operations():
        if operation.id == operation_id:
            releaser.finish(operation)
    return _read(context, operation_id)


def _change(context: OperationContext, operation_id: str, change: _Change) -> Operation:
    now = context.clock.now()
    _read(context, operation_id)
    changed = context.change(
        lambda transaction: bulk_operations.change_state(
            transaction, operation_id, change.before, change.after, now, **change.values
        ),
        lambda _changed: AuditRecord("operation", operation_id, {"change": change.done, **change.detail}),
    )
    operation = _read(context, operation_id)
    if not changed:
        raise InvalidTransition(f"operation {operation_id} is {operation.state}: it cannot be {change.done}")
    context.wake_operations()
    return operation


def _read(context: OperationContext, operation_id: str) -> Operation:
    with context.reader.connection() as connection:
        operation = bulk_operations.read_operation(connection, operation_id)
    if operation is None:
        raise NotFound(f"there is no operation {operation_id}")
    return operation


def _check_rate(rate: float | None) -> None:
    if rate is not None and not MIN_RATE <= rate <= MAX_RATE:
        raise SettingsError(f"rate must be from {MIN_RATE} to {MAX_RATE:,} deliveries per second, not {rate:g}")
