"""The event: a validated, immutable callback, or a finished instance that reconciliation took in."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.model.conditions import array_index

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
"""Attribute of `Event` for each of six members of a callback's body, in every kind of callback."""
ALWAYS_COMPARED: Final = ("businessKey", "conclusion", "processDefinitionVersion")
"""Members that are always compared between two callbacks of one identity, even if `identity.ignore_pointers` names
them."""

_DEFINITION_ID: Final = re.compile(r"([^:]+):([0-9]+):[^:]+")
"""`key:version:uuid`, the format of processDefinitionId in Flowable, Activiti and Camunda."""
_MAX_VERSION: Final = 2**31 - 1
"""`processDefinitionVersion` is an int32."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class EventState(StrEnum):
    """The result of routing an event. Deliveries to `every` handlers do not affect it."""

    ROUTED = "routed"
    """At least one handler matches the event's class or key."""
    PARKED = "parked"
    """No handler matches yet: the event is stored until a handler for it is installed or an operator decides."""
    DISMISSED = "dismissed"
    """The event needs no handler."""


class Origin(StrEnum):
    """How flowhooks learned of an event."""

    CALLBACK = "callback"
    """The engine called."""
    RECONCILED = "reconciled"
    """Reconciliation took the instance in from the engine's history."""
    INGRESS = "ingress"
    """The engine called the fixed URL of its source."""
    CORRECTION = "correction"
    """An operator accepted a conflicting body of another event."""


CALLBACK_ORIGINS: Final = (Origin.CALLBACK.value, Origin.INGRESS.value)
"""Origins of the events that engines sent."""


class ParkedBy(StrEnum):
    """Why an event is parked."""

    HANDLER = "handler"
    """No handler listens to its class or key, or none of those that do accepts its version or source."""
    CONDITION = "condition"
    """A handler's condition is undecided: the event lacks the member, or the member has another type."""
    NAME = "name"
    """The event has neither a class nor a key, so no handler can ever match it."""
    END_STATE = "end_state"
    """Reconciliation took it in, and the engine's history does not tell how the instance ended."""
    REUSED_ID = "reused_id"
    """Reconciliation took it in, and an event from the day before its start has the id of its instance."""


UNDECIDED: Final = frozenset({ParkedBy.END_STATE, ParkedBy.REUSED_ID})
"""Reasons of parked events that only an operator or a late callback routes, and no handler that is loaded later."""


class DismissedBy(StrEnum):
    """Why an event is dismissed."""

    CONDITION = "condition"
    """Handlers listen to its class or key, and the conditions of all of them are false."""
    KIND = "kind"
    """Handlers listen to its class or key, but all of them to other kinds of callback."""
    SETTING = "setting"
    """`routing.ignore_process_keys` names its key."""
    OPERATOR = "operator"
    """An operator dismissed it."""


