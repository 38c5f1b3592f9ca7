"""A plugin that injects a fault into an attempt of a handler: a kill, a failure or a stall.

A killed attempt is stalled until its app has been closed, so that nothing records how it ended.
"""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING

from flowhooks.hookspecs import hookimpl
from flowhooks.testing.fault_injection.line_tracer import Killed, LineTracer
from flowhooks.testing.waiting import WAIT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Generator

    from flowhooks.model.delivery import Delivery, Outcome
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler

    Run = Generator[None, Outcome, Outcome]


class Fault:
    """A fault of one attempt. This base class injects none, but its lines are counted.

    Args:
        lines: counts the lines that are executed.

    Attributes:
        reached: set when the attempt has reached its fault and is stalled there.
        go_on: ends the stall when it is set.
    """

    def __init__(self, lines: LineTracer | None = None) -> None:
        self.lines = lines
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def run(self) -> Run:
        """Run the attempt inside a `run_handler` wrapper."""
        if self.lines is None:
            return (yield)
        with self.lines.trace():
            return (yield)

    def stall(self) -> None:
        """Wait until the scenario sets `go_on`."""
        self.reached.set()
        if not self.go_on.wait(3 * WAIT_TIMEOUT):
            raise TimeoutError("flowhooks.testing lost an attempt that it had stalled")


class Stalled(Fault):
    """A stall of the attempt before the function is entered; then the attempt runs."""

    def run(self) -> Run:
        """Run the attempt."""
        self.stall()
        return (yield)


class KilledBefore(Fault):
    """A kill of the process before the function is entered."""

    def run(self) -> Run:
        """Run the attempt."""
        self.stall()
        raise Killed
        yield  # makes it a generator, as a wrapper has to be


class KilledAfter(Fault):
    """A kill of the process after the function has returned or raised, and before that is recorded."""

    def run(self) -> Run:
        """Run the attempt."""
        try:
            yield
        finally:
            self.stall()
        raise Killed


class KilledAt(Fault):
    """A kill of the process before a given line of the handler. An attempt with fewer lines runs to its end.

    Attributes:
        caught: whether the handler continued after the simulated kill, because it catches even `BaseException`.
    """

    def __init__(self, lines: LineTracer) -> None:
        super().__init__(lines)
        self.seen_lines = lines
        self.caught = False

    def run(self) -> Run:
        """Run the attempt."""
        outcome: Outcome | None = None
        failed: BaseException | None = None
        try:
            with self.seen_lines.trace():
                outcome = yield
        except BaseException as error:
            if not self.seen_lines.reached:
                raise
            # Release the objects of the killed function, because otherwise its transactions would stay open.
            self.caught = not isinstance(error, Killed)
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
            failed = error
        else:
            self.caught = self.seen_lines.reached
        if not self.seen_lines.reached and outcome is not None:
            return outcome
        del failed
        self.stall()
        raise Killed


class FaultInjector:
    """The plugin that runs the planned fault of an event in its first attempt. It wraps all other wrappers.

    Attributes:
        handler: the id of the handler whose attempts have faults; `""`: all handlers.
        planned: the fault of each event, by its flow instance id. Each fault is used once.
    """

    NAME = "flowhooks-testing"

    def __init__(self) -> None:
        self.handler = ""
        self.planned: dict[str, Fault] = {}

    @hookimpl(wrapper=True, tryfirst=True)
    def run_handler(self, handler: Handler, event: Event, delivery: Delivery) -> Run:
        """Run the attempt with its planned fault, if it has one."""
        fault = None
        if self.handler in {"", handler.id} and delivery.attempt == 1:
            fault = self.planned.pop(event.flow_instance_id, None)
        if fault is None:
            return (yield)
        return (yield from fault.run())
