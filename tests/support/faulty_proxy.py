"""A TCP proxy that resets, delays or drops data, or loses one reply, as networks do."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time

COMMIT = b"COMMIT\0"
PREPARED = re.compile(rb"(_pg3_[0-9]+)\0([A-Z]{4}[^\0]*)")
"""The name that the driver gives a statement when it prepares it, and the statement."""
NAMED = re.compile(rb"_pg3_[0-9]+(?=\0)")
RESET = struct.pack("ii", 1, 0)
"""The linger option with which closing a socket resets its connection."""


class _ProxiedConnection:
    """A connection to the client and its connection to the server."""

    def __init__(self, proxy, client):
        self._proxy = proxy
        self.client = client
        self.server = socket.create_connection(proxy.target)
        self.discards = False
        self._statements = b""
        self._prepared = {}
        self._loses_reply = False

    def start(self):
        """Forward data both ways."""
        directions = ((self.client, self.server, self._on_request), (self.server, self.client, self._on_reply))
        for source, target, on_data in directions:
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, target, on_data), daemon=True).start()

    def _pump(self, source, target, on_data):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._proxy.delay:
                    time.sleep(self._proxy.delay)
                if not self.discards and on_data(data):
                    target.sendall(data)
            if not self.discards:
                target.shutdown(socket.SHUT_WR)

    def _on_request(self, data):
        """Record the statements of the client's data, and detect a COMMIT whose reply is to be lost."""
        self._statements += data
        if COMMIT in data:
            statements, self._statements = self._statements, b""
            # From the seventh execution on, the driver only sends the name of a statement.
            self._prepared |= PREPARED.findall(statements)
            statements += b"".join(self._prepared.get(name, b"") for name in NAMED.findall(statements))
            self._loses_reply = self._proxy.is_lost(statements)
        return True

    def _on_reply(self, _data):
        """Whether a reply is forwarded."""
        if not self._loses_reply:
            return True
        # The server has replied, so it has committed. Its reply is lost: the reset lets a process continue at once.
        self._proxy.lost.set()
        self.cut()
        return False

    def cut(self):
        """Reset both connections."""
        for connection in (self.client, self.server):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                connection.shutdown(socket.SHUT_RD)  # this wakes a thread that waits for it
            connection.close()


class Proxy:
    """A proxy between the processes of a test and the port of a server.

    Attributes:
        delay: seconds by which all data is delayed, each way.
        discards: whether new connections discard all data without an error.
        lost: set once the reply that `lose_reply` selects has been lost.
    """

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.delay = 0.0
        self.discards = False
        self.lost = threading.Event()
        self._selects_reply = None
        self._lock = threading.Lock()
        self._connections = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    connection = _ProxiedConnection(self, client)
                except OSError:
                    client.close()  # the server is not running
                else:
                    # Listed before it forwards: `discard` then finds every connected client.
                    with self._lock:
                        connection.discards = self.discards
                        self._connections.append(connection)
                    with contextlib.suppress(OSError):  # it was cut in the meantime
                        connection.start()

    def cut(self):
        """Reset all existing connections; new ones can be made."""
        with self._lock:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.cut()

    def discard(self):
        """Discard data on old and new connections without closing them."""
        with self._lock:
            self.discards = True
            for connection in self._connections:
                connection.discards = True

    def restore(self):
        """Let new connections work; connections that discard data continue to do so."""
        self.discards = False
        self.delay = 0.0

    def lose_reply(self, is_selected):
        """Lose the reply to the next COMMIT for whose statements `is_selected` returns true."""
        self.lost.clear()
        self._selects_reply = is_selected

    def is_lost(self, statements):
        """Whether the reply to a COMMIT is to be lost; only once."""
        with self._lock:
            if self._selects_reply is None or not self._selects_reply(statements):
                return False
            self._selects_reply = None
            return True

    def close(self):
        """Reset all connections, and stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)  # this wakes a thread that waits for it
        self._listener.close()
        self.cut()
