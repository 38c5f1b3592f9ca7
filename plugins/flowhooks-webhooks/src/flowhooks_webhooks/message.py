"""The message about an event and its signature, in the format of Standard Webhooks.

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


def build_body(event: Event) -> str:
    """Return the JSON text of an event, which is the same in every attempt.

    Returns:
        An object with `type`, `timestamp` (when the callback was received) and `data`. `data` has the members of the
        event under their names in the callback; a member that the callback did not have is null. `data.data` is the
        whole callback. `data.conclusion` is the conclusion that handlers use, which may differ from the engine's
        conclusion in `data.data`.
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


def build_headers(
    endpoint: Endpoint, body: str, *, webhook_id: str, timestamp: datetime, traceparent: str | None = None
) -> dict[str, str]:
    """Return the header fields of one attempt.

    Args:
        endpoint: the endpoint. The message is signed with each of its secrets, so a receiver can verify it with the old
            secret or with the new secret.
        body: the JSON text, which is signed.
        webhook_id: id of the message, the same in every attempt: the receiver's idempotency key.
        timestamp: the time of the attempt, in UTC.
        traceparent: the field `traceparent` of the callback, with which the receiver continues the engine's trace;
            None: the callback had none.
    """
    return {
        **endpoint.headers,
        **({} if traceparent is None else {"traceparent": traceparent}),
        "content-type": "application/json",
        "user-agent": USER_AGENT,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(timestamp.timestamp())),
        "webhook-signature": " ".join(signer.sign(webhook_id, timestamp, body) for signer in endpoint.signers),
    }
