"""Handlers that are held because they fail again and again, and the ids of call-backs that were signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns and the table; until now no handler was held, and no call-back signed."""
    op.add_column("handlers", sa.Column("circuit_opened_at", sa.BigInteger))
    op.add_column("handlers", sa.Column("circuit_reason", sa.Text, nullable=False, server_default=""))
    op.add_column("handlers", sa.Column("circuit_plugin_version", sa.Text, nullable=False, server_default=""))
    op.add_column("handlers", sa.Column("circuit_retry_at", sa.BigInteger))
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
