"""A server on SQLite is replaced: clients do not notice it, and a successor that cannot start changes nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count

import pytest

from support.replaced_server import (
    ASYNC,
    GOOD,
    entered,
    install,
    is_alive,
    lock_owner,
    replace_server,
    restart,
    runs,
    serve,
    shut,
)
from support.service_manager import next_state
from support.steady_clients import Clients
from support.waiting import WAIT_TIMEOUT, until, until_refused

BROKEN = "raise ImportError('no module of that kind')"
TICKS = """
import signal
from flowhooks import hookimpl

signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

@hookimpl
def handlers():
    return []
"""
"""A plugin with a timer, as profilers have it."""
DEFAULT_TIMEOUT = """
import socket
from flowhooks import handler, hookimpl

socket.setdefaulttimeout(60)

@handler(process_key="isolated", isolation="process")
def isolated(event):
    return "done"

@hookimpl
def handlers():
    return [isolated]
"""
"""A plugin that sets a timeout for all sockets of its process, as clients of other systems do."""
NEWER = """
from flowhooks import hookimpl
from flowhooks.ledger.migrations import runner

runner.HEAD = "0002"

@hookimpl
def handlers():
    return []
"""
"""A plugin that makes its process a version of flowhooks with another migration."""
WAITS_AT_IMPORT = """
import os, pathlib, time
from flowhooks import hookimpl

while pathlib.Path(os.environ["JOURNAL"]).with_name("shut").exists():
    time.sleep(0.01)

@hookimpl
def handlers():
    return []
"""
FIRST, SECOND = 1, 2
OK = 200
EXIT_USAGE = 2
MAX_HANDOVER_SECONDS = 10.0
"""Limit of the time for which connections wait: a hand-over takes less than a second, but several on a busy machine.

