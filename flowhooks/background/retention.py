"""Delete records after their retention time, in small batches."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import DAY, SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.failpoints import hit
from flowhooks.ledger import maintenance, operation_retention, process_retention, purge, trends
from flowhooks.ledger.purge import PURGED_BY_DEFAULT, PURGED_ON_REQUEST
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.trend import HOUR, MINUTE, RESOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.background.clock_trust import ClockTrust
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.settings import RetentionSettings

FIRST_RUN_DELAY: Final = 60.0
"""Seconds from the start to the first run, so that it does not slow down the start."""
PURGE_INTERVAL: Final = 3600.0
"""Seconds from the end of a run to the next one."""
BATCH_SIZE: Final = 100
"""Maximum rows of a kind that one transaction deletes, in addition to their dependent rows."""
# A signature is accepted for 5 minutes before and after its time. The rest is for clocks that are wrong and corrected.
WEBHOOK_ID_RETENTION: Final = DAY
"""Microseconds for which the id of a signed callback is kept after its last use."""
MAX_DUTY_CYCLE: Final = 0.1
"""Maximum share of the time that deletions take."""
# The cap limits the damage of a clock that is wrong for a while. It does not delay regular deletions: records that are
# kept for one day expire at a rate of a twenty-fourth per hour.
MIN_ROWS_PER_RUN: Final = 10_000
MAX_SHARE_DIVISOR: Final = 10
"""One run deletes at most 10,000 rows of a kind, or a tenth of the number of stored events if that is more."""
_OTHER_LIMITS: Final = frozenset({"deliveries", "operations", "trends", "processes"})
"""Kinds of rows without this limit: deliveries are deleted with their event, the others have limits of their own."""
TREND_BATCH_SIZE: Final = 500
"""Maximum rows of trends that one transaction combines or deletes. They are small, and there are many."""
MAX_TREND_ROWS_PER_RUN: Final = 100_000
"""One run deletes at most this many rows of trends. In an hour, 600 handlers and sources make fewer rows."""
MAX_COMBINED_PER_SUBJECT: Final = 100_000
"""One run combines at most this many rows of each subject, so that a defect cannot keep it from ending."""
MAX_PROCESSES_PER_RUN: Final = 10_000
"""One run deletes at most this many rows of processes that ended."""
ATTEMPTS_PER_READ: Final = 5_000
"""Number of attempts that one query reads to find their processes."""
_EVERY_EVENT: Final = EventFilter()
_KEEP_FOREVER: Final = 0
"""A cutoff before which nothing was received: microseconds since 1970."""

log = structlog.get_logger(__name__)


class Retention:
    """Deletes records that are older than their retention time.

    Args:
        ledger: stores the records.
        settings: retention times in days.
        trust: reads the clock, and decides whether it can be trusted.
    """

    def __init__(self, *, ledger: Ledger, settings: RetentionSettings, trust: ClockTrust) -> None:
        self._trust = trust
        self._ledger = ledger
        self._settings = settings
        self._postponed = False
        self._processes_purged_at = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="retention", daemon=True)

    def reconfigure(self, settings: RetentionSettings) -> None:
        """Use new settings from now on."""
        self._settings = settings

    def start(self) -> None:
        """Start. The first run is a minute later, then one every hour."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; the transaction in progress gets `timeout` seconds. The next run deletes the remaining records."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def run(self, now: int) -> Mapping[str, int]:
        """Delete all records that are expired at a time; return the number of deleted rows of each kind.

        Args:
            now: the time, in microseconds since 1970. The run does not read the clock, which can jump meanwhile.

        Raises:
            FlowhooksError: the database cannot be read or written; a later run deletes the remaining records.
        """
        deleted: Counter[str] = Counter()
        max_rows = self._max_rows()
        try:
            self._purge_events(deleted, max_rows, now)
            self._purge_records(deleted, max_rows, now)
            self._purge_operations(deleted, now)
            self._purge_trends(deleted, now)
            self._purge_processes(deleted, now)
        finally:
            if any(deleted.values()):
                log.info("purge_finished", **deleted)
            if max((rows for kind, rows in deleted.items() if kind not in _OTHER_LIMITS), default=0) >= max_rows:
                log.warning(
                    "purge_capped",
                    most=max_rows,
                    why="one run deletes at most this many of a kind, in case the clock or a setting is wrong",
                    next="the next run continues in an hour; `flowhooks db purge` deletes at once",
                )
        return deleted

    def _loop(self) -> None:
        delay, last_error = FIRST_RUN_DELAY, ""
        while not self._stopping.wait(delay):
            delay = PURGE_INTERVAL
            try:
                if self._ledger.is_leader():  # the leader deletes for all processes that share the ledger
                    delay = self._run_if_trusted()
                last_error = ""
            except FlowhooksError as error:
                if str(error) != last_error and not self._stopping.is_set():
                    log.error("purge_failed", why=str(error), next="the next try is in an hour")  # noqa: TRY400 (one line until it changes)
                last_error = str(error)
            except Exception:
                # A defect in flowhooks must not end the runs: the disk would fill up without a visible reason.
                log.exception("purge_fault")

    def _run_if_trusted(self) -> float:
        """Delete expired data unless the clock is in doubt; return the seconds until the next run."""
        now = self._trust.trusted_now()
        if now is not None:
            self._postponed = False
            self.run(now)
            return PURGE_INTERVAL
        if not self._postponed:
            log.warning(
                "purge_postponed",
                why="the clock is more than a day ahead of the newest thing in the ledger, or has jumped ahead",
                next="nothing is purged until this has lasted for an hour; check this machine's clock",
            )
        self._postponed = True
        return FIRST_RUN_DELAY

    def _max_rows(self) -> int:
        with self._ledger.connection() as connection:
            return max(MIN_ROWS_PER_RUN, maintenance.count_stored_events(connection) // MAX_SHARE_DIVISOR)

    def _cutoff(self, name: str, now: int) -> int:
        days: int = getattr(self._settings, name)
        return now - days * DAY if days else _KEEP_FOREVER

    def _purge_events(self, deleted: Counter[str], max_rows: int, now: int) -> None:
        cutoffs = {
            state: self._cutoff(state, now)
            for state in (*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST)
            if getattr(self._settings, state)
        }
        kept_from, after = self._cutoff("identities", now), ""
        while not self._stopping.is_set() and deleted["events"] < max_rows:
            began = time.monotonic()
            page = self._ledger.purgeable(cutoffs, event_filter=_EVERY_EVENT, after=after, limit=BATCH_SIZE)
            if page.ids:
                purge_page = partial(self._ledger.purge, ids=page.ids, cutoffs=cutoffs, kept_from=kept_from)
                done = self._ledger.write(purge_page)
                hit("purge.committed")
                deleted.update(events=done.events, deliveries=done.deliveries)
            after = page.next
            if not after:
                return
            self._throttle(began)

    def _purge_records(self, deleted: Counter[str], max_rows: int, now: int) -> None:
        def expire(transaction: WriteTransaction) -> dict[str, int]:
            return purge.delete_expired(
                transaction,
                identities=self._cutoff("identities", now),
                audits=self._cutoff("audit", now),
                closed_alerts=self._cutoff("alerts", now),
                signatures=now - WEBHOOK_ID_RETENTION,
                limit=BATCH_SIZE,
            )

        while not self._stopping.is_set():
            began = time.monotonic()
            done = self._ledger.write(expire)
            deleted.update(done)
            if max(done.values()) < BATCH_SIZE or max(deleted[name] for name in done) >= max_rows:
                return
            self._throttle(began)

    def _purge_operations(self, deleted: Counter[str], now: int) -> None:
        ended_before = min(self._cutoff("audit", now), now - operation_retention.KEPT_ITEMS)
        while not self._stopping.is_set():
            began = time.monotonic()
            done = self._ledger.write(
                lambda transaction: operation_retention.delete_expired(
                    transaction, now, ended_before=ended_before, limit=BATCH_SIZE
                )
            )
            deleted["operations"] += done.operations
            if max(done) < BATCH_SIZE:
                return
            self._throttle(began)

    def _purge_trends(self, deleted: Counter[str], now: int) -> None:
        """Delete the expired rows of trends, and combine minutes into hours."""
        expired, combined = self._cutoff("trend_hours", now), self._cutoff("trend_minutes", now)
        with self._ledger.connection() as connection:
            subjects = list(trends.subjects(connection))
        for resolution in RESOLUTIONS:
            for kind, subject in self._with_older(subjects, resolution, expired):
                delete = partial(trends.delete_older, kind=kind, subject=subject, resolution=resolution, before=expired)
                deleted["trends"] += self._repeat(delete, MAX_TREND_ROWS_PER_RUN - deleted["trends"])
        combined -= combined % (HOUR * SECOND)  # so that all counts of an hour have one resolution
        for kind, subject in self._with_older(subjects, MINUTE, combined):
            self._repeat(partial(trends.combine, kind=kind, subject=subject, before=combined), MAX_COMBINED_PER_SUBJECT)

    def _purge_processes(self, deleted: Counter[str], now: int) -> None:
        """Delete processes that ended before all entries of the audit log and all trends, which show their starts."""
        # Attempts have no index of their processes: all of them are read, once a day and only if a process may go.
        if 0 <= now - self._processes_purged_at < DAY:
            return
        before = min(self._cutoff("audit", now), self._cutoff("trend_hours", now))
        with self._ledger.connection() as connection:
            ended = process_retention.ended_processes(connection, before=before, limit=MAX_PROCESSES_PER_RUN)
        after, is_last = "", False
        while ended and not is_last:
            if self._stopping.is_set():
                return
            began = time.monotonic()
            with self._ledger.connection() as connection:
                used, after = process_retention.attempt_processes(connection, after=after, limit=ATTEMPTS_PER_READ)
            ended -= used
            is_last = not after
            self._throttle(began)
        unused = sorted(ended)
        for start in range(0, len(unused), BATCH_SIZE):
            if self._stopping.is_set():
                return
            began, batch = time.monotonic(), unused[start : start + BATCH_SIZE]
            deleted["processes"] += self._ledger.write(partial(process_retention.delete_processes, process_ids=batch))
            self._throttle(began)
        self._processes_purged_at = now

    def _with_older(self, subjects: list[tuple[str, str]], resolution: int, before: int) -> list[tuple[str, str]]:
        """Return the subjects that have rows of this resolution which started before a time."""
        with self._ledger.connection() as connection:
            return [
                (kind, subject)
                for kind, subject in subjects
                if trends.has_older(connection, kind, subject, resolution=resolution, before=before)
            ]

    def _repeat(self, change: Callable[..., int], max_rows: int) -> int:
        """Change rows of trends in small transactions until none is left; return their number."""
        changed = 0
        while changed < max_rows and not self._stopping.is_set():
            began = time.monotonic()
            done = self._ledger.write(partial(change, limit=TREND_BATCH_SIZE))
            changed += done
            if done < TREND_BATCH_SIZE:
                break
            self._throttle(began)
        return changed

    def _throttle(self, began: float) -> None:
        """Sleep in proportion to the time spent since `began`, so that writers get their share."""
        self._stopping.wait((time.monotonic() - began) * (1 / MAX_DUTY_CYCLE - 1))
