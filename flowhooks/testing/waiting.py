"""Waiting for an app under test, and moving its clock meanwhile; it must not know what the test wants."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from flowhooks.delivery import State
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import Reader
from flowhooks.ledger.reading import EventFilter
from flowhooks.settings import Settings, database_url
from flowhooks.testing import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flowhooks.app import App
    from flowhooks.ledger.reading import Standing
    from flowhooks.testing.clock import HandClock

PATIENCE: Final = 20.0
"""Real seconds for which something that must happen is waited for, on machines that are busy."""
LOOK_EVERY: Final = 0.005
"""Real seconds between looks."""
MOST_EVENTS: Final = 10_000
"""Events read at a time: more than any test makes."""
MOST_PROBES: Final = 3
"""How often a probe may answer that it cannot tell, before that is taken for its answer."""


def settle(app: App, clock: HandClock, event_ids: Sequence[str]) -> None:
    """Move the clock from one due time to the next until nothing goes on by itself any more.

    Args:
        app: the app.
        clock: its clock.
        event_ids: only until these events are settled; empty: all.

    Raises:
        AssertionError: nothing changes for 20 real seconds, and it is not the clock that is waited for.
    """
    __tracebackhide__ = True
    asked: dict[str, set[int]] = {}
    before: list[tuple[str, Standing]] = []
    deadline = time.monotonic() + PATIENCE
    while moving := list(_moving(app, event_ids, asked)):
        if moving != before:
            before, deadline = moving, time.monotonic() + PATIENCE
        due = [one.due_at for _, one in moving if one.state is not State.RUNNING and one.due_at is not None]
        if len(due) == len(moving) and min(due) > clock.now():
            clock.time = min(due)
            app.runner.wake()
        elif time.monotonic() > deadline:
            stand = "; ".join(f"{one.handler} for event {event_id} is {one.state}" for event_id, one in moving)
            raise AssertionError(f"nothing has changed for {PATIENCE:g} seconds: the delivery of {stand}")
        else:
            time.sleep(LOOK_EVERY)


def _moving(app: App, event_ids: Sequence[str], asked: dict[str, set[int]]) -> Iterator[tuple[str, Standing]]:
    """The deliveries that go on by themselves, each with its event; `asked` keeps when each probe was due."""
    # All of them at once: what moves between two reads would be in neither.
    for stored in app.ledger.page(EventFilter(ids=tuple(event_ids)), limit=MOST_EVENTS):
        for standing in stored.standings:
            if standing.state is State.RUNNING:
                yield stored.event.id, standing
            elif standing.due_at is None:
                continue
            elif standing.state is State.WAITING:
                yield stored.event.id, standing
            elif standing.state is State.UNKNOWN:
                times = asked.setdefault(standing.delivery_id, set())
                times.add(standing.due_at)
                if len(times) <= MOST_PROBES:
                    yield stored.event.id, standing


def wait_until_idle(app: App) -> None:
    """Wait until no handler of an app runs any more.

    Raises:
        AssertionError: one does for longer than 20 real seconds.
    """
    __tracebackhide__ = True
    try:
        until(lambda: app.runner.running == 0, "all handlers have ended")
    except AssertionError:
        raise AssertionError(words.still_running(app, PATIENCE)) from None


def check_books(settings: Settings) -> None:
    """See that a ledger's books balance.

    Raises:
        AssertionError: they do not, or cannot be read.
    """
    __tracebackhide__ = True
    try:
        with closing(Reader(database_url(settings))) as reader:
            trouble = [*reader.balance().trouble, *filter(None, [reader.quick_check()])]
    except FlowhooksError as error:
        trouble = [str(error)]
    if trouble:
        raise AssertionError(
            f"the books of the ledger {settings.database} do not balance, as `flowhooks verify` would say: "
            f"{'; '.join(trouble)}. Either the test wrote into it, or it is a fault of flowhooks: please report it"
        )


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so.

    Args:
        condition: whether it is.
        what: it, in words.

    Raises:
        AssertionError: it is not, after 20 real seconds.
    """
    __tracebackhide__ = True
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE:g} seconds until {what}, in vain")
        time.sleep(LOOK_EVERY)
