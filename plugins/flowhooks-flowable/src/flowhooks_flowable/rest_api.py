"""Requests to the engine's REST API: bounded in time and size, without redirects, and without secrets in errors."""

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

MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
USER_AGENT: Final = f"flowhooks-flowable/{version('flowhooks-flowable')}"
_REFUSED: Final = frozenset(
    {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED},
)
_TEMPORARY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_asking: ContextVar[bool] = ContextVar("flowhooks_flowable_asking", default=False)


class AnswerTooLarge(EngineError):
    """An answer is larger than `MAX_ANSWER_BYTES`."""


class NotFound(EngineError):
    """The engine answered 404."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The JSON of an answer, and the engine's clock from its header `Date`."""

    json: Any
    engine_time: datetime | None

    @property
    def members(self) -> dict[str, Any]:
        """The JSON, which must be an object."""
        if not isinstance(self.json, dict):
            raise EngineError("invalid", f"the engine answered with a JSON {type(self.json).__name__}, not an object")
        return self.json


class RestApi:
    """Sends requests to one engine.

    Args:
        config: the base URL, the credential and the time limit.

    Raises:
        ValueError: the URL or the credential cannot be used. The message shows neither.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._base: Final = _base_url(config.url)
        self._timeout: Final = config.timeout
        self._headers: Final = {
            "accept": "application/json",
            "accept-encoding": "identity",  # a compressed answer could be larger than it seems
            "user-agent": USER_AGENT,
        } | _authorization(config)
        self._client: httpx2.Client | None = None

    def get(self, path: str, **params: str) -> Answer:
        """Get a resource."""
        return self._ask("GET", path, params=params)

    def query(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Post a query."""
        return self._ask("POST", path, json=body)

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _ask(self, method: str, path: str, **request: Any) -> Answer:
        what = f"{method} {path}"
        asking = _asking.set(True)
        watchdog = _Watchdog(self._timeout)
        try:
            with (
                watchdog,
                self._opened().stream(
                    method, f"{self._base}/{path}", headers=self._headers, extensions={"trace": watchdog}, **request
                ) as response,
            ):
                _check_status(what, response.status_code)
                raw = _read(what, response, watchdog)
                engine_time = _date(response.headers.get("date", ""))
        except httpx2.HTTPError as error:
            if watchdog.expired or isinstance(error, httpx2.TimeoutException):
                raise EngineError("unreachable", f"{what}: no complete answer within {self._timeout:g} s") from None
            # Without the library's traceback: it may show header fields. Connection errors name the system's error.
            words = f" ({error})" if isinstance(error, httpx2.ConnectError) else ""
            raise EngineError("unreachable", f"{what}: {type(error).__name__}{words}") from None
        finally:
            _asking.reset(asking)
        return Answer(_json(what, raw), engine_time)

    def _opened(self) -> httpx2.Client:
        if self._client is None:
            logging.getLogger("httpx2").addFilter(_is_not_ours)
            # A connection for each request: the engine may have closed a kept one just when the next request begins.
            limits = httpx2.Limits(max_keepalive_connections=0)
            # Cookies are not kept: a hostile engine could fill the memory with them.
            cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
            self._client = httpx2.Client(cookies=cookies, follow_redirects=False, limits=limits, timeout=self._timeout)
        return self._client


class _Watchdog:
    """Cuts a request's connection off when its time is over, even if bytes keep arriving; also its trace function."""

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._ends = monotonic() + seconds
        self._stream: Any = None
        self._timer = Timer(seconds, self._cut_off)
        self._timer.daemon = True

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        # The stream of the TCP connection, then that of TLS in it.
        stream = info.get("return_value") if event.endswith(".complete") else None
        if hasattr(stream, "get_extra_info"):
            self._stream = stream
            if monotonic() >= self._ends:
                self._cut_off()

    def check(self) -> None:
        """Raise an exception if the time is over."""
        if self.expired or monotonic() >= self._ends:
            self.expired = True
            raise httpx2.ReadTimeout("the time is over")

    def _cut_off(self) -> None:
        self.expired = True
        with suppress(OSError, AttributeError):  # not connected yet, or closed already
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()


def _base_url(given: str) -> str:
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL:
        raise ValueError("the engine's url cannot be read") from None  # the library's message may show all of it
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("the engine's url must begin with http:// or https:// and a host")
    if url.userinfo:
        raise ValueError("the engine's url must not contain a password: use username and password, or token")
    if url.query or url.fragment:
        raise ValueError("the engine's url must not contain ? or #")
    return given.rstrip("/")


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


def _check_status(what: str, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    said = f"{what}: the engine answered {_called(status)}"
    if status in _REFUSED:
        raise EngineError("refused", f"{said}; check the engine's username and password, or token, and their rights")
    if status in _TEMPORARY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise EngineError("unreachable", said)
    if status == HTTPStatus.NOT_FOUND:
        raise NotFound(
            "invalid", f"{said}; check that url is the base of the REST API, such as …/flowable-rest/service"
        )
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise EngineError("invalid", f"{said}; redirects are not followed: set url to the new address")
    raise EngineError("invalid", said)


def _called(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _read(what: str, response: httpx2.Response, watchdog: _Watchdog) -> bytes:
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not media.endswith("+json"):
        raise EngineError("invalid", f"{what}: the engine answered with {media[:50]!a}, not with JSON")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise EngineError("invalid", f"{what}: the engine answered with a compressed body, which was not asked for")
    parts, size = [], 0
    for part in response.iter_raw():
        watchdog.check()
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise AnswerTooLarge("invalid", f"{what}: the answer is larger than {MAX_ANSWER_BYTES:,} bytes")
        parts.append(part)
    watchdog.check()  # a connection that was cut off looks like the end of a body without a length
    return b"".join(parts)


def _json(what: str, raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_not_json, parse_float=_finite)
    except (ValueError, RecursionError):
        raise EngineError("invalid", f"{what}: the engine answered with text that is not valid JSON") from None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


def _date(header: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def _is_not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 (a filter receives the record)
    """Whether a record of the library may be logged: it logs a line for each request."""
    return not _asking.get()
