"""Attributes and links of spans, and attributes of metrics.

Names that start with `messaging.` or `error.` are defined by OpenTelemetry's semantic conventions for messaging. There
an attempt is a `process` operation. The other names are defined by this plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Link, SpanContext, TraceFlags

from flowhooks import OutcomeKind

if TYPE_CHECKING:
    from flowhooks import Delivery, Event, Handler

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
"""The version of the conventions that define the names."""
OPERATION: Final = "process"
"""The operation of an attempt in the conventions."""


def for_metrics(handler: Handler) -> dict[str, str]:
    """Return the attributes of counts and durations: only attributes with few values."""
    return {
        "messaging.system": "flowhooks",
        "messaging.operation.name": OPERATION,
        "messaging.operation.type": OPERATION,
        "messaging.destination.name": handler.id,
    }


def for_span(handler: Handler, event: Event, delivery: Delivery) -> dict[str, str | int]:
    """Return the span attributes that are known before an attempt.

    The business key and the data are left out, because they may identify a person.
    """
    optional = {
        "flowhooks.callback_class": event.callback_class,
        "flowhooks.process_definition.key": event.process_definition_key,
        "flowhooks.process_definition.version": event.process_definition_version,
        "flowhooks.conclusion": event.conclusion,
    }
    return {
        **for_metrics(handler),
        "messaging.message.id": delivery.id,
        "messaging.message.conversation_id": event.flow_instance_id,
        "flowhooks.handler": handler.id,
        "flowhooks.plugin": handler.plugin,
        "flowhooks.attempt": delivery.attempt,
        "flowhooks.event.id": event.id,
        "flowhooks.event.kind": event.kind,
        "flowhooks.event.source": event.source,
        "flowhooks.flow_instance.id": event.flow_instance_id,
        **{name: value for name, value in optional.items() if value is not None},
    }


def span_links(event: Event) -> list[Link]:
    """Return the link to the span in which the engine sent the callback, or no link without a `traceparent`."""
    if event.traceparent is None:
        return []
    # flowhooks has validated the header: version, trace id, span id and flags, in hexadecimal digits.
    _, trace_id, span_id, flags = event.traceparent.split("-")
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return [Link(context)]


def for_outcome(kind: OutcomeKind, error_type: str) -> dict[str, str]:
    """Return the attributes of an outcome, with the type of error unless the attempt succeeded."""
    outcome = {"flowhooks.outcome": kind.value}
    return outcome if kind is OutcomeKind.SUCCEEDED else {**outcome, "error.type": error_type}
