"""The grace of an instance, and the confirmation of many."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.errors import SettingsError
from flowhooks.model.engine import EndState
from flowhooks.operations.engines import confirm_reconciliation
from support.asked_engine import MINUTE, settings_of

pytestmark = pytest.mark.either
HOUR = 3600


# Grace.


def test_grace_counts_from_our_own_readiness(open_app):
    """After a start of the server, the engine gets the time to call again."""
    asked = open_app()
    asked.round()
    asked.finish("i1")
    asked.round()
    asked.clock.advance(HOUR)
    asked.flow.close()
    asked = open_app({"reconcile_every": 86_400.0}, start=True)
    assert asked.round().taken_in == 0
    asked.clock.advance(119)
    assert asked.round().taken_in == 0
    asked.clock.advance(2)
    assert asked.round().taken_in == 1


def test_a_clock_that_was_ahead_at_the_start_postpones_nothing(open_app, clock, monkeypatch):
    """Grace counts from the correction of the clock, not from the start that the clock has shown."""
    asked = open_app()
    asked.round()
    asked.finish("i1")
    asked.flow.close()
    asked = open_app(sources={})
    now = clock.now
    with monkeypatch.context() as patch:
        patch.setattr(clock, "now", lambda: now() + 48 * HOUR * SECOND)
        asked.service.start()
    sources = {"oa": settings_of({"reconcile_every": 86_400.0})}  # so that only the test makes rounds
    asked.flow.app.reload(replace(asked.flow.app.settings, sources=sources))
    assert asked.round().taken_in == 0
    assert asked.after_grace(119).taken_in == 0
    assert asked.after_grace(2).taken_in == 1


def test_grace_counts_from_the_last_time_that_the_server_was_not_ready(asked):
    """While the server is not ready, callbacks do not arrive; grace counts from the end of that time."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(HOUR)
    asked.flow.app.draining = True
    assert asked.flow.app.readiness_problems()
    asked.flow.app.draining = False
    assert asked.round().taken_in == 0
    assert asked.after_grace(119).taken_in == 0
    assert asked.after_grace(2).taken_in == 1


@pytest.mark.parametrize(("source", "waits"), [("oa", True), ("", True), ("other", False)])
def test_grace_counts_from_our_last_503(asked, source, waits):
    """A callback of this source, or of an unknown one, that was answered 503 may come again."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(HOUR)
    rejected = asked.flow.app.rejected_requests
    rejected.record(path="/flow/i1/call-back/complete", address="", status=503, english="x", chinese="x", source=source)
    rejected.flush()
    assert asked.round().taken_in == (0 if waits else 1)
    assert asked.after_grace(119).taken_in == 0
    assert asked.after_grace(2).taken_in == (1 if waits else 0)


def test_repeated_503s_extend_the_grace_by_an_hour_at_most(asked, logged):
    """An instance waits for the engine's next call, and is taken in an hour after its own grace; the round says so."""
    asked.finish("i1")
    rejected = asked.flow.app.rejected_requests
    for minutes in range(2, 62, 5):
        asked.clock.advance(5 * MINUTE if minutes > 2 else 2 * MINUTE)
        rejected.record(path="/flow/x/call-back/complete", address="", status=503, english="x", chinese="x", source="")
        rejected.flush()
        assert (asked.flow.app.readiness_problems(), asked.round().waiting, asked.events()) == ([], 1, {})
        assert asked.position().waiting == 1
    assert "grace_extension_ended" not in [record["event"] for record in logged]
    asked.clock.advance(5 * MINUTE)
    asked.finish("i2")
    assert (asked.round().waiting, asked.events()) == (0, {"i1": "reconciled"})
    assert asked.position().waiting == 0


def test_a_server_that_is_not_ready_extends_the_grace_by_an_hour_at_most(asked, logged):
    """A server that stays without a problem to be solved by itself does not stop reconciliation."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(62 * MINUTE)
    asked.service.report_not_ready()
    assert asked.round().taken_in == 1
    assert [record["event"] for record in logged].count("grace_extension_ended") == 1


def test_a_time_at_which_our_clock_was_ahead_postpones_nothing(asked, monkeypatch):
    """A server that was not ready, and a 503, at a time later than now say nothing about the engine's next call."""
    rejected, now = asked.flow.app.rejected_requests, asked.clock.now
    given = {"path": "/flow/x/call-back/complete", "address": "", "status": 503, "english": "x", "chinese": "x"}
    with monkeypatch.context() as patch:
        patch.setattr(asked.clock, "now", lambda: now() + 10 * DAY)
        asked.service.report_not_ready()
        rejected.record(**given, source="oa")
        rejected.flush()
    asked.finish("i1")
    asked.round()
    asked.clock.advance(MINUTE)
    rejected.record(**given, source="oa")
    rejected.flush()
    assert asked.after_grace(61).waiting == 1
    assert asked.after_grace(60).taken_in == 1


