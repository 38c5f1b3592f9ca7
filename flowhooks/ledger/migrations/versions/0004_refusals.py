"""The call-backs that were refused last, so that an operator sees why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what was refused before is not known."""
    op.create_table(
        "rejected_requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("refused_at", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("reason_en", sa.Text, nullable=False),
        sa.Column("reason_zh", sa.Text, nullable=False),
    )
