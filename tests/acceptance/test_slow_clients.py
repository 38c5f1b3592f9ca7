"""Two hundred clients as slow as the server allows, and normal clients beside them, which are not affected."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import cycle

import pytest

from support.waiting import WAIT_TIMEOUT, until

PLUGIN = '''
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''
BODY = b'{"processDefinitionKey": "good"}'
SLOW = 200
DEAF = 10
HONEST = 4
MAX_MEBIBYTES = 60
"""The permitted growth: the database pages of the calls themselves."""
MORE_THREADS = 4
"""The number of threads that may have been started on demand meanwhile."""
SEED = 20261125
POST = b"POST /flow/slow/call-back/complete HTTP/1.1\r\nHost: localhost\r\n"
BEGINNINGS = {
    "request line": (b"POST /flow/", b"a"),
    "headers": (POST, b"A: b\r\n"),
    "one header": (POST + b"A: ", b"b"),
    "body": (POST + b"Content-Length: 9000\r\n\r\n", b" "),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "size of a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n"),
    "100": (POST + b"Content-Length: 9000\r\nExpect: 100-continue\r\n\r\n", b" "),
}
"""The first bytes of a slow client, and the rest, which it sends a byte at a time."""
ASKING = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 600
"""Requests whose responses exceed the kernel's buffers for a client that does not read."""


class Slow:
    """A connection that sends a byte periodically."""

    def __init__(self, place, phase, chance):
        self.phase = phase
        self.began = time.monotonic()
        first, rest = BEGINNINGS[phase]
        self._next = cycle(rest)
        self._chance = chance
        self._due = 0.0
        self.came = b""
        self.socket = socket.create_connection(place, timeout=20)
        self.socket.sendall(first)
        self.socket.setblocking(False)

    def go_on(self, now):
        """Send the next byte if it is due; return whether the server has closed the connection."""
        try:
            while part := self.socket.recv(4096):
                self.came += part
        except BlockingIOError:
            if now >= self._due:
                self._due = now + self._chance.uniform(0.1, 0.5)
                with suppress(OSError):
                    self.socket.send(bytes([next(self._next)]))
            return False
        except OSError:
            pass
        self.socket.close()
        return True


class SlowOnes(threading.Thread):
    """A constant number of slow connections; each connection that ends is replaced.

    Attributes:
        ended: (phase, received bytes, seconds) of each ended connection.
    """

    def __init__(self, place):
        super().__init__(daemon=True)
        self.address = place
        self.stop = threading.Event()
        self.full = threading.Event()
        self.ended = []

    def run(self):
        """Keep the connections open until `stop`, then wait until the last one is ended."""
        chance, phases = random.Random(SEED), cycle(BEGINNINGS)
        alive = []
        while alive or not self.stop.is_set():
            now = time.monotonic()
            for connection in list(alive):
                if connection.go_on(now):
                    alive.remove(connection)
                    # `now` is from before the server closed the connection.
                    self.ended.append((connection.phase, connection.came, time.monotonic() - connection.began))
            if not self.stop.is_set() and len(alive) < SLOW:
                alive += [Slow(self.address, next(phases), chance) for _ in range(min(20, SLOW - len(alive)))]
            if len(alive) == SLOW:
                self.full.set()
            time.sleep(0.02)  # it imitates clients that wait


def call(place, times, name, *, calls):
    """Send `calls` callbacks in turn; add the time of each to `times`."""
    with closing(http.client.HTTPConnection(*place, timeout=WAIT_TIMEOUT)) as connection:
        for number in range(calls):
            began = time.monotonic()
            connection.request("POST", f"/flow/{name}-{number}/call-back/complete", BODY)
            answer = connection.getresponse()
            assert (answer.read(), answer.status) == (b'{"success": true}', 200)
            times.append(time.monotonic() - began)


def honest(place, calls, name):
    """Let several clients send `calls` callbacks each; return the time that 99 of 100 calls did not exceed."""
    times = []
    with ThreadPoolExecutor(HONEST) as clients:
        for future in [clients.submit(call, place, times, f"{name}-{n}", calls=calls) for n in range(HONEST)]:
            future.result()
    return sorted(times)[len(times) * 99 // 100]


def held(server):
    """The number of sockets and threads of a server."""
    place = f"/proc/{server.process.pid}"
    links = []
    for descriptor in os.listdir(f"{place}/fd"):  # noqa: PTH208 (numbers, not paths)
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"{place}/fd/{descriptor}"))  # noqa: PTH115 (`socket:[1]` is no path)
    return sum(link.startswith("socket:") for link in links), len(os.listdir(f"{place}/task"))  # noqa: PTH208 (numbers, not paths)


def run_beside_slow_clients(site, *, calls, read_timeout):
    """Run slow and deaf clients beside normal ones; return the normal clients' times and the ended clients."""
    timeouts = {"http__read_timeout": read_timeout, "http__idle_timeout": 10, "ledger__write_timeout": 20}
    server = site.start(http__threads=8, **timeouts)
    sockets, _ = held(server)
    alone = honest(server.address, calls, "alone")
    until(lambda: held(server)[0] == sockets, poll=0.05)
    threads, memory = held(server)[1], server.memory()
    slow = SlowOnes(server.address)
    slow.start()
    deaf = []
    for _ in range(DEAF):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.setblocking(False)
        client.send(ASKING)
        deaf.append(client)
    try:
        assert slow.full.wait(WAIT_TIMEOUT)
        # If slow clients used up threads, each of these calls would wait for a minute, and the test would not end.
        beside = honest(server.address, calls, "beside")
        slow.stop.set()
        slow.join(read_timeout + WAIT_TIMEOUT)
        assert not slow.is_alive(), "some connections are never closed"
        until(lambda: held(server)[0] == sockets, poll=0.05)  # the deaf clients have not closed their connections
        assert held(server)[1] <= threads + MORE_THREADS
    finally:
        slow.stop.set()
        for connection in deaf:
            connection.close()
    assert server.memory() - memory < MAX_MEBIBYTES
    assert server.post("after", BODY).status == 200
    server.check_log()
    site.balance()
    return alone, beside, slow.ended


def judge(ended, *, read_timeout):
    """Check that slow clients were ended at their deadline and not earlier."""
    assert {phase for phase, _, _ in ended} == set(BEGINNINGS)
    assert len(ended) >= SLOW
    for phase, came, lasted in ended:
        answer = came.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 408 "), (phase, came)
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 408
        assert lasted >= read_timeout, phase


@pytest.fixture
def site(make_site):
    """A folder with one plugin."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    return site


def test_slow_clients_do_not_block_normal_clients_and_are_ended(site):
    """Normal clients are served beside 200 slow and some deaf clients, which are ended without remains."""
    _, _, ended = run_beside_slow_clients(site, calls=100, read_timeout=5)
    judge(ended, read_timeout=5)


@pytest.mark.long
def test_slow_clients_for_minutes(site):
    """The same for minutes, with the default timeouts of requests."""
    alone, beside, ended = run_beside_slow_clients(site, calls=4_000, read_timeout=10)
    phases = Counter(phase for phase, _, _ in ended)
    figures = f"p99: {beside:.3f} s beside slow clients, {alone:.3f} s without; ended {dict(phases)}"
    print(figures)  # noqa: T201 (what `make test-long` is to show)
    judge(ended, read_timeout=10)