@pytest.mark.parametrize("calls", [True, False])
def test_a_command_without_a_server_leaves_the_engine_time_to_call(open_app, calls):
    """A command takes in only instances whose grace ended while a server ran, unless the engine cannot call."""
    source = settings_of() if calls else settings_of(token_sha256=())
    asked = open_app(sources={"oa": source})
    asked.round()
    asked.finish("early")
    asked.clock.advance(121)
    asked.finish("late")
    asked.flow.close()
    asked.clock.advance(HOUR)
    command = open_app(sources={"oa": source})
    command.flow.sql("UPDATE processes SET heartbeat_at = 0")
    command.flow.sql("UPDATE processes SET kind = 'command' WHERE stopped_at IS NULL")
    result = command.round()
    assert (result.taken_in, result.waiting) == ((1, 1) if calls else (2, 0))


# Confirmation.


def test_instances_that_wait_for_an_operator_stay_counted(open_app):
    """A restart or a 503 does not end the wait for a confirmation."""
    asked = open_app({"max_new": 3})
    asked.round()
    for number in range(4):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().to_confirm == 4
    asked.service.report_not_ready()
    assert asked.round().to_confirm == asked.position().to_confirm == 4
    asked.service.confirm("oa")
    assert asked.after_grace().taken_in == 4


def test_many_new_instances_wait_for_an_operator(open_app, logged):
    """Above max_new nothing is taken in before an operator confirms; what appears later counts by itself."""
    asked = open_app({"max_new": 3})
    asked.round()
    for number in range(4):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().taken_in == 0
    assert (asked.position().to_confirm, asked.events()) == (4, {})
    assert asked.round().to_confirm == 4
    assert len([record for record in logged if record["event"] == "reconciliation_unconfirmed"]) == 1
    asked.clock.advance(1)
    asked.service.confirm("oa")
    asked.clock.advance(1)
    for number in range(4):
        asked.finish(f"later{number}")
    assert asked.round().taken_in == 4
    assert asked.position().to_confirm == 0
    assert asked.after_grace().taken_in == 0
    assert asked.position().to_confirm == 4
    asked.service.confirm("oa")
    assert asked.round().taken_in == 4
    assert len(asked.events()) == 8


def test_instances_that_were_not_counted_are_not_confirmed(open_app):
    """A confirmation covers the instances that the round has counted, and none whose grace had not ended by then."""
    asked = open_app({"max_new": 3})
    asked.round()
    for number in range(5):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().to_confirm == 5
    for number in range(50):
        asked.finish(f"later{number}")
    asked.clock.advance(10)
    assert asked.round().to_confirm == 5
    asked.service.confirm("oa")
    assert asked.position().to_confirm == 0
    result = asked.after_grace()
    assert (result.taken_in, result.to_confirm) == (5, 50)


def test_only_instances_shown_to_the_operator_are_confirmed(open_app):
    """Instances that later rounds have counted between the question and its answer are not confirmed with it."""
    asked = open_app({"max_new": 3})
    asked.round()
    context = asked.flow.app.operation_context
    for count, first in ((5, "i"), (7, "later")):
        for number in range(count):
            asked.finish(f"{first}{number}")
        asked.round()
        asked.after_grace()
        if first == "i":
            shown = confirm_reconciliation(context, source="oa", dry_run=True)
    assert asked.position().to_confirm == 12
    done = confirm_reconciliation(context, source="oa", instances=shown.instances, seen_until=shown.seen_until)
    assert (shown.instances, done.instances, asked.position().to_confirm) == (5, 5, 7)
    result = asked.round()
    assert (result.taken_in, result.to_confirm) == (5, 7)
    assert confirm_reconciliation(context, source="oa", dry_run=True).instances == 7
    with pytest.raises(SettingsError, match="7 instances of oa wait, not 6"):
        confirm_reconciliation(context, source="oa", instances=6)
    with pytest.raises(SettingsError, match="later than the last reconciliation"):
        confirm_reconciliation(context, source="oa", seen_until=asked.clock.now() + 1)


def test_a_confirmation_excludes_instances_decided_again_later(open_app):
    """Skipped instances that an operator asks for wait for a confirmation of their own, as the dry run has shown."""
    asked = open_app({"max_new": 2})
    asked.round()
    asked.clock.advance(MINUTE)
    since = asked.clock.now()
    for number in range(3):
        asked.finish(f"child{number}", parent_id="parent")
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().to_confirm == 3
    asked.service.confirm("oa")
    assert asked.round().taken_in == 3
    asked.clock.advance(MINUTE)
    changed = settings_of({"max_new": 2, "children": True})
    asked.flow.app.reload(replace(asked.flow.app.settings, sources={"oa": changed}))
    for dry_run in (True, False):
        assert asked.round(since=since, dry_run=dry_run).to_confirm == 3
    assert sorted(asked.events()) == ["i0", "i1", "i2"]
    asked.service.confirm("oa")
    assert asked.round().taken_in == 3


