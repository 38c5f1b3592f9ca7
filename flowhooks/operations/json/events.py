"""Events and deliveries as JSON has them, with the same names in every command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

from flowhooks.clock import to_text
from flowhooks.ledger import audit, circuit_breaker, pauses
from flowhooks.ledger.search import EventSummary, summarize
from flowhooks.model.delivery import COMPLETED_STATES
from flowhooks.operations.json.encoding import dataclass_to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.queries import DeliveryStatus, StoredEvent
    from flowhooks.ledger.reader import Reader
    from flowhooks.model.delivery import Attempt, OutcomeKind, State
    from flowhooks.model.event import NoMatch
    from flowhooks.operations.json.encoding import TimestampJson

MAX_AUDIT_RECORDS: Final = 100
"""Deeds of operators about one event that are given, the newest ones."""


class _DeliveryFields(TypedDict):
    """How a delivery stands.

    Attributes:
        id: its id, which stays the same over all attempts.
        handler: its handler's id.
        state: its state.
        due_at: from when it may run; null if it waits for its handler, or is done.
        outcome: how its last attempt ended; null if there was none, or while it runs.
        error: that attempt's error, one line.
        finished_at: when that attempt ended.
        note: what an operator said of it.
        ordered: whether it is its turn that it waits for.
        blocked_by: the event whose delivery holds it back while it waits.
    """

    id: str
    handler: str
    state: State
    due_at: TimestampJson | None
    outcome: OutcomeKind | None
    error: str
    finished_at: TimestampJson | None
    note: str
    ordered: bool
    blocked_by: str | None


class DeliveryJson(_DeliveryFields):
    """One event for one handler, as listings have it.

    Attributes:
        attempts: how many attempts have begun.
    """

    attempts: int


class AttemptJson(TypedDict):
    """One run of a delivery.

    Attributes:
        number: from 1.
        started_at: when it began.
        finished_at: when it ended; null while it runs.
        seconds: how long it took; null while it runs.
        outcome: how it ended; null while it runs.
        error: one line; empty if it succeeded.
        traceback: the handler's traceback; empty if there is none.
        result: what the handler returned; null if nothing was kept.
        process: the id of the process that ran it.
    """

    number: int
    started_at: TimestampJson
    finished_at: TimestampJson | None
    seconds: float | None
    outcome: OutcomeKind | None
    error: str
    traceback: str
    result: Any
    process: str


class WholeDeliveryJson(_DeliveryFields):
    """One event for one handler, with its attempts.

    Attributes:
        handler_paused_at: when its handler was paused; null: it is not.
        handler_circuit_reason: the error for which flowhooks itself paused it; null: its circuit is closed.
        attempts: its attempts, the first one first.
    """

    handler_paused_at: TimestampJson | None
    handler_circuit_reason: str | None
    attempts: list[AttemptJson]


class _EventFields(TypedDict):
    """A call-back that was taken.

    Attributes:
        id: its id.
        received_at: when it was taken.
        source: the engine that sent it.
        kind: the kind of call-back.
        flow_instance_id: the engine's process instance id.
        business_key: its business key.
        callback_class: its call-back class.
        process_definition_id: the engine's id of the process definition.
        process_definition_key: its process definition key.
        process_definition_version: its process definition version.
        conclusion: how the process ended in business terms; null: the engine sent none.
        state: whether it is routed, parked or dismissed.
        parked_by: why it is parked: `handler`, `condition` or `name`; null: it is not parked.
        dismissed_by: why it is dismissed: `condition`, `kind`, `setting` or `operator`; null: it is not dismissed.
        route: why it goes to each handler, by the handler's id.
        repeats: how often the same call-back came again.
    """

    id: str
    received_at: TimestampJson
    source: str
    kind: str
    flow_instance_id: str
    business_key: str | None
    callback_class: str | None
    process_definition_id: str | None
    process_definition_key: str | None
    process_definition_version: int | None
    conclusion: str | None
    state: str
    parked_by: str | None
    dismissed_by: str | None
    route: dict[str, str]
    repeats: int


class EventJson(_EventFields):
    """An event without its body, as listings have it.

    Attributes:
        deliveries: its deliveries, in the order in which they were made.
    """

    deliveries: list[DeliveryJson]


class ConflictJson(TypedDict):
    """Another body that came under an event's identity, and was rejected with 409.

    Attributes:
        received_at: when it came.
        body: as it was received.
    """

    received_at: TimestampJson
    body: str


class NoMatchJson(TypedDict):
    """Why handlers that share an event's class or key do not get it.

    Attributes:
        reasons: up to 20 handlers' ids, each with its reason.
        total: how many handlers there are.
    """

    reasons: dict[str, str]
    total: int


class WholeEventJson(_EventFields):
    """All that is known of an event.

    Attributes:
        no_match: why handlers that share its class or key do not get it; null: it is routed, or there are none.
        body: its body as it was received.
        data: the body without its nulls, as handlers are given it.
        conflicts: the other bodies that came under its identity.
        deliveries: its deliveries with their attempts, in the order in which they were made.
        deliveries_left_out: how many more deliveries it has, all of which are done unless there are very many.
        audit_entries: what operators have done about it by its own id, the newest first.
    """

    no_match: NoMatchJson | None
    body: str
    data: dict[str, Any]
    conflicts: list[ConflictJson]
    deliveries: list[WholeDeliveryJson]
    deliveries_left_out: int
    audit_entries: list[Annotated[dict[str, Any], AuditEntry]]


def event_to_json(event: StoredEvent | EventSummary) -> EventJson:
    """An event without its body."""
    summary = event if isinstance(event, EventSummary) else summarize(event)
    return {**_event_fields(summary), "deliveries": [delivery_to_json(status) for status in summary.delivery_statuses]}


def whole_event_to_json(
    reader: Reader, stored: StoredEvent, *, max_deliveries: int | None = None, max_attempts: int | None = None
) -> WholeEventJson:
    """All that is known of an event.

    Args:
        reader: the ledger, which is asked for the rest.
        stored: the event.
        max_deliveries: deliveries at the most, first of all those that are not done; None: all of them.
        max_attempts: attempts of each at the most, the last ones; None: all of them.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    event_id = stored.event.id
    selected = _select_deliveries(stored.delivery_statuses, max_deliveries)
    with reader.connection() as connection:
        paused, open_circuits = pauses.paused(connection), circuit_breaker.open_circuits(connection)
        audit_records = audit.entries(connection, limit=MAX_AUDIT_RECORDS, target=event_id)
    return {
        **_event_fields(summarize(stored)),
        "no_match": _no_match(stored.no_match),
        "body": stored.body,
        "data": dict(stored.event.data),
        "conflicts": [
            {"received_at": to_text(received), "body": body} for received, body in reader.conflicts(event_id)
        ],
        "deliveries": [
            {
                **_delivery_fields(status),
                "handler_paused_at": to_text(paused.get(status.handler)),
                "handler_circuit_reason": open_circuits[status.handler].reason
                if status.handler in open_circuits
                else None,
                "attempts": attempts_to_json(reader.attempts(status.delivery_id, last=max_attempts)),
            }
            for status in selected
        ],
        "deliveries_left_out": len(stored.delivery_statuses) - len(selected),
        "audit_entries": [dataclass_to_json(record) for record in audit_records],
    }


