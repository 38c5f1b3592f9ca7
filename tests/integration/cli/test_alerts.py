"""`flowhooks alerts` and `flowhooks audit`: open alerts, their acknowledgement, and the actions of operators."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing

import pytest

from flowhooks.operations.registry import OPERATIONS

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def alerted(stopped_server, hostile):
    """The ledger of a stopped server with three alerts: two open, one of them hostile, and one closed."""
    with closing(sqlite3.connect(stopped_server.file)) as connection:
        connection.execute("DELETE FROM alerts")  # the server may have raised alerts of its own
        for number, subject, closed_at in ((1, "shop:book", None), (2, hostile, None), (3, "shop:copy", 5_000_000)):
            connection.execute(
                "INSERT INTO alerts "
                "(id, cause, subject, message, started_at, count, event_id, opened_at, notified, closed_at)"
                " VALUES (?, 'dead', ?, ?, ?, 4, '', 1, '[]', ?)",
                (f"a{number}", subject, f"check {subject}", number * 1_000_000, closed_at),
            )
        connection.commit()
    return stopped_server


def test_alerts_are_listed_and_acknowledged(alerted, run, run_json, hostile):
    """Unacknowledged alerts come first; the acknowledging operator is shown; closed alerts only with `--all`."""
    assert [listed["id"] for listed in run_json("alerts", "list", server=alerted)["alerts"]] == ["a1", "a2"]
    done = run("alerts", "acknowledge", "a1", "--note", hostile, server=alerted, LOGNAME="ann")
    assert (done.exit_code, done.stdout) == (0, "1 alert is acknowledged.\n")
    everything = run_json("alerts", "list", "--all", server=alerted)["alerts"]
    assert [(alert["id"], alert["acknowledged_by"]) for alert in everything] == [("a2", ""), ("a1", "ann"), ("a3", "")]
    assert everything[2]["closed_at"] == "1970-01-01T00:00:05.000Z"
    text = run("alerts", "list", "--all", server=alerted).stdout
    assert re.search(r"acknowledged 2\d\d\d-", text)
    assert "by ann" in text
    assert "closed 1970-01-01 00:00:05" in text
    assert not CONTROLS.search(text)


def test_an_alert_shows_its_current_state(alerted, run, run_json, hostile):
    """An alert shows its count, its growth since the last notification, and the newest failure."""
    with closing(sqlite3.connect(alerted.file)) as connection:
        connection.execute(
            "UPDATE alerts SET count = 3220, notified_count = 20, last_at = 60000000, last_error = ?,"
            " notification_errors = ? WHERE id = 'a1'",
            (f"ErpUnavailable {hostile}", json.dumps({"mail": f"smtp is down {hostile}"})),
        )
        connection.commit()
    alert = run_json("alerts", "list", server=alerted)["alerts"][0]
    assert (alert["count"], alert["notified_count"], alert["last_at"]) == (3220, 20, "1970-01-01T00:01:00.000Z")
    text = run("alerts", "list", server=alerted, COLUMNS="400").stdout
    assert "3,220 (+3,200), last 1970-01-01 00:01:00" in text
    assert "last error: ErpUnavailable" in text
    assert "not delivered by mail: smtp is down" in text
    assert not CONTROLS.search(text)


def test_alerts_that_cannot_be_acknowledged_are_named(alerted, run, run_json):
    """An unknown, closed or acknowledged alert exits with 1; the others are acknowledged."""
    dry = run("alerts", "acknowledge", "a1", "a2", "--dry-run", server=alerted)
    assert (dry.exit_code, dry.stdout) == (0, "2 alerts would be acknowledged.\n")
    done = run("alerts", "acknowledge", "a1", "a3", "x\x1b[31m", server=alerted)
    assert done.exit_code == 1
    assert done.stdout == (
        "1 alert is acknowledged. Skipped, because not open or acknowledged before: a3, x\\u001b[31m.\n"
    )
    assert run_json("alerts", "acknowledge", "a1", "a2", code=1, server=alerted) == {
        "alerts": ["a2"],
        "skipped": ["a1"],
        "dry_run": False,
        "server": False,
    }


def test_a_running_server_acknowledges_alerts(server, run, run_json, eventually):
    """A running server makes the change in the name of the calling user."""

    def stays_open():
        """The alert of the delivery that stays unknown; other alerts may be closed during the test or come first."""
        alerts = run_json("alerts", "list", server=server)["alerts"]
        return [alert for alert in alerts if (alert["cause"], alert["subject"]) == ("unknown", "shop:hang")]

    (alert,) = eventually(stays_open)
    assert run("alerts", "acknowledge", alert["id"], server=server, LOGNAME="bob").exit_code == 0
    (after,) = [listed for listed in run_json("alerts", "list", server=server)["alerts"] if listed["id"] == alert["id"]]
    assert after["acknowledged_by"] == "bob"
    (deed,) = run_json("audit", "--target", alert["id"], server=server)["entries"]
    assert (deed["actor"], deed["interface"], deed["action"]) == ("bob", "cli", "acknowledge")


def test_the_audit_log_lists_action_operator_and_object(alerted, run, run_json, hostile):
    """The audit log lists action, operator and object in words, newest first, without control characters."""
    assert run("audit", server=alerted).stdout == "The audit log is empty.\n"
    event = run_json("events", "list", "--flow", "f0", server=alerted)["events"][0]
    delivery = event["deliveries"][0]["id"]
    by = {"LOGNAME": f"ann{hostile}"}
    for arguments in (
        ("events", "replay", "--handler", "shop:book", "--since", "2000-01-01", "--yes"),
        ("events", "resolve", delivery, "--close", "--note", hostile, "--yes"),
        ("alerts", "acknowledge", "a2", "--note", hostile),
    ):
        assert run(*arguments, server=alerted, **by).exit_code == 0
    entries = run_json("audit", server=alerted)["entries"]
    assert [entry["action"] for entry in entries] == ["acknowledge", "resolve", "operation"]
    (operation,) = run_json("operations", "list", server=alerted)["operations"]
    assert [entry["target"] for entry in entries] == ["a2", event["id"], operation["id"]]
    assert {entry["actor"] for entry in entries} == {f"ann{hostile}"}
    text = run("audit", server=alerted, COLUMNS="400").stdout
    assert not CONTROLS.search(text)
    shown = "a\\u001b[31m\\u0007b\\nc\\u202ed[red]e[/red]\\u009b\\u007f:smile:"
    for part in (
        f"ann{shown} by a command",
        "started an operation on 4 deliveries to replay (--handler shop:book --since 2000-01-01 00:00:00)",
        f"resolved delivery {delivery} for shop:book: closed, nothing more is needed: {shown}",
        f"acknowledged 1 alert (dead {shown}): {shown}",
        event["id"],
    ):
        assert part in text
    page = run_json("audit", "--limit", "2", server=alerted)
    assert len(page["entries"]) == 2
    rest = run_json("audit", "--limit", "2", "--after", page["next"], server=alerted)
    assert [entry["action"] for entry in rest["entries"]] == ["operation"]
    assert rest["next"] == ""
    # The operation has acted on the event, too.
    about = run_json("audit", "--target", event["id"], server=alerted)["entries"]
    assert [entry["id"] for entry in about] == [entries[1]["id"], entries[2]["id"]]
    assert run("audit", "--target", "nothing", server=alerted).stdout == "No matching entries.\n"


DETAILS = {
    "replay": {"event_filter": {}, "again": False, "deliveries": 1},
    "resolve": {"delivery": "d1", "handler": "p:h", "verdict": "did"},
    "reroute_parked": {"events": 1},
    "reroute": {"event_filter": {}, "events": 1, "deliveries": 0},
    "dismiss": {"event_filter": {}, "events": 1},
    "accept_correction": {"digest": "3f5a9c01d2e4b687", "correction": "e2", "deliveries": 1, "note": "sum was wrong"},
    "record_backup": {"name": "flowhooks-1.db", "size": 4096},
    "record_change": {"plugins": ["contracts 1.3 -> 1.4"]},
    "test_alerts": {"route": "", "errors": {"notice": ""}},
    "acknowledge": {"alerts": ["a1"], "about": ["dead p:h"]},
    "purge": {"event_filter": {"until": 0}, "events": 2},
    "index_fields": {"fields": ["/amount"], "events": 3},
    "retire": {"handlers": ["p:h"]},
    "pause": {"handlers": ["p:h"]},
    "resume": {"handlers": ["p:h"]},
    "reconcile": {"source": "oa", "since": None, "instances": 3, "taken_in": 1},
    "confirm_reconciliation": {"source": "oa", "instances": 3},
    "decline_reconciliation": {"instances": 3, "note": "old"},
    "close_gaps": {"gaps": 2, "note": "compared"},
}
READS = {"ask_engine", "read_definitions", "plan_operation"}
"""Operations that change no delivery or handler, so that the audit log has no entry of them."""
BULK = {
    "start_operation": {
        "change": "started", "operation": "close", "deliveries": 2, "event_filter": {"delivery_ids": ["d"]}, "rate": 0.5
    },
    "pause_operation": {"change": "paused"},
    "resume_operation": {"change": "resumed"},
    "cancel_operation": {"change": "cancelled"},
    "set_operation_rate": {"change": "rate", "rate": None},
}  # fmt: skip
"""The recorded detail of each change of a bulk operation, under the name `operation`."""


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in READS])
def test_every_operation_is_described_in_words(alerted, run, name):
    """`flowhooks audit` describes each operation that changes something in words, not in JSON."""
    action = {"record_change": "install"}.get(name, "operation" if name in BULK else name)
    with closing(sqlite3.connect(alerted.file)) as connection:
        detail = json.dumps(BULK[name] if name in BULK else DETAILS[name])
        connection.execute("INSERT INTO audit_log VALUES ('d1', 1, 'ann', 'api', ?, '', ?)", (action, detail))
        connection.commit()
    text = run("audit", server=alerted, COLUMNS="400").stdout
    assert "ann through the API" in text
    assert "{" not in text
    if action == "purge":
        assert "purged 2 events (--until 1970-01-01 00:00:00)" in text


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"result": "started"}, "started to export events as csv with masked bodies, from 10.0.0.7; it has not ended"),
        (
            {"result": "complete", "events": 1},
            "exported 1 event as csv with masked bodies, from 10.0.0.7 (--state dead)",
        ),
        (
            {"result": "interrupted", "events": 400},
            "exported 400 events as csv with masked bodies, from 10.0.0.7; it was interrupted (--state dead)",
        ),
    ],
)
def test_an_export_in_words(alerted, run, result, text):
    """`flowhooks audit` shows what an export had, and whether its file became complete."""
    detail = {"event_filter": {"state": "dead"}, "format": "csv", "bodies": "masked", "address": "10.0.0.7", **result}
    with closing(sqlite3.connect(alerted.file)) as connection:
        values = ("ann", "console", "export", json.dumps(detail))
        connection.execute("INSERT INTO audit_log VALUES ('d1', 1, ?, ?, ?, '', ?)", values)
        connection.commit()
    assert f"ann in the console {text}" in " ".join(run("audit", server=alerted, COLUMNS="400").stdout.split())


def test_an_unknown_action_is_shown_as_recorded(alerted, run):
    """An action that this version does not know is shown as it was recorded."""
    with closing(sqlite3.connect(alerted.file)) as connection:
        for number, action, detail in (
            (1, "bless", '{"by": "x"}'),
            (2, "replay", "{}"),
            (3, "retire", '{"handlers": 3}'),
        ):
            connection.execute(
                "INSERT INTO audit_log VALUES (?, 1, 'ann', 'api', ?, '', ?)", (f"d{number}", action, detail)
            )
        connection.commit()
    text = run("audit", server=alerted).stdout
    for part in ('bless {"by": "x"}', "replay {}", 'retire {"handlers": 3}', "ann through the API"):
        assert part in text


def test_a_test_message_without_listeners(run, run_json, alerted):
    """Without a plugin that receives alerts, the test fails and says so."""
    result = run("alerts", "test", server=alerted)
    assert (result.exit_code, result.stdout) == (
        1,
        "No plugin receives alerts. flowhooks-notice sends mails and chat messages.\n",
    )
    assert run_json("alerts", "test", code=1, server=alerted)["errors"] == {}
    assert run("alerts", "test", "--route", "nowhere", server=alerted).exit_code == 1


def test_a_test_message_lists_the_result_of_each_plugin(run, alerted, tmp_path):
    """Each plugin is listed with its success or its error; the exit code is 1 if one failed."""
    folder = tmp_path / "listeners"
    folder.mkdir()
    (folder / "good.py").write_text("from flowhooks import hookimpl\n@hookimpl\ndef alert_raised(alert): pass\n")
    settings = {"FLOWHOOKS_PLUGINS_DIRS": str(folder), "FLOWHOOKS_PLUGINS_ALLOW": "good,bad"}
    result = run("alerts", "test", server=alerted, **settings)
    assert (result.exit_code, result.stdout) == (0, "good: accepted\n")
    (folder / "bad.py").write_text(
        "from flowhooks import hookimpl\n@hookimpl\ndef alert_raised(alert): raise OSError('smtp is\\ndown')\n"
    )
    result = run("alerts", "test", server=alerted, **settings)
    assert result.exit_code == 1
    assert sorted(result.stdout.splitlines()) == ["bad: failed: smtp is down", "good: accepted"]
