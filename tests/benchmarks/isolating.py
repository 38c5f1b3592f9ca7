"""The row about the cost of running a handler in a separate process."""

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
"""The number of deliveries of one case. Each is run first in a thread, then in a process."""
CONCURRENCY = 8
WARM_UP_CALLS = 50
"""The number of first deliveries that are not counted, because they start the processes."""


def isolation(bench: Bench) -> tuple[list[Figure], list[str]]:
    """The median of the additional milliseconds of a delivery in a separate process, compared with a thread."""
    with bench.site() as site:
        settings = Settings(
            plugins_dirs=(str(site.plugins()),),
            plugins_allow=("bench",),
            runner=RunnerSettings(isolation="process", threads=CONCURRENCY),
        )
        plugins = Plugins.load(
            dirs=[site.plugins()], allow=["bench"], deny=[], safe_mode=False, sections={}, entry_points=[]
        )
        with closing(ProcessPool.from_settings(settings, plugins, os.environ)) as pool:
            pool.start()
            if reasons := [reason for reason in pool.unavailable().values() if reason]:
                raise load.LoadError(reasons[0])
            (handler,) = plugins.handlers.values()
            subject = _Subject(plugins, handler, callers(pool)[handler.id])
            figures, notes = [], []
            for concurrency in (1, CONCURRENCY):
                bench.show_progress(f"{concurrency} at once")
                figure, note = _measure_concurrency(subject, concurrency)
                figures.append(figure)
                notes.append(note)
    return figures, notes


class _Subject:
    """One handler, run as the dispatcher does."""

    def __init__(self, plugins: Plugins, handler: Handler, isolated_calls: IsolatedCalls) -> None:
        self._plugins, self._handler, self._isolated_calls = plugins, handler, isolated_calls

    def measure_pair(self, number: int) -> tuple[float, float]:
        """Run one delivery in a thread and in a separate process; return the seconds of both."""
        return self._measure_call(number, None), self._measure_call(number, self._isolated_calls)

    def spent(self, concurrency: int, *, isolated: bool) -> tuple[float, float]:
        """Microseconds of processor time of a call, including the handler's process, and calls per second."""
        calls_per_thread = TURNS // concurrency
        calls = [
            self._prepare_call(number, self._isolated_calls if isolated else None) for number in range(concurrency)
        ]

        def repeat(call: Callable[[], None]) -> None:
            for _ in range(calls_per_thread):
                call()

        # `processor.spent` uses processor time itself: too much in comparison with short calls in a thread.
        clock = processor.spent if isolated else time.process_time
        with processor.watch(os.getpid()), ThreadPoolExecutor(concurrency) as threads:
            spent = clock()
            started = time.perf_counter()
            list(threads.map(repeat, calls))
            seconds = time.perf_counter() - started
            spent = clock() - spent
        return spent / (calls_per_thread * concurrency) * 1e6, calls_per_thread * concurrency / seconds

    def _measure_call(self, number: int, isolated_calls: IsolatedCalls | None) -> float:
        call = self._prepare_call(number, isolated_calls)
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def _prepare_call(self, number: int, isolated_calls: IsolatedCalls | None) -> Callable[[], None]:
        """Return a function that calls the handler once."""
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
        if isolated_calls:
            invocation.isolated_call = lambda event: isolated_calls.run(event, delivery)

        def call() -> None:
            with invocation:
                self._plugins.run_handler(self._handler, event, delivery)

        return call


def _measure_concurrency(subject: _Subject, concurrency: int) -> tuple[Figure, str]:
    with ThreadPoolExecutor(concurrency) as threads:
        pairs = list(threads.map(subject.measure_pair, range(TURNS)))[WARM_UP_CALLS:]
    thread_median = median(in_thread for in_thread, _ in pairs)
    process_median = median(in_process for _, in_process in pairs)
    difference = (process_median - thread_median) * 1000
    ours = _cost([in_process for _, in_process in pairs], *subject.spent(concurrency, isolated=True))
    return (
        Figure(
            case=f"{concurrency} at once",
            measured=f"{process_median * 1000:.3f} ms in a process",
            yardstick=f"{thread_median * 1000:.3f} ms in a thread",
            judged=difference,
            ours=ours,
            theirs=_cost([in_thread for in_thread, _ in pairs], *subject.spent(concurrency, isolated=False)),
        ),
        f"with {concurrency} at once, 99 of 100 took less than {ours.p99:.2f} ms in a process",
    )


def _cost(seconds: list[float], spent: float, rate: float) -> Cost:
    p50, p99 = spread([each * 1000 for each in seconds])
    return Cost(processor=spent, rate=rate, p50=p50, p99=p99)
