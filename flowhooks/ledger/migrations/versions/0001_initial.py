"""The tables of the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables and their indexes."""
    _create_events()
    _create_deliveries()
    _create_operations()
    _create_handlers()
    _create_engine_tables()
    _create_trends()


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("flow_instance_id", sa.Text, nullable=False),
        sa.Column("callback_class", sa.Text, nullable=False),
        sa.Column("business_key", sa.Text),
        sa.Column("process_definition_id", sa.Text),
        sa.Column("process_definition_key", sa.Text),
        sa.Column("process_definition_version", sa.Integer),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("route_size", sa.Integer, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("conclusion", sa.Text),
        sa.Column("parked_by", sa.Text),
        sa.Column("dismissed_by", sa.Text),
        sa.Column("no_match", sa.Text),
        sa.Column("body_sha256", sa.Text),
        sa.Column("row_sha256", sa.Text),
        sa.Column("identity_sha256", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text),
        sa.Column("origin", sa.Text, nullable=False, server_default="callback"),
        sa.Column("instance_started_at", sa.BigInteger),
        sa.Column("corrects", sa.Text),
        sa.Column("raw_body", sa.Text),
        sa.Column("media_type", sa.Text),
        sa.Column("rerouted_at", sa.BigInteger),
        sa.UniqueConstraint("identity_sha256", name="events_identity"),
    )
    op.create_index("events_flow_instance", "events", [sa.text("substr(flow_instance_id, 1, 256)")])
    _partial_index("events_parked", "events", ["id"], "state = 'parked'")
    _partial_index(
        "events_parked_backlog",
        "events",
        [sa.text("substr(callback_class, 1, 256)"), sa.text("substr(process_definition_key, 1, 256)"), "received_at"],
        "state = 'parked' AND (coalesce(parked_by, '') NOT IN ('end_state', 'reused_id'))",
    )
    _partial_index(
        "events_undecided_end",
        "events",
        ["source", "received_at", "id"],
        "state = 'parked' AND parked_by IN ('end_state', 'reused_id')",
    )
    _partial_index("events_dismissed", "events", ["id"], "dismissed_by IN ('condition', 'kind')")
    _partial_index("events_parked_by_condition", "events", ["id"], "state = 'parked' AND parked_by = 'condition'")
    _partial_index("events_undecided", "events", ["id"], "state = 'routed' AND no_match IS NOT NULL")
    bytewise = ' COLLATE "C"' if op.get_bind().dialect.name == "postgresql" else ""
    _partial_index(
        "events_business_key",
        "events",
        [sa.text(f"substr(business_key, 1, 256){bytewise}")],
        "business_key IS NOT NULL",
    )
    _partial_index("events_reconciled", "events", ["source", "received_at"], "origin = 'reconciled'")
    op.create_table(
        "event_fields",
        sa.Column("event_id", sa.Text, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("field", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("number", sa.Double),
        sa.PrimaryKeyConstraint("event_id", "field"),
        sqlite_with_rowid=False,
    )
    op.create_index("event_fields_value", "event_fields", ["field", "value", "event_id"])
    _partial_index("event_fields_number", "event_fields", ["field", "number", "event_id"], "number IS NOT NULL")
    op.create_table(
        "conflicts",
        sa.Column("event_id", sa.Text, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("body_sha256", sa.Text),
        sa.Column("row_sha256", sa.Text),
        sa.Column("kind", sa.Text, nullable=False, server_default="complete"),
        sa.Column("corrected_by", sa.Text),
        sa.PrimaryKeyConstraint("event_id", "digest"),
    )
    op.create_index("conflicts_received", "conflicts", ["received_at"])
    op.create_table(
        "conclusions",
        sa.Column("sha256", sa.Text, primary_key=True),
        sa.Column("callback_class", sa.Text, nullable=False),
        sa.Column("process_definition_key", sa.Text, nullable=False),
        sa.Column("conclusion", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("handler", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("retry_base", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("order_key", sa.Text),
        sa.Column("order_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("next_trigger", sa.Text),
        sa.Column("next_actor", sa.Text),
        sa.Column("operation_id", sa.Text),
        sa.UniqueConstraint("event_id", "handler", name="deliveries_route"),
        sqlite_with_rowid=False,
    )
    _partial_index("deliveries_due", "deliveries", ["handler", "due_at"], "due_at IS NOT NULL AND order_position <= 0")
    _partial_index("deliveries_open", "deliveries", ["state"], "state IN ('running', 'dead', 'unknown')")
    _partial_index(
        "deliveries_failed", "deliveries", ["state", "handler", "changed_at"], "state IN ('dead', 'unknown')"
    )
    _partial_index(
        "deliveries_order_group",
        "deliveries",
        ["handler", "order_key", "order_position", "id"],
        "order_key IS NOT NULL AND state IN ('waiting', 'running', 'unknown')",
    )
    _partial_index("deliveries_suspended", "deliveries", ["handler"], "state = 'waiting' AND due_at IS NULL")
    op.create_table(
        "attempts",
        sa.Column("delivery_id", sa.Text, sa.ForeignKey("deliveries.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("outcome", sa.Text),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("result_dropped", sa.Text),
        sa.Column("plugin_version", sa.Text),
        sa.Column("plugin_digest", sa.Text),
        sa.Column("trigger", sa.Text),
        sa.Column("actor", sa.Text),
        sa.Column("operation_id", sa.Text),
        sa.Column("error_group", sa.Text),
        sa.Column("log", sa.Text),
        sa.PrimaryKeyConstraint("delivery_id", "number"),
        sqlite_with_rowid=False,
    )
    _partial_index(
        "attempts_error_group",
        "attempts",
        ["error_group", "finished_at", "delivery_id", "number"],
        "error_group IS NOT NULL",
    )
    _partial_index(
        "attempts_requested", "attempts", ["trigger", "delivery_id"], "(\"trigger\" NOT IN ('first', 'retry'))"
    )
    op.create_table(
        "error_groups",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("handler", sa.Text, nullable=False),
        sa.Column("error_type", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("frame", sa.Text, nullable=False),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sample_delivery_id", sa.Text, nullable=False),
        sa.Column("sample_attempt", sa.Integer, nullable=False),
        sa.Column("versions", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("error_groups_handler", "error_groups", ["handler", "last_seen_at"])
    op.create_index("error_groups_seen", "error_groups", ["last_seen_at"])


def _create_handlers() -> None:
    op.create_table(
        "handlers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("selectors", sa.Text, nullable=False),
        sa.Column("retry", sa.Text),
        sa.Column("has_probe", sa.Integer, nullable=False),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
        sa.Column("order_by", sa.Text),
        sa.Column("concurrency", sa.Integer),
        sa.Column("rate", sa.Text),
        sa.Column("rate_next_at", sa.BigInteger),
        sa.Column("paused_at", sa.BigInteger),
        sa.Column("resumed_at", sa.BigInteger),
        sa.Column("circuit_opened_at", sa.BigInteger),
        sa.Column("circuit_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("circuit_plugin_version", sa.Text, nullable=False, server_default=""),
        sa.Column("circuit_retry_at", sa.BigInteger),
    )
    _partial_index("handlers_paused", "handlers", ["id"], "paused_at IS NOT NULL")
    op.create_table(
        "processes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("stopped_at", sa.BigInteger),
        sa.Column("heartbeat_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("kind", sa.Text, nullable=False, server_default=""),
        sa.Column("handlers", sa.Text, nullable=False, server_default="[]"),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "process"),
    )
    _create_alerts()
    op.create_table(
        "rejected_requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("rejected_at", sa.BigInteger, nullable=False),
        sa.Column("first_rejected_at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("reason_en", sa.Text, nullable=False),
        sa.Column("reason_zh", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False, unique=True),
        sa.Column("user_agent", sa.Text, nullable=False, server_default=""),
        sa.Column("event_id", sa.Text, nullable=False, server_default=""),
    )
    op.create_index("rejected_requests_group", "rejected_requests", ["status", "source", "id"])
    op.create_table(
        "ignored_requests",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text),
        sa.PrimaryKeyConstraint("source", "rule"),
    )
    _create_audit_log()
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "purged_identities",
        sa.Column("identity_sha256", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("instance_sha256", sa.Text),
        sa.Column("origin", sa.Text, nullable=False, server_default="callback"),
        sqlite_with_rowid=False,
    )
    op.create_index("purged_identities_received", "purged_identities", ["received_at"])
    op.create_index("purged_identities_instance", "purged_identities", ["instance_sha256"])
    op.create_table(
        "webhook_ids",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("webhook_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "webhook_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("webhook_ids_seen", "webhook_ids", ["seen_at"])
    op.create_table(
        "required_credentials",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
    )


def _create_trends() -> None:
    op.create_table(
        "trends",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("resolution", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("bucket", sa.Integer, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", "resolution", "started_at", "outcome", "bucket"),
        sqlite_with_rowid=False,
    )


def _create_engine_tables() -> None:
    op.create_table(
        "late_callbacks",
        sa.Column("event_id", sa.Text, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("repeats", sa.Integer, nullable=False, server_default="0"),
        sa.Column("body_sha256", sa.Text, nullable=False),
        sa.Column("row_sha256", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "digest"),
    )
    op.create_table(
        "engine_instances",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("flow_instance_id", sa.Text, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("end_state", sa.Text, nullable=False),
        sa.Column("process_definition_key", sa.Text),
        sa.Column("process_definition_version", sa.Integer),
        sa.Column("conclusion", sa.Text),
        sa.Column("tenant_id", sa.Text),
        sa.Column("parent_id", sa.Text),
        sa.Column("disposition", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False, server_default=""),
        sa.Column("detail", sa.Text, nullable=False, server_default=""),
        sa.Column("event_id", sa.Text),
        sa.Column("body", sa.Text),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("source", "flow_instance_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("engine_instances_ended", "engine_instances", ["source", "ended_at", "disposition", "rule"])
    op.create_index("engine_instances_event", "engine_instances", ["event_id"])
    _partial_index("engine_instances_in_grace", "engine_instances", ["source", "ended_at"], "disposition = 'in_grace'")
    _partial_index(
        "engine_instances_invalid",
        "engine_instances",
        ["source", "changed_at"],
        "rule IN ('invalid', 'invalid_id', 'rejected', 'too_large')",
    )
    op.create_table(
        "engine_positions",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("former_names", sa.Text, nullable=False, server_default="[]"),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("read_until", sa.BigInteger, nullable=False),
        sa.Column("swept_at", sa.BigInteger, nullable=False),
        sa.Column("round_at", sa.BigInteger, nullable=False),
        sa.Column("succeeded_at", sa.BigInteger),
        sa.Column("failed_since", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("skew", sa.BigInteger),
        sa.Column("product", sa.Text, nullable=False, server_default=""),
        sa.Column("to_confirm", sa.Integer, nullable=False, server_default="0"),
        sa.Column("waiting", sa.Integer, nullable=False, server_default="0"),
        sa.Column("confirmed_at", sa.BigInteger),
        sa.Column("declining_after", sa.BigInteger),
        sa.Column("declining_until", sa.BigInteger),
        sa.Column("declining_note", sa.Text),
        sa.Column("definitions", sa.Text),
        sa.Column("definitions_at", sa.BigInteger),
        sa.Column("process", sa.Text, nullable=False, server_default=""),
        sa.Column("process_until", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "history_gaps",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("found_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("source", "since"),
    )


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("interface", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("audit_log_target", "audit_log", ["target", "id"])
    op.create_index("audit_log_actor", "audit_log", ["actor", "id"])
    op.create_index("audit_log_action", "audit_log", ["action", "id"])


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("event_filter", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("release_interval", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("interface", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("released", sa.Integer, nullable=False),
        sa.Column("changed", sa.Integer, nullable=False),
        sa.Column("succeeded", sa.Integer),
        sa.Column("failed", sa.Integer),
        sa.Column("process", sa.Text, nullable=False, server_default=""),
        sa.Column("process_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("released_at", sa.BigInteger, nullable=False, server_default="0"),
    )
    _partial_index("operations_open", "operations", ["id"], "succeeded IS NULL")
    op.create_table(
        "operation_items",
        sa.Column("operation_id", sa.Text, sa.ForeignKey("operations.id"), nullable=False),
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("planned_state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("released_at", sa.BigInteger),
        sa.Column("purged_state", sa.Text),
        sa.PrimaryKeyConstraint("operation_id", "delivery_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("operation_items_delivery", "operation_items", ["delivery_id"])
    _partial_index("operation_items_planned", "operation_items", ["operation_id", "delivery_id"], "status = 'planned'")


def _partial_index(
    name: str, table: str, columns: list[str | sa.TextClause], where: str, *, unique: bool = False
) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("notified", sa.Text, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.Column("acknowledged_at", sa.BigInteger),
        sa.Column("acknowledged_by", sa.Text, nullable=False, server_default=""),
        sa.Column("last_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text, nullable=False, server_default=""),
        sa.Column("notifications", sa.Integer, nullable=False, server_default="1"),
        sa.Column("notified_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("notified_count", sa.Integer, nullable=False, server_default="0"),
        sa.Column("grown_from", sa.Integer, nullable=False, server_default="0"),
        sa.Column("accepted", sa.Text, nullable=False, server_default="[]"),
        sa.Column("resolution_due", sa.Text, nullable=False, server_default="[]"),
        sa.Column("notification_errors", sa.Text, nullable=False, server_default="{}"),
    )
    _partial_index("alerts_open", "alerts", ["cause", "subject"], "closed_at IS NULL", unique=True)
    _partial_index("alerts_resolution_due", "alerts", ["id"], "resolution_due != '[]'")
    op.create_table(
        "maintenance",
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("kind", "at"),
        sqlite_with_rowid=False,
    )
