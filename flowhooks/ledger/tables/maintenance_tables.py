"""Observations of the ledger itself: backups, its size, and jumps of the clock."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, Table, Text

from flowhooks.ledger.tables.base import metadata

maintenance: Final = Table(
    "maintenance",
    metadata,
    Column("kind", Text, nullable=False, comment="backup, size or clock_jump"),
    Column("at", BigInteger, nullable=False),
    Column("value", BigInteger, nullable=False, comment="bytes, or the microseconds by which the clock jumped"),
    Column("detail", Text, nullable=False, comment="the backup's name, or the host of the clock; '' for a size"),
    PrimaryKeyConstraint("kind", "at"),
    sqlite_with_rowid=False,
)
"""Observations: the last backup, sizes of the last day, and jumps of the clock."""