def delivery_to_json(standing: DeliveryStatus) -> DeliveryJson:
    """How a delivery stands."""
    return {**_delivery_fields(standing), "attempts": standing.attempt}


def attempts_to_json(attempts: Iterable[Attempt]) -> list[AttemptJson]:
    """Every attempt of a delivery, with what it returned as JSON rather than as text of it."""
    return [
        {
            "number": attempt.number,
            "started_at": to_text(attempt.started_at),
            "finished_at": to_text(attempt.finished_at),
            "seconds": None if attempt.finished_at is None else (attempt.finished_at - attempt.started_at) / 1_000_000,
            "outcome": attempt.outcome,
            "error": attempt.error,
            "traceback": attempt.traceback,
            "result": None if attempt.result is None else json.loads(attempt.result),
            "process": attempt.process,
        }
        for attempt in attempts
    ]


def _select_deliveries(delivery_statuses: Sequence[DeliveryStatus], max_deliveries: int | None) -> list[DeliveryStatus]:
    """Select the deliveries to list: if there are too many, unfinished ones first."""
    urgent_first = sorted(delivery_statuses, key=lambda status: status.state in COMPLETED_STATES)[:max_deliveries]
    return sorted(urgent_first, key=lambda status: status.delivery_id)


def _event_fields(event: EventSummary) -> _EventFields:
    return {
        "id": event.id,
        "received_at": to_text(event.received_at),
        "source": event.source,
        "kind": event.kind,
        "flow_instance_id": event.flow_instance_id,
        "business_key": event.business_key,
        "callback_class": event.callback_class,
        "process_definition_id": event.process_definition_id,
        "process_definition_key": event.process_key,
        "process_definition_version": event.process_version,
        "conclusion": event.conclusion,
        "state": event.state,
        "parked_by": event.parked_by,
        "dismissed_by": event.dismissed_by,
        "route": dict(event.route),
        "repeats": event.repeats,
    }


def _no_match(no_match: NoMatch | None) -> NoMatchJson | None:
    return None if no_match is None else {"reasons": dict(no_match.reasons), "total": no_match.total}


def _delivery_fields(status: DeliveryStatus) -> _DeliveryFields:
    return {
        "id": status.delivery_id,
        "handler": status.handler,
        "state": status.state,
        "due_at": to_text(status.due_at),
        "outcome": status.outcome,
        "error": status.error,
        "finished_at": to_text(status.finished_at),
        "note": status.comment,
        "ordered": status.ordered,
        "blocked_by": status.blocked_by,
    }
