"""Alerts, and the indexes by which their causes are found without counting what they are about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the indexes; what is there stays as it is."""
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
    )
    _partial_index("alerts_open", "alerts", "cause, subject", "closed_at IS NULL", unique=True)
    _partial_index("deliveries_failed", "deliveries", "state, handler, changed_at", "state IN ('dead', 'unknown')")
    _partial_index(
        "events_parked_backlog", "events", "callback_class, process_definition_key, received_at", "state = 'parked'"
    )


def _partial_index(name: str, table: str, columns: str, where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns.split(", "), unique=unique, sqlite_where=condition, postgresql_where=condition)
