"""The audit log has the starts of servers with what has changed since the last one, and reloads of their settings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.cli.audit_text import describe
from flowhooks.ledger import audit
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.operations import server_audit
from flowhooks.settings import HttpSettings, OperatorSettings

OLD = {"contracts": PluginVersion("1.4", "a" * 64), "leave": PluginVersion("1.0", "")}
NEW = {"contracts": PluginVersion("2.0", "b" * 64), "mail": PluginVersion("", "c" * 64)}


def entries(flow):
    """The entries of the audit log, oldest first."""
    with flow.app.ledger.connection() as connection:
        return audit.entries(connection, limit=100)[::-1]


@pytest.fixture
def flow(harness):
    """An opened ledger."""
    return harness.open(start=False)


def started(flow, plugins, kind="server", **changed):
    """Record a start with these plugins and settings."""
    settings = replace(flow.app.settings, **changed)
    server_audit.record_start(flow.app.ledger, flow.clock, settings, plugins, kind=kind)


def test_a_start_records_changed_plugins_and_settings(flow):
    """Plugins with another version or digest, new ones, and ones that are gone; settings by name only."""
    started(flow, OLD)
    flow.advance(60)
    started(flow, OLD, kind="worker")
    flow.advance(60)
    started(
        flow,
        NEW,
        http=HttpSettings(threads=7),
        operators={"ann": OperatorSettings(role="view", password="$argon2id$secret")},
    )
    first, worker, last = entries(flow)
    assert (first.actor, first.interface, first.action) == ("flowhooks", "server", "start")
    assert "plugins_changed" not in first.detail
    assert "plugins_changed" not in worker.detail
    assert last.detail["plugins_changed"] == {
        "contracts": f"1.4 {'a' * 16} -> 2.0 {'b' * 16}",
        "leave": "1.0 -> -",
        "mail": f"- -> {'c' * 16}",
    }
    assert last.detail["settings_changed"] == ["http.threads", "operators.ann"]
    assert "secret" not in str(last.detail)
    assert str(flow.file) not in str(last.detail)
    text = describe(last)
    assert "plugins changed: contracts 1.4" in text
    assert text.endswith("; settings changed: http.threads, operators.ann")


@pytest.mark.either
def test_a_crash_loop_is_one_audit_entry(flow):
    """Equal starts within an hour, as of several processes, are counted in one entry."""
    for _ in range(50):
        started(flow, OLD)
        flow.advance(10)
    (entry,) = entries(flow)
    assert entry.detail["count"] == 50
    assert ", 50 times until 2026-01-01 00:08:10" in describe(entry)
    flow.advance(3700)
    started(flow, OLD)
    assert len(entries(flow)) == 2


@pytest.mark.either
def test_a_reload_records_the_changed_settings(flow):
    """The entry has the names of settings that apply now and of those that need a restart; no values."""
    server_audit.record_reload(flow.app.ledger, flow.clock, ("sources.erp",), ("listen",))
    server_audit.record_reload(flow.app.ledger, flow.clock, (), ())
    first, second = entries(flow)
    assert describe(first) == "read the settings again: sources.erp; changed, but read only at a start: listen"
    assert describe(second) == "read the settings again: none changed"


@pytest.mark.either
def test_a_start_continues_if_the_audit_entry_cannot_be_written(flow, logged):
    """A failure is logged, and the start goes on."""
    with flow.locked(timeout=0.1):
        started(flow, OLD)
    assert "audit_failed" in [entry["event"] for entry in logged]


@pytest.mark.either
def test_audit_entries_are_filtered_by_operator_action_and_time(flow):
    """The audit log can be filtered by who, what and when."""
    started(flow, OLD)
    flow.advance(600)
    middle = flow.clock.now()
    server_audit.record_reload(flow.app.ledger, flow.clock, (), ())
    with flow.app.ledger.connection() as connection:
        found = [
            [entry.action for entry in audit.entries(connection, limit=10, **only)]
            for only in ({"actor": "flowhooks"}, {"actor": "ann"}, {"action": "start"}, {"since": middle})
        ]
    assert found == [["reload", "start"], [], ["start"], ["reload"]]
