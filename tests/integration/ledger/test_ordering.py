"""Order keys: an ordered handler runs one delivery of a key at a time, in order; a limited handler runs a few."""

from __future__ import annotations

import threading

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.ledger import ordering
from flowhooks.ledger.circuit_state import TrialDelivery
from flowhooks.ledger.consistency import verify
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.stats import backlog
from flowhooks.model.ready_delivery import LimitReached, ReadyDelivery
from flowhooks.operations.pause import pause
from flowhooks.operations.resolve import Resolution, resolve
from support.run_bulk import replay
from support.waiting import WAIT_TIMEOUT


def nothing(event):
    """Do nothing."""


class Lane:
    """A ledger without a runner, and an ordered handler."""

    def __init__(self, flow, ledger_steps):
        self.flow = flow
        self.ledger_steps = ledger_steps
        self.ledger = flow.app.ledger

    def take(self, instance, key="k"):
        """Store a callback; return its delivery as a runner would read it."""
        body = {} if key is None else {"businessKey": key}
        event_id = self.flow.take(instance, wait=0, **body).event_id
        return self.queued(self.flow.only(event_id).delivery_id)

    def queued(self, delivery_id):
        """A delivery as a runner would read it now."""
        delivery_status = self.ledger.delivery(delivery_id)[1]
        return ReadyDelivery(
            delivery_id, delivery_status.handler, delivery_status.attempt, ordered=delivery_status.ordered
        )

    def due(self):
        """The ids of the due deliveries that polling returns."""
        return [
            delivery.delivery_id
            for delivery in self.ledger.due_deliveries(self.flow.clock.now(), lambda _handler: 1000)
        ]

    def flow_filter(self, queued):
        """A filter for the event of a delivery."""
        return EventFilter(ids=(self.ledger.delivery(queued.delivery_id)[0].id,))

    def state(self, queued):
        """The state of a delivery."""
        return self.ledger.delivery(queued.delivery_id)[1].state

    def due_at(self, queued):
        """From when a delivery may run."""
        return self.ledger.delivery(queued.delivery_id)[1].due_at

    def begin(self, queued):
        """Start an attempt, which must be possible."""
        claimed = self.ledger.claim(self.queued(queued.delivery_id))
        assert claimed, "it was not its turn"
        return claimed

    def end(self, queued, outcome=OutcomeKind.SUCCEEDED, target=State.SUCCEEDED, due_at=None):
        """Start an attempt and record its outcome."""
        claimed = self.begin(queued)
        assert self.ledger_steps.settle(queued, claimed.attempt, outcome, target, due_at)


@pytest.fixture
def ordered(listens):
    """An ordered handler."""
    return listens(nothing, name="h", order_by="business_key", retry=Retry(jitter=0))


@pytest.fixture
def lane(harness, ordered, ledger_steps_of):
    """A ledger without a runner, with an ordered handler."""
    flow = harness.open(ordered, start=False)
    return Lane(flow, ledger_steps_of(flow))


def test_polling_returns_only_the_first_delivery_of_a_key(lane):
    """Polling returns only the first delivery of a key; other keys are independent."""
    first, second, other = lane.take("1"), lane.take("2"), lane.take("3", "other")
    assert sorted(lane.due()) == sorted([first.delivery_id, other.delivery_id])
    lane.begin(first)
    assert lane.due() == [other.delivery_id]
    assert lane.ledger_steps.settle(first, 1)
    assert sorted(lane.due()) == sorted([second.delivery_id, other.delivery_id])


@pytest.mark.sqlite
@pytest.mark.parametrize("stored", ["x", 2**63 - 1])
def test_callbacks_behind_a_damaged_position_are_stored(lane, stored):
    """They are answered, and their deliveries are blocked by the first one of the key."""
    lane.take("1"), lane.take("2")
    lane.flow.sql("UPDATE deliveries SET order_position = ? WHERE order_position = 1", stored)
    later = lane.take("3")
    assert lane.ledger.claim(later) is None
    assert lane.flow.sql("SELECT order_position FROM deliveries WHERE id = ?", later.delivery_id) == [(1,)]


