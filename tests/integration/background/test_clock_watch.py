"""Work that a clock years ahead has delayed runs once the clock is right; the jump of the clock is logged."""

from __future__ import annotations

from functools import partial

import pytest

from flowhooks import Retry, State
from flowhooks.background import clock_watch as module
from flowhooks.background import retention
from flowhooks.background.clock_trust import ClockTrust
from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.ledger import due_times, maintenance
from flowhooks.ledger.circuit_state import MAX_TRIAL_AHEAD, TrialDelivery

YEARS = 10 * 365 * 86_400


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Check more often than every ten seconds, beside a monotonic clock that stands still as the clock does.

    With the real one, a jump would be shorter by the seconds since the check before.
    """
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr("flowhooks.composition.ClockTrust", partial(ClockTrust, monotonic=lambda: 0.0))


def set_clock(flow, seconds):
    """Set the clock forward or back. The ledger then has impossible times, which `flowhooks verify` reports."""
    flow.changed = True
    flow.clock.time += seconds * 1_000_000


def jumps(logged):
    """The jumps in seconds that the clock watch has noticed. Two opposite jumps between two checks are not noticed."""
    return [entry["seconds"] for entry in logged if entry["event"] == "clock_jumped"]


def test_a_jump_is_logged(harness, eventually, logged):
    """Each jump is logged once with its seconds."""
    flow = harness.open()
    set_clock(flow, YEARS)
    jump = eventually(lambda: next((record for record in logged if record["event"] == "clock_jumped"), None))
    assert (jump["log_level"], jump["seconds"]) == ("warning", YEARS)
    set_clock(flow, -YEARS)
    eventually(lambda: jumps(logged) == [YEARS, -YEARS])


def test_a_jump_that_cannot_be_recorded_is_recorded_later(harness, monkeypatch):
    """A machine that resumes has a wrong clock and broken connections at the same time."""

    def fail(write):
        raise Unavailable("ledger_down")

    monkeypatch.setattr(module, "POLL_INTERVAL", 3600.0)  # so that only the test checks
    flow = harness.open(start=False)
    watch = module.ClockWatch(flow.app.ledger, ClockTrust(flow.clock, None, monotonic=lambda: 0.0), flow.clock)
    set_clock(flow, 3600)
    with monkeypatch.context() as patch:
        patch.setattr(flow.app.ledger, "write", fail)
        for _ in range(2):
            with pytest.raises(Unavailable):
                watch._check_clock()
    at = flow.clock.now()
    set_clock(flow, 60)
    assert [watch._check_clock(), watch._check_clock()] == [True, False]
    recorded = flow.sql("SELECT at, value FROM maintenance WHERE kind = 'clock_jump' ORDER BY at")
    assert recorded == [(at, 3600 * SECOND), (at + 60 * SECOND, 60 * SECOND)]


@pytest.mark.runners
def test_a_retry_delayed_for_years_runs(harness, listens, logged, eventually):
    """Once the clock is right, the retry is due and runs."""
    ran = []

    def moody(event, delivery):
        ran.append(delivery.attempt)
        if delivery.attempt == 1:
            raise OSError("not this time")

    flow = harness.open(listens(moody, retry=Retry(delays=[3600], jitter=0)))
    set_clock(flow, YEARS)
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    eventually(lambda: jumps(logged) == [YEARS])
    set_clock(flow, -YEARS)
    flow.settled(event_id, State.SUCCEEDED)
    assert ran == [1, 2]
    assert eventually(
        lambda: [record["deliveries"] for record in logged if record["event"] == "due_times_corrected"]
    ) == [1]


def test_a_retry_delayed_for_years_runs_after_a_restart(harness, listens):
    """The check at a start corrects the due time at once."""

    def moody(event, delivery):
        if delivery.attempt == 1:
            raise OSError("not this time")

    flow = harness.open(listens(moody, retry=Retry(delays=[3600], jitter=0)))
    set_clock(flow, YEARS)
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.close()
    set_clock(flow, -YEARS)
    harness.open(listens(moody, retry=Retry(delays=[3600], jitter=0))).settled(event_id, State.SUCCEEDED)


def test_a_retry_of_thirty_days_is_not_corrected(harness, listens):
    """The longest possible delay with its jitter is not corrected."""

    def fail(event):
        raise OSError("no")

    flow = harness.open(listens(fail, retry=Retry(delays=[30 * 86_400], jitter=1)))
    flow.clock.drawn = 0.999
    event_id = flow.take(wait=0).event_id
    due_at = flow.settled(event_id, State.WAITING, attempt=1).due_at
    assert due_at - flow.clock.now() > 59 * 86_400 * 1_000_000
    assert flow.app.ledger.write(flow.app.ledger.correct_due_times) == 0
    assert flow.only(event_id).due_at == due_at


def test_many_due_times_are_corrected_in_batches(harness, listens, monkeypatch):
    """All wrong due times are corrected in any number, and no others."""
    monkeypatch.setattr(due_times, "BATCH_SIZE", 2)
    flow = harness.open(listens(lambda event: None), start=False)
    ids = [flow.take(f"i{number}", wait=0).event_id for number in range(6)]
    soon = flow.clock.now() + 3600 * 1_000_000
    flow.sql("UPDATE deliveries SET due_at = ?", flow.clock.now() + YEARS * 1_000_000)
    flow.sql("UPDATE deliveries SET due_at = ? WHERE event_id = ?", soon, ids[0])
    correct = flow.app.ledger.correct_due_times
    assert [flow.app.ledger.write(correct) for _ in range(4)] == [2, 2, 1, 0]
    assert [flow.only(event_id).due_at for event_id in ids] == [soon] + [flow.clock.now()] * 5


@pytest.mark.sqlite
def test_wrong_due_times_are_found_by_the_polling_index(harness):
    """The query uses the polling index for any number of waiting deliveries."""
    with harness.open(start=False).app.ledger.connection() as connection:
        query = "EXPLAIN QUERY PLAN " + str(due_times._FAR.compile(connection.engine))
        plan = [row[3] for row in connection.exec_driver_sql(query, ("h", 1, 5, 0))]
    assert plan == ["SEARCH deliveries USING INDEX deliveries_due (handler=? AND due_at>?)"]


def test_a_trial_delayed_for_years_runs(harness, listens, eventually, logged):
    """A trial of an open circuit runs once the clock is right."""
    ran = []

    def moody(event):
        ran.append(event.flow_instance_id)
        if len(ran) == 1:
            raise OSError("not this time")

    flow = harness.open(listens(moody), circuit_breaker={"failures": 1, "retry_interval": 60})
    set_clock(flow, YEARS)
    flow.take("i1", wait=0)
    eventually(flow.app.ledger.open_circuits)
    flow.take("i2", wait=0)
    eventually(lambda: jumps(logged) == [YEARS])
    set_clock(flow, -YEARS)
    # The second delivery has a waiting time in the future; both are corrected.
    eventually(lambda: ran == ["i1", "i2"])
    eventually(lambda: not flow.app.ledger.open_circuits())


def test_a_trial_that_is_due_soon_is_not_corrected(harness, listens):
    """A trial within a day is not corrected, because clocks of processes may differ."""
    flow = harness.open(listens(lambda event: None), circuit_breaker={"failures": 1, "retry_interval": 60}, start=False)
    now = flow.clock.now()
    flow.sql(
        "UPDATE handlers SET paused_at = 1, circuit_opened_at = 1, circuit_retry_at = ?",
        now + 60_000_000 + MAX_TRIAL_AHEAD - 1,
    )
    flow.take("i1", wait=0)
    assert flow.app.ledger.claim_trial_delivery(TrialDelivery("p:lambda", now + 60_000_000)) is None


def test_a_clock_that_is_ahead_at_a_start_purges_nothing(harness, listens, monkeypatch, eventually, logged):
    """Nothing is purged until the clock has been stable for an hour."""
    from flowhooks.background import clock_trust

    monkeypatch.setattr(retention, "FIRST_RUN_DELAY", 0.01)
    flow = harness.open(listens(lambda event: None))
    for number in range(20):
        flow.take(f"i{number}")
    flow.close()
    set_clock(flow, 500 * 86_400)
    flow = harness.open(listens(lambda event: None))
    # Callbacks received meanwhile do not make the clock right.
    flow.take("later")
    eventually(lambda: [record for record in logged if record["event"] == "purge_postponed"])
    eventually(lambda: flow.app.retention._postponed)
    assert len(flow.events()) == 21
    assert len([record for record in logged if record["event"] == "purge_postponed"]) == 1
    monkeypatch.setattr(clock_trust, "DOUBT_SECONDS", 0.0)
    eventually(lambda: len(flow.events()) == 1)


def test_a_clock_that_jumps_while_the_server_runs_purges_nothing(harness, listens, monkeypatch, eventually, logged):
    """Retention checks the clock before each run."""
    monkeypatch.setattr(retention, "FIRST_RUN_DELAY", 0.01)
    monkeypatch.setattr(retention, "PURGE_INTERVAL", 0.01)
    flow = harness.open(listens(lambda event: None))
    flow.take("i1")
    set_clock(flow, 500 * 86_400)
    eventually(lambda: [record for record in logged if record["event"] == "purge_postponed"])
    assert len(flow.events()) == 1


def test_a_clock_that_jumps_during_a_run_purges_nothing(harness, listens, monkeypatch):
    """A run computes its cutoffs from the time at which the clock was checked."""
    flow = harness.open(listens(lambda event: None))
    flow.take("i1")
    count = maintenance.count_stored_events

    def count_and_jump(connection):
        set_clock(flow, 500 * 86_400)
        return count(connection)

    monkeypatch.setattr(maintenance, "count_stored_events", count_and_jump)
    flow.app.retention._run_if_trusted()
    assert len(flow.events()) == 1


def test_a_clock_that_jumps_during_a_run_keeps_the_identities(harness, listens, monkeypatch):
    """A repeated callback of an event that is purged meanwhile is no new event."""
    flow = harness.open(listens(lambda event: None), retention={"succeeded": 1})
    event_id = flow.take("i1").event_id
    flow.clock.advance(2 * 86_400)
    purgeable = flow.app.ledger.purgeable

    def purgeable_and_jump(*given, **more):
        page = purgeable(*given, **more)
        set_clock(flow, 500 * 86_400)
        return page

    monkeypatch.setattr(flow.app.ledger, "purgeable", purgeable_and_jump)
    assert flow.app.retention.run(flow.clock.now())["events"] == 1
    set_clock(flow, -500 * 86_400)
    assert flow.take("i1").event_id == event_id


def test_one_run_deletes_a_limited_number_of_events(harness, listens, monkeypatch, logged):
    """A run stops at its limit and logs it, and the next run continues."""
    monkeypatch.setattr(retention, "BATCH_SIZE", 1)
    monkeypatch.setattr(retention, "MIN_ROWS_PER_RUN", 3)
    monkeypatch.setattr(retention, "MAX_DUTY_CYCLE", 1.0)
    flow = harness.open(
        listens(lambda event: None, name="a"), listens(lambda event: None, name="b"), retention={"succeeded": 1}
    )
    for number in range(5):
        flow.take(f"i{number}")
    flow.clock.advance(2 * 86_400)
    assert flow.app.retention.run(flow.clock.now())["events"] == 3
    (capped,) = [record for record in logged if record["event"] == "purge_capped"]
    assert (capped["log_level"], capped["most"]) == ("warning", 3)
    rest = flow.app.retention.run(flow.clock.now())
    assert (rest["events"], rest["deliveries"]) == (2, 4)  # deliveries have no limit of their own
    assert len([record for record in logged if record["event"] == "purge_capped"]) == 1
