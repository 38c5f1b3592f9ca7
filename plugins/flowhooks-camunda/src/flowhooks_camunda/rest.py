"""Requests to the REST API, bounded in time and size. No error has the credential in it.

A timeout of `httpx2` is for each wait: a server that sends a byte from time to time is never late. So a timer ends the
connection when the whole request has taken too long.
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

MAX_ANSWER_BYTES: Final = 16_777_216
"""Maximum size of an answer. A page of 1,000 instances has less than 1 MiB."""
_UNREACHABLE: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Statuses below 500 that pass by themselves."""
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})

_sending: ContextVar[bool] = ContextVar("flowhooks_camunda_sending", default=False)


class AnswerTooLarge(EngineError):
    """An answer is larger than `MAX_ANSWER_BYTES`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the engine.

    Attributes:
        json: its body.
        time: the engine's clock, from the header `Date`; None if there is none.
    """

    json: Any
    time: datetime | None


class RestApi:
    """Sends requests to one engine, from one thread at a time. It connects with the first request.

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

    def get(self, path: str, **params: str | int) -> Answer:
        """Send a GET request.

        Args:
            path: the path after the base URL.
            **params: the query.

        Raises:
            EngineError: there is no answer that can be read.
        """
        return self._request("GET", path, params, None)

    def post(self, path: str, body: Mapping[str, Any], **params: str | int) -> Answer:
        """Send a query as a POST request with a JSON body. It changes nothing in the engine.

        Args:
            path: the path after the base URL.
            body: the query.
            **params: the rest of the query.

        Raises:
            EngineError: there is no answer that can be read.
        """
        return self._request("POST", path, params, body)

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _opened(self) -> httpx2.Client:
        if self._client is None:
            logging.getLogger("httpx2").addFilter(_is_not_ours)
            # A connection for each request: the engine may close a kept one just when the next request begins.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
            # Cookies are not kept: a hostile engine could fill the memory with them.
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
    ) -> Answer:
        name = f"{method} {path}"
        client = self._opened()
        late = f"{name} was not answered within {self._timeout:g} s"
        sending = _sending.set(True)
        deadline = _Deadline(self._timeout)
        try:
            # The library's own errors are not chained: some of them show what was sent.
            with (
                deadline,
                client.stream(
                    method, f"{self._url}/{path}", params=dict(params), json=body, extensions={"trace": deadline.trace}
                ) as response,
            ):
                _check_status(name, response)
                text = _read(name, response)
                time = _time(response.headers.get("date", ""))
        except httpx2.TimeoutException:
            raise EngineError("unreachable", f"{late}.") from None
        except httpx2.ConnectError as error:
            raise EngineError("unreachable", f"{name}: the engine cannot be reached: {error}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = f"{late}." if deadline.expired else f"{name} was not answered ({type(error).__name__})."
            raise EngineError("unreachable", why) from None
        finally:
            _sending.reset(sending)
        if deadline.expired:  # the timer ended the connection, and what was read looks like the end of the answer
            raise EngineError("unreachable", f"{late}.")
        return Answer(_parse(name, text), time)


class _Deadline:
    """Ends a request's connection after a time. It is a context manager, for one request.

    Args:
        seconds: the time.

    Attributes:
        expired: whether the time has passed.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take a copy of the socket when the library has connected it: TLS would take the socket away."""
        if event == "connection.connect_tcp.complete":
            connected: socket.socket = info["return_value"].get_extra_info("socket")
            with self._lock:
                self._close()
                self._socket = connected.dup()
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
            with suppress(OSError):  # the other end has closed it already
                self._socket.shutdown(2)  # in both directions: a thread that reads or writes it continues

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _is_not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 (a filter is given the record)
    """Whether a record of the client may be logged: it logs each request, which is several lines for each page."""
    return not _sending.get()


def _check_status(name: str, response: httpx2.Response) -> None:
    status = response.status_code
    if status == HTTPStatus.OK:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise EngineError("invalid", f"{name} was answered with a compressed body, which was not asked for.")
        return
    said = f"{name} was answered with {_called(status)}"
    if status in _REFUSED:
        raise EngineError("refused", f"{said}: check the credential in the settings and its rights.")
    if status in _UNREACHABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise EngineError("unreachable", f"{said}.")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise EngineError("invalid", f"{said}: redirects are not followed; set url to the new address.")
    raise EngineError("invalid", f"{said}: check that url is the base URL of the engine's REST API.")


def _called(status: int) -> str:
    """The status and its usual name: the words that the server writes beside it are not repeated."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _read(name: str, response: httpx2.Response) -> bytes:
    text = bytearray()
    for part in response.iter_raw():
        text += part
        if len(text) > MAX_ANSWER_BYTES:
            raise AnswerTooLarge("invalid", f"{name} was answered with more than {MAX_ANSWER_BYTES >> 20} MiB.")
    return bytes(text)


def _parse(name: str, text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # the error's text could show a part of the answer
        raise EngineError("invalid", f"{name} was not answered with JSON: check url, and what is between.") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _time(date: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
