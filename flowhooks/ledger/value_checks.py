"""Checks of single values that the database can make: type, encoding, format, range. They change nothing.

SQLite stores any bytes in any column, so a damaged value can be of another type, or text that is not UTF-8. PostgreSQL
refuses both; there the formats and ranges are checked.

Each table is read once, by one query. If it has a row with an invalid value, a second query returns such rows.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Double,
    LargeBinary,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
)

from flowhooks.clock import DAY
from flowhooks.ledger.due_times import MAX_DELAY
from flowhooks.ledger.tables import metadata
from flowhooks.model.alert import AlertCause
from flowhooks.model.bulk_operation import BulkAction, ItemStatus, OperationState
from flowhooks.model.delivery import OutcomeKind, State, Trigger
from flowhooks.model.engine import EndState
from flowhooks.model.event import Origin
from flowhooks.model.search_fields import MAX_VALUE_CHARS
from flowhooks.model.trend import BUCKETS, NO_DURATION, NO_LIMIT, RESOLUTIONS, TrendKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy import Column, ColumnElement, Connection, Table

    Valid = Callable[[ColumnElement[Any]], ColumnElement[bool]]

EARLIEST: Final = 10**15
"""Times before this one, in 2001, are older than flowhooks; in microseconds since 1970."""
# An engine client may return 1970 in any time zone, and an event's start is earlier if the engine's clock is ahead.
_EARLIEST_OF_INSTANCES: Final = -365 * DAY
_SEPARATOR: Final = "\x1f"
_NEWEST: Final = bindparam("newest", type_=BigInteger)
_HEXADECIMAL: Final = "0123456789abcdef"


def _is_id(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a text has the format of a UUID of version 7."""
    return and_(
        column.like("________-____-7___-____-____________"),
        func.trim(func.replace(column, "-", ""), _HEXADECIMAL) == "",
    )


