"""Take in the instances whose grace has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.background.reconciliation import rules
from flowhooks.background.reconciliation.context import RoundStopped
from flowhooks.background.reconciliation.rules import Rule
from flowhooks.clock import SECOND
from flowhooks.errors import InvalidCallback
from flowhooks.failpoints import hit
from flowhooks.ledger import engine_book
from flowhooks.ledger.engine_book import BookRow, Due, EnginePosition
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.background.reconciliation.context import Lease, RoundResult, SourceContext

MAX_EXTENSION: Final = 3600 * SECOND
"""Maximum microseconds after its own grace that an instance waits because this server could not take callbacks."""
PAGE_OF_DUE: Final = 500
"""Number of instances in grace that are read at once."""

log = structlog.get_logger(__name__)


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
        cutoff = context.clock.now() - int(context.engine.grace * SECOND)
        ended = self._due(cutoff)
        due: Due | None = ended
        with context.ledger.connection() as connection:
            quiet_since = max(context.not_ready_at(), engine_book.last_unavailable_at(connection, context.name))
            confirmed_at = self._confirmed_at(connection)
            if context.ready_since() > cutoff:
                due = None
            elif quiet_since > cutoff:
                # The engine may not have reached us, and has time to call again.
                due = self._due(cutoff - MAX_EXTENSION)
            self._result.waiting = engine_book.count_due(connection, ended, seen_after=0)
            if due is not None:
                self._result.waiting -= engine_book.count_due(connection, due, seen_after=0)
            # Instances that wait for an operator already stay counted.
            counted = ended if position.to_confirm else due
            unconfirmed = 0
            if counted is not None:
                unconfirmed = engine_book.count_due(connection, counted, seen_after=confirmed_at or 0)
        if self._result.waiting:
            log.info(
                "reconciliation_waits",
                source=context.name,
                instances=self._result.waiting,
                why="this server could not take callbacks, so the engine may call again",
                next="a later round takes them in",
            )
        is_confirmed = unconfirmed <= context.engine.max_new
        self._result.to_confirm = 0 if is_confirmed else unconfirmed
        if not is_confirmed:
            if not position.to_confirm:
                log.warning(
                    "reconciliation_unconfirmed",
                    source=context.name,
                    instances=unconfirmed,
                    max_new=context.engine.max_new,
                    why="the engine's history has more instances without an event than max_new",
                    next=f"look at them, then confirm: `flowhooks engines reconcile --source {context.name} --confirm`",
                )
            if confirmed_at is None:
                return
        if due is not None:
            self._take_in_pages(due, None if is_confirmed else confirmed_at)

    def _due(self, until: int) -> Due:
        return Due(self._context.name, ended_until=until + self._skew, seen_until=until)

    def _take_in_pages(self, due: Due, seen_until: int | None) -> None:
        context, after = self._context, None
        while True:
            with context.ledger.connection() as connection:
                page = engine_book.due_page(connection, due, seen_until=seen_until, after=after, limit=PAGE_OF_DUE)
            for row in page:
                if context.stopping.is_set():
                    raise RoundStopped
                self._lease.renew_if_old()
                self._take_in(row)
            if len(page) < PAGE_OF_DUE:
                return
            after = page[-1]

    def _take_in(self, row: BookRow) -> None:
        context = self._context
        try:
            taken = context.take_in(rules.to_callback(row, self._skew))
        except InvalidCallback as error:
            self._skip(row, Rule.REJECTED, str(error))
            return
        hit("reconcile.taken_in")
        if taken.disposition == "purged":
            self._skip(row, Rule.PURGED, "")
            return
        self._result.taken_in += taken.new
        if taken.reused_id:
            log.warning(
                "instance_id_reused",
                source=context.name,
                flow=row.flow_instance_id,
                event_id=taken.event_id,
                why="an event of an earlier instance has the same process instance id",
                next="check whether the engine's database was reset, or two engines call as this source",
            )

    def _skip(self, row: BookRow, rule: Rule, detail: str) -> None:
        now = self._context.clock.now()
        self._lease.write(
            lambda transaction: engine_book.skip(
                transaction, row, rule=rule.value, detail=escape_control(detail, engine_book.MAX_DETAIL_CHARS), now=now
            )
        )

    def _confirmed_at(self, connection: Connection) -> int | None:
        position = engine_book.position(connection, self._context.name)
        return None if position is None else position.confirmed_at
