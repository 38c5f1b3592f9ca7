"""Events and a clock made by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from flowhooks.model.event import from_body
from flowhooks.testing import ManualClock, make_event, stored_events


def test_an_event_accepts_python_names_and_body_names():
    """Python's names and those of the body give the same event as a callback."""
    event = make_event(callback_class="C", process_key="k", business_key="HT-1", version=3, conclusion="ok", amount=3)
    body = {
        "businessKey": "HT-1",
        "callBackProcessClass": "C",
        "processDefinitionKey": "k",
        "processDefinitionVersion": 3,
        "conclusion": "ok",
        "amount": 3,
    }
    assert event == from_body(
        body,
        id=event.id,
        source="default",
        kind="complete",
        flow_instance_id="1",
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert event.conclusion == "ok"
    again = make_event(**body, note=None)
    assert (again.business_key, again.process_definition_key, again.data) == ("HT-1", "k", body)


def test_omitted_members_are_absent():
    """Only the id is generated, new each time; the key is taken from a definition id as in a server."""
    event, other = make_event(), make_event(process_definition_id="leave:3:17")
    assert (event.business_key, event.callback_class, event.process_definition_key, event.data) == (
        None,
        None,
        None,
        {},
    )
    assert event.id != other.id
    assert other.process_definition_key == "leave"


def test_instance_kind_source_id_and_time_can_be_set():
    """Instance, kind, source, id and time are as given."""
    time = datetime(2026, 5, 1, tzinfo=UTC)
    event = make_event(flow_instance_id="17", kind="cancel", source="hr", id="e", received_at=time)
    assert (event.flow_instance_id, event.kind, event.source, event.id, event.received_at) == (
        "17",
        "cancel",
        "hr",
        "e",
        time,
    )


def test_a_traceparent_is_validated():
    """The traceparent is that of the event, and an invalid one is an error of the test."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = make_event(traceparent=traceparent)
    assert event.traceparent == traceparent
    assert "traceparent" not in event.data
    with pytest.raises(ValueError, match="traceparent '01' is invalid"):
        make_event(traceparent="01")


def test_a_member_with_two_values_is_rejected():
    """A member by both of its names is refused, and so is what JSON cannot hold."""
    with pytest.raises(TypeError, match="given twice: businessKey"):
        make_event(business_key="1", businessKey="2")
    with pytest.raises(TypeError, match="not JSON serializable"):
        make_event(amount=object())


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"version": "3"}, "processDefinitionVersion must be of type integer"),
        ({"version": True}, "processDefinitionVersion must be of type integer"),
        ({"version": 2**40}, "processDefinitionVersion must be at most 2147483647"),
        ({"conclusion": 5}, "conclusion must be of type string"),
        ({"callback_class": ["x"]}, "callBackProcessClass must be of type string"),
        ({"process_definition_id": 5}, "processDefinitionId must be of type string"),
        ({"flow_instance_id": 5}, "flow_instance_id must be a string that is not empty, not 5"),
        ({"flow_instance_id": ""}, "flow_instance_id must be a string that is not empty, not ''"),
        ({"flow_instance_id": " 5"}, "flow_instance_id must not begin or end with white space"),
        ({"received_at": datetime(2026, 1, 1)}, "received_at must have a time zone"),  # noqa: DTZ001 (what is refused)
    ],
)
def test_an_event_that_no_server_accepts_is_rejected(members, why):
    """A handler is never tested with an event that no server can make."""
    with pytest.raises(ValueError, match=why):
        make_event(**members)


def test_the_clock_advances_only_by_hand():
    """The clock starts at a fixed moment, uses its arguments, and its ids sort."""
    clock = ManualClock()
    ids = [clock.new_id(), clock.new_id()]
    before = clock.now()
    clock.advance(1, minutes=2, hours=3, days=4)
    assert clock.now() - before == (1 + 120 + 3 * 3600 + 4 * 86400) * 1_000_000
    ids.append(clock.new_id())
    assert ids == sorted(set(ids))
    assert clock.random() == 0
    with pytest.raises(ValueError, match="can only be advanced"):
        clock.advance(-1)


def test_stored_events_are_read_from_an_export(tmp_path):
    """Each line is an event as handlers saw it, with the conclusion of the source's settings."""
    line = {
        "id": "01a",
        "received_at": "2026-11-24T09:30:00.123Z",
        "source": "erp",
        "origin": "correction",
        "corrects": "019",
        "kind": "suspended",
        "flow_instance_id": "4711",
        "conclusion": "approved",
        "state": "routed",
        "deliveries": [],
        "body": {"processDefinitionId": "leave:3:x", "conclusion": "AGREE", "businessKey": 7, "days": 3, "note": None},
    }
    file = tmp_path / "events.jsonl"
    file.write_text(
        json.dumps(line) + "\n\n" + json.dumps(line | {"id": "01b", "conclusion": None}) + '\n{"next": "1"}\n'
    )
    first, second = stored_events(file)
    assert (first.id, first.source, first.kind, first.flow_instance_id) == ("01a", "erp", "suspended", "4711")
    assert first.received_at == datetime(2026, 11, 24, 9, 30, 0, 123_000, tzinfo=UTC)
    assert (first.process_definition_key, first.process_definition_version) == ("leave", 3)
    assert (first.business_key, first.conclusion) == ("7", "approved")
    assert (first.origin, first.corrects) == ("correction", "019")
    assert first.data["conclusion"] == "AGREE"
    assert "note" not in first.data
    assert (second.id, second.conclusion) == ("01b", None)
    assert [event.id for event in stored_events(str(file))] == ["01a", "01b"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is not a JSON object"),
        ('{"id": "1"}', "the event has no body: export it with --masked or --bodies"),
        ('{"id": "1", "body": null}', "the event has no body"),
        ('{"id": "1", "body": {}}', "'flow_instance_id' is missing"),
        ('{"id": "1", "body": {"n": NaN}, "flow_instance_id": "1", "kind": "c", "source": "s"}', "NaN|is missing"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(tmp_path, line, why):
    """The error has the file and the number of the line."""
    file = tmp_path / "events.jsonl"
    file.write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match=rf"events\.jsonl, line 2: .*({why})"):
        list(stored_events(file))
    with pytest.raises(FileNotFoundError):
        list(stored_events(tmp_path / "none.jsonl"))
