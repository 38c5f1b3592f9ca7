"""A TCP proxy that cuts, delays, swallows, or loses one answer, as networks do."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

COMMIT = b"COMMIT\0"
RESET = struct.pack("ii", 1, 0)
"""To close a socket with this for its lingering is to reset its connection."""


class _Line:
    """One connection, and its other half."""

    def __init__(self, proxy, client):
        self._proxy = proxy
        self.client = client
        self.server = socket.create_connection(proxy.target)
        self.swallows = proxy.swallows
        self._said = b""
        self._losing = False
        for source, target, hear in ((client, self.server, self._asked), (self.server, client, self._answered)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, target, hear), daemon=True).start()

    def _pump(self, source, target, hear):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._proxy.delay:
                    time.sleep(self._proxy.delay)
                if not self.swallows and hear(data):
                    target.sendall(data)
            if not self.swallows:
                target.shutdown(socket.SHUT_WR)

    def _asked(self, data):
        """Note what the client says, and whether it is the COMMIT whose answer is to be lost."""
        self._said += data
        if COMMIT in data:
            said, self._said = self._said, b""
            self._losing = self._proxy.is_lost(said)
        return True

    def _answered(self, _data):
        """Whether an answer goes on its way."""
        if not self._losing:
            return True
        # The server has answered, so it has committed.
        self.cut()
        self._proxy.lost.set()
        return False

    def cut(self):
        """Reset both halves."""
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.shutdown(socket.SHUT_RD)  # which wakes a thread that waits for it
            one.close()


class Proxy:
    """Between the processes of a test and the port of a server.

    Attributes:
        delay: seconds by which all data is delayed, each way.
        swallows: whether connections that are made from now on discard all data, without an error.
        lost: set once the answer has been lost that `lose_answer` asked for.
    """

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.delay = 0.0
        self.swallows = False
        self.lost = threading.Event()
        self._loses = None
        self._lock = threading.Lock()
        self._lines = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    line = _Line(self, client)
                except OSError:
                    client.close()  # the server is not there
                else:
                    self._lines.append(line)

    def cut(self):
        """Reset all connections that there are; new ones can be made."""
        lines, self._lines = self._lines, []
        for line in lines:
            line.cut()

    def swallow(self):
        """From now on nothing gets through, on old connections and on new ones, and none of them is closed."""
        self.swallows = True
        for line in self._lines:
            line.swallows = True

    def heal(self):
        """New connections work again; what swallowed goes on swallowing."""
        self.swallows = False
        self.delay = 0.0

    def lose_answer(self, wanted):
        """Lose the answer of the next COMMIT of which `wanted`, given all that the transaction said, is true."""
        self.lost.clear()
        self._loses = wanted

    def is_lost(self, said):
        """Whether the answer of a COMMIT is to be lost; of one only."""
        with self._lock:
            if self._loses is None or not self._loses(said):
                return False
            self._loses = None
            return True

    def close(self):
        """Cut all, and listen no more."""
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes a thread that waits for it
        self._listener.close()
        self.cut()
