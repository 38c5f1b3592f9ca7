"""The rules of reconciliation, each with an engine in memory and a clock moved by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flowhooks.clock import DAY, SECOND, to_datetime
from flowhooks.errors import EngineError, NotFound, SettingsError, Unavailable
from flowhooks.ledger import history_gaps
from flowhooks.ledger.purge import PURGED_BY_DEFAULT
from flowhooks.model.engine import EndState, EngineInfo, FinishedInstance, FinishedPage
from flowhooks.operations.engines import confirm_reconciliation
from flowhooks.settings.signing_keys import Secret
from support.app_harness import plugin
from support.asked_engine import MINUTE, grant, settings_of
from support.silent_engine import SilentClient

pytestmark = pytest.mark.either
HOUR = 3600
COMPLETED = EndState.COMPLETED


def windows(engine):
    """The window of each page that was asked for."""
    return [call[1:3] for call in engine.calls if call[0] == "finished"]


def empty_pages(engine, names):
    """Pages without instances, each with a cursor of its own."""
    cursors = [json.dumps(["2026-01-01T00:00:00+00:00", str(name)]) for name in names]
    return [FinishedPage(instances=(), cursor=cursor, engine_time=engine.now()) for cursor in cursors]


class LocalTimeEngine(SilentClient):
    """Stores end times in local time without a zone; when the clocks go back, an hour of them is ambiguous."""

    def __init__(self, clock):
        self.clock = clock
        self.ends = {}

    def finish(self, instance_id):
        """End an instance now."""
        self.ends[instance_id] = self.to_local(to_datetime(self.clock.now()))

    @staticmethod
    def to_local(time):
        """A time as the engine stores it: in Berlin, where the clocks go back at one o'clock UTC."""
        return (time + timedelta(hours=2 if time < datetime(2026, 10, 25, 1, tzinfo=UTC) else 1)).replace(tzinfo=None)

    @staticmethod
    def to_utc(local):
        """A stored time; an ambiguous one counts as standard time."""
        is_summer = local < datetime(2026, 10, 25, 2)  # noqa: DTZ001 (local time)
        return (local - timedelta(hours=2 if is_summer else 1)).replace(tzinfo=UTC)

    def finished(self, since, until, cursor=None):
        """The instances whose stored time lies between the two."""
        first, last = self.to_local(since), self.to_local(until)
        found = sorted((end, name) for name, end in self.ends.items() if first <= end <= last)
        instances = [FinishedInstance(id=name, ended_at=self.to_utc(end), end_state=COMPLETED) for end, name in found]
        return FinishedPage(instances=tuple(instances), engine_time=to_datetime(self.clock.now()))


# Instances and events.


def test_a_finished_instance_that_nobody_called_for_becomes_an_event(asked):
    """After its grace, and not before, an instance of the history is an event with its data, once."""
    asked.finish("i1", variables={"amount": 5, "other": 1, "conclusion": "approved"}, business_key="b1")
    assert asked.round().in_grace == 1
    assert asked.events() == {}
    assert asked.after_grace().taken_in == 1
    assert asked.events() == {"i1": "reconciled"}
    assert asked.book() == {"i1": ("has_event", "")}
    event = asked.flow.app.ledger.event(asked.flow.events()[0]).event
    named = ("amount", "conclusion", "businessKey", "endState", "endTime")
    assert [event.data.get(name) for name in named] == [5, "approved", "b1", "completed", "2026-01-01T00:01:00.000Z"]
    assert "other" not in event.data
    assert asked.after_grace().taken_in == 0
    assert len(asked.flow.events()) == 1


def test_an_instance_that_called_has_its_event(asked):
    """A callback before or after the first reading is the instance's event, whatever class it has."""
    asked.flow.take("i1", source="oa", wait=0)
    asked.finish("i1")
    asked.finish("i2")
    result = asked.round()
    assert (result.has_event, result.in_grace) == (1, 1)
    asked.flow.take("i2", source="oa", callback_class="com.example.Other", wait=0)
    assert asked.book()["i2"] == ("has_event", "")
    assert asked.after_grace().taken_in == 0
    assert asked.events() == {"i1": "callback", "i2": "callback"}


def test_an_event_of_another_source_is_not_the_instances_event(asked):
    """The same instance id of another engine is another instance."""
    asked.flow.take("i1", source="other", wait=0)
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_a_mapped_conclusion(opened):
    """The book and the event have the conclusion in the words of the settings, the data the engine's."""
    asked = opened(sources={"oa": settings_of(conclusion={"agree": "approved"})})
    asked.round()
    asked.finish("i1", variables={"conclusion": "agree"})
    asked.round()
    assert asked.flow.sql("SELECT conclusion FROM engine_instances") == [("approved",)]
    asked.after_grace()
    assert asked.flow.sql("SELECT conclusion FROM events") == [("approved",)]


def test_an_undecided_end_is_parked(asked):
    """An instance whose end the history cannot tell is an event that waits for an operator."""
    asked.finish("i1", end_state=EndState.UNDECIDED)
    asked.round()
    asked.after_grace()
    assert asked.flow.sql("SELECT state, parked_by, kind FROM events") == [("parked", "end_state", "complete")]


