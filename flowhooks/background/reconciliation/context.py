"""A source, the result of a round for it, and its lease."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

from flowhooks.background.reconciliation.pace import Pace
from flowhooks.errors import Unavailable
from flowhooks.ledger import engine_book
from flowhooks.ledger.engine_book import BookRow, Disposition
from flowhooks.ledger.engine_queries import EnginePosition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.background.reconciliation.clients import BoundedClient
    from flowhooks.background.reconciliation.rules import Candidates
    from flowhooks.clock import Clock
    from flowhooks.errors import FlowhooksError
    from flowhooks.intake.callback import Callback, TakenIn
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.settings import EngineSettings

T = TypeVar("T")

BUSY: Final = "busy"
"""Reason of a round that did not start: another process reconciles the source, its history is read under another name,
or another request waits."""
STOPPED: Final = "stopped"
"""Reason of a round that the stop of the process, or the loss of the lease, has ended."""
STORAGE: Final = "database"
"""Reason of a round for which the database could not be read, or not all of it written."""


_STORAGE_TEXTS: Final[Mapping[str, str]] = {
    "draining": "this process stops",
    "ledger_full": "too many other writes wait for the database",
    "ledger_slow": "the database was too busy to write in time",
    "ledger_down": "the database cannot be used now",
}


def storage_text(error: FlowhooksError) -> str:
    """Return why the ledger could not be used. The messages of `Unavailable` are about callbacks, and for engines."""
    return _STORAGE_TEXTS.get(error.key, str(error)) if isinstance(error, Unavailable) else str(error)


class RoundStopped(Exception):
    """The process stops, or another process has taken the lease: the round writes nothing more."""


class _Lost(Enum):
    """The result of a write without the lease."""

    LEASE = 1


@dataclass(slots=True, kw_only=True)
class RoundResult:
    """The result of a round, or of its dry run. Times are in microseconds since 1970, by the engine's clock.

    Attributes:
        source: the source.
        dry_run: whether nothing was written.
        since: the earliest end of the window; 0: the round did not get so far.
        until: the latest end of the window; 0: as above.
        requests: the number of calls of the engine client.
        read: the number of instances that were read.
        has_event: the number of these that have an event.
        skipped: the number of these that are skipped, by rule.
        in_grace: the number of these that have no event yet.
        taken_in: the number of instances that became events in this round; in a dry run, those that would, once their
            grace has ended.
        waiting: the number of instances whose own grace has ended, and that wait because this process could not take
            callbacks, so that the engine may call again.
        to_confirm: the number of instances that wait for an operator, or would.
        reason: why the round ended early: `"unreachable"`, `"refused"` or `"invalid"` for the engine, `"busy"` if
            another process reconciles the source, its history is read under another name or another request waits,
            `"stopped"`, `"database"`; `""`: it did not.
        error: the same, in one sentence for operators.
    """

    source: str
    dry_run: bool = False
    since: int = 0
    until: int = 0
    requests: int = 0
    read: int = 0
    has_event: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    in_grace: int = 0
    taken_in: int = 0
    waiting: int = 0
    to_confirm: int = 0
    reason: str = ""
    error: str = ""

    def count(self, row: BookRow) -> None:
        """Count an instance that was read."""
        if row.disposition == Disposition.HAS_EVENT:
            self.has_event += 1
        elif row.disposition == Disposition.IN_GRACE:
            self.in_grace += 1
        else:
            self.skipped[row.rule] += 1


@dataclass(slots=True, kw_only=True)
class SourceContext:
    """A source, and what its rounds remember of each other.

    Attributes:
        name: the name of the source.
        names: the name, and the former names.
        engine: its section `engine`.
        candidates: decides what becomes of an instance without an event.
        client: asks the engine.
        ledger: has the book and the events.
        take_in: stores an instance as an event: `Intake.take_in`.
        clock: the time.
        identity_days: returns for how many days identities of purged events are kept; 0: forever.
        ready_since: returns since when this process has taken callbacks, in microseconds since 1970; 0: it takes none.
        not_ready_at: returns when this process was last not ready for callbacks since then; 0: never.
        lease_seconds: seconds after which another process may take over.
        stopping: set when the process stops.
        is_checked: whether the engine's description was read since the last error.
        has_applied_rules: whether the rules were applied to the instances in grace since the settings changed.
        has_reported_skew: whether the present difference of the clocks is logged.
        widened_at: when the last hours were last read again, in microseconds since 1970; 0: not by this process.
        asked_until: an event id: the engine was asked about callbacks up to it.
        running: callbacks for instances that had not ended when the engine was asked, by event id: instance id and time
            of receipt.
        pace: lets callbacks have the processor while a round reads pages.
    """

    name: str
    names: tuple[str, ...]
    engine: EngineSettings
    candidates: Candidates
    client: BoundedClient
    ledger: Ledger
    take_in: Callable[[Callback], TakenIn]
    clock: Clock
    identity_days: Callable[[], int]
    ready_since: Callable[[], int]
    not_ready_at: Callable[[], int]
    lease_seconds: float
    stopping: threading.Event = field(default_factory=threading.Event)
    is_checked: bool = False
    has_applied_rules: bool = False
    has_reported_skew: bool = False
    widened_at: int = 0
    asked_until: str = ""
    running: dict[str, tuple[str, int]] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)

    def position(self) -> EnginePosition | None:
        """Return how far the history was read; None before the first round.

        Raises:
            LedgerUnusable: the database cannot be read.
        """
        with self.ledger.connection() as connection:
            return engine_book.position(connection, self.name)


class Lease:
    """The lease of a source, as the round that has taken it uses it.

    Args:
        context: the source.
        process: the process that has taken it.
    """

    def __init__(self, context: SourceContext, process: str) -> None:
        self._context = context
        self._process = process
        self._renewed_at = time.monotonic()

    def write(self, function: Callable[[WriteTransaction], T]) -> T:
        """Renew the lease and write, in one transaction. Without the lease, end the round and write nothing."""
        context = self._context

        def write(transaction: WriteTransaction) -> T | _Lost:
            with context.pace.measured():
                if not engine_book.renew_lease(transaction, context.name, self._process, context.lease_seconds):
                    return _Lost.LEASE
                return function(transaction)

        result = context.ledger.write(write)
        if result is _Lost.LEASE:
            raise RoundStopped
        self._renewed_at = time.monotonic()
        return result

    def renew_if_old(self) -> None:
        """Renew the lease if a third of its time has passed."""
        if time.monotonic() - self._renewed_at > self._context.lease_seconds / 3:
            self.write(lambda _transaction: None)


def first_position(source: str, now: int) -> EnginePosition:
    """Return the position of a source before its first round."""
    return EnginePosition(
        source=source,
        since=now,
        position=now,
        read_until=now,
        swept_at=now,
        round_at=0,
        succeeded_at=None,
        failed_since=None,
        reason="",
        error="",
        failures=0,
        skew=None,
        product="",
        to_confirm=0,
        waiting=0,
        confirmed_at=None,
        declining_after=None,
        declining_until=None,
        declining_note=None,
        definitions_at=None,
    )
