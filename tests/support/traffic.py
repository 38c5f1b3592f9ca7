"""An engine that sends callbacks continuously, and one port in front of several servers."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Balancer:
    """One port in front of several servers: each connection goes to the next one."""

    def __init__(self, servers: Sequence[tuple[str, int]]) -> None:
        self._next = itertools.cycle(servers)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.place: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(next(self._next)) as server:
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while some := one.recv(65536):
            other.sendall(some)
        other.shutdown(socket.SHUT_WR)


@dataclass(slots=True)
class CallbackSender:
    """Callbacks of an engine, and their responses.

    Attributes:
        place: the address.
        bodies: their bodies, in turn.
        a_second: the number sent per second.
        answered: the number of responses by status; 0 is no response.
        sent: the number sent.
    """

    place: tuple[str, int]
    bodies: Sequence[object]
    a_second: float
    answered: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Send until `stop`."""
        threading.Thread(target=self._send, daemon=True).start()

    def stop(self) -> None:
        """Send no more, and wait for the responses."""
        self._over.set()
        self._pool.shutdown()

    def _send(self) -> None:
        while not self._over.wait(1 / self.a_second):
            with suppress(RuntimeError):  # stopped in between
                self._pool.submit(self._post, self.sent)
                self.sent += 1

    def _post(self, number: int) -> None:
        body = self.bodies[number % len(self.bodies)]
        connection = http.client.HTTPConnection(*self.place, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", f"/flow/{number}/call-back/complete", json.dumps(body), headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        with self._counting:
            self.answered[status] += 1
