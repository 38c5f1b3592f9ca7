"""Checksums of callback bodies and of the columns of a row that never change, for `flowhooks verify`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. They stay null in rows that were stored before: nobody knows whether those are as received."""
    for table in ("events", "conflicts"):
        for name in ("body_sha256", "row_sha256"):
            op.add_column(table, sa.Column(name, sa.Text))
