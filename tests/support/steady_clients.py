"""Clients that send callbacks at fixed times while a test replaces their server. No tests."""

from __future__ import annotations

import http.client
import json
import selectors
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass

from support.waiting import WAIT_TIMEOUT, until

RATE = 50
"""Callbacks a second."""
MAX_DELAY = 0.1
"""Seconds between connecting and sending on a new connection: half the silence after which a server may close it."""
MAX_SILENCE = 2.5
"""Seconds without a callback on a persistent connection: half the time after which a server that hands over closes it
without an announcement."""
PERSISTENT = 2
"""Persistent connections. Each is used often, so a server that hands over soon announces on it that it closes."""


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback that is due.

    Attributes:
        instance: the id of its process instance.
        connection: the connection on which it is sent.
        is_persistent: whether further callbacks use the connection.
        due: the time at which it is due, by `time.monotonic`.
    """

    instance: str
    connection: http.client.HTTPConnection
    is_persistent: bool
    due: float


class Clients:
    """Clients that send each callback when it is due, whether or not earlier ones were answered: an open loop.

    One callback is due every 1/`RATE` seconds. So while no process accepts connections, more and more of them wait.
    Half of the callbacks use a persistent connection if one is free. A refused connection is a failure, and so is a
    callback without a response after `WAIT_TIMEOUT`. One thread sends and receives all of them.

    If that thread is delayed between connecting and sending, a server that is replaced may close the new connection,
    and a persistent one if the thread is delayed between two callbacks on it. The callback is then repeated.

    Args:
        address: (host, port) of the server.
        body: the body of each callback.
        repeat: whether a callback whose connection breaks is repeated, as engines do.

    Attributes:
        statuses: how often each status was answered.
        acknowledged: the instance of each callback that was answered with a status 2xx.
        failures: the instance and the error of each callback that was not answered.
        sent: the instance of each callback.
    """

    def __init__(self, address, body, *, repeat=False):
        self.statuses = Counter()
        self.acknowledged = set()
        self.failures = []
        self.sent = []
        self._address = address
        self._body = json.dumps(body)
        self._repeat = repeat
        self._started = self._polled_at = 0.0
        self._free = deque(self._connection() for _ in range(PERSISTENT))
        self._released = {}
        self._repeats = []
        self._delayed = set()
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clients")

    def __enter__(self):
        self._started = self._polled_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join()  # each response arrives in time, or is given up

    def _connection(self):
        return http.client.HTTPConnection(*self._address, timeout=WAIT_TIMEOUT)

    def _next_due(self):
        return self._started + len(self.sent) / RATE

    def _run(self):
        with self._selector:
            while not self._stopping.is_set() or self._repeats or self._selector.get_map():
                repeats, self._repeats = self._repeats, []
                for callback in repeats:
                    self._send(callback)
                while not self._stopping.is_set() and self._next_due() <= time.monotonic():
                    self._send(self._next())
                pause = 1 / RATE if self._stopping.is_set() else max(0.0, self._next_due() - time.monotonic())
                polled_at = time.monotonic()
                for key, _ in self._selector.select(pause):
                    self._receive(key.data)
                self._polled_at = polled_at
                self._give_up_late()
        for connection in self._free:
            connection.close()

    def _next(self):
        number, due = len(self.sent), self._next_due()
        instance = f"c{number}"
        self.sent.append(instance)
        if number % 2 and self._free:
            return Callback(instance, self._free.popleft(), is_persistent=True, due=due)
        return Callback(instance, self._connection(), is_persistent=False, due=due)

    def _send(self, callback):
        is_new, error = callback.connection.sock is None, None
        silent_since = time.monotonic() if is_new else self._released[callback.connection]
        try:
            callback.connection.request("POST", f"/flow/{callback.instance}/call-back/complete", self._body)
        except (OSError, http.client.HTTPException) as raised:
            error = raised
        self._delayed.discard(callback.instance)
        if time.monotonic() - silent_since > (MAX_DELAY if is_new else MAX_SILENCE):
            self._delayed.add(callback.instance)
        if error is not None:
            self._on_error(callback, error)
        else:
            self._selector.register(callback.connection.sock, selectors.EVENT_READ, callback)

    def _receive(self, callback):
        """Read a response; a server sends it with one call, so reading the rest of it does not block."""
        self._selector.unregister(callback.connection.sock)
        try:
            response = callback.connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self._on_error(callback, error)
            return
        if response.status in range(200, 300):
            self.acknowledged.add(callback.instance)
        self.statuses[response.status] += 1
        self._release(callback)

    def _on_error(self, callback, error):
        callback.connection.close()
        is_late = time.monotonic() >= callback.due + WAIT_TIMEOUT
        is_repeated = self._repeat or (callback.instance in self._delayed and isinstance(error, ConnectionError))
        if is_repeated and not is_late and not isinstance(error, ConnectionRefusedError):
            self._repeats.append(callback)
        else:
            self.failures.append((callback.instance, repr(error)))
            self._release(callback)

    def _release(self, callback):
        if callback.is_persistent:
            self._free.append(callback.connection)  # the last one, so that each is used in turn
            self._released[callback.connection] = self._polled_at  # the response has come since then
        else:
            callback.connection.close()

    def _give_up_late(self):
        due = time.monotonic() - WAIT_TIMEOUT
        for key in [key for key in self._selector.get_map().values() if key.data.due <= due]:
            self._selector.unregister(key.fileobj)
            self._on_error(key.data, TimeoutError(f"no response in {WAIT_TIMEOUT:g} s"))

    def until_more(self, count=20):
        """Wait until `count` more callbacks were answered."""
        target = sum(self.statuses.values()) + count
        until(lambda: sum(self.statuses.values()) >= target, why=lambda: self.failures[:3])

    def check(self, site, *, others=0, unknown=0, unsettled=0):
        """Check that no callback was refused, lost or doubled.

        Args:
            site: the folder of the server.
            others: the number of further callbacks that the test itself sent.
            unknown: how many of them are *unknown*, because a process was killed while their handlers ran.
            unsettled: how many more may be, because a process was killed soon after their handlers had ended.
        """
        assert self.failures == []
        assert self.statuses.keys() <= {200, 202}
        assert self.acknowledged == set(self.sent)
        accepted = len(self.sent) + others

        def have_ended(ledger):
            counts = Counter(ledger.verify().deliveries)
            lost = counts["unknown"]
            is_exact = counts == Counter(succeeded=accepted - lost, unknown=lost)
            return is_exact and lost in range(unknown, unknown + unsettled + 1)

        site.until(have_ended)
        assert site.balance().accepted == accepted
