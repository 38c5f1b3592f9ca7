"""Whatever is done to a ledger, in whatever order: it holds what it ought to hold."""

from __future__ import annotations

import os
import shutil

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from flowhooks import app
from model.acting import Acting
from model.real import ByHand, Real, Work

STEPS = 40
SHORT = {"sqlite": 30, "postgresql": 10}
"""Examples of `make test`: the same ones each time."""
LONG = int(os.environ.get("FLOWHOOKS_MODEL_EXAMPLES", "2000"))
"""Examples of `make test-long` on each database: others each time."""
HOWEVER_BUSY = settings(
    deadline=None,
    stateful_step_count=STEPS,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.generate, Phase.shrink),  # to explain a failure takes as long as to find it
)


def _drop(_logger, _method, _entry):
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def _quiet():
    """Thousands of lines on what is meant to go wrong here help nobody."""
    with structlog.testing.capture_logs(processors=[_drop]):
        yield


@pytest.fixture
def steps(house, new_database, clock, tmp_path, monkeypatch):
    """All steps, on this house's database; each example has a house of its own."""
    work, loads, folders, really = Work(), {}, iter(range(1_000_000)), app.load

    def load(settings, *, objects, entry_points, environ):
        # The same plugins each time, at half the cost of a start.
        if (names := objects["wraps"].loaded) not in loads:
            loads[names] = really(settings, objects=objects, entry_points=entry_points, environ=environ)
        return loads[names]

    monkeypatch.setattr("flowhooks.app.EmbeddedRunner", ByHand)
    monkeypatch.setattr("flowhooks.app.load", load)

    class Steps(Acting):
        def site(self):
            self.folder = tmp_path / str(next(folders))
            self.folder.mkdir()
            return Real(type(house)(self.folder, type(clock)(), house.url), new_database, work)

        def teardown(self):
            super().teardown()
            shutil.rmtree(self.folder)

    return Steps


@pytest.mark.timeout(900)  # after a failure the shortest way to it is searched for
def test_it_holds_what_it_ought_to_hold(house, steps):
    """The same few dozen orders of steps each time."""
    examples = SHORT["postgresql" if house.url else "sqlite"]
    run_state_machine_as_test(steps, settings=settings(HOWEVER_BUSY, max_examples=examples, derandomize=True))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_it_holds_what_it_ought_to_hold_however_long_one_looks(steps):
    """Thousands of orders of steps, others each time."""
    run_state_machine_as_test(steps, settings=settings(HOWEVER_BUSY, max_examples=LONG))
