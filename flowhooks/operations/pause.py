"""Pause and resume: a handler's deliveries are stored and wait, and later run after all.

What runs already goes on to its end. No delivery is changed, so it costs the same with a million that wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from flowhooks.ledger import pauses as pausing
from flowhooks.ledger.stats import HandlerBacklog, backlog
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.operations.context import OperationContext

_WILDCARDS: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseResult:
    """What was paused or resumed, or would be.

    Attributes:
        handlers: the ids of those that were changed.
        skipped: what was given and changed nothing: ids that are not registered, or of handlers that are
            retired, or were as they should be already; and patterns that mean no others.
        waiting: how many deliveries of `handlers` waited.
        running: how many of theirs ran, and go on to their end.
        dry_run: whether nothing was changed.
    """

    handlers: tuple[str, ...]
    skipped: tuple[str, ...]
    waiting: int
    running: int
    dry_run: bool


def pause(context: OperationContext, handlers: Sequence[str], *, note: str = "", dry_run: bool = False) -> PauseResult:
    """Pause handlers: no process starts their deliveries until they are resumed, nor a trial of an open circuit.

    Args:
        context: what operations work with.
        handlers: their ids, `plugin:name`, or patterns of them, such as `contracts:*`.
        note: why, for those who look later.
        dry_run: only say which would be paused.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    selected = _select(context, handlers, paused=False)
    return _apply(context, handlers, selected, "pause", note=note, dry_run=dry_run)


def resume(context: OperationContext, handlers: Sequence[str], *, dry_run: bool = False) -> PauseResult:
    """Run deliveries of paused handlers again, those first that have waited longest. Open circuits are closed.

    Args:
        context: what operations work with.
        handlers: their ids, `plugin:name`, or patterns of them, such as `contracts:*`.
        dry_run: only say which would be resumed.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    selected = _select(context, handlers, paused=True)
    return _apply(context, handlers, selected, "resume", dry_run=dry_run)


def _select(context: OperationContext, patterns: Sequence[str], *, paused: bool) -> frozenset[str]:
    candidates = [
        handler.id
        for handler in context.ledger.registered_handlers()
        if (handler.paused_at is not None if paused else handler.paused_at is None or handler.circuit is not None)
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
    with context.ledger.connection() as connection:
        stored = backlog(connection)  # before: what is resumed may be done with by the time that it is counted
    changed = selected
    if selected and not dry_run:
        change = pausing.pause if action == "pause" else pausing.resume
        pauses, now = context.ledger.pauses, context.clock.now()
        changed = context.change(
            lambda transaction: change(transaction, selected, now, pauses),
            lambda them: _audit_record(action, them, note),
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
        running=sum(handler_backlog.running for handler_backlog in backlogs),
        dry_run=dry_run,
    )


def _audit_record(action: str, changed: Collection[str], note: str) -> AuditRecord:
    target = next(iter(changed)) if len(changed) == 1 else ""
    return AuditRecord(action, target, {"handlers": sorted(changed), **({"note": note} if note else {})})
