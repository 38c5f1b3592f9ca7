"""Send one message and interpret the response."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import httpx2

from flowhooks import Reject, RetryAfter
from flowhooks_webhooks.deadline import Deadline

if TYPE_CHECKING:
    from flowhooks import Retry
    from flowhooks_webhooks.endpoint import Endpoint

_TEMPORARY_STATUSES: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
)
"""Statuses of temporary errors, whose response can have the field Retry-After."""
MAX_RETRY_AFTER_SECONDS: Final = 86_400.0
"""Maximum delay that a receiver can request: one day."""

_is_sending: ContextVar[bool] = ContextVar("flowhooks_webhooks_sending", default=False)
"""Whether the current thread sends a message of this plugin."""


class NotDelivered(Exception):
    """The receiver did not accept the message; a retry may succeed. The error names the endpoint, never its URL."""


class Sender:
    """Sends messages. Any number of threads can use it at the same time.

    Args:
        retry: the schedule on which failed attempts are retried.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._client: httpx2.Client | None = None
        self._lock = Lock()

    def send(self, endpoint: Endpoint, body: str, headers: dict[str, str], *, attempt: int) -> int:
        """Post a message.

        Args:
            endpoint: the receiver.
            body: the JSON text.
            headers: header fields of the message.
            attempt: number of the delivery's attempt, from 1.

        Returns:
            The status of the response, 200 to 299.

        Raises:
            Reject: the receiver rejected the message, and a retry would not succeed.
            RetryAfter: the receiver did not accept the message now, and requested a delay.
            NotDelivered: the receiver did not accept the message, and a retry may succeed.
        """
        client = self._get_client()
        token = _is_sending.set(True)
        deadline = Deadline(endpoint.timeout)
        options: dict[str, Any] = {"timeout": endpoint.timeout, "extensions": {"trace": deadline.trace}}
        try:
            # Only the status and Retry-After are used, so the body of the response is not read.
            with (
                deadline,
                client.stream("POST", endpoint.url, content=body.encode(), headers=headers, **options) as response,
            ):
                status, retry_after = response.status_code, response.headers.get("retry-after", "")
        except httpx2.TransportError as error:
            # `from None` drops the library's traceback, because some of its messages contain data of the request.
            if deadline.expired or isinstance(error, httpx2.TimeoutException):
                step = "accept a connection" if isinstance(error, httpx2.ConnectTimeout) else "answer"
                reason = f"endpoint {endpoint.name} did not {step} within {endpoint.timeout:g} s"
            elif isinstance(error, httpx2.ConnectError):
                reason = f"endpoint {endpoint.name} cannot be reached: {error}"
            else:
                reason = f"endpoint {endpoint.name} did not answer ({type(error).__name__})"
            raise NotDelivered(reason) from None
        finally:
            _is_sending.reset(token)
        self._check_response(endpoint, status, retry_after, attempt=attempt)
        return status

    def close(self) -> None:
        """Close the HTTP client. The next message opens a new client."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _get_client(self) -> httpx2.Client:
        with self._lock:
            if self._client is None:
                logging.getLogger("httpx2").addFilter(_is_not_sending)
                # Each message has a new connection. The receiver may close an idle connection at the moment when the
                # next message is sent on it, which would be an unnecessary failed attempt.
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
                # Cookies are neither stored nor sent. Endpoints would share them, and their number would have no limit.
                cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
                self._client = httpx2.Client(follow_redirects=False, limits=limits, cookies=cookies)
            return self._client

    def _check_response(self, endpoint: Endpoint, status: int, retry_after: str, *, attempt: int) -> None:
        reason = f"endpoint {endpoint.name} answered {_status_text(status)}"
        if 200 <= status <= 299:  # noqa: PLR2004 (RFC 9110, 15.3)
            return
        if status in _TEMPORARY_STATUSES and (seconds := _parse_retry_after(retry_after)) is not None:
            # A retry may be later than requested. A retry before the schedule could use all attempts within seconds.
            # The numbers of attempts go on after a replay, which starts the schedule again. If the one before was not
            # used up, the position is another one, and the minimum is that of a later or earlier attempt.
            position = (attempt - 1) % self._retry.attempts + 1
            min_seconds = self._retry.delay(position, 0.0) or self._retry.delays[-1]
            raise RetryAfter(min(max(seconds, min_seconds), MAX_RETRY_AFTER_SECONDS), reason)
        if status in _TEMPORARY_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise NotDelivered(reason)
        if status == HTTPStatus.GONE:
            raise Reject(f"{reason}: it accepts no more messages; remove it from [[plugins.webhooks.endpoints]]")
        if status < HTTPStatus.BAD_REQUEST:
            raise Reject(f"{reason}: redirects are not followed; set its url to the new address")
        raise Reject(f"{reason}: it rejects this message; fix the endpoint or the message, then replay")


def _is_not_sending(record: logging.LogRecord) -> bool:  # noqa: ARG001 (logging calls a filter with the record)
    """Return False while this plugin sends, because the client logs the whole URL of a request, which may be secret."""
    return not _is_sending.get()


def _status_text(status: int) -> str:
    """Return the status and its standard phrase. The receiver's own phrase is not used."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _parse_retry_after(text: str) -> float | None:
    """Return the delay in seconds of a Retry-After field (RFC 9110, 10.2.3); None if the field is invalid."""
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        retry_at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a number is out of the range of dates
        return None
    if retry_at.tzinfo is None:
        retry_at = retry_at.replace(tzinfo=UTC)
    return max((retry_at - datetime.now(UTC)).total_seconds(), 0.0)
