"""Record and log intervals of an engine's history that could not be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from flowhooks.clock import to_text
from flowhooks.ledger import engine_book, history_gaps
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from flowhooks.background.reconciliation.context import Lease, SourceContext

log = structlog.get_logger(__name__)


def open_gap(context: SourceContext, lease: Lease, interval: tuple[int, int], *, reason: str, detail: str) -> None:
    """Record a gap, or extend a known one, and log a new one.

    Args:
        context: the source.
        lease: the lease of the round.
        interval: its first and last end time, by the engine's clock, in microseconds since 1970.
        reason: why it could not be read.
        detail: the same for operators.
    """
    now = context.clock.now()
    is_new = lease.write(
        lambda transaction: history_gaps.record(
            transaction,
            context.name,
            interval,
            reason=reason,
            detail=escape_control(detail, engine_book.MAX_DETAIL_CHARS),
            now=now,
        )
    )
    if is_new:
        log.error(
            "history_gap",
            source=context.name,
            since=to_text(interval[0]),
            until=to_text(interval[1]),
            reason=reason,
            why=detail,
            next=f"`flowhooks engines list` shows the gaps of {context.name}",
        )


def report_closed(source: str, gaps: int) -> None:
    """Log the number of gaps that were read after all, if there are any."""
    if gaps:
        log.info("history_gap_closed", source=source, gaps=gaps)
