"""Operations without a server, with an unreachable server, and interrupted operations."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import sqlite3
import sys
import threading
from contextlib import closing, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from flowhooks.cli import interruption, operations_client
from flowhooks.cli.interruption import InterruptHandler
from flowhooks.ledger import bulk_plans
from flowhooks.ledger.lock import Lock, LockOwner
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.operations import purge, reroute


@pytest.fixture
def lock(stopped_server):
    """The lock of the stopped server's ledger, held by another process than the command."""
    lock = Lock(stopped_server.file)
    assert lock.acquire()
    yield lock
    lock.release()


def states(stopped_server):
    """The number of deliveries in each state, and of events."""
    with closing(Reader(f"sqlite:///{stopped_server.file}")) as reader:
        return reader.verify().deliveries


def test_without_a_server_the_command_executes_the_operation(stopped_server, run, run_json):
    """The command takes the lock itself, and says that waiting deliveries run when a server starts."""
    result = run("events", "replay", "--flow", "f0", "--yes", server=stopped_server)
    assert result.exit_code == 0
    assert result.stdout.startswith("1 dead delivery will run again.")
    assert result.stdout.endswith(
        "0 succeeded, 0 failed again, 1 remaining.\nNo server is running: the deliveries run once a server starts.\n"
    )
    assert states(stopped_server) == {"dead": 3, "waiting": 1}
    assert run_json("events", "replay", "--all", "--yes", server=stopped_server)["server"] is False
    assert states(stopped_server) == {"waiting": 4}


def test_a_command_changes_no_handler(stopped_server, run):
    """A retired handler stays retired with its stored options. A user name that is not UTF-8 is stored escaped."""
    with closing(sqlite3.connect(stopped_server.file)) as ledger:
        with ledger:
            ledger.execute("UPDATE handlers SET retired_at = 1, concurrency = 7 WHERE id = 'shop:book'")
            ledger.execute("DELETE FROM handlers WHERE id = 'shop:copy'")
        before = ledger.execute("SELECT * FROM handlers").fetchall()
        assert run("db", "record-backup", server=stopped_server, LOGNAME="\udcff").exit_code == 0
        assert run("events", "replay", "--flow", "f0", "--yes", server=stopped_server).exit_code == 0
        assert ledger.execute("SELECT * FROM handlers").fetchall() == before
        assert ledger.execute("SELECT actor FROM audit_log WHERE action = 'record_backup'").fetchall() == [("\\udcff",)]
    assert states(stopped_server) == {"dead": 3, "waiting": 1}


def test_an_event_is_selected_by_its_id(stopped_server, run, run_json):
    """Ids reach an operation that the command executes as they reach a server."""
    with closing(Reader(f"sqlite:///{stopped_server.file}")) as reader:
        (stored,) = reader.find(EventFilter(flow_instance_id="f0"), limit=1)
    assert run_json("events", "replay", stored.event.id, "--yes", server=stopped_server)["planned"] == 1
    assert states(stopped_server) == {"dead": 3, "waiting": 1}


def test_a_command_pauses_between_the_pages_of_a_purge(stopped_server, run, monkeypatch):
    """The caller leaves time to callbacks, not the server's thread: a pause follows each page but the last one."""
    monkeypatch.setattr(purge, "PAGE_SIZE", 2)
    pauses = []
    # Of this module only: other threads of the tests may sleep, too.
    monkeypatch.setattr(interruption, "time", SimpleNamespace(sleep=pauses.append))
    arguments = ("db", "purge", "--older-than", "2100-01-01", "--state", "dead")
    assert "4 events" in run(*arguments, "--dry-run", server=stopped_server).stdout
    assert set(pauses) == {0.0}, "a dry run takes no time from writers"
    pauses.clear()
    assert "4 events" in run(*arguments, "--yes", server=stopped_server).stdout
    assert len(pauses) == 2
    assert min(pauses) > 0


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_the_pause_of_a_purge(stopped_server, run, monkeypatch, times):
    """No further page runs, and the report names what was done, however often Ctrl-C is pressed."""
    monkeypatch.setattr(purge, "PAGE_SIZE", 2)

    def interrupted(_seconds):
        for _ in range(times - 1):
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(interruption, "time", SimpleNamespace(sleep=interrupted))
    result = run("db", "purge", "--older-than", "2100-01-01", "--state", "dead", "--yes", server=stopped_server)
    assert result.exit_code == 130
    assert result.stderr.endswith(
        "Error: interrupted; run the same command again to continue, with --older-than 2100-01-01T00:00:00+00:00. "
        "Done so far: 2 events with 2 deliveries purged.\n"
    )
    assert states(stopped_server) == {"dead": 2}


