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


class _Line:
    """A connection to the client and its connection to the server."""

    def __init__(self, proxy, client):
        self._proxy = proxy
        self.client = client
        self.server = socket.create_connection(proxy.target)
        self.swallows = False
        self._said = b""
        self._prepared = {}
        self._losing = False

    def start(self):
        """Forward data both ways."""
        ways = ((self.client, self.server, self._asked), (self.server, self.client, self._answered))
        for source, target, hear in ways:
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
        """Read the client's data, and note a COMMIT whose reply is to be lost."""
        self._said += data
        if COMMIT in data:
            said, self._said = self._said, b""
            # From the seventh execution on, the driver only sends the name of a statement.
            self._prepared |= PREPARED.findall(said)
            said += b"".join(self._prepared.get(name, b"") for name in NAMED.findall(said))
            self._losing = self._proxy.is_lost(said)
        return True

    def _answered(self, _data):
        """Whether a reply is forwarded."""
        if not self._losing:
            return True
        # The server has replied, so it has committed. It is lost from now on: the cut lets a process go on at once.
        self._proxy.lost.set()
        self.cut()
        return False

    def cut(self):
        """Reset both connections."""
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.shutdown(socket.SHUT_RD)  # this wakes a thread that waits for it
            one.close()


class Proxy:
    """A proxy between the processes of a test and the port of a server.

    Attributes:
        delay: seconds by which all data is delayed, each way.
        swallows: whether new connections discard all data without an error.
        lost: set once the reply that `lose_answer` selects has been lost.
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
                    client.close()  # the server is not running
                else:
                    # Listed before it forwards: a client that is connected is among those that `swallow` means.
                    with self._lock:
                        line.swallows = self.swallows
                        self._lines.append(line)
                    with contextlib.suppress(OSError):  # it was cut in the meantime
                        line.start()

    def cut(self):
        """Reset all existing connections; new ones can be made."""
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            line.cut()

    def swallow(self):
        """Discard data on old and new connections without closing them."""
        with self._lock:
            self.swallows = True
            for line in self._lines:
                line.swallows = True

    def heal(self):
        """Let new connections work; connections that discard data continue to do so."""
        self.swallows = False
        self.delay = 0.0

    def lose_answer(self, wanted):
        """Lose the reply to the next COMMIT for which `wanted`, given the transaction's statements, is true."""
        self.lost.clear()
        self._loses = wanted

    def is_lost(self, said):
        """Whether the reply to a COMMIT is to be lost; only once."""
        with self._lock:
            if self._loses is None or not self._loses(said):
                return False
            self._loses = None
            return True

    def close(self):
        """Reset all connections, and stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)  # this wakes a thread that waits for it
        self._listener.close()
        self.cut()