class NoMatch(NamedTuple):
    """Why the handlers that share an event's class or key do not match it.

    Attributes:
        reasons: the reason for each of the first 20 handlers, by handler id.
        total: total number of such handlers.
    """

    reasons: Mapping[str, str]
    total: int

    def to_json(self) -> str:
        """Encode for storage in the ledger."""
        return json.dumps({"reasons": dict(self.reasons), "total": self.total}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> NoMatch | None:
        """Decode the result of `to_json`, also of a newer version with more members; None if it is damaged."""
        try:
            stored = json.loads(text)
            reasons, total = stored["reasons"], stored["total"]
        except (LookupError, TypeError, ValueError, RecursionError):
            return None
        is_legal = isinstance(reasons, dict) and all(isinstance(why, str) for why in reasons.values())
        return cls(reasons, total) if is_legal and type(total) is int else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One completed process, as its engine reported it in a callback.

    Attributes:
        id: the event's id in flowhooks: a UUID version 7 (RFC 9562), so ids sort by creation time.
        source: the engine that sent the callback, named by the credential it used; `"default"` without a credential.
        kind: the kind of callback: the last part of its path. flowhooks ships with `"complete"`, `"cancel"`,
            `"error"` and `"terminate"`; plugins and the setting `schemas_dir` add others.
        flow_instance_id: the engine's process instance id.
        business_key: `businessKey`, or None.
        callback_class: `callBackProcessClass`, or None. Used only to look up handlers; never imported.
        process_definition_id: `processDefinitionId`, or None.
        process_definition_key: `processDefinitionKey`; if absent, the key of a processDefinitionId in the format
            `key:version:uuid`; otherwise None.
        process_definition_version: `processDefinitionVersion`; if absent, the version of a processDefinitionId in the
            format `key:version:uuid`; otherwise None.
        conclusion: how the process ended in business terms, such as `"approved"` or `"rejected"`: the callback's
            `conclusion`, mapped by the settings' table `[sources.NAME.conclusion]`; None if the engine sends none.
        data: the whole body without members that are null. Each delivery gets its own copy.
        received_at: when flowhooks received the callback or took the instance in, or when an operator accepted the
            correction, in UTC.
        origin: `"callback"`, `"ingress"` for a request to the fixed URL of a source, `"reconciled"` if reconciliation
            took the instance in from the engine's history, or `"correction"` if an operator accepted a conflicting body
            of another event.
        corrects: the id of that other event, whose handlers may have run before; None if the event is no correction.
        traceparent: the `traceparent` of W3C Trace Context that the callback had; None: none, or an invalid one.
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
    origin: str = Origin.CALLBACK.value
    corrects: str | None = None
    traceparent: str | None = None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """The values that identify an event: source, kind, process instance and class.

        Two callbacks with the same identity are the same event. The conclusion is not part of the identity: the same
        instance with another conclusion is a conflict. A correction is stored beside the event with its identity.
        """
        return self.source, self.kind, self.flow_instance_id, self.callback_class or ""


def has_only_digits(process_key: str | None) -> bool:
    """Return whether a `processDefinitionKey` has only digits, as Camunda 8's has, which is not the process's id."""
    return process_key is not None and process_key.isascii() and process_key.isdecimal()


def from_body(
    body: Mapping[str, Any],
    *,
    id: str,  # noqa: A002 (the event's own word)
    source: str,
    kind: str,
    flow_instance_id: str,
    received_at: datetime,
    conclusions: Mapping[str, str] = MappingProxyType({}),
    origin: str = Origin.CALLBACK.value,
    corrects: str | None = None,
    traceparent: str | None = None,
) -> Event:
    """Create an event from a validated body.

    Args:
        body: the JSON object without nulls.
        id: the event's id.
        source: the engine's name.
        kind: the kind of callback.
        flow_instance_id: from the path, already validated.
        received_at: an aware time in UTC.
        conclusions: map from the source's conclusions to those that handlers use; others stay unchanged.
        origin: how flowhooks learned of it.
        corrects: the id of the event that it corrects; None: none.
        traceparent: of W3C Trace Context, already validated; None: none.

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
        origin=origin,
        corrects=corrects,
        traceparent=traceparent,
    )


def _version_of(digits: str) -> int | None:
    return int(digits) if len(digits) <= len(str(_MAX_VERSION)) and int(digits) <= _MAX_VERSION else None


def digest(body: Mapping[str, Any], ignore: Sequence[str] = ()) -> str:
    """Return the SHA-256 of a body's JSON values in hexadecimal; the order of keys and white space do not matter.

    Args:
        body: the result of `schema.parse`, in which `1.0` is already `1`.
        ignore: JSON Pointers (RFC 6901) to values that are left out, such as a time stamp; `""` is the whole body.
            The members of `ALWAYS_COMPARED` are never left out.
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
        if isinstance(body, list) and (index := array_index(part)) is not None and index < len(body):
            body = body[index]
        elif isinstance(body, dict) and part in body:
            body = body[part]
        else:
            return
    if isinstance(body, dict):
        body.pop(last, None)
    elif isinstance(body, list) and (index := array_index(last)) is not None and index < len(body):
        body[index] = None  # not removed, so that the indexes in further pointers stay valid
