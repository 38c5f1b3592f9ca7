"""A mail server and a chat's webhook on real sockets, which accept messages or fail on request."""

from __future__ import annotations

import base64
import json
import socketserver
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from flowhooks import Alert, AlertCause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import EmailMessage
    from pathlib import Path

PASSWORD = "correct horse battery staple"


class MailServer(socketserver.ThreadingTCPServer):
    """The part of RFC 5321 that a client needs.

    Attributes:
        mails: (receivers, mail) of each mail that was accepted.
        replies: replies that replace the normal ones, by the command in lower case or its first word.
        commands: all commands received, in order.
        encrypted: whether each mail was received encrypted.
        silent: set to make the server send nothing more.
        endless_reply: set to make the next reply a list of lines without an end.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None, *, implicit_tls: bool) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.context = context
        self.implicit_tls = implicit_tls
        self.mails: list[tuple[list[str], EmailMessage]] = []
        self.raw: list[bytes] = []
        self.replies: dict[str, str] = {}
        self.commands: list[str] = []
        self.encrypted: list[bool] = []
        self.silent = threading.Event()
        self.endless_reply = threading.Event()
        self.stopped = threading.Event()

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return int(self.server_address[1])

    def handle_error(self, *_: Any) -> None:
        """Ignore a client that disconnects."""


class Conversation(socketserver.StreamRequestHandler):
    """The connection of one client."""

    server: MailServer

    def handle(self) -> None:
        """Answer commands until the client disconnects."""
        self.secure = False
        if self.server.implicit_tls:
            self._encrypt()
        self.receivers: list[str] = []
        self._say("220 here")
        while line := self.rfile.readline():
            command = line.decode().rstrip("\r\n")
            self.server.commands.append(command)
            if self.server.silent.is_set():
                self.server.stopped.wait(30)
                return
            if self.server.endless_reply.is_set():
                self.server.endless_reply.clear()
                send_repeatedly(self.wfile, b"250-more\r\n", self.server.stopped)
            word = command.split()[0].upper()
            if reply := self.server.replies.get(command.casefold()) or self.server.replies.get(word):
                self._say(reply)
            else:
                getattr(self, f"do_{word.lower()}")(command)
            if word == "QUIT":
                return

    def finish(self) -> None:
        """Close the encrypted socket, which replaced the first socket, too."""
        super().finish()
        self.request.close()

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def _encrypt(self) -> None:
        assert self.server.context is not None
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
        self.secure = True

    def do_ehlo(self, _: str) -> None:
        """List the extensions."""
        offers = ["STARTTLS"] if self.server.context and not self.secure else ["AUTH PLAIN"]
        self._say("250-here")
        self._say(f"250 {offers[0]}")

    def do_starttls(self, _: str) -> None:
        """Encrypt."""
        self._say("220 go on")
        self._encrypt()

    def do_auth(self, command: str) -> None:
        """Accept the login of the only user."""
        credentials = base64.b64decode(command.split()[2]).split(b"\0")
        self._say("235 welcome" if credentials == [b"", b"flow", PASSWORD.encode()] else "535 no")

    def do_mail(self, _: str) -> None:
        """Accept any sender."""
        self._say("250 yes")

    def do_rcpt(self, command: str) -> None:
        """Accept any receiver."""
        self.receivers.append(command.partition("<")[2].partition(">")[0])
        self._say("250 yes")

    def do_data(self, _: str) -> None:
        """Accept the mail."""
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        raw = b"".join(lines)
        self.server.raw.append(raw)
        self.server.encrypted.append(self.secure)
        # Last, because tests wait for it.
        self.server.mails.append((self.receivers, message_from_bytes(raw, policy=policy.default)))
        self._say("250 taken")

    def do_rset(self, _: str) -> None:
        """Clear the receivers."""
        self.receivers = []
        self._say("250 yes")

    def do_quit(self, _: str) -> None:
        """End the connection."""
        self._say("221 bye")


class Hook(ThreadingHTTPServer):
    """A chat's webhook.

    Attributes:
        posts: (path, body) of each post.
        response: (status, body) of the next response.
        endless_response: the start of each response, and the part that follows it without an end.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PostHandler)
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.response: tuple[int, bytes] = (200, b"ok")
        self.headers: dict[str, str] = {}
        self.silent = threading.Event()
        self.endless_response: tuple[bytes, bytes] | None = None
        self.stopped = threading.Event()

    def url(self, path: str = "/hook/s3cret") -> str:
        """The address to post to."""
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class PostHandler(BaseHTTPRequestHandler):
    """The handler of one post."""

    server: Hook

    def do_POST(self) -> None:
        """Store the post and respond."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, body))
        if self.server.silent.is_set():
            self.server.stopped.wait(30)
            return
        if self.server.endless_response is not None:
            start, part = self.server.endless_response
            self.wfile.write(start)
            send_repeatedly(self.wfile, part, self.server.stopped)
        status, reply = self.server.response
        with suppress(OSError):
            self.send_response(status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def send_repeatedly(file: Any, part: bytes, stopped: threading.Event) -> None:
    """Send a part twenty times a second, for a minute or until the client disconnects."""
    with suppress(OSError):
        for _ in range(1_200):
            if stopped.wait(0.05):
                return
            file.write(part)


def running(server: Any) -> Iterator[Any]:
    """Serve until the test is over."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stopped.set()
    server.shutdown()
    thread.join(20)
    server.server_close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """The authority that issues this machine's certificate."""
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file that makes clients trust this authority."""
    file: Path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return str(file)


@pytest.fixture(scope="session")
def context(authority: trustme.CA) -> ssl.SSLContext:
    """The TLS configuration of a server."""
    ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(ssl_context)
    return ssl_context


@pytest.fixture
def starttls(context: ssl.SSLContext) -> Iterator[MailServer]:
    """A mail server that encrypts after STARTTLS."""
    yield from running(MailServer(context, implicit_tls=False))


@pytest.fixture
def tls(context: ssl.SSLContext) -> Iterator[MailServer]:
    """A mail server that encrypts from the first byte."""
    yield from running(MailServer(context, implicit_tls=True))


@pytest.fixture
def plain() -> Iterator[MailServer]:
    """A mail server that does not encrypt."""
    yield from running(MailServer(None, implicit_tls=False))


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A chat's webhook."""
    yield from running(Hook())


@pytest.fixture
def password() -> str:
    """The password of the user `flow`."""
    return PASSWORD


@pytest.fixture
def make_alert() -> Callable[..., Alert]:
    """A function that makes an alert of dead deliveries, with changes."""

    def make(**changes: Any) -> Alert:
        members: dict[str, Any] = {
            "id": "0197-alert",
            "cause": AlertCause.DEAD,
            "subject": "contracts:archive_contract",
            "message": "20 deliveries of handler contracts:archive_contract are dead: fix the cause.",
            "started_at": datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
            "count": 20,
            "event_id": "0197-event",
            "host": "flows-1",
            "plugin_version": "1.4",
            "console_url": "/console/handlers?q=contracts%3Aarchive_contract",
        }
        return Alert(**members | changes)

    return make