@pytest.mark.sqlite
def test_a_damaged_due_time_does_not_prevent_storing_outcomes(lane):
    """The next delivery of the key waits until its time has been corrected."""
    first, second = lane.take("1"), lane.take("2")
    lane.flow.sql("UPDATE deliveries SET due_at = 'x' WHERE id = ?", second.delivery_id)
    lane.end(first)
    assert lane.state(first) is State.SUCCEEDED
    assert lane.due() == []
    assert lane.ledger.write(lane.ledger.correct_due_times) == 1
    assert lane.due() == [second.delivery_id]


@pytest.mark.parametrize("ordered_", [True, False])
def test_a_blocked_delivery_cannot_be_claimed(lane, ordered_):
    """A blocked delivery cannot be claimed while the first waits or runs; a refused claim changes nothing."""
    first, second = lane.take("1"), lane.take("2")
    asked = second._replace(ordered=ordered_)
    before = lane.flow.sql("SELECT * FROM deliveries ORDER BY id")
    assert lane.ledger.claim(asked) is None
    assert lane.flow.sql("SELECT * FROM deliveries ORDER BY id") == before
    lane.begin(first)
    assert lane.ledger.claim(asked) is None


def test_concurrent_claims_start_only_the_first_delivery_of_each_key(lane, eventually):
    """Of concurrent claims only the first delivery of each key starts, also in one batch in any order."""
    one, two, other = lane.take("1"), lane.take("2"), lane.take("3", "other")
    lane.ledger_steps.eventually = eventually
    results = lane.ledger_steps.run_in_one_batch(
        *[lambda queued=queued: lane.ledger.claim(queued) for queued in (two, one, other)]
    )
    assert [bool(result) for result in results] == [False, True, True]


def test_deliveries_of_one_batch_start_in_order(lane, eventually):
    """Deliveries of one batch start in the order of their callbacks, whatever their flow instances."""
    lane.ledger_steps.eventually = eventually
    instances = ["z", "a", "m", "b", "y"]
    takes = [lambda instance=instance: lane.flow.take(instance, wait=0, businessKey="k") for instance in instances]
    lane.ledger_steps.run_in_one_batch(*takes)
    ran = []
    while due := lane.due():
        (queued,) = [lane.queued(delivery_id) for delivery_id in due]
        ran.append(lane.ledger.delivery(queued.delivery_id)[0].flow_instance_id)
        lane.end(queued)
    assert ran == instances


def test_deliveries_that_end_together_release_the_next_of_each_key(lane, eventually):
    """If deliveries of several keys end in one transaction, the next of each key can start."""
    several = [[lane.take(f"{key}-{number}", key) for number in range(2)] for key in "abc"]
    for first, _ in several:
        lane.begin(first)
    lane.ledger_steps.eventually = eventually
    assert all(
        lane.ledger_steps.run_in_one_batch(
            *[lambda delivery=first: lane.ledger_steps.settle(delivery, 1) for first, _ in several]
        )
    )
    assert sorted(lane.due()) == sorted(second.delivery_id for _, second in several)


@pytest.mark.parametrize(
    ("outcome", "target"),
    [
        (OutcomeKind.SUCCEEDED, State.SUCCEEDED),
        (OutcomeKind.FAILED, State.DEAD),
        (OutcomeKind.REJECTED, State.DEAD),
    ],
)
def test_a_finished_delivery_does_not_block_its_key(lane, outcome, target):
    """After a succeeded or dead delivery the next one can start."""
    first, second = lane.take("1"), lane.take("2")
    lane.end(first, outcome, target)
    assert lane.due() == [second.delivery_id]
    lane.begin(second)


