"""Send requests to the REST API with limits of time and size, without redirects, and without secrets in errors."""

from __future__ import annotations

import base64
import json
import logging
import math
import socket
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from threading import Timer
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import httpx2

from flowhooks import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from flowhooks import EngineConfig

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
USER_AGENT: Final = f"flowhooks-flowable/{version('flowhooks-flowable')}"
_REFUSED_STATUSES: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED},
)
_TEMPORARY_STATUSES: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_sending: ContextVar[bool] = ContextVar("flowhooks_flowable_sending", default=False)


class ResponseTooLarge(EngineError):
    """A response is larger than `MAX_RESPONSE_BYTES`."""


class NotFound(EngineError):
    """The engine responded with status 404."""


class RequestFailed(EngineError):
    """The engine responded with status 400 or 500: it received the request and has no result for it."""


@dataclass(frozen=True, slots=True)
class JsonResponse:
    """A response of the engine.

    Attributes:
        json: the parsed body.
        engine_time: the engine's clock, from the header `Date`; None if the response has no valid date.
    """

    json: Any
    engine_time: datetime | None

    @property
    def members(self) -> dict[str, Any]:
        """The members of the JSON, which must be an object."""
        if not isinstance(self.json, dict):
            raise EngineError("invalid", f"the engine responded with a JSON {type(self.json).__name__}, not an object")
        return self.json


class RestApi:
    """Sends requests to one engine.

    Args:
        config: the base URL, the credential and the timeout.

    Raises:
        ValueError: the URL or the credential cannot be used. The message shows neither.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._url: Final = _base_url(config.url)
        self._timeout: Final = config.timeout
        self._headers: Final = {
            "accept": "application/json",
            "accept-encoding": "identity",  # the size of a compressed response is not known before it is decompressed
            "user-agent": USER_AGENT,
        } | _authorization(config)
        self._client: httpx2.Client | None = None

    def get(self, path: str, **params: str) -> JsonResponse:
        """Send a GET request."""
        return self._request("GET", path, params=params)

    def query(self, path: str, body: Mapping[str, Any]) -> JsonResponse:
        """Send a query as a POST request."""
        return self._request("POST", path, json=body)

    def close(self) -> None:
        """Close the client. The next request opens a new one."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _request(self, method: str, path: str, **options: Any) -> JsonResponse:
        name = f"{method} {path}"
        sending = _sending.set(True)
        watchdog = _Watchdog(self._timeout)
        try:
            with (
                watchdog,
                self._get_client().stream(
                    method, f"{self._url}/{path}", headers=self._headers, extensions={"trace": watchdog}, **options
                ) as response,
            ):
                _check_status(name, response.status_code)
                content = _read(name, response, watchdog)
                engine_time = _parse_date(response.headers.get("date", ""))
        except httpx2.HTTPError as error:
            if watchdog.expired or isinstance(error, httpx2.TimeoutException):
                raise EngineError("unreachable", f"{name}: no complete response within {self._timeout:g} s") from None
            # The library's error is not chained: its traceback may show headers. A connection error names its cause.
            detail = f" ({error})" if isinstance(error, httpx2.ConnectError) else ""
            raise EngineError("unreachable", f"{name}: {type(error).__name__}{detail}") from None
        finally:
            _sending.reset(sending)
        return JsonResponse(_parse(name, content), engine_time)

    def _get_client(self) -> httpx2.Client:
        if self._client is None:
            logging.getLogger("httpx2").addFilter(_is_loggable)
            # Each request has its own connection. The engine could close a reused one just when a request begins.
            limits = httpx2.Limits(max_keepalive_connections=0)
            # Cookies are not stored: a malicious engine could fill the memory with them.
            cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
            self._client = httpx2.Client(cookies=cookies, follow_redirects=False, limits=limits, timeout=self._timeout)
        return self._client


class _Watchdog:
    """Closes a request's connection when its timeout expires, even if bytes keep arriving. Also its trace function."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._deadline = monotonic() + seconds
        self._stream: Any = None
        self._timer = Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        # First the stream of the TCP connection, then the stream of TLS on top of it.
        stream = info.get("return_value") if event.endswith(".complete") else None
        if hasattr(stream, "get_extra_info"):
            self._stream = stream
            if monotonic() >= self._deadline:
                self._shut_down()

    def check(self) -> None:
        """Raise an exception if the timeout has expired."""
        if self.expired or monotonic() >= self._deadline:
            self.expired = True
            raise httpx2.ReadTimeout("the timeout has expired")

    def _shut_down(self) -> None:
        self.expired = True
        with suppress(OSError, AttributeError):  # not yet connected, or already closed
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()


def _base_url(configured_url: str) -> str:
    try:
        url = httpx2.URL(configured_url)
    except httpx2.InvalidURL:
        raise ValueError("the engine's url cannot be read") from None  # the library's message may contain the whole URL
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("the engine's url must begin with http:// or https:// and a host")
    if url.userinfo:
        raise ValueError("the engine's url must not contain a password: use username and password, or token")
    if url.query or url.fragment:
        raise ValueError("the engine's url must not contain ? or #")
    return configured_url.rstrip("/")


def _authorization(config: EngineConfig) -> dict[str, str]:
    if config.token:
        if not (config.token.isascii() and config.token.isprintable()) or config.username:
            raise ValueError("the engine's token must be printable ASCII, and there must be no username beside it")
        return {"authorization": f"Bearer {config.token}"}
    if config.username:
        if ":" in config.username:
            raise ValueError("the engine's username must not contain a colon")
        credential = base64.b64encode(f"{config.username}:{config.password}".encode()).decode()
        return {"authorization": f"Basic {credential}"}
    return {}


def _check_status(name: str, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    message = f"{name}: the engine responded with {_format_status(status)}"
    if status in _REFUSED_STATUSES:
        raise EngineError(
            "refused", f"{message}; check the engine's username and password, or token, and their permissions"
        )
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RequestFailed("unreachable", message)
    if status == HTTPStatus.BAD_REQUEST:
        raise RequestFailed("invalid", message)
    if status in _TEMPORARY_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise EngineError("unreachable", message)
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(
            "invalid", f"{message}; check that url is the base of the REST API, such as …/flowable-rest/service"
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise EngineError("invalid", f"{message}; redirects are not followed: set url to the new address")
    raise EngineError("invalid", message)


def _format_status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _read(name: str, response: httpx2.Response, watchdog: _Watchdog) -> bytes:
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise EngineError("invalid", f"{name}: the engine responded with {media_type[:50]!a}, not with JSON")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise EngineError("invalid", f"{name}: the response is compressed, which was not requested")
    chunks, size = [], 0
    for chunk in response.iter_raw():
        watchdog.check()
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise ResponseTooLarge("invalid", f"{name}: the response is larger than {MAX_RESPONSE_BYTES:,} bytes")
        chunks.append(chunk)
    watchdog.check()  # a closed connection looks like the end of a body without a length
    return b"".join(chunks)


def _parse(name: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_reject_constant, parse_float=_parse_finite)
    except (ValueError, RecursionError):
        raise EngineError("invalid", f"{name}: the response is not valid JSON") from None


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(constant)


def _parse_finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _parse_date(header: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _is_loggable(record: logging.LogRecord) -> bool:  # noqa: ARG001 (a filter receives the record)
    """Return False during a request of this client, because the library logs each request."""
    return not _sending.get()
