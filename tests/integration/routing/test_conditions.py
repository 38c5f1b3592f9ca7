"""Conclusions and conditions from the callback to the attempt, on each database and with each runner."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import update

from flowhooks import AlertCause, Reject, Retry, State
from flowhooks.errors import IdentityConflict, InvalidCallback, NewerSelectorsError, NotFound, Unavailable
from flowhooks.ledger import conclusions, routing_issues
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.tables import handlers
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.operations.parked import count_deliverable
from flowhooks.operations.reroute import reroute, reroute_parked
from flowhooks.operations.resolve import Resolution, resolve
from flowhooks.settings import Source
from support.routing_table import TABLE

pytestmark = pytest.mark.runners


@pytest.fixture
def runs():
    """(handler, instance) of each run of a handler's function, in order."""
    return []


@pytest.fixture
def noted(listens, runs):
    """A function that makes a handler that records its runs."""

    def make(name="book", error=None, **given):
        def function(event):
            runs.append((name, event.flow_instance_id))
            if error is not None:
                raise error

        return listens(function, name=name, **given)

    return make


def facts(flow, event_id):
    """An event's state, the reason it is parked or dismissed, and the handlers of its route."""
    stored = flow.app.ledger.event(event_id)
    return stored.state, stored.parked_by, stored.dismissed_by, sorted(stored.route)


def alerts_of(flow):
    """(cause, subject) of the alerts that a check finds."""
    flow.app.alerts.poll()
    return [
        (cause, subject) for cause, subject in flow.sql("SELECT cause, subject FROM alerts ORDER BY cause, subject")
    ]


def test_only_approved_processes_run_the_handler(harness, noted, runs):
    """Approved runs, rejected is answered 200 and dismissed, a missing conclusion parks and names the member."""
    flow = harness.open(noted(conclusion="approved"))
    approved = flow.take("a", conclusion="approved")
    rejected = flow.take("r", conclusion="rejected")
    missing = flow.take("m")
    empty = flow.take("e", conclusion="")
    assert [answer.status.value for answer in (approved, rejected, missing, empty)] == [
        "done",
        "done",
        "parked",
        "parked",
    ]
    assert [(answer.parked_by, answer.undecided) for answer in (missing, empty)] == [("condition", "conclusion")] * 2
    assert facts(flow, approved.event_id) == ("routed", None, None, ["p:book"])
    assert facts(flow, rejected.event_id) == ("dismissed", None, "condition", [])
    assert facts(flow, missing.event_id) == ("parked", "condition", None, [])
    assert runs == [("book", "a")]
    reasons = [flow.app.ledger.event(answer.event_id).no_match for answer in (approved, rejected, missing)]
    assert reasons[0] is None
    assert reasons[1] == ({"p:book": "conclusion 'rejected' is not one of approved"}, 1)
    assert reasons[2] == ({"p:book": "no conclusion, but the handler requires one of approved"}, 1)
    assert flow.app.ledger.event(rejected.event_id).event.conclusion == "rejected"


EVERY = {
    "unconditional": {"source": "audited"},
    "true": {"every": "yes"},
    "false": {"every": "no"},
    "undecided": {},
}
"""Members of an event for the conditions of handlers of every event; its state does not depend on them."""


def test_every_row_of_the_routing_table(harness, noted):
    """Each row is stored as the router decides it, and `every` handlers beside it only add their deliveries."""
    handlers = [
        noted(f"{kind}-{name}", every=True, kind=kind, **selected)
        for kind in ("complete", "cancel")
        for name, selected in (("always", {"source": "audited"}), ("flagged", {"when": {"/every": "yes"}}))
    ]
    for number, (_, candidates, _, _) in enumerate(TABLE):
        for place, selectors in enumerate(candidates):
            names = {"conclusions": "conclusion", "sources": "source"}
            given = {"process_key": f"k{number}"} | {names.get(name, name): value for name, value in selectors.items()}
            handlers.append(noted(f"{number}-{place}", **given))
    flow = harness.open(*handlers, start=False)
    for number, (row, _, event, (state, reason, undecided, matching)) in enumerate(TABLE):
        kind = event.get("kind", "complete")
        for every, brought in EVERY.items():
            body = {"key": f"k{number}"} | event.get("data", {}) | event | brought
            body.pop("data", None)
            answer = flow.take(f"{number}-{every}", wait=0, **body)
            reasons = (reason, None) if state == "parked" else (None, reason)
            added = {"unconditional": [f"p:{kind}-always"], "true": [f"p:{kind}-flagged"]}.get(every, [])
            expected = (state, *reasons, sorted([*(f"p:{number}-{place}" for place in matching), *added]))
            assert facts(flow, answer.event_id) == expected, (row, every)
            if state == "parked":
                assert (answer.status, answer.undecided) == ("parked", undecided), (row, every)


