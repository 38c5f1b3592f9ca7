"""What a test sees of flowhooks: an answer, a delivery."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowhooks.clock import to_datetime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.model.delivery import Attempt, OutcomeKind, State


@dataclass(frozen=True, slots=True, kw_only=True)
class PostResult:
    """What the engine is answered.

    Attributes:
        status: the HTTP status.
        json: the body, read as JSON; None if it is none.
        event_id: the stored event's id (the header `Flowhooks-Event`); `""` if there is none.
        message: the sentence for people (`message` of the body); `""` if there is none.
        headers: the headers, found by a name in any case.
    """

    status: int
    json: Any
    event_id: str
    message: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """How a delivery stood when it was looked at.

    Attributes:
        id: the delivery's id, which the handler sees as `delivery.id`.
        event_id: its event.
        handler: its handler's id, `plugin:name`.
        state: its state; compares with a string, such as `"succeeded"`.
        attempt: how many attempts have begun.
        outcome: how the last attempt ended; None if there was none, or while it runs.
        error: the last attempt's error, one line; `""` if there is none.
        traceback: the last attempt's traceback; `""` if there is none.
        result: what the handler returned in the last attempt, as JSON keeps it; None if nothing.
        due_at: from when it may run again or be probed, in UTC; None if it may not.
        note: what an operator or a probe said of it; `""` if nothing.
        blocked_by: the event whose delivery to the same ordered handler must end before it may run; None if none must.
    """

    id: str
    event_id: str
    handler: str
    state: State
    attempt: int
    outcome: OutcomeKind | None
    error: str
    traceback: str
    result: Any
    due_at: datetime | None
    note: str
    blocked_by: str | None


def delivery_view(event_id: str, standing: DeliveryStatus, attempts: Sequence[Attempt]) -> DeliveryView:
    """A delivery, of what the ledger says of it and of its attempts."""
    last = attempts[-1] if attempts else None
    return DeliveryView(
        id=standing.delivery_id,
        event_id=event_id,
        handler=standing.handler,
        state=standing.state,
        attempt=standing.attempt,
        outcome=standing.outcome,
        error=standing.error,
        traceback=last.traceback if last else "",
        result=json.loads(last.result) if last and last.result is not None else None,
        due_at=None if standing.due_at is None else to_datetime(standing.due_at),
        note=standing.comment,
        blocked_by=standing.blocked_by,
    )
