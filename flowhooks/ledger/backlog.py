"""What is stored for each handler and not done with, counted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from flowhooks.ledger.tables import IS_BLOCKED, IS_RUNNING_OR_FAILED, IS_SCHEDULED, deliveries
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerBacklog:
    """How many deliveries of one handler are in each state in which something may still become of them.

    Attributes:
        waiting: they run when their time has come, or their handler.
        running: they run just now.
        unknown: they were cut off while they ran.
        dead: they failed for good.
        parked: parked events that this handler wants by now, and has no deliveries of yet.
    """

    waiting: int = 0
    running: int = 0
    unknown: int = 0
    dead: int = 0
    parked: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all."""
        return self == HandlerBacklog()


def backlog(connection: Connection, *, limit: int | None = None) -> Mapping[str, HandlerBacklog]:
    """What is stored for each handler that something is stored for; what succeeded or was closed is not read.

    It goes along the four indexes of what is open, one after the other, so deliveries at rest cost nothing.

    Args:
        connection: any connection.
        limit: rows of each index that are counted at the most; None: all of them.
    """
    waiting = deliveries.c.state == State.WAITING.value
    rows = select(deliveries.c.handler, deliveries.c.state)
    counts: dict[str, HandlerBacklog] = defaultdict(HandlerBacklog)
    for query in (
        rows.where(IS_RUNNING_OR_FAILED),
        rows.where(waiting, IS_SCHEDULED),
        rows.where(waiting, IS_BLOCKED),
        rows.where(waiting, deliveries.c.due_at.is_(None)),
    ):
        limited = query.limit(limit).subquery("each")
        by_handler = select(limited.c.handler, limited.c.state, func.count()).group_by(
            limited.c.handler, limited.c.state
        )
        for handler, state, count in connection.execute(by_handler):
            before = counts[handler]
            counts[handler] = replace(before, **{state: getattr(before, state) + count})
    return dict(counts)
