"""The callback listener of an app on real sockets, and the settings of its sources."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from contextlib import closing
from typing import NamedTuple

import pytest

from flowhooks import settings
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT

TOKEN = "token-of-the-sender-of-these-tests"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


class Response(NamedTuple):
    """One response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self):
        """The message of an error."""
        return json.loads(self.body)["message"]


class Client:
    """Sends requests to the callback listener of an app, each on a new connection."""

    bearer = f"Bearer {TOKEN}"

    def __init__(self, flow, address):
        self.flow = flow
        self._host, _, port = address.rpartition(":")
        self._port = int(port)

    def send(self, path, body=b"", method="POST", **headers):
        """Send a request; underscores in a header's name stand for dashes."""
        raw_body = body if isinstance(body, bytes) else json.dumps(body).encode()
        header_fields = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        with closing(http.client.HTTPConnection(self._host, self._port, timeout=WAIT_TIMEOUT)) as connection:
            connection.request(method, path, raw_body if method == "POST" else None, header_fields)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Response(response.status, headers, response.read())

    def post(self, name, body, content_type="application/json", **headers):
        """Send a request with a token to the fixed URL of a source."""
        headers.setdefault("Authorization", self.bearer)
        return self.send(f"/in/{name}", body, Content_Type=content_type, **headers)

    def rows(self, columns="flow_instance_id"):
        """These columns of all events, the oldest first."""
        return [tuple(row) for row in self.flow.sql(f"SELECT {columns} FROM events ORDER BY received_at, id")]

    def ignored(self):
        """The number of ignored requests, by source and rule."""
        return {
            (source, rule): count
            for source, rule, count in self.flow.sql("SELECT source, rule, count FROM ignored_requests")
        }

    def rejected(self):
        """The source, the status and the reason of each rejected request, once all are stored."""
        # The thread of the service may have taken requests that are not stored yet.
        self.flow.app.rejected_requests.stop(WAIT_TIMEOUT)
        self.flow.app.rejected_requests.flush()
        return self.flow.sql("SELECT source, status, reason_en FROM rejected_requests ORDER BY id")


@pytest.fixture
def sources(tmp_path):
    """A function that reads the sources of a settings file; `TOKEN` in it stands for the digest of the token."""

    def read(text):
        file = tmp_path / "flowhooks.toml"
        file.write_text(text.replace("TOKEN", f'token_sha256 = ["{DIGEST}"]'))
        return settings.load(file, {}, {}).sources

    return read


@pytest.fixture
def listen():
    """A function that serves the callback listener of an app; returns its client."""
    running = []

    def serve(flow, threads=4):
        server = Server(create_app(flow.app), listen="127.0.0.1:0", threads=threads, limits=Limits(), name="listen")
        thread = threading.Thread(target=server.serve)
        thread.start()
        running.append((server, thread))
        return Client(flow, server.address)

    yield serve
    for server, thread in running:
        server.close()
        thread.join(WAIT_TIMEOUT)
