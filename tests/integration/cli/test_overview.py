"""`flowhooks overview`: what fails now, why deliveries wait, and which processes run."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from flowhooks import __version__


def test_a_running_server(server, run):
    """It names the process and its version, and exits with 1 as soon as an alert is open."""
    answer = run("overview", "--json", server=server)
    whole = json.loads(answer.stdout)
    assert answer.exit_code == bool(whole["failing"]["alerts"])
    (process,) = whole["processes"]
    assert (process["kind"], process["pid"], whole["version"]) == ("server", server.process.pid, __version__)
    assert whole["counts"]["dead"] >= 1
    assert set(whole["waiting"]) == {"due", "retrying", "blocked", "paused"}
    shown = run("overview", server=server)
    waiting = "0 retrying, 0 blocked, 0 paused or circuit open"
    for words in (f"flowhooks {__version__}", f"server {process['pid']} on ", "waiting", waiting):
        assert words in shown.stdout


def change(stopped_server, statement):
    """Change the ledger."""
    with closing(sqlite3.connect(stopped_server.file)) as connection:
        connection.execute(statement)
        connection.commit()


def test_without_a_server(stopped_server, run, run_json):
    """Errors of the last hour and a paused handler are named, and alone they are no failure; an open circuit is one."""
    assert (
        run("handlers", "pause", "shop:book", "--note", "the shop moves", "--yes", server=stopped_server).exit_code == 0
    )
    whole = run_json("overview", server=stopped_server)
    assert (whole["processes"], whole["version"]) == ([], "")
    (paused,) = whole["failing"]["paused"]
    assert (paused["handler"], paused["note"]) == ("shop:book", "the shop moves")
    (group,) = whole["failing"]["error_groups"]
    assert (group["handler"], group["last_hour"], group["attempts"]) == ("shop:book", 4, 4)
    shown = run("overview", server=stopped_server).stdout
    for words in (
        "No server is running.",
        "the shop moves",
        "error of shop:book, 4 failures in the last hour, last ",
        f"flowhooks errors show {group['fingerprint'][:12]}",
    ):
        assert words in shown
    assert run("handlers", "resume", "shop:book", "--yes", server=stopped_server).exit_code == 0
    change(stopped_server, "UPDATE handlers SET paused_at = 1, circuit_opened_at = 1, circuit_reason = 'no shop'")
    assert "circuit of shop:book open since" in run("overview", server=stopped_server).stdout
    (circuit, *_) = run_json("overview", server=stopped_server, code=1)["failing"]["circuits"]
    assert circuit["reason"] == "no shop"


def test_conditions_are_named_with_the_acknowledging_operator(stopped_server, run, run_json):
    """A silent source is named once whether it is acknowledged or not; acknowledged, it is no failure."""
    change(
        stopped_server,
        "INSERT INTO alerts (id, cause, subject, message, started_at, count, event_id, opened_at, notified)"
        " VALUES ('s', 'source_silent', 'crm', 'crm is silent', 1, 1, '', 1, '[]')",
    )
    named = "alert source_silent since 1970-01-01 00:00:00"
    unseen = run("overview", server=stopped_server)
    assert (unseen.exit_code, unseen.stdout.count("crm is silent")) == (1, 1)
    assert f"{named}: crm is silent" in unseen.stdout
    assert run("alerts", "acknowledge", "s", server=stopped_server, LOGNAME="ann").exit_code == 0
    assert f"{named}, acknowledged by ann: crm is silent" in run("overview", server=stopped_server).stdout
    failing = run_json("overview", server=stopped_server)["failing"]
    (condition,) = failing["conditions"]
    assert (condition["subject"], condition["acknowledged_by"]) == ("crm", "ann")
    assert (failing["alerts"], failing["left_out"]) == ([], 0)