def test_a_retrying_delivery_blocks_only_its_own_key(lane):
    """A retrying delivery blocks its key after any number of failures, and stays first."""
    first, second, other = lane.take("1"), lane.take("2"), lane.take("3", "other")
    lane.end(first, OutcomeKind.FAILED, State.WAITING, lane.flow.clock.now() + 60_000_000)
    assert lane.due() == [other.delivery_id]
    assert lane.ledger.claim(second) is None
    lane.end(other)
    lane.flow.clock.advance(61)
    assert lane.due() == [first.delivery_id]
    lane.end(first)
    assert lane.due() == [second.delivery_id]


def test_an_unknown_delivery_blocks_its_key_until_resolved(lane):
    """An *unknown* delivery blocks its key until an operator resolves it; then it or the next one runs."""
    first, second, third = lane.take("1"), lane.take("2"), lane.take("3")
    lane.end(first, OutcomeKind.LOST, State.UNKNOWN)
    assert lane.due() == []
    resolve(lane.flow.app.operation_context, first.delivery_id, Resolution.DID)
    assert lane.due() == [second.delivery_id]
    lane.end(second, OutcomeKind.LOST, State.UNKNOWN)
    resolve(lane.flow.app.operation_context, second.delivery_id, Resolution.DID_NOT)
    assert lane.due() == [second.delivery_id]
    lane.end(second)
    assert lane.due() == [third.delivery_id]


def test_closing_a_delivery_releases_the_next_of_its_key(lane):
    """After the first delivery or one between is closed, the next one runs."""
    first, second, third = lane.take("1"), lane.take("2"), lane.take("3")
    resolve(lane.flow.app.operation_context, second.delivery_id, Resolution.CLOSE)
    assert lane.due() == [first.delivery_id]
    resolve(lane.flow.app.operation_context, first.delivery_id, Resolution.CLOSE)
    assert lane.due() == [third.delivery_id]


@pytest.mark.parametrize("closed", ["blocked", "dead"])
def test_closing_another_delivery_keeps_the_due_time_of_the_first(lane, closed):
    """The first delivery of a key, which a pause delays, stays late when one behind or a dead one is closed."""
    dead = lane.take("0")
    lane.end(dead, OutcomeKind.FAILED, State.DEAD)
    first, blocked = lane.take("1"), lane.take("2")
    pause(lane.flow.app.operation_context, ["p:h"])
    before = lane.due_at(first)
    lane.flow.clock.advance(3600)
    other = {"blocked": blocked, "dead": dead}[closed]
    resolve(lane.flow.app.operation_context, other.delivery_id, Resolution.CLOSE)
    assert lane.due_at(first) == before


def test_a_delivery_is_not_late_while_it_is_blocked(lane):
    """The time of a blocked delivery starts when it is the first of its key."""
    first, second = lane.take("1"), lane.take("2")
    lane.flow.clock.advance(3600)
    lane.end(first)
    assert lane.due_at(second) == lane.flow.clock.now()


def test_events_without_the_key_are_not_ordered(lane):
    """Events without the key are not ordered."""
    several = [lane.take(str(number), key) for number, key in enumerate([None, None, ""])]
    assert sorted(lane.due()) == sorted(queued.delivery_id for queued in several)
    assert [bool(lane.begin(delivery)) for delivery in several] == [True] * 3


def test_a_replayed_delivery_runs_after_all_waiting_deliveries(lane):
    """A replayed delivery runs after all waiting ones, one at a time, with a note."""
    first, second, third = lane.take("1"), lane.take("2"), lane.take("3")
    lane.end(first, OutcomeKind.FAILED, State.DEAD)
    lane.begin(second)
    assert replay(lane.flow.app.operation_context, lane.flow_filter(first)).released == 1
    assert lane.due() == []
    assert lane.ledger_steps.settle(second, 1)
    assert lane.due() == [third.delivery_id]
    lane.end(third)
    assert lane.due() == [first.delivery_id]
    assert "out of order" in lane.ledger.delivery(first.delivery_id)[1].comment
    lane.end(first)


