"""Clients that open silent connections do not use up the file handles of handlers or the administration."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from flowhooks.observability.open_files import MAX_OPEN_FILES

CONNECTIONS = 1000
PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="opens")
def opens(event):
    with open(__file__):
        return "opened"

@handler(process_key="isolated", isolation="process")
def isolated(event):
    with open(__file__):
        return "opened"

@hookimpl
def handlers():
    return [opens, isolated]
"""


@pytest.fixture
def many_files():
    """Allow this process to open the connections of all clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"these tests need {wanted} open files, and this machine allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def start(site, many_files):
    """Start a server in a shell with these limits of open files: `start(soft, hard)`; `hard` None keeps the limit."""
    site.plugin("p", PLUGIN)

    def start(soft, hard=None, **settings):
        limits = f"ulimit -S -n {soft}" + (f" && ulimit -H -n {hard}" if hard else "")
        site.flowhooks = ["sh", "-c", f'{limits} && exec "$@"', "sh", sys.executable, "-m", "flowhooks"]
        return site.start(ledger__write_timeout=20, **settings)  # a commit may take seconds on a busy machine

    return start


def soft_limit(server):
    """The server's soft limit of open files."""
    return resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0]


def open_files(server):
    """The server's number of open files."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def post(engine, instance, key):
    """The status of a callback on a connection that stays open."""
    body = json.dumps({"processDefinitionKey": key})
    # The first isolated handler runs when the process has started that it is forked from.
    engine.request("POST", f"/flow/{instance}/call-back/complete", body, {"Prefer": "wait=50"})
    answer = engine.getresponse()
    answer.read()
    return answer.status


def until_nothing_is_accepted(server, engine):
    """Wait until the server accepts no further connection; each response needs one cycle of the accepting loop."""
    before, unchanged, number = -1, 0, 0
    end = time.monotonic() + 60
    while unchanged < 20:
        assert time.monotonic() < end, "the server still accepts connections"
        number += 1
        post(engine, f"turn-{number}", "nobody")
        now = open_files(server)
        unchanged, before = (unchanged + 1 if now == before else 0), now


def check_that_it_works(server, stack, listener):
    """Open 1,000 silent connections to a listener, then check that handlers open files and /healthz responds."""
    engine = stack.enter_context(closing(http.client.HTTPConnection(*server.address, timeout=60)))
    post(engine, "first", "nobody")
    for _ in range(CONNECTIONS):
        stack.enter_context(closing(socket.create_connection(listener, timeout=60)))
    until_nothing_is_accepted(server, engine)
    for number in range(12):
        assert post(engine, f"opens-{number}", "opens") == 200, server.lines[-3:]
    assert post(engine, "isolated", "isolated") == 200, server.lines[-3:]
    assert server.logged("accept_failed") == []
    assert server.logged("circuit_opened") == []
    assert open_files(server) < soft_limit(server)


@pytest.mark.parametrize("hard", [None, 1024], ids=["limit-can-be-raised", "limit-cannot-be-raised"])
def test_silent_connections_use_no_file_handles_of_handlers(start, site, hard):
    """With 1,000 silent connections all handlers open files, also isolated ones, and the administration responds."""
    server = start(1024, hard, http__idle_timeout=300)
    with ExitStack() as stack:
        check_that_it_works(server, stack, server.address)
        assert server.ask("GET", "/healthz", admin=True).status == 200
        assert server.ask("GET", "/readyz", admin=True).status == 200
    server.stop()
    server.check_log()
    site.balance()


def test_silent_administration_connections_use_no_handler_files(start, site):
    """The connections of both listeners together stay below the limit."""
    server = start(1024, 1024, http__idle_timeout=300)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(closing(socket.create_connection(server.admin, timeout=60)))
        check_that_it_works(server, stack, server.address)
    server.stop()
    server.check_log()


def test_incomplete_large_bodies_use_no_handler_files(start, site):
    """The temporary files of incomplete large bodies count towards the limit."""
    server = start(1024, 1024, http__idle_timeout=300, http__read_timeout=300)
    head = b"POST /flow/1/call-back/complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with ExitStack() as stack:
        engine = stack.enter_context(closing(http.client.HTTPConnection(*server.address, timeout=60)))
        for number in range(CONNECTIONS):
            if number % 100 == 0:  # a connection on which nobody calls for five seconds is closed for another one
                post(engine, f"first-{number}", "nobody")
            client = stack.enter_context(closing(socket.create_connection(server.address, timeout=60)))
            client.sendall(head + b" " * 100_000)
        until_nothing_is_accepted(server, engine)
        assert post(engine, "opens", "opens") == 200, server.lines[-3:]
        assert server.logged("body_buffer_failed") == server.logged("accept_failed") == []
    server.stop()


def test_the_soft_limit_is_raised_as_far_as_allowed(start):
    """The soft limit is raised to 65,536 or the hard limit; nothing is logged if `http.max_connections` fits."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    server = start(256)
    assert soft_limit(server) == (MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES))
    assert server.logged("connections_limited") == []
    server.stop()


def test_a_reduced_number_of_connections_is_logged_and_checked(start, site):
    """The log and `flowhooks check` report the reduced number of connections and the reason."""
    server = start(1024, 1024)
    said = server.until_logged("connections_limited")
    assert said["level"] == "warning"
    assert said["max_connections"] == 1000
    assert said["max_open_files"] == 1024
    assert 2 * (said["listen"] + said["admin"]) <= 1024 - 256
    checked = site.run("check", "--json", "--database", site.database)
    (found,) = [finding for finding in json.loads(checked.stdout)["findings"] if finding["about"] == "connections"]
    assert found["mark"] == "note"
    assert "1024" in found["why"]
    assert "LimitNOFILE" in found["next"]
    server.stop()


def test_a_worker_raises_its_limit_too(sharing):
    """A worker raises its limit, because handlers in it open files as well."""
    sharing.plugin("p", PLUGIN)
    sharing.flowhooks = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh", sys.executable, "-m", "flowhooks"]
    worker = sharing.start_worker("--plugins-dir", sharing.plugins, **sharing.settings)
    assert soft_limit(worker) > 256
    worker.stop()


def test_each_of_several_processes_raises_its_limit(sharing):
    """Processes of a supervisor raise their limits as a single server does."""
    sharing.plugin("p", PLUGIN)
    sharing.flowhooks = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh", sys.executable, "-m", "flowhooks"]
    server = sharing.start("--processes", "2", **sharing.settings)
    assert resource.prlimit(server.until_logged("server_started")["pid"], resource.RLIMIT_NOFILE)[0] > 256
    server.stop()