def _is_id_or_empty(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return or_(column == "", _is_id(column))


def _is_sha256(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(func.length(column) == 64, func.trim(column, _HEXADECIMAL) == "")  # noqa: PLR2004 (of SHA-256)


def _is_traceparent(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a text has the format of a `traceparent` of W3C Trace Context."""
    return and_(
        column.like("__-________________________________-________________-__"),
        func.trim(func.replace(column, "-", ""), _HEXADECIMAL) == "",
    )


def _is_time(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.between(literal(EARLIEST, BigInteger), _NEWEST + literal(DAY, BigInteger))


def _is_time_or_zero(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return or_(column == 0, _is_time(column))


def _is_due_time(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.between(literal(EARLIEST, BigInteger), _NEWEST + literal(MAX_DELAY, BigInteger))


def _is_engine_time(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a number can be a time by an engine's clock, which may be wrong by any amount; 0: the whole history."""
    return column.between(0, literal(2**53, BigInteger))


def _is_instance_time(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a number can be a time of an instance as an engine client returns it."""
    return column.between(literal(_EARLIEST_OF_INSTANCES, BigInteger), literal(2**53, BigInteger))


def _is_difference(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.between(literal(-(2**53), BigInteger), literal(2**53, BigInteger))


def _is_count(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.between(0, literal(2**48, BigInteger))


def _is_positive_count(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.between(1, literal(2**48, BigInteger))


def _is_small_count(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.between(0, literal(2**31 - 1, BigInteger))


def _is_handler_id(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.like("_%:_%")


def _is_http_status(column: ColumnElement[Any]) -> ColumnElement[bool]:
    return and_(func.length(column) == 3, func.trim(column, "0123456789") == "")  # noqa: PLR2004 (of HTTP)


def _one_of(*values: str) -> Valid:
    return lambda column: column.in_(values)


def _starts_with(prefix: str) -> Valid:
    return lambda column: func.substr(column, 1, len(prefix)) == prefix


_FORMATS: Final[dict[str, dict[str, Valid]]] = {
    "events": {
        "id": _is_id,
        "digest": _is_sha256,
        "state": _one_of("routed", "parked", "dismissed"),
        "route": _starts_with("{"),
        "route_size": _is_small_count,
        "repeats": _is_small_count,
        "received_at": _is_time,
        "body_sha256": _is_sha256,
        "row_sha256": _is_sha256,
        "identity_sha256": _is_sha256,
        "origin": _one_of(*Origin),
        "instance_started_at": _is_instance_time,
        "corrects": _is_id,
        "traceparent": _is_traceparent,
        "rerouted_at": _is_time,
    },
    "event_fields": {
        "event_id": _is_id,
        "field": _starts_with("/"),
        "value": lambda column: func.length(column) <= MAX_VALUE_CHARS,
    },
    "conflicts": {
        "event_id": _is_id,
        "digest": _is_sha256,
        "received_at": _is_time,
        "body_sha256": _is_sha256,
        "row_sha256": _is_sha256,
        "corrected_by": _is_id,
    },
    "conclusions": {"sha256": _is_sha256, "event_id": _is_id, "seen_at": _is_time},
    "deliveries": {
        "id": _is_id,
        "event_id": _is_id,
        "handler": _is_handler_id,
        "state": _one_of(*State),
        "attempt": _is_small_count,
        "due_at": _is_due_time,
        "created_at": _is_time,
        "changed_at": _is_time,
        "next_trigger": _one_of(*Trigger),
        "operation_id": _is_id,
    },
    "attempts": {
        "delivery_id": _is_id,
        "process": _is_id,
        "started_at": _is_time,
        "finished_at": _is_time,
        "outcome": _one_of(*OutcomeKind),
        "plugin_digest": _is_sha256,
        "trigger": _one_of(*Trigger),
        "operation_id": _is_id,
        "error_group": _is_sha256,
    },
    "error_groups": {
        "fingerprint": _is_sha256,
        "handler": _is_handler_id,
        "first_seen_at": _is_time,
        "last_seen_at": _is_time,
        "count": _is_count,
        "sample_delivery_id": _is_id,
        "sample_attempt": _is_small_count,
        "versions": lambda column: column.like("[%]"),
    },
    "operations": {
        "id": _is_id,
        "action": _one_of(*BulkAction),
        "event_filter": lambda column: column.like("{%}"),
        "release_interval": _is_count,
        "state": _one_of(*OperationState),
        "interface": _one_of("console", "api", "cli"),
        "created_at": _is_time,
        "started_at": _is_time,
        "changed_at": _is_time,
        "finished_at": _is_time,
        "planned": _is_small_count,
        "released": _is_small_count,
        "changed": _is_small_count,
        "succeeded": _is_small_count,
        "failed": _is_small_count,
        "process": _is_id_or_empty,
        "process_until": _is_time_or_zero,
        "released_at": _is_time_or_zero,
    },
    "operation_items": {
        "operation_id": _is_id,
        "delivery_id": _is_id,
        "planned_state": _one_of(*State),
        "attempt": _is_small_count,
        "status": _one_of(*ItemStatus),
        "released_at": _is_time,
        "purged_state": _one_of(State.DEAD, State.CLOSED),
    },
    "handlers": {
        "id": _is_handler_id,
        "first_seen_at": _is_time,
        "last_seen_at": _is_time,
        "retired_at": _is_time,
        "paused_at": _is_time,
        "resumed_at": _is_time,
        "circuit_opened_at": _is_time,
        "circuit_retry_at": _is_due_time,
        "concurrency": lambda column: column.between(1, 2**31 - 1),
        "rate": lambda column: or_(*(column.like(f"_%/{unit}") for unit in "smh")),
        "rate_next_at": _is_due_time,
    },
    "processes": {
        "id": _is_id,
        "pid": lambda column: column.between(1, 2**22),  # the largest id that Linux gives
        "started_at": _is_time,
        "stopped_at": _is_time,
        "heartbeat_at": _is_time_or_zero,
        "kind": _one_of("server", "worker", "command", ""),
    },
    "counters": {"process": _is_id, "value": _is_count},
    "alerts": {
        "id": _is_id,
        "cause": _one_of(*AlertCause),
        "started_at": _is_time,
        "count": _is_small_count,
        "event_id": _is_id_or_empty,
        "opened_at": _is_time,
        "closed_at": _is_time,
        "acknowledged_at": _is_time,
        "last_at": _is_time_or_zero,
        "notifications": lambda column: column.between(1, 2**31 - 1),
        "notified_at": _is_time_or_zero,
        "notified_count": _is_small_count,
        "grown_from": _is_small_count,
    },
    "rejected_requests": {
        "id": _is_id,
        "rejected_at": _is_time,
        "first_rejected_at": _is_time,
        "count": _is_count,
        "path": _starts_with("/"),
        "status": lambda column: column.between(400, 599),
        "fingerprint": _is_sha256,
        "event_id": _is_id_or_empty,
    },
    "ignored_requests": {
        "source": lambda column: column != "",
        "rule": lambda column: column != "",
        "count": _is_positive_count,
        "first_at": _is_time,
        "last_at": _is_time,
    },
    "audit_log": {"id": _is_id, "at": _is_time, "interface": _one_of("console", "api", "cli", "server")},
    "sessions": {"digest": _is_sha256, "created_at": _is_time, "used_at": _is_time},
    "purged_identities": {
        "identity_sha256": _is_sha256,
        "event_id": _is_id,
        "digest": _is_sha256,
        "received_at": _is_time,
        "instance_sha256": _is_sha256,
        "origin": _one_of(*Origin),
    },
    "webhook_ids": {"digest": _is_sha256, "seen_at": _is_time},
    "required_credentials": {"kind": _one_of("sources", "operators"), "since": _is_time},
    "late_callbacks": {
        "event_id": _is_id,
        "digest": _is_sha256,
        "received_at": _is_time,
        "repeats": _is_small_count,
        "body_sha256": _is_sha256,
        "row_sha256": _is_sha256,
    },
    "engine_instances": {
        "ended_at": _is_instance_time,
        "started_at": _is_instance_time,
        "end_state": _one_of(*EndState),
        "process_definition_version": _is_small_count,
        "disposition": _one_of("has_event", "skipped", "in_grace"),
        "event_id": _is_id,
        "body": _starts_with("{"),
        "first_seen_at": _is_time,
        "changed_at": _is_time,
    },
    "engine_positions": {
        "since": _is_engine_time,
        "position": _is_engine_time,
        "read_until": _is_engine_time,
        "swept_at": _is_time_or_zero,
        "round_at": _is_time_or_zero,
        "succeeded_at": _is_time,
        "failed_since": _is_time,
        "reason": _one_of("", "unreachable", "refused", "invalid", "database"),
        "failures": _is_small_count,
        "skew": _is_difference,
        "to_confirm": _is_small_count,
        "waiting": _is_small_count,
        "confirmed_at": _is_time,
        "declining_after": _is_time_or_zero,
        "declining_until": _is_time,
        "definitions_at": _is_time,
        "process": _is_id_or_empty,
        "process_until": _is_time_or_zero,
    },
    "trends": {
        "kind": _one_of(*TrendKind),
        "subject": lambda column: column != "",
        "resolution": lambda column: column.in_(RESOLUTIONS),
        "started_at": _is_time,
        "outcome": lambda column: or_(column.in_(tuple(OutcomeKind)), _is_http_status(column)),
        "bucket": lambda column: column.in_((NO_LIMIT, NO_DURATION, *BUCKETS)),
        "count": _is_positive_count,
    },
    "maintenance": {"kind": _one_of("backup", "size", "clock_jump"), "at": _is_time, "value": _is_difference},
    "history_gaps": {
        "since": _is_engine_time,
        "until": _is_engine_time,
        "reason": _one_of("deleted", "refused", "unreachable", "invalid"),
        "found_at": _is_time,
        "closed_at": _is_time,
    },
}
"""The format of each column that has one beyond its type."""


def check_values(connection: Connection, filled: Collection[str], newest: int, limit: int) -> Iterator[tuple[str, str]]:
    """Yield a sentence with a place for a key, and the key, for each invalid value.

    Args:
        connection: any connection.
        filled: the names of the tables that have rows.
        newest: the newest time of the ledger, in microseconds since 1970.
        limit: maximum number of rows of each table.
    """
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        driver: Any = connection.connection.driver_connection
        driver.create_function("flowhooks_is_utf8", 1, _is_utf8, deterministic=True)
    for table in (table for table in metadata.sorted_tables if table.name in filled):
        find, describe = _queries(table, limit, is_sqlite=is_sqlite)
        if connection.execute(find, {"newest": newest}).first() is None:
            continue
        columns = list(table.c)
        for row in connection.execute(describe, {"newest": newest}):
            key, *invalid = row
            for column, is_invalid in zip(columns, invalid, strict=True):
                if is_invalid:
                    yield f"{table.name} {{}} has an invalid {column.name}", key


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@cache
def _queries(table: Table, limit: int, *, is_sqlite: bool) -> tuple[Any, Any]:
    """Return two queries: for a row with an invalid value, and for all such rows, at most `limit`.

    The second query returns a row's key, and for each column whether it is invalid. Databases take longer to parse it
    than to read a small table, and hardly a ledger needs it.
    """
    ill_formatted = [_is_missing_or_not(column, _conditions(column, is_sqlite=is_sqlite)) for column in table.c]
    if not is_sqlite:
        return _find_and_describe(table, or_(*ill_formatted), ill_formatted, limit)
    texts = [column for column in table.c if isinstance(column.type, Text)]
    undecodable = {column: ~_is_utf8_text(func.coalesce(column, "")) for column in texts}
    # One call of the function for each row, and not for each column.
    whole: ColumnElement[str] = func.coalesce(texts[0], "")
    for column in texts[1:]:
        whole = whole.concat(_SEPARATOR).concat(func.coalesce(column, ""))
    flags = [
        or_(condition, undecodable[column]) if column in undecodable else condition
        for column, condition in zip(table.c, ill_formatted, strict=True)
    ]
    return _find_and_describe(table, or_(*ill_formatted, ~_is_utf8_text(whole)), flags, limit)


def _find_and_describe(
    table: Table, is_invalid: ColumnElement[bool], flags: list[ColumnElement[bool]], limit: int
) -> tuple[Any, Any]:
    return (
        select(literal_column("1")).select_from(table).where(is_invalid).limit(1),
        select(_key(table), *map(_flag, flags)).where(is_invalid).limit(limit),
    )


def _key(table: Table) -> ColumnElement[str]:
    first, *others = table.primary_key
    text: ColumnElement[str] = func.coalesce(cast(first, Text), "")
    for column in others:
        text = text.concat(" ").concat(func.coalesce(cast(column, Text), ""))
    return text.label("key")


def _flag(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _is_utf8_text(text: ColumnElement[Any]) -> ColumnElement[bool]:
    return func.flowhooks_is_utf8(cast(text, LargeBinary), type_=Boolean)


def _conditions(column: Column[Any], *, is_sqlite: bool) -> list[ColumnElement[bool]]:
    """Return the conditions of a value that is stored in a column."""
    conditions: list[ColumnElement[bool]] = []
    if is_sqlite:
        conditions.append(func.typeof(column) == _sqlite_type(column))
    if (has_format := _FORMATS[column.table.name].get(column.name)) is not None:
        conditions.append(has_format(column))
    return conditions


def _sqlite_type(column: Column[Any]) -> str:
    """Return the type in which SQLite stores the values of a column."""
    if isinstance(column.type, Double):
        return "real"
    return "text" if isinstance(column.type, Text) else "integer"


def _is_missing_or_not(column: Column[Any], conditions: list[ColumnElement[bool]]) -> ColumnElement[bool]:
    """Return the condition that a value does not meet these conditions, or is null where null is not allowed."""
    violated = ~func.coalesce(and_(true(), *conditions), false(), type_=Boolean)
    return and_(column.is_not(None), violated) if column.nullable else or_(column.is_(None), violated)
