"""The row about accepting callbacks while many others wait for the outcome of their handlers."""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench import LATER, Bench, Comparison, cost, rate
from figures import Figure
from measuring import DRAIN_TIMEOUT, Target, measure_load, wait_until_drained
from servers import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

    import load
    from servers import Server

MANY = 500
STORED = "SELECT count(*) FROM events"
CONNECTIONS = 8
"""Connections of the callbacks that do not wait."""
PLUGIN = '''"""A handler that does nothing, and one that ends when a file is there."""

import os
from pathlib import Path

from flowhooks import handler, hookimpl

END = Path(__file__).with_name("end")


@handler(callback_class="com.cnooc.test.CallbackHandler", name="handler-0")
def nothing(event):
    """Do nothing."""


@handler(callback_class="com.cnooc.test.Slow", name="slow")
def slow(event):
    """Run until the benchmark ends the callbacks that wait; it takes no processor time meanwhile."""
    os.close(os.open(END, os.O_RDONLY))  # of a named pipe, which waits until another process opens it


@hookimpl
def handlers():
    return [nothing, slow]
'''


def beside(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Callbacks stored before the response while many others wait for their outcome ÷ while none waits."""
    rounds, waited = [], []
    for number in range(bench.rounds):
        pair = []
        for many in (0, MANY):
            bench.show_progress(f"{many} wait", number, bench.rounds)
            result, still_waiting = measure_load_beside(bench, many)
            pair.append(result)
            waited += [still_waiting] if many else []
        rounds.append(pair)
    idle_loads, waiting_loads = zip(*rounds, strict=True)
    pair = Comparison(ours=waiting_loads, yardstick=idle_loads)
    figure = Figure(
        case=f"{CONNECTIONS} connections",
        measured=f"{rate(pair.ours)} stored while they wait",
        yardstick=f"{rate(pair.yardstick)} while none waits",
        judged=pair.ratio,
        ours=cost(pair.ours),
        theirs=cost(pair.yardstick),
    )
    return [figure], [f"of {MANY} callbacks {median(waited):,.0f} waited until the end of the load"]


def measure_load_beside(bench: Bench, many: int) -> tuple[load.Load, int]:
    """One load beside a number of callbacks that wait, and how many of them still waited after it."""
    with bench.scratch() as folder:
        site = Site(folder=folder, source=PLUGIN)
        settings = {"FLOWHOOKS_ANSWER_WAIT": "60"}  # longer than the load
        os.mkfifo(site.plugins() / "end")
        with site.serve(settings=settings) as server:
            try:
                with _waiting(server, many) as waiting:
                    wait_until_drained(
                        Target(url="", count_unfinished=lambda _stored: many - site.query_value(STORED)),
                        many,
                        DRAIN_TIMEOUT,
                    )
                    target = Target(url=server.url, count_unfinished=lambda _answered: site.count_unfinished() - many)
                    result = measure_load(target, connections=CONNECTIONS, seconds=bench.seconds, prefer=LATER)
                    return result, len(waiting) - _answered(waiting)
            finally:
                end = os.open(site.plugins() / "end", os.O_RDWR)  # O_RDWR opens the pipe without waiting for a reader
                site.settle(seconds=60)
                os.close(end)


@contextmanager
def _waiting(server: Server, many: int) -> Iterator[list[socket.socket]]:
    """Open connections, and send a callback on each that is not answered before its handler ends."""
    address = urlsplit(server.url)
    body = json.dumps({"callBackProcessClass": "com.cnooc.test.Slow"})
    with ExitStack() as stack:
        connections = []
        for number in range(many):
            connection = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
            path = f"/flow/{secrets.token_hex(6)}-{number}/call-back/complete"
            head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            connections.append(connection)
        yield connections


def _answered(connections: list[socket.socket]) -> int:
    """The number of connections whose response has arrived."""
    return len(select.select(connections, (), (), 0)[0])
