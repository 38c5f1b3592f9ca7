"""Events, and what belongs to one event: conflicts, conclusions, deliveries and attempts."""

from __future__ import annotations

from typing import Any, Final, cast

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    func,
    literal_column,
)

from flowhooks.ledger.tables.base import Number, indexed, indexed_bytewise, metadata

events: Final = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("flow_instance_id", Text, nullable=False),
    Column("callback_class", Text, nullable=False, comment="'' if the callback names none"),
    Column("business_key", Text),
    Column("process_definition_id", Text),
    Column("process_definition_key", Text),
    Column("process_definition_version", Integer),
    Column(
        "body",
        Text,
        nullable=False,
        comment="as received, or the mapped data of a request to a fixed URL; strict UTF-8, so text keeps every byte",
    ),
    Column("digest", Text, nullable=False, comment="SHA-256 of the body as JSON values"),
    Column("state", Text, nullable=False, comment="routed, parked or dismissed"),
    Column("route", Text, nullable=False, comment="JSON: handler id to the reason why"),
    Column("route_size", Integer, nullable=False, comment="number of deliveries that the route needs"),
    Column("repeats", Integer, nullable=False, comment="number of repeats of the same callback"),
    Column("received_at", BigInteger, nullable=False),
    Column("conclusion", Text, comment="how the process ended in business terms; null: the engine sent none"),
    Column(
        "parked_by", Text, comment="why it is parked: handler, condition, name, end_state or reused_id; null: it is not"
    ),
    Column("dismissed_by", Text, comment="why it is dismissed: condition, kind, setting or operator; null: it is not"),
    Column("no_match", Text, comment="JSON: why handlers that share its class or key do not match; null: not recorded"),
    Column("body_sha256", Text, comment="of the body's bytes; null: stored before there were checksums"),
    Column("row_sha256", Text, comment="of all columns that never change; null: as above"),
    # A digest instead of the four columns, because together they may exceed PostgreSQL's limit for an index row.
    Column(
        "identity_sha256",
        Text,
        nullable=False,
        comment="of source, kind, flow_instance_id and callback_class, and of instance_started_at unless it is null; "
        "of a correction: of the event that it corrects, and of its digest",
    ),
    Column("traceparent", Text, comment="of W3C Trace Context, as the callback had it; null: not recorded"),
    Column(
        "origin",
        Text,
        nullable=False,
        server_default="callback",
        comment="callback; ingress: a request to the fixed URL of its source; reconciled: taken in from the engine's "
        "history; correction: a conflicting body, accepted",
    ),
    Column(
        "instance_started_at",
        BigInteger,
        comment="part of the identity of a reconciled event whose instance id was reused; otherwise null",
    ),
    Column("corrects", Text, comment="the event that a correction corrects, which may be purged; otherwise null"),
    Column("raw_body", Text, comment="of a request to the fixed URL of a source: the body as received; otherwise null"),
    Column("media_type", Text, comment="of raw_body: its Content-Type; null: the request had none, or no raw_body"),
    Column("rerouted_at", BigInteger, comment="when its state, its reason or its route last changed; null: never"),
    UniqueConstraint("identity_sha256", name="events_identity"),
)
# A literal, because a database does not compare parameters with the condition of a partial index.
IS_PARKED: Final = events.c.state == bindparam("parked", "parked", literal_execute=True)
"""Parked events."""
Index("events_parked", events.c.id, info={"where": IS_PARKED})
Index("events_flow_instance", indexed(events.c.flow_instance_id))
_UNDECIDED_ENDS: Final[BindParameter[Any]] = bindparam(
    "undecided_ends", ("end_state", "reused_id"), expanding=True, literal_execute=True
)
WAITS_FOR_HANDLER: Final = IS_PARKED & func.coalesce(events.c.parked_by, literal_column("''")).not_in(_UNDECIDED_ENDS)
"""Parked events that a handler which is installed later may match. Only a query with exactly this condition uses the
index below."""
Index(
    "events_parked_backlog",
    indexed(events.c.callback_class),
    indexed(events.c.process_definition_key),
    events.c.received_at,
    info={"where": WAITS_FOR_HANDLER},
)
IS_END_UNDECIDED: Final = IS_PARKED & events.c.parked_by.in_(_UNDECIDED_ENDS)
"""Parked events that wait for an operator or a late callback. Only a query with exactly this condition uses the index
below."""
Index("events_undecided_end", events.c.source, events.c.received_at, events.c.id, info={"where": IS_END_UNDECIDED})
DISMISSED_BY_ROUTING: Final = events.c.dismissed_by.in_(
    bindparam("dismissed_by_routing", ("condition", "kind"), expanding=True, literal_execute=True)
)
"""Events that routing dismissed; a handler that is installed later may match them. Only a query with exactly this
condition uses the index below."""
Index(
    "events_dismissed",
    events.c.id,
    info={"where": DISMISSED_BY_ROUTING},
)
PARKED_BY_CONDITION: Final = IS_PARKED & (
    events.c.parked_by == bindparam("parked_by_condition", "condition", literal_execute=True)
)
"""Events that are parked because a condition was undecided. Only a query with exactly this condition uses the index
below."""
Index("events_parked_by_condition", events.c.id, info={"where": PARKED_BY_CONDITION})
IS_UNDECIDED: Final = (
    events.c.state == bindparam("routed", "routed", literal_execute=True)
) & events.c.no_match.is_not(None)
"""Events that were routed although the condition of another handler was undecided. Only a query with exactly this
condition uses the index below."""
Index("events_undecided", events.c.id, info={"where": IS_UNDECIDED})
Index(
    "events_business_key",
    indexed_bytewise(events.c.business_key),
    info={"where": events.c.business_key.is_not(None)},
)
IS_RECONCILED: Final = events.c.origin == bindparam("reconciled", "reconciled", literal_execute=True)
"""Events taken in from the history of an engine. Only a query with exactly this condition uses the index below."""
Index(
    "events_reconciled",
    events.c.source,
    events.c.received_at,
    info={"where": IS_RECONCILED},
)

