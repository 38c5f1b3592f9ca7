"""Corrections: a conflicting body that an operator accepts runs the handlers once, beside the first body."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from flowhooks import State
from flowhooks.errors import IdentityConflict, InvalidTransition, NotFound, SettingsError
from flowhooks.ledger import audit
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.event import EventState
from flowhooks.operations.context import Actor
from flowhooks.operations.corrections import accept_correction
from flowhooks.operations.history import check_history
from flowhooks.operations.purge import purge
from flowhooks.operations.registry import run_operation
from flowhooks.settings import Source
from support.silent_engine import with_silent_engine


@pytest.fixture
def runs():
    """(handler, amount, corrected event or None) of each run."""
    return []


@pytest.fixture
def books(listens, runs):
    """A function that makes a handler that records its runs."""

    def make(name="books", **given):
        def function(event):
            runs.append((name, event.data.get("amount"), event.corrects))

        return listens(function, name=name, **given)

    return make


def context_of(flow):
    """The context of an operator."""
    return replace(flow.app.operation_context, by=Actor("ann", "cli"))


def conflict_with(flow, instance="i1", *, first=1, second=2, **given):
    """Send two bodies for one process; return the first event's id and the digest of the second body."""
    event_id = flow.take(instance, amount=first, **given).event_id
    with pytest.raises(IdentityConflict):
        flow.take(instance, amount=second, **given)
    return event_id, flow.app.ledger.conflicts(event_id)[-1].digest


def accept(flow, event_id, digest, note="the ERP sent the wrong sum", **given):
    """Accept a body, and let the runner see it as a server does."""
    result = accept_correction(context_of(flow), event_id, digest, note=note, **given)
    flow.app.runner.wake()
    return result


def purge_one(flow, event_id):
    """Delete one event, whatever its age."""
    assert purge(context_of(flow), EventFilter(ids=(event_id,), until=flow.clock.now())).purged == 1


def open_alerts(flow):
    """The number of callbacks of each open alert about conflicts, after enough checks to close one."""
    for _ in range(2):
        flow.app.alerts.poll()
    return [count for (count,) in flow.sql("SELECT count FROM alerts WHERE cause = 'conflict' AND closed_at IS NULL")]


@pytest.mark.either
def test_the_alert_ends_when_every_body_is_accepted(harness, books):
    """An accepted body is no conflict any more: the alert counts the others, and ends with the last one."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    with pytest.raises(IdentityConflict):
        flow.take("i1", amount=3)
    other = next(conflict.digest for conflict in flow.app.ledger.conflicts(event_id) if conflict.digest != digest)
    assert open_alerts(flow) == [2]
    accept(flow, event_id, digest)
    assert open_alerts(flow) == [1]
    accept(flow, event_id, other)
    assert open_alerts(flow) == []
    flow.take("i1", amount=2)  # a repeat of the correction
    assert open_alerts(flow) == []


def test_the_second_body_runs_its_handlers_once(harness, books, runs):
    """Both bodies stay, each delivery is of its own event, and the two events name each other."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    result = accept(flow, event_id, digest)
    assert (result.corrects, result.state, result.handlers, result.ran) == (
        event_id,
        "routed",
        ("p:books",),
        ("p:books",),
    )
    flow.settled(result.event_id, State.SUCCEEDED, attempt=1)
    assert runs == [("books", 1, None), ("books", 2, event_id)]
    first, second = flow.app.ledger.event(event_id), flow.app.ledger.event(result.event_id)
    assert [json.loads(stored_event.body)["amount"] for stored_event in (first, second)] == [1, 2]
    assert (second.event.origin, second.event.corrects, second.event.flow_instance_id) == ("correction", event_id, "i1")
    (conflict,) = flow.app.ledger.conflicts(event_id)
    assert conflict.corrected_by == result.event_id
    with flow.app.ledger.connection() as connection:
        (entry,) = audit.entries(connection, limit=9, target=event_id)
    assert (entry.action, entry.actor, entry.detail["correction"], entry.detail["note"]) == (
        "accept_correction",
        "ann",
        result.event_id,
        "the ERP sent the wrong sum",
    )
    assert flow.app.ledger.verify().problems == []