def test_a_replayed_delivery_runs_at_once_if_no_other_waits(lane):
    """With no waiting delivery a replayed one runs at once, and later ones run after it."""
    first = lane.take("1")
    lane.end(first, OutcomeKind.FAILED, State.DEAD)
    replay(lane.flow.app.operation_context, lane.flow_filter(first))
    assert lane.due() == [first.delivery_id]
    lane.take("2")
    assert lane.due() == [first.delivery_id]


def test_a_blocked_delivery_shows_the_event_that_blocks(lane):
    """A blocked delivery shows the event of the first delivery of its key; other deliveries show none."""
    first, second, third, other = lane.take("1"), lane.take("2"), lane.take("3"), lane.take("4", "other")
    event_id = lane.ledger.delivery(first.delivery_id)[0].id
    behind = [
        lane.ledger.delivery(ready_delivery.delivery_id)[1].blocked_by
        for ready_delivery in (first, second, third, other)
    ]
    assert behind == [None, event_id, event_id, None]
    lane.end(first)
    assert lane.ledger.delivery(second.delivery_id)[1].blocked_by is None


def test_a_lost_delivery_is_retried_before_later_deliveries(harness, ordered, ledger_steps_of):
    """A lost delivery is retried before later deliveries of its key."""
    flow = harness.open(ordered, start=False)
    lane = Lane(flow, ledger_steps_of(flow))
    first, second = lane.take("1"), lane.take("2")
    lane.begin(first)
    harness.crash(flow)
    if harness.url:
        flow.sql("UPDATE processes SET stopped_at = 1")
    again = harness.open(ordered, start=False)
    lane = Lane(again, ledger_steps_of(again))
    assert lane.state(first) is State.WAITING
    again.clock.advance(3600)
    assert lane.due() == [first.delivery_id]
    lane.end(first)
    assert lane.due() == [second.delivery_id]


def test_deliveries_of_a_missing_handler_run_in_order(harness, ordered, ledger_steps_of):
    """The ledger stores the order key of a missing handler, whose deliveries later run in order."""
    harness.open(ordered, start=False).close()
    away = harness.open(start=False)
    events = [away.take(str(number), wait=0, businessKey="k").event_id for number in range(3)]
    away.close()
    back = harness.open(ordered, start=False)
    lane = Lane(back, ledger_steps_of(back))
    for event_id in events:
        (due,) = lane.due()
        assert lane.ledger.delivery(due)[0].id == event_id
        lane.end(lane.queued(due))


def test_parked_events_are_delivered_in_order(harness, ordered, ledger_steps_of):
    """Parked events are delivered oldest first, one at a time."""
    away = harness.open(start=False)
    events = [away.take(instance, wait=0, businessKey="k").event_id for instance in ("c", "a", "b")]
    away.close()
    back = harness.open(ordered, start=False)
    back.app._parked_rerouter.run()
    lane = Lane(back, ledger_steps_of(back))
    for event_id in events:
        (due,) = lane.due()
        assert lane.ledger.delivery(due)[0].id == event_id
        lane.end(lane.queued(due))


def test_events_stored_before_a_handler_is_ordered_stay_unordered(harness, ordered, listens, ledger_steps_of):
    """When a handler becomes ordered, only later events are ordered."""
    before = harness.open(listens(nothing, name="h"), start=False)
    for number in range(2):
        before.take(f"before-{number}", wait=0, businessKey="k")
    before.close()
    after = harness.open(ordered, start=False)
    lane = Lane(after, ledger_steps_of(after))
    lane.take("1"), lane.take("2")
    assert len(lane.due()) == 3