It is less than half of what the longest handler of the long set takes: the end of handlers is no part of it.
"""


@pytest.fixture
def served(site):
    """A site with a running server."""
    return serve(site)


def has_run(site, version):
    """Whether a handler of this version of the plugin has run."""
    return any(ran == version for ran, *_ in entered(site))


def test_no_callback_is_rejected(served):
    """The command replaces the server and loads the plugin again. The process id of the service stays."""
    server = served.server
    with Clients(server.address, GOOD) as clients:
        clients.until_more()
        install(served, version="2")
        first = replace_server(served)
        clients.until_more()
        server.until_logged("process_replaced", pid=server.process.pid)
        until(lambda: has_run(served, "2"))
        until((served.folder / f"exited-{server.process.pid}").exists)  # what the plugin does at the exit
        install(served, version="3")
        second = restart(served)
        clients.until_more()
        until(lambda: has_run(served, "3"))
    assert first["predecessor"] == server.process.pid
    assert 0 < first["waited_seconds"] < MAX_HANDOVER_SECONDS
    told = f"Process {lock_owner(served)} has replaced process {first['pid']}. New connections waited "
    assert second.stdout.startswith(told)
    assert server.process.poll() is None
    clients.check(served)
    assert {version for version, *_ in entered(served)} == {"1", "2", "3"}
    assert not Counter(instance for _, _, instance, _ in entered(served)) - Counter(set(clients.sent))
    successor = lock_owner(served)
    server.stop()
    until(lambda: not is_alive(successor))
    server.check_log()


def test_a_replacement_waits_for_a_running_handler(served):
    """Meanwhile callbacks are stored and answered at once, and a successor runs their handlers.

    The command replaces the successor, too, if it has loaded before the request.
    """
    server, numbers = served.server, count(1)
    with shut(served) as gate, Clients(server.address, GOOD) as clients, ThreadPoolExecutor() as commands:
        server.post("slow", {"processDefinitionKey": "held"}, **ASYNC)
        until(lambda: runs(served, "slow"))
        server.signal(signal.SIGUSR2)
        server.until_logged("ledger_handing_over")
        until(lambda: server.post(f"soon-{next(numbers)}", GOOD, Prefer="wait=60").status == 202)
        assert server.post("later", GOOD, Prefer="wait=60").status == 202
        clients.until_more()
        assert runs(served, "later") == []
        install(served, version="2")
        command = commands.submit(replace_server, served)
        asked = ["audit", "--action", "restart", "--json"]
        until(lambda: json.loads(served.run(*asked, database=served.database).stdout)["entries"])
        gate.unlink()
        taken_over = server.until_logged("ledger_taken_over")["pid"]
        until(lambda: runs(served, "later"))
        last = command.result()["pid"]
        until(lambda: has_run(served, "2"))
        clients.until_more()
    assert last != taken_over
    assert runs(served, "slow") == [("held", server.process.pid), ("ended", server.process.pid)]
    assert runs(served, "later") in ([("work", taken_over)], [("work", last)])
    assert lock_owner(served) == last
    clients.check(served, others=next(numbers) + 1)
    server.stop()


@pytest.mark.parametrize("seconds", [3, pytest.param(21, marks=pytest.mark.long)])
def test_a_long_handler_and_a_broken_plugin(served, seconds):
    """A handler runs until its end in the predecessor, which goes on while a plugin is broken, then is replaced.

    No callback is refused meanwhile, and the handler, which is not safe to repeat, is called once.
    """
    server = served.server
    with shut(served) as gate, Clients(server.address, GOOD) as clients:
        server.post("slow", {"processDefinitionKey": "once"}, **ASYNC)
        until(lambda: runs(served, "slow"))
        began = time.monotonic()
        served.plugin("broken", BROKEN)
        refused = restart(served)
        assert refused.returncode == 1
        assert "no module of that kind" in refused.stderr
        assert lock_owner(served) == server.process.pid
        assert server.post("meanwhile", GOOD, Prefer="wait=60").status == 200  # it still runs handlers
        served.remove("broken")
        assert [what for what, _ in runs(served, "slow")] == ["once"]
        opened = threading.Timer(max(0.0, began + seconds - time.monotonic()), gate.unlink)
        opened.start()
        done = replace_server(served)
        clients.until_more()
    assert done["predecessor"] == server.process.pid
    assert 0 < done["waited_seconds"] < MAX_HANDOVER_SECONDS
    assert runs(served, "slow") == [("once", server.process.pid), ("ended", server.process.pid)]
    clients.check(served, others=2)
    server.stop()


def test_a_handler_that_does_not_end_in_time(site):
    """It ends with its process before the successor takes over; an attempt that is not safe to repeat is shown.

    A process that a handler has forked keeps nothing of the server: neither its signals nor the lock of the ledger.
    """
    install(site)
    server = site.start(shutdown__timeout=0.2)
    with shut(site):
        server.post("slow", {"processDefinitionKey": "once"}, **ASYNC)
        until(lambda: runs(site, "slow"))
        assert server.post("forks", {"processDefinitionKey": "forks"}, Prefer="wait=60").status == 200
        replace_server(site)
        site.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 1, "unknown": 1})
        replace_server(site)  # by the supervisor; no handler is running
        server.post("again", {"processDefinitionKey": "held"}, **ASYNC)
        until(lambda: runs(site, "again"))
        predecessor = lock_owner(site)
        replace_server(site)
        assert not is_alive(predecessor)
    site.until(lambda ledger: ledger.verify().deliveries == {"unknown": 1, "succeeded": 2})
    assert ("ended", predecessor) not in runs(site, "again")
    server.stop()


def test_a_failed_start_leaves_the_predecessor_running(served):
    """A broken plugin, wrong settings, a missing schema folder and a pending migration are refused with the reason."""
    server = served.server
    config, numbers = served.folder / "flowhooks.toml", count(1)

    def is_refused(why):
        pid = lock_owner(served)
        refused = restart(served)
        assert refused.returncode == 1
        assert "the server was not replaced and continues: " in refused.stderr
        assert why in refused.stderr
        assert lock_owner(served) == pid
        assert server.post(f"refused-{next(numbers)}", GOOD, Prefer="wait=60").status == 200

    with Clients(server.address, GOOD) as clients:
        served.plugin("broken", BROKEN)
        is_refused("no module of that kind")
        served.plugin("broken", NEWER)
        is_refused("its tables are at version 0001 of 0002: run `flowhooks db upgrade`")
        served.remove("broken")
        config.write_text('schemas_dir = "nowhere"\n')
        is_refused(f"the folder of schema files {served.folder}/nowhere does not exist")
        config.write_text("processes = 2\n")
        is_refused("processes = 2 needs PostgreSQL")
        config.write_text("answer_wait = 1000\n")
        assert restart(served).returncode == EXIT_USAGE  # the command reads the settings, too
        server.signal(signal.SIGUSR2)
        assert "answer_wait must be" in server.until_logged("process_replace_failed", times=5)["why"]
        config.write_text("")
        replace_server(served)
        server.until_logged("supervisor_started")
        served.plugin("broken", BROKEN)
        is_refused("no module of that kind")
    clients.check(served, others=next(numbers) - 1)
    server.stop()


def test_a_stop_during_a_replacement_ends_both_processes(served):
    """While a predecessor waits for its handlers, SIGTERM stops both processes in order, with exit code 0."""
    server = served.server
    for round_number in (FIRST, SECOND):
        with shut(served) as gate:
            server.post(f"slow{round_number}", {"processDefinitionKey": "held"}, **ASYNC)
            until(lambda name=f"slow{round_number}": runs(served, name))
            server.signal(signal.SIGUSR2)
            server.until_logged("ledger_handing_over", times=round_number)
            if round_number == SECOND:
                server.signal(signal.SIGTERM)
                server.until_logged("stopping_all")
            gate.unlink()
            if round_number == FIRST:
                server.until_logged("process_replaced")
    place = server.address
    assert server.wait() == 0
    until_refused(place)
    assert served.balance().deliveries == {"succeeded": SECOND}


@pytest.mark.parametrize("moment", ["process_started", "ledger_handing_over"])
def test_a_stop_during_a_replacement_without_a_supervisor(site, moment):
    """The same without a supervisor: connections are refused at once, and the successor ends with the server."""
    install(site)
    server = site.start(shutdown__timeout=600)
    with shut(site) as gate:
        server.post("slow", {"processDefinitionKey": "held"}, **ASYNC)
        until(lambda: runs(site, "slow"))
        if moment == "process_started":
            site.plugin("waits", WAITS_AT_IMPORT)
        server.signal(signal.SIGUSR2)
        server.until_logged(moment)
        server.signal(signal.SIGTERM)
        until_refused(server.address)
        assert server.process.poll() is None
        gate.unlink()
    successor = server.logged("process_started")[0]["process"]
    assert server.wait() == 0
    until(lambda: not is_alive(successor))
    assert site.balance().deliveries == {"succeeded": 1}


def test_the_service_manager_and_settings(site, tmp_path, monkeypatch):
    """The supervisor has the process id that systemd knows. SIGHUP reloads settings; new addresses need a restart."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.settimeout(WAIT_TIMEOUT)
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        install(site)
        server = site.start()
        assert next_state(manager) == b"READY=1"
        new = replace_server(site)["pid"]
        server.until_logged("supervisor_started")
        (site.folder / "flowhooks.toml").write_text('[log]\nlevel = "debug"\n')
        server.signal(signal.SIGHUP)
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(1000) == b"READY=1"
        assert server.until_logged("settings_reloaded", pid=new)["changed"] == ["log.level"]
        server.stop()
        assert manager.recv(1000) == b"STOPPING=1"


