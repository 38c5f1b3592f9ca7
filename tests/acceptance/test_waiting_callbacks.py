"""Callbacks that wait for their handlers keep no thread from others."""

from __future__ import annotations

import json
import select
import socket
from contextlib import ExitStack

from support.waiting import WAIT_TIMEOUT

WAITING, LATER = 20, 10
PLUGIN = """
import time
from pathlib import Path

from flowhooks import handler, hookimpl

@handler(process_key="slow")
def slow(event):
    while not Path({gate!r}).exists():
        time.sleep(0.02)

@handler(process_key="quick")
def quick(event):
    return 1

@hookimpl
def handlers():
    return [slow, quick]
"""


def posted(server, number):
    """A connection on which a callback of a slow handler has been sent."""
    connection = socket.create_connection(server.address, WAIT_TIMEOUT)
    body = json.dumps({"processDefinitionKey": "slow"})
    connection.sendall(
        f"POST /flow/slow-{number}/call-back/complete HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return connection


def answered(clients):
    """The connections on which a response has arrived."""
    return select.select(clients, [], [], 0)[0]


def status(client):
    """The status of the response that arrives on a connection."""
    with client.makefile("rb") as received:
        return int(received.readline().split()[1])


def test_more_callbacks_than_http_threads_wait(site, tmp_path, eventually):
    """With 2 HTTP threads, as many callbacks wait as `http.max_waiting` allows; all others are answered at once."""
    gate = tmp_path / "open"
    site.plugin("p", PLUGIN.format(gate=str(gate)))
    server = site.start(config=f"answer_wait = 60\n[http]\nthreads = 2\nmax_waiting = {WAITING}\n")
    with ExitStack() as stack:
        clients = [stack.enter_context(posted(server, number)) for number in range(WAITING + LATER)]
        eventually(lambda: len(answered(clients)) == LATER)
        assert server.post("quick", {"processDefinitionKey": "quick"}).status == 202
        waiting = [client for client in clients if client not in answered(clients)]
        gate.touch()
        assert [status(client) for client in waiting] == [200] * WAITING
        assert [status(client) for client in clients if client not in waiting] == [202] * LATER
    assert server.post("quick-2", {"processDefinitionKey": "quick"}).status == 200
