"""Which credentials processes on this ledger must ask for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; the next start with sources or operators records them."""
    op.create_table(
        "required_credentials",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
