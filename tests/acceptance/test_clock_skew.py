"""One machine's clock is off by a day: the database's time decides, so no delivery is early, late or reordered."""

from __future__ import annotations

import os
import time

import pytest

from support.process_trials import NOT_RETRYABLE, RETRYABLE, check_invariants, entered, rows
from support.waiting import until

DAY = 86_400
SETTINGS = {"ledger__heartbeat_timeout": 10.0, "ledger__write_timeout": 20}
"""Much less than a day, but more than a busy machine delays heartbeats: no process may expire, and no callback."""
SHIFTED = """
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9
"""
"""The code that such a Python runs first; programs that ask the system directly get the right time."""


@pytest.fixture
def shifted(broken, monkeypatch):
    """A function that starts processes whose clock is wrong by some seconds."""

    def start(begin, seconds):
        folder = broken.folder / f"clock{seconds}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SHIFTED.format(seconds=seconds))
        with monkeypatch.context() as patched:
            patched.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
            process = begin(**SETTINGS)
        assert abs(process.until_logged("clock_skew_detected")["seconds"] + seconds) < 600
        return process

    return start


@pytest.mark.parametrize("seconds", [DAY, pytest.param(-DAY, marks=pytest.mark.long)])
def test_a_worker_runs_callbacks_of_a_skewed_server(broken, shifted, seconds):
    """A worker immediately runs a callback of a server whose clock is a day off; the stored time is right."""
    server = shifted(lambda **given: broken.start("--no-worker", **given), seconds)
    worker = broken.start_worker("--plugins-dir", broken.plugins, **SETTINGS)
    # Before the server knows of the worker, the delivery counts as one without a process.
    until(lambda: server.post("i0", RETRYABLE | {"fails": 0}, Prefer="wait=20").status == 200)
    answers = [server.post(f"i{number}", RETRYABLE | {"fails": number % 2}, Prefer="wait=20") for number in range(6)]
    assert {answer.status for answer in answers} == {200}
    # Not in the order of their ids: a delayed answer about the time of the database sets the clock back a little.
    stored = rows(broken.direct, "SELECT flow_instance_id, received_at FROM events ORDER BY flow_instance_id")
    assert [instance for instance, _ in stored] == [f"i{number}" for number in range(6)]
    assert all(abs(received_at / 1_000_000 - time.time()) < 600 for _, received_at in stored)
    told = {f"i{number}": answer.event_id for number, answer in enumerate(answers)}
    check_invariants(broken, broken.direct, told)
    for process in (server, worker):
        assert not process.logged("process_expired")
        process.stop()
        process.check_log()


def test_a_worker_with_a_fast_clock_starts_no_retry_early(broken, shifted):
    """A worker a day ahead does not start a retry due in an hour; a worker an hour later does."""
    broken.plugin("q", RETRY_LATER)
    server = broken.start("--no-worker", **SETTINGS)
    worker = shifted(lambda **given: broken.start_worker("--plugins-dir", broken.plugins, **given), DAY)
    event_id = server.post("i", {"processDefinitionKey": "later"}, Prefer="respond-async").event_id
    waits = "SELECT due_at FROM deliveries WHERE state = 'waiting' AND attempt = 1"
    broken.until(lambda _ledger: rows(broken.direct, waits))
    # Send another callback: when it has run, the worker has polled. The server may not know of the worker at first.
    until(lambda: server.post("j", NOT_RETRYABLE, Prefer="wait=20").status == 200)
    ((due_at,),) = rows(broken.direct, waits)
    assert abs(due_at / 1_000_000 - time.time() - 3600) < 600
    assert [instance for instance, _, _ in entered(broken)] == ["j"]
    assert rows(broken.direct, "SELECT min(id) FROM events") == [(event_id,)]
    for process in (server, worker):
        process.stop()
        process.check_log()


RETRY_LATER = '''
from flowhooks import Retry, handler, hookimpl

@handler(process_key="later", retry=Retry(attempts=3, delays=[3600], jitter=0))
def later(event):
    """Fail."""
    raise ValueError("not now")

@hookimpl
def handlers():
    return [later]
'''
