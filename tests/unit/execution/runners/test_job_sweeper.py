"""The sweeper of jobs misses no call, whenever it comes."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowhooks.execution.runners.job_sweeper import JobSweeper

TURNS = 4


class SetMeanwhile(threading.Event):
    """An event that another thread sets just after it was read the first time."""

    is_first = True

    def is_set(self):
        """Whether it was set before."""
        was_set = super().is_set()
        if self.is_first:
            self.is_first = False
            self.set()
        return was_set

    def wait(self, timeout=None):
        """Return at once whether it was set before."""
        return self.is_set()


@pytest.mark.parametrize("name", ["_has_failed", "_wakeup"])
def test_a_call_at_the_end_of_a_sweep_causes_another_sweep(name, monkeypatch):
    """A failed delivery, or a resumed handler, causes one more sweep for the handlers of this process."""
    turns, swept, stop = [], [], threading.Event()

    def is_leader():
        turns.append(1)
        if len(turns) == TURNS:
            stop.set()
        return False

    slots = SimpleNamespace(wake=lambda: None)
    sweeper = JobSweeper("postgresql://", queue=SimpleNamespace(slots=slots), ledger=None, clock=None, handlers=())
    monkeypatch.setattr(sweeper, "sweep_own", lambda: swept.append(len(turns)))
    monkeypatch.setattr(sweeper, "_is_leader", is_leader)
    monkeypatch.setattr(sweeper, "_pause", lambda: 0.0)
    monkeypatch.setattr(sweeper, name, SetMeanwhile())
    sweeper.run(stop)
    assert swept[0] == 0
    assert len(swept) == 2
