"""Reroute: add the deliveries that the current look-up gives to stored events.

No existing delivery is changed, run again or removed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.errors import FlowhooksError, NotFound
from flowhooks.failpoints import hit
from flowhooks.ledger.queries import EventFilter
from flowhooks.logger import get_logger
from flowhooks.model.event import UNDECIDED, DismissedBy, EventState
from flowhooks.operations.context import AuditRecord
from flowhooks.operations.parked import is_deliverable, representative_event
from flowhooks.operations.routing import compute_route_change, single_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from threading import Event

    from flowhooks.background.threads import ThreadGroup
    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.route_changes import ParkedWindow, RouteChange
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext

log = get_logger(__name__)

PAGE_SIZE: Final = 500
"""Maximum number of events per call. It keeps requests and transactions short, and lets the caller show progress.
Large events end a page earlier."""
WINDOW_SIZE: Final = 5_000
"""Number of parked events whose groups are read at once, to pass over events that stay as they are."""
MAX_WINDOWS: Final = 20
"""Maximum number of windows per call."""

_DELIBERATE_DISMISSALS: Final = frozenset({DismissedBy.OPERATOR, DismissedBy.SETTING})
"""Dismissals by intent: a new handler does not reverse them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerouteResult:
    """Result of one call of a reroute, or of its dry run.

    Attributes:
        events: number of events examined.
        delivered: number of events that got deliveries, or became routed again.
        deliveries: number of deliveries created.
        parked: number of dismissed events that are parked again because no handler takes them.
        dismissed: number of parked events that the current look-up dismisses (by setting, kind or conditions).
        skipped: number of events that get no delivery and keep their state, also if the reason for it has changed.
        changed_meanwhile: number of events left unchanged because another change came first.
        next: value of `after` for the next call; `""` if there are no more events.
        dry_run: whether nothing was changed.
    """

    events: int
    delivered: int
    deliveries: int
    parked: int
    dismissed: int
    skipped: int
    changed_meanwhile: int
    next: str
    dry_run: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RerouteParkedResult:
    """Result of one call of a reroute of all parked events, or of its dry run.

    Attributes:
        events: number of parked events examined.
        delivered: number of events that got deliveries, or became routed.
        dismissed: number of events that the current look-up dismisses (by setting, kind or conditions).
        deliveries: number of deliveries created.
        next: value of `after` for the next call; `""` if there are no more events.
        dry_run: whether nothing was changed.
    """

    events: int
    delivered: int
    dismissed: int
    deliveries: int
    next: str
    dry_run: bool


def reroute(
    context: OperationContext,
    event_filter: EventFilter,
    *,
    handler: str | None = None,
    dry_run: bool = False,
    after: str = "",
) -> RerouteResult:
    """Route events again with the current look-up, one page of events per call.

    Parked events get their deliveries, as with `reroute_parked`. Dismissed events are routed, or parked if no handler
    takes them. Routed events get deliveries for handlers that take them now and have none yet. Events that are parked
    because the engine's history does not tell how their instances ended are skipped, unless `event_filter` has their
    ids: they are routed as if their instances had completed.

    Args:
        context: what operations work with.
        event_filter: which events.
        handler: id of the only handler that gets deliveries. Events that it does not take are skipped, and so are
            events dismissed by an operator or a setting, unless `event_filter` has their ids. None: every handler that
            takes the events, whatever dismissed them.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        NotFound: no handler of this id is registered.
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    if handler is not None and not context.router.has_handler(handler):
        raise NotFound(f"there is no handler {handler}; `flowhooks handlers list` shows the ids")
    page, next_page = context.reader.bounded_page(event_filter, after=after, limit=PAGE_SIZE)
    candidates = [
        stored
        for stored in page
        if event_filter.ids
        or (
            stored.parked_by not in UNDECIDED and (handler is None or stored.dismissed_by not in _DELIBERATE_DISMISSALS)
        )
    ]
    items = [
        item for stored in candidates if (item := compute_route_change(context, stored, handler=handler)) is not None
    ]
    applied = items
    if items and not dry_run:
        changed = context.change(
            lambda transaction: _write(context, transaction, items, failpoint="reroute.written"),
            lambda moved: _audit_record(event_filter, handler, items, moved)._replace(after=after, next_page=next_page),
        )
        hit("reroute.committed")
        applied = [item for item in items if item.event_id in changed]
    changes = _count_changes(applied)
    return RerouteResult(
        events=len(page),
        delivered=changes.delivered,
        deliveries=_count_deliveries(applied),
        parked=changes.parked,
        dismissed=changes.dismissed,
        skipped=len(page) - len(items) + changes.same_state,
        changed_meanwhile=len(items) - len(applied),
        next=next_page,
        dry_run=dry_run,
    )


def reroute_parked(context: OperationContext, *, dry_run: bool = False, after: str = "") -> RerouteParkedResult:
    """Route all parked events again with the current look-up, oldest first, one page of events per call.

    Events that only an operator or a late callback may route stay as they are. Many events in a row that stay as they
    are for certain are passed over and not counted.

    Args:
        context: what operations work with.
        dry_run: only count.
        after: value of `next` from the previous call.

    Raises:
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    page: list[StoredEvent] = []
    start, may_change = _pass_over(context, after)
    next_page = start
    if may_change:
        page, next_page = context.reader.bounded_page(EventFilter(state="parked"), after=start, limit=PAGE_SIZE)
    items = [item for stored in page if (item := _parked_route_change(context, stored)) is not None]
    if items and not dry_run:
        changed = context.change(
            lambda transaction: _write(context, transaction, items, failpoint="reroute_parked.written"),
            lambda done: AuditRecord(
                "reroute_parked",
                "",
                {"events": sum(item.event_id in done for item in items if item.state != "parked")},
                after,
                next_page,
            ),
        )
        hit("reroute_parked.committed")
        items = [item for item in items if item.event_id in changed]
    changes = _count_changes(items)
    return RerouteParkedResult(
        events=len(page),
        delivered=changes.delivered,
        dismissed=changes.dismissed,
        deliveries=_count_deliveries(items),
        next=next_page,
        dry_run=dry_run,
    )