def test_a_blocked_delivery_is_counted_as_waiting(lane):
    """A blocked delivery counts as waiting in the total and for its handler."""
    for number in range(3):
        lane.take(str(number))
    assert lane.ledger.count_by_state()["waiting"] == 3
    with lane.ledger.connection() as connection:
        assert backlog(connection)["p:h"].waiting == 3


def test_verify_reports_two_running_deliveries_of_one_key(lane, harness):
    """An order that was changed outside flowhooks is reported."""
    harness.check_at_end = False
    first, second = lane.take("1"), lane.take("2")
    lane.begin(first)
    lane.flow.sql("UPDATE deliveries SET state = 'running', attempt = 1 WHERE id = ?", second.delivery_id)
    with lane.ledger.connection() as connection:
        problems = verify(connection).problems
    assert any("runs at the same time as another" in line for line in problems)


def test_a_trial_runs_the_first_delivery_of_its_key(lane):
    """A trial prefers a delivery with few attempts, but never one that another delivery of its key blocks."""
    first, second = lane.take("1"), lane.take("2")
    now = lane.flow.clock.now()
    lane.end(first, OutcomeKind.FAILED, State.WAITING, due_at=now)
    # Two processes that accept callbacks at once both find an empty group.
    lane.flow.sql("UPDATE deliveries SET order_position = 0 WHERE id = ?", second.delivery_id)
    lane.flow.sql("UPDATE handlers SET paused_at = ?, circuit_opened_at = ?, circuit_retry_at = ?", now, now, now)
    queued, claimed = lane.ledger.claim_trial_delivery(TrialDelivery("p:h", now + 60_000_000))
    assert (queued.delivery_id, claimed.attempt) == (first.delivery_id, 2)
    assert lane.ledger.open_circuits()["p:h"].retry_at == now + 60_000_000


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_two_processes_never_start_two_deliveries_of_one_key(harness, ordered, ledger_steps_of, together):
    """Two processes claim the first and the second delivery of a key at once: one process gets the first."""
    flows = [harness.open(ordered, start=False) for _ in range(2)]
    lanes = [Lane(flow, ledger_steps_of(flow)) for flow in flows]
    for number in range(10):
        first, second = lanes[0].take(f"{number}-1"), lanes[1].take(f"{number}-2")
        results = together(
            *[
                lambda lane=lane, delivery=delivery: lane.ledger.claim(delivery)
                for lane in lanes
                for delivery in (second, first)
            ]
        )
        assert sum(bool(result) for result in results) == 1
        assert lanes[0].state(first) is State.RUNNING
        assert lanes[1].ledger_steps.settle(first, 1)
        lanes[1].end(second)


@pytest.mark.postgresql
def test_a_delivery_blocked_by_a_just_ended_delivery_is_found(harness, ordered, ledger_steps_of, eventually):
    """If neither of two transactions sees the other, the blocked delivery is found by a later check."""
    flows = [harness.open(ordered, start=False) for _ in range(2)]
    lanes = [Lane(flow, ledger_steps_of(flow)) for flow in flows]
    first = lanes[0].take("1")
    lanes[0].begin(first)
    stored, go_on = threading.Event(), threading.Event()
    finish = lanes[1].ledger._order_scheduler.promote_next

    def slowly(transaction):
        stored.set()
        assert go_on.wait(WAIT_TIMEOUT)
        finish(transaction)

    lanes[1].ledger._writer._before_last = slowly
    taking = threading.Thread(target=lanes[1].take, args=("2",))
    taking.start()
    assert stored.wait(WAIT_TIMEOUT)
    assert lanes[0].ledger_steps.settle(first, 1)
    lanes[1].ledger._writer._before_last = finish
    go_on.set()
    taking.join(WAIT_TIMEOUT)
    (second,) = eventually(lanes[0].due)
    lanes[0].end(lanes[0].queued(second))


