"""Store rejected requests in the background, in batches, and log them.

Equal requests of a batch become one record with their number. Each status of each source has its own limit in a batch,
and so has each address if the source is not known, as in the ledger.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import FlowhooksError
from flowhooks.intake.rejection_summary import RejectionSummary
from flowhooks.ledger import rejected_requests
from flowhooks.ledger.rejected_requests import RejectedRequest
from flowhooks.text import escape_control, truncate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger

MAX_PENDING: Final = 500
"""Maximum records of rejected requests between two writes. Older ones are dropped, so that clients that send invalid
requests at any rate cost at most one small transaction per second."""
MAX_PENDING_PER_GROUP: Final = 100
"""Maximum number of these records with the same status and source."""
FLUSH_INTERVAL: Final = 1.0
"""Seconds from a rejected request until it is stored, together with all others of that time."""
MAX_PATH_CHARS: Final = 500
MAX_REASON_CHARS: Final = 2_000
MAX_ADDRESS_CHARS: Final = 100
MAX_USER_AGENT_CHARS: Final = 200
MAX_METHOD_CHARS: Final = 20
MAX_LOGGED_REASON_CHARS: Final = 500

log = structlog.get_logger(__name__)


class RejectedRequestLog:
    """Stores the most recent rejected requests, and logs them.

    Args:
        ledger: stores them.
        clock: time and ids.
        summary: logs them; default: one record for each status and source in a minute.
    """

    def __init__(self, *, ledger: Ledger, clock: Clock, summary: RejectionSummary | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._summary = summary or RejectionSummary()
        self._pending = _PendingRequests()
        self._has_pending = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="rejected-requests", daemon=True)

    def start(self) -> None:
        """Start the thread that stores rejected requests."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Store the pending requests, within `timeout` seconds, and stop."""
        self._stopping.set()
        self._has_pending.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def record(
        self,
        *,
        path: str,
        address: str,
        status: int,
        english: str,
        chinese: str,
        source: str = "",
        user_agent: str = "",
        event_id: str = "",
        method: str = "POST",
        is_callback: bool = True,
    ) -> None:
        """Log a rejected request, and record it; it is stored later.

        Args:
            path: path of the request.
            address: address of the client.
            status: HTTP status of the response.
            english: the reason in English.
            chinese: the reason in Chinese.
            source: the source that sent it; `""` if not known.
            user_agent: the program that sent it, as it names itself; `""` if not known.
            event_id: the id of the event that it contradicts; `""` if there is none.
            method: method of the request.
            is_callback: whether its path is that of a callback. Other requests are only logged.
        """
        now = self._clock.now()
        request = RejectedRequest(
            id=self._clock.new_id(),
            rejected_at=now,
            first_rejected_at=now,
            source=source,
            path=escape_control(path, MAX_PATH_CHARS),
            address=escape_control(address, MAX_ADDRESS_CHARS),
            status=status,
            reason_en=escape_control(english, MAX_REASON_CHARS),
            reason_zh=escape_control(chinese, MAX_REASON_CHARS),
            user_agent=escape_control(user_agent, MAX_USER_AGENT_CHARS),
            event_id=event_id,
        )
        if is_callback:
            self._pending.add(request)
        is_counted = self._summary.add(status, source, _log_fields(request, method))
        if is_callback or is_counted:
            self._has_pending.set()

    def flush(self) -> None:
        """Store the pending requests; if that fails, the newest ones stay pending."""
        rejected = self._pending.take()
        if not rejected:
            return
        try:
            self._ledger.write(partial(rejected_requests.store, requests=rejected), certain=True)
        except FlowhooksError:
            # The ledger logs its own write errors.
            self._pending.restore(rejected)
            self._has_pending.set()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._has_pending.wait(self._summary.seconds_until_due()):
                    self._stopping.wait(FLUSH_INTERVAL)
                    self._has_pending.clear()
                    self.flush()
                self._summary.log_due()
            except Exception:
                # A defect in flowhooks must not end the thread: no rejected request would be stored any more.
                log.exception("rejected_requests_fault")
                self._stopping.wait(FLUSH_INTERVAL)
        self.flush()
        self._summary.log_due(everything=True)


def _log_fields(request: RejectedRequest, method: str) -> dict[str, str]:
    fields = {
        "method": escape_control(method, MAX_METHOD_CHARS),
        "path": request.path,
        "address": request.address,
        "why": truncate(request.reason_en, MAX_LOGGED_REASON_CHARS),
    }
    about = {
        "user_agent": request.user_agent,
        "flow_instance_id": request.flow_instance_id,
        "event_id": request.event_id,
    }
    return fields | {name: escape_control(value) for name, value in about.items() if value}


class _PendingRequests:
    """Records that are not stored yet, by status and source, and then by fingerprint, the oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[tuple[int, str], dict[str, RejectedRequest]] = {}

    def add(self, request: RejectedRequest) -> None:
        """Add a request; drop the oldest one if there are too many."""
        with self._lock:
            self._add(request)

    def take(self) -> list[RejectedRequest]:
        """Remove and return all records."""
        with self._lock:
            groups, self._groups = self._groups, {}
        return [request for group in groups.values() for request in group.values()]

    def restore(self, taken: Iterable[RejectedRequest]) -> None:
        """Add records that were taken, as older than those that were added meanwhile."""
        with self._lock:
            newer, self._groups = self._groups, {}
            for request in (*taken, *(request for group in newer.values() for request in group.values())):
                self._add(request)

    def _add(self, request: RejectedRequest) -> None:
        group = self._groups.setdefault((request.status, request.source), {})
        earlier = group.pop(request.fingerprint, None)
        group[request.fingerprint] = request if earlier is None else request.after(earlier)
        if request.limited_by_address:
            of_address = [fingerprint for fingerprint, other in group.items() if other.address == request.address]
            if len(of_address) > rejected_requests.MAX_STORED_PER_ADDRESS:
                del group[of_address[0]]
        if len(group) > MAX_PENDING_PER_GROUP:
            _drop_oldest(group)
        if sum(map(len, self._groups.values())) > MAX_PENDING:
            _drop_oldest(max(self._groups.values(), key=len))


def _drop_oldest(group: dict[str, RejectedRequest]) -> None:
    del group[next(iter(group))]
