"""One round of reconciliation for one source.

A round takes the lease of its source, reads the pages of the engine's history, writes each page with its decisions in
one transaction, takes in the instances whose grace has ended, and moves the position. Each step is durable by itself,
and the next round repeats what a killed round has not finished.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from flowhooks.background.reconciliation import rules
from flowhooks.background.reconciliation.callback_checks import ask_about_callbacks
from flowhooks.background.reconciliation.context import (
    Lease,
    RoundResult,
    RoundStopped,
    SourceContext,
    first_position,
)
from flowhooks.background.reconciliation.due import DueInstances, correct_future_times, finish_decline
from flowhooks.background.reconciliation.gaps import open_gap, report_closed
from flowhooks.background.reconciliation.pages import PageWriter
from flowhooks.background.reconciliation.rules import Again, Window
from flowhooks.clock import DAY, SECOND, to_datetime, to_text
from flowhooks.errors import EngineError
from flowhooks.failpoints import hit
from flowhooks.ledger import engine_book, engine_queries, history_gaps
from flowhooks.ledger.engine_book import Disposition
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.engine import FinishedInstance

T = TypeVar("T")

DEFINITIONS_INTERVAL: Final = 3600 * SECOND
"""Microseconds between two readings of the deployed definitions."""
MAX_SKEW: Final = 30 * SECOND
"""Difference in microseconds between the engine's clock and ours from which on it is logged and raises an alert."""
IGNORED_SKEW: Final = 2 * SECOND
"""Difference in microseconds up to which the clocks count as equal."""
MAX_BEHIND_AT_FIRST_CONTACT: Final = 3600 * SECOND
"""Maximum microseconds by which the engine's clock may be behind ours at the first contact. When the clock is corrected
later, instances that ended in as much time before the first contact look new, and their handlers would run."""
GAP_AFTER: Final = 3600.0
"""Minimum seconds of failures after which the interval since the position is recorded as a gap."""
GAP_ROUNDS: Final = 3
"""Minimum number of rounds, by `reconcile_every`, after which it is."""
DELETE_BATCH: Final = 1000
_TIME_RESOLUTION: Final = SECOND
"""Microseconds by which the engine's time can be later than the header that tells it, which has whole seconds."""

log = structlog.get_logger(__name__)