def _audit_record(
    event_filter: EventFilter, handler: str | None, items: Sequence[RouteChange], changed: Collection[str]
) -> AuditRecord:
    n_deliveries = _count_deliveries([item for item in items if item.event_id in changed])
    request = {"event_filter": event_filter.to_json(), **({"handler": handler} if handler else {})}
    return AuditRecord("reroute", single_id(changed), {**request, "events": len(changed), "deliveries": n_deliveries})


class _Changes(NamedTuple):
    """The numbers of events, each counted once."""

    delivered: int
    parked: int
    dismissed: int
    same_state: int


def _count_changes(items: Sequence[RouteChange]) -> _Changes:
    # An event that is, or stays, parked or dismissed may get a delivery for a handler of every event.
    moved = Counter((item.expected_state, item.state) for item in items if not item.deliveries)
    parked, dismissed = moved["dismissed", "parked"], moved["parked", "dismissed"]
    same_state = moved["parked", "parked"]
    return _Changes(len(items) - parked - dismissed - same_state, parked, dismissed, same_state)


def _count_deliveries(items: Sequence[RouteChange]) -> int:
    return sum(len(item.deliveries) for item in items)


def _pass_over(context: OperationContext, after: str) -> tuple[str, bool]:
    """Pass over windows of parked events that a reroute does not change; return where to continue, and if one may."""
    for _ in range(MAX_WINDOWS):
        window = context.reader.parked_window(after=after, limit=WINDOW_SIZE)
        if _may_change(context, window):
            return after, True
        after = window.next
        if not after:
            break
    return after, False


def _may_change(context: OperationContext, window: ParkedWindow) -> bool:
    """Tell whether a reroute may change parked events or their reasons."""
    return any(
        is_deliverable(context.router, group)
        or context.router.route(representative_event(group)).parked_by != parked_by
        for group, parked_by in window.groups
        if not group.end_undecided
    )


def _parked_route_change(context: OperationContext, stored: StoredEvent) -> RouteChange | None:
    """Return the change of a parked event; one that stays parked only gets its new reason."""
    if stored.parked_by in UNDECIDED:
        return None
    item = compute_route_change(context, stored)
    if item is None or item.state != EventState.PARKED:
        return item
    return (
        None if item.parked_by == stored.parked_by else replace(item, route=stored.route, deliveries=(), order_keys={})
    )


def _write(
    context: OperationContext, transaction: WriteTransaction, items: list[RouteChange], *, failpoint: str
) -> set[str]:
    done = context.ledger.reroute(transaction, items, missing_handlers=context.missing_handlers)
    hit(failpoint)
    return done


class ParkedRerouter:
    """Routes all parked events again, in a thread of its own.

    Args:
        context: returns the current context.
        threads: starts the thread, and waits for it at the end.
        stop: when it is set, no further page is read.
        repeat_delay: seconds after which no callback is in progress any more that was routed before a change.
    """

    def __init__(
        self, context: Callable[[], OperationContext], threads: ThreadGroup, stop: Event, *, repeat_delay: float
    ) -> None:
        self._context = context
        self._threads = threads
        self._stop = stop
        self._repeat_delay = repeat_delay
        self._lock = threading.Lock()
        self._repeat_at = 0.0
        self._is_waiting = False

    def start(self) -> None:
        """Route them now, and again after `repeat_delay`, without waiting for it.

        The second time finds the events of callbacks that were in progress with the old routes, in this process or in
        another one.
        """
        self._threads.start("reroute-parked", self._run_twice)

    def _run_twice(self) -> None:
        self.run()
        with self._lock:
            self._repeat_at = time.monotonic() + self._repeat_delay
            if self._is_waiting:
                return  # the thread that waits now waits for this change, too
            self._is_waiting = True
        while True:
            with self._lock:
                remaining = self._repeat_at - time.monotonic()
                if remaining <= 0:
                    self._is_waiting = False
                    break
            if self._stop.wait(remaining):
                return
        self.run()

    def run(self) -> None:
        """Route them page by page, and log the result."""
        after, delivered = "", 0
        try:
            while not self._stop.is_set():
                page = reroute_parked(self._context(), after=after)
                after = page.next
                delivered += page.delivered
                if not after:
                    break
        except FlowhooksError as error:
            log.error("parked_reroute_failed", why=str(error), next="`flowhooks events reroute --parked` tries again")  # noqa: TRY400 (one line says it)
        except Exception:
            # A defect in flowhooks must not end the thread before its second time.
            log.exception("parked_reroute_fault")
        if delivered:
            log.info("parked_events_rerouted", delivered=delivered)
