"""Copies of a stored event, for tests with many events: storing rows is a thousand times faster than callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.ledger.tables import attempts, deliveries, events

if TYPE_CHECKING:
    from sqlalchemy import Table

    from support.app_harness import RunningApp

_NUMBERS: Final = "WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < ?)"
_CHANGED: Final = {
    **dict.fromkeys(
        ("id", "event_id", "delivery_id"), "substr({0}, 1, 24) || 'f' || substr({0}, -5) || printf('%06x', n)"
    ),
    "flow_instance_id": "{0} || '-' || n",
    "identity_sha256": "substr({0}, 1, 58) || printf('%06x', n)",
    "row_sha256": "NULL",
}
"""Values of a copy by column. Its ids begin with the time of the original, and no test clock issues them."""


def copy(flow: RunningApp, event_id: str, count: int) -> None:
    """Store `count` copies of an event, its deliveries and their attempts; on SQLite only."""
    flow.sql(_insert(events, "id"), count, event_id)
    flow.sql(_insert(deliveries, "event_id"), count, event_id)
    of_event = "SELECT id FROM deliveries WHERE event_id = ?"
    for (delivery_id,) in flow.sql(of_event, event_id):
        flow.sql(_insert(attempts, "delivery_id"), count, delivery_id)
    flow.sql(
        "UPDATE error_groups SET count = count + ? WHERE fingerprint IN"
        f" (SELECT error_group FROM attempts WHERE delivery_id IN ({of_event}))",
        count,
        event_id,
    )
    process = "SELECT process FROM counters WHERE name = 'accepted' LIMIT 1"
    flow.sql(f"UPDATE counters SET value = value + ? WHERE name = 'accepted' AND process = ({process})", count)


def _insert(table: Table, key: str) -> str:
    names = [column.name for column in table.columns]
    values = [_CHANGED.get(name, "{0}").format(f'"{name}"') for name in names]
    columns = ", ".join(f'"{name}"' for name in names)
    return (
        f"{_NUMBERS} INSERT INTO {table.name} ({columns}) SELECT {', '.join(values)} FROM {table.name}, copies"
        f" WHERE {key} = ?"
    )
