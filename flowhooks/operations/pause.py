"""Pause and resume handlers: deliveries of a paused handler are stored and wait until it is resumed.

Running attempts continue to their end. No delivery is changed, so the cost does not grow with the number of waiting
ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from flowhooks.ledger import pauses as pausing
from flowhooks.ledger.stats import HandlerBacklog, backlog, count_due_later
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.operations.context import OperationContext

_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseResult:
    """Result of a pause or resume, or of its dry run.

    Attributes:
        handlers: ids of the handlers that were changed.
        skipped: given ids and patterns that changed nothing: ids of handlers that are not registered, are retired, or
            were already in the wanted state, and patterns that match no other handlers.
        waiting: number of waiting deliveries of `handlers`.
        due_later: number of these deliveries whose retry is due later; a resumed handler runs them then, not at once.
        running: number of running deliveries of `handlers`; they continue to their end.
        dry_run: whether nothing was changed.
    """

    handlers: tuple[str, ...]
    skipped: tuple[str, ...]
    waiting: int
    due_later: int
    running: int
    dry_run: bool


def pause(context: OperationContext, handlers: Sequence[str], *, note: str = "", dry_run: bool = False) -> PauseResult:
    """Pause handlers: no process starts their deliveries, nor a trial of an open circuit, until they are resumed.

    Args:
        context: what operations work with.
        handlers: ids of the handlers, `plugin:name`, or patterns such as `contracts:*`.
        note: reason, stored in the audit log.
        dry_run: only report which handlers would be paused.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    selected = _select(context, handlers, paused=False)
    return _apply(context, handlers, selected, "pause", note=note, dry_run=dry_run)


def resume(context: OperationContext, handlers: Sequence[str], *, dry_run: bool = False) -> PauseResult:
    """Resume paused handlers, longest waiting deliveries first, and close open circuits.

    Args:
        context: what operations work with.
        handlers: ids of the handlers, `plugin:name`, or patterns such as `contracts:*`.
        dry_run: only report which handlers would be resumed.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    selected = _select(context, handlers, paused=True)
    return _apply(context, handlers, selected, "resume", dry_run=dry_run)


def _select(context: OperationContext, patterns: Sequence[str], *, paused: bool) -> frozenset[str]:
    candidates = [
        handler.id
        for handler in context.reader.registered_handlers()
        if context.access.sees(handler.id)
        and (handler.paused_at is not None if paused else handler.paused_at is None or handler.circuit is not None)
    ]
    return frozenset(handler_id for handler_id in candidates if any(_matches(word, handler_id) for word in patterns))


def _matches(pattern: str, handler: str) -> bool:
    return pattern == handler or (not _WILDCARDS.isdisjoint(pattern) and fnmatchcase(handler, pattern))


def _apply(
    context: OperationContext,
    patterns: Sequence[str],
    selected: frozenset[str],
    action: str,
    *,
    note: str = "",
    dry_run: bool,
) -> PauseResult:
    with context.reader.connection() as connection:
        # Before the change: resumed deliveries may complete before a later count.
        stored = backlog(connection)
        due_later = count_due_later(connection, context.clock.now())
    changed = selected
    if selected and not dry_run:
        change = pausing.pause if action == "pause" else pausing.resume
        pauses, now = context.ledger.pauses, context.clock.now()
        changed = context.change(
            lambda transaction: change(transaction, selected, now, pauses),
            lambda them: _audit_record(action, them, note),
            alone=True,
        )
    backlogs = [stored.get(handler_id, HandlerBacklog()) for handler_id in changed]
    return PauseResult(
        handlers=tuple(sorted(changed)),
        skipped=tuple(
            pattern
            for pattern in dict.fromkeys(patterns)
            if not any(_matches(pattern, handler_id) for handler_id in changed)
        ),
        waiting=sum(handler_backlog.waiting for handler_backlog in backlogs),
        due_later=sum(due_later.get(handler_id, 0) for handler_id in changed),
        running=sum(handler_backlog.running for handler_backlog in backlogs),
        dry_run=dry_run,
    )


def _audit_record(action: str, changed: Collection[str], note: str) -> AuditRecord:
    target = next(iter(changed)) if len(changed) == 1 else ""
    return AuditRecord(action, target, {"handlers": sorted(changed), **({"note": note} if note else {})})
