"""The row about the cost of a look-up and a hook call."""

from __future__ import annotations

import random
import time
import timeit
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import load
from bench import CONNECTIONS, LATER, call_times, compare, rate
from figures import Cost, Figure

from flowhooks.model.delivery import Delivery
from flowhooks.model.event import Event
from flowhooks.plugins.plugins import Plugins
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench import Bench
    from servers import Site

MANY = 10_000
EVENTS = 2_000
"""Events of one turn, spread over all handlers."""
TURNS = 31
"""How often the two are timed, in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """The real router and plugins, and events for them."""

    plugins: Plugins
    router: Router
    events: tuple[Event, ...]

    def turn(self) -> float:
        """Seconds of processor time for each event: its route, and the hook call that runs it."""
        dispatch_all = partial(self._dispatch, self.events)
        return timeit.Timer(dispatch_all, timer=time.process_time).timeit(1) / len(self.events)

    def cost(self, turns: Sequence[float]) -> Cost:
        """The cost of an event: its processor time in turns, and the times of single events."""
        p50, p99 = call_times(lambda event: self._dispatch((event,)), self.events)
        return Cost(processor=median(turns) * 1e6, rate=1 / median(turns), p50=p50, p99=p99)

    def _dispatch(self, events: tuple[Event, ...]) -> None:
        handlers = self.plugins.handlers
        for event in events:
            for name in self.router.route(event).handlers:
                delivery = Delivery(id=event.id, event_id=event.id, handler=name, attempt=1)
                self.plugins.run_handler(handlers[name], event, delivery)


def dispatch(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Time for each event's look-up and hook call with many handlers ÷ with one, in this process."""
    bench.show_progress("loading the plugins")
    with bench.site() as single_site, bench.site(handlers=MANY) as many_site:
        single = _subject(single_site.plugins(), handlers=1, called=1)
        folder = many_site.plugins()
        cases = (
            ("one of them called", _subject(folder, handlers=MANY, called=1)),
            ("all of them called", _subject(folder, handlers=MANY, called=MANY)),
        )
        figures = [_compare_subjects(bench, case, subject, single) for case, subject in cases]
        return figures, [_over_http(bench, single_site, many_site)]


def _compare_subjects(bench: Bench, case: str, subject: _Subject, single: _Subject) -> Figure:
    turns = []
    for number in range(TURNS + 1):
        bench.show_progress(case, number, TURNS + 1)
        turns.append((single.turn(), subject.turn()))
    del turns[0]  # the first round warms the caches
    return Figure(
        case=case,
        measured=f"{median(many_time for _, many_time in turns) * 1e6:.2f} µs with {MANY:,}",
        yardstick=f"{median(single_time for single_time, _ in turns) * 1e6:.2f} µs with 1",
        judged=median(many_time / single_time for single_time, many_time in turns),
        ours=subject.cost([many_time for _, many_time in turns]),
        theirs=single.cost([single_time for single_time, _ in turns]),
    )


def _subject(folder: Path, *, handlers: int, called: int) -> _Subject:
    plugins = Plugins.load(dirs=[folder], allow=["bench"], deny=[], safe_mode=False, sections={}, entry_points=[])
    if len(plugins.handlers) != handlers:
        raise load.LoadError(f"{len(plugins.handlers)} handlers were loaded, not {handlers}: {plugins.infos}")
    rng = random.Random(called)  # the same events in every session
    return _Subject(
        plugins=plugins,
        router=Router(Candidate(handler.id, handler.selectors) for handler in plugins.handlers.values()),
        events=tuple(_event(number, rng.randrange(called)) for number in range(EVENTS)),
    )


def _event(number: int, handler: int) -> Event:
    return Event(
        id=f"event-{number}",
        flow_instance_id=f"instance-{number}",
        callback_class=f"com.cnooc.test.CallbackHandler{handler or ''}",
        process_definition_key="contract_approval",
        data={"businessKey": f"HT-{number}"},
        received_at=datetime.now(UTC),
    )


def _over_http(bench: Bench, single_site: Site, many_site: Site) -> str:
    def accept(site: Site) -> load.Load:
        with site.serve() as server:
            bench.show_progress(f"accepting with {site.handlers:,} handlers")
            return load.run(
                server.url,
                connections=CONNECTIONS[-1],
                seconds=bench.seconds,
                prefer=LATER,
                classes=site.handlers,
            )

    (comparison,) = compare(bench.rounds, lambda: accept(single_site), lambda: accept(many_site))
    return (
        f"accepted over HTTP at {rate(comparison.ours)} with {MANY:,} handlers, all of them called, "
        f"and at {rate(comparison.yardstick)} with 1: {comparison.ratio:.2f}"
    )
