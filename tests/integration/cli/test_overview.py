"""`flowhooks overview`: what fails now, why deliveries wait, and which processes run."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

from flowhooks import __version__
from flowhooks.cli import overview
from flowhooks.ledger.lock import Lock, LockOwner
from flowhooks.ledger.processes import LiveProcess


def test_a_running_server(server, run):
    """It names the process and its version, and exits with 1 as soon as an alert is open."""
    answer = run("overview", "--json", server=server)
    whole = json.loads(answer.stdout)
    assert answer.exit_code == bool(whole["failing"]["alerts"] or whole["problems"])
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
    """Errors of the last hour, a paused handler and an open circuit are named. That no server runs is a failure."""
    assert (
        run("handlers", "pause", "shop:book", "--note", "the shop moves", "--yes", server=stopped_server).exit_code == 0
    )
    whole = run_json("overview", server=stopped_server, code=1)
    assert (whole["processes"], whole["version"]) == ([], "")
    assert whole["problems"] == ["no server or worker is running: no callback is accepted, and no delivery runs"]
    (paused,) = whole["failing"]["paused"]
    assert (paused["handler"], paused["note"]) == ("shop:book", "the shop moves")
    (group,) = whole["failing"]["error_groups"]
    assert (group["handler"], group["last_hour"], group["attempts"]) == ("shop:book", 4, 4)
    shown = run("overview", server=stopped_server).stdout
    for words in (
        "Failing now:\n  no server or worker is running: no callback is accepted, and no delivery runs\n",
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
    """A silent source is named once whether it is acknowledged or not."""
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
    failing = run_json("overview", server=stopped_server, code=1)["failing"]
    (condition,) = failing["conditions"]
    assert (condition["subject"], condition["acknowledged_by"]) == ("crm", "ann")
    assert (failing["alerts"], failing["left_out"]) == ([], 0)


class Readiness(BaseHTTPRequestHandler):
    """A server that answers `/readyz` with the next of these bodies."""

    bodies = ()

    def do_GET(self):
        """Answer `/readyz`."""
        assert self.path == "/readyz"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.bodies.pop(0))

    def log_message(self, *args):
        """Log nothing."""


def test_a_server_that_is_not_ready(stopped_server, run, run_json, monkeypatch):
    """Its reasons are named first, and are failures; without them, errors and paused handlers are none."""
    change(stopped_server, "DELETE FROM alerts")
    change(stopped_server, "UPDATE handlers SET circuit_opened_at = NULL")
    not_ready = b'{"ready": false, "trouble": ["the last write failed (database is locked)"]}'
    monkeypatch.setattr(Readiness, "bodies", [not_ready, not_ready, b'{"ready": true, "trouble": []}'])
    lock = Lock(stopped_server.file)
    assert lock.acquire()
    try:
        with HTTPServer(("127.0.0.1", 0), Readiness) as other:
            lock.write_owner(LockOwner(pid=4711, admin=f"http://127.0.0.1:{other.server_port}"))
            thread = threading.Thread(target=lambda: [other.handle_request() for _ in range(3)], daemon=True)
            thread.start()
            problem = "process 4711 is not ready: the last write failed (database is locked)"
            assert run_json("overview", server=stopped_server, code=1)["problems"] == [problem]
            assert f"Failing now:\n  {problem}\n" in run("overview", server=stopped_server).stdout
            whole = run_json("overview", server=stopped_server)
            thread.join()
            assert (whole["problems"], len(whole["failing"]["error_groups"])) == ([], 1)
        silent = run("overview", server=stopped_server)
        assert (silent.exit_code, "process 4711 does not answer" in silent.stdout) == (1, True)
    finally:
        lock.release()


def test_workers_without_a_server(stopped_server, run_json, monkeypatch):
    """Workers run deliveries, but accept no callback."""
    worker = LiveProcess(host="host", pid=4711, kind="worker", since=0, handlers=frozenset())
    monkeypatch.setattr(overview, "live_servers_and_workers", lambda _settings, _connection, _holder: [worker])
    whole = run_json("overview", server=stopped_server, code=1)
    assert whole["problems"] == ["no server is running, only workers: no callback is accepted"]
