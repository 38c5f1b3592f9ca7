"""The message of an event and its signature, in the form of Standard Webhooks.

The specification is at https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from flowhooks import Event
    from flowhooks_webhooks.endpoint import Endpoint

USER_AGENT: Final = f"flowhooks-webhooks/{version('flowhooks-webhooks')}"


def payload(event: Event) -> str:
    """The JSON text of an event, the same in every attempt.

    Returns:
        `type`, `timestamp` (when the callback was received) and `data`: the event's members, named as in the
        callback, null if it did not have one; the whole callback is in `data.data`. `conclusion` is in the words of
        handlers, which may differ from the engine's word in `data.data`.
    """
    return json.dumps(
        {
            "type": "flow.completed" if event.kind == "complete" else f"flow.{event.kind}",
            "timestamp": event.received_at.isoformat(),
            "data": {
                "eventId": event.id,
                "source": event.source,
                "kind": event.kind,
                "flowInstanceId": event.flow_instance_id,
                "businessKey": event.business_key,
                "callBackProcessClass": event.callback_class,
                "processDefinitionId": event.process_definition_id,
                "processDefinitionKey": event.process_definition_key,
                "processDefinitionVersion": event.process_definition_version,
                "conclusion": event.conclusion,
                "data": dict(event.data),
            },
        },
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )


def headers(
    endpoint: Endpoint,
    body: str,
    *,
    id: str,  # noqa: A002 (webhook-id)
    at: datetime,
    traceparent: str | None = None,
) -> dict[str, str]:
    """The header fields of one attempt.

    Args:
        endpoint: signs with each of its secrets, so that a receiver may know the old one or the new one.
        body: what is signed.
        id: the same in every attempt: the receiver's idempotency key.
        at: the time of the attempt, with UTC as its zone.
        traceparent: of the callback, which is sent on, so that the receiver's trace can continue the engine's.
    """
    return {
        **endpoint.headers,
        **({} if traceparent is None else {"traceparent": traceparent}),
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(one.sign(id, at, body) for one in endpoint.webhooks),
    }
