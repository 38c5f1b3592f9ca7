"""Operations on engines: reconcile now, confirm, ask about an instance; each action is in the audit log."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from flowhooks.errors import NotFound, SettingsError
from flowhooks.model.engine import EndState, FinishedInstance, InstanceStatus, ProcessDefinition
from flowhooks.operations.engines import (
    ask_engine,
    close_gaps,
    confirm_reconciliation,
    decline_reconciliation,
    read_definitions,
    reconcile,
)
from support import engine_ledger
from support.engine_fakes import FakeReconciler

pytestmark = pytest.mark.either


@pytest.fixture
def engines():
    """A reconciler for two engines."""
    return FakeReconciler("oa", "erp")


@pytest.fixture
def flow(harness):
    """An app that does nothing by itself."""
    harness.check_at_end = False
    return harness.open(start=False)


@pytest.fixture
def context(flow, context_of, engines):
    """The context of Ann with these engines."""
    return replace(context_of(flow), reconciler=engines)


def test_reconcile_of_all_engines(flow, context, engines, audit_entries):
    """Without a source every engine is reconciled; the result has the counts of each, and each is recorded."""
    done = reconcile(context)
    assert engines.rounds == [("erp", None, False), ("oa", None, False)]
    rounds = [
        (reconciled.source, reconciled.read, reconciled.taken_in, reconciled.skipped) for reconciled in done.sources
    ]
    assert rounds == [("erp", 3, 1, {"child": 1}), ("oa", 3, 1, {"child": 1})]
    assert [(entry.action, entry.target, entry.detail) for entry in audit_entries(flow)] == [
        ("reconcile", "oa", {}), ("reconcile", "erp", {}),
    ]  # fmt: skip


def test_reconcile_since(flow, context, engines, audit_entries):
    """A start time is passed on and recorded as text; an error is in the result on one line."""
    engines.results["error"] = "HTTP 401\nfor /history"
    done = reconcile(context, source="oa", since=1_767_225_600_000_000)
    assert engines.rounds == [("oa", 1_767_225_600_000_000, False)]
    assert done.sources[0].error == "HTTP 401 for /history"
    assert audit_entries(flow)[0].detail == {"since": "2026-01-01T00:00:00.000Z"}


def test_a_dry_run_records_nothing(flow, context, engines, audit_entries):
    """A dry run is passed on, and is not in the audit log."""
    assert reconcile(context, dry_run=True).dry_run
    engine_ledger.position(flow, "oa", to_confirm=5)
    assert confirm_reconciliation(context, source="oa", dry_run=True).instances == 5
    assert {dry for _, _, dry in engines.rounds} == {True}
    assert (engines.confirmed, audit_entries(flow)) == ([], [])


def test_confirm_of_waiting_instances(flow, context, engines, audit_entries):
    """A confirmation is passed on with the number in the audit log; without waiting instances nothing happens."""
    assert confirm_reconciliation(context, source="oa").instances == 0
    engine_ledger.position(flow, "oa", to_confirm=1200)
    assert confirm_reconciliation(context, source="oa").instances == 1200
    assert engines.confirmed == ["oa"]
    assert [(entry.action, entry.target, entry.detail) for entry in audit_entries(flow)] == [
        ("confirm_reconciliation", "oa", {"instances": 1200})
    ]


def test_decline_of_waiting_instances(flow, context, engines, audit_entries):
    """Declining is passed on with what was shown, and recorded with its note; without waiting instances it is not."""
    assert decline_reconciliation(context, source="oa", note="old").instances == 0
    engine_ledger.position(flow, "oa", to_confirm=1200)
    shown = decline_reconciliation(context, source="oa", dry_run=True)
    assert (shown.instances, engines.declined, audit_entries(flow)) == (1200, [], [])
    with pytest.raises(SettingsError, match="1,200 instances of oa wait, not 7"):
        decline_reconciliation(context, source="oa", instances=7)
    with pytest.raises(SettingsError, match="later than the last reconciliation"):
        decline_reconciliation(context, source="oa", seen_until=shown.seen_until + 1)
    assert decline_reconciliation(context, source="oa", instances=1200, note="old").instances == 1200
    assert engines.declined == [("oa", shown.seen_until, "old")]
    assert [(entry.action, entry.target, entry.detail) for entry in audit_entries(flow)] == [
        ("decline_reconciliation", "oa", {"instances": 1200, "note": "old"})
    ]


def test_reconcile_with_declined_instances(flow, context, engines, audit_entries):
    """Declined instances are taken in only with a start time, and the audit log says so."""
    with pytest.raises(SettingsError, match="needs since"):
        reconcile(context, source="oa", declined=True)
    reconcile(context, source="oa", since=1_767_225_600_000_000, declined=True)
    assert engines.with_declined
    assert audit_entries(flow)[0].detail == {"since": "2026-01-01T00:00:00.000Z", "declined": True}


def test_close_gaps(flow, context, audit_entries):
    """The gaps that were shown are closed and recorded; gaps that are found later stay open."""
    now = flow.clock.now()
    assert close_gaps(context, source="oa", note="none").gaps == 0
    engine_ledger.gap(flow, "oa", now - 2000, now - 1000, "deleted")
    engine_ledger.gap(flow, "oa", now - 4000, now - 3000, "refused", closed=True)
    engine_ledger.gap(flow, "erp", now - 2000, now - 1000, "deleted")
    shown = close_gaps(context, source="oa", dry_run=True)
    assert (shown.gaps, audit_entries(flow)) == (1, [])
    flow.clock.advance(1)
    engine_ledger.gap(flow, "oa", now, now + 1, "deleted")
    with pytest.raises(SettingsError, match="later than now"):
        close_gaps(context, source="oa", found_until=flow.clock.now() + 1)
    assert close_gaps(context, source="oa", note="compared", found_until=shown.found_until).gaps == 1
    assert [(entry.action, entry.target, entry.detail) for entry in audit_entries(flow)] == [
        ("close_gaps", "oa", {"gaps": 1, "note": "compared"})
    ]
    assert close_gaps(context, source="oa", dry_run=True).gaps == 1


def test_lookup_of_an_instance_at_each_engine(context, engines):
    """Each engine says what it knows of an instance, or why it does not answer."""
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    engines.instances["4711"] = FinishedInstance(
        id="4711", ended_at=ended, end_state=EndState.COMPLETED, process_definition_key="leave", conclusion="OK"
    )
    engines.instances["4712"] = InstanceStatus.RUNNING
    (answer,) = ask_engine(context, instance="4711", source="oa").answers
    assert (answer.status, answer.end_state, answer.ended_at) == ("finished", "completed", ended.isoformat())
    assert (answer.process_definition_key, answer.conclusion, answer.started_at) == ("leave", "OK", None)
    assert [answer.status for answer in ask_engine(context, instance="4712").answers] == ["running", "running"]
    assert ask_engine(context, instance="4713", source="oa").answers[0].status == "absent"
    engines.error = "no route\nto host"
    (answer,) = ask_engine(context, instance="4711", source="erp").answers
    assert (answer.status, answer.error) == ("failed", "no route to host")


def test_definitions_of_each_engine(context, engines):
    """The definitions of each engine are read; an engine that does not answer has a reason."""
    engines.deployed = [ProcessDefinition(key="leave", version=3)]
    assert [(source_entry.source, source_entry.definitions) for source_entry in read_definitions(context).sources] == [
        ("erp", (ProcessDefinition(key="leave", version=3),)), ("oa", (ProcessDefinition(key="leave", version=3),)),
    ]  # fmt: skip
    engines.error = "refused"
    (found,) = read_definitions(context, source="oa").sources
    assert (found.definitions, found.error) == ((), "refused")


def test_a_source_without_an_engine_is_refused(flow, context, context_of):
    """A source without an engine is refused with the names of the others; so is any if there is no engine."""
    for operation in (
        lambda context: reconcile(context, source="hr"),
        lambda context: confirm_reconciliation(context, source="hr"),
        lambda context: confirm_reconciliation(context, source=""),
        lambda context: decline_reconciliation(context, source="hr"),
        lambda context: close_gaps(context, source="hr"),
        lambda context: ask_engine(context, instance="1", source="hr"),
        lambda context: read_definitions(context, source="hr"),
    ):
        with pytest.raises(NotFound, match="there are erp, oa"):
            operation(context)
        with pytest.raises(NotFound, match="no source has an engine"):
            operation(context_of(flow))
