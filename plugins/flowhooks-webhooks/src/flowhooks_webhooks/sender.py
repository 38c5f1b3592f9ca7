"""Send one message, and interpret its answer."""

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

_TEMPORARY: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
)
"""Statuses that pass by themselves, and may say when."""
MAX_RETRY_AFTER_SECONDS: Final = 86_400.0
"""Seconds: a receiver cannot put a delivery off for more than a day."""


_sending: ContextVar[bool] = ContextVar("flowhooks_webhooks_sending", default=False)


class NotDelivered(Exception):
    """The receiver did not take the message, and may take it later. Names the endpoint, never its URL."""


class Sender:
    """Sends messages, from any number of threads at once.

    Args:
        retry: the schedule on which failed attempts are made again.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._client: httpx2.Client | None = None
        self._lock = Lock()

    def send(self, endpoint: Endpoint, body: str, headers: dict[str, str], *, attempt: int) -> int:
        """Post a message.

        Args:
            endpoint: where to.
            body: the JSON text.
            headers: the message's header fields.
            attempt: the number of the delivery's attempt, from 1.

        Returns:
            The status of the answer, 200 to 299.

        Raises:
            Reject: it will never be taken.
            RetryAfter: the receiver said when it may be taken.
            NotDelivered: it was not taken.
        """
        client = self._opened()
        sending = _sending.set(True)
        deadline = Deadline(endpoint.timeout)
        request: dict[str, Any] = {"timeout": endpoint.timeout, "extensions": {"trace": deadline.trace}}
        try:
            # Only the status matters: what else is answered is not read.
            with (
                deadline,
                client.stream("POST", endpoint.url, content=body.encode(), headers=headers, **request) as answer,
            ):
                status, after = answer.status_code, answer.headers.get("retry-after", "")
        except httpx2.TransportError as error:
            # Without the library's words and traceback: some of them show what was sent.
            if deadline.expired or isinstance(error, httpx2.TimeoutException):
                what = "accept a connection" if isinstance(error, httpx2.ConnectTimeout) else "answer"
                said = f"endpoint {endpoint.name} did not {what} within {endpoint.timeout:g} s"
            elif isinstance(error, httpx2.ConnectError):
                said = f"endpoint {endpoint.name} cannot be reached: {error}"
            else:
                said = f"endpoint {endpoint.name} did not answer ({type(error).__name__})"
            raise NotDelivered(said) from None
        finally:
            _sending.reset(sending)
        self._judge(endpoint, status, after, attempt=attempt)
        return status

    def close(self) -> None:
        """Give back what was opened; it is opened again when it is needed."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _opened(self) -> httpx2.Client:
        with self._lock:
            if self._client is None:
                logging.getLogger("httpx2").addFilter(_is_not_ours)
                # A connection for each message: one that is kept may have been closed by the receiver just when the
                # next message begins, and that would be a failed attempt for nothing.
                limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
                # Cookies are neither kept nor sent: they would be shared by endpoints, and their number has no limit.
                cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
                self._client = httpx2.Client(follow_redirects=False, limits=limits, cookies=cookies)
            return self._client

    def _judge(self, endpoint: Endpoint, status: int, after: str, *, attempt: int) -> None:
        said = f"endpoint {endpoint.name} answered {_called(status)}"
        if 200 <= status <= 299:  # noqa: PLR2004 (RFC 9110, 15.3)
            return
        if status in _TEMPORARY and (seconds := _seconds(after)) is not None:
            # Later than asked is allowed. Sooner than the schedule would use up the attempts within seconds.
            least = self._retry.delay(attempt, 0.0) or self._retry.delays[0]
            raise RetryAfter(min(max(seconds, least), MAX_RETRY_AFTER_SECONDS), said)
        if status in _TEMPORARY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise NotDelivered(said)
        if status == HTTPStatus.GONE:
            raise Reject(f"{said}: it accepts no more messages; remove it from [[plugins.webhooks.endpoints]]")
        if status < HTTPStatus.BAD_REQUEST:
            raise Reject(f"{said}: redirects are not followed; set its url to the new address")
        raise Reject(f"{said}: it rejects this message; fix the endpoint or the message, then replay")


def _is_not_ours(record: logging.LogRecord) -> bool:  # noqa: ARG001 (a filter is given the record)
    """Whether a record of the client's may be logged: of each request it logs the whole URL, which may be secret."""
    return not _sending.get()


def _called(status: int) -> str:
    """The status and its usual name: what a receiver writes beside it is not repeated."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _seconds(after: str) -> float | None:
    """The seconds that a Retry-After field asks for (RFC 9110, 10.2.3), or None where it cannot be read."""
    if after.isascii() and after.isdecimal():
        return float(after)
    try:
        when = parsedate_to_datetime(after)
    except (ValueError, OverflowError):  # the second for numbers that no date has
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)
