"""Add many events to a ledger at once, by statements of its database."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

PARKED_EACH: Final = 2_000
DEAD_EACH: Final = 1_000
UNKNOWN_EACH: Final = 10_000
"""One event in this many is parked, one delivery dead, and one *unknown*; all others have succeeded."""

_SERIES: Final = """(
    WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {events}) SELECT n FROM series
) AS numbers"""
_PARKED: Final = f"n % {PARKED_EACH} = 2"
_DEAD: Final = f"n % {DEAD_EACH} = 1"
_UNKNOWN: Final = f"n % {UNKNOWN_EACH} = 3"
_EVENT: Final = "'01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0')"
_DELIVERY: Final = "'01900000-0000-7000-9000-' || lpad(to_hex(n), 12, '0')"
_AT: Final = "1700000000000000 + n * 1000"
_CLASS: Final = f"CASE WHEN {_PARKED} THEN 'com.example.Nobody' ELSE 'com.cnooc.test.CallbackHandler' END"
_KEY: Final = f"CASE WHEN {_PARKED} THEN 'nobody' ELSE 'contract_approval' END"
_IDENTITY: Final = f"""'["default","complete","' || md5(CAST(n AS text)) || '","' || {_CLASS} || '"]'"""

STATEMENTS: Final = (
    f"""
INSERT INTO events (id, source, kind, flow_instance_id, callback_class, business_key, process_definition_id,
    process_definition_key, process_definition_version, body, digest, state, route, route_size, repeats, received_at,
    identity_sha256)
SELECT {_EVENT}, 'default', 'complete', md5(CAST(n AS text)), {_CLASS}, 'HT-' || n,
    {_KEY} || ':3:' || md5(CAST(n AS text)), {_KEY}, 3,
    '{{{{"businessKey": "HT-' || n || '", "callBackProcessClass": "' || {_CLASS}
    || '", "processDefinitionKey": "' || {_KEY} || '", "processDefinitionVersion": 3}}}}',
    md5(CAST(n AS text)) || md5(CAST(n AS text)), CASE WHEN {_PARKED} THEN 'parked' ELSE 'routed' END,
    CASE WHEN {_PARKED} THEN '{{{{}}}}' ELSE '{{{{"bench:handler-0": "class com.cnooc.test.CallbackHandler"}}}}' END,
    CASE WHEN {_PARKED} THEN 0 ELSE 1 END, 0, {_AT},
    encode(sha256(convert_to({_IDENTITY}, 'UTF8')), 'hex')
FROM {_SERIES}
""",
    f"""
INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, comment, created_at, changed_at)
SELECT {_DELIVERY}, {_EVENT}, 'bench:handler-0',
    CASE WHEN {_DEAD} THEN 'dead' WHEN {_UNKNOWN} THEN 'unknown' ELSE 'succeeded' END, 1, 0, '', {_AT}, {_AT}
FROM {_SERIES} WHERE NOT {_PARKED}
""",
    f"""
INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback)
SELECT {_DELIVERY}, 1, 'before', {_AT}, {_AT},
    CASE WHEN {_DEAD} THEN 'failed' WHEN {_UNKNOWN} THEN 'lost' ELSE 'succeeded' END,
    CASE WHEN {_DEAD} THEN 'ConnectionError: the archive does not answer' ELSE '' END, ''
FROM {_SERIES} WHERE NOT {_PARKED}
""",
    "INSERT INTO counters (name, process, value) VALUES ('accepted', 'before', {events})",
)
"""These events, their deliveries and attempts, and the count of accepted events; `{events}` is their number."""

ERROR_GROUP: Final = "e0" * 32
"""The fingerprint of the error of all dead deliveries."""
OPERATIONS: Final = 100
"""The number of bulk operations; the first one has all dead deliveries."""
_OPERATION: Final = "'01900000-0000-7000-a000-' || lpad(to_hex(n), 12, '0')"
_IS_FAILED: Final = "outcome = 'failed'"
HISTORY: Final = (
    f"""
