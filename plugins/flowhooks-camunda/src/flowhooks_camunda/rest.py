"""Send requests to the REST API with limits of time and size. No error contains the credential.

A timeout of `httpx2` applies to each wait, so it never expires if the server periodically sends a byte. A timer closes
the connection when the timeout of the whole request expires.
"""

from __future__ import annotations

import json
import logging
import threading
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

import httpx2

from flowhooks import EngineError

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from types import TracebackType

    from flowhooks import EngineConfig

MAX_RESPONSE_BYTES: Final = 16_777_216
"""Maximum size of a response. A page of 1,000 instances has less than 1 MiB."""
_UNREACHABLE_STATUSES: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
"""Statuses below 500 of temporary errors."""
_REFUSED_STATUSES: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}
)
_FAILED_STATUSES: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR}
)
"""Statuses of a request that the engine received and does not answer."""

_sending: ContextVar[bool] = ContextVar("flowhooks_camunda_sending", default=False)


class ResponseTooLarge(EngineError):
    """A response is larger than `MAX_RESPONSE_BYTES`."""


class RequestFailed(EngineError):
    """The engine received the request and gave no result: it has none, may not give it, or failed."""


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A response of the engine.

    Attributes:
        json: the parsed body.
        time: the engine's clock, from the header `Date`; None if the response has no valid date.
    """

    json: Any
    time: datetime | None


class RestApi:
    """Sends requests to one engine, from one thread at a time. The first request opens the client.

    Args:
        config: the URL, the credential and the timeout.

    Raises:
        ValueError: the credential cannot be sent in a header.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._url = config.url
        self._timeout = config.timeout
        self._headers = {"accept": "application/json", "accept-encoding": "identity"}
        self._auth: httpx2.Auth | None = None
        if config.token:
            if not (config.token.isascii() and config.token.isprintable()):
                raise ValueError("token must be printable ASCII")
            self._headers["authorization"] = f"Bearer {config.token}"
        elif config.username:
            self._auth = httpx2.BasicAuth(config.username, config.password)
        self._client: httpx2.Client | None = None

    def get(self, path: str, **params: str | int) -> JsonResponse:
        """Send a GET request.

        Args:
            path: the path after the base URL.
            **params: the query parameters.

        Raises:
            EngineError: the engine sent no valid response.
        """
        return self._request("GET", path, params, None)

    def post(self, path: str, body: Mapping[str, Any], **params: str | int) -> JsonResponse:
        """Send a query as a POST request with a JSON body. It changes nothing in the engine.

        Args:
            path: the path after the base URL.
            body: the query.
            **params: the query parameters of the URL.

        Raises:
            EngineError: the engine sent no valid response.
        """
        return self._request("POST", path, params, body)

    def close(self) -> None:
        """Close the client. The next request opens a new one."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _get_client(self) -> httpx2.Client:
        if self._client is None:
            logging.getLogger("httpx2").addFilter(_is_loggable)
            # Each request has its own connection. The engine could close a reused one just when a request begins.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
            # Cookies are not stored: a malicious engine could fill the memory with them.
            cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
            self._client = httpx2.Client(
                auth=self._auth,
                headers=self._headers,
                cookies=cookies,
                follow_redirects=False,
                limits=limits,
                timeout=self._timeout,
            )
        return self._client

    def _request(
        self, method: str, path: str, params: Mapping[str, str | int], body: Mapping[str, Any] | None
    ) -> JsonResponse:
        name = f"{method} {path}"
        client = self._get_client()
        timeout_message = f"{name}: no complete response within {self._timeout:g} s"
        sending = _sending.set(True)
        deadline = _Deadline(self._timeout)
        try:
            # Errors of the library are not chained, because some of them contain the request.
            with (
                deadline,
                client.stream(
                    method, f"{self._url}/{path}", params=dict(params), json=body, extensions={"trace": deadline.trace}
                ) as response,
            ):
                _check_status(name, response)
                content = _read(name, response)
                time = _parse_date(response.headers.get("date", ""))
        except httpx2.TimeoutException:
            raise EngineError("unreachable", f"{timeout_message}.") from None
        except httpx2.ConnectError as error:
            raise EngineError("unreachable", f"{name}: the engine cannot be reached: {error}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            no_response = f"{name}: no complete response ({type(error).__name__})"
            raise EngineError("unreachable", f"{timeout_message if deadline.expired else no_response}.") from None
        finally:
            _sending.reset(sending)
        if deadline.expired:  # the timer closed the connection, so the content may be incomplete
            raise EngineError("unreachable", f"{timeout_message}.")
        return JsonResponse(_parse(name, content), time)


class _Deadline:
    """Closes the connection of one request when its timeout expires. A context manager around the request.

    Args:
        seconds: the timeout.

    Attributes:
        expired: whether the timeout has expired.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Copy the socket when the library has connected it, because TLS detaches the original socket."""
        if event == "connection.connect_tcp.complete":
            tcp_socket: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._close()
                self._socket = tcp_socket.dup()
                if self.expired:
                    self._shut_down()

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._close()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # the peer has already closed it
                self._socket.shutdown(2)  # SHUT_RDWR: a thread that waits to read or write continues

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _is_loggable(record: logging.LogRecord) -> bool:  # noqa: ARG001 (a filter receives the record)
    """Return False during a request of this client: the library logs each request, and a page needs several."""
    return not _sending.get()


def _check_status(name: str, response: httpx2.Response) -> None:
    status = response.status_code
    if status == HTTPStatus.OK:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise EngineError("invalid", f"{name}: the response is compressed, which was not requested.")
        return
    error = RequestFailed if status in _FAILED_STATUSES else EngineError
    message = f"{name}: the engine responded with {_format_status(status)}"
    if status in _REFUSED_STATUSES:
        raise error("refused", f"{message}; check the credential in the settings and its permissions.")
    if status in _UNREACHABLE_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise error("unreachable", f"{message}.")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise error("invalid", f"{message}; redirects are not followed: set url to the new address.")
    raise error("invalid", f"{message}; check that url is the base URL of the engine's REST API.")


def _format_status(status: int) -> str:
    """Return a status with its standard phrase. The phrase that the server sent is not shown."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _read(name: str, response: httpx2.Response) -> bytes:
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > MAX_RESPONSE_BYTES:
            raise ResponseTooLarge("invalid", f"{name}: the response is larger than {MAX_RESPONSE_BYTES >> 20} MiB.")
    return bytes(content)


def _parse(name: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_reject_constant)
    except (ValueError, RecursionError):  # the error's text could contain a part of the response
        raise EngineError("invalid", f"{name}: the response is not JSON; check url and any proxy on the way.") from None


def _reject_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _parse_date(date: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
