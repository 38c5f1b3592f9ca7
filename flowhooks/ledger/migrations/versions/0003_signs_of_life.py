"""Processes give signs of life, so that several can share a ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; whoever was there before has given none."""
    op.add_column("processes", sa.Column("heartbeat_at", sa.BigInteger, nullable=False, server_default="0"))