def test_a_confirmation_excludes_instances_of_a_later_former_name(open_app):
    """Instances of a former name that is added later wait for a confirmation of their own."""
    sources = {
        name: settings_of({"max_new": 2}, former_names=former)
        for name, former in (("old", ()), ("new", ()), ("both", ("old",)))
    }
    asked = open_app(sources={"old": sources["old"]})
    for name in ("old", "new"):
        asked.round(name)
        asked.clock.advance(MINUTE)
        for number in range(3):
            asked.finish(f"{name}{number}")
        asked.round(name)
        asked.clock.advance(121)
        assert asked.round(name).to_confirm == 3
        asked.flow.app.reload(replace(asked.flow.app.settings, sources={"new": sources["new"]}))
    asked.service.confirm("new")
    asked.flow.app.reload(replace(asked.flow.app.settings, sources={"new": sources["both"]}))
    result = asked.round("new")
    assert (result.taken_in, result.to_confirm) == (3, 3)
    assert sorted(asked.events()) == ["new0", "new1", "new2"]


@pytest.mark.parametrize("confirmed", ["ahead", "corrected", "in between"])
def test_a_confirmation_while_our_clock_was_ahead(open_app, monkeypatch, confirmed):
    """When the clock is right again, what was confirmed is taken in, and later instances wait for an operator."""
    asked = open_app({"max_new": 2})
    asked.round()
    asked.clock.advance(MINUTE)
    now = asked.clock.now
    with monkeypatch.context() as patch:
        patch.setattr(asked.clock, "now", lambda: now() + 10 * DAY)
        patch.setattr(asked.engine, "skew", timedelta(days=-10))
        for number in range(3):
            asked.finish(f"i{number}")
        asked.round()
        assert asked.after_grace().to_confirm == 3
        if confirmed != "corrected":
            asked.service.confirm("oa")
        if confirmed == "ahead":
            assert asked.round().taken_in == 3
            asked.harness.check_at_end = False  # these events are from the future
    asked.clock.advance(MINUTE)
    assert asked.round().to_confirm == (3 if confirmed == "corrected" else 0)
    if confirmed == "corrected":
        asked.service.confirm("oa")
        assert asked.round().taken_in == 3
    asked.clock.advance(1)
    assert sorted(asked.events()) == ["i0", "i1", "i2"]
    for number in range(3):
        asked.finish(f"later{number}")
    asked.round()
    result = asked.after_grace()
    assert (result.taken_in, result.to_confirm) == (0, 3)
    assert asked.service.decline("oa", note="") == 3


def test_a_dry_run_counts_waiting_instances(open_app):
    """A dry run counts the instances that earlier rounds have read, however long ago they ended."""
    asked = open_app({"max_new": 3})
    asked.round()
    for number in range(10):
        asked.finish(f"i{number}")
    asked.round()
    asked.clock.advance(3600)
    asked.round()
    asked.finish("new")
    for since in (None, asked.clock.now() - 2 * 3600 * SECOND):
        result = asked.round(dry_run=True, since=since)
        assert (result.taken_in, result.to_confirm) == (11, 11)
    asked.service.confirm("oa")
    result = asked.round(dry_run=True)
    assert (result.taken_in, result.to_confirm) == (11, 0)
    asked.round()
    assert asked.round(dry_run=True).taken_in == 1


def test_max_new_itself_needs_no_confirmation(open_app):
    """Exactly max_new instances are taken in."""
    asked = open_app({"max_new": 3})
    asked.round()
    for number in range(3):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().taken_in == 3


def test_waiting_instances_that_the_settings_no_longer_allow(open_app):
    """Rules are applied again before an instance is taken in: one that waits for an operator may be skipped by then."""
    section = {"max_new": 3, "children": True, "kinds": ("complete", "cancel")}
    asked = open_app(section)
    asked.round()
    for number in range(3):
        asked.finish(f"cancelled{number}", tenant_id="south", end_state=EndState.CANCELLED)
        asked.finish(f"child{number}", tenant_id="south", parent_id="parent")
        asked.finish(f"north{number}", tenant_id="north")
    asked.finish("south", tenant_id="south")
    asked.round()
    assert asked.after_grace().to_confirm == 10
    changed = settings_of({"max_new": 3, "tenants": ("south",)})
    asked.flow.app.reload(replace(asked.flow.app.settings, sources={"oa": changed}))
    assert (asked.round().taken_in, asked.events()) == (1, {"south": "reconciled"})
    assert asked.position().to_confirm == 0
    skipped = {(name[:-1], rule) for name, (disposition, rule) in asked.book().items() if disposition == "skipped"}
    assert skipped == {("cancelled", "end_state"), ("child", "child"), ("north", "tenant")}
