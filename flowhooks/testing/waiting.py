"""Functions that wait for an app under test, and move its clock meanwhile."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from flowhooks.errors import FlowhooksError
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.model.delivery import State
from flowhooks.settings import Settings, database_url
from flowhooks.testing import text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flowhooks.app import App
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.testing.clock import ManualClock

WAIT_TIMEOUT: Final = 20.0
"""Real seconds to wait for something that must happen. It is long because machines may be busy."""
POLL_INTERVAL: Final = 0.005
"""Real seconds between two polls."""
MAX_EVENTS: Final = 10_000
"""Maximum number of events read at a time: more than any test makes."""
MAX_PROBES: Final = 3
"""Number of times that a delivery is probed before it counts as settled although its probe cannot decide."""


def settle(app: App, clock: ManualClock, event_ids: Sequence[str]) -> None:
    """Move the clock from one due time to the next until no delivery proceeds by itself any more.

    Args:
        app: the app.
        clock: its clock.
        event_ids: only until these events are settled; empty: all events.

    Raises:
        AssertionError: nothing has changed for 20 real seconds, and nothing waits for the clock.
    """
    __tracebackhide__ = True
    asked: dict[str, set[int]] = {}
    before: list[tuple[str, DeliveryStatus]] = []
    deadline = time.monotonic() + WAIT_TIMEOUT
    while True:
        rates = next_starts(app)
        moving = _moving(app, event_ids, asked)
        if not moving:
            return
        if moving != before:
            before, deadline = moving, time.monotonic() + WAIT_TIMEOUT
        # A blocked delivery has been due for long, so the next due time is that of the delivery in front of it.
        unblocked = [status for _, status in moving if status.blocked_by is None]
        due = [
            max(status.due_at, rates.get(status.handler, 0))
            for status in unblocked
            if status.state is not State.RUNNING and status.due_at is not None
        ]
        if due and len(due) == len(unblocked) and min(due) > clock.now():
            clock.time = min(due)
            app.runner.wake()
        elif time.monotonic() > deadline:
            states = "; ".join(
                f"{status.handler} for event {event_id} is {status.state}" for event_id, status in moving
            )
            raise AssertionError(f"nothing has changed for {WAIT_TIMEOUT:g} seconds: the delivery of {states}")
        else:
            time.sleep(POLL_INTERVAL)


def next_starts(app: App) -> dict[str, int]:
    """Return from when the handlers that are at their rate may start an attempt, by id.

    Read it before the deliveries: a delivery that waits afterwards is not the one that has used the last start.
    """
    now = app.clock.now()
    found = {handler: app.runtime.next_start_of(handler, now) for handler in app.plugins.handlers}
    return {handler: at for handler, at in found.items() if at is not None}


def _moving(app: App, event_ids: Sequence[str], asked: dict[str, set[int]]) -> list[tuple[str, DeliveryStatus]]:
    """Return the deliveries that can proceed, with their events; `asked` has the due time of each probe.

    A blocked delivery proceeds if the one in front of it does, which is included, whichever event it belongs to.
    """
    delivery_statuses = _read_statuses(app, event_ids)
    meant = {key: status for key, status in delivery_statuses.items() if not event_ids or key[0] in event_ids}
    in_front = [(status.blocked_by, handler) for (_, handler), status in meant.items() if status.blocked_by is not None]
    meant |= {key: delivery_statuses[key] for key in in_front if key in delivery_statuses}
    return [
        (event_id, status)
        for (event_id, handler), status in meant.items()
        if _moves(delivery_statuses.get((status.blocked_by or event_id, handler), status), asked)
    ]


def _read_statuses(app: App, event_ids: Sequence[str]) -> dict[tuple[str, str], DeliveryStatus]:
    """Return the statuses of the events' deliveries and of those that block them, by event and handler."""
    ids = set(event_ids)
    while True:
        # Read all of them in one query: an event that changes between two queries would be in neither.
        events = app.ledger.page(EventFilter(ids=tuple(sorted(ids))), limit=MAX_EVENTS)
        delivery_statuses = {
            (stored.event.id, status.handler): status for stored in events for status in stored.delivery_statuses
        }
        blocking = {status.blocked_by for status in delivery_statuses.values() if status.blocked_by is not None}
        if not ids or blocking <= ids:
            break
        ids |= blocking
    return delivery_statuses


def _moves(status: DeliveryStatus, asked: dict[str, set[int]]) -> bool:
    if status.state is State.RUNNING:
        return True
    if status.due_at is None:
        return False
    if status.state is State.UNKNOWN:
        times = asked.setdefault(status.delivery_id, set())
        times.add(status.due_at)
        return len(times) <= MAX_PROBES
    return status.state is State.WAITING


def wait_until_idle(app: App) -> None:
    """Wait until no handler of an app is running.

    Raises:
        AssertionError: a handler has run for 20 real seconds.
    """
    __tracebackhide__ = True
    try:
        until(lambda: app.runner.running == 0, "all handlers have ended")
    except AssertionError:
        raise AssertionError(text.still_running(app, WAIT_TIMEOUT)) from None


def check_consistency(settings: Settings) -> None:
    """Check that a ledger is consistent.

    Raises:
        AssertionError: the ledger is inconsistent, or cannot be read.
    """
    __tracebackhide__ = True
    try:
        with closing(Reader(database_url(settings))) as reader:
            problems = [*reader.verify().problems, *filter(None, [reader.quick_check()])]
    except FlowhooksError as error:
        problems = [str(error)]
    if problems:
        raise AssertionError(
            f"the counts of the ledger {settings.database} do not balance (see `flowhooks verify`): "
            f"{'; '.join(problems)}. Either the test wrote into the ledger, or this is an error in flowhooks: please "
            "report it"
        )


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true.

    Args:
        condition: returns whether it is true.
        what: the condition, in words.

    Raises:
        AssertionError: the condition is not true after 20 real seconds.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {WAIT_TIMEOUT:g} seconds in vain until {what}")
        time.sleep(POLL_INTERVAL)