event_fields: Final = Table(
    "event_fields",
    metadata,
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("field", Text, nullable=False, comment="JSON Pointer to the value in the body"),
    Column("value", Text, nullable=False, comment="a string, or the JSON text of a number or a boolean; cut"),
    Column("number", Number, comment="of a number that a double can hold; otherwise null"),
    PrimaryKeyConstraint("event_id", "field"),
    sqlite_with_rowid=False,
)
"""Values of the fields that `search.fields` names."""
Index("event_fields_value", event_fields.c.field, event_fields.c.value, event_fields.c.event_id)
Index(
    "event_fields_number",
    event_fields.c.field,
    event_fields.c.number,
    event_fields.c.event_id,
    info={"where": event_fields.c.number.is_not(None)},
)

conflicts: Final = Table(
    "conflicts",
    metadata,
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("body_sha256", Text, comment="as of events"),
    Column("row_sha256", Text, comment="as of events"),
    Column("kind", Text, nullable=False, server_default="complete", comment="the kind of its callback"),
    Column("corrected_by", Text, comment="the event of this body, which an operator accepted; null: not accepted"),
    PrimaryKeyConstraint("event_id", "digest"),
)
Index("conflicts_received", conflicts.c.received_at)

error_groups: Final = Table(
    "error_groups",
    metadata,
    Column("fingerprint", Text, primary_key=True, comment="SHA-256 of the next four columns"),
    Column("handler", Text, nullable=False),
    Column("error_type", Text, nullable=False, comment="the type of the exception, or how the attempt ended"),
    Column("message", Text, nullable=False, comment="the message without ids, numbers and times"),
    Column("frame", Text, nullable=False, comment="the innermost frame of the plugin; '' if none"),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False, comment="number of attempts"),
    Column("sample_delivery_id", Text, nullable=False, comment="a delivery whose attempt has this error"),
    Column("sample_attempt", Integer, nullable=False, comment="the number of that attempt"),
    Column("versions", Text, nullable=False, comment="JSON: the versions of the plugin with which it was seen"),
    sqlite_with_rowid=False,
)
"""Attempts that failed for the same reason."""
Index("error_groups_handler", error_groups.c.handler, error_groups.c.last_seen_at)
Index("error_groups_seen", error_groups.c.last_seen_at)

conclusions: Final = Table(
    "conclusions",
    metadata,
    Column("sha256", Text, primary_key=True, comment="of callback_class, process_definition_key and conclusion"),
    Column("callback_class", Text, nullable=False, comment="'' if the callback names none"),
    Column("process_definition_key", Text, nullable=False, comment="'' if the callback names none"),
    Column("conclusion", Text, nullable=False),
    Column("event_id", Text, nullable=False, comment="the first event with it"),
    Column("seen_at", BigInteger, nullable=False, comment="when that event was received"),
    sqlite_with_rowid=False,
)
"""Received conclusions that no handler of the event's class or key names, each stored once."""

deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("handler", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, comment="number of attempts that were started"),
    Column("retry_base", Integer, nullable=False, comment="number of attempts before the current retry schedule"),
    Column("due_at", BigInteger, comment="from when it may run or be probed; null: not before its handler is loaded"),
    Column("comment", Text, nullable=False, comment="comment of an operator"),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("order_key", Text, comment="the order key, if the handler is ordered and the event has one"),
    Column(
        "order_position",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="position in the order group: -1 started, 0 may start, above 0 blocked",
    ),
    Column("next_trigger", Text, comment="why its next or running attempt starts; null: by its schedule"),
    Column("next_actor", Text, comment="the operator who asked for its next or running attempt; null: none"),
    Column("operation_id", Text, comment="the operation that asked for its next or running attempt; null: none"),
    UniqueConstraint("event_id", "handler", name="deliveries_route"),
    sqlite_with_rowid=False,
)
# Blocked deliveries are excluded: polling does not read a hundred thousand deliveries that are blocked by one retry.
IS_SCHEDULED: Final = deliveries.c.due_at.is_not(None) & (deliveries.c.order_position <= literal_column("0"))
"""Deliveries that may run or be probed once they are due. Only a query with exactly this condition uses the index
below."""
Index(
    "deliveries_due",
    deliveries.c.handler,
    deliveries.c.due_at,
    info={"where": IS_SCHEDULED},
)
# Literals, because a database does not compare parameters with the condition of a partial index.
IS_RUNNING_OR_FAILED: Final = deliveries.c.state.in_(
    bindparam("not_at_rest", ("running", "dead", "unknown"), expanding=True, literal_execute=True)
)
"""Deliveries that are *running*, *dead* or *unknown*. Only a query with exactly this condition uses the index below."""
Index("deliveries_open", deliveries.c.state, info={"where": IS_RUNNING_OR_FAILED})
# An index separate from `deliveries_open`: with more columns after the state, that index would have to be updated at
# each attempt.
IS_FAILED: Final = deliveries.c.state.in_(
    bindparam("failed", ("dead", "unknown"), expanding=True, literal_execute=True)
)
"""Deliveries that raise alerts: *dead* or *unknown*. Only a query with exactly this condition uses the index below."""
Index(
    "deliveries_failed",
    deliveries.c.state,
    deliveries.c.handler,
    deliveries.c.changed_at,
    info={"where": IS_FAILED},
)


def in_order_group(table: Any) -> ColumnElement[bool]:
    """Return the condition that a delivery has a position in an order group: it waits, runs or is *unknown*.

    `table` is `deliveries` or an alias of it. Only a query with exactly this condition uses the index
    `deliveries_order_group`.
    """
    states: BindParameter[Any] = bindparam(
        "in_order_group", ("waiting", "running", "unknown"), expanding=True, literal_execute=True
    )
    return cast("ColumnElement[bool]", table.c.order_key.is_not(None) & table.c.state.in_(states))


_IN_ORDER_GROUP = in_order_group(deliveries)
IS_BLOCKED: Final = (
    _IN_ORDER_GROUP & deliveries.c.due_at.is_not(None) & (deliveries.c.order_position > literal_column("0"))
)
"""Deliveries that are blocked by others of their order group and have a due time. The index below finds them."""
Index(
    "deliveries_order_group",
    deliveries.c.handler,
    deliveries.c.order_key,
    deliveries.c.order_position,
    deliveries.c.id,
    info={"where": _IN_ORDER_GROUP},
)
# A literal, as with `IS_PARKED`.
IS_WAITING: Final = deliveries.c.state == bindparam("waiting", "waiting", literal_execute=True)
"""Waiting deliveries."""
IS_SUSPENDED: Final = IS_WAITING & deliveries.c.due_at.is_(None)
"""Suspended deliveries: they wait without a due time, because their handler is missing."""
Index("deliveries_suspended", deliveries.c.handler, info={"where": IS_SUSPENDED})

attempts: Final = Table(
    "attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("deliveries.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("process", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("outcome", Text, comment="null while it runs"),
    Column("error", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("result", Text, comment="JSON"),
    Column("result_dropped", Text, comment="why the handler's result could not be stored; null: it was, or none"),
    Column("plugin_version", Text, comment="the version of its handler's plugin; null: not recorded"),
    Column("plugin_digest", Text, comment="SHA-256 of the files of its handler's plugin; null: not recorded"),
    Column("trigger", Text, comment="why it was started, such as callback, retry or replay; null: not recorded"),
    Column("actor", Text, comment="the operator who started it; null: not recorded"),
    Column("operation_id", Text, comment="the operation that started it; null: none"),
    Column("error_group", Text, comment="fingerprint of its error, as of error_groups; null: it has no error"),
    Column("log", Text, comment="the last log records of its handler, one line each; null: none"),
    PrimaryKeyConstraint("delivery_id", "number"),
    sqlite_with_rowid=False,
)
HAS_ERROR_GROUP: Final = attempts.c.error_group.is_not(None)
"""Attempts with an error. Only a query with exactly this condition uses the index below."""
Index(
    "attempts_error_group",
    attempts.c.error_group,
    attempts.c.finished_at,
    attempts.c.delivery_id,
    attempts.c.number,
    info={"where": HAS_ERROR_GROUP},
)
IS_REQUESTED: Final = attempts.c.trigger.not_in(
    bindparam("by_schedule", ("first", "retry"), expanding=True, literal_execute=True)
)
"""Attempts that are neither first ones nor retries. Only a query with exactly this condition uses the index below."""
Index("attempts_requested", attempts.c.trigger, attempts.c.delivery_id, info={"where": IS_REQUESTED})
IS_LAST_ATTEMPT: Final = (attempts.c.delivery_id == deliveries.c.id) & (attempts.c.number == deliveries.c.attempt)
"""Join condition of a delivery and its last attempt."""
