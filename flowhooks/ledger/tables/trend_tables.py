"""Counts over time, for the trends of handlers, sources and error groups."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, PrimaryKeyConstraint, Table, Text

from flowhooks.ledger.tables.base import metadata

trends: Final = Table(
    "trends",
    metadata,
    Column("kind", Text, nullable=False, comment="handler, source or error_group"),
    Column("subject", Text, nullable=False, comment="a handler's id, a source's name or a group's fingerprint"),
    Column("resolution", Integer, nullable=False, comment="length of the interval in seconds: 60 or 3600"),
    Column("started_at", BigInteger, nullable=False, comment="start of the interval"),
    Column("outcome", Text, nullable=False, comment="how the attempts ended, or the HTTP status of the responses"),
    Column(
        "bucket",
        Integer,
        nullable=False,
        comment="upper limit of the durations in milliseconds; -1: no limit; 0: no duration",
    ),
    Column("count", BigInteger, nullable=False, comment="number of attempts or responses"),
    PrimaryKeyConstraint("kind", "subject", "resolution", "started_at", "outcome", "bucket"),
    sqlite_with_rowid=False,
)
"""Numbers of attempts and responses in each minute, and of older ones in each hour.

The key is the only index: another one would double what is written and stored. Rows are read by subject and time, and
the retention goes through the subjects."""
