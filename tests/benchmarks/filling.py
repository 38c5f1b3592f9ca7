"""Add many events to a ledger at once, by statements of its database."""

from __future__ import annotations

import hashlib
import sqlite3
import time
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
_AT: Final = "1700000000000000 + CAST(n AS bigint) * 1000"
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
"""The number of bulk operations: the first one has run all dead deliveries again, and the second one is their plan."""
MINUTES: Final = 8 * 1440
HOURS: Final = 60 * 24
"""The number of minutes, and of hours until now, that have trends."""
INSTANCES: Final = 20_000
"""Maximum number of instances of the engine `oa`, more than its page counts."""
RULES: Final = 20
REJECTED: Final = 1_000
AUDITED: Final = 10_000
"""The numbers of rules that ignored requests, of rejected requests, and of entries of the audit log."""
_OPERATION: Final = "'01900000-0000-7000-a000-' || lpad(to_hex(n), 12, '0')"
_IS_FAILED: Final = "outcome = 'failed'"
_COUNTED: Final = f"""(
    SELECT 'handler' AS kind, 'bench:handler-0' AS subject, 'succeeded' AS outcome, 50 AS bucket
    UNION ALL SELECT 'handler', 'bench:handler-0', 'succeeded', 100
    UNION ALL SELECT 'handler', 'bench:handler-0', 'failed', 2000
    UNION ALL SELECT 'source', 'default', '200', 50
    UNION ALL SELECT 'source', 'default', '202', 20
    UNION ALL SELECT 'error_group', '{ERROR_GROUP}', 'failed', 0
) AS counted"""
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
SELECT {_OPERATION}, 'replay', '{{{{}}}}', '', CASE n WHEN 2 THEN 'planned' ELSE 'finished' END, 'ann', 'console',
    {{now}}, CASE n WHEN 2 THEN NULL ELSE {{now}} END, {{now}}, CASE n WHEN 2 THEN NULL ELSE {{now}} END,
    CASE WHEN n <= 2 THEN dead ELSE 0 END, CASE n WHEN 1 THEN dead ELSE 0 END, 0,
    CASE n WHEN 2 THEN NULL ELSE 0 END, CASE n WHEN 1 THEN dead WHEN 2 THEN NULL ELSE 0 END
FROM {_SERIES.format(events=OPERATIONS)}, (SELECT count(*) AS dead FROM deliveries WHERE state = 'dead') AS counted
""",
    f"""
INSERT INTO operation_items (operation_id, delivery_id, planned_state, attempt, status, released_at)
SELECT {_OPERATION}, id, 'dead', 1, CASE n WHEN 1 THEN 'released' ELSE 'planned' END,
    CASE n WHEN 1 THEN changed_at END
FROM {_SERIES.format(events=2)}, deliveries WHERE state = 'dead'
""",
    f"""
INSERT INTO trends (kind, subject, resolution, started_at, outcome, bucket, count)
SELECT kind, subject, 60, ({{now}} / 60000000 - n) * 60000000, outcome, bucket, 1 + n % 7
FROM {_SERIES.format(events=MINUTES)}, {_COUNTED}
""",
    f"""
INSERT INTO trends (kind, subject, resolution, started_at, outcome, bucket, count)
SELECT kind, subject, 3600, ({{now}} / 3600000000 - n) * 3600000000, outcome, bucket, 1 + n % 7
FROM {_SERIES.format(events=HOURS)}, {_COUNTED} WHERE n > {MINUTES} / 60
""",
    f"""
INSERT INTO rejected_requests (id, rejected_at, first_rejected_at, count, source, path, address, status, reason_en,
    reason_zh, fingerprint)
SELECT '01900000-0000-7000-b000-' || lpad(to_hex(n), 12, '0'), {_AT}, {_AT}, 3,
    CASE n % 4 WHEN 0 THEN '' ELSE 'default' END, '/flow/' || n || '/call-back/complete', '127.0.0.1',
    CASE n % 4 WHEN 0 THEN 401 ELSE 422 END, 'reason ' || n % 40, 'reason ' || n % 40,
    encode(sha256(convert_to(CAST(n AS text), 'UTF8')), 'hex')
FROM {_SERIES.format(events=REJECTED)}
""",
    f"""
INSERT INTO ignored_requests (source, rule, count, first_at, last_at, body, media_type)
SELECT 'default', '/status = ' || n, 100, {_AT}, {{now}}, '[' || lpad('', 4000, '1') || ']', 'application/json'
FROM {_SERIES.format(events=RULES)}
""",
    f"""
