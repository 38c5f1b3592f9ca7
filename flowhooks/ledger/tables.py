"""The ledger's tables in SQLAlchemy Core.

Times are whole microseconds since 1970 (UTC). Ids are UUIDs of version 7, stored as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    event,
    func,
    literal_column,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

metadata: Final = MetaData()


@event.listens_for(metadata, "before_create")
def _set_index_conditions(_metadata: MetaData, connection: Connection, **_options: Any) -> None:
    """Turn the `where` of partial indexes, in their `info`, into the option of the database that is used."""
    # `postgresql_where=` would import the dialect of PostgreSQL with all its drivers in each process that uses SQLite.
    for table in metadata.tables.values():
        for index in table.indexes:
            if "where" in index.info:
                index.dialect_options[connection.dialect.name]["where"] = index.info["where"]


# PostgreSQL rejects index rows of more than about 2,700 bytes, and a schema may allow texts of any length. Two texts of
# this length, of 4 bytes a character, still fit.
MAX_INDEXED_CHARS: Final = 256
"""Maximum number of characters that an index stores of a text from a callback."""


def indexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the prefix of a text column that an index stores.

    Only a query with exactly this expression uses the index.
    """
    # Literals: with parameters instead, neither database recognizes the expression of the index.
    return func.substr(column, literal_column("1"), literal_column(str(MAX_INDEXED_CHARS)), type_=Text)


