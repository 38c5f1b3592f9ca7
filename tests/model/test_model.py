"""Whatever is done to a ledger, in whatever order: it holds what it ought to hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from model.acting import Acting
from model.real import ByHand, Real

STEPS = 40
SHORT = {"sqlite": 40, "postgresql": 25}
"""Examples of `make test`: always the same ones."""
LONG = int(os.environ.get("FLOWHOOKS_MODEL_EXAMPLES", "2000"))
"""Examples of `make test-long`: others each time."""
HOWEVER_BUSY = settings(
    deadline=None,
    stateful_step_count=STEPS,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.generate, Phase.shrink) if "NOSHRINK" not in os.environ else (Phase.generate,),
)


@pytest.fixture(autouse=True)
def quiet():
    """Thousands of lines on what is meant to happen here help nobody."""
    with structlog.testing.capture_logs(processors=[_drop]):
        yield


def _drop(_logger, _method, _entry):
    raise structlog.DropEvent


@pytest.fixture
def steps(house, new_database, clock, tmp_path, monkeypatch):
    """The machine of all steps, on this house's database; each example has a house of its own."""
    monkeypatch.setattr("flowhooks.app.Embedded", ByHand)
    folders = iter(range(1_000_000))

    class Steps(Acting):
        def site(self):
            folder = tmp_path / str(next(folders))
            folder.mkdir()
            self.folder = folder
            return Real(type(house)(folder, type(clock)(), house.url), new_database)

        def teardown(self):
            super().teardown()
            shutil.rmtree(self.folder)

    return Steps


@pytest.mark.timeout(900)
def test_it_holds_what_it_ought_to_hold(house, steps):
    """The same few dozen orders of steps each time."""
    examples = SHORT["postgresql" if house.url else "sqlite"]
    run_state_machine_as_test(steps, settings=settings(HOWEVER_BUSY, max_examples=examples, derandomize=True))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_it_holds_what_it_ought_to_hold_however_long_one_looks(steps):
    """Thousands of orders of steps, others each time."""
    run_state_machine_as_test(steps, settings=settings(HOWEVER_BUSY, max_examples=LONG))
