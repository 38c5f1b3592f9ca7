"""Processes say what they are, and which handlers' deliveries they run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; whoever was there before has said neither."""
    op.add_column("processes", sa.Column("kind", sa.Text, nullable=False, server_default=""))
    op.add_column("processes", sa.Column("handlers", sa.Text, nullable=False, server_default="[]"))
