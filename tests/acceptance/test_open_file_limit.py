"""At the limit of open files a process keeps working with open files, and reports no internal error.

Clients that keep connections open can bring a server to this limit.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
from contextlib import closing, suppress
from pathlib import Path

import pytest

from support.waiting import until

PATHS = ["/console/", "/console/nothing", "/console/static/console.css", "/metrics", "/openapi.json", "/readyz"]
PATHS += ["/console/events", "/console/handlers", "/api/overview", "/api/events", "/api/nothing"]


def leave_none(pid):
    """Let a process open no more files; return its previous limit."""
    taken = {int(descriptor.name) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = next((number for number in range(soft) if number not in taken), soft)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    return soft, hard


def ask(connection, method, path, body=None, **headers):
    """The status and the headers of a response, on a connection that stays open."""
    connection.request(method, path, body, {"Host": "localhost"} | headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers


@pytest.mark.parametrize("first", ["/console/", "/console/nothing", "/api/overview", "/openapi.json"])
def test_first_requests_at_the_limit_are_answered(site, first):
    """A page requested for the first time needs no file; a request that needs a file gets 503 and can be repeated."""
    server = site.start(http__idle_timeout=300)
    call_back = json.dumps({"processDefinitionKey": "nobody"})
    with (
        closing(http.client.HTTPConnection(*server.address, timeout=60)) as engine,
        closing(http.client.HTTPConnection(*server.admin, timeout=60)) as operator,
    ):
        assert ask(engine, "POST", "/flow/a/call-back/complete", call_back)[0] == 202
        assert ask(operator, "GET", "/healthz")[0] == 200
        before = leave_none(server.process.pid)
        for path in (first, *PATHS):
            status, headers = ask(operator, "GET", path)
            assert status in {200, 404, 503}, (path, status, server.lines[-3:])
            assert status != 503 or path == "/readyz" or headers["Retry-After"], path
        assert ask(engine, "POST", "/flow/b/call-back/complete", call_back)[0] in {202, 503}
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        assert ask(engine, "POST", "/flow/b/call-back/complete", call_back)[0] == 202
    server.stop()
    server.check_log()
    site.balance()


PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="isolated", isolation="process")
def isolated(event):
    return "done"

@handler(process_key="wrapped")
def wrapped(event):
    return "done"

@handler(process_key="opens")
def opens(event):
    with open(__file__):
        return "done"

@hookimpl
def handlers():
    return [isolated, wrapped, opens]

@hookimpl(wrapper=True)
def run_handler(handler):
    if handler.id == "p:wrapped":
        open(__file__).close()
    return (yield)
"""


@pytest.fixture
def plugin_site(site):
    """A site with that plugin."""
    site.plugin("p", PLUGIN)
    return site


def children(pid):
    """The child processes of a process."""
    statuses = [(folder.name, folder / "status") for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    found = []
    for name, status in statuses:
        with suppress(OSError):  # the process has ended meanwhile
            if f"\nPPid:\t{pid}\n" in status.read_text():
                found.append(int(name))
    return found


def kill_children(pid):
    """Kill the child processes of a process; return their ids."""
    found = children(pid)
    for child in found:
        with suppress(ProcessLookupError):  # it has been killed before
            os.kill(child, signal.SIGKILL)
    return found


@pytest.mark.parametrize("key", ["isolated", "wrapped"])
def test_an_attempt_without_a_free_file_is_repeated(plugin_site, key):
    """If no file is free before the function is entered, the attempt is repeated; a failure within it is final."""
    server = plugin_site.start(http__idle_timeout=300)
    server.until_logged("isolation_ready")
    with closing(http.client.HTTPConnection(*server.address, timeout=60)) as engine:
        assert (
            ask(engine, "POST", "/flow/0/call-back/complete", json.dumps({"processDefinitionKey": "nobody"}))[0] == 202
        )
        before = leave_none(server.process.pid)
        body = json.dumps({"processDefinitionKey": "opens"})
        assert ask(engine, "POST", "/flow/1/call-back/complete", body)[0] == 500
        for number in range(6):  # the first run gets the prepared process
            body = json.dumps({"processDefinitionKey": key})
            assert (
                ask(engine, "POST", f"/flow/{key}-{number}/call-back/complete", body, Prefer="respond-async")[0] == 202
            )
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
    plugin_site.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 6, "dead": 1})
    server.stop()
    plugin_site.balance()


def test_a_handler_runs_later_if_its_process_cannot_start(plugin_site):
    """If the handler's process cannot start, the handler was not run, so it runs later, even without `retry=`."""
    server = plugin_site.start()
    body = {"processDefinitionKey": "isolated"}
    # The process that handlers are forked from starts first.
    assert server.post("before", body, Prefer="wait=60", timeout=90).status == 200
    (fork_server,) = children(server.process.pid)
    before = leave_none(fork_server)
    # Repeatedly, because it may only now fork the process that it was asked for when the handler began.
    until(lambda: not kill_children(fork_server))
    leave_none(fork_server)  # again, because the process may have closed a file since the first call
    assert server.post("meanwhile", body, Prefer="respond-async").status == 202
    server.until_logged("process_spawn_failed")
    assert server.until_logged("attempt_failed")["state"] == "waiting"
    resource.prlimit(fork_server, resource.RLIMIT_NOFILE, before)
    plugin_site.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 2})
    assert children(server.process.pid) == [fork_server]
    server.stop()
    assert plugin_site.balance().deliveries == {"succeeded": 2}, server.lines
