"""Shutdown of a server: graceful on the first signal, immediate on the second; a failed start is one line."""

from __future__ import annotations

import json
import signal
import socket
import threading
from contextlib import closing

import pytest

import flowhooks
from support.waiting import WAIT_TIMEOUT, until, until_refused

PLUGIN = '''
import os, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from flowhooks import Retry, handler, hookimpl

def mark(name):
    open(os.environ["JOURNAL"] + name, "w").close()

def until(name):
    while not os.path.exists(os.environ["JOURNAL"] + name):
        time.sleep(0.01)

@handler(process_key="good")
def good(event):
    pass

@handler(process_key="slow")
def slow(event):
    mark(f".entered-{event.flow_instance_id}")
    until(".go")
    return "done"

@handler(process_key="slow-again", retry=Retry(attempts=5, delays=[0.05]))
def slow_again(event):
    mark(f".entered-{event.flow_instance_id}")
    until(".go")
    return "done"

@handler(process_key="signals")
def signals(event):
    """Whichever thread the kernel picks gets the signal."""
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

@handler(process_key="leaves-a-thread")
def leaves_a_thread(event):
    ThreadPoolExecutor().submit(until, ".never")

@hookimpl
def handlers():
    return [good, slow, slow_again, signals, leaves_a_thread]
'''
HANGS_AT_IMPORT = """
import os, threading
open(os.environ["JOURNAL"] + ".imported", "w").close()
threading.Event().wait()
"""
GOOD = {"processDefinitionKey": "good"}
SLOW = {"processDefinitionKey": "slow"}


@pytest.fixture
def site(site):
    """A folder with a plugin whose handlers can be blocked."""
    site.plugin("demo", PLUGIN)
    return site


def mark(site, name):
    """The file with which the test and a handler signal each other."""
    return site.journal.with_name(f"journal.{name}")


def until_entered(site, instance):
    """Wait until the handler of this instance runs."""
    until(mark(site, f"entered-{instance}").exists)


class Waiting(threading.Thread):
    """A client that waits for a response."""

    def __init__(self, server, instance, body):
        super().__init__()
        self.call = lambda: server.post(instance, body, Prefer="wait=60")  # longer than the response may take
        self.start()

    def run(self):
        """Send the request."""
        self.answer = self.call()

    def result(self):
        """The response, once it has arrived."""
        self.join(WAIT_TIMEOUT)
        return self.answer


def states(site):
    """The number of deliveries in each state."""
    return site.balance().deliveries


def test_graceful_shutdown(site):
    """Waiting clients get 202, running attempts settle, and waiting deliveries run at the next start."""
    server = site.start(runner__threads=2, shutdown__timeout=300, http__read_timeout=60)
    waiting = Waiting(server, "runs", SLOW)
    until_entered(site, "runs")
    queued = [server.post(f"queued-{number}", SLOW, Prefer="wait=0") for number in range(5)]
    assert {answer.status for answer in queued} == {202}
    arriving = socket.create_connection(server.address, timeout=WAIT_TIMEOUT)
    body = json.dumps(GOOD).encode()
    arriving.sendall(
        b"POST /flow/late/call-back/complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    assert server.post("first", GOOD).status == 200  # so the server has read the half request before
    server.signal()
    answer = waiting.result()
    assert (answer.status, answer.json["success"]) == (202, True)
    assert server.until_logged("shutdown_started")
    with closing(arriving):
        arriving.sendall(body)
        said = b""
        while part := arriving.recv(65536):
            said += part
    head, _, raw = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in head.lower()
    assert b"connection: close" in head.lower()
    assert "shutting down" in json.loads(raw)["message"]
    until_refused(server.address)
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["trouble"]) == (503, ["the server is stopping"])
    assert server.process.poll() is None
    mark(site, "go").touch()
    assert server.wait() == 0
    assert server.logged("shutdown_finished", all_ended=True)
    server.check_log()
    assert states(site) == {"succeeded": 2, "waiting": 5}
    with site.ledger() as ledger:
        assert ledger.delivery_statuses(answer.event_id)[0].state == "succeeded"
    server = site.start()
    site.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 7})
    assert not server.logged("deliveries_recovered")
    assert server.post("runs", SLOW).event_id == answer.event_id
    assert server.post("late", GOOD).status == 200
    with site.ledger() as ledger:
        assert all(ledger.delivery_statuses(response.event_id)[0].attempt == 1 for response in queued)
    server.stop()


def test_a_handler_that_exceeds_the_shutdown_timeout(site):
    """The exit code is 0; the next start makes the attempt unknown, or repeats it if `retry=` allows."""
    server = site.start(shutdown__timeout=0.5)
    for instance, key in (("plain", "slow"), ("again", "slow-again")):
        server.post(instance, {"processDefinitionKey": key}, Prefer="wait=0")
        until_entered(site, instance)
    server.signal()
    assert server.wait() == 0
    assert server.logged("handlers_still_running", running=2)
    assert server.logged("shutdown_finished", all_ended=False)
    assert states(site) == {"running": 2}
    mark(site, "go").touch()
    server = site.start()
    server.until_logged("deliveries_recovered", now_unknown=1, now_waiting=1)
    site.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 1, "unknown": 1})
    assert "1 unknown" in server.post("plain", SLOW).json["message"]
    server.stop()