def test_repeats_of_both_bodies_are_acknowledged(harness, books, runs):
    """Each repeat counts for its own event, nothing runs again, and a third body is still a conflict."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    correction = accept(flow, event_id, digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    for amount, expected in ((1, event_id), (2, correction), (2, correction)):
        assert flow.take("i1", amount=amount).event_id == expected
    with pytest.raises(IdentityConflict) as raised:
        flow.take("i1", amount=3)
    assert raised.value.event_id == event_id
    assert [flow.app.ledger.event(stored_event_id).repeats for stored_event_id in (event_id, correction)] == [1, 2]
    assert len(runs) == 2
    assert flow.app.ledger.verify().problems == []


def test_a_body_is_accepted_once(harness, books, runs):
    """The second call names the event of the first; another body of the same process is accepted beside it."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    correction = accept(flow, event_id, digest).event_id
    with pytest.raises(InvalidTransition, match=correction):
        accept(flow, event_id, digest)
    with pytest.raises(IdentityConflict):
        flow.take("i1", amount=3)
    third = flow.app.ledger.conflicts(event_id)[-1]
    assert accept(flow, event_id, third.digest[:8]).event_id not in {event_id, correction}
    flow.is_idle()
    assert len(flow.events()) == 3


def test_concurrent_calls_accept_a_body_once(harness, books, runs, together):
    """Of several calls at the same moment, one stores the event, and the others name it."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)

    def one():
        try:
            return accept(flow, event_id, digest).event_id
        except InvalidTransition as error:
            return error

    answers = together(*[one] * 4)
    (correction,) = [answer for answer in answers if isinstance(answer, str)]
    assert all(correction in str(answer) for answer in answers)
    flow.settled(correction, State.SUCCEEDED)
    assert runs == [("books", 1, None), ("books", 2, event_id)]


@pytest.mark.either
def test_a_dry_run_changes_nothing(harness, books, listens):
    """It tells the handlers, those that ran before, and the deliveries that wait."""
    flow = harness.open(books(), listens(lambda event: 1 / 0, name="fails"))
    event_id, digest = conflict_with(flow)
    result = accept(flow, event_id, digest, note="", dry_run=True)
    assert (result.event_id, sorted(result.handlers), result.ran) == ("", ["p:books", "p:fails"], ("p:books",))
    assert flow.events() == [event_id]
    assert flow.app.ledger.conflicts(event_id)[0].corrected_by is None


@pytest.mark.either
def test_invalid_corrections_are_refused(harness, books):
    """Without a note, for another body or event, or with too short a digest."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    for arguments, error in (
        ((event_id, digest, "  "), SettingsError),
        ((event_id, digest[:7], "why"), SettingsError),
        ((event_id, "0" * 64, "why"), NotFound),
        (("none", digest, "why"), NotFound),
    ):
        with pytest.raises(error):
            accept(flow, *arguments)
    assert flow.events() == [event_id]


@pytest.mark.either
def test_waiting_deliveries_of_the_first_body_stay(harness, books, runs):
    """They are named, and nothing closes them."""
    flow = harness.open(books())
    run_operation(context_of(flow), "pause", {"handlers": ["p:books"]})
    event_id = flow.take("i1", amount=1, wait=0).event_id
    with pytest.raises(IdentityConflict):
        flow.take("i1", amount=2)
    digest = flow.app.ledger.conflicts(event_id)[0].digest
    result = accept(flow, event_id, digest)
    assert result.unfinished == (flow.only(event_id).delivery_id,)
    assert result.ran == ()
    run_operation(context_of(flow), "resume", {"handlers": ["p:books"]})
    flow.app.runner.wake()
    flow.settled(event_id, State.SUCCEEDED)
    flow.settled(result.event_id, State.SUCCEEDED)
    assert sorted(runs, key=str) == [("books", 1, None), ("books", 2, event_id)]


@pytest.mark.either
def test_the_second_body_is_routed_by_its_own_conclusion(harness, listens, runs):
    """By its own conclusion, which the settings of the source map; it may be parked, and is routed later."""
    approved = listens(lambda event: runs.append(event.conclusion), name="approved", conclusion="approved")
    flow = harness.open(approved, sources={"oa": Source(token_sha256=("0" * 64,), conclusion={"yes": "approved"})})
    event_id = flow.take("i1", source="oa", conclusion="no", wait=0).event_id
    for other in ("yes", "maybe"):
        with pytest.raises(IdentityConflict):
            flow.take("i1", source="oa", conclusion=other)
    digests = {
        json.loads(conflict.body)["conclusion"]: conflict.digest for conflict in flow.app.ledger.conflicts(event_id)
    }
    result = accept(flow, event_id, digests["yes"])
    flow.settled(result.event_id, State.SUCCEEDED)
    assert runs == ["approved"]
    assert accept(flow, event_id, digests["maybe"]).state == EventState.DISMISSED


