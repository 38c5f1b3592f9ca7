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
        self.address: tuple[str, int] = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(next(self._next)) as server:
            back = threading.Thread(target=_copy_data, args=(server, client), daemon=True)
            back.start()
            _copy_data(client, server)
            back.join()


def _copy_data(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@dataclass(slots=True)
class CallbackSender:
    """Callbacks of an engine, and their responses.

    Attributes:
        address: the host and port to which they are sent.
        bodies: their bodies, in turn.
        rate: the number sent per second.
        answered: the number of responses by status; 0 is no response.
        sent: the number sent.
    """

    address: tuple[str, int]
    bodies: Sequence[object]
    rate: float
    answered: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Send until `stop`."""
        threading.Thread(target=self._send, daemon=True).start()

    def stop(self) -> None:
        """Send no more, and wait for the responses."""
        self._stopping.set()
        self._pool.shutdown()

    def _send(self) -> None:
        while not self._stopping.wait(1 / self.rate):
            with suppress(RuntimeError):  # stopped in between
                self._pool.submit(self._post, self.sent)
                self.sent += 1

    def _post(self, number: int) -> None:
        body = self.bodies[number % len(self.bodies)]
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request("POST", f"/flow/{number}/call-back/complete", json.dumps(body), headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            connection.close()
        with self._lock:
            self.answered[status] += 1
