"""Acknowledge: an operator says that they see to what alerts were raised for; it must not know who is told of one.

It silences nobody: plugins that have not taken an alert are still told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.ledger import alert_queries
from flowhooks.operations.context import Deed
from flowhooks.operations.routing import one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.operations.context import Desk


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """What was acknowledged, or would be.

    Attributes:
        alerts: the ids of those that somebody sees to from now on.
        passed_over: ids of which there is no open alert, or which were acknowledged before.
        dry_run: whether nothing was changed.
    """

    alerts: tuple[str, ...]
    passed_over: tuple[str, ...]
    dry_run: bool


def acknowledge(desk: Desk, alerts: Sequence[str], *, note: str = "", dry_run: bool = False) -> Acknowledged:
    """Say that somebody sees to open alerts. They stay open until their causes have gone.

    Args:
        desk: what operations work with; `by` is whoever sees to them.
        alerts: their ids.
        note: what is to be done, for those who look later.
        dry_run: only say which would be acknowledged.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    asked = tuple(dict.fromkeys(alerts))
    if dry_run:
        with desk.ledger.connection() as connection:
            found = alert_queries.open_alerts(connection)
        done = {one.id: one.about for one in found if one.id in asked and one.acknowledged_at is None}
    else:
        who, now = desk.by.name if desk.by else "", desk.clock.now()
        done = desk.change(
            lambda transaction: alert_queries.acknowledge(transaction, asked, who, now),
            lambda moved: Deed(
                "acknowledge",
                one_of(moved),
                {"alerts": [one for one in asked if one in moved], "about": list(moved.values()), "note": note},
            ),
        )
    return Acknowledged(
        alerts=tuple(one for one in asked if one in done),
        passed_over=tuple(one for one in asked if one not in done),
        dry_run=dry_run,
    )
