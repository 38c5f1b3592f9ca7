"""`flowhooks restart`, with a process in the place of the server."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from flowhooks.cli import restart
from flowhooks.errors import FlowhooksError
from flowhooks.settings import Settings
from support.waiting import WAIT_TIMEOUT

SERVER = """
import signal, sys
from pathlib import Path
from flowhooks.ledger.lock import Lock, publish_admin_address

lock = Lock(Path(sys.argv[1]))
assert lock.acquire()
print("has it", flush=True)
sys.stdin.readline()
publish_admin_address(lock, "http://127.0.0.1:9", "token")
signal.pause()
"""


def test_an_interrupt_leaves_the_replacement_to_the_server(tmp_path, monkeypatch, capsys):
    """Ctrl-C ends only the command: it says that the server continues with what was requested."""

    def interrupt(_lock):
        raise KeyboardInterrupt

    command = [sys.executable, "-c", SERVER, tmp_path / "f.db"]
    monkeypatch.setattr(restart, "_owner", interrupt)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "has it\n"
        print(file=server.stdin, flush=True)
        with pytest.raises(KeyboardInterrupt):
            restart.replace_server(Settings(database=str(tmp_path / "f.db")))
    assert "The request was sent, and the replacement continues" in capsys.readouterr().err


def test_a_server_that_starts_and_ends(tmp_path, monkeypatch):
    """The command waits for the address of a server that has just started, and gives up soon after its end."""
    command = [sys.executable, "-c", SERVER, tmp_path / "f.db"]
    request = restart._request

    def request_and_be_impatient(*arguments):
        monkeypatch.setattr(restart, "HAND_OVER_TIMEOUT", 0.0)
        return request(*arguments)

    monkeypatch.setattr(restart, "HAND_OVER_TIMEOUT", WAIT_TIMEOUT)
    monkeypatch.setattr(restart, "_request", request_and_be_impatient)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout.readline() == "has it\n"
        threading.Timer(0.1, print, kwargs={"file": server.stdin, "flush": True}).start()
        threading.Thread(target=server.wait).start()  # so that it is no zombie
        with pytest.raises(FlowhooksError, match=f"process {server.pid} has ended"):
            restart.replace_server(Settings(database=str(tmp_path / "f.db")))
    assert server.returncode == -signal.SIGUSR2
