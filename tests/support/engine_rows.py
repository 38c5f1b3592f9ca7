"""Rows in the tables that reconciliation uses, as an engine with all kinds of instances leaves them. No tests."""

from __future__ import annotations

from sqlalchemy import insert

from flowhooks.ledger import checksums
from flowhooks.ledger.tables import engine_instances, engine_positions, history_gaps, late_callbacks

MINUTE = 60_000_000


def fill(transaction, source, event_id, now):
    """Store the rows of a source: three instances, its position and a gap; and a late callback.

    The event belongs to the instance `pulled` of the source.
    """
    body = '{"callBackProcessClass": "com.example.Late"}'
    digest, body_sha256 = checksums.body_sha256("late"), checksums.body_sha256(body)
    late = {
        "event_id": event_id,
        "digest": digest,
        "body": body,
        "received_at": now,
        "repeats": 1,
        "body_sha256": body_sha256,
        "row_sha256": checksums.row_sha256((event_id, digest, body_sha256, now)),
    }
    transaction.connection.execute(insert(late_callbacks), late)
    times = {"started_at": now - 9 * MINUTE, "first_seen_at": now - MINUTE, "changed_at": now - MINUTE}
    common = times | {
        "source": source,
        "end_state": "completed",
        "process_definition_key": "leave",
        "process_definition_version": 3,
        "conclusion": "approved",
        "tenant_id": "t1",
        "parent_id": None,
        "rule": "",
        "event_id": None,
        "body": None,
    }
    instances = [
        {"flow_instance_id": "pulled", "ended_at": now - 4 * MINUTE, "disposition": "has_event", "event_id": event_id},
        {"flow_instance_id": "waits", "ended_at": now - 3 * MINUTE, "disposition": "in_grace", "body": "{}"},
        {
            "flow_instance_id": "child",
            "ended_at": now - 2 * MINUTE,
            "disposition": "skipped",
            "rule": "child",
            "parent_id": "pulled",
        },
    ]
    transaction.connection.execute(insert(engine_instances), [common | instance for instance in instances])
    position = {
        "source": source,
        "since": now - 9 * MINUTE,
        "position": now - 2 * MINUTE,
        "read_until": now - MINUTE,
        "former_names": '["formerly"]',
        "swept_at": now - MINUTE,
        "round_at": now - MINUTE,
        "succeeded_at": now - 2 * MINUTE,
        "failed_since": now - MINUTE,
        "reason": "unreachable",
        "error": "no answer from http://oa.internal",
        "failures": 2,
        "skew": 1_000_000,
        "product": "Flowable 7.1.0",
        "to_confirm": 1200,
        "waiting": 7,
        "confirmed_at": now - 2 * MINUTE,
        "declining_after": now - 2 * MINUTE,
        "declining_until": now - MINUTE,
        "declining_note": "handled by the old system",
        "definitions": '[["leave", 3, "Leave", null]]',
        "definitions_at": now - 2 * MINUTE,
        "process": "",
        "process_until": 0,
    }
    transaction.connection.execute(insert(engine_positions), position)
    gap = {
        "source": source,
        "since": now - 9 * MINUTE,
        "until": now - 8 * MINUTE,
        "reason": "refused",
        "detail": "401 of /query/historic-process-instances",
        "found_at": now - 7 * MINUTE,
        "closed_at": now - 6 * MINUTE,
    }
    transaction.connection.execute(insert(history_gaps), gap)
