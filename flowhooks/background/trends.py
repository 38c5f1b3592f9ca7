"""Count attempts and responses by minute, for the trends of handlers, sources and error groups.

Counting only changes a dictionary: it is done for each callback, some of it in the ledger's writer thread. Every
`FLUSH_INTERVAL` the counts are added to the ledger in one transaction. A process that is killed loses the counts since
the last flush, and nothing else.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import trends
from flowhooks.model.error_group import ErrorIdentity
from flowhooks.model.trend import MINUTE, NO_DURATION, OTHERS, TrendKey, TrendKind, bucket_of
from flowhooks.observability.metrics import NO_SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from flowhooks.clock import Clock
    from flowhooks.ledger.delivery_settled import DeliverySettled
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

FLUSH_INTERVAL: Final = 10.0
"""Seconds between two flushes, and so the longest time whose counts are lost if the process is killed."""
# Plain texts, because the hash of a member of an enumeration takes longer than counting.
_HANDLER: Final = TrendKind.HANDLER.value
_SOURCE: Final = TrendKind.SOURCE.value
_ERROR_GROUP: Final = TrendKind.ERROR_GROUP.value
MAX_SUBJECTS: Final[Mapping[str, int]] = {_HANDLER: 500, _SOURCE: 100, _ERROR_GROUP: 500}
"""Maximum number of subjects of each kind that are counted apart between two flushes. All further ones are counted as
`OTHERS`."""
MAX_PENDING: Final = 20_000
"""Maximum number of counts that wait while the ledger cannot be written; further ones are dropped."""
_MINUTE: Final = MINUTE * SECOND
# A plain tuple, because one is made for each attempt and response, and a named one takes three times as long.
_Key: TypeAlias = "tuple[str, str | ErrorIdentity, int, str, int]"
"""The key of a count: kind, subject, number of the minute since 1970, outcome, bucket. The subject of an error group is
the identity of its errors, because its fingerprint costs time that only the flush has."""

log = structlog.get_logger(__name__)


class TrendRecorder:
    """Counts the attempts and responses of this process, and adds the counts to the ledger.

    Args:
        ledger: stores the counts.
        clock: the time of a response.
    """

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pending = _Counts()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="trends", daemon=True)

    def start(self) -> None:
        """Start the thread that adds the counts to the ledger."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Add the last counts, within `timeout` seconds, and stop."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        else:
            self._try_flush()

    def on_settled(self, settled: DeliverySettled) -> None:
        """Count an attempt, and its error."""
        if settled.outcome is None:
            return
        status, outcome = settled.status, settled.outcome.kind.value
        minute = (self._clock.now() if status.finished_at is None else status.finished_at) // _MINUTE
        self._pending.add((_HANDLER, status.handler, minute, outcome, bucket_of(settled.seconds)))
        if settled.error_identity is not None:
            self._pending.add((_ERROR_GROUP, settled.error_identity, minute, outcome, NO_DURATION))

    def answered(self, source: str, status: int, seconds: float) -> None:
        """Count a request of a source that was answered, `seconds` after it arrived; none without a source."""
        if source != NO_SOURCE:
            minute = self._clock.now() // _MINUTE
            self._pending.add((_SOURCE, source, minute, str(status), bucket_of(seconds)))

    def flush(self) -> None:
        """Add the counts to the ledger; if that fails, they stay pending."""
        if not self._pending:
            return
        taken = _Counts()

        def write(transaction: WriteTransaction) -> None:
            # Only now, in the writer's thread, so that all attempts are counted whose results were stored before. If
            # the transaction is executed again, the newer counts are added.
            taken.take_from(self._pending)
            trends.add(transaction, _to_rows(transaction.connection, taken.items()))

        try:
            self._ledger.write(write, certain=True)
        except FlowhooksError:
            # The ledger logs its own write errors.
            self._pending.take_from(taken)

    def _loop(self) -> None:
        while not self._stopping.wait(FLUSH_INTERVAL):
            self._try_flush()
        try:
            # Attempts are counted after their results are stored, so the last ones may only be counted now.
            self._ledger.write(lambda _transaction: None)
        except FlowhooksError:
            return
        self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except Exception:
            # A defect in flowhooks must not end the thread: nothing would be counted any more.
            log.exception("trend_fault")


class _Counts:
    """Numbers by what is counted together. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[_Key, int] = {}
        self._subjects: dict[str, set[str | ErrorIdentity]] = {kind: set() for kind in MAX_SUBJECTS}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, key: _Key) -> None:
        """Add 1 to a count."""
        with self._lock:
            before = self._counts.get(key)
            if before is None:
                self._add_new(key, 1)
            else:
                self._counts[key] = before + 1

    def take_from(self, other: _Counts) -> None:
        """Move all counts of another object into this one."""
        with other._lock:
            counts, other._counts = other._counts, {}
            other._subjects = {kind: set() for kind in MAX_SUBJECTS}
        with self._lock:
            for key, count in counts.items():
                self._add_new(key, count)

    def items(self) -> list[tuple[_Key, int]]:
        """Return all counts."""
        with self._lock:
            return list(self._counts.items())

    def _add_new(self, key: _Key, count: int) -> None:
        """Add to a count that may be new, within the limits."""
        kind, subject, minute, outcome, bucket = key
        subjects = self._subjects[kind]
        if subject not in subjects and len(subjects) >= MAX_SUBJECTS[kind]:
            key = (kind, OTHERS, minute, outcome, bucket)
        else:
            subjects.add(subject)
        if key in self._counts or len(self._counts) < MAX_PENDING:
            self._counts[key] = self._counts.get(key, 0) + count


def _to_rows(connection: Connection, counts: list[tuple[_Key, int]]) -> dict[TrendKey, int]:
    errors = {subject for (_, subject, *_), _ in counts if isinstance(subject, ErrorIdentity)}
    fingerprints = trends.group_fingerprints(connection, errors) if errors else {}
    rows: dict[TrendKey, int] = {}
    for (kind, subject, minute, outcome, bucket), count in counts:
        name = fingerprints[subject] if isinstance(subject, ErrorIdentity) else subject
        row = TrendKey(kind, name, MINUTE, minute * _MINUTE, outcome, bucket)
        rows[row] = rows.get(row, 0) + count
    return rows
