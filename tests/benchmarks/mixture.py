"""Clients that send all kinds of callbacks, valid and invalid, and check the statuses of the responses."""

from __future__ import annotations

import itertools
import json
import random
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KINDS: Final[Mapping[str, tuple[int, frozenset[int]]]] = {
    "good": (64, frozenset({200, 202})),
    "slow": (3, frozenset({200, 202})),
    "fails once": (8, frozenset({200, 202})),
    "fails for good": (2, frozenset({202, 500})),
    "for nobody": (3, frozenset({202})),
    "duplicate": (12, frozenset({200, 202})),
    "conflict": (3, frozenset({409})),
    "not JSON": (2, frozenset({400})),
    "not valid for the schema": (2, frozenset({422})),
    "of no kind that there is": (1, frozenset({404})),
}
"""Kinds of callbacks: the percentage of each, and the permitted statuses of its responses."""
NEW_EVENT_KINDS: Final = frozenset({"good", "slow", "fails once", "fails for good", "for nobody"})
"""Kinds of callbacks that always create a new event."""
PLUGIN: Final = '''"""Fast, slow and failing handlers."""

import time

from flowhooks import Reject, Retry, handler, hookimpl


@handler(process_key="good")
def good(event):
    """Do nothing."""


@handler(process_key="slow")
def slow(event):
    """Take some time."""
    time.sleep(0.01)


@handler(process_key="fails once", retry=Retry(attempts=5, delays=[0.2]))
def once(event, delivery):
    """Fail at the first attempt."""
    if delivery.attempt == 1:
        raise OSError("not this time")
    return {"attempt": delivery.attempt}


@handler(process_key="fails for good")
def always(event):
    """Fail at each attempt."""
    raise Reject("never")


@hookimpl
def handlers():
    return [good, slow, once, always]
'''
CONFIG: Final = """plugins_allow = ["mixture"]

[handlers."mixture:once"]
circuit_breaker_failures = 0
"""
"""Settings for the mixture without circuit breakers. Dozens of callbacks fail once in a row when many arrive before
the first retry. An open circuit would stay open, because its trials are new callbacks that fail too."""
SOCKET_TIMEOUT: Final = 60.0
"""Seconds."""
MAX_TRIES: Final = 50
MAX_RETRY_DELAY: Final = 1.0
"""Seconds."""
MAX_RECENT: Final = 200
"""The number of accepted callbacks from which duplicates and conflicts are made."""
MAX_PROBLEMS: Final = 20


class SentCallback(NamedTuple):
    """A callback that was sent; duplicates and conflicts are made from accepted ones."""

    instance: str
    body: bytes


