"""The rate of a handler limits how many attempts start over all claims; a refused delivery is not changed."""

from __future__ import annotations

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.clock import SECOND
from flowhooks.ledger.circuit_state import TrialDelivery
from flowhooks.ledger.consistency import verify
from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached, ReadyDelivery

pytestmark = pytest.mark.either


def nothing(event):
    """Do nothing."""


class Rated:
    """A ledger without a runner, and a handler with a rate."""

    def __init__(self, flow, ledger_steps):
        self.flow = flow
        self.ledger_steps = ledger_steps
        self.ledger = flow.app.ledger

    def take(self, number, key=None):
        """Store a callback; return its delivery as a runner would read it."""
        event_id = self.flow.take(str(number), wait=0, **({} if key is None else {"businessKey": key})).event_id
        return self.flow.only(event_id).delivery_id

    def claim(self, delivery_id):
        """Try to start an attempt of a delivery."""
        delivery_status = self.ledger.delivery(delivery_id)[1]
        return self.ledger.claim(
            ReadyDelivery(
                delivery_id, delivery_status.handler, delivery_status.attempt, ordered=delivery_status.ordered
            )
        )

    def started(self, *ids):
        """Which of these deliveries start now."""
        return [isinstance(self.claim(delivery_id), ClaimedAttempt) for delivery_id in ids]

    def due(self):
        """The number of due deliveries that a poll returns."""
        return len(self.ledger.due_deliveries(self.flow.clock.now(), lambda _handler: 1000))


@pytest.fixture
def rated(harness, listens, ledger_steps_of):
    """A function that opens a ledger with a handler of these limits."""

    def open_ledger(rate, **given):
        flow = harness.open(listens(nothing, name="h", rate=rate, **given), start=False)
        return Rated(flow, ledger_steps_of(flow))

    return open_ledger


def test_attempts_start_in_a_burst_and_then_at_intervals(rated):
    """Three start at once, and then one each third of a second; a refused delivery stays as it is."""
    lane = rated("3/s")
    ids = [lane.take(number) for number in range(6)]
    assert lane.started(*ids) == [True] * 3 + [False] * 3
    before = lane.flow.sql("SELECT * FROM deliveries WHERE id = ?", ids[3])
    assert isinstance(lane.claim(ids[3]), LimitReached)
    assert lane.flow.sql("SELECT * FROM deliveries WHERE id = ?", ids[3]) == before
    lane.flow.clock.advance(0.333)
    assert lane.started(ids[3]) == [False]
    lane.flow.clock.advance(0.001)
    assert lane.started(ids[3], ids[4]) == [True, False]
    with lane.ledger.connection() as connection:
        assert verify(connection).problems == []


@pytest.mark.sqlite
def test_a_damaged_start_time_is_ignored(rated):
    """Polls find the deliveries of all handlers, and attempts start, as if none had started before."""
    lane = rated("2/s")
    ids = [lane.take(number) for number in range(3)]
    lane.flow.sql("UPDATE handlers SET rate_next_at = 'x'")
    assert lane.due() == 3
    assert lane.started(*ids) == [True, True, False]


def test_claims_in_one_batch_share_the_rate(rated, eventually):
    """Of five claims in one transaction, two start."""
    lane = rated("2/s")
    ids = [lane.take(number) for number in range(5)]
    lane.ledger_steps.eventually = eventually
    results = lane.ledger_steps.run_in_one_batch(
        *[lambda delivery_id=delivery_id: lane.claim(delivery_id) for delivery_id in ids]
    )
    assert [isinstance(result, LimitReached) for result in results] == [False, False, True, True, True]


def test_a_poll_reads_only_deliveries_that_may_start(rated):
    """At the rate a poll reads nothing; before, a few deliveries, however many wait."""
    lane = rated("2/s")
    ids = [lane.take(number) for number in range(12)]
    assert lane.due() == 6
    lane.started(*ids[:2])
    assert lane.due() == 0
    lane.flow.clock.advance(0.5)
    assert lane.due() == 5