def test_a_failing_every_handler_decides_the_answer(harness, noted, runs):
    """A dismissed event whose `every` handler fails gets that answer, and stays dismissed."""
    flow = harness.open(noted(conclusion="approved"), noted("audit", every=True, error=Reject("no")))
    answer = flow.take("r", conclusion="rejected")
    assert answer.status == "dead"
    assert facts(flow, answer.event_id) == ("dismissed", None, "condition", ["p:audit"])
    assert runs == [("audit", "r")]


def test_repeats_get_the_same_answer(harness, noted, runs):
    """A repeated callback changes nothing, whatever the state of the first one."""
    flow = harness.open(noted(conclusion="approved"))
    for instance, sent in (("a", {"conclusion": "approved"}), ("r", {"conclusion": "rejected"}), ("m", {})):
        first, again = flow.take(instance, **sent), flow.take(instance, **sent)
        assert (again.status, again.event_id, again.undecided) == (first.status, first.event_id, first.undecided)
    assert runs == [("book", "a")]


@pytest.mark.parametrize(
    "other",
    [{"conclusion": "rejected"}, {"businessKey": "c"}, {"processDefinitionVersion": 2}],
    ids=["conclusion", "business key", "version"],
)
def test_another_conclusion_version_or_business_key_is_a_conflict(harness, noted, runs, other):
    """The conflict is stored with its body and raises an alert at once, even for ignored members."""
    ignored = {"ignore_pointers": ("/conclusion", "/businessKey", "/processDefinitionVersion")}
    flow = harness.open(noted(conclusion="approved"), identity=ignored)
    body = {"conclusion": "approved", "businessKey": "b", "processDefinitionVersion": 1}
    event_id = flow.take("a", **body).event_id
    with pytest.raises(IdentityConflict):
        flow.take("a", **(body | other))
    (kept,) = [conflict.body for conflict in flow.app.ledger.conflicts(event_id)]
    assert json.loads(kept) == body | other | {"processDefinitionKey": "leave"}
    assert alerts_of(flow) == [("conflict", "default")]
    assert runs == [("book", "a")]
    flow.clock.advance(2 * 86_400)
    flow.app.alerts.poll()
    flow.app.alerts.poll()
    assert flow.sql("SELECT count(*) FROM alerts WHERE closed_at IS NULL") == [(0,)]


def test_conclusions_of_a_source_are_mapped(harness, noted, runs):
    """The source's table maps its conclusions; the original one stays in the event's data."""
    source = Source(token_sha256=("0" * 64,), conclusion={"agree": "approved", "refuse": "rejected"})
    flow = harness.open(noted(conclusion="approved"), sources={"oa": source})
    agreed = flow.take("a", source="oa", conclusion="agree").event_id
    assert facts(flow, flow.take("r", source="oa", conclusion="refuse").event_id)[2] == "condition"
    event = flow.app.ledger.event(agreed).event
    assert (event.conclusion, event.data["conclusion"]) == ("approved", "agree")
    assert runs == [("book", "a")]