def test_an_older_event_is_not_the_event_of_a_reused_id(asked, logged):
    """If an event was received before the instance started, the instance is taken in, and the log names the id."""
    asked.flow.take("i1", source="oa", wait=0)
    asked.clock.advance(HOUR)
    asked.engine.start("i1")
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert len(asked.flow.events()) == 2
    assert [record["flow"] for record in logged if record["event"] == "instance_id_reused"] == ["i1"]


def test_an_id_that_ends_again_is_another_instance(asked):
    """An instance with the id of one that has an event is decided again, and is not lost."""
    asked.finish("i1")
    asked.round()
    asked.after_grace()
    asked.clock.advance(HOUR)
    asked.finish("i1")
    assert asked.round().in_grace == 1
    assert asked.after_grace().taken_in == 1
    assert asked.flow.sql("SELECT count(*) FROM events") == [(2,)]


# First contact, windows and pages.


def test_first_contact_takes_in_nothing_older(opened):
    """The position of a new source is now: an instance that ended before is never read."""
    asked = opened()
    asked.finish("old")
    asked.clock.advance(MINUTE)
    asked.round()
    assert asked.position().since == asked.clock.now()
    asked.clock.advance(2 * DAY // SECOND)
    asked.round()
    asked.after_grace()
    assert asked.book() == {}


@pytest.mark.parametrize("skew", [-HOUR, HOUR, -40, 40])
def test_the_engines_clock_counts(opened, logged, skew):
    """With a clock that is ahead or behind, first contact, window and grace are right, and the log says it once."""
    asked = opened()
    asked.engine.skew = timedelta(seconds=skew)
    asked.finish("old")
    asked.clock.advance(MINUTE)
    asked.round()
    assert asked.position().since == asked.clock.now() + skew * SECOND
    assert asked.position().skew == skew * SECOND
    asked.clock.advance(MINUTE)
    asked.finish("new")
    asked.round()
    asked.clock.advance(119)
    assert asked.round().taken_in == 0
    asked.clock.advance(2)
    assert asked.round().taken_in == 1
    assert asked.book() == {"new": ("has_event", "")}
    assert len([record for record in logged if record["event"] == "engine_clock_skew"]) == 1


@pytest.mark.parametrize("every", [5, 30])
def test_an_engines_clock_that_was_ahead(asked, every):
    """After a correction of the engine's clock the next round reads what ended since the one before."""
    asked.engine.skew = timedelta(hours=20)
    for _ in range(3):
        asked.clock.advance(5 * MINUTE)
        asked.round()
    asked.engine.skew = timedelta(0)
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.clock.advance(every * MINUTE)
    asked.round()
    assert "i1" in asked.book()
    assert asked.position().read_until == asked.clock.now()


def test_an_engines_clock_that_was_ahead_at_first_contact(opened):
    """The first contact is not later than now."""
    asked = opened()
    asked.engine.skew = timedelta(hours=20)
    asked.round()
    asked.engine.skew = timedelta(0)
    asked.clock.advance(MINUTE)
    asked.round()
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_our_clock_was_ahead(asked, logged, monkeypatch):
    """If the engine tells no time, a correction of our clock by more than a day loses nothing, and is recorded."""
    asked.engine.gives_time = False
    now = asked.clock.now
    with monkeypatch.context() as patch:
        patch.setattr(asked.clock, "now", lambda: now() + 30 * HOUR * SECOND)
        asked.round()
    asked.finish("i1")
    asked.clock.advance(5 * MINUTE)
    assert asked.round().read == 1
    assert asked.position().swept_at == asked.position().read_until == asked.clock.now()
    assert [record["reason"] for record in logged if record["event"] == "history_gap"] == ["invalid"]
    assert asked.gaps() == [("invalid", True)]


@pytest.mark.parametrize("skew", [-HOUR, 20 * MINUTE])
def test_the_first_contact_is_corrected_once(opened, skew):
    """Rounds that fail after the first answer do not move the first contact again."""
    asked = opened()
    asked.engine.skew = timedelta(seconds=skew)
    first = asked.clock.now() + skew * SECOND
    for _ in range(3):
        position = asked.position()
        asked.engine.fail(method="finished", after=1 if position is None or position.skew is None else 0)
        asked.failed()
        asked.engine.recover()
        asked.clock.advance(MINUTE)
    assert asked.position().since == first
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_an_engine_that_tells_no_time(opened):
    """Without the engine's time, its clock counts as equal to ours."""
    asked = opened()
    asked.engine.gives_time = False
    asked.round()
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_an_instance_from_the_future_is_taken_in(asked):
    """A wrong end time cannot postpone an instance by more than the grace after it was first read."""
    asked.engine.gives_time = False
    asked.engine.skew = timedelta(seconds=-1)
    asked.finish("i1", ended_at=to_datetime(asked.clock.now() + SECOND))
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_each_window_overlaps_the_one_before(asked):
    """A transaction that commits within ten minutes after its end time is found."""
    asked.clock.advance(20 * MINUTE)
    asked.round()
    asked.finish("slow", visible=False)
    asked.clock.advance(5 * MINUTE)
    asked.round()
    asked.engine.commit("slow")
    asked.clock.advance(4 * MINUTE)
    assert asked.round().taken_in == 1
    since, until = windows(asked.engine)[-1]
    assert until - since == timedelta(minutes=14)


def test_one_sweep_a_day(asked):
    """Once a day the last 24 hours are read again, which finds what committed hours later."""
    asked.clock.advance(2 * DAY // SECOND)
    asked.round()
    asked.finish("slow", visible=False)
    asked.clock.advance(2 * HOUR)
    asked.round()
    asked.engine.commit("slow")
    asked.clock.advance(MINUTE)
    assert asked.round().read == 0
    asked.clock.advance(22 * HOUR - MINUTE)
    assert asked.round().taken_in == 1
    since, until = windows(asked.engine)[-1]
    assert until - since == timedelta(days=1)
    asked.clock.advance(MINUTE)
    asked.round()
    since, until = windows(asked.engine)[-1]
    assert until - since == timedelta(minutes=11)


@pytest.mark.parametrize("every", [5, 15, 30])
def test_an_engine_that_stores_local_times(harness, clock, every):
    """When the clocks go back, an interval can look empty in local time; each instance is read within two hours."""
    clock.advance((datetime(2026, 10, 24, 23, tzinfo=UTC) - to_datetime(clock.now())).total_seconds())
    engine = LocalTimeEngine(clock)
    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": lambda config: engine})}
    flow = harness.open(plugins=plugins, sources={"oa": settings_of()}, start=False)
    flow.app.reconciliation.reconcile_now("oa")
    for minutes in range(5, 420, 5):
        clock.advance(5 * MINUTE)
        if minutes <= 240:
            engine.finish(f"i{minutes}")
        if minutes % every == 0:
            assert flow.app.reconciliation.reconcile_now("oa").error == ""
    assert flow.sql("SELECT count(*) FROM engine_instances") == [(48,)]


def test_pages_and_repeats(opened):
    """All pages are read; an instance on two pages, or that ends twice on a page, is one instance."""
    asked = opened({"page_size": 3})
    asked.round()
    asked.clock.advance(1)
    for number in range(10):
        asked.finish(f"i{number}")
    asked.finish("twice")
    asked.clock.advance(0.001)
    asked.finish("twice")
    result = asked.round()
    assert result.in_grace == len(asked.book()) == 11
    assert len([call for call in asked.engine.calls if call[0] == "finished"]) == 2 + 4
    assert asked.after_grace().taken_in == 11


def test_many_pages_without_instances(asked):
    """A client that leaves out other tenants can have any number of pages without an instance."""
    asked.engine.answer_with(*empty_pages(asked.engine, range(150)))
    asked.finish("i1")
    assert asked.round().in_grace == 1


def test_a_cursor_that_comes_again_is_an_error(asked):
    """A client whose cursors repeat has no last page."""
    asked.engine.answer_with(*empty_pages(asked.engine, "aba"))
    assert asked.failed().error == "the pages of the engine client make no progress"


def test_an_interrupted_reading_continues(opened):
    """If a later page fails, the pages before it are in the book, and the next round reads on from there."""
    asked = opened({"page_size": 2})
    asked.round()
    for number in range(60):
        asked.clock.advance(MINUTE)
        asked.finish(f"i{number:02}")
    asked.engine.fail(method="finished", after=20)
    asked.failed()
    assert len(asked.book()) == 40
    asked.engine.recover()
    before = len(windows(asked.engine))
    asked.round()
    assert len(asked.book()) == 60
    assert len(windows(asked.engine)) - before == 16


def test_the_position_waits_for_instances_in_grace(asked):
    """The position is the end of the window, but not after the end of an instance that is not decided."""
    asked.round()
    assert asked.position().position == asked.clock.now()
    asked.finish("i1")
    ended_at = asked.clock.now()
    asked.clock.advance(MINUTE)
    asked.round()
    assert (asked.position().position, asked.position().read_until) == (ended_at, asked.clock.now())
    asked.after_grace()
    assert asked.position().position == asked.clock.now()


# Grace.


def test_grace_counts_from_our_own_readiness(opened):
    """After a start of the server, the engine gets the time to call again."""
    asked = opened()
    asked.round()
    asked.finish("i1")
    asked.round()
    asked.clock.advance(HOUR)
    asked.flow.close()
    asked = opened({"reconcile_every": 86_400.0}, start=True)
    assert asked.round().taken_in == 0
    asked.clock.advance(119)
    assert asked.round().taken_in == 0
    asked.clock.advance(2)
    assert asked.round().taken_in == 1


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


def test_repeated_503s_extend_the_grace_by_an_hour_at_most(asked):
    """An instance waits for the engine's next call, and is taken in an hour after its own grace; the round says so."""
    asked.finish("i1")
    rejected = asked.flow.app.rejected_requests
    for minutes in range(2, 62, 5):
        asked.clock.advance(5 * MINUTE if minutes > 2 else 2 * MINUTE)
        rejected.record(path="/flow/x/call-back/complete", address="", status=503, english="x", chinese="x", source="")
        rejected.flush()
        assert (asked.flow.app.readiness_problems(), asked.round().waiting, asked.events()) == ([], 1, {})
    asked.clock.advance(5 * MINUTE)
    asked.finish("i2")
    assert (asked.round().waiting, asked.events()) == (0, {"i1": "reconciled"})


def test_a_server_that_is_not_ready_extends_the_grace_by_an_hour_at_most(asked):
    """A server that stays without a problem to be solved by itself does not stop reconciliation."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(62 * MINUTE)
    asked.service.report_not_ready()
    assert asked.round().taken_in == 1


@pytest.mark.parametrize("calls", [True, False])
def test_a_command_without_a_server_leaves_time_to_call(opened, calls):
    """A command takes in only instances whose grace ended while a server ran, unless the engine cannot call."""
    source = settings_of() if calls else settings_of(token_sha256=())
    asked = opened(sources={"oa": source})
    asked.round()
    asked.finish("early")
    asked.clock.advance(121)
    asked.finish("late")
    asked.flow.close()
    asked.clock.advance(HOUR)
    command = opened(sources={"oa": source})
    command.flow.sql("UPDATE processes SET heartbeat_at = 0")
    command.flow.sql("UPDATE processes SET kind = 'command' WHERE stopped_at IS NULL")
    result = command.round()
    assert (result.taken_in, result.waiting) == ((1, 1) if calls else (2, 0))


# Confirmation.


def test_instances_that_wait_for_an_operator_stay_counted(opened):
    """A restart or a 503 does not end the wait for a confirmation."""
    asked = opened({"max_new": 3})
    asked.round()
    for number in range(4):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().to_confirm == 4
    asked.service.report_not_ready()
    assert asked.round().to_confirm == asked.position().to_confirm == 4
    asked.service.confirm("oa")
    assert asked.after_grace().taken_in == 4


def test_many_new_instances_wait_for_an_operator(opened, logged):
    """Above max_new nothing is taken in before an operator confirms; what appears later counts by itself."""
    asked = opened({"max_new": 3})
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


def test_what_was_not_counted_is_not_confirmed(opened):
    """A confirmation covers the instances that the round has counted, and none whose grace had not ended by then."""
    asked = opened({"max_new": 3})
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


def test_what_was_shown_is_confirmed(opened):
    """Instances that later rounds have counted between the question and its answer are not confirmed with it."""
    asked = opened({"max_new": 3})
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


def test_a_dry_run_counts_what_waits(opened):
    """A dry run counts the instances that earlier rounds have read, however long ago they ended."""
    asked = opened({"max_new": 3})
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


def test_max_new_itself_needs_no_confirmation(opened):
    """Exactly max_new instances are taken in."""
    asked = opened({"max_new": 3})
    asked.round()
    for number in range(3):
        asked.finish(f"i{number}")
    asked.round()
    assert asked.after_grace().taken_in == 3


def test_waiting_instances_that_the_settings_no_longer_allow(opened):
    """Rules are applied again before an instance is taken in: one that waits for an operator may be skipped by then."""
    section = {"max_new": 3, "children": True, "kinds": ("complete", "cancel")}
    asked = opened(section)
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


# Rules that skip an instance.


def test_children_are_skipped(asked):
    """An instance that another one called is skipped by the rule that names it."""
    asked.finish("child", parent_id="parent")
    assert asked.round().skipped == {"child": 1}
    assert asked.after_grace().taken_in == 0
    assert asked.book() == {"child": ("skipped", "child")}


def test_children_are_taken_in_if_the_settings_say_so(opened):
    """With children = true a called instance is like any other."""
    asked = opened({"children": True})
    asked.round()
    asked.finish("child", parent_id="parent")
    asked.round()
    assert asked.after_grace().taken_in == 1


@pytest.mark.parametrize(("state", "kind"), [("cancelled", "cancel"), ("error", "error"), ("terminated", "terminate")])
def test_other_ends_are_skipped(asked, opened, state, kind):
    """Instances that ended otherwise are skipped, unless the settings name their kind."""
    asked.finish("i1", end_state=EndState(state))
    assert asked.round().skipped == {"end_state": 1}
    asked.flow.close()
    asked = opened({"kinds": ("complete", kind)})
    asked.finish("i2", end_state=EndState(state))
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert asked.flow.sql("SELECT flow_instance_id, kind FROM events") == [("i2", kind)]


def test_other_tenants_are_skipped(opened, engine, monkeypatch):
    """A client that returns instances of other tenants does not make them events."""
    create = engine.client
    monkeypatch.setattr(engine, "client", lambda config: create(replace(config, tenants=())))
    asked = opened({"tenants": ("north",)})
    asked.round()
    asked.finish("i1", tenant_id="north")
    asked.finish("i2", tenant_id="south")
    asked.finish("i3")
    asked.round()
    asked.after_grace()
    assert asked.book() == {
        "i1": ("has_event", ""),
        "i2": ("skipped", "tenant"),
        "i3": ("skipped", "tenant"),
    }


def test_an_instance_that_was_purged_is_not_taken_in_again(asked):
    """After its event was purged, an instance in the history stays without a new event."""
    asked.flow.take("i1", source="oa", key=None, callback_class="c", wait=0)
    ledger = asked.flow.app.ledger
    asked.flow.sql("UPDATE events SET state = 'dismissed', dismissed_by = 'operator', parked_by = NULL")
    asked.harness.check_books = False
    cutoffs = dict.fromkeys(PURGED_BY_DEFAULT, asked.clock.now() + DAY)
    ids = asked.flow.events()
    ledger.write(lambda transaction: ledger.purge(transaction, ids, cutoffs))
    assert asked.flow.events() == []
    asked.finish("i1")
    assert asked.round().skipped == {"purged": 1}
    assert asked.after_grace().taken_in == 0


@pytest.mark.parametrize(
    ("fields", "rule", "says"),
    [
        ({"instance_id": "a" * 300}, "invalid_id", "255"),
        ({"instance_id": "a\nb"}, "invalid_id", "U+000A"),
        ({"instance_id": "x\0y" * 300_000}, "invalid_id", "U+0000"),
        ({"variables": {"amount": "x" * 10_000_000}}, "too_large", "65,536 are allowed"),
        ({"variables": {"amount": "a\0b"}}, "invalid", ""),
        ({"variables": {"amount": "\ud800"}}, "invalid", ""),
        ({"variables": {"amount": float("nan")}}, "invalid", "JSON"),
        ({"variables": {"amount": object()}}, "invalid", "JSON"),
        ({"conclusion": "x" * 129}, "invalid", "128"),
        ({"process_definition_version": 2**40}, "invalid", "2147483647"),
        ({"business_key": "a\0b"}, "invalid", ""),
        ({"tenant_id": "\0" * 1_000_000}, "invalid", ""),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else None,
)
def test_an_instance_that_no_callback_can_be_is_skipped_with_the_reason(asked, fields, rule, says):
    """Ids, values and sizes that the API would refuse are skipped, in every database, and the others are taken in."""
    given = dict(fields)
    asked.finish(given.pop("instance_id", "bad"), **given)
    asked.finish("good")
    result = asked.round()
    assert result.skipped == {rule: 1}
    ((detail,),) = asked.flow.sql("SELECT detail FROM engine_instances WHERE rule <> ''")
    assert says in detail
    assert len(detail) <= 500
    assert asked.after_grace().taken_in == 1
    assert asked.events() == {"good": "reconciled"}
    assert asked.round().skipped == {rule: 1}
    assert len(asked.book()) == 2


def test_skipped_instances_are_decided_again_only_when_an_operator_asks(opened):
    """After a change of the settings, instances that were skipped stay skipped until `since` reaches them."""
    asked = opened()
    asked.round()
    asked.clock.advance(1)
    asked.finish("child", parent_id="p")
    asked.round()
    asked.flow.close()
    asked = opened({"children": True})
    assert asked.round().skipped == {"child": 1}
    assert asked.round(since=asked.clock.now() - HOUR * SECOND).in_grace == 1
    assert asked.after_grace().taken_in == 1


# An operator's rounds.


def test_older_instances_are_taken_in_on_request(opened):
    """After a dry run that changes nothing, a round with `since` takes in what ended before the first contact."""
    asked = opened()
    asked.finish("old")
    asked.clock.advance(HOUR)
    asked.round()
    since = asked.clock.now() - 2 * HOUR * SECOND
    planned = asked.round(since=since, dry_run=True)
    assert (planned.read, planned.in_grace, planned.taken_in, planned.dry_run) == (1, 1, 1, True)
    assert planned.requests == 2
    assert asked.book() == {}
    assert asked.position().since == asked.clock.now()
    assert asked.round(since=since).taken_in == 1
    assert asked.position().since == since
    assert asked.events() == {"old": "reconciled"}


def test_a_dry_run_before_the_first_contact(opened):
    """A dry run needs no earlier round, and does not make the first contact."""
    asked = opened({"max_new": 1})
    asked.finish("old")
    asked.finish("older")
    result = asked.round(since=asked.clock.now() - HOUR * SECOND, dry_run=True)
    assert (result.in_grace, result.to_confirm) == (2, 2)
    assert asked.position() is None


def test_since_does_not_skip_what_was_not_read(asked):
    """A start later than the regular one does not leave a hole."""
    asked.finish("i1")
    asked.clock.advance(HOUR)
    assert asked.round(since=asked.clock.now()).read == 1


def test_no_round_reaches_back_before_the_kept_identities(opened):
    """A time at which purged events are not known any more is not read, also if an operator asks."""
    asked = opened(retention={"identities": 30})
    asked.finish("old")
    asked.clock.advance(31 * DAY // SECOND)
    asked.round()
    assert asked.round(since=asked.clock.now() - 60 * DAY).read == 0
    assert windows(asked.engine)[-1][0] == to_datetime(asked.clock.now() - 30 * DAY)


def test_the_kept_identities_can_change(opened):
    """After SIGHUP no round reads back before the identities that the purge keeps then."""
    asked = opened(retention={"identities": 30})
    asked.finish("old")
    asked.clock.advance(5 * DAY // SECOND)
    asked.round()
    settings = asked.flow.app.settings
    asked.flow.app.reload(replace(settings, retention=replace(settings.retention, identities=1)))
    assert asked.round(since=asked.clock.now() - 6 * DAY).read == 0
    assert windows(asked.engine)[-1][0] == to_datetime(asked.clock.now() - DAY)


def test_an_unknown_source(asked):
    """The entry points name the sources that have an engine."""
    for act in (asked.service.reconcile_now, asked.service.confirm, asked.service.client):
        with pytest.raises(NotFound, match="no source crm with an engine; the sources with one are: oa"):
            act("crm")


# Sources.


def test_a_renamed_source_keeps_its_events_and_its_position(opened):
    """With former_names, neither events nor instances in grace of the earlier name are taken in twice."""
    asked = opened(sources={"old": settings_of()})
    asked.round("old")
    asked.flow.take("called", source="old", wait=0)
    asked.finish("called")
    asked.finish("waits")
    asked.round("old")
    first = asked.position("old").since
    asked.flow.close()
    asked.clock.advance(121)
    asked = opened(sources={"new": settings_of(former_names=("old",))})
    assert asked.round("new").taken_in == 1
    assert (asked.position("new").since, asked.position("old")) == (first, None)
    assert asked.events() == {"called": "callback", "waits": "reconciled"}
    assert asked.flow.sql("SELECT source FROM engine_instances WHERE flow_instance_id = 'waits'") == [("new",)]


def test_a_source_that_gets_its_former_name_back(opened):
    """Rows that it had under this name before do not hinder the instances in grace that it has under the other one."""
    asked = opened(sources={"oa": settings_of()})
    asked.round()
    asked.finish("i1", parent_id="p")
    asked.round()
    assert asked.book() == {"i1": ("skipped", "child")}
    sections = {
        name: settings_of({"children": True}, former_names=(former,)) for name, former in (("ob", "oa"), ("oa", "ob"))
    }
    asked.flow.close()
    asked = opened(sources={"ob": sections["ob"]})
    assert asked.round("ob").in_grace == 1
    asked.flow.close()
    asked = opened(sources={"oa": sections["oa"]})
    asked.clock.advance(121)
    assert asked.round("oa").taken_in == 1
    assert asked.flow.sql("SELECT source, disposition FROM engine_instances") == [("oa", "has_event")]


def test_a_pull_only_source(opened):
    """A source without a credential is reconciled like any other."""
    asked = opened(sources={"oa": settings_of(token_sha256=())})
    asked.round()
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_a_secret_file_is_read_again(harness, engine, tmp_path, logged):
    """After SIGHUP the client has the new password, though the settings name the same file."""
    file = tmp_path / "password"
    file.write_text("old")
    file.chmod(0o600)
    passwords = []

    def client(config):
        passwords.append(config.password)
        return engine.client(config)

    sources = {"oa": settings_of({"username": "u", "password": Secret(file=str(file))})}
    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": client})}
    flow = harness.open(plugins=plugins, sources=sources, start=False)
    flow.app.reload(flow.app.settings)
    file.write_text("new")
    flow.app.reload(flow.app.settings)
    assert passwords == ["old", "new"]
    file.unlink()
    flow.app.reload(flow.app.settings)
    assert flow.app.reconciliation.reconcile_now("oa").error == ""
    assert [record["event"] for record in logged].count("engine_client_refused") == 1


def test_two_sources_are_reconciled_each_by_itself(opened, engine):
    """Each source has its own position and its own instances."""
    asked = opened(sources={"a": settings_of({"tenants": ("a",)}), "b": settings_of({"tenants": ("b",)})})
    asked.round("a")
    asked.round("b")
    asked.finish("i1", tenant_id="a")
    asked.finish("i1", tenant_id="b")
    for source in ("a", "b"):
        assert asked.round(source).in_grace == 1
    asked.clock.advance(121)
    for source in ("a", "b"):
        assert asked.round(source).taken_in == 1
    assert asked.flow.sql("SELECT source FROM events ORDER BY source") == [("a",), ("b",)]


# Errors and gaps.


@pytest.mark.parametrize("reason", ["unreachable", "refused", "invalid"])
def test_an_error_of_the_engine_is_recorded_and_loses_nothing(asked, logged, reason):
    """A round that fails records the reason, leaves the position, and the next one reads the same window."""
    before = asked.position()
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.engine.fail(EngineError(reason, "401 of GET /history"))
    failed_at = asked.clock.now()
    assert asked.failed().reason == reason
    asked.clock.advance(MINUTE)
    asked.failed()
    position = asked.position()
    assert (position.reason, position.error, position.failures) == (reason, "401 of GET /history", 2)
    assert (position.failed_since, position.read_until) == (failed_at, before.read_until)
    assert len([record for record in logged if record["event"] == "reconciliation_failed"]) == 1
    asked.engine.recover()
    assert asked.round().in_grace == 1
    position = asked.position()
    assert (position.reason, position.failures, position.failed_since) == ("", 0, None)
    assert [record["event"] for record in logged].count("reconciliation_recovered") == 1
    assert asked.after_grace().taken_in == 1


def test_a_history_that_cannot_tell_is_an_error(opened):
    """If the engine's history level is too low, no round reads it, and the error says what to do."""
    asked = opened()
    asked.engine.info = EngineInfo(product="Camunda", version="7.23", problem="Set the history level to audit.")
    assert asked.failed().error == "Camunda 7.23: Set the history level to audit."
    assert asked.position().reason == "invalid"
    asked.engine.info = EngineInfo(product="Camunda", version="7.23")
    asked.round()
    assert asked.position().product == "Camunda 7.23"


def test_a_long_failure_is_a_gap_until_it_is_read(asked, logged):
    """After more than an hour of failures the interval is a gap; it is closed when it was read after all."""
    asked.engine.fail(EngineError("refused", "401"))
    since = asked.position().read_until
    asked.failed()
    asked.clock.advance(HOUR)
    asked.failed()
    assert asked.gaps() == []
    asked.clock.advance(1)
    asked.failed()
    asked.clock.advance(MINUTE)
    asked.failed()
    assert asked.gaps() == [("refused", False)]
    assert asked.flow.sql("SELECT since, until FROM history_gaps") == [(since, asked.clock.now())]
    assert len([record for record in logged if record["event"] == "history_gap"]) == 1
    asked.engine.recover()
    asked.round()
    assert asked.gaps() == [("refused", True)]


def test_a_slow_schedule_has_a_gap_later(opened):
    """A gap opens only after three rounds that fail."""
    asked = opened({"reconcile_every": float(2 * HOUR)})
    asked.round()
    asked.engine.fail()
    for _ in range(4):
        asked.failed()
        assert asked.gaps() == []
        asked.clock.advance(2 * HOUR)
    asked.failed()
    assert asked.gaps() == [("unreachable", False)]


def test_a_callback_for_an_instance_that_the_history_lacks(asked):
    """A callback whose instance the engine does not know is a gap: its history may be deleted too early."""
    asked.flow.take("gone", source="oa", wait=0)
    asked.round()
    assert asked.gaps() == []
    asked.clock.advance(10 * MINUTE)
    asked.round()
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert asked.gaps() == [("deleted", False)]
    asked.clock.advance(10 * MINUTE)
    calls = len(asked.engine.calls)
    asked.round()
    assert [call[0] for call in asked.engine.calls[calls:]] == ["finished"]


def test_deleted_history_is_one_gap(asked):
    """Each round may find another callback without an instance; they are one gap, until none is found for a week."""
    for number in range(3):
        asked.flow.take(f"gone{number}", source="oa", wait=0)
        for _ in range(2):
            asked.clock.advance(10 * MINUTE)
            asked.round()
    (gap,) = asked.flow.sql("SELECT since, until, found_at FROM history_gaps")
    received = asked.flow.sql("SELECT min(received_at), max(received_at) FROM events")
    assert gap[:2] == received[0]
    asked.clock.advance(8 * DAY // SECOND)
    asked.flow.take("gone3", source="oa", wait=0)
    for _ in range(2):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert asked.gaps() == [("deleted", False)] * 2


def write_gap(asked, since, until, reason="refused", at=0):
    """Record a gap at a time in seconds."""
    now = asked.clock.now() + at * SECOND
    return asked.flow.app.ledger.write(
        lambda transaction: history_gaps.record(transaction, "oa", (since, until), reason=reason, detail="", now=now)
    )


def intervals(asked):
    """The interval and reason of each gap."""
    return asked.flow.sql("SELECT since, until, reason FROM history_gaps ORDER BY since")


def test_gaps_that_overlap_are_one(asked):
    """A gap that is found again is extended; the part that was read meanwhile is no part of it any more."""
    assert write_gap(asked, 100, 200)
    assert not write_gap(asked, 100, 300)
    assert not write_gap(asked, 150, 400)
    assert intervals(asked) == [(150, 400, "refused")]
    assert write_gap(asked, 500, 600)
    assert not write_gap(asked, 500, 700, "unreachable")
    assert intervals(asked) == [(150, 400, "refused"), (500, 700, "unreachable")]


def test_old_gaps_are_deleted(asked):
    """A gap that is closed, or that nothing can close, is deleted after 90 days; an open one stays."""
    write_gap(asked, 100, 200)
    write_gap(asked, 300, 400, "deleted")
    write_gap(asked, 500, 600)
    asked.flow.app.ledger.write(lambda transaction: history_gaps.close(transaction, "oa", 500, asked.clock.now()))
    write_gap(asked, 700, 800, "invalid", at=91 * DAY // SECOND)
    assert intervals(asked) == [(100, 200, "refused"), (700, 800, "invalid")]


def test_a_renamed_source_keeps_its_gaps(asked):
    """The gaps of the former name are those of the source, so their alert stays."""
    write_gap(asked, 100, 200)
    settings = replace(asked.flow.app.settings, sources={"ob": settings_of(former_names=("oa",))})
    asked.flow.app.reload(settings)
    asked.round("ob")
    assert asked.flow.sql("SELECT source, since FROM history_gaps") == [("ob", 100)]


def test_a_callback_before_the_end_is_asked_about_until_it_ends(asked):
    """An instance that calls while it runs is no gap; its row is written when it has ended."""
    asked.engine.start("early")
    asked.flow.take("early", source="oa", wait=0)
    for _ in range(3):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert [call for call in asked.engine.calls if call[0] == "instance"] == [("instance", "early")] * 2
    asked.engine.before_call = lambda method: method == "instance" and asked.engine.finish("early")
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert (asked.gaps(), asked.book()) == ([], {"early": ("has_event", "")})


def test_a_callback_that_the_engine_cannot_tell_of_fails_no_round(asked, logged):
    """An error of the engine for one instance is logged, the others are asked about, and it is asked about again."""
    for name in ("bad", "gone"):
        asked.flow.take(name, source="oa", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.round()
    asked.clock.advance(10 * MINUTE)
    asked.engine.fail(EngineError("invalid", "400 for this id"), method="instance", times=1)
    asked.round()
    assert [record["flow"] for record in logged if record["event"] == "instance_not_read"] == ["bad"]
    assert asked.flow.sql("SELECT detail LIKE '%gone%' FROM history_gaps") == [(1,)]
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert [call[1] for call in asked.engine.calls if call[0] == "instance"] == ["bad", "gone", "bad"]


def test_an_engine_that_tells_of_no_instance_is_asked_three_times(asked):
    """If each answer is an error, a round asks only three times; a later one asks about all of them."""
    for number in range(10):
        asked.flow.take(f"gone{number}", source="oa", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.round()
    asked.clock.advance(10 * MINUTE)
    asked.engine.fail(method="instance")
    asked.round()
    asked_about = lambda: [call[1] for call in asked.engine.calls if call[0] == "instance"]  # noqa: E731
    assert len(asked_about()) == 3
    asked.engine.recover()
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert len(set(asked_about())) == 10
    assert len(asked_about()) == 13


def test_at_most_a_hundred_callbacks_of_a_round_are_asked_about(asked):
    """Many callbacks without an instance cost a bounded number of requests in each round, and none is left out."""
    for number in range(150):
        asked.flow.take(f"gone{number}", source="oa", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.round()
    counts = []
    for _ in range(4):
        asked.clock.advance(10 * MINUTE)
        asked.round()
        counts.append(len([call for call in asked.engine.calls if call[0] == "instance"]))
    assert counts[-3:] in ([100, 150, 150], [150, 150, 150])


def test_a_page_from_a_cache_does_not_move_the_position(asked):
    """Yesterday's page again is refused, and an old empty page does not count as read."""
    asked.finish("i1")
    asked.round()
    yesterday = asked.engine.pages[-1]
    asked.clock.advance(2 * DAY // SECOND)
    asked.round()
    asked.finish("i2")
    asked.engine.answer_with(yesterday)
    assert "outside of the window" in asked.failed().error
    asked.clock.advance(HOUR)
    asked.engine.answer_with(replace(yesterday, instances=()))
    before = asked.position().read_until
    asked.service.reconcile_now("oa")
    assert asked.position().read_until == before
    asked.round()
    assert "i2" in asked.book()


def test_a_database_error_is_not_the_engines(asked, monkeypatch):
    """If an instance cannot be stored, the engine is not blamed, and the next round takes it in."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(121)

    def unavailable(callback):
        raise Unavailable("ledger_down")

    with monkeypatch.context() as patch:
        patch.setattr(asked.service._workers["oa"].reconciler._context, "take_in", unavailable)
        assert asked.failed().reason == "database"
    assert asked.position().failures == 0
    assert asked.round().taken_in == 1


def test_an_instance_that_cannot_be_stored_does_not_hold_up_others(asked, monkeypatch):
    """The other instances are taken in, and the round does not count as a success until all are stored."""
    for name in ("i1", "i2", "i3"):
        asked.finish(name)
        asked.clock.advance(1)
    asked.round()
    take_in = asked.flow.app.intake.take_in

    def refuse(callback):
        if callback.flow_instance_id == "i2":
            raise Unavailable("newer_handlers")
        return take_in(callback)

    with monkeypatch.context() as patch:
        patch.setattr(asked.service._workers["oa"].reconciler._context, "take_in", refuse)
        asked.clock.advance(121)
        for _ in range(3):
            assert asked.failed().reason == "database"
        assert asked.events() == {"i1": "reconciled", "i3": "reconciled"}
        assert asked.position().succeeded_at < asked.clock.now()
    assert asked.round().taken_in == 1
    assert asked.position().succeeded_at == asked.clock.now()


# Definitions and old rows.


def test_definitions_are_read_once_an_hour(asked):
    """The deployed definitions are in the ledger; an error in reading them fails no round."""
    read = lambda: json.loads(asked.flow.sql("SELECT definitions FROM engine_positions")[0][0])  # noqa: E731
    assert read() == []
    asked.engine.deploy("leave", 3, name="Leave")
    asked.round()
    assert read() == []
    asked.clock.advance(HOUR)
    asked.engine.fail(method="definitions", times=1)
    asked.round()
    asked.round()
    assert read() == [{"key": "leave", "version": 3, "name": "Leave", "tenant_id": None}]


def test_old_rows_of_the_book_are_deleted(opened):
    """Rows of decided instances are deleted when identities of purged events are, those in grace are kept."""
    asked = opened({"max_new": 1}, retention={"identities": 30})
    asked.round()
    asked.finish("child", parent_id="p")
    asked.finish("w1")
    asked.finish("w2")
    asked.round()
    asked.clock.advance(40 * DAY // SECOND)
    asked.round()
    assert asked.book() == {"w1": ("in_grace", ""), "w2": ("in_grace", "")}
