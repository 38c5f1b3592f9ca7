"""The ledger: events, deliveries, attempts, known handlers, processes, counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
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
        sa.UniqueConstraint("flow_instance_id", "callback_class", "kind", "source", name="events_identity"),
    )
    _partial_index("events_parked", "events", "id", "state = 'parked'")
    _partial_index("events_business_key", "events", "business_key", "business_key IS NOT NULL")
    op.create_table(
        "conflicts",
        sa.Column("event_id", sa.Text, sa.ForeignKey("events.id"), nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("event_id", "digest"),
    )
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
        sa.UniqueConstraint("event_id", "handler", name="deliveries_route"),
        sqlite_with_rowid=False,
    )
    _partial_index("deliveries_due", "deliveries", "handler, due_at", "due_at IS NOT NULL")
    _partial_index("deliveries_open", "deliveries", "state", "state IN ('running', 'dead', 'unknown')")
    _partial_index("deliveries_suspended", "deliveries", "handler", "state = 'waiting' AND due_at IS NULL")
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
        sa.PrimaryKeyConstraint("delivery_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "handlers",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("selectors", sa.Text, nullable=False),
        sa.Column("retry", sa.Text),
        sa.Column("has_probe", sa.Integer, nullable=False),
        sa.Column("first_seen_at", sa.BigInteger, nullable=False),
        sa.Column("last_seen_at", sa.BigInteger, nullable=False),
        sa.Column("retired_at", sa.BigInteger),
    )
    op.create_table(
        "processes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("stopped_at", sa.BigInteger),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "process"),
    )


def _partial_index(name: str, table: str, columns: str, where: str) -> None:
    op.create_index(name, table, columns.split(", "), sqlite_where=sa.text(where), postgresql_where=sa.text(where))