def test_an_idle_connection_is_closed_by_a_response_header(served):
    """A client that keeps a connection gets `Connection: close` with its last response, and no reset."""
    server = served.server
    with shut(served) as gate, closing(http.client.HTTPConnection(*server.address, timeout=WAIT_TIMEOUT)) as kept:
        server.post("slow", {"processDefinitionKey": "held"}, **ASYNC)
        until(lambda: runs(served, "slow"))

        def call(instance):
            kept.request("POST", f"/flow/{instance}/call-back/complete", json.dumps(GOOD))
            answer = kept.getresponse()
            answer.read()
            return answer.headers["Connection"]

        assert call("before") is None
        server.signal(signal.SIGUSR2)
        server.until_logged("ledger_handing_over")
        until(lambda: call("after") == "close")
        gate.unlink()
        server.until_logged("ledger_taken_over")
        assert call("last") is None
    server.stop()


@pytest.mark.long
def test_replacement_of_one_process_on_postgresql(site, postgresql_url):
    """The signal replaces it as well; there is no lock to wait for."""
    site.database = site.url = postgresql_url
    install(site)
    server = site.start()
    with Clients(server.address, GOOD) as clients:
        clients.until_more()
        (site.folder / "flowhooks.toml").write_text("processes = 2\n")
        server.signal(signal.SIGUSR2)
        assert server.until_logged("restart_needed")["settings"] == ["processes"]
        server.until_logged("ledger_taken_over")
        clients.until_more()
    clients.check(site)
    refused = restart(site)
    assert refused.returncode == 1
    assert "on PostgreSQL this command cannot find the server: send SIGUSR2" in refused.stderr
    server.stop()


