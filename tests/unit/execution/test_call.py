"""A call to an isolated handler when no process can be started."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from flowhooks.errors import HandlerProcessUnavailable
from flowhooks.execution.isolation.call import MAX_TRIES, call
from flowhooks.execution.isolation.protocol import ConnectionClosed
from flowhooks.execution.run_options import RunOptions
from flowhooks.model.delivery import Delivery
from flowhooks.model.invocation import Invocation
from flowhooks.testing import make_event

NO_FILES = "no process can be created: Too many open files"


class Output:
    """The output of a process that prints nothing."""

    def __init__(self):
        self.log_context = {}
        self.tail = ""

    def clear_tail(self):
        """Do nothing."""


class Unborn:
    """A process that the fork server could not start, which the server notices while it sends or reads."""

    def __init__(self, *, seen_by):
        self.output = Output()
        self.runs = 0
        self.closing_reason = self.spawn_error = ""
        self._seen_by = seen_by

    def begin_run(self, _delivery):
        """Count it."""
        self.runs += 1

    def send(self, _request, _until):
        """Fail if the fault is noticed here."""
        if self._seen_by == "send":
            raise BrokenPipeError

    def receive(self, _until):
        """Fail as at the end of a stream."""
        raise ConnectionClosed


class Pool:
    """A pool whose processes cannot be started."""

    def __init__(self, seen_by):
        self.seen_by = seen_by

    def acquire(self, _handler):
        """Return one more."""
        return Unborn(seen_by=self.seen_by)

    def discard(self, process, _reason, *, has_disconnected):
        """Return the fork server's reason."""
        assert has_disconnected
        process.spawn_error = NO_FILES


@pytest.mark.parametrize("seen_by", ["send", "receive"])
def test_the_reason_of_a_failed_process_start_is_logged_and_stored(seen_by):
    """The log and the attempt's error have the reason, also if the request was sent; no function was entered."""
    delivery = Delivery(id="d", event_id="e", handler="p:h", attempt=1)
    options = RunOptions(isolation="process", timeout=60.0, memory_mib=512, max_failures=10)
    invocation = Invocation(delivery.id, delivery.attempt)
    with (
        capture_logs() as logs,
        invocation,
        pytest.raises(HandlerProcessUnavailable, match=f"{MAX_TRIES} .*: {NO_FILES}$"),
    ):
        call(Pool(seen_by), options, make_event(), delivery, probe=False)
    assert [(record["event"], record["why"]) for record in logs] == [("process_spawn_failed", NO_FILES)] * MAX_TRIES
    assert not invocation.entered