INSERT INTO audit_log (id, at, actor, interface, action, target, detail)
SELECT '01900000-0000-7000-c000-' || lpad(to_hex(n), 12, '0'), {_AT},
    CASE n % 5 WHEN 0 THEN 'ann' ELSE 'bob' END, 'console', 'pause', 'bench:handler-0', '{{{{"note": "moving"}}}}'
FROM {_SERIES.format(events=AUDITED)}
""",
    """
INSERT INTO engine_positions (source, since, position, read_until, swept_at, round_at, succeeded_at, skew, product,
    definitions, definitions_at)
VALUES ('oa', 1700000000000000, {now}, {now}, {now}, {now}, {now}, 0, 'Flowable 7.1.0', '[["leave", 3, "Leave", null]]',
    {now})
""",
    f"""
INSERT INTO engine_instances (source, flow_instance_id, ended_at, end_state, process_definition_key,
    process_definition_version, disposition, rule, event_id, first_seen_at, changed_at)
SELECT 'oa', flow_instance_id, received_at, 'completed', process_definition_key, 3,
    CASE state WHEN 'parked' THEN 'skipped' ELSE 'has_event' END, CASE state WHEN 'parked' THEN 'tenant' ELSE '' END,
    CASE state WHEN 'parked' THEN NULL ELSE id END, received_at, received_at
FROM events ORDER BY id LIMIT {INSTANCES}
""",
    f"""
INSERT INTO history_gaps (source, since, until, reason, detail, found_at)
SELECT 'oa', {_AT}, {_AT} + 500, 'deleted', 'the engine has deleted this part of its history', {{now}}
FROM {_SERIES.format(events=3)}
""",
    f"""
INSERT INTO maintenance (kind, at, value, detail)
SELECT CASE n WHEN 1 THEN 'backup' ELSE 'size' END, ({{now}} / 600000000 - n) * 600000000, 1000000000 - n * 100000, ''
FROM {_SERIES.format(events=144)}
""",
)
"""Statements that are executed after the others, so that every page of the console has content.

They store each attempt's version and trigger, an error group, operations, trends until now, rejected and ignored
requests, an audit log, an engine, and sizes of the ledger; `{now}` is the time in microseconds since 1970.
"""

BUSINESS_KEY: Final = "HT-{}"
"""The business key of an event by its number."""


def event_id(number: int) -> str:
    """The id of the event with a number, from 1."""
    return f"01900000-0000-7000-8000-{number:012x}"


def operation_id(number: int) -> str:
    """The id of the bulk operation with a number, from 1."""
    return f"01900000-0000-7000-a000-{number:012x}"


def dead_until(number: int) -> tuple[str, str]:
    """Statements that make the deliveries of the events up to a number dead, before those of `HISTORY`."""
    last = f"'01900000-0000-7000-9000-{number:012x}'"
    failed = "outcome = 'failed', error = 'ConnectionError: the archive does not answer'"
    return (
        f"UPDATE deliveries SET state = 'dead' WHERE id <= {last}",
        f"UPDATE attempts SET {failed} WHERE delivery_id <= {last}",
    )


def flow_instance_id(number: int) -> str:
    """The process instance of the event with a number."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def of_sqlite(file: Path, events: int, *more: str) -> None:
    """Fill a ledger on SQLite that no process has open.

    Args:
        file: its file, with its tables.
        events: the number of events.
        *more: further statements, with `{events}` and `{now}` in them.
    """
    with closing(sqlite3.connect(file)) as connection:
        connection.create_function("md5", 1, lambda text: flow_instance_id(int(text)), deterministic=True)
        connection.create_function("convert_to", 2, lambda text, _: text.encode(), deterministic=True)
        connection.create_function("sha256", 1, lambda data: hashlib.sha256(data).digest(), deterministic=True)
        connection.create_function("encode", 2, lambda data, _: data.hex(), deterministic=True)
        connection.create_function("to_hex", 1, lambda number: f"{number:x}", deterministic=True)
        connection.create_function("lpad", 3, lambda text, width, fill: text.rjust(width, fill), deterministic=True)
        # Hashes are inserted in random order: without a large cache, each of them writes a page of its index.
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4194304")
        for statement in (*STATEMENTS, *more):
            connection.execute(_filled(statement, events))
        connection.commit()
        connection.execute("ANALYZE")
        connection.commit()
        connection.execute("PRAGMA journal_mode = WAL")


def of_postgresql(events: int, *more: str) -> str:
    """The statements that fill a ledger on PostgreSQL, and further ones with `{events}` and `{now}` in them."""
    without_look_ups = "SET session_replication_role = replica"  # each row's parent exists
    return ";".join([without_look_ups, *(_filled(statement, events) for statement in (*STATEMENTS, *more))])


def _filled(statement: str, events: int) -> str:
    return statement.format(events=events, now=time.time_ns() // 1000)