def test_a_retry_counts_towards_the_rate(rated):
    """A second attempt of a delivery waits for the rate as a first one."""
    lane = rated("1/m", retry=Retry(attempts=3))
    first = lane.take(1)
    assert lane.started(first) == [True]
    queued = ReadyDelivery(first, "p:h", 0)
    assert lane.ledger_steps.settle(queued, 1, OutcomeKind.FAILED, State.WAITING, lane.flow.clock.now())
    assert lane.started(first) == [False]
    lane.flow.clock.advance(60)
    assert lane.started(first) == [True]


def test_a_blocked_or_paused_delivery_uses_none_of_the_rate(rated):
    """Neither a delivery behind another one of its key, nor one of a paused handler."""
    lane = rated("1/m", order_by="business_key")
    first, second, other = lane.take(1, "k"), lane.take(2, "k"), lane.take(3, "other")
    assert lane.started(second) == [False]
    lane.flow.sql(f"UPDATE handlers SET paused_at = {lane.flow.clock.now()}")
    assert lane.started(first) == [False]
    lane.flow.sql("UPDATE handlers SET paused_at = NULL")
    assert lane.started(first, other) == [True, False]


def test_concurrency_and_rate_limits_apply_together(rated):
    """A handler with a concurrency and a rate starts an attempt only if both allow it."""
    lane = rated("2/s", concurrency=1)
    ids = [lane.take(number) for number in range(4)]
    assert lane.started(*ids[:2]) == [True, False]
    lane.ledger_steps.settle(ReadyDelivery(ids[0], "p:h", 0), 1)
    assert lane.started(ids[1]) == [True]
    lane.ledger_steps.settle(ReadyDelivery(ids[1], "p:h", 0), 1)
    assert lane.started(ids[2]) == [False]


@pytest.mark.parametrize(("rate", "started"), [("1/h", [False, False]), ("2/h", [True, False]), (None, [True, True])])
def test_a_new_rate_applies_when_the_plugin_is_loaded(rated, rate, started):
    """A plugin with another rate does not wait for the old one; with the same rate, a restart gives nothing."""
    lane = rated("1/h")
    ids = [lane.take(number) for number in range(3)]
    assert lane.started(*ids[:2]) == [True, False]
    lane.flow.close()
    assert rated(rate).started(*ids[1:]) == started


def test_a_start_time_in_the_future_does_not_stop_a_handler(rated):
    """A stored time that no start can have left does not count."""
    lane = rated("1/m")
    ids = [lane.take(number) for number in range(2)]
    lane.flow.sql(f"UPDATE handlers SET rate_next_at = {lane.flow.clock.now() + 86_400 * SECOND}")
    assert lane.started(*ids) == [True, False]
    lane.flow.clock.advance(60)
    assert lane.started(ids[1]) == [True]


def test_a_trial_of_an_open_circuit_counts_towards_the_rate(rated):
    """A trial starts only if the rate allows it, and the next attempt waits for it."""
    lane = rated("1/h", retry=Retry())
    ids = [lane.take(number) for number in range(2)]
    now = lane.flow.clock.now()
    lane.flow.sql(f"UPDATE handlers SET paused_at = {now}, circuit_opened_at = {now}, circuit_retry_at = {now}")
    queued, claimed = lane.ledger.claim_trial_delivery(TrialDelivery("p:h", now + 60 * SECOND))
    assert claimed.attempt == 1
    assert lane.ledger_steps.settle(queued, 1, OutcomeKind.FAILED, State.WAITING, now)
    lane.flow.clock.advance(60)
    assert lane.ledger.claim_trial_delivery(TrialDelivery("p:h", now + 120 * SECOND)) is None
    assert lane.ledger.open_circuits()["p:h"].retry_at == now + 60 * SECOND  # it is due until it starts
    lane.flow.sql("UPDATE handlers SET paused_at = NULL, circuit_opened_at = NULL, circuit_retry_at = NULL")
    assert lane.started(ids[1]) == [False]
    lane.flow.clock.advance(3600)
    assert lane.started(ids[1]) == [True]
