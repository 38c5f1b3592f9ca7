"""The attributes and links of spans, and the attributes of measures.

Names that begin with `messaging.` and `error.` are those of OpenTelemetry's semantic conventions for messaging, in
which an attempt is a "process" operation; the others are flowhooks' own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.trace import Link, SpanContext, TraceFlags

from flowhooks import OutcomeKind

if TYPE_CHECKING:
    from flowhooks import Delivery, Event, Handler

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
"""The version of the conventions that the names are from."""
OPERATION: Final = "process"


def of_measure(handler: Handler) -> dict[str, str]:
    """Attributes of counts and durations: only those with few values."""
    return {
        "messaging.system": "flowhooks",
        "messaging.operation.name": OPERATION,
        "messaging.operation.type": OPERATION,
        "messaging.destination.name": handler.id,
    }


def of_span(handler: Handler, event: Event, delivery: Delivery) -> dict[str, str | int]:
    """Attributes that are known before an attempt. No business key and no data: they may identify a person."""
    known = {
        "flowhooks.callback_class": event.callback_class,
        "flowhooks.process_definition.key": event.process_definition_key,
        "flowhooks.process_definition.version": event.process_definition_version,
        "flowhooks.conclusion": event.conclusion,
    }
    return {
        **of_measure(handler),
        "messaging.message.id": delivery.id,
        "messaging.message.conversation_id": event.flow_instance_id,
        "flowhooks.handler": handler.id,
        "flowhooks.plugin": handler.plugin,
        "flowhooks.attempt": delivery.attempt,
        "flowhooks.event.id": event.id,
        "flowhooks.event.kind": event.kind,
        "flowhooks.event.source": event.source,
        "flowhooks.flow_instance.id": event.flow_instance_id,
        **{name: value for name, value in known.items() if value is not None},
    }


def links_of(event: Event) -> list[Link]:
    """Return the link to the span of the engine in which it sent the callback; empty if it sent no `traceparent`."""
    if event.traceparent is None:
        return []
    # flowhooks has validated it: version, trace id, span id and flags, all in hexadecimal digits.
    _, trace_id, span_id, flags = event.traceparent.split("-")
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return [Link(context)]


def of_end(kind: OutcomeKind, error_type: str) -> dict[str, str]:
    """How an attempt ended; the type of its error only where it did not succeed."""
    ended = {"flowhooks.outcome": kind.value}
    return ended if kind is OutcomeKind.SUCCEEDED else {**ended, "error.type": error_type}