def test_output_of_plugins_does_not_break_json(stopped_server, run):
    """A plugin that prints while it is loaded does not break JSON on the standard output."""
    for arguments in (
        ("events", "reroute", "--parked"),
        ("events", "reroute", "--parked", "--dry-run"),
        ("routes",),
        ("check",),
    ):
        result = run(*arguments, "--json", server=stopped_server)
        assert json.loads(result.stdout)
        assert "the shop opens" in result.stderr


def test_a_dry_run_changes_nothing(stopped_server, run, tmp_path):
    """Without a server a dry run takes no lock and leaves the file unchanged."""
    before = stopped_server.file.read_bytes()
    (stopped_server.folder / "shop.py").write_text("raise SystemExit('no')")
    for arguments in (("replay", "--all"), ("reroute", "--parked")):
        result = run("events", *arguments, "--dry-run", server=stopped_server)
        assert result.exit_code == 0, result.output
    assert stopped_server.file.read_bytes() == before


def test_a_replay_names_a_missing_plugin(stopped_server, run):
    """A replay without the plugin names on standard error the deliveries that wait and their plugin."""
    result = run("events", "replay", "--all", "--yes", server=stopped_server, FLOWHOOKS_PLUGINS_ALLOW="none")
    assert "4 remaining" in result.stdout
    assert "handler_missing" in result.stderr
    assert "shop:book" in result.stderr


def test_pages_are_added_up(stopped_server, run_json, monkeypatch):
    """The command repeats an operation until all is done, and prints the totals."""
    monkeypatch.setattr(reroute, "PAGE_SIZE", 1)
    done = run_json("events", "reroute", "--all", "--yes", server=stopped_server)
    assert (done["events"], done["skipped"], done["next"]) == (4, 4, "")


def test_ctrl_c_finishes_the_page_and_reports_the_progress(stopped_server, run, monkeypatch):
    """The first Ctrl-C ends it after the current page with exit code 130; the same command continues."""
    monkeypatch.setattr(reroute, "PAGE_SIZE", 1)
    page, pages = Reader.bounded_page, []

    def interrupted(self, *args, **kwargs):
        if kwargs.get("limit") == 1:
            pages.append(1)
            if len(pages) == 2:
                signal.raise_signal(signal.SIGINT)
        return page(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Reader, "bounded_page", interrupted)
        result = run("events", "reroute", "--all", "--yes", server=stopped_server)
    assert result.exit_code == 130
    assert "Stopping after this step" in result.stderr
    assert result.stderr.endswith(
        "Error: interrupted; run the same command again to continue. "
        "Done so far: 2 events checked: 0 delivered (0 deliveries), 2 unchanged: no further handler takes "
        "them now, or only an operator decides them.\n"
    )
    assert run("events", "reroute", "--all", "--yes", server=stopped_server).stdout.startswith("4 events checked")


def test_ctrl_c_within_a_write_to_standard_error(monkeypatch):
    """The notice of the first Ctrl-C cannot be written while a progress bar writes; the step is still done."""

    class Terminal(io.RawIOBase):
        def writable(self):
            return True

        def write(self, data):
            if not interrupt.requested:
                signal.raise_signal(signal.SIGINT)
            return len(data)

    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Terminal()), encoding="utf-8"))
    with InterruptHandler() as interrupt:
        sys.stderr.write("50 %")
        sys.stderr.flush()
        assert interrupt.requested


def test_ctrl_c_before_the_start_starts_nothing(stopped_server, run, run_json, monkeypatch):
    """Ctrl-C while a plan is made ends the command, and no delivery runs."""
    pages = bulk_plans.candidate_pages

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return pages(*args)

    monkeypatch.setattr(bulk_plans, "candidate_pages", interrupted)
    result = run("events", "replay", "--all", "--again", "--yes", server=stopped_server)
    assert result.exit_code == 130
    assert "Error: interrupted; nothing was started\n" in result.stderr
    assert states(stopped_server) == {"dead": 4}


@pytest.mark.parametrize(
    "arguments",
    [("events", "reroute", "--since", "1h", "--until", "2100-01-01"), ("db", "purge", "--older-than", "0s")],
)
def test_the_command_that_continues_has_absolute_times(stopped_server, run, monkeypatch, arguments):
    """A relative time would select another span later, so the error has the time that it meant."""

    def interrupted(read):
        def reading(self, *args, **kwargs):
            signal.raise_signal(signal.SIGINT)
            return read(self, *args, **kwargs)

        return reading

    monkeypatch.setattr(reroute, "PAGE_SIZE", 1)
    monkeypatch.setattr(purge, "PAGE_SIZE", 1)
    monkeypatch.setattr(Reader, "bounded_page", interrupted(Reader.bounded_page))
    monkeypatch.setattr(Reader, "purgeable", interrupted(Reader.purgeable))
    stopped = run(*arguments, "--yes", server=stopped_server)
    assert stopped.exit_code == 130
    options = re.search(r"again to continue, with (--\S+ \S+(?: --\S+ \S+)?)\. ", stopped.stderr)[1].split()
    assert [word for word in options if word.startswith("--")] == [word for word in arguments if word.startswith("--")]
    assert all(datetime.fromisoformat(word).tzinfo for word in options if not word.startswith("--"))


