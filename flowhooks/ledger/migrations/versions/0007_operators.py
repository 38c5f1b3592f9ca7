"""What operators do: handlers paused, alerts acknowledged, events purged, and who has done what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables and columns; until now no handler could be paused, and nothing purged."""
    op.add_column("handlers", sa.Column("paused_at", sa.BigInteger))
    op.add_column("handlers", sa.Column("resumed_at", sa.BigInteger))
    paused = sa.text("paused_at IS NOT NULL")
    op.create_index("handlers_paused", "handlers", ["id"], sqlite_where=paused, postgresql_where=paused)
    op.add_column("alerts", sa.Column("acknowledged_at", sa.BigInteger))
    op.add_column("alerts", sa.Column("acknowledged_by", sa.Text, nullable=False, server_default=""))
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
    op.create_table(
        "sessions",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("operator", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "purged_identities",
        sa.Column("identity", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("purged_identities_received", "purged_identities", ["received_at"])
