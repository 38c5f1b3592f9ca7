"""Turn an authentic event into a callback, or into a response by which nothing is stored."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from flowhooks import ReceivedCallback, ReceiverResponse

ACCEPTED: Final = b'{"code": 0}'
"""Body of the answer to an event. Feishu looks at the status only."""
ENDS: Final = {
    "APPROVED": ("complete", "approved"),
    "REJECTED": ("complete", "rejected"),
    "CANCELED": ("cancel", None),
    "DELETED": ("cancel", None),
    "REVERTED": ("reverted", None),
}
"""Kind of callback and conclusion of each status by which an instance ends, or by which its end is reverted."""
CONTINUES: Final = frozenset({"PENDING", "OVERTIME_CLOSE", "OVERTIME_RECOVER"})
"""Statuses of instances that can still be approved: one that was closed for being overdue can be recovered."""
EVENT_TYPE: Final = "approval_instance"
_NAME: Final = re.compile(r"[a-z0-9_.]{1,60}")


def interpret(message: dict[str, Any]) -> ReceivedCallback | ReceiverResponse:
    """Return the callback of an event, the answer to a handshake, or the response to everything else.

    Args:
        message: the JSON object of an authentic request: a handshake, or an event in the format 1.0 or 2.0.
    """
    if message.get("type") == "url_verification":
        return _handshake(message)
    header, event = message.get("header"), message.get("event")
    if not isinstance(event, dict):
        return _malformed("the event is no object")
    if isinstance(header, dict):  # format 2.0
        event_type = header.get("event_type")
        event = {name: header[name] for name in ("app_id", "tenant_key") if name in header} | event
    else:
        event_type = event.get("type")
    if event_type == EVENT_TYPE:
        return _approval(event)
    is_name = isinstance(event_type, str) and _NAME.fullmatch(event_type)
    return _ignored(f"event {event_type}" if is_name else "other events")


def _handshake(message: dict[str, Any]) -> ReceiverResponse:
    challenge = message.get("challenge")
    if not isinstance(challenge, str):
        return _malformed("the challenge is no text")
    return ReceiverResponse(body=json.dumps({"challenge": challenge}).encode(), rule="challenge")


def _approval(event: dict[str, Any]) -> ReceivedCallback | ReceiverResponse:
    status, instance, definition = (event.get(name) for name in ("status", "instance_code", "approval_code"))
    if not (isinstance(instance, str) and instance and isinstance(definition, str) and definition):
        return _malformed("instance_code or approval_code is missing")
    if not isinstance(status, str) or status not in ENDS:
        return _ignored(f"status {status}" if isinstance(status, str) and status in CONTINUES else "unknown status")
    kind, conclusion = ENDS[status]
    data = event | {"processDefinitionKey": definition}
    if conclusion is not None:
        data["conclusion"] = conclusion
    # The id that the application gave the instance when it created the instance, not an id of the event.
    if isinstance(event.get("uuid"), str) and event["uuid"]:
        data["businessKey"] = event["uuid"]
    return ReceivedCallback(flow_instance_id=instance, kind=kind, data=data, response=ReceiverResponse(body=ACCEPTED))


def _ignored(rule: str) -> ReceiverResponse:
    return ReceiverResponse(body=ACCEPTED, rule=rule)


def _malformed(why: str) -> ReceiverResponse:
    return ReceiverResponse(status=400, body=json.dumps({"code": 400, "msg": why}).encode(), rule=why)
