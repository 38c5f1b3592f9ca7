"""The suite for engine clients that use HTTP: no server can stop them, fill the memory or learn their credential.

It needs no engine: a server on this machine answers as broken engines, proxies and attackers do.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
import threading
import traceback
import tracemalloc
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import pytest

from flowhooks.errors import EngineError
from flowhooks.model.engine import EngineConfig
from flowhooks.testing.engines.hostile_server import MIB, HostileServer, Request, bomb, endless, response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks.model.engine import EngineClient, EngineClientFactory

TIMEOUT: Final = 10.0
"""The clients' timeout for one request, in seconds, if the answer is not late: the machine may be busy."""
SHORT_TIMEOUT: Final = 0.5
"""The clients' timeout if the answer is late."""
END_TIMEOUT: Final = 60.0
"""Seconds after which a call counts as one that never ends; some clients need several requests for a call."""
MAX_READ_BYTES: Final = 64 * MIB
"""Size above which a client must not read an answer any further."""
MAX_MEMORY_BYTES: Final = 192 * MIB
"""Memory that one call may need for a hostile answer, whatever its size."""
MAX_REQUESTS: Final = 5
"""Requests that a client may send for one call that fails."""
PAGE_ROWS: Final = 500
"""Rows of such a page."""
MAX_PAGES: Final = 60
"""Pages that a client may read if each one is full."""
BASE_PATH: Final = "/engine/rest"
USERNAME: Final = "rest-user-Xq7"
PASSWORD: Final = "pass-word-Kw93vT"  # noqa: S105 (of no one)
TOKEN: Final = "bearer-token-Zt61mR"  # noqa: S105 (of no one)
BASIC: Final = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
SECRETS: Final = (PASSWORD, TOKEN, BASIC)
_WITH_PASSWORD: Final = {"username": USERNAME, "password": PASSWORD}
_WITH_TOKEN: Final = {"token": TOKEN}

SINCE: Final = datetime(2026, 1, 1, tzinfo=UTC)

