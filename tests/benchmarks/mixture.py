"""Clients that send all kinds of callbacks, good and bad, and know the expected responses."""

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
NEW: Final = frozenset({"good", "slow", "fails once", "fails for good", "for nobody"})
"""Kinds that are always a new event."""
PLUGIN: Final = '''"""Handlers as they are: quick ones, slow ones, and ones that fail."""

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
    """Fail at first."""
    if delivery.attempt == 1:
        raise OSError("not this time")
    return {"attempt": delivery.attempt}


@handler(process_key="fails for good")
def ever(event):
    """Fail."""
    raise Reject("never")


@hookimpl
def handlers():
    return [good, slow, once, ever]
'''
CONFIG: Final = """plugins_allow = ["mixture"]

[handlers."mixture:once"]
circuit_breaker_failures = 0
"""
"""Settings for the mixture without circuit breakers. Dozens of callbacks fail once in a row when many arrive before
the first retry. An open circuit would stay open, because its trials are new callbacks that fail too."""
PATIENCE: Final = 60.0
MAX_TRIES: Final = 50
LONGEST_PAUSE: Final = 1.0
RECENT: Final = 200
MAX_PROBLEMS: Final = 20


class Sent(NamedTuple):
    """An accepted callback, from which duplicates and conflicts are made."""

    instance: str
    body: bytes


@dataclass(slots=True, kw_only=True)
class Told:
    """The responses to all clients together.

    Attributes:
        answers: the number of responses of each kind and status.
        again: how often a callback was repeated after a 503 or a broken connection.
        problems: the first forbidden responses, as lines.
        stored: the number of new events according to the server.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        """The number of answered callbacks."""
        return sum(self.answers.copy().values())

    @property
    def stored(self) -> int:
        """The number of new events that were accepted."""
        return sum(count for (kind, _), count in self.answers.items() if kind in NEW)


class Callers:
    """Several clients that share a number of callbacks to send.

    Args:
        place: (host, port) of the server.
        several: the number of clients.
        calls: the number of callbacks in all.
        name: the start of their instances.
        kinds: the kinds to send; default: all.
    """

    def __init__(
        self, place: tuple[str, int], *, several: int, calls: int, name: str, kinds: Iterable[str] = tuple(KINDS)
    ) -> None:
        self._kinds = list(kinds)
        self.told = Told()
        self._place = place
        self._numbers = iter(range(calls))
        self._name = name
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed,), daemon=True) for seed in range(several)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more callbacks."""
        self._over.set()

    @property
    def busy(self) -> bool:
        """Whether a client is still sending."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self, seed: int) -> None:
        caller = _Caller(
            self._place, self.told, self._lock, f"{self._name}-{seed}-", random.Random(seed), kinds=self._kinds
        )
        try:
            while not self._over.is_set():
                with self._lock:
                    if next(self._numbers, None) is None:
                        break
                caller.call()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a problem of this run)
            self.told.problems.append(f"a caller has ended: {error!r}")
        finally:
            caller.close()


class _Caller:
    """One client with a persistent connection."""

    def __init__(
        self,
        place: tuple[str, int],
        told: Told,
        lock: threading.Lock,
        name: str,
        chance: random.Random,
        *,
        kinds: list[str],
    ) -> None:
        self._place, self._told, self._lock, self._name, self._chance = place, told, lock, name, chance
        self._line: _Line | None = None
        self._check_rate = itertools.count()
        self._recent: deque[Sent] = deque(maxlen=RECENT)
        self._kinds, self._weights = kinds, [KINDS[one][0] for one in kinds]

    def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def call(self) -> None:
        """Send one callback until it is answered."""
        (kind,) = self._chance.choices(self._kinds, self._weights)
        if kind in {"duplicate", "conflict"} and not self._recent:
            kind = "good"
        sent, path = self._made(kind)
        later = self._chance.random() < 0.7 and "Prefer: respond-async\r\n"
        request = (
            f"POST /flow/{sent.instance}/call-back/{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(sent.body)}\r\n{later or ''}\r\n"
        ).encode() + sent.body
        status, answer = self._until_answered(request)
        with self._lock:
            self._told.answers[kind, status] += 1
            if status not in KINDS[kind][1] and len(self._told.problems) < MAX_PROBLEMS:
                self._told.problems.append(f"{sent.instance} ({kind}) was answered {status}: {answer[:300]!r}")
        if kind == "good":
            self._recent.append(sent)

    def _made(self, kind: str) -> tuple[Sent, str]:
        if kind == "duplicate":
            return self._chance.choice(self._recent), "complete"
        if kind == "conflict":
            before = self._chance.choice(self._recent)
            return before._replace(body=before.body.replace(b'"HT-', b'"XX-')), "complete"
        number = next(self._check_rate)
        body = json.dumps({"businessKey": f"HT-{number}", "processDefinitionKey": kind, "pad": "x" * (number % 500)})
        if kind == "not JSON":
            body = body[:-1]
        if kind == "not valid for the schema":
            body = '{"processDefinitionVersion": "one"}'
        return Sent(f"{self._name}{number}", body.encode()), "begin" if "no kind" in kind else "complete"

    def _until_answered(self, request: bytes) -> tuple[int, bytes]:
        for tried in range(1, MAX_TRIES + 1):
            try:
                self._line = self._line or _Line(self._place)
                status, wait, answer = self._line.ask(request)
            except OSError:
                self.close()
                with self._lock:
                    self._told.again["its connection broke"] += 1
                time.sleep(min(LONGEST_PAUSE, 0.01 * 2**tried))
                continue
            if status != 503:
                return status, answer
            with self._lock:
                self._told.again["503"] += 1
            time.sleep(min(LONGEST_PAUSE, wait))
        return 0, b"no answer"


class _Line:
    """A connection on which requests are answered in turn."""

    def __init__(self, place: tuple[str, int]) -> None:
        self._socket = socket.create_connection(place, timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def ask(self, request: bytes) -> tuple[int, float, bytes]:
        """(status, seconds to wait, body) of the response to a request.

        Raises:
            ConnectionError: the connection was closed meanwhile.
        """
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(first.split()[1]), float(headers.get("retry-after", 0)), body

    def _more(self) -> None:
        some = self._socket.recv(65536)
        if not some:
            raise ConnectionResetError("closed")
        self._rest += some

    def close(self) -> None:
        self._socket.close()
