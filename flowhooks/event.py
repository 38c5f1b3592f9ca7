"""The event: a validated call-back, immutable; it must not know where it came from or where it goes."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

FIELDS: Final = {
    "businessKey": "business_key",
    "callBackProcessClass": "callback_class",
    "processDefinitionId": "process_definition_id",
    "processDefinitionKey": "process_definition_key",
    "processDefinitionVersion": "process_definition_version",
}
"""What each of the five names of a call-back's body is called on an event, in every kind of call-back."""

_DEFINITION_ID: Final = re.compile(r"([^:]+):\d+:[^:]+")
"""`key:version:uuid`, as Flowable, Activiti and Camunda write a processDefinitionId."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One completed flow, as its engine told it.

    Attributes:
        id: ours, a UUID version 7 (RFC 9562), so that ids sort by the time they were made.
        source: the engine that sent it, named by its credential; `"default"` without one.
        kind: the last part of the call-back's path; `"complete"` is what ships.
        flow_instance_id: the engine's process instance id.
        business_key: `businessKey`, or None.
        callback_class: `callBackProcessClass`, or None. A look-up string; never imported.
        process_definition_id: `processDefinitionId`, or None.
        process_definition_key: `processDefinitionKey`; where absent, taken from a
            `key:version:uuid` processDefinitionId; or None.
        process_definition_version: `processDefinitionVersion`, or None.
        data: the whole body without its nulls. Each delivery gets a copy of its own.
        received_at: when it was taken in, with UTC as its zone.
    """

    id: str
    source: str = "default"
    kind: str = "complete"
    flow_instance_id: str
    business_key: str | None = None
    callback_class: str | None = None
    process_definition_id: str | None = None
    process_definition_key: str | None = None
    process_definition_version: int | None = None
    data: Mapping[str, Any]
    received_at: datetime

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two call-backs the same: source, kind, instance, class. Two classes are two events."""
        return self.source, self.kind, self.flow_instance_id, self.callback_class or ""


def from_body(
    body: Mapping[str, Any],
    *,
    id: str,  # noqa: A002 (the event's own word)
    source: str,
    kind: str,
    flow_instance_id: str,
    received_at: datetime,
) -> Event:
    """Make an event of a body that its schema has accepted.

    Args:
        body: the JSON object, nulls already left out.
        id: the event's id.
        source: the engine's name.
        kind: the kind of call-back.
        flow_instance_id: from the path, already checked.
        received_at: an aware time in UTC.

    Returns:
        The event. An empty `callBackProcessClass` or `processDefinitionKey` counts as absent.
    """
    definition_id = body.get("processDefinitionId")
    key = body.get("processDefinitionKey") or None
    if key is None and definition_id and (match := _DEFINITION_ID.fullmatch(definition_id)):
        key = match.group(1)
    return Event(
        id=id,
        source=source,
        kind=kind,
        flow_instance_id=flow_instance_id,
        business_key=body.get("businessKey"),
        callback_class=body.get("callBackProcessClass") or None,
        process_definition_id=definition_id,
        process_definition_key=key,
        process_definition_version=body.get("processDefinitionVersion"),
        data=body,
        received_at=received_at,
    )


def digest(body: Mapping[str, Any], ignore: Sequence[str] = ()) -> str:
    """The SHA-256 (hexadecimal) of a body as JSON values: order of keys and white space do not count.

    Args:
        body: what `schema.parse` returned, in which `1.0` is already `1`.
        ignore: JSON Pointers (RFC 6901) to values that do not count, such as a time stamp; `""` is the whole body.
    """
    if ignore:
        body = copy.deepcopy(dict(body))
        for pointer in ignore:
            _remove(body, pointer)
    return hashlib.sha256(_CANONICAL.encode(body).encode()).hexdigest()


def _remove(body: Any, pointer: str) -> None:
    if not pointer:
        body.clear()
        return
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for part in parents:
        if isinstance(body, list) and part.isdecimal() and int(part) < len(body):
            body = body[int(part)]
        elif isinstance(body, dict) and part in body:
            body = body[part]
        else:
            return
    if isinstance(body, dict):
        body.pop(last, None)
    elif isinstance(body, list) and last.isdecimal() and int(last) < len(body):
        body[int(last)] = None  # not removed: further pointers count places in the list as it was
