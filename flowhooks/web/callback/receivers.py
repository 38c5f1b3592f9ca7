"""Bounded calls of receivers: the plugins that read the requests of sources whose settings cannot map them.

A receiver sees bytes that nobody has authenticated, and Python cannot interrupt a thread. So each call has a thread of
its own, a source has a limited number of them, and the response does not wait for a call that takes too long.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import MalformedRequest, Unavailable
from flowhooks.plugins.error_text import traceback_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.model.receiver import ReceivedCallback, ReceivedRequest, ReceiverResponse
    from flowhooks.plugins.receivers import Receivers

MAX_CALLS: Final = 8
"""Maximum number of calls of one source that run at the same time. A call that hangs keeps its place."""
CALL_TIMEOUT: Final = 1.0
"""Seconds after which a request is answered without the result of its receiver."""
LOG_INTERVAL: Final = 60.0
"""Minimum seconds between two log records of the same kind of failure, because anyone can send what makes it fail."""
MAX_LOGGED_KINDS: Final = 100
"""Maximum number of kinds of failure whose last record is remembered."""

_log = structlog.get_logger(__name__)


class ReceiverCalls:
    """Calls receivers. May be used from any thread.

    Args:
        receivers: the loaded plugins that are receivers.
        redact: masks the secrets of plugins in a text.
    """

    def __init__(self, receivers: Receivers, *, redact: Callable[[str], str]) -> None:
        self._receivers = receivers
        self._redact = redact
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._logged_at: dict[tuple[str, str, str], float] = {}

    def call(self, plugin: str, source: str, request: ReceivedRequest) -> ReceivedCallback | ReceiverResponse | None:
        """Call a receiver and wait for its result, at most `CALL_TIMEOUT` seconds.

        Args:
            plugin: the name of the plugin.
            source: the name of the source; one of the settings.
            request: the request.

        Returns:
            The checked result of the plugin; None if the credential is missing or invalid.

        Raises:
            MalformedRequest: the plugin returned data that no database can store.
            Unavailable: the plugin is not loaded, failed, returned something else or did not return in time, or too
                many calls of the source are running.
        """
        if plugin not in self._receivers.names:
            raise Unavailable("receiver_unavailable")
        if not self._begin(source):
            self._log(plugin, source, "busy", {"why": f"{MAX_CALLS} of its calls for this source are still running"})
            raise Unavailable("receiver_unavailable")
        call = _ReceiverCall()
        thread = threading.Thread(
            target=self._run, args=(call, plugin, source, request), name=f"receiver-{source}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads can be started
            self._end(source)
            raise Unavailable("receiver_unavailable") from None
        if not call.ended.wait(CALL_TIMEOUT):
            self._log(plugin, source, "slow", {"why": f"it did not return within {CALL_TIMEOUT:g} s"})
            raise Unavailable("receiver_slow")
        if call.error is None:
            return call.result
        if isinstance(call.error, MalformedRequest):
            raise call.error
        kind = type(call.error).__name__
        self._log(plugin, source, kind, {"traceback": self._redact(traceback_text(call.error))})
        raise Unavailable("receiver_failed")

    def _run(self, call: _ReceiverCall, plugin: str, source: str, request: ReceivedRequest) -> None:
        try:
            call.result = self._receivers.call(plugin, source, request)
        except BaseException as error:  # noqa: BLE001 (also SystemExit: a plugin must not end the thread unnoticed)
            call.error = error
        finally:
            self._end(source)
            call.ended.set()

    def _begin(self, source: str) -> bool:
        with self._lock:
            has_room = self._running[source] < MAX_CALLS
            self._running[source] += has_room
        return has_room

    def _end(self, source: str) -> None:
        with self._lock:
            self._running[source] -= 1

    def _log(self, plugin: str, source: str, kind: str, fields: dict[str, str]) -> None:
        now, key = time.monotonic(), (plugin, source, kind)
        with self._lock:
            if now - self._logged_at.get(key, -LOG_INTERVAL) < LOG_INTERVAL:
                return
            if len(self._logged_at) >= MAX_LOGGED_KINDS:
                self._logged_at.clear()
            self._logged_at[key] = now
        _log.error("receiver_failed", plugin=plugin, source=source, **fields)


class _ReceiverCall:
    """One call: its result or its error, once it has ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.result: ReceivedCallback | ReceiverResponse | None = None
        self.error: BaseException | None = None
