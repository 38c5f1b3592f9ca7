"""Conclusions, and why events are parked or dismissed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table; until now no conclusion was read, and only operators and settings dismissed."""
    for name in ("conclusion", "parked_by", "dismissed_by", "no_match"):
        op.add_column("events", sa.Column(name, sa.Text))
    # An operator's dismissal was recorded in the audit log only: what a setting dismissed cannot be told from it.
    op.execute("UPDATE events SET parked_by = 'handler' WHERE state = 'parked'")
    op.execute(
        "UPDATE events SET parked_by = 'name' "
        "WHERE state = 'parked' AND callback_class = '' AND process_definition_key IS NULL"
    )
    op.execute("UPDATE events SET dismissed_by = 'operator' WHERE state = 'dismissed'")
    for name, where in (
        ("events_dismissed", "dismissed_by IN ('condition', 'kind')"),
        ("events_undecided", "state = 'routed' AND no_match IS NOT NULL"),
    ):
        op.create_index(name, "events", ["id"], sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    op.create_index("conflicts_received", "conflicts", ["received_at"])
    op.create_table(
        "conclusions",
        sa.Column("callback_class", sa.Text, nullable=False),
        sa.Column("process_definition_key", sa.Text, nullable=False),
        sa.Column("conclusion", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("callback_class", "process_definition_key", "conclusion"),
        sqlite_with_rowid=False,
    )
