"""Events made by hand, for calling a handler's function in a unit test."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowhooks import schema
from flowhooks.clock import Clock, to_datetime
from flowhooks.model.event import Event, from_body
from flowhooks.testing.clock import STARTS_AT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


def make_event(
    *,
    callback_class: str | None = None,
    process_key: str | None = None,
    business_key: str | None = None,
    conclusion: str | None = None,
    flow_instance_id: str = "1",
    kind: str = "complete",
    source: str = "default",
    process_definition_id: str | None = None,
    version: int | None = None,
    id: str | None = None,  # noqa: A002 (the event's own word)
    received_at: datetime | None = None,
    **data: Any,
) -> Event:
    """Make an event as flowhooks makes it of a call-back's body.

    Args:
        callback_class: `callBackProcessClass`.
        process_key: `processDefinitionKey`.
        business_key: `businessKey`.
        conclusion: `conclusion`, such as `"approved"`.
        flow_instance_id: the engine's process instance id.
        kind: the kind of call-back.
        source: the engine's name.
        process_definition_id: `processDefinitionId`.
        version: `processDefinitionVersion`.
        id: the event's id; default a new one each time.
        received_at: an aware time; default 2026-01-01T00:00:00Z.
        **data: further members of the body, also those above by the names that the body has for them.

    Returns:
        The event. All of the body is in `event.data`; members that are None are left out, as nulls are.

    Raises:
        TypeError: a member is given twice, or is nothing that JSON can hold.
    """
    named = {
        "businessKey": business_key,
        "callBackProcessClass": callback_class,
        "processDefinitionId": process_definition_id,
        "processDefinitionKey": process_key,
        "processDefinitionVersion": version,
        "conclusion": conclusion,
    }
    members = {name: value for name, value in named.items() if value is not None}
    if twice := members.keys() & data.keys():
        raise TypeError(f"given twice: {', '.join(sorted(twice))}")
    return event_of(
        members | data, flow_instance_id=flow_instance_id, kind=kind, source=source, id=id, received_at=received_at
    )


def event_of(
    body: Mapping[str, Any],
    *,
    flow_instance_id: str,
    kind: str = "complete",
    source: str = "default",
    id: str | None = None,  # noqa: A002 (as above)
    received_at: datetime | None = None,
) -> Event:
    """Make an event of a call-back's body, which is read as flowhooks reads it."""
    return from_body(
        schema.parse(json.dumps(dict(body)).encode()),
        id=id or Clock().new_id(),
        source=source,
        kind=kind,
        flow_instance_id=flow_instance_id,
        received_at=received_at or to_datetime(STARTS_AT),
    )