def test_installation_of_two_handlers_in_sequence(harness, noted, runs):
    """Handlers for approved, then for rejected: an installation delivers parked events, but no dismissed ones."""
    flow = harness.open()
    waited = {
        conclusion: flow.take(conclusion, conclusion=conclusion or "").event_id
        for conclusion in ("approved", "rejected", "")
    }
    flow.close()

    flow = harness.open(noted("a", conclusion="approved"))
    flow.settled(waited["approved"], State.SUCCEEDED)
    assert facts(flow, waited["rejected"]) == ("dismissed", None, "condition", [])
    assert facts(flow, waited[""]) == ("parked", "condition", None, [])
    later = flow.take("later", conclusion="rejected").event_id
    flow.close()

    flow = harness.open(noted("a", conclusion="approved"), noted("b", conclusion="rejected"))
    assert reroute_parked(flow.app.operation_context).delivered == 0
    for event_id in (waited["rejected"], later):
        assert facts(flow, event_id) == ("dismissed", None, "condition", [])
    assert facts(flow, waited[""])[:2] == ("parked", "condition")
    assert runs == [("a", "approved")]

    asked = reroute(flow.app.operation_context, EventFilter(state="dismissed"), handler="p:b", dry_run=True)
    assert (asked.events, asked.delivered, asked.deliveries) == (2, 2, 2)
    done = reroute(flow.app.operation_context, EventFilter(), handler="p:b")
    assert (done.delivered, done.deliveries, done.skipped) == (2, 2, 2)
    for event_id in (waited["rejected"], later):
        flow.settled(event_id, State.SUCCEEDED)
        assert facts(flow, event_id) == ("routed", None, None, ["p:b"])
    assert sorted(runs) == [("a", "approved"), ("b", "later"), ("b", "rejected")]


def test_a_reroute_for_one_handler_adds_no_other_delivery(harness, noted, runs):
    """Other matching handlers get no deliveries."""
    flow = harness.open()
    event_id = flow.take("i", conclusion="approved").event_id
    flow.close()
    flow = harness.open(noted("a", conclusion="approved"), noted("b", conclusion="approved"), start=False)
    reroute(flow.app.operation_context, EventFilter(), handler="p:b")
    assert facts(flow, event_id) == ("routed", None, None, ["p:b"])
    with pytest.raises(NotFound, match="there is no handler p:none"):
        reroute(flow.app.operation_context, EventFilter(), handler="p:none")


def test_parked_events_are_routed_by_their_own_bodies(harness, noted, runs):
    """If conditions read the data, events of one group get different routes."""
    flow = harness.open()
    ids = {amount: flow.take(f"i{amount}", amount=amount).event_id for amount in (10, 2000, "much")}
    flow.close()
    flow = harness.open(noted(when={"/amount": {"minimum": 1000}}), start=False)
    assert count_deliverable(flow.app.operation_context) == 3
    done = reroute_parked(flow.app.operation_context)
    assert (done.events, done.delivered, done.dismissed) == (3, 1, 1)
    assert [facts(flow, ids[amount])[:3] for amount in ids] == [
        ("dismissed", None, "condition"),
        ("routed", None, None),
        ("parked", "condition", None),
    ]
    assert reroute_parked(flow.app.operation_context).delivered == 0


def test_kinds_without_a_handler_are_dismissed(harness, noted, runs):
    """A cancelled process whose completion has a handler is answered 200, and no installation delivers it."""
    flow = harness.open(noted(conclusion="approved"))
    answer = flow.take("c", kind="cancel")
    assert answer.status == "done"
    assert facts(flow, answer.event_id) == ("dismissed", None, "kind", [])
    flow.close()
    flow = harness.open(noted(conclusion="approved"), noted("undo", kind="cancel"))
    reroute_parked(flow.app.operation_context)
    assert facts(flow, answer.event_id) == ("dismissed", None, "kind", [])
    assert runs == []


def waits_for_its_plugin(harness, noted, *instances, **given):
    """The ids of events by conclusion whose deliveries wait while their plugin is replaced."""
    flow = harness.open(noted(**given), start=False)
    ids = {instance: flow.take(instance, conclusion=instance, wait=0).event_id for instance in instances}
    harness.crash(flow)
    return ids


