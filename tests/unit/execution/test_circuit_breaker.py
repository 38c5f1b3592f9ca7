"""The circuit breaker: outcomes that two threads publish at once, and changes that the database refuses."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowhooks.errors import Unavailable
from flowhooks.execution.circuit_breaker import CircuitBreaker
from flowhooks.model.delivery import Outcome, OutcomeKind


class Counts(dict):
    """Failures of each handler; while they are read, another thread publishes an outcome."""

    def __init__(self, meanwhile):
        super().__init__()
        self._meanwhile = meanwhile
        self.other = None

    def get(self, *args):
        """Read a number, after the other thread has had time to change it."""
        if self.other is None:
            self.other = threading.Thread(target=self._meanwhile)
            self.other.start()
            self.other.join(0.1)
        return super().get(*args)


def settled(kind):
    """The signal of an attempt that ended so."""
    return SimpleNamespace(
        delivery=SimpleNamespace(handler="p:h"), outcome=Outcome(kind=kind), status=SimpleNamespace(error="broken")
    )


def make_breaker(clock, **ledger):
    """A circuit breaker that one failure of the handler `p:h` opens."""
    return CircuitBreaker(
        ledger=SimpleNamespace(**ledger), max_failures={"p:h": 1}, plugin_versions={}, retry_interval=60.0, clock=clock
    )


def test_a_change_that_fails_is_tried_again(clock):
    """If the database refuses a change, neither this change nor those after it are lost."""
    written, pauses = [], SimpleNamespace(handlers=frozenset({"p:two"}))

    def write(work, *, alone):
        assert alone
        written.append(work)
        if len(written) == 1:
            raise Unavailable("ledger_down")
        return ()

    breaker = make_breaker(clock, pauses=pauses, write=write)
    breaker._request_change("p:one", "broken")
    breaker._request_change("p:two", None)
    with pytest.raises(Unavailable):
        breaker._apply_changes()
    breaker._apply_changes()
    assert len(written) == 3
    breaker._apply_changes()
    assert len(written) == 3


def test_the_last_of_two_outcomes_decides(clock):
    """A success that another thread publishes while a failure is counted comes after it, and closes the circuit."""
    breaker = make_breaker(clock, pauses=SimpleNamespace(handlers=frozenset()))
    breaker._failures = counts = Counts(lambda: breaker.on_settled(settled(OutcomeKind.SUCCEEDED)))
    breaker.on_settled(settled(OutcomeKind.FAILED))
    counts.other.join()
    assert [breaker._changes.get_nowait() for _ in range(2)] == [("p:h", "broken"), ("p:h", None)]
