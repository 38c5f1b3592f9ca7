"""The fields by which log records name an event and a delivery.

They are the same in every record, so that a search for one id finds all records about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.text import truncate

if TYPE_CHECKING:
    from flowhooks.model.delivery import Delivery
    from flowhooks.model.event import Event

MAX_CHARS: Final = 200
"""Maximum number of characters of each field. The log escapes control characters."""


def event_log_fields(event: Event) -> dict[str, str]:
    """Return the fields that name an event; `business_key` only if it has one."""
    fields = {
        "event_id": event.id,
        "flow_instance_id": event.flow_instance_id,
        "business_key": event.business_key,
        "source": event.source,
    }
    return {name: truncate(value, MAX_CHARS) for name, value in fields.items() if value}


def delivery_log_fields(event: Event, delivery: Delivery) -> dict[str, str]:
    """Return the fields that name a delivery and its event."""
    return {"handler": delivery.handler, "delivery": delivery.id, **event_log_fields(event)}