def equals_indexed(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that the whole of an indexed text equals `text`."""
    # No `column = text` in addition: SQLite would then put the text into the indexed expression as well, and not use
    # the index.
    remainder = func.substr(column, literal_column(str(MAX_INDEXED_CHARS + 1)), type_=Text)
    return (indexed(column) == text[:MAX_INDEXED_CHARS]) & (remainder == text[MAX_INDEXED_CHARS:])


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
    Column("body", Text, nullable=False, comment="as received; strict UTF-8, so text keeps every byte"),
    Column("digest", Text, nullable=False, comment="SHA-256 of the body as JSON values"),
    Column("state", Text, nullable=False, comment="routed, parked or dismissed"),
    Column("route", Text, nullable=False, comment="JSON: handler id to the reason why"),
    Column("route_size", Integer, nullable=False, comment="number of deliveries that the route needs"),
    Column("repeats", Integer, nullable=False, comment="number of repeats of the same callback"),
    Column("received_at", BigInteger, nullable=False),
    Column("conclusion", Text, comment="how the process ended in business terms; null: the engine sent none"),
    Column("parked_by", Text, comment="why it is parked: handler, condition, name or end_state; null: it is not"),
    Column("dismissed_by", Text, comment="why it is dismissed: condition, kind, setting or operator; null: it is not"),
    Column("no_match", Text, comment="JSON: why handlers that share its class or key do not match; null: not recorded"),
    Column("body_sha256", Text, comment="of the body's bytes; null: stored before there were checksums"),
    Column("row_sha256", Text, comment="of all columns that never change; null: as above"),
    # A digest instead of the four columns, because together they may exceed PostgreSQL's limit for an index row.
    Column(
        "identity_sha256",
        Text,
        nullable=False,
        comment="of source, kind, flow_instance_id and callback_class, and of instance_started_at unless it is null",
    ),
    Column("traceparent", Text, comment="of W3C Trace Context, as the callback had it; null: not recorded"),
    Column(
        "origin",
        Text,
        nullable=False,
        server_default="callback",
        comment="callback, or reconciled: taken in from the engine's history",
    ),
    Column(
        "instance_started_at",
        BigInteger,
        comment="part of the identity of a reconciled event whose instance id was reused; otherwise null",
    ),
    UniqueConstraint("identity_sha256", name="events_identity"),
)
# A literal, because a database does not compare parameters with the condition of a partial index.
IS_PARKED: Final = events.c.state == bindparam("parked", "parked", literal_execute=True)
"""Parked events."""
Index("events_parked", events.c.id, info={"where": IS_PARKED})
Index("events_flow_instance", indexed(events.c.flow_instance_id))
Index(
    "events_parked_backlog",
    indexed(events.c.callback_class),
    indexed(events.c.process_definition_key),
    events.c.received_at,
    info={"where": IS_PARKED},
)
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
IS_UNDECIDED: Final = (events.c.state == "routed") & events.c.no_match.is_not(None)
"""Events that were routed although the condition of another handler was undecided. Only a query with exactly this
condition uses the index below."""
Index("events_undecided", events.c.id, info={"where": IS_UNDECIDED})
Index(
    "events_business_key",
    indexed(events.c.business_key),
    info={"where": events.c.business_key.is_not(None)},
)
IS_RECONCILED: Final = events.c.origin == bindparam("reconciled", "reconciled", literal_execute=True)
"""Events taken in from the history of an engine. Only a query with exactly this condition uses the index below."""
Index(
    "events_reconciled",
    events.c.source,
    events.c.received_at,
    sqlite_where=IS_RECONCILED,
    postgresql_where=IS_RECONCILED,
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
    PrimaryKeyConstraint("event_id", "digest"),
)
Index("conflicts_received", conflicts.c.received_at)

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
    PrimaryKeyConstraint("delivery_id", "number"),
    sqlite_with_rowid=False,
)
IS_LAST_ATTEMPT: Final = (attempts.c.delivery_id == deliveries.c.id) & (attempts.c.number == deliveries.c.attempt)
"""Join condition of a delivery and its last attempt."""

handlers: Final = Table(
    "handlers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("selectors", Text, nullable=False, comment="JSON"),
    Column("retry", Text, comment="JSON; null: a failure is final"),
    Column("has_probe", Integer, nullable=False, comment="1 if it can tell whether a lost attempt did its work"),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("last_seen_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
    Column("order_by", Text, comment="the member of the event that is its order key; null: unordered"),
    Column("concurrency", Integer, comment="maximum number of its deliveries that run at once; null: no limit"),
    Column("paused_at", BigInteger, comment="when it was paused; null: it is not"),
    Column("resumed_at", BigInteger, comment="when it was last resumed; deliveries that waited for that were not late"),
    Column("circuit_opened_at", BigInteger, comment="when its circuit was opened; null: the circuit is closed"),
    Column("circuit_reason", Text, nullable=False, server_default="", comment="the error that opened the circuit"),
    Column(
        "circuit_plugin_version",
        Text,
        nullable=False,
        server_default="",
        comment="the version of its plugin that failed",
    ),
    Column("circuit_retry_at", BigInteger, comment="while its circuit is open: when the next trial is due"),
)
Index(
    "handlers_paused",
    handlers.c.id,
    info={"where": handlers.c.paused_at.is_not(None)},
)

processes: Final = Table(
    "processes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("stopped_at", BigInteger),
    Column(
        "heartbeat_at",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="its last heartbeat, by the database's clock",
    ),
    Column("kind", Text, nullable=False, server_default="", comment="server, worker or command"),
    Column("handlers", Text, nullable=False, server_default="[]", comment="JSON: ids of the handlers that it runs"),
)

counters: Final = Table(
    "counters",
    metadata,
    Column("name", Text, nullable=False),
    Column("process", Text, nullable=False, comment="one row per process, so that no process waits for another"),
    Column("value", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", "process"),
)

alerts: Final = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("cause", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="a handler's id, a plugin's name, or what parked events wait for"),
    Column("message", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False, comment="since when the cause exists"),
    Column("count", Integer, nullable=False, comment="number of items that share the cause, as last counted"),
    Column("event_id", Text, nullable=False, comment="one of these items, if it is an event; else ''"),
    Column("opened_at", BigInteger, nullable=False),
    Column("notified", Text, nullable=False, comment="JSON: the plugins that accepted it"),
    Column("closed_at", BigInteger, comment="null while the cause exists"),
    Column("acknowledged_at", BigInteger, comment="null: it is not acknowledged"),
    Column("acknowledged_by", Text, nullable=False, server_default="", comment="the operator who acknowledged it"),
    Column("last_at", BigInteger, nullable=False, server_default="0", comment="when the newest item joined"),
    Column("last_error", Text, nullable=False, server_default="", comment="the error of the newest item"),
    Column(
        "notifications",
        Integer,
        nullable=False,
        server_default="1",
        comment="number of notifications: 1, and 1 for each growth",
    ),
    Column(
        "notified_at", BigInteger, nullable=False, server_default="0", comment="when the last notification was made"
    ),
    Column(
        "notified_count",
        Integer,
        nullable=False,
        server_default="0",
        comment="the lowest count since the last notification",
    ),
    Column(
        "grown_from",
        Integer,
        nullable=False,
        server_default="0",
        comment="the count that the last notification compares with",
    ),
)
# At most one open alert for each cause and subject, however often a check finds the cause.
Index(
    "alerts_open",
    alerts.c.cause,
    alerts.c.subject,
    unique=True,
    info={"where": alerts.c.closed_at.is_(None)},
)

rejected_requests: Final = Table(
    "rejected_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("rejected_at", BigInteger, nullable=False, comment="the last of them"),
    Column("first_rejected_at", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False, comment="number of equal requests"),
    Column("source", Text, nullable=False, comment="'' if not known"),
    Column("path", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("reason_en", Text, nullable=False),
    Column("reason_zh", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True, comment="SHA-256 of the columns in which they are equal"),
)
Index("rejected_requests_group", rejected_requests.c.status, rejected_requests.c.source, rejected_requests.c.id)

audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False, comment="the operator's name"),
    Column("interface", Text, nullable=False, comment="console, api or cli"),
    Column("action", Text, nullable=False, comment="the operation's name"),
    Column("target", Text, nullable=False, comment="id of the event, handler or alert; '' for several"),
    Column("detail", Text, nullable=False, comment="JSON: the arguments, and what they changed"),
)
Index("audit_log_target", audit_log.c.target, audit_log.c.id)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True, comment="SHA-256 of the cookie's secret"),
    Column("operator", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False, comment="written periodically, not at each request"),
)

purged_identities: Final = Table(
    "purged_identities",
    metadata,
    Column("identity_sha256", Text, primary_key=True, comment="as of events"),
    Column("event_id", Text, nullable=False),
    Column("digest", Text, nullable=False, comment="SHA-256 of its body as JSON values"),
    Column("received_at", BigInteger, nullable=False, comment="when the event was received"),
    Column("instance_sha256", Text, comment="of source and flow_instance_id; null: not recorded"),
    Column("origin", Text, nullable=False, server_default="callback", comment="as of the event"),
    sqlite_with_rowid=False,
)
"""Identities of purged events. A repeated callback for one of them is not accepted as a new event, and reconciliation
does not take it in."""
Index("purged_identities_received", purged_identities.c.received_at)
Index("purged_identities_instance", purged_identities.c.instance_sha256)

webhook_ids: Final = Table(
    "webhook_ids",
    metadata,
    Column("source", Text, nullable=False),
    Column("webhook_id", Text, nullable=False, comment="value of the header webhook-id"),
    Column("digest", Text, nullable=False, comment="SHA-256 of the path and the data that it was used for"),
    Column("seen_at", BigInteger, nullable=False, comment="when it was last used"),
    PrimaryKeyConstraint("source", "webhook_id"),
    sqlite_with_rowid=False,
)
"""Ids of signed callbacks. A captured signature cannot be used for another callback."""
Index("webhook_ids_seen", webhook_ids.c.seen_at)

required_credentials: Final = Table(
    "required_credentials",
    metadata,
    Column("kind", Text, primary_key=True, comment="sources or operators"),
    Column("since", BigInteger, nullable=False, comment="when a process first had one in its settings"),
)
"""Kinds of credentials that processes on this ledger must require. Settings without them are most likely damaged."""

late_callbacks: Final = Table(
    "late_callbacks",
    metadata,
    Column("event_id", Text, ForeignKey("events.id"), nullable=False),
    Column("digest", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("repeats", Integer, nullable=False, server_default="0", comment="number of repeats of the same callback"),
    Column("body_sha256", Text, nullable=False, comment="as of events"),
    Column("row_sha256", Text, nullable=False, comment="as of events"),
    PrimaryKeyConstraint("event_id", "digest"),
)
"""Callbacks that arrived after reconciliation had taken in their instance."""

engine_instances: Final = Table(
    "engine_instances",
    metadata,
    Column("source", Text, nullable=False),
    Column("flow_instance_id", Text, nullable=False),
    Column("ended_at", BigInteger, nullable=False, comment="by the engine's clock"),
    Column("started_at", BigInteger, comment="by the engine's clock; null: not known"),
    Column("end_state", Text, nullable=False, comment="completed, cancelled, error, terminated or undecided"),
    Column("process_definition_key", Text),
    Column("process_definition_version", Integer),
    Column("conclusion", Text, comment="mapped, as of events"),
    Column("tenant_id", Text),
    Column("parent_id", Text, comment="the instance that called it; null: none"),
    Column("disposition", Text, nullable=False, comment="has_event, skipped or in_grace"),
    Column("rule", Text, nullable=False, server_default="", comment="why it is skipped; otherwise ''"),
    Column("detail", Text, nullable=False, server_default="", comment="more about the rule, for operators"),
    Column("event_id", Text, comment="its event, if it has one"),
    Column("body", Text, comment="while in_grace: the body of the event that it becomes"),
    Column("first_seen_at", BigInteger, nullable=False, comment="when flowhooks first read it in the history"),
    Column("changed_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("source", "flow_instance_id"),
    sqlite_with_rowid=False,
)
"""The finished instances that flowhooks has read in the histories of engines, each with what became of it."""
# With the columns by which instances are counted, so that a count reads only the index.
Index(
    "engine_instances_ended",
    engine_instances.c.source,
    engine_instances.c.ended_at,
    engine_instances.c.disposition,
    engine_instances.c.rule,
)
Index("engine_instances_event", engine_instances.c.event_id)
IS_IN_GRACE: Final = engine_instances.c.disposition == bindparam("in_grace", "in_grace", literal_execute=True)
"""Instances that have no event yet. Only a query with exactly this condition uses the index below."""
Index(
    "engine_instances_in_grace",
    engine_instances.c.source,
    engine_instances.c.ended_at,
    sqlite_where=IS_IN_GRACE,
    postgresql_where=IS_IN_GRACE,
)

engine_positions: Final = Table(
    "engine_positions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("since", BigInteger, nullable=False, comment="the first contact: earlier ends are not taken in"),
    Column("position", BigInteger, nullable=False, comment="each instance that ended before has been decided"),
    Column("read_until", BigInteger, nullable=False, comment="the history was read until this time of the engine"),
    Column("swept_at", BigInteger, nullable=False, comment="when the last 24 hours were last read again"),
    Column("round_at", BigInteger, nullable=False, comment="when the last reconciliation ended, also with an error"),
    Column("succeeded_at", BigInteger, comment="when the last one without an error ended; null: none has"),
    Column("failed_since", BigInteger, comment="since when each one has ended with an error; null: the last did not"),
    Column("reason", Text, nullable=False, server_default="", comment="unreachable, refused or invalid; '': no error"),
    Column("error", Text, nullable=False, server_default="", comment="the last error, for operators"),
    Column("failures", Integer, nullable=False, server_default="0", comment="errors since the last success"),
    Column("skew", BigInteger, comment="the engine's clock minus ours, in microseconds; null: not known"),
    Column("product", Text, nullable=False, server_default="", comment="the engine's name and version"),
    Column("to_confirm", Integer, nullable=False, server_default="0", comment="instances that wait for an operator"),
    Column("confirmed_at", BigInteger, comment="until then seen instances may be taken in; null: not confirmed"),
    Column("definitions", Text, comment="JSON: the deployed definitions, as last read; null: never read"),
    Column("definitions_at", BigInteger, comment="when they were read"),
    Column("process", Text, nullable=False, server_default="", comment="the process that reconciles; '': none does"),
    Column("process_until", BigInteger, nullable=False, server_default="0", comment="until when, by the database"),
)
"""How far flowhooks has read the history of each engine."""

history_gaps: Final = Table(
    "history_gaps",
    metadata,
    Column("source", Text, nullable=False),
    Column("since", BigInteger, nullable=False, comment="the interval of end times that could not be read"),
    Column("until", BigInteger, nullable=False),
    Column("reason", Text, nullable=False, comment="deleted, refused, unreachable or invalid"),
    Column("detail", Text, nullable=False, comment="for operators, in one line"),
    Column("found_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger, comment="when the interval was read after all, or an operator closed the gap"),
    PrimaryKeyConstraint("source", "since"),
)
"""Intervals of an engine's history that flowhooks could not read."""
