"""After any steps of reconciliation in any order, each ended instance has one event, or an operator declined it."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import contextmanager

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from flowhooks.background.reconciliation import pace
from model.rounds import MODULES, Rounds

pytestmark = pytest.mark.sqlite
LONG = int(os.environ.get("FLOWHOOKS_MODEL_EXAMPLES", "500"))
SEED = os.environ.get("FLOWHOOKS_MODEL_SEED", "")


@pytest.fixture
def run(harness, new_database, clock, tmp_path, monkeypatch, request):  # noqa: PLR0917 (fixtures)
    """A function that runs the examples of one seed; a failure has the command that runs them again."""
    folders = iter(range(1_000_000))
    monkeypatch.setattr(pace, "MAX_SHARE", 1.0)  # no rests

    class Steps(Rounds):
        def new_harness(self):
            self.folder = tmp_path / str(next(folders))
            self.folder.mkdir()
            new = type(harness)(self.folder, type(clock)())
            shutil.copy(new_database, new.file)
            return new

        @contextmanager
        def patched(self, target, value):
            with monkeypatch.context() as patch:
                for module in MODULES:
                    patch.setattr(f"flowhooks.background.reconciliation.{module}.{target}", value, raising=False)
                yield

        def teardown(self):
            super().teardown()
            shutil.rmtree(self.folder)

    def run(number, examples):
        chosen = settings(
            deadline=None,
            stateful_step_count=30,
            max_examples=examples,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=(Phase.generate, Phase.shrink),
        )
        try:
            with structlog.testing.capture_logs():
                run_state_machine_as_test(seed(number)(Steps), settings=chosen)
        except BaseException as error:
            error.add_note(
                f"to run the same steps again: FLOWHOOKS_MODEL_SEED={number} FLOWHOOKS_MODEL_EXAMPLES={LONG} "
                f"pytest -n 0 -m 'long or not long' '{request.node.nodeid}'"
            )
            raise

    return run


@pytest.mark.timeout(900)  # after a failure the shortest sequence is searched
def test_each_instance_has_one_event(run):
    """The same sequences of rounds, callbacks, decisions, kills and lost leases each time."""
    run(int(SEED or 1), 5)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_each_instance_has_one_event_after_any_steps(run):
    """Hundreds of sequences, different ones each time."""
    run(int(SEED) if SEED else random.SystemRandom().randrange(2**32), LONG)
