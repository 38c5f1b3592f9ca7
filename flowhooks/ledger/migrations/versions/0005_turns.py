"""Ordered and limited handlers: the place of a delivery among those of its handler and key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what is stored already is unordered, and stays so."""
    op.add_column("deliveries", sa.Column("order_key", sa.Text))
    op.add_column("deliveries", sa.Column("order_position", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("handlers", sa.Column("order_by", sa.Text))
    op.add_column("handlers", sa.Column("concurrency", sa.Integer))
    op.drop_index("deliveries_due", "deliveries")
    _partial_index("deliveries_due", "handler, due_at", "due_at IS NOT NULL AND order_position <= 0")
    in_order_group = "order_key IS NOT NULL AND state IN ('waiting', 'running', 'unknown')"
    _partial_index("deliveries_order_group", "handler, order_key, order_position, id", in_order_group)


def _partial_index(name: str, columns: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, "deliveries", columns.split(", "), sqlite_where=condition, postgresql_where=condition)
