"""Handlers, processes, counters, alerts, and the records of operators and of security."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, PrimaryKeyConstraint, Table, Text, literal_column

from flowhooks.ledger.tables.base import metadata

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
    Column("rate", Text, comment="maximum number of its attempts that start in a time, such as 10/s; null: no limit"),
    Column("rate_next_at", BigInteger, comment="from when its rate allows the next attempt; null: at once"),
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
    Column("notified", Text, nullable=False, comment="JSON: the plugins that accepted its last notification"),
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
    Column(
        "accepted",
        Text,
        nullable=False,
        server_default="[]",
        comment="JSON: the plugins that accepted one of its notifications",
    ),
    Column(
        "resolution_due",
        Text,
        nullable=False,
        server_default="[]",
        comment="JSON: once it is closed, the plugins to be notified of that",
    ),
    Column(
        "notification_errors",
        Text,
        nullable=False,
        server_default="{}",
        comment="JSON: errors of the plugins that did not accept the last notification, by plugin",
    ),
)
HAS_RESOLUTION_DUE: Final = alerts.c.resolution_due != literal_column("'[]'")
"""Closed alerts of which plugins have to be notified. Only a query with exactly this condition uses the index below."""
Index("alerts_resolution_due", alerts.c.id, info={"where": HAS_RESOLUTION_DUE})
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
    Column("user_agent", Text, nullable=False, server_default="", comment="of the last of them; '' if not known"),
    Column("event_id", Text, nullable=False, server_default="", comment="the event that they contradict, or ''"),
)
Index("rejected_requests_group", rejected_requests.c.status, rejected_requests.c.source, rejected_requests.c.id)

ignored_requests: Final = Table(
    "ignored_requests",
    metadata,
    Column("source", Text, nullable=False),
    Column("rule", Text, nullable=False, comment="the rule of the source's settings or receiver"),
    Column("count", BigInteger, nullable=False, comment="number of requests that the rule ignored"),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False, comment="of the last of them, at most 64 KiB"),
    Column("media_type", Text, comment="of the last of them: its Content-Type; null: it had none"),
    PrimaryKeyConstraint("source", "rule"),
)
"""Requests to fixed URLs that were answered and not stored."""

audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", Text, nullable=False, comment="the operator's name"),
    Column("interface", Text, nullable=False, comment="console, api, cli or server"),
    Column("action", Text, nullable=False, comment="the operation's name"),
    Column("target", Text, nullable=False, comment="id of the event, handler or alert; '' for several"),
    Column("detail", Text, nullable=False, comment="JSON: the arguments, and what they changed"),
)
Index("audit_log_target", audit_log.c.target, audit_log.c.id)
Index("audit_log_actor", audit_log.c.actor, audit_log.c.id)
Index("audit_log_action", audit_log.c.action, audit_log.c.id)

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
