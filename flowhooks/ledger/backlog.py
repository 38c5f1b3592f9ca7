"""What is stored for each handler and not done with, counted; it must not know which handlers are loaded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from flowhooks.ledger.tables import HAS_TIME, HELD, NOT_AT_REST, deliveries
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
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
    def empty(self) -> bool:
        """Whether there is nothing at all."""
        return self == Backlog()


def backlog(connection: Connection, *, most: int | None = None) -> Mapping[str, Backlog]:
    """What is stored for each handler that something is stored for; what succeeded or was closed is not read.

    It goes along the four indexes of what is open, one after the other, so deliveries at rest cost nothing.

    Args:
        connection: any connection.
        most: rows of each index that are counted at the most; None: all of them.
    """
    waiting = deliveries.c.state == State.WAITING.value
    rows = select(deliveries.c.handler, deliveries.c.state)
    found: dict[str, Backlog] = defaultdict(Backlog)
    for narrowed in (
        rows.where(NOT_AT_REST),
        rows.where(waiting, HAS_TIME),
        rows.where(waiting, HELD),
        rows.where(waiting, deliveries.c.due_at.is_(None)),
    ):
        each = narrowed.limit(most).subquery("each")
        by_handler = select(each.c.handler, each.c.state, func.count()).group_by(each.c.handler, each.c.state)
        for handler, state, count in connection.execute(by_handler):
            before = found[handler]
            found[handler] = replace(before, **{state: getattr(before, state) + count})
    return dict(found)
