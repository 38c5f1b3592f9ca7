"""The row about the cost of running a handler in a process of its own."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING

import load
import processor
from bench import spread
from figures import Cost, Figure

from flowhooks.execution.isolation import ProcessPool, callers
from flowhooks.model.delivery import Delivery
from flowhooks.model.event import Event
from flowhooks.model.invocation import Invocation
from flowhooks.plugins.plugins import Plugins
from flowhooks.settings import RunnerSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench import Bench

    from flowhooks.execution.isolation import IsolatedCalls
    from flowhooks.model.handler import Handler

TURNS = 3_000
"""Deliveries of one case: each is run in a thread and in a process in turn."""
AT_ONCE = 8
FIRST = 50
"""The number of first deliveries that are not counted, because each process must be started once."""


def isolation(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The median of the additional milliseconds of a delivery in a process of its own, compared with a thread."""
    with bench.site() as site:
        settings = Settings(
            plugins_dirs=(str(site.plugins()),),
            plugins_allow=("bench",),
            runner=RunnerSettings(isolation="process", threads=AT_ONCE),
        )
        plugins = Plugins.load(
            dirs=[site.plugins()], allow=["bench"], deny=[], safe_mode=False, sections={}, entry_points=[]
        )
        with closing(ProcessPool.from_settings(settings, plugins, os.environ)) as pool:
            pool.start()
            if whys := [why for why in pool.unavailable().values() if why]:
                raise load.LoadError(whys[0])
            (handler,) = plugins.handlers.values()
            subject = _Subject(plugins, handler, callers(pool)[handler.id])
            figures, notes = [], []
            for at_once in (1, AT_ONCE):
                bench.show_progress(f"{at_once} at once")
                figure, note = _measured(subject, at_once)
                figures.append(figure)
                notes.append(note)
    return figures, notes


class _Subject:
    """One handler, run as the dispatcher does."""

    def __init__(self, plugins: Plugins, handler: Handler, elsewhere: IsolatedCalls) -> None:
        self._plugins, self._handler, self._elsewhere = plugins, handler, elsewhere

    def turn(self, number: int) -> tuple[float, float]:
        """Seconds in a thread, and in a process of its own."""
        return self._timed(number, None), self._timed(number, self._elsewhere)

    def spent(self, at_once: int, *, isolated: bool) -> tuple[float, float]:
        """Microseconds of processor time of a call, with that of the handler's process, and calls per second."""
        times = TURNS // at_once
        calls = [self._prepared(number, self._elsewhere if isolated else None) for number in range(at_once)]

        def repeat(call: Callable[[], None]) -> None:
            for _ in range(times):
                call()

        # `processor.spent` itself takes time in this process: too much beside short calls, which use no other process.
        clock = processor.spent if isolated else time.process_time
        with processor.watched(os.getpid()), ThreadPoolExecutor(at_once) as threads:
            spent = clock()
            began = time.perf_counter()
            list(threads.map(repeat, calls))
            seconds = time.perf_counter() - began
            spent = clock() - spent
        return spent / (times * at_once) * 1e6, times * at_once / seconds

    def _timed(self, number: int, elsewhere: IsolatedCalls | None) -> float:
        call = self._prepared(number, elsewhere)
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def _prepared(self, number: int, elsewhere: IsolatedCalls | None) -> Callable[[], None]:
        """A function that calls the handler."""
        event = Event(
            id=f"event-{number}",
            flow_instance_id=f"instance-{number}",
            process_definition_key="contract_approval",
            data={"businessKey": f"HT-{number}", "processDefinitionKey": "contract_approval"},
            received_at=datetime.now(UTC),
        )
        delivery = Delivery(
            id=event.id,
            event_id=event.id,
            handler=self._handler.id,
            attempt=1,
        )
        invocation = Invocation(delivery.id, delivery.attempt)
        if elsewhere:
            invocation.isolated_call = lambda event: elsewhere.run(event, delivery)

        def call() -> None:
            with invocation.as_current():
                self._plugins.run_handler(self._handler, event, delivery)

        return call


def _measured(subject: _Subject, at_once: int) -> tuple[Figure, str]:
    with ThreadPoolExecutor(at_once) as threads:
        turns = list(threads.map(subject.turn, range(TURNS)))[FIRST:]
    inside, outside = median(one for one, _ in turns), median(other for _, other in turns)
    over = (outside - inside) * 1000
    ours = _cost([other for _, other in turns], *subject.spent(at_once, isolated=True))
    return (
        Figure(
            case=f"{at_once} at once",
            measured=f"{outside * 1000:.3f} ms in a process",
            yardstick=f"{inside * 1000:.3f} ms in a thread",
            judged=over,
            ours=ours,
            theirs=_cost([one for one, _ in turns], *subject.spent(at_once, isolated=False)),
        ),
        f"with {at_once} at once, 99 of 100 took less than {ours.p99:.2f} ms in a process",
    )


def _cost(seconds: list[float], spent: float, rate: float) -> Cost:
    p50, p99 = spread([each * 1000 for each in seconds])
    return Cost(processor=spent, rate=rate, p50=p50, p99=p99)
