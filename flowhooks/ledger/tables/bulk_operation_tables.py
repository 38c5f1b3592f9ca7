"""Bulk operations of operators, and the deliveries that each of them acts on."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    bindparam,
)

from flowhooks.ledger.tables.base import metadata

operations: Final = Table(
    "operations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("action", Text, nullable=False, comment="what it does with each delivery, such as replay or close"),
    Column("event_filter", Text, nullable=False, comment="JSON: which deliveries it was planned for"),
    Column("note", Text, nullable=False, comment="the operator's reason; '' if none"),
    Column("release_interval", BigInteger, comment="microseconds between two of its deliveries; null: no limit"),
    Column("state", Text, nullable=False, comment="planning, planned, running, paused, cancelled or finished"),
    Column("actor", Text, nullable=False, comment="the operator who planned it"),
    Column("interface", Text, nullable=False, comment="console, api or cli"),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger, comment="when it was first started; null: never"),
    Column("changed_at", BigInteger, nullable=False, comment="when its state last changed"),
    Column("finished_at", BigInteger, comment="when all its deliveries were executed, or it was cancelled"),
    Column("planned", Integer, nullable=False, comment="number of deliveries of the plan"),
    Column("released", Integer, nullable=False, comment="number of deliveries that it has acted on"),
    Column("changed", Integer, nullable=False, comment="number of deliveries that had changed since the plan"),
    Column(
        "succeeded",
        Integer,
        comment="number of its deliveries that succeeded; null: not all of them were executed",
    ),
    Column(
        "failed",
        Integer,
        comment="number of its deliveries that failed again; null: not all of them were executed",
    ),
    Column("process", Text, nullable=False, server_default="", comment="the process that releases its deliveries"),
    Column("process_until", BigInteger, nullable=False, server_default="0", comment="when that process's lease ends"),
    Column("released_at", BigInteger, nullable=False, server_default="0", comment="until when its rate is used up"),
)
IS_OPEN_OPERATION: Final = operations.c.succeeded.is_(None)
"""Operations whose results are not stored yet. Only a query with exactly this condition uses the index below."""
Index("operations_open", operations.c.id, info={"where": IS_OPEN_OPERATION})

operation_items: Final = Table(
    "operation_items",
    metadata,
    Column("operation_id", Text, ForeignKey("operations.id"), nullable=False),
    Column("delivery_id", Text, nullable=False, comment="no foreign key: its event may be purged before the item"),
    Column("planned_state", Text, nullable=False, comment="the delivery's state when it was planned"),
    Column("attempt", Integer, nullable=False, comment="the delivery's number of attempts when it was planned"),
    Column("status", Text, nullable=False, comment="planned, released or changed"),
    Column("released_at", BigInteger, comment="when the operation acted on it; null: not yet"),
    Column("purged_state", Text, comment="the delivery's state when its event was purged; null: none, or succeeded"),
    PrimaryKeyConstraint("operation_id", "delivery_id"),
    sqlite_with_rowid=False,
)
Index("operation_items_delivery", operation_items.c.delivery_id)
IS_PLANNED_ITEM: Final = operation_items.c.status == bindparam("planned_item", "planned", literal_execute=True)
"""Items that the operation has not acted on. Only a query with exactly this condition uses the index below."""
Index(
    "operation_items_planned",
    operation_items.c.operation_id,
    operation_items.c.delivery_id,
    info={"where": IS_PLANNED_ITEM},
)
