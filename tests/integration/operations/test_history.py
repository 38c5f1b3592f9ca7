"""A client's history of callbacks is compared with the ledger: `flowhooks verify --against`."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from flowhooks import handler
from flowhooks.errors import IdentityConflict
from flowhooks.ledger.consistency import MAX_SHOWN
from flowhooks.ledger.events import MAX_CONFLICTS
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.operations import history
from flowhooks.operations.purge import purge
from flowhooks.settings import Source
from support.silent_engine import with_silent_engine


@handler(process_key="leave")
def works(event):
    """Do nothing."""


def line(instance, body, status, **more):
    """One line of a history."""
    return {"flowInstanceId": instance, "body": json.dumps(body), "status": status} | more


LEAVE = {"processDefinitionKey": "leave"}


@pytest.fixture
def compare(harness, context_of):
    """A ledger with some callbacks, and a function that compares lines with it."""
    flow = harness.open(works, identity={"ignore_pointers": ("/sentAt",)})
    ids = {}
    for instance in ("stored", "reordered", "purged", "conflict", "full"):
        ids[instance] = flow.take(instance, n=1, sentAt="now").event_id
    ids["classed"] = flow.take("classed", callback_class="com.example.A").event_id
    ids["numbered"] = flow.take("numbered", businessKey="17").event_id
    for other in [("conflict", 2), *(("full", number) for number in range(2, MAX_CONFLICTS + 4))]:
        with suppress(IdentityConflict):
            flow.take(other[0], n=other[1])
    flow.advance(60)
    assert purge(context_of(flow), EventFilter(ids=(ids["purged"],), until=flow.clock.now()))
    reader = Reader(flow.address)

    def compare(*lines):
        text = b"\n".join(
            history_line if isinstance(history_line, bytes) else json.dumps(history_line).encode()
            for history_line in lines
        )
        return history.check_history(reader, io.BytesIO(text), flow.app.settings)

    compare.ids = ids
    compare.settings = flow.app.settings
    yield compare
    reader.close()


BODY = {"processDefinitionKey": "leave", "n": 1, "sentAt": "now"}
SHA256 = hashlib.sha256(json.dumps(BODY).encode()).hexdigest()
CASES = {
    "acknowledged": (line("stored", BODY, 200), None),
    "acknowledged, and a handler failed": (line("stored", BODY, 500, event="{stored}"), None),
    "with its event": (line("stored", BODY, 202, event="{stored}", source="default", kind="complete"), None),
    "with a time": (line("stored", BODY, 200, time="2026-01-01T00:00:00Z"), None),
    "by checksum": (
        {"flowInstanceId": "stored", "bodySha256": SHA256, "status": 200, "event": None, "source": None},
        None,
    ),
    "the same values in another order": (line("reordered", dict(reversed(BODY.items())), 200), None),
    "another value that is left out": (line("stored", BODY | {"sentAt": "later"}, 200), None),
    "of a class": (line("classed", LEAVE | {"callBackProcessClass": "com.example.A"}, 200), None),
    "of a class, by checksum": (
        {
            "flowInstanceId": "classed",
            "callBackProcessClass": "com.example.A",
            "bodySha256": hashlib.sha256(
                json.dumps(LEAVE | {"callBackProcessClass": "com.example.A"}).encode()
            ).hexdigest(),
            "status": 200,
        },
        None,
    ),
    "a business key sent as a number": (line("numbered", LEAVE | {"businessKey": 17}, 200), None),
    "another business key": (line("numbered", LEAVE | {"businessKey": 18}, 200), "other_body"),
    "purged": (line("purged", BODY, 200, event="{purged}"), None),
    "a conflict": (line("conflict", LEAVE | {"n": 2}, 409, event="{conflict}"), None),
    "a conflict with a purged event": (line("purged", LEAVE | {"n": 2}, 409), None),
    "a conflict beyond the number that is kept": (line("full", LEAVE | {"n": MAX_CONFLICTS + 3}, 409), None),
    "rejected": (line("rejected", LEAVE, 422), None),
    "rejected because of its data": (line("stored", "no object", 400), None),
    "not answered, and stored": (line("stored", BODY, None), None),
    "not answered, and not stored": (line("nothing", BODY, 0), None),
    "unavailable": (line("nothing", BODY, 503), None),
    "failed without an event": (line("nothing", BODY, 500), None),
    "lost": (line("lost", BODY, 200), "lost"),
    "lost, of another source": (line("stored", BODY, 200, source="other"), "lost"),
    "lost, of another class": (line("classed", LEAVE, 200), "lost"),
    "lost, although it has an event": (
        line("lost", BODY, 202, event="01900000-0000-7000-8000-000000000000", time="2026-01-01"),
        "lost",
    ),
    "another body": (line("stored", BODY | {"n": 2}, 200), "other_body"),
    "another body, by checksum": (
        {"flowInstanceId": "stored", "bodySha256": "0" * 64, "status": 200},
        "other_body",
    ),
    "the body of a conflict": (line("conflict", LEAVE | {"n": 2}, 200), "other_body"),
    "another event": (line("stored", BODY, 200, event="{conflict}"), "other_event"),
    "another event, purged": (line("purged", BODY, 200, event="{conflict}"), "other_event"),
    "the event of another callback": (line("nothing", BODY, 200, event="{stored}"), "other_callback"),
    "a conflict that is not kept": (line("stored", LEAVE | {"n": 2}, 409), "conflict_lost"),
    "a conflict with nothing": (line("nothing", LEAVE | {"n": 2}, 409), "conflict_lost"),
    "rejected and stored": (line("stored", BODY, 422), "rejected_but_stored"),
    "rejected and stored, unauthorized": (line("stored", BODY, 401), "rejected_but_stored"),
    "rejected and kept as a conflict": (line("conflict", LEAVE | {"n": 2}, 400), "rejected_but_stored"),
    "cut off": (b'{"flowInstanceId": "sto', "malformed"),
    "not UTF-8": (b'{"flowInstanceId": "\xff"}', "malformed"),
    "a list": (b"[]", "malformed"),
    "no flow instance": ({"body": "{}", "status": 200}, "malformed"),
    "no status": ({"flowInstanceId": "stored", "body": "{}"}, "malformed"),
    "no body": ({"flowInstanceId": "stored", "status": 200}, "malformed"),
    "two bodies": (line("stored", BODY, 200, bodySha256=SHA256), "malformed"),
    "half a checksum": ({"flowInstanceId": "stored", "bodySha256": "00", "status": 200}, "malformed"),
    "a status that there is not": (line("stored", BODY, 9), "malformed"),
    "a status that is a text": (line("stored", BODY, "200"), "malformed"),
    "a status that is true": (line("stored", BODY, True), "malformed"),
    "an unknown member": (line("stored", BODY, 200, flowinstanceid="stored"), "malformed"),
    "an event that is no id": (line("stored", BODY, 200, event="\0"), "malformed"),
    "a time that is none": (line("stored", BODY, 200, time="yesterday"), "malformed"),
    "half a character": (b'{"flowInstanceId": "\\ud800", "body": "{}", "status": 200}', "malformed"),
}


def filled(history_line, ids):
    """A line with the ids of the events that it names."""
    if isinstance(history_line, bytes) or not isinstance(history_line.get("event"), str):
        return history_line
    return history_line | {"event": history_line["event"].format(**ids)}


def test_each_line_gets_its_finding(compare):
    """Each finding has its kind, and names the line and the flow instance; all else agrees."""
    found = {case: compare(filled(history_line, compare.ids)) for case, (history_line, _) in CASES.items()}
    kinds = {case: [*report.findings] for case, report in found.items()}
    assert kinds == {case: [kind] if kind else [] for case, (_, kind) in CASES.items()}
    for case, report in found.items():
        assert report.is_consistent is (CASES[case][1] is None)
        assert all(sentence.startswith("line 1: ") for sentence in report.problems)
    assert found["purged"].purged == 1


def test_a_whole_history(compare):
    """Lines are counted by their answers and named by their numbers; empty lines are not counted."""
    report = compare(
        *(filled(history_line, compare.ids) for history_line, _ in CASES.values()), b"", b"  ", line("lost", BODY, 200)
    )
    assert report.lines == len(CASES) + 1
    assert [problem for problem in report.problems if problem.startswith(f"line {len(CASES) + 3}: ")]
    assert report.lines == report.findings["malformed"] + report.acknowledged + report.conflicts + (
        report.rejected + report.unanswered
    )
    # The rejected callbacks were acknowledged in other lines.
    assert "rejected_but_stored" not in report.findings


@pytest.mark.either
def test_a_rejected_callback_may_be_sent_again(compare):
    """Before or after, or without an answer: it is stored for that. Another class is another callback."""
    rejected = line("stored", BODY, 429)
    assert compare(rejected, line("stored", BODY, 200)).is_consistent
    assert compare(line("stored", BODY, None), rejected).is_consistent
    other = line("stored", BODY | {"callBackProcessClass": "com.example.B"}, None)
    assert compare(rejected, other).findings == {"rejected_but_stored": 1}


@pytest.mark.either
def test_a_callback_older_than_the_identity_retention(compare, monkeypatch):
    """A callback that is older than the identities of purged events are kept is counted, and not called lost."""
    monkeypatch.setattr(history.time, "time_ns", lambda: 1_800_000_000 * 10**9)  # 2027
    old = compare(line("old", BODY, 200, time="2025-01-01"), line("new", BODY, 200, time="2027-01-01"))
    assert (old.expired, old.findings) == (1, {"lost": 1})


@pytest.mark.either
def test_many_findings_are_counted(compare, monkeypatch):
    """As many as are shown of each kind, and how many more; batches of any size give the same."""
    lines = [line(f"lost-{number}", BODY, 200) for number in range(MAX_SHOWN + 5)]
    report = compare(*lines)
    assert report.findings == {"lost": MAX_SHOWN + 5}
    assert len(report.problems) == MAX_SHOWN + 1
    assert report.problems[-1] == "… and 5 more: acknowledged, but neither stored nor purged"
    monkeypatch.setattr(history, "MAX_BATCH_LINES", 2)
    assert compare(*lines) == report


@pytest.mark.either
def test_a_too_long_line_is_reported(compare, monkeypatch):
    """It is named, and the lines after it are read."""
    monkeypatch.setattr(history, "MAX_LINE_BYTES", 1000)
    report = compare(b"x" * 5000, line("stored", BODY, 200))
    assert report.problems == ["line 1: longer than 1000 bytes"]
    assert (report.lines, report.acknowledged) == (2, 1)


@pytest.mark.either
def test_late_callbacks_are_found_with_the_event_of_the_instance(harness, context_of):
    """Whatever class they have; also conflicting ones, and those of a purged event."""
    flow = harness.open(**with_silent_engine(works))
    taken_in = {instance: flow.take_in(instance, businessKey="k").event_id for instance in ("never", "conflict")}
    for instance in ("late", "gone"):
        flow.take_in(instance, businessKey="k")
    classed = {"callback_class": "com.example.A", "n": 1}
    event_ids = {instance: flow.take(instance, source="oa", **classed).event_id for instance in ("late", "gone")}
    with suppress(IdentityConflict):
        flow.take("conflict", source="oa", businessKey="other", **classed)
    flow.advance(60)
    purged = (event_ids["gone"], taken_in["never"])
    assert purge(context_of(flow), EventFilter(ids=purged, until=flow.clock.now()))
    with pytest.raises(IdentityConflict):
        flow.take("never", source="oa", **classed)
    body = LEAVE | {"callBackProcessClass": "com.example.A", "n": 1}
    right = [
        line("late", body, 200, event=event_ids["late"], source="oa"),
        line("gone", body, 200, event=event_ids["gone"], source="oa"),
        line("never", body, 409, event=taken_in["never"], source="oa"),
        line("never", body, 409, source="oa"),
    ]
    conflict = line("conflict", body | {"businessKey": "other"}, 409, source="oa")
    wrong = [
        line("late", body | {"n": 2}, 200, source="oa"),
        line("conflict", body | {"n": 2}, 409, source="oa"),
        line("never", body, 409, event=event_ids["late"], source="oa"),
        line("nothing", body, 409, source="oa"),
    ]

    def compared(lines):
        text = "\n".join(map(json.dumps, lines)).encode()
        return history.check_history(flow.app.ledger, io.BytesIO(text), flow.app.settings)

    assert compared([*right, conflict]).problems == []
    assert compared(right).purged == 1
    assert compared(wrong).findings == {"lost": 1, "conflict_lost": 3}
    assert purge(context_of(flow), EventFilter(ids=(taken_in["conflict"],), until=flow.clock.now()))
    assert compared([*right, conflict]).problems == []


@pytest.mark.either
def test_late_callbacks_of_instances_with_the_same_id(harness, context_of):
    """Each line is compared with the event that it was answered with, also if a later instance had the same id."""
    flow = harness.open(**with_silent_engine(works))
    event_ids, lines = [], []
    for n in range(2):
        started_at = flow.clock.now()
        event_ids.append(flow.take_in("i1", started_at=started_at, ended_at=started_at).event_id)
        flow.take("i1", source="oa", callback_class=f"com.example.C{n}", n=n)
        body = LEAVE | {"callBackProcessClass": f"com.example.C{n}", "n": n}
        lines.append(line("i1", body, 200, event=event_ids[n], source="oa"))
        flow.advance(3 * 86_400)
    assert len({*event_ids}) == 2
    assert purge(context_of(flow), EventFilter(ids=tuple(event_ids), until=flow.clock.now())).purged == 2
    lines.append(lines[0] | {"event": flow.clock.new_id()})
    text = "\n".join(map(json.dumps, lines)).encode()
    report = history.check_history(flow.app.ledger, io.BytesIO(text), flow.app.settings)
    assert (report.purged, report.findings) == (2, {"lost": 1})


@pytest.mark.either
def test_members_that_only_one_source_ignores(harness):
    """A repeat that differs in a member which its source ignores was answered 200, and is no other body."""
    flow = harness.open(works, sources={"oa": Source(ignore_pointers=("/sentAt",), former_names=("old",))})
    flow.take("repeated", source="oa", sentAt="now")
    flow.take("repeated", source="oa", sentAt="later")
    lines = [line("repeated", LEAVE | {"sentAt": "later"}, 200, source=source) for source in ("oa", "old")]
    lines.append(line("repeated", LEAVE | {"n": 1}, 200, source="oa"))
    text = "\n".join(map(json.dumps, lines)).encode()
    report = history.check_history(flow.app.ledger, io.BytesIO(text), flow.app.settings)
    assert report.findings == {"other_body": 1}


def test_a_renamed_source_has_the_callbacks_of_its_former_name(harness, context_of):
    """A line under either name is compared with the event, whichever name stores it; other findings remain."""
    flow = harness.open(works)
    first = {instance: flow.take(instance, n=1).event_id for instance in ("repeated", "before", "gone")}
    flow.close()
    flow = harness.open(works, sources={"oa": Source(former_names=("default",))})
    assert flow.take("repeated", source="oa", n=1).event_id == first["repeated"]
    with pytest.raises(IdentityConflict):
        flow.take("repeated", source="oa", n=2)
    after = {instance: flow.take(instance, n=1).event_id for instance in ("after", "purged")}
    flow.advance(60)
    assert purge(context_of(flow), EventFilter(ids=(first["gone"], after["purged"]), until=flow.clock.now()))
    assert flow.take("gone", source="oa", n=1).event_id == first["gone"]
    event_ids, body = first | after, LEAVE | {"n": 1}

    def compared(*lines):
        text = "\n".join(map(json.dumps, lines)).encode()
        return history.check_history(flow.app.ledger, io.BytesIO(text), flow.app.settings)

    for named in ({}, {"source": "oa"}):
        for instance, event_id in event_ids.items():
            report = compared(line(instance, body, 200, event=event_id, **named), line(instance, body, 200, **named))
            assert (report.problems, report.purged) == ([], 2 * (instance in {"gone", "purged"}))
        conflict = line("repeated", LEAVE | {"n": 2}, 409, event=event_ids["repeated"], **named)
        assert compared(conflict).problems == []
        wrong = [
            line("before", LEAVE | {"n": 2}, 200, **named),
            line("before", LEAVE | {"n": 2}, 409, **named),
            line("before", body, 200, event=event_ids["after"], **named),
            line("purged", body, 200, event=event_ids["after"], **named),
            line("nothing", body, 200, **named),
        ]
        assert compared(*wrong).findings == {"lost": 1, "other_event": 2, "other_body": 1, "conflict_lost": 1}
        for instance in ("before", "after"):
            rejected = line(instance, body, 401, **named)
            assert compared(rejected).findings == {"rejected_but_stored": 1}
            assert compared(rejected, line(instance, body, 200)).problems == []
            assert compared(line(instance, body, 200, source="oa"), rejected).problems == []
    assert compared(line("before", body, 200, source="other")).findings == {"lost": 1}


@pytest.mark.either
def test_a_callback_that_two_names_of_a_source_store(harness):
    """During a rolling rename, a callback can become an event of each name. Each line finds its own."""
    flow = harness.open(works, sources={"oa": Source()})
    event_ids = {source: flow.take("twice", source=source, n=n).event_id for source, n in (("oa", 1), ("default", 2))}
    flow.app.reload(replace(flow.app.settings, sources={"oa": Source(former_names=("default",))}))
    lines = [line("twice", LEAVE | {"n": n}, 200, source=source) for source, n in (("oa", 1), ("default", 2))]
    # The server answers a repeat under the present name with the event of the former one.
    lines += [line("twice", LEAVE | {"n": 2}, 200, source="oa", event=event_ids["default"])]
    text = "\n".join(map(json.dumps, lines)).encode()
    report = history.check_history(flow.app.ledger, io.BytesIO(text), flow.app.settings)
    assert report.problems == []