CALLS: Final[dict[str, Callable[[EngineClient], object]]] = {
    "check": lambda client: client.check(),
    "finished": lambda client: client.finished(SINCE, SINCE + timedelta(hours=1)),
    "instance": lambda client: client.instance("4711"),
    "definitions": lambda client: client.definitions(),
}
HTML: Final = b"<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>"
UNREADABLE: Final = {
    "html": response(200, HTML, "text/html"),
    "html-as-json": response(200, HTML),
    "empty": response(200, b""),
    "no-content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "truncated": response(200, b'{"data": [{"id": "1", "endTime": "2026-01-01T'),
    "not-utf-8": response(200, b'[{"id": "\xff\xfe"}]'),
    "nested": response(200, b"[" * 200_000),
    "large-number": response(200, b'{"data": ' + b"9" * 10_000 + b"}"),
    "null": response(200, b"null"),
    "number": response(200, b"42"),
    "text": response(200, b'"text"'),
    "list-of-numbers": response(200, b"[1]"),
    "list-of-null": response(200, b"[null]"),
    "data-is-a-number": response(200, b'{"data": 5, "total": 1}'),
    "data-has-numbers": response(200, b'{"data": [7], "total": 1, "start": 0, "size": 1}'),
    "wrong-members": response(200, b'[{"id": 5, "endTime": 7, "key": [], "version": {}}]'),
    "ten-megabytes": response(200, b'{"data": ["' + b"x" * (10 * MIB) + b'"]}'),
}
CUT_OFF: Final = {
    "before": b"",
    "status": b"HTTP/1.1 2",
    "header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "body": response(200, b"[] " * 100)[:-150],
    "no-http": b"SSH-2.0-OpenSSH_9.6\r\n",
}
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS: Final = {
    "body": _HEAD + b"Connection: close\r\n\r\n[",
    "chunks": _HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n[",
    "header": _HEAD + b"X-Long: ",
}
PAGES: Final[dict[str, Callable[[list[dict[str, Any]]], Any]]] = {
    "list": lambda rows: rows,
    "data": lambda rows: {"data": rows, "total": 1_000_000_000},
}
"""How engines list definitions. No page is the last one."""
REFUSED: Final = (401, 403)
UNREACHABLE: Final = (500, 502, 503, 504)
REDIRECTS: Final = (301, 302, 303, 307, 308)
ODD_IDS: Final = ("..", ".", "../../admin", "a/../../../x", "a\r\nX-Injected: yes", "a b", "a#b", "a?b=c&d", "审批/1")


class HttpClientContract:
    """The tests of an engine client that uses HTTP, without an engine.

    Subclass it in a test module with a fixture `factory`, which returns the function that the hook `engine_clients`
    offers:

        @pytest.fixture
        def factory() -> EngineClientFactory:
            return MyClient


        class TestMyClientOverHttp(HttpClientContract):
            pass
    """

    @pytest.fixture(autouse=True)
    def _no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Leave no proxy in the environment: the server is on this machine."""
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    def test_making_a_client_does_not_connect(self, factory: EngineClientFactory) -> None:
        """The factory sends nothing: flowhooks also calls it while the engine is down."""
        with HostileServer(_always(response(200, b"[]"))) as server:
            factory(_config(server)).close()
        assert server.connections == 0, "the factory must not connect"

    @pytest.mark.parametrize("credential", [_WITH_PASSWORD, _WITH_TOKEN, {}], ids=["password", "token", "none"])
    def test_the_credential_is_sent(self, factory: EngineClientFactory, credential: dict[str, str]) -> None:
        """Each request has the password as HTTP Basic authentication, or the token; without them it has neither."""
        expected = "Basic " + BASIC if "password" in credential else "Bearer " + TOKEN if credential else None
        with HostileServer(_always(response(500, b"{}"))) as server:
            _check_calls(factory, _config(server, credential), server, "unreachable")
        assert server.requests, "the client sent no request"
        found = {request.headers.get("authorization") for request in server.requests}
        assert found == {expected}, f"wrong header Authorization with the settings {sorted(credential)}"

    def test_cookies_are_not_kept(self, factory: EngineClientFactory) -> None:
        """A request has no cookie of an earlier answer: their number has no limit."""
        with HostileServer(_always(response(500, b"{}", "text/html", "Set-Cookie: id=1; Path=/"))) as server:
            _check_calls(factory, _config(server), server, "unreachable")
        assert not any("cookie" in request.headers for request in server.requests), "the client keeps cookies"

    @pytest.mark.parametrize("status", REFUSED)
    def test_a_refused_credential(self, factory: EngineClientFactory, status: int) -> None:
        """The statuses 401 and 403 are errors with the reason `refused`, which name the status."""
        with HostileServer(_echo(status)) as server:
            _check_calls(factory, _config(server), server, "refused", text=str(status))

    @pytest.mark.parametrize("status", UNREACHABLE)
    def test_a_failing_engine(self, factory: EngineClientFactory, status: int) -> None:
        """The statuses 5xx are errors with the reason `unreachable`, which name the status; no endless retries."""
        with HostileServer(_echo(status)) as server:
            _check_calls(factory, _config(server), server, "unreachable", text=str(status))

    def test_a_wrong_url(self, factory: EngineClientFactory) -> None:
        """A page 404 of a web server is an error with the reason `invalid`, never an absent instance."""
        with HostileServer(_echo(404)) as server:
            _check_calls(factory, _config(server), server, "invalid")

    @pytest.mark.parametrize("status", REDIRECTS)
    def test_a_redirect_to_another_host(self, factory: EngineClientFactory, status: int) -> None:
        """A redirect to another host is an error with the reason `invalid`; nothing is sent there."""
        with HostileServer(_always(response(200, b"[]"))) as other:
            location = f"Location: http://localhost:{other.port}{BASE_PATH}/other"
            with HostileServer(_always(response(status, b"", "text/html", location))) as server:
                _check_calls(factory, _config(server), server, "invalid")
        assert other.connections == 0, "the client must not follow a redirect to another host: it sends its credential"

    def test_an_endless_redirect(self, factory: EngineClientFactory) -> None:
        """A redirect to itself ends with an error."""

        def answer(request: Request) -> Iterator[bytes]:
            yield response(302, b"", "text/html", f"Location: {request.target}")

        with HostileServer(answer) as server:
            _check_calls(factory, _config(server), server, "invalid", max_requests=50)

    @pytest.mark.parametrize("name", UNREADABLE)
    def test_an_unreadable_answer(self, factory: EngineClientFactory, name: str) -> None:
        """HTML, cut or deeply nested JSON, and JSON of the wrong types are errors with the reason `invalid`."""
        with HostileServer(_always(UNREADABLE[name])) as server:
            _check_calls(factory, _config(server), server, "invalid")

    @pytest.mark.parametrize("name", CUT_OFF)
    def test_an_answer_that_is_cut_off(self, factory: EngineClientFactory, name: str) -> None:
        """A connection that is closed before or in the middle of the answer is an error, and so is another protocol."""
        with HostileServer(_always(CUT_OFF[name])) as server:
            _check_calls(factory, _config(server), server)

    def test_a_silent_engine(self, factory: EngineClientFactory) -> None:
        """A request that is not answered ends after `timeout` with the reason `unreachable`."""
        with HostileServer(lambda _: server.wait()) as server:
            _check_calls(factory, _config(server, timeout=SHORT_TIMEOUT), server, "unreachable")

    @pytest.mark.parametrize("part", ["head", "body"])
    def test_a_slow_answer(self, factory: EngineClientFactory, part: str) -> None:
        """An answer that arrives byte by byte ends after `timeout`, which is for the whole request."""
        text = response(200, b"[" + b" " * MIB)
        body = text.index(b"\r\n\r\n") + 4 if part == "body" else 0

        def answer(_: Request) -> Iterator[bytes]:
            yield text[:body]
            yield from server.drip(text[body:])

        with HostileServer(answer) as server:
            _check_calls(factory, _config(server, timeout=SHORT_TIMEOUT), server, "unreachable")

    @pytest.mark.parametrize("name", ENDLESS)
    def test_an_endless_answer(self, factory: EngineClientFactory, name: str) -> None:
        """An answer without an end is an error; the client reads a bounded part of it."""
        with HostileServer(lambda _: endless(ENDLESS[name])) as server:
            _check_calls(factory, _config(server), server, max_memory=MAX_MEMORY_BYTES)
        most = MAX_READ_BYTES * len(server.requests)
        assert server.sent <= most, f"the client read {server.sent // MIB} MiB of endless answers: stop at a limit"

    @pytest.mark.parametrize("name", PAGES)
    def test_definitions_without_an_end(self, factory: EngineClientFactory, name: str) -> None:
        """If each page of the definitions is full, the call ends with an error, and needs a bounded memory."""

        def answer(_: Request) -> Iterator[bytes]:
            ids = [f"{len(server.requests)}-{number}" for number in range(PAGE_ROWS)]
            rows = [
                {"id": id_, "key": id_, "version": 1, "name": "x" * (3 * MIB // PAGE_ROWS), "tenantId": None}
                for id_ in ids
            ]
            yield response(200, json.dumps(PAGES[name](rows)).encode())

        calls = {"definitions": CALLS["definitions"]}
        with HostileServer(answer) as server:
            _check_calls(
                factory,
                _config(server),
                server,
                "invalid",
                calls=calls,
                max_requests=MAX_PAGES,
                max_memory=MAX_MEMORY_BYTES,
            )

    def test_a_compressed_bomb(self, factory: EngineClientFactory) -> None:
        """A compressed answer that grows a thousand times is an error; the client needs a bounded memory."""
        with HostileServer(_always(bomb())) as server:
            _check_calls(factory, _config(server), server, "invalid", max_memory=MAX_MEMORY_BYTES)

    def test_a_refused_connection(self, factory: EngineClientFactory) -> None:
        """A port on which nothing listens is an error with the reason `unreachable`."""
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))  # bound without listening: connections are refused
            _check_calls(factory, _config(unused.getsockname()[1]), None, "unreachable")

    def test_no_tls(self, factory: EngineClientFactory) -> None:
        """A server that does not speak TLS at an `https` URL is an error with the reason `unreachable`."""
        with HostileServer(_always(response(200, b"[]"))) as server:
            _check_calls(factory, _config(server, scheme="https"), server, "unreachable")
        assert server.requests == [], "nothing may be sent without TLS"

    def test_an_unknown_certificate(self, factory: EngineClientFactory) -> None:
        """A server whose certificate no authority has signed receives no request."""
        trustme = pytest.importorskip("trustme", reason="the certificate for this test is made by trustme")
        with HostileServer(_always(response(200, b"[]"))) as server:
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trustme.CA().issue_cert("127.0.0.1").configure_cert(server.tls)
            _check_calls(factory, _config(server, scheme="https"), server, "unreachable")
        assert server.requests == [], "the client must verify the server's certificate before it sends its credential"

    @pytest.mark.parametrize("instance_id", ODD_IDS)
    def test_an_id_stays_in_its_place(self, factory: EngineClientFactory, instance_id: str) -> None:
        """No instance id leads to another path of the engine, or adds a header."""
        calls = {f"instance({instance_id!r})": lambda client: client.instance(instance_id)}
        with HostileServer(_always(response(500, b"{}"))) as server:
            _check_calls(factory, _config(server), server, "unreachable", calls=calls)
        for request in server.requests:
            path = request.target.partition("?")[0]
            assert path.startswith(f"{BASE_PATH}/"), f"the request for {instance_id!r} left the base URL: {path}"
            steps = {".", ".."} & set(unquote(path).split("/"))
            assert not steps, f"the request for {instance_id!r} leads to another path: {path}"
            assert "x-injected" not in request.headers, f"the request for {instance_id!r} has a header of its own"


# Helpers of the tests.


def _config(
    server: HostileServer | int,
    credential: dict[str, str] | None = None,
    *,
    scheme: str = "http",
    timeout: float = TIMEOUT,
) -> EngineConfig:
    port = server if isinstance(server, int) else server.port
    given: dict[str, Any] = dict(_WITH_PASSWORD if credential is None else credential)
    return EngineConfig(source="oa", url=f"{scheme}://127.0.0.1:{port}{BASE_PATH}", timeout=timeout, **given)


def _always(answer: bytes) -> Callable[[Request], Iterator[bytes]]:
    return lambda _: iter([answer])


def _echo(status: int) -> Callable[[Request], Iterator[bytes]]:
    """Return an answer whose reason phrase and HTML page repeat the credential, as some error pages do."""

    def answer(request: Request) -> Iterator[bytes]:
        shown = request.headers.get("authorization", "")
        body = f"<html>{status} {shown} {PASSWORD}</html>".encode()
        yield response(status, body, "text/html", f"X-Echo: {shown}", reason=shown)

    return answer


def _check_calls(
    factory: EngineClientFactory,
    config: EngineConfig,
    server: HostileServer | None,
    reason: str | None = None,
    *,
    calls: Mapping[str, Callable[[EngineClient], object]] = CALLS,
    text: str = "",
    max_requests: int = MAX_REQUESTS,
    max_memory: int | None = None,
) -> None:
    """Make each call with one client, and check its error.

    Args:
        factory: makes the client.
        config: its settings.
        server: the server that it asks.
        reason: the reason that the error must have; None: `unreachable` or `invalid`.
        calls: the calls.
        text: a part of the error's sentence.
        max_requests: the number of requests that each call may send.
        max_memory: the memory that each call may need, in bytes.
    """
    reasons = {reason} if reason else {"unreachable", "invalid"}
    client = factory(config)
    for name, call in calls.items():
        asked = len(server.requests) if server is not None else 0
        error = _error(client, name, call, config, max_memory)
        assert error.reason in reasons, f"{name}: the reason must be {' or '.join(sorted(reasons))}, not {error.reason}"
        assert error.why.strip(), f"{name}: the error must say why, in a sentence for an operator"
        assert text in error.why, f"{name}: the error must name {text!r}: {error.why}"
        if server is not None:
            count = len(server.requests) - asked
            assert count <= max_requests, f"{name}: the client sent {count} requests for one call that fails"
    client.close()


def _error(
    client: EngineClient,
    name: str,
    call: Callable[[EngineClient], object],
    config: EngineConfig,
    max_memory: int | None,
) -> EngineError:
    """Make a call in a thread of its own, and return its error, which has no secret in it."""
    outcome: list[object] = []
    texts: list[str] = []

    def run() -> None:
        try:
            outcome.append(call(client))
        except BaseException as error:  # noqa: BLE001 (the test fails with it)
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with _logged(texts):
        if max_memory is not None:
            tracemalloc.start()
        try:
            thread.start()
            thread.join(END_TIMEOUT)
            peak = tracemalloc.get_traced_memory()[1] if max_memory is not None else 0
        finally:
            if max_memory is not None:
                tracemalloc.stop()
    if thread.is_alive():
        pytest.fail(f"{name}: no end within {END_TIMEOUT:g} s, with a timeout of {config.timeout:g} s for a request")
    (error,) = outcome
    if not isinstance(error, EngineError):
        shown = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else repr(error)[:1000]
        pytest.fail(f"{name}: the call must raise EngineError. Instead: {shown}")
    if max_memory is not None and peak > max_memory:
        pytest.fail(f"{name}: the call needed {peak // MIB} MiB of memory: read a bounded part of an answer")
    places = {
        "the error": f"{error} {error!r} {error.why}",
        "the error's traceback": "".join(traceback.format_exception(error)),
        "the log": "\n".join(texts),
        "the repr of the client": repr(client),
    }
    for place, text in places.items():
        assert not any(secret in text for secret in SECRETS), f"{name}: {place} has the credential in it"
    return error


@contextmanager
def _logged(texts: list[str]) -> Iterator[None]:
    """Keep the texts of all log records from level INFO on."""
    handler, root = _Recorder(texts), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class _Recorder(logging.Handler):
    """Keeps the texts of all log records."""

    def __init__(self, records: list[str]) -> None:
        super().__init__(level=logging.INFO)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record.getMessage())
