"""The rows about look-ups among a thousand handlers with conditions on one key."""

from __future__ import annotations

import time
import timeit
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import call_times
from figures import Cost, Figure

from flowhooks.model.event import Event
from flowhooks.model.selectors import Selectors
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench import Bench

KEY = "contract_approval"
HANDLERS = 1_000
EVENTS = 200
"""Events of one turn, spread over all handlers."""
TURNS = 11
"""How often each router is timed, in turn."""
STEP = 7
"""Distance between the handlers of consecutive events; it has no divisor in common with `HANDLERS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Handlers of one key, each with a condition that only its own events satisfy.

    Attributes:
        name: its name on the page.
        selectors: a handler's selectors besides the key, by its number.
    """

    name: str
    selectors: Callable[[int], dict[str, Any]]


CONCLUSIONS = Case(name="conclusion=, one each", selectors=lambda number: {"conclusions": (f"c{number}",)})
WHEN = (
    Case(name="when=, one constant each", selectors=lambda number: {"when": {"/office": number}}),
    Case(
        name="when=, one JSON Schema each",
        selectors=lambda number: {"when": {"/office": {"minimum": number, "exclusiveMaximum": number + 1}}},
    ),
)


def conclusions(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Time for each look-up with many handlers, each for its own conclusion ÷ with one handler."""
    return [_measure_case(bench, CONCLUSIONS)], []


def conditions(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Time for each look-up with many handlers, each with its own condition on the data ÷ with one handler."""
    return [_measure_case(bench, case) for case in WHEN], []


def _measure_case(bench: Bench, case: Case) -> Figure:
    single_router, full_router = router_of(case, 1), router_of(case, HANDLERS)
    turns = []
    for number in range(TURNS + 1):
        bench.show_progress(case.name, number, TURNS + 1)
        turns.append((_seconds(single_router, 1), _seconds(full_router, HANDLERS)))
    del turns[0]  # the first round warms the caches
    return Figure(
        case=case.name,
        measured=f"{median(full_time for _, full_time in turns) * 1e6:.2f} µs with {HANDLERS:,}",
        yardstick=f"{median(single_time for single_time, _ in turns) * 1e6:.2f} µs with 1",
        judged=median(full_time / single_time for single_time, full_time in turns),
        ours=_cost(full_router, HANDLERS, median(full_time for _, full_time in turns)),
        theirs=_cost(single_router, 1, median(single_time for single_time, _ in turns)),
    )


def _cost(router: Router, handlers: int, seconds: float) -> Cost:
    """The cost of a look-up that takes so many seconds of processor time, with the times of single look-ups."""
    p50, p99 = call_times(router.route, events_of(handlers))
    return Cost(processor=seconds * 1e6, rate=1 / seconds, p50=p50, p99=p99)


def router_of(case: Case, handlers: int) -> Router:
    """A router of `handlers` handlers of the key."""
    return Router(
        Candidate(f"bench:h{number}", Selectors(process_keys=(KEY,), **case.selectors(number)))
        for number in range(handlers)
    )


def events_of(handlers: int) -> list[Event]:
    """Events that match one handler each."""
    return [_event(number, number * STEP % handlers) for number in range(EVENTS)]


def _seconds(router: Router, handlers: int) -> float:
    """Seconds of processor time for each look-up."""
    events = events_of(handlers)

    def route() -> None:
        for event in events:
            router.route(event)

    return timeit.Timer(route, timer=time.process_time).timeit(1) / len(events)


def _event(number: int, handler: int) -> Event:
    return Event(
        id=f"event-{number}",
        flow_instance_id=f"instance-{number}",
        process_definition_key=KEY,
        conclusion=f"c{handler}",
        data={"businessKey": f"HT-{number}", "office": handler},
        received_at=datetime.now(UTC),
    )