UPDATE attempts SET plugin_version = '1.4', trigger = CASE WHEN {_IS_FAILED} THEN 'replay' ELSE 'first' END,
    actor = CASE WHEN {_IS_FAILED} THEN 'ann' END, error_group = CASE WHEN {_IS_FAILED} THEN '{ERROR_GROUP}' END
""",
    f"""
INSERT INTO error_groups (fingerprint, handler, error_type, message, frame, first_seen_at, last_seen_at, count,
    sample_delivery_id, sample_attempt, versions)
SELECT '{ERROR_GROUP}', 'bench:handler-0', 'ConnectionError', 'the archive does not answer', 'bench.py:9 handle',
    min(finished_at), max(finished_at), count(*), min(delivery_id), 1, '["1.4"]' FROM attempts WHERE {_IS_FAILED}
""",
    f"""
INSERT INTO operations (id, action, event_filter, note, state, actor, interface, created_at, started_at, changed_at,
    finished_at, planned, released, changed, succeeded, failed)
SELECT {_OPERATION}, 'replay', '{{{{}}}}', '', 'finished', 'ann', 'console', {_AT}, {_AT}, {_AT}, {_AT},
    CASE n WHEN 1 THEN dead ELSE 0 END, CASE n WHEN 1 THEN dead ELSE 0 END, 0, 0, CASE n WHEN 1 THEN dead ELSE 0 END
FROM {_SERIES.format(events=OPERATIONS)}, (SELECT count(*) AS dead FROM deliveries WHERE state = 'dead') AS counted
""",
    f"""
INSERT INTO operation_items (operation_id, delivery_id, planned_state, attempt, status, released_at)
SELECT {_OPERATION.replace("to_hex(n)", "to_hex(1)")}, id, 'dead', 1, 'released', changed_at FROM deliveries
WHERE state = 'dead'
""",
)
"""Statements that are executed after the others: each attempt's version and trigger, an error group, and operations."""

BUSINESS_KEY: Final = "HT-{}"
"""The business key of an event by its number."""


def event_id(number: int) -> str:
    """The id of the event with a number, from 1."""
    return f"01900000-0000-7000-8000-{number:012x}"


def operation_id(number: int) -> str:
    """The id of the bulk operation with a number, from 1."""
    return f"01900000-0000-7000-a000-{number:012x}"


def flow_instance_id(number: int) -> str:
    """The process instance of the event with a number."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def of_sqlite(file: Path, events: int, *more: str) -> None:
    """Fill a ledger on SQLite that no process has open.

    Args:
        file: its file, with its tables.
        events: the number of events.
        *more: further statements, with `{events}` in them.
    """
    with closing(sqlite3.connect(file)) as connection:
        connection.create_function("md5", 1, lambda text: flow_instance_id(int(text)), deterministic=True)
        connection.create_function("convert_to", 2, lambda text, _: text.encode(), deterministic=True)
        connection.create_function("sha256", 1, lambda data: hashlib.sha256(data).digest(), deterministic=True)
        connection.create_function("encode", 2, lambda data, _: data.hex(), deterministic=True)
        connection.create_function("to_hex", 1, lambda number: f"{number:x}", deterministic=True)
        connection.create_function("lpad", 3, lambda text, most, fill: text.rjust(most, fill), deterministic=True)
        for statement in (*STATEMENTS, *more):
            connection.execute(statement.format(events=events))
        connection.commit()
        connection.execute("ANALYZE")
        connection.commit()


def of_postgresql(events: int, *more: str) -> str:
    """The statements that fill a ledger on PostgreSQL, and further ones with `{events}` in them."""
    without_look_ups = "SET session_replication_role = replica"  # each row's parent exists
    return ";".join([without_look_ups, *(statement.format(events=events) for statement in (*STATEMENTS, *more))])
