"""Rows about engines, as reconciliation writes them, for tests of pages and commands that show them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from flowhooks.clock import SECOND
from flowhooks.ledger.tables import (
    engine_instances,
    engine_positions,
    events,
    history_gaps,
    late_callbacks,
)

if TYPE_CHECKING:
    from sqlalchemy import Table

    from support.app_harness import RunningApp


def position(flow: RunningApp, source: str, **values: Any) -> None:
    """Store the position of an engine, and replace an earlier position."""
    now = flow.clock.now()
    row = {
        "source": source,
        "since": now - 86_400 * SECOND,
        "position": now - 60 * SECOND,
        "read_until": now - 30 * SECOND,
        "swept_at": now,
        "round_at": now,
        "succeeded_at": now - 60 * SECOND,
        "product": "Flowable 8.0.0",
        **values,
    }
    _write(flow, engine_positions, row)


def definitions(*entries: tuple[str, int] | tuple[str, int, str]) -> str:
    """The column `definitions` for keys, versions and names."""
    return json.dumps(
        [
            {"key": entry[0], "version": entry[1], "name": entry[2] if len(entry) > 2 else "", "tenant_id": None}
            for entry in entries
        ]
    )


def instance(flow: RunningApp, source: str, instance_id: str, **values: Any) -> None:
    """Store the row of an instance."""
    now = flow.clock.now()
    row = {
        "source": source,
        "flow_instance_id": instance_id,
        "ended_at": now - 300 * SECOND,
        "started_at": now - 3600 * SECOND,
        "end_state": "completed",
        "process_definition_key": "leave",
        "process_definition_version": 3,
        "conclusion": "approved",
        "disposition": "has_event",
        "rule": "",
        "first_seen_at": now - 200 * SECOND,
        "changed_at": now,
        **values,
    }
    if row["disposition"] == "in_grace":
        row.setdefault("body", "{}")
    _write(flow, engine_instances, row)


def taken_in(flow: RunningApp, source: str, instance_id: str, *, reused: bool = False, **body: Any) -> str:
    """Store an event taken in from the history; return its id. `reused`: an earlier instance had the same id."""
    event_id = str(flow.take(instance_id, source=source, wait=0, **body).event_id)
    mark_taken_in(flow, event_id, reused=reused)
    return event_id


def mark_taken_in(flow: RunningApp, event_id: str, *, reused: bool = False) -> None:
    """Mark an event as taken in from the history."""
    values = {"origin": "reconciled", **({"instance_started_at": flow.clock.now()} if reused else {})}
    flow.app.ledger.write(
        lambda transaction: transaction.connection.execute(
            events.update().where(events.c.id == event_id).values(values)
        )
    )
    flow.changed = True


def late_callback(flow: RunningApp, event_id: str, body: str = '{"conclusion": "approved"}', repeats: int = 0) -> None:
    """Store a callback that arrived after its event had been taken in."""
    digest = hashlib.sha256(body.encode()).hexdigest()
    row = {
        "event_id": event_id,
        "digest": digest,
        "body": body,
        "received_at": flow.clock.now(),
        "repeats": repeats,
        "body_sha256": digest,
        "row_sha256": digest,
    }
    _write(flow, late_callbacks, row)


def gap(
    flow: RunningApp, source: str, since: int, until: int, reason: str, *, detail: str = "", closed: bool = False
) -> None:
    """Store a gap in the history of an engine."""
    now = flow.clock.now()
    row = {
        "source": source,
        "since": since,
        "until": until,
        "reason": reason,
        "detail": detail,
        "found_at": now,
        "closed_at": now if closed else None,
    }
    _write(flow, history_gaps, row)


def _write(flow: RunningApp, table: Table, row: dict[str, Any]) -> None:
    key = [column == row[column.name] for column in table.primary_key]

    def replace(transaction: Any) -> None:
        transaction.connection.execute(table.delete().where(*key))
        transaction.connection.execute(table.insert(), [row])

    flow.app.ledger.write(replace)
    flow.changed = True
