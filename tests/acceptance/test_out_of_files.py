"""A process that may open no more files: what it has open goes on, and nothing that it answers is a fault of its own.

Clients that hold connections open can bring a server there.
"""

from __future__ import annotations

import http.client
import json
import resource
from contextlib import closing
from pathlib import Path

import pytest

PATHS = ["/console/", "/console/nothing", "/console/static/console.css", "/metrics", "/openapi.json", "/readyz"]
PATHS += ["/console/events", "/console/handlers", "/api/overview", "/api/events", "/api/nothing"]


def leave_none(pid):
    """Let a process open no more files; what it may have been."""
    taken = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = next(number for number in range(soft) if number not in taken)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    return soft, hard


def ask(connection, method, path, body=None):
    """The status and the headers of an answer, on a connection that stays open."""
    connection.request(method, path, body, {"Host": "localhost"})
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers


@pytest.mark.parametrize("first", ["/console/", "/console/nothing", "/api/overview", "/openapi.json"])
def test_whatever_is_asked_for_first_is_answered(site, first):
    """A page that nobody has asked for before needs no file; what needs one is 503, to be asked for again."""
    server = site.start(http__idle_timeout=300)
    call_back = json.dumps({"processDefinitionKey": "nobody"})
    with (
        closing(http.client.HTTPConnection(*server.place, timeout=60)) as engine,
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
