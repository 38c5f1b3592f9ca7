"""The findings of `check` for several processes that share a ledger."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

import pytest

from flowhooks.clock import to_text
from flowhooks.errors import LedgerSchemaTooOld, SettingsError
from flowhooks.operations.check.run import check
from flowhooks.operations.index_fields import index_fields
from flowhooks.operations.pause import pause
from flowhooks.settings import HandlerSettings, SearchSettings

pytestmark = pytest.mark.postgresql


def nothing(event):
    """Do nothing."""


def unasked():
    """The job tables, which this test does not read."""
    pytest.fail("the runner `embedded` has no jobs")


@pytest.fixture
def findings(harness):
    """A function that runs the check with the plugins of an app; returns the findings of a subject."""

    def look(flow, about, jobs=unasked, **settings):
        found = check(harness.settings(**settings), lambda: (flow.app.schemas, flow.app.plugins), jobs=jobs)
        return [finding for finding in found if finding.about == about]

    return look


@pytest.fixture
def bare(harness):
    """An app without handlers, and so a server without a worker."""
    return harness.open(start=False)


def test_running_processes_are_listed(harness, listens, bare, findings, clock):
    """Each running process is listed with host, process id, kind, start and number of handlers, in JSON too."""
    harness.open(listens(nothing), start=False)
    first, second = findings(bare, "processes")
    where = f"server {os.getpid()} on {socket.gethostname()}, since 20"
    assert first.what.startswith(where)
    assert first.what.endswith(", runs 0 handlers")
    assert second.what.endswith(", runs 1 handler")
    assert {name: second.facts[name] for name in ("host", "pid", "kind", "handlers")} == {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "kind": "server",
        "handlers": 1,
    }
    assert second.facts["since"] in second.what


def test_a_handler_run_by_another_process_is_not_missing(harness, listens, bare, findings):
    """A handler that is not loaded here is a failure only if no running process has it."""
    has = harness.open(listens(nothing), listens(nothing, name="other"), start=False)
    (found,) = findings(bare, "handlers")
    assert (found.mark, found.what) == (
        "ok",
        "2 handlers not loaded here are run by other processes: p:nothing, p:other",
    )
    assert findings(bare, "deliveries")[0].what == "0 waiting, 0 running"
    bare.app.cluster.poll()
    bare.take(wait=0)
    has.close()
    (found,) = findings(bare, "handlers")
    assert found.mark == "problem"
    assert found.what == (
        "2 registered handlers of plugin p are not loaded, and no live process runs them: p:nothing, p:other"
    )
    assert "; 2 deliveries wait for them" in found.why
    assert findings(bare, "deliveries")[0].what.startswith("2 waiting, 0 running; no process runs handlers")


def test_settings_of_an_unknown_handler_are_reported(harness, listens, findings):
    """Settings of an unknown handler are reported, because a misspelt id would have no effect."""
    flow = harness.open(listens(nothing), start=False)
    given = {handler_id: HandlerSettings(isolation="process") for handler_id in ("p:nothing", "p:nothin")}
    (found,) = findings(flow, "handlers", handlers=given)
    assert (found.mark, found.what) == ("note", "the settings configure p:nothin, but no such handler is registered")


def test_a_loaded_handler_that_no_process_runs(harness, listens, bare, findings):
    """A loaded handler that no process runs is a note, and a failure once a delivery waits for it."""
    has = harness.open(listens(nothing), start=False)
    has.close()
    (found,) = findings(has, "handlers")
    assert (found.mark, found.what) == ("note", "no live process runs 1 handler loaded here: p:nothing")
    bare.app.cluster.poll()
    bare.take(wait=0)
    (found,) = findings(has, "handlers")
    assert (found.mark, found.why) == ("problem", "1 delivery waits for it")


def test_no_finding_without_running_processes(listens, harness, findings):
    """Without running processes, a loaded handler that does not run is no finding."""
    has = harness.open(listens(nothing), start=False)
    has.close()
    (found,) = findings(has, "processes")
    assert (found.mark, found.what) == ("note", "no live process uses this ledger")
    assert findings(has, "deliveries")[0].what == "0 waiting, 0 running; no server runs"
    assert findings(has, "handlers") == []


@pytest.mark.parametrize("error", [LedgerSchemaTooOld("they are missing"), SettingsError("needs a package")])
def test_unusable_job_tables_are_a_failure(bare, findings, error):
    """Unusable job tables are a failure if the settings' runner needs them."""

    def refused():
        raise error

    procrastinate = {"kind": "procrastinate"}
    (found,) = findings(bare, "jobs", refused, runner=procrastinate)
    assert (found.mark, found.what) == ("problem", str(error))
    (found,) = findings(bare, "jobs", lambda: None, runner=procrastinate)
    assert found.mark == "ok"
    assert findings(bare, "jobs") == []


def test_stored_events_without_an_index_field_are_a_note(harness, listens, findings):
    """A note names the command while the oldest events lack a field of the settings, and until it has run."""
    flow = harness.open(listens(nothing))
    flow.take("i1", amount=1)
    assert [finding.mark for finding in findings(flow, "database")] == ["ok"] * len(findings(flow, "database"))
    fields = {"search": {"fields": ("/amount",)}}
    (found,) = [finding for finding in findings(flow, "database", **fields) if finding.mark == "note"]
    assert found.what == "stored events are not indexed by the fields of search.fields"
    assert found.next == "`flowhooks db index` indexes them while the server runs"
    context = flow.app.operation_context
    search = SearchSettings(**fields["search"])
    index_fields(replace(context, settings=replace(context.settings, search=search)))
    assert "note" not in {finding.mark for finding in findings(flow, "database", **fields)}
    assert "note" in {finding.mark for finding in findings(flow, "database")}


def test_paused_handlers_are_notes(harness, listens, findings, clock):
    """Each paused handler is a note with the start, its waiting deliveries and the command to resume it."""
    flow = harness.open(listens(nothing), listens(nothing, name="other"))
    pause(flow.app.operation_context, ["p:nothing"])
    flow.take(wait=0)
    (found,) = findings(flow, "handlers")
    assert (found.mark, found.what) == ("note", f"p:nothing is paused since {to_text(clock.now())}")
    assert (found.why, found.next) == (
        "1 delivery waits for it",
        "`flowhooks handlers resume p:nothing` runs the waiting deliveries",
    )
