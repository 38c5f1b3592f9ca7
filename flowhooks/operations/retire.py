"""Retire: the ledger forgets handlers, so that nothing more is kept for them.

What is stored for them already stays as it is. The look-up of a process that runs stays as it was when that process
started, so a running server goes on giving them deliveries until it is started again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.ledger import handlers as registered_handlers
from flowhooks.ledger.stats import HandlerBacklog, backlog
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.operations.context import OperationContext


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireResult:
    """What was retired, or would be.

    Attributes:
        handlers: the ids of those that are not registered any more.
        skipped: ids that are not registered, or which were retired before.
        waiting: how many deliveries still wait for those of `handlers`; they stay stored.
        unknown: how many of theirs are *unknown*.
        dead: how many of theirs are dead.
        dry_run: whether nothing was changed.
    """

    handlers: tuple[str, ...]
    skipped: tuple[str, ...]
    waiting: int
    unknown: int
    dead: int
    dry_run: bool


def retire(context: OperationContext, handlers: Sequence[str], *, dry_run: bool = False) -> RetireResult:
    """Delete handlers from the ledger. One that is loaded again is registered again, and gets the waiting deliveries.

    Args:
        context: what operations work with.
        handlers: their ids, `plugin:name`.
        dry_run: only say which would be retired.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    handler_ids = tuple(dict.fromkeys(handlers))
    if dry_run:
        retired_ids = frozenset(handler.id for handler in context.ledger.registered_handlers()).intersection(
            handler_ids
        )
    else:
        now = context.clock.now()
        retired_ids = context.change(
            lambda transaction: registered_handlers.retire(transaction, handler_ids, now),
            lambda retired: AuditRecord(
                "retire", handler_ids[0] if len(handler_ids) == 1 else "", {"handlers": sorted(retired)}
            ),
        )
    with context.ledger.connection() as connection:
        stored = backlog(connection)
    backlogs = [stored.get(handler_id, HandlerBacklog()) for handler_id in handler_ids if handler_id in retired_ids]
    return RetireResult(
        handlers=tuple(handler_id for handler_id in handler_ids if handler_id in retired_ids),
        skipped=tuple(handler_id for handler_id in handler_ids if handler_id not in retired_ids),
        waiting=sum(handler_backlog.waiting for handler_backlog in backlogs),
        unknown=sum(handler_backlog.unknown for handler_backlog in backlogs),
        dead=sum(handler_backlog.dead for handler_backlog in backlogs),
        dry_run=dry_run,
    )
