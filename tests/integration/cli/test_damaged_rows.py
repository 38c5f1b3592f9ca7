"""One damaged row keeps no command from showing the others: it is shown as damaged, and the exit code is documented."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace

import pytest

from flowhooks import Retry, handler
from flowhooks.errors import IdentityConflict
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.context import Actor
from flowhooks.testing import ManualClock
from support.app_harness import LedgerHarness, until
from support.run_bulk import replay

pytestmark = pytest.mark.sqlite
BAD_TEXT, BIG = "CAST(x'ff6f' AS TEXT)", "9000000000000000000"
LIST, SHOW = ("events", "list"), ("events", "show", "damaged")
HANDLERS, ALERTS, AUDIT = ("handlers", "list"), ("alerts", "list"), ("audit",)
PLUGINS, ROUTES, CHECK = ("plugins", "list"), ("routes",), ("check",)
REPLAY, REROUTE = ("events", "replay", "--all", "--dry-run"), ("events", "reroute", "--all", "--dry-run")
DISMISS, PURGE = ("events", "dismiss", "--all", "--dry-run"), ("db", "purge", "--older-than", "1d", "--dry-run")
SUSPENDED = ("events", "close", "--state", "suspended", "--dry-run")
PAUSE, RESUME = ("handlers", "pause", "*", "--dry-run"), ("handlers", "resume", "*", "--dry-run")
OF_EVENTS = (LIST, SHOW, REPLAY, REROUTE, DISMISS, SUSPENDED, PURGE, CHECK)
OF_HANDLERS = (HANDLERS, PLUGINS, PAUSE, RESUME)
CASES = {
    "events SET state = 'gone'": (OF_EVENTS, (LIST, SHOW)),
    "events SET received_at = 'x'": (OF_EVENTS, (LIST, SHOW)),
    "events SET body = x'ff00'": ((SHOW, REROUTE), (SHOW,)),
    "deliveries SET state = 'gone'": (OF_EVENTS, (SHOW,)),
    "deliveries SET changed_at = 'x', due_at = 'x'": (OF_EVENTS, (SHOW,)),
    "attempts SET outcome = 'bogus', started_at = 'x'": ((*OF_EVENTS, HANDLERS), (SHOW,)),
    f"attempts SET result_dropped = {BAD_TEXT}": ((SHOW,), ()),
    f"conflicts SET received_at = {BIG}": ((SHOW,), (SHOW,)),
    f"audit_log SET at = {BIG}, detail = 'x'": ((AUDIT, SHOW), (AUDIT,)),
    "audit_log SET actor = x'ff'": ((AUDIT,), (AUDIT,)),
    "alerts SET cause = 'x', count = 'x'": ((ALERTS, CHECK), (ALERTS,)),
    f"rejected_requests SET rejected_at = {BIG}": ((CHECK,), ()),
    "handlers SET selectors = '{'": (OF_HANDLERS, (HANDLERS,)),
    "handlers SET selectors = '[]', retry = 'x'": ((*OF_HANDLERS, ROUTES), (HANDLERS,)),
    "handlers SET paused_at = 'x'": ((*OF_HANDLERS, SHOW, CHECK), (HANDLERS,)),
    "handlers SET paused_at = 1, circuit_opened_at = 'x', circuit_reason = x'ff'": ((*OF_HANDLERS, SHOW), (HANDLERS,)),
    "processes SET handlers = 'x', started_at = 'x'": (
        (CHECK, HANDLERS, REPLAY, ("handlers", "pause", "*", "--yes")),
        (),
    ),
}
"""Each damage with the commands that read the row, and those of them that show it."""


@handler(process_key="leave", retry=Retry(attempts=1))
def fails(event):
    """Fail."""
    raise ValueError("no")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """The file of a ledger with a row to damage and a sound row in each table, and the id of the event to damage."""
    harness = LedgerHarness(tmp_path_factory.mktemp("damaged"), ManualClock(), "")
    flow = harness.open(fails)
    for instance in ("damaged", "sound"):
        flow.take(instance)
        with suppress(IdentityConflict):
            flow.take(instance, other=1)
    flow.take("parked", key="nobody")
    until(flow.is_idle)
    by = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    for event_id in flow.events(state="dead"):
        replay(by, EventFilter(ids=(event_id,)))
    until(flow.is_idle)
    flow.app.rejected_requests.record(path="/flow/x", address="192.0.2.1", status=422, english="no", chinese="否")
    flow.app.rejected_requests.flush()
    flow.app.alerts.poll()
    (damaged,) = flow.events(flow_instance_id="damaged")
    flow.close()
    return harness.file, damaged


def damage(file, event, change):
    """Damage the rows of one event; of tables without events, one row, so that the others are sound."""
    table = change.partition(" ")[0]
    where = {
        "events": f"id = '{event}'",
        "deliveries": f"event_id = '{event}'",
        "attempts": f"delivery_id IN (SELECT id FROM deliveries WHERE event_id = '{event}')",
        "conflicts": f"event_id = '{event}'",
    }.get(table, f"id = (SELECT min(id) FROM {table})")
    with closing(sqlite3.connect(file, isolation_level=None)) as raw:
        raw.execute("PRAGMA foreign_keys=OFF")
        assert raw.execute(f"UPDATE {change} WHERE {where}").rowcount > 0


@pytest.mark.parametrize("change", CASES)
def test_commands_show_damaged_rows(ledger, run, tmp_path, change):
    """No command fails in another way than before; each lists the sound rows, and the damaged one as damaged."""
    commands, shows = CASES[change]
    file = tmp_path / "ledger.db"
    env = {"FLOWHOOKS_DATABASE": str(file), "COLUMNS": "300"}
    shutil.copy(ledger[0], file)
    damage(file, ledger[1], change)
    for command in commands:
        result = run(*command, **env)
        assert result.exit_code in ({0, 1} if command == CHECK else {0}), (command, result.output)
        assert command not in shows or "; run `flowhooks verify`" in result.output, (command, result.output)
        if command == LIST:
            assert {"sound", "parked"} <= set(result.output.split())


def test_a_delivery_of_a_damaged_event_is_closed(ledger, run, tmp_path):
    """Closing needs the row of the delivery only; if that is damaged, the command says so, and exits with 1."""
    file = tmp_path / "ledger.db"
    env = {"FLOWHOOKS_DATABASE": str(file)}
    shutil.copy(ledger[0], file)
    damage(file, ledger[1], "events SET received_at = 'x'")
    with closing(sqlite3.connect(file)) as raw:
        ((delivery,),) = raw.execute("SELECT id FROM deliveries WHERE event_id = ?", (ledger[1],))
    done = run("events", "resolve", delivery, "--close", "--yes", **env)
    assert done.stdout == f"Delivery {delivery} for p:fails changed from dead to closed.\n"
    damage(file, ledger[1], "deliveries SET state = 'gone'")
    refused = run("events", "resolve", delivery, "--close", "--yes", **env)
    assert refused.exit_code == 1
    why = "cannot be resolved because its row is damaged: state; run `flowhooks verify`"
    assert f"Error: delivery {delivery} {why}\n" in refused.stderr
