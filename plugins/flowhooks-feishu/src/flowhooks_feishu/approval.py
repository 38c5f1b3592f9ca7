"""Convert an authentic message into a callback, or into a response without a callback."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from flowhooks import ReceivedCallback, ReceiverResponse

ACCEPTED_BODY: Final = b'{"code": 0}'
"""Body of the response to an accepted event. Feishu checks only the HTTP status."""
FINAL_STATUSES: Final = {
    "APPROVED": ("complete", "approved"),
    "REJECTED": ("complete", "rejected"),
    "CANCELED": ("cancel", None),
    "DELETED": ("cancel", None),
    "REVERTED": ("reverted", None),
}
"""Kind of callback and conclusion of each status with which an instance ends, or with which its end is reverted."""
OPEN_STATUSES: Final = frozenset({"PENDING", "OVERTIME_CLOSE", "OVERTIME_RECOVER"})
"""Statuses of instances that can still be approved. An instance that was closed as overdue can be recovered."""
EVENT_TYPE: Final = "approval_instance"
_EVENT_TYPE_NAME: Final = re.compile(r"[a-z0-9_.]{1,60}")


def convert(message: dict[str, Any]) -> ReceivedCallback | ReceiverResponse:
    """Return the callback of an event at the end of an approval, or the response to any other message.

    Args:
        message: the JSON object of an authentic request: a handshake, or an event in the format 1.0 or 2.0.
    """
    if message.get("type") == "url_verification":
        return _answer_handshake(message)
    header, event = message.get("header"), message.get("event")
    if not isinstance(event, dict):
        return _reject("the event is no object")
    if isinstance(header, dict):  # format 2.0
        event_type = header.get("event_type")
        event = {name: header[name] for name in ("app_id", "tenant_key") if name in header} | event
    else:
        event_type = event.get("type")
    if event_type == EVENT_TYPE:
        return _convert_approval(event)
    is_name = isinstance(event_type, str) and _EVENT_TYPE_NAME.fullmatch(event_type)
    return _ignore(f"event {event_type}" if is_name else "other events")


def _answer_handshake(message: dict[str, Any]) -> ReceiverResponse:
    challenge = message.get("challenge")
    if not isinstance(challenge, str):
        return _reject("the challenge is no text")
    return ReceiverResponse(body=json.dumps({"challenge": challenge}).encode(), rule="challenge")


def _convert_approval(event: dict[str, Any]) -> ReceivedCallback | ReceiverResponse:
    status, instance, definition = (event.get(name) for name in ("status", "instance_code", "approval_code"))
    if not (isinstance(instance, str) and instance and isinstance(definition, str) and definition):
        return _reject("instance_code or approval_code is missing")
    if not isinstance(status, str) or status not in FINAL_STATUSES:
        return _ignore(f"status {status}" if isinstance(status, str) and status in OPEN_STATUSES else "unknown status")
    kind, conclusion = FINAL_STATUSES[status]
    data = event | {"processDefinitionKey": definition}
    if conclusion is not None:
        data["conclusion"] = conclusion
    # This uuid is the id that the application gave the instance when it created the instance, not an id of the event.
    if isinstance(event.get("uuid"), str) and event["uuid"]:
        data["businessKey"] = event["uuid"]
    response = ReceiverResponse(body=ACCEPTED_BODY)
    return ReceivedCallback(flow_instance_id=instance, kind=kind, data=data, response=response)


def _ignore(rule: str) -> ReceiverResponse:
    return ReceiverResponse(body=ACCEPTED_BODY, rule=rule)


def _reject(reason: str) -> ReceiverResponse:
    return ReceiverResponse(status=400, body=json.dumps({"code": 400, "msg": reason}).encode(), rule=reason)