def test_conditions_are_checked_again_before_an_attempt(harness, noted, runs):
    """A new version's conditions close false deliveries, run true ones, and keep undecided ones."""
    ids = waits_for_its_plugin(harness, noted, "approved", "rejected", "")
    flow = harness.open(noted(conclusion="approved"))
    flow.settled(ids["approved"], State.SUCCEEDED)
    closed = flow.settled(ids["rejected"], State.CLOSED)
    assert closed.comment == ("not run: the handler's condition is false: conclusion 'rejected' is not one of approved")
    assert (closed.attempt, flow.app.ledger.attempts(closed.delivery_id)) == (0, ())
    undecided = flow.until_undecided(ids[""])
    assert undecided.comment.startswith("not run: the handler's condition cannot be decided: no conclusion")
    assert (undecided.state, undecided.due_at, undecided.attempt) == (State.WAITING, None, 0)
    assert ("condition", "p:book") in alerts_of(flow)
    assert runs == [("book", "approved")]
    flow.close()

    flow = harness.open(noted())
    flow.settled(ids[""], State.SUCCEEDED)
    assert flow.only(ids["rejected"]).state is State.CLOSED
    assert runs == [("book", "approved"), ("book", "")]


def test_conditions_are_checked_again_before_a_retry(harness, noted, runs):
    """A retry and a replay are checked against the conditions of the new version."""
    failing = noted(error=OSError("down"), retry=Retry(delays=(5,), jitter=0))
    flow = harness.open(failing)
    event_id = flow.take("i", conclusion="rejected", wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.close()
    flow = harness.open(noted(conclusion="approved", retry=Retry(delays=(5,), jitter=0)))
    flow.advance(10)
    closed = flow.settled(event_id, State.CLOSED)
    assert closed.attempt == 1
    assert runs == [("book", "i")]


def test_a_claimed_attempt_with_a_false_condition_is_closed(harness, noted, runs):
    """An attempt that its runner has already claimed, such as a trial, is closed in the same way."""
    ids = waits_for_its_plugin(harness, noted, "rejected", "")
    flow = harness.open(noted(conclusion="approved"), start=False)
    for instance, state in (("rejected", State.CLOSED), ("", State.WAITING)):
        delivery_status = flow.only(ids[instance])
        queued = ReadyDelivery(delivery_status.delivery_id, delivery_status.handler, delivery_status.attempt)
        claimed = flow.app.ledger.claim(queued)
        flow.app.dispatcher.execute(queued, claimed)
        after = flow.settled(ids[instance], state)  # the result is recorded in the background
        assert (after.attempt, after.due_at) == (1, None)
        assert after.error.startswith("not run: the handler's condition")
    assert runs == []


def test_a_closed_delivery_does_not_block_the_next_of_its_key(harness, noted, runs):
    """In an ordered group, a delivery closed by its condition does not block the next one."""
    flow = harness.open(noted(order_by="business_key"), start=False)
    first = flow.take("1", conclusion="rejected", businessKey="b", wait=0).event_id
    second = flow.take("2", conclusion="approved", businessKey="b", wait=0).event_id
    harness.crash(flow)
    flow = harness.open(noted(order_by="business_key", conclusion="approved"))
    flow.settled(first, State.CLOSED)
    flow.settled(second, State.SUCCEEDED)
    assert runs == [("book", "2")]


def test_an_undecided_delivery_can_be_closed(harness, noted, runs):
    """An operator can close a delivery that stays undecided."""
    ids = waits_for_its_plugin(harness, noted, "")
    flow = harness.open(noted(conclusion="approved"))
    undecided = flow.until_undecided(ids[""])
    resolve(flow.app.operation_context, undecided.delivery_id, Resolution.CLOSE)
    assert flow.only(ids[""]).state is State.CLOSED
    for _ in range(2):  # the monitor may have raised an alert meanwhile; the second check closes it
        flow.app.alerts.poll()
    assert not flow.sql("SELECT id FROM alerts WHERE cause = 'condition' AND closed_at IS NULL")


def refuse(settings):
    """A hook `configure` whose plugin is quarantined."""
    raise RuntimeError("no such server")


@pytest.mark.parametrize("state", ["missing", "quarantined"])
def test_a_plugin_that_is_not_loaded_keeps_its_conditions(harness, noted, runs, make_plugin, state):
    """While its plugin is not loaded, approved events get waiting deliveries; others are dismissed or parked."""
    harness.open(noted(conclusion="approved", when={"/amount": {"minimum": 10}})).close()
    flow = harness.open(plugins={"p": make_plugin(noted(), configure=refuse)} if state == "quarantined" else {})
    assert [info.state for info in flow.app.plugins.infos if info.name == "p"] == [state] * (state == "quarantined")
    taken = flow.take("a", conclusion="approved", amount=10, wait=0)
    assert (taken.status, facts(flow, taken.event_id)[3]) == ("pending", ["p:book"])
    assert facts(flow, flow.take("s", conclusion="approved", amount=9).event_id)[2] == "condition"
    assert facts(flow, flow.take("r", conclusion="rejected").event_id)[2] == "condition"
    assert facts(flow, flow.take("m", amount=10).event_id)[1] == "condition"
    flow.close()
    flow = harness.open(noted(conclusion="approved", when={"/amount": {"minimum": 10}}))
    flow.settled(taken.event_id, State.SUCCEEDED)
    assert runs == [("book", "a")]


def newer(flow, handler="p:book"):
    """Register a handler as a newer flowhooks does."""
    with_format = json.dumps({"format": 99})
    flow.app.ledger.write(
        lambda transaction: transaction.connection.execute(
            update(handlers).where(handlers.c.id == handler).values(selectors=with_format)
        )
    )


def test_a_handler_stored_by_a_newer_version_stops_routing(harness, noted, runs):
    """The process is not ready, accepts nothing and delivers no parked event, until it can read the handler."""
    flow = harness.open(noted(conclusion="approved"))
    parked = flow.take("p", key="other").event_id
    newer(flow)
    flow.close()
    flow = harness.open()
    assert any("newer version of flowhooks" in problem for problem in flow.app.readiness_problems())
    with pytest.raises(Unavailable) as refused:
        flow.take("i", conclusion="approved")
    assert refused.value.key == "newer_handlers"
    assert flow.events() == [parked]
    with pytest.raises(NewerSelectorsError):
        reroute_parked(flow.app.operation_context, after="0")
    flow.close()
    flow = harness.open(noted(conclusion="approved"))
    assert flow.app.readiness_problems() == []
    assert flow.take("i", conclusion="approved").status == "done"


def test_unknown_conclusions_raise_one_alert_each(harness, noted, logged):
    """Each unknown conclusion is recorded once with similar names; a setting silences known ones."""
    flow = harness.open(noted(conclusion="approved"), routing={"ignore_conclusions": ("rejected",)})
    for number in range(3):
        flow.take(f"u{number}", conclusion="Approved")
        flow.take(f"r{number}", conclusion="rejected")
    assert alerts_of(flow) == [("conclusion", "conclusion 'Approved' of key leave")]
    message, last_error = flow.sql("SELECT message, last_error FROM alerts")[0]
    assert last_error == ""
    assert "conclusion 'approved' differs only in case or white space" in message
    assert flow.sql("SELECT count(*) FROM conclusions") == [(2,)]
    flow.close()
    flow = harness.open(noted(conclusion=["approved", "Approved"]), routing={"ignore_conclusions": ("rejected",)})
    flow.app.alerts.poll()
    flow.app.alerts.poll()
    assert flow.sql("SELECT count(*) FROM alerts WHERE closed_at IS NULL") == [(0,)]


def test_the_number_of_recorded_unknown_conclusions_is_limited(harness, noted, monkeypatch):
    """The number of recorded conclusions is limited, against engines that send free text."""
    monkeypatch.setattr(conclusions, "MAX_RECORDED", 3)
    flow = harness.open(noted(conclusion="approved"))
    for number in range(6):
        flow.take(f"u{number}", conclusion=f"text {number}")
    assert flow.sql("SELECT count(*) FROM conclusions") == [(3,)]


@pytest.mark.sqlite
def test_an_unknown_conclusion_is_recorded_with_its_first_event(harness, noted):
    """It is also if one transaction stores several events with it."""
    flow = harness.open(noted(conclusion="approved"))
    ids = [flow.take(f"u{number}", conclusion="Approved").event_id for number in range(2)]
    events = [flow.app.ledger.event(event_id).event for event_id in ids]
    flow.sql("DELETE FROM conclusions")
    flow.app.ledger.write(lambda transaction: conclusions.UnknownConclusions().record(transaction, events, 1))
    assert flow.sql("SELECT event_id FROM conclusions") == [(ids[0],)]
    flow.sql("UPDATE conclusions SET seen_at = ?", flow.clock.now())


def test_undecided_events_raise_an_alert_at_once(harness, noted):
    """Parked and partly delivered events raise an alert, which names the missing member."""
    flow = harness.open(noted("a", when={"/amount": {"minimum": 1}}), noted("b", process_key="other", conclusion="x"))
    flow.take("i1")
    flow.take("i2")
    assert alerts_of(flow) == [("condition", "key leave")]
    ((count, message),) = flow.sql("SELECT count, message FROM alerts")
    assert count == 2
    assert '/amount is absent, but the condition {"minimum": 1} needs it' in message


def test_an_undecided_handler_beside_one_that_runs_raises_an_alert(harness, noted, runs):
    """The event is routed and answered, and its reasons are stored; the alert is closed after a day."""
    flow = harness.open(noted("all"), noted("approved", conclusion="approved"))
    answer = flow.take("i")
    assert answer.status == "done"
    assert flow.app.ledger.event(answer.event_id).no_match.reasons == {
        "p:approved": "no conclusion, but the handler requires one of approved"
    }
    assert alerts_of(flow) == [(AlertCause.CONDITION.value, "key leave")]
    ((stored,),) = flow.sql("SELECT no_match FROM events")
    flow.sql("UPDATE events SET no_match = ?", '{"reasonz": {}, "total": 1}')
    with flow.app.ledger.connection() as connection:
        assert [found.why for found in routing_issues.undecided(connection, since=0)] == ["no reason is stored"]
    flow.sql("UPDATE events SET no_match = ?", stored)
    flow.clock.advance(2 * 86_400)
    flow.app.alerts.poll()
    flow.app.alerts.poll()
    assert flow.sql("SELECT count(*) FROM alerts WHERE closed_at IS NULL") == [(0,)]


def test_an_event_without_class_and_key_raises_an_alert_at_once(harness, noted):
    """The alert does not wait an hour, because no handler can ever match the event."""
    flow = harness.open(noted())
    answer = flow.take("i", key=None, code=7)
    assert (answer.status, answer.parked_by) == ("parked", "name")
    assert alerts_of(flow) == [("parked", "neither class nor key")]
    assert flow.take("j", key="unknown").parked_by == "handler"
    assert alerts_of(flow) == [("parked", "neither class nor key")]


@pytest.mark.parametrize(
    ("routing", "key", "refused"),
    [
        ({"no_name": "reject"}, None, "no_name"),
        ({"no_name": "reject"}, "unknown", None),
        ({"no_handler": "reject"}, None, None),
        ({"no_handler": "reject"}, "unknown", "no_handler"),
        ({"no_handler": "reject", "no_name": "reject"}, "leave", None),
    ],
)
def test_settings_reject_their_events_with_422(harness, noted, routing, key, refused):
    """Each setting refuses its own events with 422; an event with an undecided condition is parked."""
    flow = harness.open(noted(conclusion="approved"), routing=routing)
    if refused is None:
        assert flow.take("i", key=key).status == "parked"
        return
    with pytest.raises(InvalidCallback) as error:
        flow.take("i", key=key)
    assert error.value.key == refused
    assert flow.sql("SELECT count(*) FROM events") == [(0,)]


@pytest.mark.postgresql
def test_two_versions_in_a_cluster(harness, noted, runs):
    """Each process checks the conditions of its own version: the newer one closes what the older one accepted."""
    newest = harness.open(noted(conclusion="approved"), start=False)
    older = harness.open(noted(), start=False)
    ids = {
        conclusion: older.take(conclusion, conclusion=conclusion, wait=0).event_id
        for conclusion in ("approved", "rejected", "")
    }
    for event_id in ids.values():
        delivery_status = older.only(event_id)
        newest.app.dispatcher.execute(
            ReadyDelivery(delivery_status.delivery_id, delivery_status.handler, delivery_status.attempt)
        )
    newest.settled(ids["approved"], State.SUCCEEDED)
    assert newest.only(ids["rejected"]).state is State.CLOSED
    assert newest.until_undecided(ids[""]).due_at is None
    assert facts(newest, newest.take("new", conclusion="rejected", wait=0).event_id)[2] == "condition"
    assert runs == [("book", "approved")]


@pytest.mark.postgresql
def test_a_newer_version_joins_a_cluster(harness, noted, eventually):
    """A process that learns of a handler that it cannot read stops routing until it can."""
    flow = harness.open()
    newest = harness.open(noted(conclusion="approved"))
    eventually(lambda: flow.app.router.explain(process_key="leave", conclusion="approved").route.handlers)
    readable = newest.sql("SELECT selectors FROM handlers")[0][0]
    newer(newest)
    newest.app.ledger.write(lambda transaction: setattr(transaction.notice, "handlers", True))
    eventually(lambda: flow.app.router.unreadable_handlers)
    with pytest.raises(Unavailable):
        flow.take("i", conclusion="approved", wait=0)
    assert flow.app.readiness_problems()
    newest.sql("UPDATE handlers SET selectors = ?", readable)
    newest.app.ledger.write(lambda transaction: setattr(transaction.notice, "handlers", True))
    eventually(lambda: not flow.app.router.unreadable_handlers)
    assert flow.take("i", conclusion="approved").status == "done"


def test_a_reroute_for_an_every_handler_changes_no_state(harness, noted, runs):
    """Only that handler gets the event, and the event stays dismissed or parked for the handlers of its key."""
    flow = harness.open(noted("book", conclusion="approved"))
    ids = {conclusion: flow.take(conclusion, conclusion=conclusion).event_id for conclusion in ("rejected", "")}
    before = {conclusion: flow.app.ledger.event(ids[conclusion]) for conclusion in ids}
    flow.close()
    flow = harness.open(noted("book", conclusion="rejected"), noted("audit", every=True), start=False)
    done = reroute(flow.app.operation_context, EventFilter(), handler="p:audit")
    assert (done.events, done.deliveries, done.skipped) == (2, 2, 0)
    assert facts(flow, ids["rejected"]) == ("dismissed", None, "condition", ["p:audit"])
    assert facts(flow, ids[""]) == ("parked", "condition", None, ["p:audit"])
    for conclusion, event_id in ids.items():
        assert flow.app.ledger.event(event_id).no_match == before[conclusion].no_match
    assert reroute(flow.app.operation_context, EventFilter(), handler="p:audit").skipped == 2
    assert reroute(flow.app.operation_context, EventFilter(), handler="p:book").delivered == 1
    assert facts(flow, ids["rejected"]) == ("routed", None, None, ["p:audit", "p:book"])


def test_the_parked_reason_names_an_undecided_handler(harness, noted, runs):
    """A handler with an undecided condition is named, even if it matches no parked event."""
    flow = harness.open()
    event_id = flow.take("i").event_id
    assert facts(flow, event_id) == ("parked", "handler", None, [])
    flow.close()
    flow = harness.open(noted(conclusion="approved"), start=False)
    done = reroute_parked(flow.app.operation_context)
    assert (done.delivered, done.deliveries) == (0, 0)
    assert facts(flow, event_id) == ("parked", "condition", None, [])
    assert list(flow.app.ledger.event(event_id).no_match.reasons) == ["p:book"]
    assert reroute_parked(flow.app.operation_context).events == 0
