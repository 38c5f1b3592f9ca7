"""Requests to the fixed URL of a source: the callbacks that they become, and those that are ignored."""

from __future__ import annotations

import json

from flowhooks.intake.callback import Callback
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def take(flow, instance="i1", *, source="yudao", raw="", media_type=None, traceparent=TRACEPARENT, wait=10, **data):
    """Send such a request to a harness or an app."""
    callback = Callback(
        source=source,
        kind="complete",
        flow_instance_id=instance,
        body=data,
        text=json.dumps(data, ensure_ascii=False, separators=(",", ":")),
        origin="ingress",
        raw_body=raw,
        media_type=media_type,
        traceparent=traceparent,
    )
    return getattr(flow, "app", flow).intake.accept(callback, wait=wait)


def ignore(flow, rule, *, source="yudao", body="{}", media_type=None, times=1):
    """Count requests that a rule ignored."""
    app = getattr(flow, "app", flow)
    record = IgnoredRequestRecord(source, rule, body, media_type, app.clock.now())
    app.intake.accept_all([], [record] * times)
