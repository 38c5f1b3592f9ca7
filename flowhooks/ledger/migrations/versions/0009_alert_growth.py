"""Alerts that are counted at each look, and notified again when they have grown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns. What alerts counted until now is what listeners were notified of."""
    for name, type_, default in (
        ("last_at", sa.BigInteger, "0"),
        ("last_error", sa.Text, ""),
        ("notifications", sa.Integer, "1"),
        ("notified_at", sa.BigInteger, "0"),
        ("notified_count", sa.Integer, "0"),
        ("grown_from", sa.Integer, "0"),
    ):
        op.add_column("alerts", sa.Column(name, type_, nullable=False, server_default=default))
    op.execute("UPDATE alerts SET last_at = opened_at, notified_at = opened_at, notified_count = count")