def test_no_attempt_starts_during_shutdown(site):
    """No attempt starts during shutdown, even for a request that a client had begun to send."""
    server = site.start(runner__threads=1, http__read_timeout=60)
    with closing(socket.create_connection(server.address, timeout=WAIT_TIMEOUT)) as arriving:
        arriving.sendall(b"POST /flow/late/call-back/complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        waiting = Waiting(server, "runs", SLOW)
        until_entered(site, "runs")
        for number in range(20):
            server.post(f"queued-{number}", GOOD, Prefer="wait=0")
        server.signal(signal.SIGINT)  # Ctrl-C has the same effect
        assert waiting.result().status == 202  # from now on no attempt starts
        mark(site, "go").touch()
        site.until(lambda ledger: ledger.count_by_state()["running"] == 0)  # so the only thread is free
        arriving.sendall(b'{"a": 12}')
        assert arriving.recv(4096).startswith(b"HTTP/1.1 503 ")
    assert server.wait() == 0
    assert states(site) == {"succeeded": 1, "waiting": 20}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_the_server_at_once(site, number):
    """A second signal ends the wait; the next start finds the running attempts."""
    server = site.start(shutdown__timeout=300)
    server.post("runs", SLOW, Prefer="wait=0")
    until_entered(site, "runs")
    server.signal(number)
    server.until_logged("shutdown_started")
    server.signal(number)
    assert server.wait() == 128 + number
    assert states(site) == {"running": 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_stops_the_server_at_once(site, number):
    """The first line of the log says what starts; a plugin that never returns does not delay the end."""
    site.plugin("hangs", HANGS_AT_IMPORT)
    server = site.start(ready=False)
    until(mark(site, "imported").exists)
    first = server.until_logged("server_starting", version=flowhooks.__version__, database=str(site.database))
    assert first is server.records[0]
    assert first["settings"] == "flowhooks.toml"
    server.signal(number)
    assert server.wait() == -number


def test_a_signal_takes_effect_in_any_thread(site):
    """A signal takes effect in any thread, also just before the main thread begins to wait."""
    server = site.start()
    server.post("hit", {"processDefinitionKey": "signals"})
    assert server.wait() == 0
    assert states(site) == {"succeeded": 1}


def test_a_thread_left_by_a_plugin_does_not_delay_shutdown(site):
    """A thread left by a plugin, for which the interpreter would wait, does not delay the end."""
    server = site.start()
    assert server.post("leaves", {"processDefinitionKey": "leaves-a-thread"}).status == 200
    server.signal()
    assert server.wait() == 0
    assert server.logged("shutdown_finished", all_ended=True)
    assert any("ThreadPoolExecutor" in name for name in server.logged("abandoned_threads")[0]["threads"])


def test_a_used_port_is_one_line_and_exit_code_1(site):
    """A used port of either listener is one line, and the database is released."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        for which in ("listen", "admin"):
            server = site.start(ready=False, **{which: place})
            assert server.wait() == 1
            (line,) = [line for line in server.lines if "Error: " in line]
            assert f"cannot listen on {place}: address already in use (is another server running?)" in line
    site.start().stop()


def test_a_database_in_use_by_another_server_is_one_line_and_exit_code_1(site):
    """The line names the process that uses the database, which is not disturbed."""
    first = site.start()
    second = site.start(ready=False)
    assert second.wait() == 1
    _, line = second.lines  # the first one is `server_starting`
    assert line.startswith(f"Error: the database {site.database} is in use by process {first.process.pid}")
    assert "Traceback" not in line
    assert site.token() not in line
    assert first.post("a", GOOD).status == 200
    first.stop()


def test_only_one_of_several_starting_servers_serves(site):
    """If several servers start on a new database, one serves and each other ends with one line."""
    several = [site.start(ready=False) for _ in range(3)]
    until(lambda: sum(server.process.poll() is not None for server in several) == 2)
    (alive,) = [server for server in several if server.process.poll() is None]
    assert {server.wait() for server in several if server is not alive} == {1}
    for server in several:
        if server is not alive:
            assert [record["event"] for record in server.records] == ["server_starting", None]
    assert alive.post("a", GOOD).status == 200
    alive.stop()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--database", "nowhere/flowhooks.db"], 1, "does not exist"),
        (["--database", "demo.txt"], 1, "it is no SQLite database, or its header is damaged"),
        (["--config", "demo.txt"], 2, "is not TOML"),
    ],
)
def test_wrong_usage_and_failures_are_one_line(site, words, code, says):
    """Wrong usage exits with 2, other failures with 1; there is never a traceback."""
    (site.folder / "demo.txt").write_text("this is [ no file of either kind\n" * 40)
    server = site.start(*words, ready=False)
    assert server.wait() == code
    assert says in server.lines[-1]
    assert not any("Traceback" in line for line in server.lines)
