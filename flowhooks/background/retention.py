"""What has been kept for long enough goes by itself, a little at a time; it must not know who else purges."""

from __future__ import annotations

import threading
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.failpoints import reached
from flowhooks.ledger import purge
from flowhooks.ledger.purge import PURGED_BY_DEFAULT, PURGED_ON_REQUEST
from flowhooks.ledger.queries import EventFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.background.clock_trust import ClockTrust
    from flowhooks.clock import Clock
    from flowhooks.ledger.group_commit import WriteTransaction
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.settings import RetentionSettings

DAY: Final = 86_400 * SECOND
FIRST_RUN: Final = 60.0
"""Seconds after the start: whoever starts has better things to do."""
EVERY: Final = 3600.0
"""Seconds from the end of a run to the next one."""
AT_ONCE: Final = 100
"""Rows that one transaction deletes at the most, but for what belongs to them."""
SIGNED_FOR: Final = DAY
"""Microseconds for which the id of a signed call-back is kept after it was last used. Its signature is taken for 5
minutes before and after its time; what is more is for clocks that are wrong, and are put right."""
NOT_MORE_THAN: Final = 0.1
"""The part of the time that it may take, however much there is to delete."""
MIN_RUN: Final = 10_000
MAX_SHARE: Final = 10
"""One run deletes so many of a kind, or a tenth of the stored events if that is more: what a clock that is wrong for a
while can delete. Even what is kept for one day goes at a rate of a twenty-fourth an hour."""
_EVERY_EVENT: Final = EventFilter()
_ALWAYS: Final = 0
"""Before 1970 nothing was received."""

log = structlog.get_logger(__name__)


class Retention:
    """Deletes what is older than the settings say.

    Args:
        ledger: what is deleted from.
        clock: tells the time.
        settings: for how many days what is kept.
        trust: whether the clock can be trusted.
    """

    def __init__(self, *, ledger: Ledger, clock: Clock, settings: RetentionSettings, trust: ClockTrust) -> None:
        self._trust = trust
        self._ledger = ledger
        self._clock = clock
        self._settings = settings
        self._postponed = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="retention", daemon=True)

    def go_by(self, settings: RetentionSettings) -> None:
        """Delete by other settings from now on."""
        self._settings = settings

    def start(self) -> None:
        """Start: a minute later, then every hour."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End it; the transaction under way gets `timeout` seconds. The next run goes on with the rest."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def run(self) -> Mapping[str, int]:
        """Delete all that is old by now; how many of each kind went.

        Raises:
            FlowhooksError: the database cannot be read or written just now; a later run does the rest.
        """
        gone: Counter[str] = Counter()
        most = self._may_go()
        try:
            self._events(gone, most)
            self._rest(gone, most)
        finally:
            if any(gone.values()):
                log.info("purged", **gone)
            if max(gone.values(), default=0) >= most:
                log.warning(
                    "purge_capped",
                    most=most,
                    why="one run deletes no more of a kind, in case the clock or a setting is wrong",
                    next="the next run goes on in an hour; `flowhooks db purge` deletes at once",
                )
        return gone

    def _loop(self) -> None:
        rest, trouble = FIRST_RUN, ""
        while not self._over.wait(rest):
            rest = EVERY
            try:
                if self._ledger.is_leader():  # another process does it for all that share the ledger
                    rest = self._run_if_trusted()
                trouble = ""
            except FlowhooksError as error:
                if str(error) != trouble and not self._over.is_set():
                    log.error("cannot_purge", why=str(error), next="tried again in an hour")  # noqa: TRY400 (one line until it changes)
                trouble = str(error)
            except Exception:
                # A fault of ours must not end this: the disk would fill up, and nobody know why.
                log.exception("purge_fault")

    def _run_if_trusted(self) -> float:
        """Delete what is old, unless the clock is doubted; seconds until the next run."""
        if self._trust.is_trusted:
            self._postponed = False
            self.run()
            return EVERY
        if not self._postponed:
            log.warning(
                "purge_postponed",
                why="the clock is more than a day ahead of the newest thing in the ledger, or has jumped ahead",
                next="nothing is purged until it has stayed so for an hour; see that this machine's clock is right",
            )
        self._postponed = True
        return FIRST_RUN

    def _may_go(self) -> int:
        """How many of each kind one run may delete."""
        return max(MIN_RUN, self._ledger.totals().stored // MAX_SHARE)

    def _before(self, name: str) -> int:
        days: int = getattr(self._settings, name)
        return self._clock.now() - days * DAY if days else _ALWAYS

    def _events(self, gone: Counter[str], most: int) -> None:
        before = {
            state: self._before(state)
            for state in (*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST)
            if getattr(self._settings, state)
        }
        after = ""
        while not self._over.is_set() and gone["events"] < most:
            began = time.monotonic()
            page = self._ledger.purgeable(before, event_filter=_EVERY_EVENT, after=after, limit=AT_ONCE)
            if page.ids:
                done = self._ledger.write(partial(self._ledger.purge, ids=page.ids, cutoffs=before))
                reached("purge.committed")
                gone.update(events=done.events, deliveries=done.deliveries)
            after = page.next
            if not after:
                return
            self._pause(began)

    def _rest(self, gone: Counter[str], most: int) -> None:
        def forget(transaction: WriteTransaction) -> dict[str, int]:
            return purge.delete_expired(
                transaction,
                identities=self._before("identities"),
                audits=self._before("audit"),
                closed_alerts=self._before("alerts"),
                signatures=self._clock.now() - SIGNED_FOR,
                limit=AT_ONCE,
            )

        while not self._over.is_set():
            began = time.monotonic()
            done = self._ledger.write(forget)
            gone.update(done)
            if max(done.values()) < AT_ONCE or max(gone[name] for name in done) >= most:
                return
            self._pause(began)

    def _pause(self, began: float) -> None:
        """Leave the time to others, after what has been going on since `began`."""
        self._over.wait((time.monotonic() - began) * (1 / NOT_MORE_THAN - 1))
