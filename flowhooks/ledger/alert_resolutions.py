"""Close alerts, and read the closed ones of which plugins still have to be notified."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import select, update

from flowhooks.ledger.alert_queries import parse_alert
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import HAS_RESOLUTION_DUE, alerts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.transaction import WriteTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DueResolution:
    """A closed alert of which plugins have to be notified.

    Attributes:
        alert: the alert, as it was when it was closed.
        closed_at: when it was closed, in microseconds since 1970.
        plugins: the plugins that have not accepted the notification.
    """

    alert: OpenAlert
    closed_at: int
    plugins: tuple[str, ...]


def close_alerts(transaction: WriteTransaction, ids: Mapping[str, Sequence[str]], now: int) -> None:
    """Close alerts whose causes are gone.

    Args:
        transaction: any transaction.
        ids: for the id of each alert, the plugins that have to be notified that it is closed.
        now: microseconds since 1970.
    """
    for alert_id, plugins in ids.items():
        transaction.connection.execute(
            update(alerts)
            .where(alerts.c.id == alert_id, alerts.c.closed_at.is_(None))
            .values(closed_at=now, resolution_due=json.dumps(plugins), notification_errors="{}")
        )


class FailedNotifications(NamedTuple):
    """Notifications of alerts that a plugin did not accept, and will get again.

    Attributes:
        plugin: the plugin.
        alerts: number of alerts.
        error: the error for the newest of these alerts, on one line.
    """

    plugin: str
    alerts: int
    error: str


def failed_notifications(connection: Connection, still_open: Sequence[OpenAlert]) -> list[FailedNotifications]:
    """Return the plugins that did not accept notifications, given the open alerts, oldest first."""
    found: dict[str, FailedNotifications] = {}
    for alert in (*(due.alert for due in due_resolutions(connection)), *still_open):
        for plugin, error in alert.notification_errors.items():
            before = found[plugin].alerts if plugin in found else 0
            found[plugin] = FailedNotifications(plugin, before + 1, str(error))
    return list(found.values())


def due_resolutions(connection: Connection) -> list[DueResolution]:
    """Return the closed alerts of which plugins have to be notified, oldest first."""
    due = []
    for stored in connection.execute(select(alerts).where(HAS_RESOLUTION_DUE).order_by(alerts.c.id)):
        row, _ = repair(stored, [alerts.c.closed_at, alerts.c.resolution_due])
        if row.closed_at is not None:
            due.append(
                DueResolution(
                    alert=parse_alert(stored), closed_at=row.closed_at, plugins=tuple(json.loads(row.resolution_due))
                )
            )
    return due


def store_resolution(transaction: WriteTransaction, resolution: DueResolution) -> None:
    """Store which plugins still have to be notified of a closed alert, and why they did not accept it."""
    transaction.connection.execute(
        update(alerts)
        .where(alerts.c.id == resolution.alert.id, alerts.c.closed_at.is_not(None))
        .values(
            resolution_due=json.dumps(resolution.plugins),
            notification_errors=json.dumps(resolution.alert.notification_errors, ensure_ascii=False),
        )
    )


def add_resolution(transaction: WriteTransaction, alert_id: str, plugin: str) -> None:
    """Have a plugin notified of a closed alert, because `alert_raised` returned or raised only after it was closed."""
    is_alert = (alerts.c.id == alert_id) & alerts.c.closed_at.is_not(None)
    stored = transaction.connection.execute(select(alerts.c.resolution_due).where(is_alert)).scalar_one_or_none()
    if stored is not None:
        plugins = dict.fromkeys((*json.loads(stored), plugin))
        transaction.connection.execute(update(alerts).where(is_alert).values(resolution_due=json.dumps([*plugins])))
