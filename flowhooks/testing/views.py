"""The values that a test receives from flowhooks: a response, a delivery."""

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
    """The response to a callback.

    Attributes:
        status: the HTTP status.
        json: the body, parsed as JSON; None if it is not JSON.
        event_id: the id of the stored event (the header `Flowhooks-Event`); `""` if there is none.
        message: the message for people (`message` in the body); `""` if there is none.
        headers: the headers; their names are case-insensitive.
        body: the body as sent.
    """

    status: int
    json: Any
    event_id: str
    message: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """A delivery as it was when it was read.

    Attributes:
        id: the delivery's id, which the handler sees as `delivery.id`.
        event_id: the id of its event.
        handler: the id of its handler, `plugin:name`.
        state: its state; can be compared with a string, such as `"succeeded"`.
        attempt: the number of attempts that have started.
        outcome: the outcome of the last attempt; None if there was none, or while it runs.
        error: the last attempt's error, on one line; `""` if there is none.
        traceback: the last attempt's traceback; `""` if there is none.
        result: the return value of the handler in the last attempt, decoded from JSON; None if there is none.
        result_dropped: why that return value could not be stored, so that `result` is None; `""` if it could.
        log: the last log records of the handler in the last attempt, one line each, the oldest first; `""` if there are
            none.
        due_at: the time, in UTC, from which the delivery may run again or be probed; None if it may not.
        note: the comment of an operator or a probe; `""` if there is none.
        blocked_by: the id of the event whose delivery to the same ordered handler must end first; None if there is
            none.
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
    result_dropped: str
    log: str
    due_at: datetime | None
    note: str
    blocked_by: str | None


def delivery_view(event_id: str, status: DeliveryStatus, attempts: Sequence[Attempt]) -> DeliveryView:
    """Return the view of a delivery from its status and its attempts in the ledger."""
    last = attempts[-1] if attempts else None
    return DeliveryView(
        id=status.delivery_id,
        event_id=event_id,
        handler=status.handler,
        state=status.state,
        attempt=status.attempt,
        outcome=status.outcome,
        error=status.error,
        traceback=last.traceback if last else "",
        result=json.loads(last.result) if last and last.result is not None else None,
        result_dropped=last.result_dropped if last else "",
        log=last.log if last else "",
        due_at=None if status.due_at is None else to_datetime(status.due_at),
        note=status.comment,
        blocked_by=status.blocked_by,
    )


def event_id_of(event: str | PostResult) -> str:
    """Return the id of an event that is given by its id or by the response to its callback.

    Raises:
        AssertionError: the callback was not stored.
    """
    __tracebackhide__ = True
    if not isinstance(event, PostResult):
        return event
    if not event.event_id:
        raise AssertionError(f"no event was stored for this callback: it was answered {event.status}: {event.message}")
    return event.event_id
