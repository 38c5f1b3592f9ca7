"""Events and deliveries as JSON has them, with the same names in every command; it must not know who prints them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowhooks.clock import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from flowhooks.delivery import Attempt
    from flowhooks.ledger.reading import Standing, Stored


def event_to_json(stored: Stored) -> dict[str, Any]:
    """An event without its body, as listings have it."""
    event = stored.event
    return {
        "id": event.id,
        "received_at": _to_text(event.received_at),
        "source": event.source,
        "kind": event.kind,
        "flow_instance_id": event.flow_instance_id,
        "business_key": event.business_key,
        "callback_class": event.callback_class,
        "process_definition_id": event.process_definition_id,
        "process_definition_key": event.process_definition_key,
        "process_definition_version": event.process_definition_version,
        "state": stored.state,
        "route": stored.route,
        "repeats": stored.repeats,
        "deliveries": [standing_to_json(one) for one in stored.standings],
    }


def _to_text(received_at: datetime) -> str:
    return received_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def standing_to_json(standing: Standing) -> dict[str, Any]:
    """How a delivery stands."""
    return {
        "id": standing.delivery_id,
        "handler": standing.handler,
        "state": standing.state,
        "attempts": standing.attempt,
        "due_at": to_text(standing.due_at),
        "outcome": standing.outcome,
        "error": standing.error,
        "finished_at": to_text(standing.finished_at),
        "note": standing.note,
        "ordered": standing.ordered,
        "behind": standing.behind,
    }


def attempts_to_json(attempts: Iterable[Attempt]) -> list[dict[str, Any]]:
    """Every attempt of a delivery, with what it returned as JSON rather than as text of it."""
    return [
        {
            "number": one.number,
            "started_at": to_text(one.started_at),
            "finished_at": to_text(one.finished_at),
            "seconds": None if one.finished_at is None else (one.finished_at - one.started_at) / 1_000_000,
            "outcome": one.outcome,
            "error": one.error,
            "traceback": one.traceback,
            "result": None if one.result is None else json.loads(one.result),
            "process": one.process,
        }
        for one in attempts
    ]
