"""The event: a validated call-back, immutable."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

FIELDS: Final = {
    "businessKey": "business_key",
    "callBackProcessClass": "callback_class",
    "processDefinitionId": "process_definition_id",
    "processDefinitionKey": "process_definition_key",
    "processDefinitionVersion": "process_definition_version",
    "conclusion": "conclusion",
}
"""What each of the six names of a call-back's body is called on an event, in every kind of call-back."""
ALWAYS_COMPARED: Final = ("businessKey", "conclusion", "processDefinitionVersion")
"""Members that count when two callbacks of one identity are compared, whatever `identity.ignore_pointers` says."""

_DEFINITION_ID: Final = re.compile(r"([^:]+):([0-9]+):[^:]+")
"""`key:version:uuid`, as Flowable, Activiti and Camunda write a processDefinitionId."""
_MAX_VERSION: Final = 2**31 - 1
"""`processDefinitionVersion` is an int32."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class EventState(StrEnum):
    """Where routing has left an event. Deliveries to `every` handlers make no difference to it."""

    ROUTED = "routed"
    """At least one handler that shares its class or key takes it."""
    PARKED = "parked"
    """No handler takes it yet: it is kept for a handler that is still to be installed, or for an operator."""
    DISMISSED = "dismissed"
    """No handler is to take it."""


class ParkedBy(StrEnum):
    """Why an event is parked."""

    HANDLER = "handler"
    """No handler has its class or key, or none of those takes its version or source."""
    CONDITION = "condition"
    """A handler's condition cannot be decided: the event lacks the member, or it has another type."""
    NAME = "name"
    """The event has neither a class nor a key, so that no handler can ever be found for it."""


class DismissedBy(StrEnum):
    """Why an event is dismissed."""

    CONDITION = "condition"
    """Handlers have its class or key, and the conditions of each are false."""
    KIND = "kind"
    """Handlers have its class or key, and all of them listen to other kinds of callback."""
    SETTING = "setting"
    """`routing.ignore_process_keys` names its key."""
    OPERATOR = "operator"
    """An operator dismissed it."""


class NoMatch(NamedTuple):
    """Why handlers that share an event's class or key do not get it.

    Attributes:
        reasons: the first 20 handlers' ids, each with its reason.
        total: how many handlers there are.
    """

    reasons: Mapping[str, str]
    total: int

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return json.dumps({"reasons": dict(self.reasons), "total": self.total}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> NoMatch:
        """What `to_json` gave."""
        return cls(**json.loads(text))


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
        process_definition_version: `processDefinitionVersion`; where absent, taken from a
            `key:version:uuid` processDefinitionId; or None.
        conclusion: how the process ended in business terms, such as `"approved"` or `"rejected"`: `conclusion`, in
            the words of the source's table `[sources.NAME.conclusion]`; None if the engine sends none.
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
    conclusion: str | None = None
    data: Mapping[str, Any]
    received_at: datetime

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes two callbacks the same: source, kind, instance, class. Two classes are two events.

        The conclusion is not part of it: the same instance with another conclusion is a conflict.
        """
        return self.source, self.kind, self.flow_instance_id, self.callback_class or ""


def from_body(
    body: Mapping[str, Any],
    *,
    id: str,  # noqa: A002 (the event's own word)
    source: str,
    kind: str,
    flow_instance_id: str,
    received_at: datetime,
    conclusions: Mapping[str, str] = MappingProxyType({}),
) -> Event:
    """Make an event of a body that its schema has accepted.

    Args:
        body: the JSON object, nulls already left out.
        id: the event's id.
        source: the engine's name.
        kind: the kind of call-back.
        flow_instance_id: from the path, already checked.
        received_at: an aware time in UTC.
        conclusions: the source's words for conclusions, each with the word that handlers use; others stay as they are.

    Returns:
        The event. An empty `callBackProcessClass`, `processDefinitionKey` or `conclusion` counts as absent.
    """
    definition_id = body.get("processDefinitionId")
    key, version = body.get("processDefinitionKey") or None, body.get("processDefinitionVersion")
    if (key is None or version is None) and definition_id and (match := _DEFINITION_ID.fullmatch(definition_id)):
        key = key or match.group(1)
        version = _version_of(match.group(2)) if version is None else version
    conclusion = body.get("conclusion") or None
    return Event(
        id=id,
        source=source,
        kind=kind,
        flow_instance_id=flow_instance_id,
        business_key=body.get("businessKey"),
        callback_class=body.get("callBackProcessClass") or None,
        process_definition_id=definition_id,
        process_definition_key=key,
        process_definition_version=version,
        conclusion=None if conclusion is None else conclusions.get(conclusion, conclusion),
        data=body,
        received_at=received_at,
    )


def _version_of(digits: str) -> int | None:
    return int(digits) if len(digits) <= len(str(_MAX_VERSION)) and int(digits) <= _MAX_VERSION else None


def digest(body: Mapping[str, Any], ignore: Sequence[str] = ()) -> str:
    """The SHA-256 (hexadecimal) of a body as JSON values: order of keys and white space do not count.

    Args:
        body: what `schema.parse` returned, in which `1.0` is already `1`.
        ignore: JSON Pointers (RFC 6901) to values that do not count, such as a time stamp; `""` is the whole body.
            The members of `ALWAYS_COMPARED` count all the same.
    """
    if ignore:
        compared = copy.deepcopy(dict(body))
        for pointer in ignore:
            _remove(compared, pointer)
        body = compared | {name: body[name] for name in ALWAYS_COMPARED if name in body}
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