class Round:
    """The state of one round.

    Args:
        context: the source.
        result: receives what the round does.
        process: the process that has the lease.
    """

    def __init__(self, context: SourceContext, result: RoundResult, process: str) -> None:
        self._context = context
        self.result = result
        self._lease = Lease(context, process)
        self._book = PageWriter(context, result, self._lease)
        self._skew = 0
        self._skew_of_window = 0
        self._has_engine_time = False
        self._began_at = context.clock.now()

    # The steps.

    def run(self, since: int | None, *, declined: bool = False) -> None:
        """Make the round."""
        context, again = self._context, Again(skipped=since is not None, declined=declined)
        context.pace.start()
        finish_decline(context, self._lease)
        correct_future_times(context, self._lease)
        position = self._position()
        product = self._check_engine() if not context.is_checked else position.product
        position = self._begin(position)
        sweeps = not 0 <= self._began_at - position.swept_at < DAY
        position, window = self._choose_window(position, sweeps=sweeps, since=since)
        read_until = self._read(window, position, again=again)
        if not self._has_engine_time:
            self._set_skew(0)  # one that was measured in a round before says nothing any more
        if self._has_clock_changed():
            # The window was chosen by the clock as it was in the round before.
            position = self._position()
            window = self._window(position, sweeps=sweeps, since=since, read_at=position.succeeded_at)
            self.result.since, self.result.until = window
            read_until = self._read(window, position, again=again)
        if self._has_clock_changed():
            read_until = max(read_until, position.read_until)  # an answer from a cache, or a clock that jumps
        hit("reconcile.read")
        DueInstances(context, self.result, self._lease, skew=self._skew).take_in(position)
        self._ask_about_callbacks(position)
        definitions = self._definitions(position)
        self._finish(
            position,
            window,
            read_until,
            product=product,
            sweeps=sweeps,
            definitions=definitions,
        )
        if sweeps:
            # A clock that is ahead deletes no row that the round before would have kept.
            self._delete_old(min(window.until, self._began_at, position.succeeded_at or 0))

    def _read(self, window: Window, position: EnginePosition, *, again: Again) -> int:
        """Read and write all pages of a window; return the end time up to which the history is read now."""
        read_until, last_end, is_ordered = window.until, 0, True
        for instances, engine_time in self._pages(window):
            if engine_time is not None:
                # An answer from a cache does not have what ended since.
                read_until = min(read_until, engine_time)
            ends = [rules.to_microseconds(instance.ended_at) for instance in instances]
            is_ordered = is_ordered and ends == sorted(ends) and (not ends or ends[0] >= last_end)
            last_end = max(ends, default=last_end)
            self._book.write(
                instances,
                position,
                again=again,
                skew=self._skew,
                # So a round that is interrupted does not begin from the start. The next one reads the overlap again.
                read=Window(window.since, min(last_end, read_until)) if is_ordered else None,
            )
            self._context.pace.rest(self._context.stopping)
        return read_until

    def preview(self, since: int | None, *, declined: bool = False) -> None:
        """Read what a round would read, and count what it would do; write nothing."""
        context, again = self._context, Again(skipped=since is not None, declined=declined)
        with context.ledger.connection() as connection:
            position = engine_book.position(connection, context.name)
        now = self._began_at
        if position is None:
            position = first_position(context.name, now)
        self._check_engine()
        self._skew = position.skew or 0
        window = self._window(position, sweeps=False, since=since)
        self.result.since, self.result.until = window
        contact = position.since if since is None else min(position.since, window.since)
        waiting: set[str] = set()
        for instances, _ in self._pages(window):
            with context.ledger.connection() as connection:
                known = self._book.known(connection, instances)
                waiting |= {row.flow_instance_id for row in known.values() if row.disposition == Disposition.IN_GRACE}
                undecided = self._book.undecided(connection, instances, again=again)
                self._book.count(self._book.decide(connection, undecided, contact, skew=self._skew))
        with context.ledger.connection() as connection:
            # Instances that earlier rounds have read wait in the book, mostly outside of the window.
            self.result.in_grace += engine_queries.count_in_grace(connection, context.name) - len(waiting)
            confirmed = engine_queries.count_in_grace(connection, context.name, seen_until=position.confirmed_at or 0)
        self.result.taken_in = self.result.in_grace
        unconfirmed = self.result.in_grace - confirmed
        self.result.to_confirm = unconfirmed if unconfirmed > context.engine.max_new else 0

    def _check_engine(self) -> str:
        info = self._context.client.check()
        if info.problem:
            raise EngineError("invalid", escape_control(f"{info.product} {info.version}: {info.problem}", 1000))
        self._context.is_checked = True
        return escape_control(f"{info.product} {info.version}".strip(), 200)

    def _begin(self, position: EnginePosition) -> EnginePosition:
        """Return the position; after the first contact, corrected by the first answer of the engine."""
        self._skew = position.skew or 0
        if position.skew is not None:
            return position
        self._read_skew()
        if self._skew < -MAX_BEHIND_AT_FIRST_CONTACT:
            raise EngineError(
                "invalid",
                f"the engine's clock is {-self._skew // SECOND:,} s behind this machine's at the first contact, so "
                "instances that ended before would look new; set the clocks of both machines",
            )
        # The first contact was noted by our clock.
        values = {name: getattr(position, name) + self._skew for name in ("since", "position", "read_until")}
        values["skew"] = self._skew  # so that a round after an error does not correct it again

        def correct(transaction: WriteTransaction) -> None:
            engine_book.update_position(transaction, self._context.name, values)
            history_gaps.shift(transaction.connection, self._context.name, self._skew)

        self._lease.write(correct)
        return self._position()

    def _choose_window(
        self, position: EnginePosition, *, sweeps: bool, since: int | None
    ) -> tuple[EnginePosition, Window]:
        """Return the position and the window; record a wider window, and what cannot be read any more."""
        engine_now = self._began_at + self._skew
        if position.since > engine_now + rules.OVERLAP:
            # A clock was ahead at the first contact, or a clock is behind now, which must not make older instances new.
            self._read_skew()
            engine_now = self._began_at + self._skew
            if position.since > (latest := max(engine_now, self._began_at)) + rules.OVERLAP:
                self._update({"since": latest})
                position = self._position()
        window = self._window(position, sweeps=sweeps, since=since)
        self.result.since, self.result.until = window
        if since is not None and window.since < position.since:
            self._update({"since": window.since})
            return self._position(), window
        if position.read_until < (earliest := self._earliest(engine_now)):
            self._open_gap(
                (position.read_until, earliest),
                "unreachable",
                "this is longer ago than retention.identities, so purged events of this time are not known any more",
            )
        elif rules.is_ahead(position, engine_now):
            seconds = (position.read_until - engine_now) // SECOND
            self._open_gap(
                (window.since, position.read_until),
                "invalid",
                f"a clock was {seconds:,} s ahead in the round before, so this interval is read again",
            )
        return position, window

    def _window(
        self, position: EnginePosition, *, sweeps: bool, since: int | None, read_at: int | None = None
    ) -> Window:
        engine_now = self._began_at + self._skew
        self._skew_of_window = self._skew
        return rules.next_window(
            position,
            engine_now,
            sweeps=sweeps,
            earliest=self._earliest(engine_now),
            since=since,
            is_wide=self._is_wide(position),
            read_at=None if read_at is None else read_at + self._skew,
        )

    def _is_wide(self, position: EnginePosition) -> bool:
        """Return whether the last hours are read again; not after an error, so that interrupted rounds go on."""
        is_due = not 0 <= self._began_at - self._context.widened_at < rules.WIDE_INTERVAL
        return is_due and position.failed_since is None

    def _has_clock_changed(self) -> bool:
        """Return whether the engine's clock differs from the one by which the window was chosen."""
        return abs(self._skew - self._skew_of_window) > MAX_SKEW

    def _update(self, values: dict[str, Any]) -> None:
        name = self._context.name
        self._lease.write(lambda transaction: engine_book.update_position(transaction, name, values))

    def _read_skew(self) -> None:
        """Ask for an empty window, to learn the engine's time."""
        now = to_datetime(self._began_at)
        asked_at = self._context.clock.now()
        page = self._context.client.finished(now, now)
        if page.engine_time is not None:
            self._note_skew(rules.to_microseconds(page.engine_time), asked_at)

    def _note_skew(self, engine_time: int, asked_at: int) -> None:
        """Note what an answer that was asked for at a time says about the engine's clock."""
        self._has_engine_time = True
        # The engine has told its time at any moment of the call, which can be one of many requests.
        smallest, largest = engine_time - self._context.clock.now(), engine_time - asked_at
        skew = self._skew
        if not smallest <= skew <= largest + _TIME_RESOLUTION:
            skew = max(smallest, min(skew, largest))
        self._set_skew(0 if abs(skew) <= IGNORED_SKEW else skew)

    def _set_skew(self, skew: int) -> None:
        context, self._skew = self._context, skew
        is_large = abs(skew) > MAX_SKEW
        if is_large and not context.has_reported_skew:
            log.warning(
                "engine_clock_skew",
                source=context.name,
                seconds=round(skew / SECOND),
                why="the engine's clock differs from this machine's",
                next="set the clocks of both machines",
            )
        context.has_reported_skew = is_large

    def _earliest(self, engine_now: int) -> int:
        days = self._context.identity_days()
        return engine_now - days * DAY if days else 0

    def _pages(self, window: Window) -> Iterator[tuple[list[FinishedInstance], int | None]]:
        """Yield the instances of each page, without repeats, and the engine's time; check that pages make progress."""
        client, cursor = self._context.client, None
        # A client can leave instances out, so only a cursor shows that pages make progress. It can be of any length.
        digests: set[bytes] = set()
        since, until = to_datetime(window.since), to_datetime(window.until)
        before: frozenset[str] = frozenset()
        while True:
            asked_at = self._context.clock.now()
            page = client.finished(since, until, cursor)
            if self._context.stopping.is_set():
                raise RoundStopped
            engine_time = None if page.engine_time is None else rules.to_microseconds(page.engine_time)
            if engine_time is not None:
                self._note_skew(engine_time, asked_at)
            if outside := [item for item in page.instances if not rules.is_near(item, window)]:
                raise EngineError(
                    "invalid",
                    f"the engine returned {escape_control(outside[0].id, 100)}, which ended at "
                    f"{to_text(rules.to_microseconds(outside[0].ended_at))}, outside of the window that was asked for; "
                    "a cache between flowhooks and the engine may have answered",
                )
            instances = rules.last_of_each([item for item in page.instances if rules.is_in_window(item, window)])
            ids = frozenset(item.id for item in instances)
            self.result.read += len(ids - before)
            yield instances, engine_time
            if page.cursor is None:
                return
            cursor, before = page.cursor, ids
            digest = hashlib.sha256(cursor.encode("utf-8", "surrogatepass")).digest()
            if digest in digests:
                raise EngineError("invalid", "the pages of the engine client make no progress")
            digests.add(digest)
            del page, instances

    def _ask_about_callbacks(self, position: EnginePosition) -> None:
        """Ask about instances that called, and that the history did not have although it was read since."""
        context = self._context
        until = position.position - self._skew - int(context.engine.grace * SECOND)
        since = max(position.since - self._skew, self._began_at - DAY)
        asked = ask_about_callbacks(context, self._lease, since=since, until=until)
        if asked.found:
            # An instance can have called more than once.
            self._book.write(rules.last_of_each(asked.found), position, again=Again(), skew=self._skew)
        if asked.absent:
            times = [callback.received_at + self._skew for callback in asked.absent]
            event_id, instance_id, _ = asked.absent[0]
            self._open_gap(
                (min(times), max(times)),
                history_gaps.DELETED,
                f"the engine called for {len(asked.absent)} instances that it does not know, such as {instance_id} "
                f"(event {event_id}): it may delete its history too early",
            )
        context.asked_until = asked.until

    # The end of a round.

    def _definitions(self, position: EnginePosition) -> str | None:
        """Return the deployed definitions as JSON if they are due and can be read."""
        if position.definitions_at is not None and 0 <= self._began_at - position.definitions_at < DEFINITIONS_INTERVAL:
            return None
        try:
            definitions = self._context.client.definitions()
        except EngineError as error:
            log.warning(
                "definitions_not_read", source=self._context.name, why=error.why, next="the next round tries again"
            )
            return None
        return json.dumps(
            [
                {"key": item.key, "version": item.version, "name": item.name, "tenant_id": item.tenant_id}
                for item in definitions
            ]
        )

    def _finish(
        self,
        position: EnginePosition,
        window: Window,
        read_until: int,
        *,
        product: str,
        sweeps: bool,
        definitions: str | None,
    ) -> None:
        context, now = self._context, self._context.clock.now()
        values: dict[str, Any] = {
            "read_until": read_until,
            "round_at": now,
            "failed_since": None,
            "reason": "",
            "error": "",
            "failures": 0,
            "skew": self._skew,
            "product": product,
            "to_confirm": self.result.to_confirm,
            "waiting": self.result.waiting,
        }
        if not self.result.reason:
            values["succeeded_at"] = now
        if sweeps:
            values["swept_at"] = now
        if definitions is not None:
            values |= {"definitions": definitions, "definitions_at": now}

        def finish(transaction: WriteTransaction) -> int:
            in_grace = engine_book.earliest_in_grace(transaction.connection, context.name)
            values["position"] = read_until if in_grace is None else min(read_until, in_grace)
            engine_book.update_position(transaction, context.name, values)
            return history_gaps.close(transaction, context.name, window.since, now)

        closed = self._lease.write(finish)
        if self._is_wide(position):
            context.widened_at = self._began_at
        report_closed(context.name, closed)
        if self.result.taken_in or not position.round_at:
            log.info(
                "reconciliation_finished",
                source=context.name,
                taken_in=self.result.taken_in,
                read=self.result.read,
                product=product,
            )

    def record_failure(self, error: EngineError) -> None:
        """Record that the round failed, and a gap if rounds have failed for long."""
        context, now = self._context, self._context.clock.now()
        position = self._position()
        failed_since = position.failed_since or now
        values = {
            "round_at": now,
            "failed_since": failed_since,
            "reason": error.reason,
            "error": escape_control(error.why, 1000),
            "failures": position.failures + 1,
        }
        self._lease.write(lambda transaction: engine_book.update_position(transaction, context.name, values))
        limit = int(max(GAP_AFTER, GAP_ROUNDS * context.engine.reconcile_every) * SECOND)
        if now - failed_since > limit:
            self._open_gap((position.read_until, now + (position.skew or 0)), error.reason, error.why)

    def _open_gap(self, interval: tuple[int, int], reason: str, detail: str) -> None:
        open_gap(self._context, self._lease, interval, reason=reason, detail=detail)

    def _delete_old(self, now: int) -> None:
        """Delete rows of instances that are older than any identity that is kept."""
        context, before = self._context, self._earliest(now)
        while before > 0 and not context.stopping.is_set():
            deleted = self._lease.write(
                lambda transaction: engine_book.delete_old(transaction, context.name, before, DELETE_BATCH)
            )
            if deleted < DELETE_BATCH:
                return

    def _position(self) -> EnginePosition:
        position = self._context.position()
        if position is None:
            raise RoundStopped  # another process has renamed the source
        return position
