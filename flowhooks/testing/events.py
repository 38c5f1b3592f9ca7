"""Events for tests: made by a test, or read from a file of stored events."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks import messages, schema
from flowhooks.clock import Clock, to_datetime
from flowhooks.errors import CallbackRejected
from flowhooks.model.event import Event, from_body
from flowhooks.model.trace_context import parse_traceparent
from flowhooks.schema.callback_body import find_violations
from flowhooks.schema.flow_instance_id import find_violations as find_id_violations
from flowhooks.testing.clock import STARTS_AT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_CUT_MARK: Final = "next"
"""The only member of the last line of an export from which events were left out."""


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
        ValueError: `traceparent` is invalid, which a server ignores, `received_at` has no time zone, or no server
            accepts the callback: `flow_instance_id` or a member above has a wrong type or is out of range.
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
    """Make an event from the body of a callback, parsed as flowhooks parses it.

    Raises:
        ValueError: flowhooks would not accept the callback, or the time has no time zone.
    """
    members = schema.parse_callback(json.dumps(dict(body)).encode())
    if problems := list(_find_problems(members, flow_instance_id)):
        raise ValueError("; ".join(problems))
    if received_at is not None and received_at.utcoffset() is None:
        raise ValueError("received_at must have a time zone, such as datetime(2026, 1, 1, tzinfo=UTC)")
    return from_body(
        members,
        id=id or Clock().new_id(),
        source=source,
        kind=kind,
        flow_instance_id=flow_instance_id,
        received_at=received_at or to_datetime(STARTS_AT),
        traceparent=traceparent,
    )


def _find_problems(members: Mapping[str, Any], flow_instance_id: object) -> Iterator[str]:
    """Yield what no schema file can allow. The schemas are not checked, because plugins may change them."""
    if not isinstance(flow_instance_id, str) or not flow_instance_id:
        yield f"flow_instance_id must be a string that is not empty, not {flow_instance_id!r}"
    else:
        for key, params in find_id_violations(flow_instance_id):
            yield f"flow_instance_id {messages.text(key, 'en', **params)}"
    for violation in find_violations(members):
        yield f"{violation.path[0]} {messages.text(violation.key, 'en', **dict(violation.params))}"


def stored_events(file: str | os.PathLike[str]) -> Iterator[Event]:
    """Read the events of a file that `flowhooks events export --format jsonl --masked` has written, or with `--bodies`.

    Args:
        file: the path of the file.

    Yields:
        The events, in the order of the file: the newest first. `event.conclusion` is the one that handlers have seen,
        as the settings of the source map it. The other attributes are made of the body.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not an event with its body. The message names the file and the line.
    """
    with Path(file).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                event = _stored_event(line)
            except (CallbackRejected, KeyError, TypeError, ValueError) as error:
                why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{os.fspath(file)}, line {number}: {why}") from error
            if event is not None:
                yield event


def _stored_event(line: str) -> Event | None:
    document = json.loads(line) if line.strip() else None
    if document is None:
        return None
    if not isinstance(document, dict):
        raise TypeError("it is not a JSON object")
    if document.keys() == {_CUT_MARK}:
        return None
    if not isinstance(document.get("body"), dict):
        raise TypeError("the event has no body: export it with --masked or --bodies")
    event = event_of(
        document["body"],
        flow_instance_id=document["flow_instance_id"],
        kind=document["kind"],
        source=document["source"],
        id=document["id"],
        received_at=datetime.fromisoformat(document["received_at"]),
    )
    return replace(
        event,
        conclusion=document.get("conclusion", event.conclusion),
        origin=document.get("origin", event.origin),
        corrects=document.get("corrects"),
    )
