"""Rows of bulk operations, error groups and backups, for tests that need one row in each table. No tests of its own."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from flowhooks.ledger.checksums import body_sha256
from flowhooks.ledger.tables import attempts, deliveries, error_groups, maintenance, operation_items, operations


def fill(transaction, operation_id, now):
    """Insert one operation with one item, one backup, and an error group if there is none, of the first delivery."""
    execute = transaction.connection.execute
    delivery = execute(select(deliveries).order_by(deliveries.c.id).limit(1)).one()
    execute(
        insert(operations).values(
            id=operation_id,
            action="replay",
            event_filter='{"handler": "p:h"}',
            note="the ERP is up again",
            release_interval=200_000,
            state="finished",
            actor="ann",
            interface="cli",
            created_at=now,
            started_at=now,
            changed_at=now,
            finished_at=now,
            planned=1,
            released=1,
            changed=0,
            succeeded=1,
            failed=0,
        )
    )
    execute(
        insert(operation_items).values(
            operation_id=operation_id,
            delivery_id=delivery.id,
            planned_state="dead",
            attempt=delivery.attempt,
            status="released",
            released_at=now,
        )
    )
    execute(insert(maintenance).values(kind="backup", at=now, value=4096, detail="flowhooks-1.db"))
    if execute(select(error_groups.c.fingerprint).limit(1)).first():
        return
    of_delivery = update(attempts).where(attempts.c.delivery_id == delivery.id)
    group = body_sha256("error")
    execute(
        insert(error_groups).values(
            fingerprint=group,
            handler=delivery.handler,
            error_type="ValueError",
            message="no",
            frame="plugin.py:fails",
            first_seen_at=now,
            last_seen_at=now,
            count=execute(of_delivery.values(error_group=group)).rowcount,
            sample_delivery_id=delivery.id,
            sample_attempt=1,
            versions='["1.0"]',
        )
    )
