"""Acknowledge: record that an operator takes care of open alerts.

An acknowledgement silences no plugin: plugins that have not received an alert are still notified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowhooks.ledger import alert_queries
from flowhooks.operations.context import AuditRecord
from flowhooks.operations.routing import single_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.operations.context import OperationContext


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeResult:
    """Result of an acknowledgement, or of its dry run.

    Attributes:
        alerts: ids of the alerts that were acknowledged.
        skipped: given ids without an open alert, or whose alert was already acknowledged.
        dry_run: whether nothing was changed.
    """

    alerts: tuple[str, ...]
    skipped: tuple[str, ...]
    dry_run: bool


def acknowledge(
    context: OperationContext, alerts: Sequence[str], *, note: str = "", dry_run: bool = False
) -> AcknowledgeResult:
    """Acknowledge open alerts. They stay open until their causes are gone.

    Args:
        context: what operations work with; `by` is the operator who takes care of the alerts.
        alerts: ids of the alerts.
        note: what will be done about them; stored in the audit log.
        dry_run: only report which alerts would be acknowledged.

    Raises:
        Unavailable: the ledger could not be written; nothing was changed.
    """
    alert_ids = tuple(dict.fromkeys(alerts))
    if dry_run:
        with context.reader.connection() as connection:
            open_alerts = alert_queries.open_alerts(connection)
        acknowledged = {
            alert.id: alert.about for alert in open_alerts if alert.id in alert_ids and alert.acknowledged_at is None
        }
    else:
        operator, now = context.by.name if context.by else "", context.clock.now()
        acknowledged = context.change(
            lambda transaction: alert_queries.acknowledge(transaction, alert_ids, operator, now),
            lambda moved: AuditRecord(
                "acknowledge",
                single_id(moved),
                {
                    "alerts": [alert_id for alert_id in alert_ids if alert_id in moved],
                    "about": list(moved.values()),
                    "note": note,
                },
            ),
        )
    return AcknowledgeResult(
        alerts=tuple(alert_id for alert_id in alert_ids if alert_id in acknowledged),
        skipped=tuple(alert_id for alert_id in alert_ids if alert_id not in acknowledged),
        dry_run=dry_run,
    )