@dataclass(slots=True, kw_only=True)
class ClientResults:
    """The responses to all clients together.

    Attributes:
        responses: the number of responses of each kind and status.
        retries: how often a callback was repeated after a 503 or a broken connection.
        problems: the first forbidden responses, as lines.
        stored: the number of new events according to the server.
    """

    responses: Counter[tuple[str, int]] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The number of answered callbacks."""
        return sum(self.responses.copy().values())

    @property
    def stored(self) -> int:
        """The number of new events that were accepted."""
        return sum(count for (kind, _), count in self.responses.items() if kind in NEW_EVENT_KINDS)


class Callers:
    """Several clients that together send a fixed number of callbacks.

    Args:
        address: (host, port) of the server.
        clients: the number of clients.
        calls: the number of callbacks in all.
        name: the prefix of their process instances.
        kinds: the kinds to send; default: all.
    """

    def __init__(
        self, address: tuple[str, int], *, clients: int, calls: int, name: str, kinds: Iterable[str] = tuple(KINDS)
    ) -> None:
        self._kinds = list(kinds)
        self.results = ClientResults()
        self._address = address
        self._numbers = iter(range(calls))
        self._name = name
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(clients)]

    def start(self) -> None:
        """Start sending."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending callbacks."""
        self._stopped.set()

    @property
    def busy(self) -> bool:
        """Whether a client is still sending."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self, seed: int) -> None:
        caller = _Caller(
            self._address, self.results, self._lock, f"{self._name}-{seed}-", random.Random(seed), kinds=self._kinds
        )
        try:
            while not self._stopped.is_set():
                with self._lock:
                    if next(self._numbers, None) is None:
                        break
                caller.call()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a problem of this run)
            self.results.problems.append(f"a caller has ended: {error!r}")
        finally:
            caller.close()


class _Caller:
    """One client with a persistent connection."""

    def __init__(
        self,
        address: tuple[str, int],
        results: ClientResults,
        lock: threading.Lock,
        name: str,
        rng: random.Random,
        *,
        kinds: list[str],
    ) -> None:
        self._address, self._results, self._lock, self._name, self._rng = address, results, lock, name, rng
        self._connection: _Connection | None = None
        self._numbers = itertools.count()
        self._recent: deque[SentCallback] = deque(maxlen=MAX_RECENT)
        self._kinds, self._weights = kinds, [KINDS[kind][0] for kind in kinds]

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def call(self) -> None:
        """Send one callback until it is answered."""
        (kind,) = self._rng.choices(self._kinds, self._weights)
        if kind in {"duplicate", "conflict"} and not self._recent:
            kind = "good"
        callback, path = self._build(kind)
        prefer = self._rng.random() < 0.7 and "Prefer: respond-async\r\n"
        request = (
            f"POST /flow/{callback.instance}/call-back/{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(callback.body)}\r\n{prefer or ''}\r\n"
        ).encode() + callback.body
        status, response = self._send_until_answered(request)
        with self._lock:
            self._results.responses[kind, status] += 1
            if status not in KINDS[kind][1] and len(self._results.problems) < MAX_PROBLEMS:
                self._results.problems.append(f"{callback.instance} ({kind}) was answered {status}: {response[:300]!r}")
        if kind == "good":
            self._recent.append(callback)

    def _build(self, kind: str) -> tuple[SentCallback, str]:
        if kind == "duplicate":
            return self._rng.choice(self._recent), "complete"
        if kind == "conflict":
            original = self._rng.choice(self._recent)
            return original._replace(body=original.body.replace(b'"HT-', b'"XX-')), "complete"
        number = next(self._numbers)
        body = json.dumps({"businessKey": f"HT-{number}", "processDefinitionKey": kind, "pad": "x" * (number % 500)})
        if kind == "not JSON":
            body = body[:-1]
        if kind == "not valid for the schema":
            body = '{"processDefinitionVersion": "one"}'
        return SentCallback(f"{self._name}{number}", body.encode()), "begin" if "no kind" in kind else "complete"

    def _send_until_answered(self, request: bytes) -> tuple[int, bytes]:
        for attempt in range(1, MAX_TRIES + 1):
            try:
                self._connection = self._connection or _Connection(self._address)
                status, retry_after, body = self._connection.send(request)
            except OSError:
                self.close()
                with self._lock:
                    self._results.retries["its connection broke"] += 1
                time.sleep(min(MAX_RETRY_DELAY, 0.01 * 2**attempt))
                continue
            if status != 503:
                return status, body
            with self._lock:
                self._results.retries["503"] += 1
            time.sleep(min(MAX_RETRY_DELAY, retry_after))
        return 0, b"no answer"


class _Connection:
    """A persistent HTTP connection that sends one request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=SOCKET_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, request: bytes) -> tuple[int, float, bytes]:
        """Send a request; return the status, the seconds of `Retry-After` and the body of its response.

        Raises:
            ConnectionError: the connection was closed before the response was complete.
        """
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            self._receive()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return int(status_line.split()[1]), float(headers.get("retry-after", 0)), body

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("closed")
        self._buffer += data

    def close(self) -> None:
        self._socket.close()
