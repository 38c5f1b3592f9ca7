"""Checks of single rows that no query can compute: checksums, JSON, routes. They change nothing.

Memory is bounded: events are read in batches, each with the deliveries of its events.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, Select, select

from flowhooks import schema
from flowhooks.clock import DAY, id_time
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import checksums, database, field_checks, purge
from flowhooks.ledger.filled_tables import leading_table
from flowhooks.ledger.row_stream import batches
from flowhooks.ledger.tables import (
    alerts,
    attempts,
    audit_log,
    conclusions,
    conflicts,
    deliveries,
    engine_instances,
    engine_positions,
    event_fields,
    events,
    handlers,
    late_callbacks,
    processes,
    purged_identities,
)
from flowhooks.model.event import EventState, NoMatch, Origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection

    Problem = tuple[str, str]
    """A sentence with a place for an id, and the id."""

_EVENTS: Final = select(events)
_DELIVERIES_OF: Final = select(
    deliveries.c.id, deliveries.c.event_id, deliveries.c.handler, deliveries.c.order_key, deliveries.c.created_at
).where(deliveries.c.event_id.in_(database.string_array("ids")))
_LATE_OF: Final = select(late_callbacks.c.event_id).where(late_callbacks.c.event_id.in_(database.string_array("ids")))
_CONCLUSIONS: Final = select(
    conclusions.c.sha256, conclusions.c.callback_class, conclusions.c.process_definition_key, conclusions.c.conclusion
)
_OF_EVENT: Final = itemgetter(*(list(events.c.keys()).index(name) for name in checksums.EVENT_COLUMNS))
_IDENTITY: Final = attrgetter("source", "kind", "flow_instance_id", "callback_class")
_BODIES: Final = (
    (conflicts, attrgetter(*checksums.CONFLICT_COLUMNS), "the conflicting body of event {}"),
    (late_callbacks, attrgetter(*checksums.BODY_COLUMNS), "the body of a late callback of event {}"),
)
"""The tables with further bodies of events, the columns that their checksums cover, and the name of their rows."""


def _json_column(key: ColumnElement[str], text: ColumnElement[Any]) -> Select[Any]:
    return select(key.label("key"), text.label("text"))


_JSON_OBJECTS: Final[tuple[tuple[Select[Any], type, str], ...]] = (
    (
        _json_column(handlers.c.id, handlers.c.selectors),
        dict,
        "handler {} has selectors that are not a JSON object",
    ),
    (
        _json_column(handlers.c.id, handlers.c.retry).where(handlers.c.retry.is_not(None)),
        dict,
        "handler {} has a retry schedule that is not a JSON object",
    ),
    (
        _json_column(processes.c.id, processes.c.handlers),
        list,
        "process {} has a list of handlers that is not a JSON array",
    ),
    (
        _json_column(alerts.c.id, alerts.c.notified),
        list,
        "alert {} has a list of notified plugins that is not a JSON array",
    ),
    (
        _json_column(alerts.c.id, alerts.c.accepted),
        list,
        "alert {} has a list of plugins that accepted it that is not a JSON array",
    ),
    (
        _json_column(alerts.c.id, alerts.c.resolution_due),
        list,
        "alert {} has a list of plugins to be notified of its end that is not a JSON array",
    ),
    (
        _json_column(alerts.c.id, alerts.c.notification_errors),
        dict,
        "alert {} has notification errors that are not a JSON object",
    ),
    (
        _json_column(audit_log.c.id, audit_log.c.detail),
        dict,
        "entry {} of the audit log has a detail that is not a JSON object",
    ),
    (
        _json_column(attempts.c.delivery_id, attempts.c.result).where(attempts.c.result.is_not(None)),
        object,
        "delivery {} has a result that is not JSON",
    ),
    (
        _json_column(engine_instances.c.flow_instance_id, engine_instances.c.body).where(
            engine_instances.c.body.is_not(None)
        ),
        dict,
        "engine instance {} has a body that is not a JSON object",
    ),
    (
        _json_column(engine_positions.c.source, engine_positions.c.former_names),
        list,
        "the engine of source {} has former names that are not a JSON array",
    ),
    (
        _json_column(engine_positions.c.source, engine_positions.c.definitions).where(
            engine_positions.c.definitions.is_not(None)
        ),
        object,
        "the engine of source {} has definitions that are not JSON",
    ),
)


def check_rows(connection: Connection, filled: Collection[str]) -> Iterator[Problem]:
    """Yield the problems of single rows of the tables with these names, which are those that have rows."""
    any_purged = purged_identities.name in filled
    any_field = event_fields.name in filled
    for batch in batches(connection, _EVENTS):
        readable = [
            row for row in batch if _is_readable(row) and _is_text(row.id, row.body, row.route, *_IDENTITY(row))
        ]
        if any_purged:
            yield from _identities(connection, readable)
        yield from _events(connection, readable)
        if any_field:
            yield from field_checks.check_values(connection, readable)
    yield from _further_bodies(connection, filled)
    if conclusions.name in filled:
        yield from _conclusions(connection)
    for query, kind, sentence in _JSON_OBJECTS:
        if leading_table(query) not in filled:
            continue
        for batch in batches(connection, query):
            yield from ((sentence, row.key) for row in batch if not _is_json(row.text, kind))


def _further_bodies(connection: Connection, filled: Collection[str]) -> Iterator[Problem]:
    for table, columns, name in _BODIES:
        if table.name not in filled:
            continue
        for batch in batches(connection, select(table)):
            for row in batch:
                if _is_readable(row) and _is_text(row.body):
                    yield from _checksums(row, columns(row), name, row.event_id)


def _conclusions(connection: Connection) -> Iterator[Problem]:
    for batch in batches(connection, _CONCLUSIONS):
        for row in batch:
            sha256, texts = row.sha256, [str(text) for text in tuple(row)[1:]]
            if sha256 != checksums.texts_sha256(texts):
                yield "the recorded conclusion {} does not match its checksum", sha256


def _is_readable(row: Sequence[Any]) -> bool:
    """Tell whether a row has no value of a type that no column has. `value_checks` reports those of a damaged file."""
    return not any(isinstance(value, bytes | float) for value in row)


def _is_text(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


def _identities(connection: Connection, batch: Sequence[Any]) -> Iterator[Problem]:
    event_ids = {_identity_sha256(row): row.id for row in batch}
    for digest in purge.find_purged(connection, event_ids):
        yield "event {} is stored, although its identity is kept as that of a purged event", event_ids[digest]


def _identity_sha256(row: Any) -> str:
    if row.corrects is not None:
        return checksums.correction_sha256(row.corrects, row.digest)
    return checksums.identity_sha256(_IDENTITY(row), row.instance_started_at)


def _events(connection: Connection, batch: Sequence[Any]) -> Iterator[Problem]:
    deliveries_of = defaultdict(list)
    for delivery in connection.execute(_DELIVERIES_OF, {"ids": json.dumps([row.id for row in batch])}):
        deliveries_of[delivery.event_id].append(delivery)
    replaced = _with_late_callbacks(connection, batch)
    for row in batch:
        its_deliveries = deliveries_of[row.id]
        yield from _checksums(row, _OF_EVENT(row), "event {}", row.id)
        if row.identity_sha256 != _identity_sha256(row):
            yield "event {} is stored under the identity of another event", row.id
        if row.row_sha256 is None:
            yield from _columns(row)
        yield from _route(row, {delivery.handler for delivery in its_deliveries})
        if row.no_match is not None and NoMatch.from_json(row.no_match) is None:
            yield "event {} has reasons for not matching that cannot be read", row.id
        for delivery in its_deliveries:
            yield from _delivery(row, delivery, is_replaced=row.id in replaced)


def _checksums(row: Any, values: Sequence[Any], name: str, key: str) -> Iterator[Problem]:
    """Compare a row with its checksums."""
    body, whole = row.body_sha256, row.row_sha256
    if body is not None and checksums.body_sha256(row.body) != body:
        yield f"{name} does not have the body that was received", key
    if (body is None) != (whole is None):
        yield f"{name} has no checksum", key
    elif whole is not None and checksums.row_sha256(values) != whole:
        yield f"{name} was changed after it was stored: its columns do not match its checksum", key


def _columns(row: Any) -> Iterator[Problem]:
    """Compare the columns of an event without checksums with its body."""
    try:
        body = schema.parse_callback(row.body.encode())
    except FlowhooksError:
        yield "event {} has a body that is not a JSON object", row.id
        return
    expected = {
        "business_key": body.get("businessKey"),
        "callback_class": body.get("callBackProcessClass") or "",
        "process_definition_id": body.get("processDefinitionId"),
        # Where the body has none, it may be taken from the id.
        "process_definition_key": body.get("processDefinitionKey") or row.process_definition_key,
        "process_definition_version": body.get("processDefinitionVersion", row.process_definition_version),
    }
    if wrong := [name for name, value in expected.items() if getattr(row, name) != value]:
        yield f"event {{}} has a {wrong[0]} that its body does not have", row.id


def _route(row: Any, handlers: set[str]) -> Iterator[Problem]:
    parsed = _read_route(row.route)
    if parsed is None:
        yield "event {} has a route that is not a JSON object of reasons", row.id
        return
    route, asked_for = parsed
    if route != handlers:
        yield "event {} has deliveries to other handlers than its route", row.id
    if len(route) != row.route_size:
        yield "event {} has a route whose size differs from the recorded size", row.id
    if asked_for and row.state != EventState.ROUTED:
        yield "event {} has a handler of its class or key, but is not routed", row.id


@lru_cache(maxsize=1024)
def _read_route(text: str) -> tuple[frozenset[str], bool] | None:
    """Return the handlers of a stored route, and whether any matched by name; None if it is invalid.

    Cached, because most events of a ledger have one of a few routes.
    """
    try:
        route = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(route, dict) or not all(isinstance(why, str) for why in route.values()):
        return None
    return frozenset(route), any(not why.startswith("every") for why in route.values())


def _with_late_callbacks(connection: Connection, batch: Sequence[Any]) -> set[str]:
    """Return the ids of the events whose body a late callback may have replaced."""
    reconciled = [row.id for row in batch if row.origin == Origin.RECONCILED]
    return set(connection.execute(_LATE_OF, {"ids": json.dumps(reconciled)}).scalars()) if reconciled else set()


def _delivery(event: Any, delivery: Any, *, is_replaced: bool) -> Iterator[Problem]:
    if not _is_text(delivery.id, delivery.order_key or "") or not isinstance(delivery.created_at, int):
        return
    # A late callback replaces the values of which the key was made.
    if delivery.order_key is not None and not is_replaced:
        keys = [key for key in (event.business_key, event.process_definition_key) if key is not None]
        if delivery.order_key not in keys and delivery.order_key not in {
            hashlib.sha256(key.encode()).hexdigest() for key in keys
        }:
            yield "delivery {} has an order key that its event does not have", delivery.id
    made_at = id_time(delivery.id)
    if made_at is not None and abs(delivery.created_at - made_at) > DAY:
        yield "delivery {} has a creation time that differs from its id", delivery.id


def _is_json(text: Any, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (TypeError, ValueError, RecursionError):
        return False
