"""Retire: remove handlers from the ledger, so that nothing more is stored for them.

Existing deliveries stay unchanged. A running process keeps the look-up that it built at start, so a running server
continues to give retired handlers deliveries until it is restarted.
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
    """Result of retiring handlers, or of its dry run.

    Attributes:
        handlers: ids of the handlers that are no longer registered.
        skipped: given ids that are not registered or were already retired.
        waiting: number of waiting deliveries of `handlers`; they stay stored.
        unknown: number of *unknown* deliveries of `handlers`.
        dead: number of dead deliveries of `handlers`.
        dry_run: whether nothing was changed.
    """

    handlers: tuple[str, ...]
    skipped: tuple[str, ...]
    waiting: int
    unknown: int
    dead: int
    dry_run: bool


def retire(context: OperationContext, handlers: Sequence[str], *, dry_run: bool = False) -> RetireResult:
    """Remove handlers from the ledger. A handler that is loaded again is registered again and gets waiting deliveries.

    Args:
        context: what operations work with.
        handlers: ids of the handlers, `plugin:name`.
        dry_run: only report which handlers would be retired.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    handler_ids = tuple(dict.fromkeys(handlers))
    if dry_run:
        retired_ids = frozenset(handler.id for handler in context.reader.registered_handlers()).intersection(
            handler_ids
        )
    else:
        now = context.clock.now()
        retired_ids = context.change(
            lambda transaction: registered_handlers.retire(transaction, handler_ids, now),
            lambda retired: AuditRecord(
                "retire", handler_ids[0] if len(handler_ids) == 1 else "", {"handlers": sorted(retired)}
            ),
            alone=True,
        )
    with context.reader.connection() as connection:
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