def test_the_timer_of_a_plugin_does_not_end_the_service(site):
    """A server with a timer is replaced. It executes a supervisor in its place, which does not inherit the timer."""
    site.plugin("ticks", TICKS)
    server = serve(site).server
    replace_server(site)
    server.until_logged("process_replaced", pid=server.process.pid)
    replace_server(site)
    server.stop()


def test_the_default_timeout_of_a_plugin_is_not_used(site):
    """A plugin sets a default timeout for sockets: a server is replaced, runs isolated handlers, and stops."""
    site.plugin("timeout", DEFAULT_TIMEOUT)
    server = serve(site).server
    for times in (1, 2):
        replaced = replace_server(site)
        server.until_logged("process_replaced", pid=server.process.pid, times=times)
        assert lock_owner(site) == replaced["pid"]
        assert server.post(f"i{times}", {"processDefinitionKey": "isolated"}, Prefer="wait=60").status == OK
    owner = lock_owner(site)
    server.stop()
    assert not is_alive(owner)
    assert not [lost for lost in ("predecessor_lost", "supervisor_lost", "attempt_failed") if server.logged(lost)]


def test_the_working_folder_of_a_plugin_is_not_used(site):
    """A handler changes the working folder: a reload and a new process use the files of before, by relative paths."""
    install(site)
    operator = '[operators.li]\nrole = "view"\ntoken_file = "li.token"\n'
    token = site.folder / "li.token"
    token.touch(0o600)
    token.write_text("a-token-of-li-" * 2)
    server = site.start("--database", site.database.name, config=operator)
    moved = {"processDefinitionKey": "moves"}
    assert server.post("one", moved, Prefer="wait=60").status == OK
    other_settings = site.folder / "elsewhere" / "flowhooks.toml"
    other_settings.write_text("answer_wait = 1\n[operators]\n")
    assert server.reload()["changed"] == []
    (site.folder / "flowhooks.toml").write_text(f"answer_wait = 7\n{operator}")
    assert server.reload()["changed"] == ["answer_wait"]
    replace_server(site)
    server.until_logged("process_replaced")
    assert server.post("two", moved, Prefer="wait=60").status == OK
    successor = lock_owner(site)
    os.kill(successor, signal.SIGKILL)
    until(lambda: lock_owner(site) != successor)
    until(lambda: server.post("three", moved, Prefer="wait=60").status == OK)
    for instance in ("one", "two", "three"):
        assert server.post(instance, moved, Prefer="wait=60").status == OK
        assert [step for step, _ in runs(site, instance)] == ["moves"]
    assert list(other_settings.parent.iterdir()) == [other_settings]
    server.stop()


def test_the_restart_command_without_a_server(site):
    """The command says that no server is running."""
    refused = restart(site)
    assert refused.returncode == 1
    assert (
        refused.stderr
        == f"Error: no server is running on the ledger {site.database}; start one with `flowhooks serve`\n"
    )
