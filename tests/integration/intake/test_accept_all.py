"""Accepting the callbacks of one request: stored all or none, answered without a wait, safe to repeat."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import Retry
from flowhooks.clock import SECOND
from flowhooks.errors import IdentityConflict, InvalidCallback, Unauthorized, Unavailable
from flowhooks.intake.accept import REVIVE_COOLDOWN
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.context import Actor
from flowhooks.operations.purge import purge
from support.app_harness import TRACEPARENT, ingress_callback
from support.waiting import until


def ignored(flow, rule="/status = 1"):
    """An ignored request."""
    return IgnoredRequestRecord("oa", rule, "{}", None, flow.clock.now())


def statuses(answers):
    """The statuses of answers; `None` for a conflict."""
    return [None if isinstance(answer, IdentityConflict) else answer.status for answer in answers]


def test_each_callback_of_a_request_gets_its_answer_in_order(harness, listens):
    """Each callback gets its answer in order: new, repeated, conflicting, parked, dead; the ignored part is counted."""

    def fail(event):
        raise ValueError

    flow = harness.open(listens(lambda event: None, name="done"), listens(fail, name="fails", process_key="fail"))
    done = flow.take("i1", source="oa")
    flow.take("i2", source="oa")
    dead = flow.take("i3", key="fail", source="oa")
    assert dead.status == "dead"
    answers = flow.app.intake.accept_all(
        [
            ingress_callback("i1"),
            ingress_callback("i2", other=1),
            ingress_callback("i3", key="fail"),
            ingress_callback("i4", key="nobody"),
            ingress_callback("i5"),
            ingress_callback("i5"),
        ],
        [ignored(flow)],
    )
    assert statuses(answers) == ["done", None, "dead", "parked", "pending", "pending"]
    assert answers[0].event_id == done.event_id
    assert answers[3].parked_by == "handler"
    assert [status.handler for status in answers[4].delivery_statuses] == ["p:done"]
    assert answers[5].event_id == answers[4].event_id
    assert flow.app.ledger.ignored_counts() == {("oa", "/status = 1"): 1}
    (stored,) = flow.sql("SELECT origin, raw_body, media_type, traceparent FROM events WHERE flow_instance_id = 'i5'")
    given = ingress_callback("i5")
    assert stored == ("ingress", given.raw_body, given.media_type, TRACEPARENT)


def test_dead_deliveries_of_repeated_callbacks_run_again(harness, listens):
    """A repeated request retries the dead deliveries of all its events, as a repeated callback does."""
    errors = [ValueError("no"), ValueError("no")]

    def fail_twice(event):
        if errors:
            raise errors.pop()

    flow = harness.open(listens(fail_twice, name="h", retry=Retry(attempts=1)))
    given = [ingress_callback("i1"), ingress_callback("i2")]
    flow.app.intake.accept_all(given)
    until(lambda: statuses(flow.app.intake.accept_all(given)) == ["dead", "dead"])
    flow.clock.advance(REVIVE_COOLDOWN / SECOND)
    assert {*statuses(flow.app.intake.accept_all([*given, ingress_callback("i1")]))} <= {"pending", "done"}
    until(lambda: statuses(flow.app.intake.accept_all(given)) == ["done", "done"])


def test_repeated_callbacks_of_purged_events(harness, listens):
    """A repeated callback whose event was purged is done; one with other data is a conflict of a purged event."""
    flow = harness.open(listens(lambda event: None, name="h"))
    purged = flow.take("i1", source="oa").event_id
    flow.clock.advance(86_400)
    by = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    purge(by, EventFilter(ids=(purged,), until=flow.clock.now()))
    repeated, other = flow.app.intake.accept_all([ingress_callback("i1"), ingress_callback("i1", other=1)])
    assert (repeated.event_id, repeated.status) == (purged, "done")
    assert isinstance(other, IdentityConflict)
    assert flow.events() == []
    assert flow.app.intake.accept_all([]) == []


@pytest.mark.parametrize("place", [0, 1])
def test_one_rejected_callback_rejects_the_whole_request(harness, listens, place):
    """If one of the callbacks is rejected, nothing is stored or counted."""
    flow = harness.open(listens(lambda event: None, name="h"), routing={"no_handler": "reject"})
    given = [ingress_callback("i1")]
    given.insert(place, ingress_callback("i2", key="nobody"))
    with pytest.raises(InvalidCallback):
        flow.app.intake.accept_all(given, [ignored(flow)])
    assert flow.events() == []
    assert flow.app.ledger.ignored_counts() == {}


def test_a_reused_webhook_id_is_rejected(harness, logged):
    """A request whose id was used for another body is refused; the same body is accepted again."""
    flow = harness.open()
    first, other = (
        [ingress_callback(name)._replace(webhook_id="m1", webhook_digest=digest * 64) for name in names]
        for names, digest in ((("i1", "i2"), "a"), (("i3", "i4"), "b"))
    )
    assert statuses(flow.app.intake.accept_all(first)) == ["parked", "parked"]
    assert statuses(flow.app.intake.accept_all(first)) == ["parked", "parked"]
    with pytest.raises(Unauthorized):
        flow.app.intake.accept_all(other, [ignored(flow)])
    assert len(flow.events()) == 2
    assert flow.app.ledger.ignored_counts() == {}


def test_a_request_that_repeats_a_damaged_event_stores_nothing(harness, listens, logged):
    """A request that repeats an unreadable event is answered 503, is logged, and stores nothing."""
    flow = harness.open(listens(lambda event: None, name="h"))
    damaged = flow.take("i1", source="oa")
    flow.sql("UPDATE deliveries SET state = 'x'")
    with pytest.raises(Unavailable):
        flow.app.intake.accept_all([ingress_callback("i2"), ingress_callback("i1")], [ignored(flow)])
    assert flow.events() == [damaged.event_id]
    assert flow.app.ledger.ignored_counts() == {}
    (record,) = (entry for entry in logged if entry["event"] == "event_damaged")
    assert record["event_id"] == damaged.event_id
    flow.sql("UPDATE deliveries SET state = 'succeeded'")


def test_requests_are_rejected_while_draining(harness):
    """Nothing is accepted during a shutdown."""
    flow = harness.open()
    flow.app.intake.drain()
    with pytest.raises(Unavailable):
        flow.app.intake.accept_all([ingress_callback("i1")], [ignored(flow)])
    assert flow.events() == []