def test_a_purge_of_either_event_keeps_both_identities(harness, books, runs):
    """Repeats of both bodies are acknowledged, whichever event was purged, and a body is not accepted again."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    correction = accept(flow, event_id, digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    flow.advance(86_400)
    purge_one(flow, correction)
    assert flow.take("i1", amount=2).event_id == correction
    with pytest.raises(InvalidTransition, match=correction):
        accept(flow, event_id, digest)
    purge_one(flow, event_id)
    assert flow.events() == []
    assert flow.take("i1", amount=1).event_id == event_id
    assert flow.take("i1", amount=2).event_id == correction
    with pytest.raises(IdentityConflict):
        flow.take("i1", amount=3)
    assert len(runs) == 2
    assert flow.app.ledger.verify().problems == []


@pytest.mark.either
def test_a_correction_stays_after_a_purge_of_its_original(harness, books, runs):
    """The first event is purged alone: the correction stays, and its repeat is recognized."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    correction = accept(flow, event_id, digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    flow.advance(86_400)
    purge_one(flow, event_id)
    assert flow.take("i1", amount=2).event_id == correction
    assert flow.app.ledger.event(correction).repeats == 1
    assert flow.app.ledger.verify().problems == []


@pytest.fixture
def pulling(harness, books):
    """A server whose source `oa` has an engine that flowhooks asks."""
    return harness.open(**with_silent_engine(books(), books("stopped", process_key="leave", kind="cancel")))


@pytest.mark.either
def test_a_correction_is_not_the_event_of_an_instance(pulling, runs):
    """A later instance with the same id is still taken in, and the accepted body is still known after that."""
    flow = pulling
    event_id, digest = conflict_with(flow, source="oa")
    flow.advance(3 * 86_400)
    started_at = flow.clock.now()
    flow.advance(3600)
    correction = accept(flow, event_id, digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    taken_in = flow.take_in(started_at=started_at, amount=7)
    assert taken_in.new
    assert taken_in.reused_id
    flow.settled(taken_in.event_id, State.SUCCEEDED)
    assert flow.take("i1", source="oa", amount=2).event_id == correction
    assert [amount for _, amount, _ in runs] == [1, 2, 7]


@pytest.mark.either
def test_a_late_callback_runs_the_handlers_of_its_kind(pulling, runs):
    """The body of a callback that contradicts the history runs the handlers of its own kind; its repeat is known."""
    flow = pulling
    event_id = flow.take_in(amount=1).event_id
    flow.settled(event_id, State.SUCCEEDED)
    with pytest.raises(IdentityConflict):
        flow.take("i1", source="oa", kind="cancel", amount=2)
    (conflict,) = flow.app.ledger.conflicts(event_id)
    assert conflict.kind == "cancel"
    correction = accept(flow, event_id, conflict.digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    assert runs == [("books", 1, None), ("stopped", 2, event_id)]
    assert flow.take("i1", source="oa", kind="cancel", amount=2).event_id == correction
    assert len(runs) == 2


@pytest.mark.either
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET corrects = NULL WHERE origin = 'correction'",
        "UPDATE events SET corrects = id WHERE origin = 'callback'",
        "UPDATE events SET corrects = id WHERE origin = 'correction'",
        "UPDATE events SET origin = 'callback'",
        "UPDATE events SET digest = body_sha256 WHERE origin = 'correction'",
        "UPDATE conflicts SET corrected_by = NULL",
        "UPDATE conflicts SET corrected_by = event_id",
        "UPDATE conflicts SET corrected_by = '019b76da-a800-7000-8000-00000000ffff'",
        "UPDATE conflicts SET kind = 'cancel'",
        "DELETE FROM conflicts",
    ],
)
def test_verify_reports_changed_links(harness, books, change):
    """Each changed link between an event and its correction is reported, with the id of the event."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    correction = accept(flow, event_id, digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    flow.sql(change)
    found = "\n".join(flow.app.ledger.verify().problems)
    assert event_id in found or correction in found


@pytest.mark.either
def test_verify_against_a_client_history_finds_the_correction(harness, books):
    """`verify --against` knows that the accepted body was answered with the correction, also after a purge."""
    flow = harness.open(books())
    event_id, digest = conflict_with(flow)
    correction = accept(flow, event_id, digest).event_id
    flow.settled(correction, State.SUCCEEDED)
    lines = [
        {"flowInstanceId": "i1", "status": status, "event": answered, "body": json.dumps(body)}
        for status, answered, amount in ((200, event_id, 1), (200, correction, 2), (409, event_id, 2))
        for body in [{"processDefinitionKey": "leave", "amount": amount}]
    ]
    text = b"\n".join(json.dumps(line).encode() for line in lines)
    flow.advance(60)
    for purged in (None, correction, event_id):
        if purged:
            purge_one(flow, purged)
        assert check_history(flow.app.ledger, io.BytesIO(text), flow.app.settings).problems == []
