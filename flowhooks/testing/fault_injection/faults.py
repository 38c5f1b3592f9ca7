"""A plugin that decides what befalls a handler's attempt: a kill, a failure, a wait.

A killed attempt is held until its app has been closed, so that nobody records how it ended.
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
    """What befalls one attempt. This one: nothing, but its lines are counted.

    Args:
        lines: which lines are counted.

    Attributes:
        reached: set once it has come to what befalls it, and is held there.
        go_on: what it then waits for.
    """

    def __init__(self, lines: LineTracer | None = None) -> None:
        self.lines = lines
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def run(self) -> Run:
        """The attempt, from within a `run_handler` wrapper."""
        if self.lines is None:
            return (yield)
        with self.lines.trace():
            return (yield)

    def stall(self) -> None:
        """Wait until whoever planned this lets it go on."""
        self.reached.set()
        if not self.go_on.wait(3 * WAIT_TIMEOUT):
            raise TimeoutError("flowhooks.testing forgot an attempt that it held")


class Stalled(Fault):
    """It is held before the function is entered, and then runs."""

    def run(self) -> Run:
        """The attempt."""
        self.stall()
        return (yield)


class KilledBefore(Fault):
    """The process is killed before the function is entered."""

    def run(self) -> Run:
        """The attempt."""
        self.stall()
        raise Killed
        yield  # makes it a generator, as a wrapper has to be


class KilledAfter(Fault):
    """The process is killed when the function has returned, or raised, and before that is recorded."""

    def run(self) -> Run:
        """The attempt."""
        try:
            yield
        finally:
            self.stall()
        raise Killed


class KilledAt(Fault):
    """The process is killed before one of the lines that the handler runs; nothing befalls one that has fewer.

    Attributes:
        caught: whether the handler went on all the same, for it catches even what a kill is played with.
    """

    def __init__(self, lines: LineTracer) -> None:
        super().__init__(lines)
        self.seen_lines = lines
        self.caught = False

    def run(self) -> Run:
        """The attempt."""
        outcome: Outcome | None = None
        failed: BaseException | None = None
        try:
            with self.seen_lines.trace():
                outcome = yield
        except BaseException as error:
            if not self.seen_lines.reached:
                raise
            # What the killed function held must go with it: else its transactions stay open.
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
    """The plugin: wraps all others' wrappers, and looks up what befalls the first attempt for an event.

    Attributes:
        handler: the id of the handler that it befalls; `""`: all.
        planned: what befalls it, by the event's flow instance id; each is used once.
    """

    NAME = "flowhooks-testing"

    def __init__(self) -> None:
        self.handler = ""
        self.planned: dict[str, Fault] = {}

    @hookimpl(wrapper=True, tryfirst=True)
    def run_handler(self, handler: Handler, event: Event, delivery: Delivery) -> Run:
        """Let happen what is planned."""
        fault = None
        if self.handler in {"", handler.id} and delivery.attempt == 1:
            fault = self.planned.pop(event.flow_instance_id, None)
        if fault is None:
            return (yield)
        return (yield from fault.run())
