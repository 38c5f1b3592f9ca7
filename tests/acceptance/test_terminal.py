"""A server started at a terminal: the text that its user reads, and the end of the terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from flowhooks.cli import serve as serve_command


@pytest.fixture
def serve(site):
    """Start a server at a terminal of its own; return it, the user's end, and the reader of its log."""
    (site.folder / "flowhooks.toml").write_text("")
    # The session leader owns the terminal; when the terminal closes, SIGHUP is sent to the whole session.
    here = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--database", site.database]

    @contextmanager
    def start(*before):
        person, terminal = pty.openpty()
        # These tests may run under `nohup`, and child processes inherit ignored signals.
        ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *before, *site.command("serve", *here)],
            cwd=site.folder,
            env=site._environ({"safe_mode": "true"}),
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGHUP, ignored)
        os.close(terminal)
        try:
            yield process, person
        finally:
            # `setsid` waits for the leader of the new session, and a supervisor starts its server again.
            for pid in (process.pid, _child(process)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()

    return start


def _child(process):
    """The server that `setsid` started or became."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    found = children.read_text().split() if children.exists() else []
    return int(found[0]) if found else process.pid


def until(process, event):
    """Read the log up to this event; return all of it."""
    said = []
    for line in process.stderr:
        said.append(json.loads(line))
        if said[-1]["event"] == event:
            return said
    pytest.fail(f"{event} was not logged: {said}")


def test_the_start_prints_where_the_console_is(serve):
    """Three lines below the log say where to send callbacks, where the console is, and how to stop."""
    with serve() as (process, person):
        serving = next(record for record in until(process, "no_handlers") if record["event"] == "server_started")
        read = ""
        while "Ctrl-C" not in read:
            read += os.read(person, 4096).decode()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", read)
        assert f"Console     {serving['admin']}/console/" in plain
        assert f"Callbacks   {serving['call_backs']}/flow/ID/call-back/complete" in plain
        os.write(person, b"\x03")
        until(process, "shutdown_finished")
        assert process.wait(30) == 0
        os.close(person)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_closing_the_terminal_ends_the_server(serve, is_replaced):
    """Closing the terminal ends the server in order, with its supervisor, and does not reload its settings."""
    with serve() as (process, person):
        until(process, "no_handlers")
        if is_replaced:
            replace(process)
        os.close(person)
        events = [record["event"] for record in until(process, "shutdown_finished")]
        assert process.wait(30) == 0
        events += [json.loads(line)["event"] for line in process.stderr]
    assert not {"settings_reloaded", "process_died"} & set(events)


def test_a_terminal_closed_while_addresses_are_printed(monkeypatch):
    """A terminal that is closed while the addresses are printed does not fail the start."""
    person, terminal = pty.openpty()
    open_ends = [person]

    class Terminal(io.TextIOWrapper):
        def isatty(self):
            while open_ends:
                os.close(open_ends.pop())
            return True

    with Terminal(os.fdopen(terminal, "wb", buffering=0), write_through=True) as stdout, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        serve_command._print_addresses(call_backs="http://127.0.0.1:1", admin="http://127.0.0.1:2")
    assert not open_ends


def test_a_server_with_nohup_survives_the_end_of_its_terminal(serve):
    """A server started with `nohup` continues when the terminal closes, after a replacement, too."""
    with serve("nohup") as (process, person):
        until_serving(process)
        replace(process)
        os.close(person)
        events = [entry["event"] for entry in until(process, "settings_reloaded")]
        assert process.poll() is None
    assert "shutdown_started" not in events


def replace(process):
    """Replace the server, which becomes the supervisor of its successor."""
    os.kill(_child(process), signal.SIGUSR2)
    until(process, "process_replaced")


def until_serving(process):
    """Wait until the server serves; `nohup` prints a line first."""
    for line in process.stderr:
        if '"no_handlers"' in line:
            return
    pytest.fail("it did not serve")
