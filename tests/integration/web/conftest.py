"""A real server on a real socket, and a client that sends any bytes."""

from __future__ import annotations

import json
import socket
import threading
from typing import NamedTuple

import falcon
import pytest

from flowhooks.web import errors
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT


class Response(NamedTuple):
    """One response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        """The body, read as JSON."""
        return json.loads(self.body)


class Client:
    """One connection, which buffers the start of the next response."""

    def __init__(self, address, source):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_TIMEOUT, source_address=(source, 0))
        self.buffer = b""

    def send(self, raw):
        """Send bytes; return the client."""
        self.socket.sendall(raw)
        return self

    def answer(self, *, head_only=False):
        """The next response; None if the server closes instead."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if not self._read():
                assert not self.buffer, self.buffer
                return None
        status_line, *lines = self.buffer[:end].decode("latin-1").split("\r\n")
        self.buffer = self.buffer[end + 4 :]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        status = int(status_line.split(" ")[1])
        length = 0 if head_only or status == 100 else int(headers["content-length"])
        while len(self.buffer) < length:
            assert self._read(), "the server closed in the middle of an answer"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Response(status, headers, body)

    def closed(self):
        """Whether the server closes the connection without sending more."""
        try:
            return not self.buffer and not self._read()
        except ConnectionResetError:
            return True

    def close(self):
        """Close the connection."""
        self.socket.close()

    def _read(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return data


class Resource:
    """Responds with the data that tests check; `/slow` waits for `go`."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()

    def on_get(self, req, resp):
        """Return the request line and the Host header."""
        resp.media = {"host": req.host, "query": req.query_string}

    def on_post(self, req, resp):
        """Return the body."""
        body = req.bounded_stream.read()
        resp.media = {"length": len(body), "start": body[:20].decode("latin-1")}

    def on_get_slow(self, req, resp):
        """Respond after `go`."""
        self.entered.release()
        assert self.go.wait(WAIT_TIMEOUT)
        resp.media = {"slow": True}

    def on_get_boom(self, req, resp):
        """Raise an unexpected error."""
        raise RuntimeError("secret-of-the-server")


@pytest.fixture
def resource():
    """The behaviour of the application in `app`."""
    return Resource()


@pytest.fixture
def app(resource):
    """A small Falcon application with flowhooks's errors."""
    app = falcon.App()
    app.add_route("/x", resource)
    app.add_route("/slow", resource, suffix="slow")
    app.add_route("/boom", resource, suffix="boom")
    errors.install(app)
    return app


@pytest.fixture
def start(app):
    """Start a server: `start(app=…, listen=…, threads=…, inherited=…, **limits)`; all are closed at the end."""
    running = []

    def start(app=app, *, listen="127.0.0.1:0", threads=4, inherited=None, **limits):
        server = Server(app, listen=listen, threads=threads, limits=Limits(**limits), name="test", inherited=inherited)
        thread = threading.Thread(target=server.serve)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.close()
        thread.join(WAIT_TIMEOUT)
        assert not thread.is_alive()


@pytest.fixture
def connect():
    """Connect to a server: `connect(server, source=…)`; all connections are closed at the end."""
    clients = []

    def connect(server, *, source="127.0.0.1"):
        clients.append(Client(server.address, source))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def ask(connect):
    """Send bytes on a new connection; return the first response."""

    def ask(server, raw):
        return connect(server).send(raw).answer()

    return ask
