"""A process that a plugin forks from a server shares neither its signals nor its lock nor its sockets."""

from __future__ import annotations

import signal
import subprocess
import sys

from flowhooks.ledger.lock import Lock
from flowhooks.web.server.sockets import open_listener
from support.ports import free_port

FORKS = """
import multiprocessing, os, signal, sys
from pathlib import Path
from flowhooks.cli.process.signals import ShutdownSignal
from flowhooks.ledger.lock import Lock
from flowhooks.web.server.sockets import open_listener

file, place = sys.argv[1:]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
fork = multiprocessing.get_context("fork")
standard_input = os.dup(sys.stdin.fileno())

def run():
    print("runs", flush=True)
    os.read(standard_input, 1)

lock, listening = Lock(Path(file)), open_listener(place)
assert lock.acquire()
with ShutdownSignal() as shutdown_signal:
    shutdown_signal.finish_loading()
    children = [fork.Process(target=os.read, args=(standard_input, 1)) for _ in range(20)]
    for number, child in enumerate(children):
        child.start()
        os.kill(child.pid, (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)[number % 3])
    for child in children:
        child.join()
    print(sorted({-child.exitcode for child in children}), shutdown_signal.wait(0), flush=True)
fork.Process(target=run).start()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_process_shares_no_signals_lock_or_sockets(tmp_path):
    """A signal ends it, also just after the fork, and the server does not receive it.

    When the server has been killed, another one can lock the ledger and listen, although the forked process still runs.
    """
    place = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-c", FORKS, tmp_path / "f.db", place]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        ended = [signal.SIGHUP.value, signal.SIGUSR2.value, signal.SIGTERM.value]
        assert server.stdout.readline() == f"{ended} False\n"
        assert server.stdout.readline() == "runs\n"
        assert server.wait() == -signal.SIGKILL
        lock = Lock(tmp_path / "f.db")
        assert lock.acquire()
        lock.release()
        open_listener(place).close()
