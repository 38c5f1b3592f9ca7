"""After any steps in any order, a ledger has the expected content."""

from __future__ import annotations

import os
import random
import shutil

import pytest
import structlog
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.reporting import with_reporter
from hypothesis.stateful import run_state_machine_as_test

from flowhooks import app
from model.acting import Acting
from model.operating import MAX_RELEASED
from model.real import HandlerBehavior, ManualSlots, RealLedger

STEPS = 40
SHORT = {"sqlite": 30, "postgresql": 10}
"""Examples of `make test`: the same ones each time."""
LONG = int(os.environ.get("FLOWHOOKS_MODEL_EXAMPLES", "2000"))
"""Examples of `make test-long` on each database, different ones each time."""
SEED = os.environ.get("FLOWHOOKS_MODEL_SEED", "")
"""The seed of all tests here; if empty, 1 for the tests of `make test` and a random seed for the long test."""
BASE_SETTINGS = settings(
    deadline=None,
    stateful_step_count=STEPS,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.generate, Phase.shrink),  # explaining a failure takes as long as finding it
)


def _drop(_logger, _method, _entry):
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def _quiet():
    """Suppress the log, because thousands of expected failures are of no use."""
    with structlog.testing.capture_logs(processors=[_drop]):
        yield


@pytest.fixture
def steps(harness, new_database, clock, tmp_path, monkeypatch):
    """All steps on this database; each example has a harness of its own."""
    work, loaded_plugins, folders, real_load = HandlerBehavior(), {}, iter(range(1_000_000)), app.load

    def load(settings, *, objects, entry_points, environ):
        # The same plugins each time, at half the cost of a start.
        if (names := objects["wraps"].loaded) not in loaded_plugins:
            loaded_plugins[names] = real_load(settings, objects=objects, entry_points=entry_points, environ=environ)
        return loaded_plugins[names]

    monkeypatch.setattr("flowhooks.execution.runners.selection.SlotPool", ManualSlots)
    monkeypatch.setattr("flowhooks.app.load", load)
    monkeypatch.setattr("flowhooks.ledger.bulk_release.MAX_RELEASED", MAX_RELEASED)

    class Steps(Acting):
        def new_ledger(self):
            self.folder = tmp_path / str(next(folders))
            self.folder.mkdir()
            return RealLedger(type(harness)(self.folder, type(clock)(), harness.url), new_database, work)

        def teardown(self):
            super().teardown()
            shutil.rmtree(self.folder)

    return Steps


@pytest.fixture
def run(request):
    """A function that runs the examples of one seed; a failure has the command that runs them again."""

    def run(machine, number, examples, **more):
        try:
            run_state_machine_as_test(
                seed(number)(machine), settings=settings(BASE_SETTINGS, max_examples=examples, **more)
            )
        except BaseException as error:
            error.add_note(
                "to run the same steps again: "
                f"FLOWHOOKS_MODEL_SEED={number} FLOWHOOKS_MODEL_EXAMPLES={LONG} "
                f"pytest -n 0 -m 'long or not long' '{request.node.nodeid}'"
            )
            raise

    return run


@pytest.mark.timeout(900)  # after a failure the shortest sequence is searched
def test_ledger_has_the_expected_content(harness, steps, run):
    """The same few dozen sequences of steps each time."""
    run(steps, int(SEED or 1), SHORT["postgresql" if harness.url else "sqlite"])


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_ledger_has_the_expected_content_after_thousands_of_sequences(steps, run):
    """Thousands of sequences of steps, different ones each time."""
    run(steps, int(SEED) if SEED else random.SystemRandom().randrange(2**32), LONG)


@pytest.mark.either
def test_the_seed_determines_the_whole_run(steps, run):
    """The same seed gives the same steps, times, crashes, repeats and rows; another seed gives different ones."""
    first, repeated, other = ([], []), ([], []), ([], [])
    for number, (lines, stored) in ((7, first), (7, repeated), (8, other)):

        class Recording(steps):
            def teardown(self, stored=stored):
                stored.append(self.real.stored() if self.real.flows else None)
                super().teardown()

        with with_reporter(lines.append):
            run(Recording, number, 2, verbosity=Verbosity.debug, stateful_step_count=15)
    steps_of = [[line for line in lines if "state." in line] for lines, _ in (first, repeated, other)]
    assert len(steps_of[0]) > 10
    assert steps_of[0] == steps_of[1] != steps_of[2]
    assert first[1] == repeated[1] != other[1]


@pytest.mark.sqlite
def test_a_failure_names_its_seed_and_test(steps, run):
    """A failure names the seed and the test that repeat it."""

    class Failing(steps):
        def check_due_and_counts(self):
            raise AssertionError("on purpose")

    with pytest.raises(AssertionError, match="on purpose") as failed:
        run(Failing, 7, 1, phases=(Phase.generate,))
    assert "FLOWHOOKS_MODEL_SEED=7 " in failed.value.__notes__[-1]
    assert "test_a_failure_names_its_seed_and_test" in failed.value.__notes__[-1]
