"""Run the scenarios of `exactly_once` one after the other; `verdicts` judges their results."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.delivery import COMPLETED_STATES, State
from flowhooks.testing import text
from flowhooks.testing.events import event_of
from flowhooks.testing.fault_injection.faults import Fault, FaultInjector, KilledAfter, KilledAt, KilledBefore, Stalled
from flowhooks.testing.fault_injection.line_tracer import Failure, Killed, LineTracer, belongs_to
from flowhooks.testing.fault_injection.report import Report
from flowhooks.testing.fault_injection.verdicts import judge
from flowhooks.testing.waiting import until, wait_until_idle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.testing.app import AppHarness
    from flowhooks.testing.fault_injection.report import Finding, Scenario
    from flowhooks.testing.views import PostResult

_SETTLED: Final = COMPLETED_STATES | {State.DEAD, State.UNKNOWN}


class ExactlyOnceRunner:
    """A run of all scenarios with one handler of an app.

    Args:
        app: the app.
        injector: its plugin that injects faults into attempts.
        done: returns how many times the work of an event was done.
        make: the body, or a function that returns the body for the event with the given number.
        kind: the kind of callback.
        forget: called after each kill.
        package: the plugin's top-level package, if it is one; see `is_test_code`.
    """

    def __init__(
        self,
        app: AppHarness,
        injector: FaultInjector,
        *,
        done: Callable[[Event], int],
        make: Mapping[str, Any] | Callable[[int], Mapping[str, Any]],
        kind: str,
        forget: Callable[[], object],
        package: str = "",
    ) -> None:
        self._app = app
        self._injector = injector
        self._done = done
        self._make = make
        self._kind = kind
        self._forget = forget
        self._package = package
        self._run = uuid.uuid4().hex[:8]
        self._made = 0
        self._handler: Handler
        self._notes: list[str] = []

    def report(self, name: str | None, *, lines: int, duplicates: int) -> Report:
        """Run all scenarios.

        Args:
            name: the handler's name or id; None: the only handler that matches the event.
            lines: the maximum number of lines at which the handler is killed, and at which it fails.
            duplicates: the number of callbacks sent at once.
        """
        first = self._first(name)
        findings = [first]
        if first.verdict == "once":
            findings += [
                *self._failing(lines),
                self._repeated(),
                self._at_once(duplicates),
                *self._reordered(),
                *self._killed(lines),
            ]
        return Report(handler=self._handler.id, findings=tuple(findings), notes=tuple(dict.fromkeys(self._notes)))

    def _first(self, name: str | None) -> Finding:
        """Run the baseline scenario, and find the handler of its event."""
        answer = self._post(*self._new_call_back())
        self._app.settle(answer.event_id)
        self._handler = self._find_handler(answer.event_id, name)
        self._injector.handler = self._handler.id
        return self._finding("baseline", answer.event_id)

    def _find_handler(self, event_id: str, name: str | None) -> Handler:
        handlers = self._app.handlers
        ids = [delivery.handler for delivery in self._app.deliveries(event_id, name)]
        if len(ids) == 1:
            return handlers[ids[0]]
        if ids:
            raise ValueError(
                f"more than one handler matches this event: choose one with handler=, one of {', '.join(ids)}"
            )
        reason = text.no_delivery(self._app.app, self._app.app.ledger.event(event_id))
        raise ValueError(f"handler {name!r} does not match this event. {reason}" if name else reason)

    def _failing(self, max_lines: int) -> Iterator[Finding]:
        """Raise an exception at each line."""
        for at, place in _choose(self._executed_lines(), max_lines):
            flow, body = self._new_call_back()
            lines = self._trace(at=at, error=Failure)
            self._injector.planned[flow] = Fault(lines)
            answer = self._post(flow, body)
            self._settle(f"an exception was raised at {place}", answer.event_id)
            if lines.reached:
                yield self._finding("failure", answer.event_id, place)

    def _executed_lines(self) -> list[str]:
        """Return the place of each line that the handler executes for a new event."""
        flow, body = self._new_call_back()
        lines = self._trace()
        self._injector.planned[flow] = Fault(lines)
        self._app.settle(self._post(flow, body).event_id)
        if not lines.places:
            self._notes.append(
                "kills and exceptions at lines of the handler, because it runs no Python code of its own"
            )
        return lines.places

    def _trace(self, *, at: int = 0, error: type[BaseException] = Killed) -> LineTracer:
        return LineTracer(belongs_to(self._handler, self._package), at=at, error=error)

    def _repeated(self) -> Finding:
        """Send the same callback again at once, and again later."""
        flow, body = self._new_call_back()
        answers = [self._post(flow, body), self._post(flow, body)]
        self._app.settle(answers[0].event_id)
        self._app.advance(minutes=2)
        answers.append(self._post(flow, body))
        self._app.settle(answers[0].event_id)
        return self._finding("duplicate", answers[0].event_id)

    def _at_once(self, duplicates: int) -> Finding:
        """Send the same callback several times concurrently."""
        flow, body = self._new_call_back()
        with ThreadPoolExecutor(duplicates) as pool:
            answers = list(pool.map(lambda _: self._post(flow, body), range(duplicates)))
        self._app.settle(answers[0].event_id)
        return self._finding("concurrent", answers[0].event_id, f"{duplicates} times")

    def _reordered(self) -> Iterator[Finding]:
        """Stall the first of two events until the second has been delivered."""
        flow, body = self._new_call_back()
        stalled = self._injector.planned[flow] = Stalled()
        earlier = self._post(flow, body, wait=0)
        until(stalled.reached.is_set, "the handler's attempt begins")
        try:
            self._app.advance(1)
            # For an ordered handler the later event may be blocked by the earlier one, which is stalled.
            later = self._post(*self._new_call_back(), wait=0 if self._handler.order_by else 20)
            in_turn = self._handler.order_by is not None and self._waits_for_turn(later.event_id)
        finally:
            stalled.go_on.set()
        self._app.settle(earlier.event_id, later.event_id)
        places = ("the event that ran last", "the event that ran first")
        if in_turn:
            places = ("the earlier event, which still ran first because it is ordered", "the later event, which waited")
        yield self._finding("reordered", earlier.event_id, places[0])
        yield self._finding("reordered", later.event_id, places[1])

    def _waits_for_turn(self, event_id: str) -> bool:
        """Tell whether the delivery is blocked; if it need not be, wait for the end of its attempt."""

        def status() -> DeliveryStatus:
            statuses = self._app.app.ledger.delivery_statuses(event_id)
            return next(status for status in statuses if status.handler == self._handler.id)

        def known() -> bool:
            current = status()
            return current.blocked_by is not None or (current.attempt > 0 and current.state is not State.RUNNING)

        until(known, "the later event is delivered, or is blocked")
        return status().blocked_by is not None

    def _killed(self, max_lines: int) -> Iterator[Finding]:
        """Kill the process at each line, each time in a new process."""
        self._restart()
        first, later = self._executed_lines(), self._executed_lines()
        self._restart()
        yield from self._kill("crash-before", KilledBefore())
        for at, place in _choose(first, max_lines):
            if first != later:  # such as a connection that the first run of a process opens
                self._restart()
            yield from self._kill("crash-during", KilledAt(self._trace(at=at)), place)
        yield from self._kill("crash-after", KilledAfter())

    def _kill(self, scenario: Scenario, fault: Fault, place: str = "") -> Iterator[Finding]:
        flow, body = self._new_call_back()
        self._injector.planned[flow] = fault
        event_id = self._post(flow, body, wait=0).event_id
        until(
            lambda: fault.reached.is_set() or self._app.delivery(event_id, self._handler.id).state in _SETTLED,
            "the handler is killed, or ends",
        )
        if not fault.reached.is_set():
            self._notes.append(f"a kill at {place}, which the handler does not run every time")
            return
        self._restart(fault)
        self._settle(f"a kill {f'at {place}' if place else scenario}", event_id)
        yield self._finding(scenario, event_id, place, caught=isinstance(fault, KilledAt) and fault.caught)

    def _settle(self, after: str, event_id: str) -> None:
        try:
            self._app.settle(event_id)
        except AssertionError as error:
            raise AssertionError(
                f"after {after}: {error}. A lock that was taken there may still be held: take locks with `with`"
            ) from None

    def _restart(self, fault: Fault | None = None) -> None:
        """Kill the process with its memory, and start another one on the same ledger."""
        killed = self._app.app
        self._app.crash()
        if fault is not None:
            fault.go_on.set()
        wait_until_idle(killed)
        self._forget()
        self._app.restart()

    def _new_call_back(self) -> tuple[str, dict[str, Any]]:
        self._made += 1
        flow = f"exactly-once-{self._run}-{self._made}"
        body = dict(self._make(self._made) if callable(self._make) else self._make)
        body.setdefault("businessKey", flow)
        if times := self._count_work(event_of(body, flow_instance_id=flow, kind=self._kind)):
            raise ValueError(
                f"done() returned {times} for an event that was not sent yet. It must count the work of its event "
                "only, by event.flow_instance_id, or by the businessKey that each event gets unless make= sets "
                "another"
            )
        return flow, body

    def _post(self, flow: str, body: Mapping[str, Any], *, wait: float = 20) -> PostResult:
        answer = self._app.post(flow, kind=self._kind, wait=wait, data=body)
        if not answer.event_id:
            raise ValueError(f"the callback was not accepted: {answer.status} {answer.message}")
        return answer

    def _count_work(self, event: Event) -> int:
        times = self._done(event)
        if isinstance(times, bool) or not isinstance(times, int) or times < 0:
            raise ValueError(f"done() must return how many times the work was done, not {times!r}")
        return times

    def _finding(self, scenario: Scenario, event_id: str, place: str = "", *, caught: bool = False) -> Finding:
        seen = self._app.delivery(event_id, self._handler.id)
        times = self._count_work(self._app.event(event_id))
        return judge(scenario, place, times=times, seen=seen, handler=self._handler, caught=caught)


def _choose(lines: list[str], max_lines: int) -> list[tuple[int, str]]:
    """Return up to `max_lines` of the lines with their numbers, evenly chosen."""
    numbered = list(enumerate(lines, 1))
    if len(numbered) <= max_lines:
        return numbered
    step = (len(numbered) - 1) / max(1, max_lines - 1)
    return [numbered[round(number * step)] for number in range(max_lines)]
