"""Filters by attempts: the plugin that ran them, why they were started, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import event

from flowhooks import OutcomeKind, State
from flowhooks.errors import SettingsError
from flowhooks.ledger import search
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.delivery import Trigger
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.operations.bulk import plan_operation
from flowhooks.operations.context import Actor
from flowhooks.operations.purge import purge
from support.run_bulk import run_bulk


class Versions:
    """A ledger whose events were run by two versions of two plugins."""

    def __init__(self, ledger_steps):
        self.ledger_steps = ledger_steps
        self.ids = {}

    def ran(self, name, handler, *versions, state=State.SUCCEEDED, trigger=None, ago=0):
        """Store an event whose attempts were made by these versions of a plugin."""
        ledger_steps = self.ledger_steps
        ledger_steps.clock.time += 1_000_000
        self.ids[name], (queued,) = ledger_steps.accept(name, handler)
        for number, version in enumerate(versions, 1):
            ledger_steps.ledger._in_flight.plugin_versions = {handler: PluginVersion(version, "")}
            if number > 1:
                status = ledger_steps.delivery_status(queued.delivery_id)
                ledger_steps.ledger.write(
                    lambda transaction, status=status: ledger_steps.ledger.requeue(
                        transaction, [status], trigger=trigger, actor="ann", reset_retries=True
                    )
                )
            ledger_steps.ledger.claim(ledger_steps.queued(queued.delivery_id))
            end = State.DEAD if number < len(versions) else state
            kind = OutcomeKind.SUCCEEDED if end is State.SUCCEEDED else OutcomeKind.FAILED
            assert ledger_steps.settle(queued, number, kind, end)
        if ago:
            ledger_steps.sql(
                "UPDATE attempts SET started_at = started_at - ? WHERE delivery_id = ?", ago, queued.delivery_id
            )

    def found(self, **wanted):
        """The names of the events that match a filter, in each of the listings."""
        names = {event_id: name for name, event_id in self.ids.items()}
        event_filter = EventFilter(**wanted)
        listed = [names[stored.event.id] for stored in self.ledger_steps.ledger.find(event_filter, limit=100)]
        with self.ledger_steps.ledger.connection() as connection:
            page = search_events(connection, event_filter, limit=100, window=2, time_budget=60)
        assert [names[event.id] for event in page.events] == listed
        assert self.ledger_steps.ledger.count_events(event_filter) == len(listed)
        assert [names[stored.event.id] for stored in self.ledger_steps.ledger.page(event_filter, limit=100)] == listed[
            ::-1
        ]
        return sorted(listed)


@pytest.fixture
def versions(ledger_steps):
    """Events that different versions ran, for different reasons."""
    stored = Versions(ledger_steps)
    stored.ran("old", "contracts:archive", "1.4")
    stored.ran("new", "contracts:archive", "2.0")
    stored.ran("repaired", "contracts:archive", "2.0", "2.1", trigger=Trigger.REPLAY)
    stored.ran("wrong", "contracts:archive", "1.4", "2.0", trigger=Trigger.REPEATED, state=State.DEAD)
    stored.ran("other", "contract_s:archive", "2.0", ago=3_600_000_000)
    stored.ids["fresh"], _ = ledger_steps.accept("fresh", "contracts:archive")
    return stored


@pytest.mark.parametrize("few", [0, search.MAX_CANDIDATES])
def test_each_filter_selects_its_matches(versions, monkeypatch, few):
    """`plugin` is about any attempt, `ran_by` about the last one; criteria of one attempt apply together."""
    monkeypatch.setattr(search, "MAX_CANDIDATES", few)
    found = versions.found
    assert found(plugin="contracts==2.0") == ["new", "repaired", "wrong"]
    assert found(plugin="contracts") == ["new", "old", "repaired", "wrong"]
    assert found(ran_by="contracts == 2.0") == ["new", "wrong"]
    assert found(ran_by="contracts") == ["new", "old", "repaired", "wrong"]
    assert found(ran_by="contract_s==2.0") == ["other"]
    assert found(trigger="replay") == ["repaired"]
    assert found(trigger="repeated", state="dead") == ["wrong"]
    assert found(trigger="first") == ["new", "old", "other", "repaired", "wrong"]
    assert found(trigger="replay", plugin="contracts==2.0") == []
    assert found(trigger="replay", plugin="contracts==2.1") == ["repaired"]
    assert found(state="dead", ran_by="contracts==2.0") == ["wrong"]
    assert found(state="succeeded", ran_by="contracts==2.0") == ["new"]
    assert found(state="waiting", ran_by="contracts==2.0") == []
    assert found(state="parked", ran_by="contracts==2.0") == []
    assert found(origin="reconciled", ran_by="contracts==2.0") == []
    now = versions.ledger_steps.clock.now()
    assert found(attempted_since=now - 60_000_000) == ["new", "old", "repaired", "wrong"]
    assert found(attempted_since=now + 1) == []
    assert found(attempted_since=now - 4_000_000_000, plugin="contract_s==2.0") == ["other"]


@pytest.mark.either
def test_a_replay_runs_only_deliveries_last_run_by_one_version(versions):
    """One command runs again what one version did wrong; no other delivery of the same events runs."""
    ledger_steps = versions.ledger_steps
    ann = replace(ledger_steps.flow.app.operation_context, by=Actor("ann", "cli"))
    two, (queued, other) = ledger_steps.accept("two", "contracts:archive", "mail:send")
    for delivery, version in ((queued, "2.0"), (other, "2.0")):
        ledger_steps.ledger._in_flight.plugin_versions = {delivery.handler: PluginVersion(version, "")}
        ledger_steps.bring(delivery, State.SUCCEEDED)
    wanted = EventFilter(ran_by="contracts==2.0")
    assert plan_operation(ann, BulkAction.REPLAY, wanted).planned == 1
    assert run_bulk(ann, BulkAction.RERUN, wanted).released == 3
    waiting = {stored.event.id for stored in ledger_steps.ledger.find(EventFilter(state="waiting"), limit=9)}
    assert waiting == {versions.ids[name] for name in ("new", "wrong", "fresh")} | {two}
    assert ledger_steps.delivery_status(other.delivery_id).state is State.SUCCEEDED
    first = EventFilter(trigger="first", handler="mail:send")
    assert run_bulk(ann, BulkAction.RERUN, first).released == 1


@pytest.mark.either
def test_suspended_deliveries_are_closed_by_an_attempt_filter(versions):
    """Of the suspended deliveries, only those with a matching attempt are closed."""
    ledger_steps = versions.ledger_steps
    for name in ("wrong", "fresh"):
        ledger_steps.sql(
            "UPDATE deliveries SET state = 'waiting', due_at = NULL WHERE event_id = ?", versions.ids[name]
        )
    suspended = EventFilter(state="suspended", ran_by="contracts==2.0")
    assert run_bulk(ledger_steps.flow.app.operation_context, BulkAction.CLOSE, suspended).released == 1
    assert ledger_steps.ledger.delivery_statuses(versions.ids["fresh"])[0].state is State.WAITING


@pytest.mark.either
def test_an_invalid_filter_is_rejected(ledger_steps):
    """A plugin, trigger or time that cannot be is refused; a purge does not select by attempts."""
    for wrong in ({"plugin": "a b"}, {"ran_by": "contracts=="}, {"plugin": ""}, {"trigger": "again"}):
        with pytest.raises(SettingsError):
            EventFilter(**wrong)
    with pytest.raises(SettingsError):
        EventFilter(attempted_since=2**61)
    with pytest.raises(SettingsError, match="cannot select events by ran_by"):
        purge(ledger_steps.flow.app.operation_context, EventFilter(until=1, ran_by="contracts"))


@pytest.mark.sqlite
def test_no_search_reads_all_attempts(versions):
    """Each statement reads attempts by their delivery, or by the index of the rare triggers."""
    ledger_steps, asked = versions.ledger_steps, []
    event.listen(ledger_steps.ledger._engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
    for wanted in (
        {"plugin": "contracts==2.0"},
        {"ran_by": "contracts==2.0"},
        {"ran_by": "contracts==2.0", "state": "dead"},
        {"trigger": "replay"},
        {"trigger": "retry"},
        {"attempted_since": 1},
    ):
        with ledger_steps.ledger.connection() as connection:
            search_events(connection, EventFilter(**wanted), limit=3, before="g", window=2)
    plans = [
        row[-1] for statement, values in asked for row in ledger_steps.sql(f"EXPLAIN QUERY PLAN {statement}", *values)
    ]
    assert any("attempts_requested" in line for line in plans)
    assert [line for line in plans if line.startswith(("SCAN attempts", "SCAN deliveries", "SCAN events"))] == []
