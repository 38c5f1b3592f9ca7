"""Take in the instances whose grace has ended, or decline those that wait for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.background.reconciliation import rules
from flowhooks.background.reconciliation.context import STORAGE, RoundStopped, storage_text
from flowhooks.background.reconciliation.rules import Refusal, Rule
from flowhooks.clock import SECOND
from flowhooks.errors import MalformedRequest, Unavailable
from flowhooks.failpoints import hit
from flowhooks.ledger import engine_book
from flowhooks.ledger.engine_book import BookRow, Due
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.background.reconciliation.context import Lease, RoundResult, SourceContext
    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.ledger.transaction import WriteTransaction

MAX_EXTENSION: Final = 3600 * SECOND
"""Maximum microseconds after its own grace that an instance waits because this server could not take callbacks."""
PAGE_OF_DUE: Final = 500
"""Number of instances in grace that are read at once."""
_LATEST: Final = 2**53

log = structlog.get_logger(__name__)


def decline(context: SourceContext, lease: Lease, seen_until: int | None, note: str) -> int:
    """Let a rule skip the instances that a confirmation would cover; return their number.

    The decision is durable before the first of them is skipped. Whatever ends this process then, the next round skips
    the others.

    Args:
        context: the source.
        lease: its lease.
        seen_until: instances that were first seen until this time; None: as many as the last round has counted.
        note: why.
    """
    finish_decline(context, lease)

    def begin(transaction: WriteTransaction) -> None:
        detail = escape_control(note, engine_book.MAX_DETAIL_CHARS)
        engine_book.begin_decline(transaction, context.name, seen_until=seen_until, note=detail)

    lease.write(begin)
    hit("reconcile.declining")
    return _decline(context, lease)


def finish_decline(context: SourceContext, lease: Lease) -> None:
    """Let a rule skip the instances that an operator has declined in a process that ended before it skipped all."""
    position = context.position()
    if position is None or position.declining_until is None:
        return
    log.info(
        "decline_continued",
        source=context.name,
        instances=_decline(context, lease),
        why="an operator has declined these instances, and the process that skipped them has ended",
    )


def correct_future_times(context: SourceContext, lease: Lease) -> None:
    """Correct the times of a clock that was ahead, which would confirm every instance, or let none be confirmed."""
    now = context.clock.now()
    with context.ledger.connection() as connection:
        is_ahead = engine_book.has_future_times(connection, context.name, now)
    if is_ahead:
        lease.write(lambda transaction: engine_book.correct_future_times(transaction, context.name, now))


def _decline(context: SourceContext, lease: Lease) -> int:
    declined, now = 0, context.clock.now()
    while True:

        def skip(transaction: WriteTransaction) -> tuple[int, bool]:
            return engine_book.decline(transaction, context.name, rule=Rule.DECLINED.value, now=now, limit=PAGE_OF_DUE)

        count, has_more = lease.write(skip)
        declined += count
        hit("reconcile.declined")
        if not has_more:
            return declined
        if context.stopping.is_set():
            raise RoundStopped


class DueInstances:
    """Makes events of the instances in grace that are due, the first to end first.

    Args:
        context: the source.
        result: counts them.
        lease: the lease of the round.
        skew: the engine's clock minus ours, in microseconds.
    """

    def __init__(self, context: SourceContext, result: RoundResult, lease: Lease, *, skew: int) -> None:
        self._context = context
        self._result = result
        self._lease = lease
        self._skew = skew

    def take_in(self, position: EnginePosition) -> None:
        """Take them in, unless an operator must confirm or the engine may call again."""
        context = self._context
        if not context.has_applied_rules:
            self._apply_rules()
        with context.ledger.connection() as connection:
            ended = self._due(context.clock.now() - int(context.engine.grace * SECOND))
            due = self._due_now(connection, ended)
            confirmed_at = self._confirmed_at(connection)
            due_count = self._count(connection, due)
            self._result.waiting = self._count(connection, ended) - due_count
            # Instances that wait for an operator already stay counted.
            unconfirmed = self._count(connection, ended if position.to_confirm else due, seen_after=confirmed_at or 0)
        if self._result.waiting:
            log.info(
                "reconciliation_waits",
                source=context.name,
                instances=self._result.waiting,
                why="this server could not take callbacks, so the engine may call again",
                next="a later round takes them in",
            )
        if due is not None and due_count and due.seen_until == ended.seen_until - MAX_EXTENSION:
            log.warning(
                "grace_extension_ended",
                source=context.name,
                why="an hour after their grace, instances are taken in although this server could not take callbacks",
                next="find out why this server is not ready, or why callbacks of this source are answered 503",
            )
        is_confirmed = unconfirmed <= context.engine.max_new
        self._result.to_confirm = 0 if is_confirmed else unconfirmed
        if self._result.to_confirm and not position.to_confirm:
            log.warning(
                "reconciliation_unconfirmed",
                source=context.name,
                instances=unconfirmed,
                max_new=context.engine.max_new,
                why="the engine's history has more instances without an event than max_new",
                next=f"look at them, then confirm: `flowhooks engines reconcile --source {context.name} --confirm`",
            )
        if due is not None and (is_confirmed or confirmed_at is not None):
            self._take_in_pages(due, None if is_confirmed else confirmed_at)

    def _due_now(self, connection: Connection, ended: Due) -> Due | None:
        """Return which of the instances whose own grace has ended are due; None: the engine may call for each."""
        context, cutoff = self._context, ended.seen_until
        if context.ready_since() > cutoff:
            return None
        until, grace = cutoff, int(context.engine.grace * SECOND)
        if not context.ready_since() and grace and context.candidates.source.has_credential:
            # This is a command. Callbacks arrive only while a server runs.
            served_until = engine_book.served_until(connection)
            until = cutoff if served_until is None else min(cutoff, served_until - grace)
        now = cutoff + grace
        unavailable_at = engine_book.last_unavailable_at(connection, context.name, until=now)
        # A later time is of a clock that was ahead.
        if unavailable_at > cutoff or cutoff < context.not_ready_at() <= now:
            # The engine may not have reached us, and has time to call again.
            until = min(until, cutoff - MAX_EXTENSION)
        return ended if until == cutoff else self._due(until)

    @staticmethod
    def _count(connection: Connection, due: Due | None, *, seen_after: int = 0) -> int:
        return 0 if due is None else engine_book.count_due(connection, due, seen_after=seen_after)

    def _due(self, until: int) -> Due:
        return Due(self._context.name, ended_until=until + self._skew, seen_until=until)

    def _apply_rules(self) -> None:
        """Skip the instances in grace that the settings, which may have changed, do not take in any more."""
        context, after = self._context, None
        everything = Due(context.name, ended_until=_LATEST, seen_until=_LATEST)
        while True:
            with context.ledger.connection() as connection:
                page = engine_book.due_page(connection, everything, seen_until=None, after=after, limit=PAGE_OF_DUE)
            if context.stopping.is_set():
                raise RoundStopped
            if refused := [(row, refusal) for row in page if (refusal := context.candidates.refusal_of(row))]:
                self._skip(*refused)
            if len(page) < PAGE_OF_DUE:
                context.has_applied_rules = True
                return
            after = page[-1]

    def _take_in_pages(self, due: Due, seen_until: int | None) -> None:
        context, after = self._context, None
        # The errors themselves are not kept: their tracebacks have the bodies of all rows.
        unstored, first = 0, ""
        while True:
            with context.ledger.connection() as connection:
                page = engine_book.due_page(connection, due, seen_until=seen_until, after=after, limit=PAGE_OF_DUE)
            for row in page:
                if context.stopping.is_set():
                    raise RoundStopped
                self._lease.renew_if_old()
                try:
                    self._take_in(row)
                except Unavailable as error:
                    unstored += 1
                    first = first or f"{row.flow_instance_id}: {storage_text(error)}"
            if len(page) < PAGE_OF_DUE:
                break
            after = page[-1]
        if unstored:
            self._result.reason = STORAGE
            self._result.error = f"{unstored:,} instances are not stored, first {first}"
            log.warning(
                "reconciliation_postponed",
                source=context.name,
                why=self._result.error,
                next="the next round takes them in",
            )

    def _take_in(self, row: BookRow) -> None:
        context = self._context
        if (refusal := context.candidates.refusal_of(row)) is not None:
            self._skip((row, refusal))  # another process, whose settings differ, has written the row
            return
        try:
            callback = rules.to_callback(row, self._skew)
        except MalformedRequest as error:
            self._skip((row, Refusal(Rule.INVALID, f"its row is damaged: {error}")))
            return
        taken = context.take_in(callback)
        hit("reconcile.taken_in")
        if taken.disposition == "purged":
            self._skip((row, Refusal(Rule.PURGED)))
            return
        self._result.taken_in += taken.new
        if taken.reused_id:
            log.warning(
                "instance_id_reused",
                source=context.name,
                flow_instance_id=row.flow_instance_id,
                event_id=taken.event_id,
                why="an event of an earlier instance has the same process instance id",
                next="check whether the engine's database was reset, or two engines call as this source",
            )

    def _skip(self, *refused: tuple[BookRow, Refusal]) -> None:
        now = self._context.clock.now()

        def skip(transaction: WriteTransaction) -> None:
            for row, (rule, detail) in refused:
                text = escape_control(detail, engine_book.MAX_DETAIL_CHARS)
                engine_book.skip(transaction, row, rule=rule.value, detail=text, now=now)

        self._lease.write(skip)

    def _confirmed_at(self, connection: Connection) -> int | None:
        position = engine_book.position(connection, self._context.name)
        return None if position is None else position.confirmed_at