def test_a_second_ctrl_c_stops_at_once(stopped_server, run, monkeypatch):
    """A second Ctrl-C says that the result of the current page is not known."""

    def interrupted(self, *args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Reader, "bounded_page", interrupted)
    result = run("events", "reroute", "--all", "--yes", server=stopped_server)
    assert result.exit_code == 130
    assert "the current step may have been completed" in result.stderr


def test_another_command_holds_the_lock(stopped_server, lock, run):
    """A holder without an address is a command or a starting server: the message says to retry."""
    result = run("events", "replay", "--all", "--yes", server=stopped_server)
    assert result.exit_code == 1
    assert "uses the database exclusively" in result.stderr
    assert "try again in a moment" in result.stderr
    assert states(stopped_server) == {"dead": 4}
    assert run("events", "list", server=stopped_server).exit_code == 0


def test_the_server_of_the_lock_is_unreachable(stopped_server, lock, run):
    """If the server's address refuses connections, the message names server, address and remedy."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        admin = f"http://127.0.0.1:{unused.getsockname()[1]}"
        lock.write_owner(LockOwner(pid=4711, admin=admin, token="secret-token"))
        result = run("events", "replay", "--all", "--yes", server=stopped_server)
    assert result.exit_code == 1
    assert result.output == (
        f"Error: the server (process 4711) at {admin} uses the database, but did not accept this request: "
        f"no answer from {admin}: connection refused. "
        "If it has just been stopped or restarted, try again; if it hangs, stop it and try again\n"
    )


def test_a_server_that_answers_too_late(stopped_server, lock, run, monkeypatch):
    """After a timeout the message does not say that nothing was done, because the server may still do it."""
    monkeypatch.setattr(operations_client, "SERVER_TIMEOUT", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        admin = f"http://127.0.0.1:{silent.getsockname()[1]}"
        lock.write_owner(LockOwner(pid=4711, admin=admin, token="secret-token"))
        result = run("db", "record-backup", server=stopped_server)
    assert result.exit_code == 1
    assert "has not answered within 0.01 seconds, and may still do what was asked" in result.stderr


def answering(status, body, ready=b""):
    """A request handler that gives every POST the same response, and every GET the body `ready`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            assert self.path == "/readyz"
            self.send_response(503)
            self.send_header("Content-Length", str(len(ready)))
            self.end_headers()
            self.wfile.write(ready)

        def log_message(self, *args):
            pass

    return Handler


@pytest.fixture
def run_at(stopped_server, lock, run):
    """A function that replays at a server with this request handler; returns the result."""

    def run_there(handler):
        with HTTPServer(("127.0.0.1", 0), handler) as other:
            thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            thread.start()
            lock.write_owner(LockOwner(pid=4711, admin=f"http://127.0.0.1:{other.server_port}", token="secret-token"))
            result = run("events", "replay", "--all", "--yes", server=stopped_server)
            other.shutdown()
            thread.join()
        return result

    return run_there


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>", "is not from the server (process 4711): try again"),
        (401, b'{"message": "no"}', "has just been restarted; try again"),
        (503, b'{"message": "send the callback again"}', "is stopping or busy: the database could not be written"),
        (422, b'{"message": "that cannot be"}', "Error: that cannot be"),
        (500, b'{"message": "oh"}', "answered 500: oh"),
    ],
)
def test_unexpected_responses_of_a_server(run_at, answer):
    """Each unexpected response is one line with a remedy and exit code 1, without the token."""
    status, body, said = answer
    result = run_at(answering(status, body))
    assert result.exit_code == 1
    assert said in result.output
    assert result.output.count("\n") == 1
    assert "secret" not in result.output


def test_the_reason_of_a_server_that_cannot_write(run_at):
    """A server that answers 503 is asked for the reason."""
    ready = b'{"trouble": ["the last write to the database failed (database or disk is full)", "the disk is full"]}'
    result = run_at(answering(503, b'{"message": "send the callback again"}', ready))
    assert result.exit_code == 1
    assert result.output.endswith(
        " is not ready (the last write to the database failed (database or disk is full); the disk is full): "
        "the database could not be written; this step changed nothing and can be repeated\n"
    )


def test_a_failed_command_releases_the_lock(stopped_server, run):
    """A command that fails while it opens the ledger releases the lock."""
    missing = str(stopped_server.folder / "nothing")
    result = run("events", "replay", "--all", "--yes", server=stopped_server, FLOWHOOKS_PLUGINS_DIRS=missing)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"the plugins folder {missing} cannot be read" in result.stderr
    lock = Lock(stopped_server.file)
    assert lock.acquire()
    lock.release()
