"""Events made by a test, for unit tests that call a handler's function directly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowhooks import schema
from flowhooks.clock import Clock, to_datetime
from flowhooks.model.event import Event, from_body
from flowhooks.model.trace_context import parse_traceparent
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
    traceparent: str | None = None,
    **data: Any,
) -> Event:
    """Make an event in the same way as flowhooks makes it from the body of a callback.

    Args:
        callback_class: `callBackProcessClass`.
        process_key: `processDefinitionKey`.
        business_key: `businessKey`.
        conclusion: `conclusion`, such as `"approved"`.
        flow_instance_id: the engine's process instance id.
        kind: the kind of callback.
        source: the engine's name.
        process_definition_id: `processDefinitionId`.
        version: `processDefinitionVersion`.
        id: the event's id. Default: a new id for each event.
        received_at: an aware datetime. Default: 2026-01-01T00:00:00Z.
        traceparent: the header `traceparent` of W3C Trace Context.
        **data: further members of the body. The members above may be given here by their names in the body.

    Returns:
        The event. `event.data` has the whole body. Members that are None are left out, as nulls are.

    Raises:
        TypeError: a member is given twice, or cannot be encoded as JSON.
        ValueError: `traceparent` is invalid. A server ignores such a header.
    """
    if traceparent is not None and parse_traceparent(traceparent) is None:
        raise ValueError(f"traceparent {traceparent!r} is invalid")
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
        members | data,
        flow_instance_id=flow_instance_id,
        kind=kind,
        source=source,
        id=id,
        received_at=received_at,
        traceparent=parse_traceparent(traceparent),
    )


def event_of(
    body: Mapping[str, Any],
    *,
    flow_instance_id: str,
    kind: str = "complete",
    source: str = "default",
    id: str | None = None,  # noqa: A002 (as above)
    received_at: datetime | None = None,
    traceparent: str | None = None,
) -> Event:
    """Make an event from the body of a callback, parsed as flowhooks parses it."""
    return from_body(
        schema.parse_callback(json.dumps(dict(body)).encode()),
        id=id or Clock().new_id(),
        source=source,
        kind=kind,
        flow_instance_id=flow_instance_id,
        received_at=received_at or to_datetime(STARTS_AT),
        traceparent=traceparent,
    )