def test_a_sweep_finds_missed_promotions(lane, monkeypatch):
    """A sweep finds all deliveries whose promotion was missed, in pages that pass over the backlog of a key."""
    monkeypatch.setattr(ordering, "PAGE_SIZE", 2)
    monkeypatch.setattr(ordering, "MAX_GROUPS", 0)  # no group is checked again
    missed, others = [lane.take(key, key) for key in "adf"], [lane.take(key, key) for key in "be"]
    blocked = [lane.take(f"{key}{number}", key) for key in "ade" for number in range(4)]
    assert len(lane.due()) == 5
    for first in missed:
        lane.flow.sql("UPDATE deliveries SET order_position = 1 WHERE id = ?", first.delivery_id)
    assert sorted(lane.due()) == sorted(first.delivery_id for first in others)
    before = lane.flow.sql("SELECT id, order_position, due_at FROM deliveries ORDER BY id")
    lane.flow.app.order_sweeper.sweep()
    assert sorted(lane.due()) == sorted(first.delivery_id for first in (*missed, *others))
    after = lane.flow.sql("SELECT id, order_position, due_at FROM deliveries ORDER BY id")
    assert len(set(after) - set(before)) == len(missed)
    assert not {first.delivery_id for first in blocked} & set(lane.due())


@pytest.fixture
def limited(harness, listens, ledger_steps_of):
    """A ledger without a runner, with a handler of which two deliveries run at once."""
    flow = harness.open(listens(nothing, name="h", concurrency=2), start=False)
    return Lane(flow, ledger_steps_of(flow))


def test_no_more_deliveries_run_than_the_concurrency_limit(limited):
    """Deliveries above the limit cannot be claimed and do not change; each end allows another one."""
    several = [limited.take(str(number), None) for number in range(4)]
    limited.begin(several[0]), limited.begin(several[1])
    assert isinstance(limited.ledger.claim(several[2]), LimitReached)
    assert limited.state(several[2]) is State.WAITING
    assert limited.ledger_steps.settle(several[0], 1)
    limited.begin(several[2])
    assert isinstance(limited.ledger.claim(several[3]), LimitReached)


def test_claims_in_one_batch_respect_the_concurrency_limit(limited, eventually):
    """Claims in one batch respect the limit."""
    several = [limited.take(str(number), None) for number in range(4)]
    limited.ledger_steps.eventually = eventually
    results = limited.ledger_steps.run_in_one_batch(
        *[lambda queued=queued: limited.ledger.claim(queued) for queued in several]
    )
    assert [isinstance(result, LimitReached) for result in results] == [False, False, True, True]


def test_ends_are_handled_before_claims_in_one_batch(limited, eventually):
    """Ended deliveries are handled first, in the order of their ends, not of their events."""
    several = [limited.take(str(number), None) for number in range(3)]
    limited.begin(several[0]), limited.begin(several[1])
    limited.ledger_steps.eventually = eventually
    claimed, settled = limited.ledger_steps.run_in_one_batch(
        lambda: limited.ledger.claim(several[2]), lambda: limited.ledger_steps.settle(several[0], 1)
    )
    assert settled
    assert claimed.attempt == 1


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_timeouts")
def test_processes_share_the_concurrency_limit(harness, listens, ledger_steps_of, together):
    """Polling returns each process a few more than the limit; together they start no more than the limit."""
    flows = [harness.open(listens(nothing, name="h", concurrency=2), start=False) for _ in range(2)]
    lanes = [Lane(flow, ledger_steps_of(flow)) for flow in flows]
    several = [lanes[number % 2].take(str(number), None) for number in range(8)]
    assert [len(lane.due()) for lane in lanes] == [6, 6]
    results = together(
        *[
            lambda queued=queued, number=number: lanes[number % 2].ledger.claim(queued)
            for number, queued in enumerate(several)
        ]
    )
    assert sum(bool(result) and not isinstance(result, LimitReached) for result in results) == 2
    assert [lane.due() for lane in lanes] == [[], []]
