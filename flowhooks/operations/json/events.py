"""Encode events and deliveries as JSON, with the same names in every command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final, TypedDict

from flowhooks.clock import to_text
from flowhooks.ledger import audit, circuit_state, pauses
from flowhooks.ledger.next_attempts import next_attempts
from flowhooks.ledger.search import EventSummary, summarize
from flowhooks.model.delivery import COMPLETED_STATES
from flowhooks.operations.access import FULL
from flowhooks.operations.json.encoding import dataclass_to_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.late_callbacks import LateCallback
    from flowhooks.ledger.queries import DeliveryStatus, StoredEvent
    from flowhooks.ledger.reader import Reader
    from flowhooks.model.delivery import Attempt, OutcomeKind, State, Trigger
    from flowhooks.model.event import NoMatch
    from flowhooks.operations.access import Access
    from flowhooks.operations.json.encoding import TimestampJson

MAX_AUDIT_RECORDS: Final = 100
"""Maximum number of audit records returned for one event, newest first."""


class _DeliveryFields(TypedDict):
    """State of a delivery.

    Attributes:
        id: id of the delivery, the same for all attempts.
        handler: id of the handler.
        state: state of the delivery.
        due_at: earliest time of the next attempt; null if the handler is missing or no attempt is to come.
        outcome: outcome of the last attempt; null if there was none, or while it runs.
        error: error of the last attempt, one line.
        finished_at: when the last attempt ended.
        note: comment of an operator.
        ordered: whether the delivery has an order key, by which it runs in order with others of its handler.
        blocked_by: id of the event whose delivery must finish first, while this one waits.
        error_group: id of the group of the last attempt's error; null if the last attempt has none.
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
    error_group: str | None


class DeliveryJson(_DeliveryFields):
    """One event for one handler, as in listings.

    Attributes:
        attempts: number of attempts started.
    """

    attempts: int


class AttemptJson(TypedDict):
    """One run of a delivery.

    Attributes:
        number: number of the attempt, from 1.
        started_at: when the attempt started.
        finished_at: when the attempt ended; null while it runs.
        seconds: duration; null while the attempt runs, and if it was lost.
        outcome: outcome; null while the attempt runs.
        error: error, one line; empty if the attempt succeeded.
        traceback: traceback of the handler; empty if there is none.
        result: value that the handler returned; null if none was stored.
        result_dropped: why the value that the handler returned is not stored; empty if it is, or there was none.
        process: id of the process that ran the attempt.
        plugin_version: version of the handler's plugin that ran; empty if the plugin has none.
        plugin_digest: SHA-256 of the Python files of the handler's plugin that ran; empty if there are none.
        trigger: why the attempt was started; null if that was not recorded.
        actor: operator who asked for the attempt; empty if no operator did.
        operation_id: id of the bulk operation that asked for the attempt; empty if none did.
        error_group: fingerprint of the error; empty if there is none.
        log: last log records of the handler, one line each, the oldest first; empty if there are none.
    """

    number: int
    started_at: TimestampJson
    finished_at: TimestampJson | None
    seconds: float | None
    outcome: OutcomeKind | None
    error: str
    traceback: str
    result: Any
    result_dropped: str
    process: str
    plugin_version: str
    plugin_digest: str
    trigger: Trigger | None
    actor: str
    operation_id: str
    error_group: str
    log: str


class NextAttemptJson(TypedDict):
    """The attempt of a delivery that runs or comes next.

    Attributes:
        number: its number in the current retry schedule, from 1.
        total: number of attempts of that schedule; null: not known.
    """

    number: int
    total: int | None


class WholeDeliveryJson(_DeliveryFields):
    """One event for one handler, with its attempts.

    Attributes:
        handler_paused_at: when the handler was paused; null: it is not paused.
        handler_circuit_reason: error that opened the handler's circuit; null: the circuit is closed.
        next_attempt: the attempt that runs or comes next; null: none does.
        attempts: attempts, the first one first.
    """

    handler_paused_at: TimestampJson | None
    handler_circuit_reason: str | None
    next_attempt: NextAttemptJson | None
    attempts: list[AttemptJson]


class _EventFields(TypedDict):
    """A stored callback.

    Attributes:
        id: id of the event.
        received_at: when the callback was received.
        source: engine that sent the callback.
        origin: `callback`: the engine called; `ingress`: the engine called the fixed URL of its source; `reconciled`:
            flowhooks took the finished instance from the engine's history; `correction`: an operator accepted a
            conflicting body of another event.
        corrects: id of that other event, which may be purged; null: the event is no correction.
        kind: kind of callback.
        flow_instance_id: process instance id of the engine.
        business_key: business key of the process instance.
        callback_class: callback class, `callBackProcessClass` of the body.
        process_definition_id: process definition id of the engine.
        process_definition_key: process definition key.
        process_definition_version: process definition version.
        conclusion: how the process ended in business terms; null: the engine sent none.
        state: whether the event is routed, parked or dismissed.
        parked_by: why the event is parked: `handler`, `condition`, `name`, `end_state` or `reused_id`; null: it is
            not parked.
        dismissed_by: why the event is dismissed: `condition`, `kind`, `setting` or `operator`; null: it is not
            dismissed.
        route: why the event goes to each handler, by handler id.
        repeats: how often the same callback was received again.
        damaged: which values are damaged in the database, so that others stand for them; empty: none.
    """

    id: str
    received_at: TimestampJson
    source: str
    origin: str
    corrects: str | None
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
    damaged: str


class EventJson(_EventFields):
    """An event without its body, as in listings.

    Attributes:
        deliveries: deliveries, in the order in which they were created.
    """

    deliveries: list[DeliveryJson]


class ConflictJson(TypedDict):
    """Another body that was sent for an event's identity. It runs no handler.

    Attributes:
        received_at: when the body was first received.
        digest: SHA-256 of the body's JSON values, which names the body.
        kind: kind of callback.
        body: the body as received.
        corrected_by: id of the event of this body, which an operator accepted as a correction; null: not accepted.
    """

    received_at: TimestampJson
    digest: str
    kind: str
    body: str
    corrected_by: str | None


class NoMatchJson(TypedDict):
    """Why handlers that share an event's class or key do not get the event.

    Attributes:
        reasons: reasons by handler id, for up to 20 handlers.
        total: number of such handlers.
    """

    reasons: dict[str, str]
    total: int


class LateCallbackJson(TypedDict):
    """A body beside that of an event that flowhooks took from the engine's history.

    Attributes:
        received_at: when the body was received, or read from the history.
        body: the body.
        repeats: how often the same callback was received again.
    """

    received_at: TimestampJson
    body: str
    repeats: int


class WholeEventJson(_EventFields):
    """An event with everything that is stored about it.

    Attributes:
        no_match: why handlers that share the event's class or key do not get it; null: it is routed, or there are none.
        body: the body as received; of a request to a fixed URL: the data as JSON.
        data: the body without members that are null, as handlers receive it.
        raw_body: body of the request to the fixed URL, as received; null: the event has another origin.
        media_type: Content-Type of that request; null: it had none, or the event has another origin.
        conflicts: other bodies that were sent for the event's identity.
        late_callbacks: bodies of callbacks that arrived after flowhooks had taken the instance from the engine's
            history; if such a callback decided the event, this is the body from the history.
        deliveries: deliveries with their attempts, in the order in which the deliveries were created.
        deliveries_left_out: number of deliveries left out; completed deliveries are left out first.
        audit_entries: operations on the event by its own id, newest first.
        traceparent: the W3C Trace Context that the request had; null: none, or an invalid one.
    """

    no_match: NoMatchJson | None
    body: str
    data: dict[str, Any]
    conflicts: list[ConflictJson]
    late_callbacks: list[LateCallbackJson]
    deliveries: list[WholeDeliveryJson]
    deliveries_left_out: int
    audit_entries: list[Annotated[dict[str, Any], AuditEntry]]
    traceparent: str | None
    raw_body: str | None
    media_type: str | None


def event_to_json(event: StoredEvent | EventSummary) -> EventJson:
    """Return an event without its body."""
    summary = event if isinstance(event, EventSummary) else summarize(event)
    return {**_event_fields(summary), "deliveries": [delivery_to_json(status) for status in summary.delivery_statuses]}


def whole_event_to_json(
    reader: Reader,
    stored: StoredEvent,
    *,
    access: Access = FULL,
    max_deliveries: int | None = None,
    max_attempts: int | None = None,
) -> WholeEventJson:
    """Return an event with everything that is stored about it.

    Args:
        reader: the ledger, from which the remaining data is read.
        stored: the event, as the operator sees it.
        access: what the operator may see.
        max_deliveries: maximum number of deliveries, unfinished ones first; None: all.
        max_attempts: maximum number of attempts per delivery, the last ones; None: all.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    event_id = stored.event.id
    selected = _select_deliveries(stored.delivery_statuses, max_deliveries)
    with reader.connection() as connection:
        paused, open_circuits = pauses.paused(connection), circuit_state.open_circuits(connection)
        coming = next_attempts(connection, selected, 0)
        audit_records = audit.entries(connection, limit=MAX_AUDIT_RECORDS, target=event_id)
    return {
        **_event_fields(summarize(stored)),
        "no_match": _no_match(stored.no_match),
        "body": stored.body,
        "data": dict(stored.event.data),
        "conflicts": [
            {
                "received_at": to_text(conflict.received_at),
                "digest": conflict.digest,
                "kind": conflict.kind,
                "body": conflict.body,
                "corrected_by": conflict.corrected_by,
            }
            for conflict in access.conflicts(reader.conflicts(event_id))
        ],
        "late_callbacks": late_callbacks_to_json(access.late_callbacks(reader.late_callbacks(event_id))),
        "deliveries": [
            {
                **_delivery_fields(status),
                "handler_paused_at": to_text(paused.get(status.handler)),
                "handler_circuit_reason": access.reason(open_circuits[status.handler].reason)
                if status.handler in open_circuits
                else None,
                "next_attempt": {"number": following.number, "total": following.total}
                if (following := coming.get(status.delivery_id))
                else None,
                "attempts": attempts_to_json(access.attempts(reader.attempts(status.delivery_id, last=max_attempts))),
            }
            for status in selected
        ],
        "deliveries_left_out": len(stored.delivery_statuses) - len(selected),
        "audit_entries": [
            dataclass_to_json(access.entry(record)) for record in audit_records if access.sees_entry(record)
        ],
        "traceparent": stored.event.traceparent,
        "raw_body": stored.raw_body,
        "media_type": stored.media_type,
    }


def late_callbacks_to_json(late: Iterable[LateCallback]) -> list[LateCallbackJson]:
    """Return the bodies beside that of an event that was taken in."""
    return [{"received_at": to_text(entry.received_at), "body": entry.body, "repeats": entry.repeats} for entry in late]


def delivery_to_json(status: DeliveryStatus) -> DeliveryJson:
    """Return the state of a delivery."""
    return {**_delivery_fields(status), "attempts": status.attempt}


def attempts_to_json(attempts: Iterable[Attempt]) -> list[AttemptJson]:
    """Return the attempts of a delivery, with their results parsed from JSON text."""
    return [
        {
            "number": attempt.number,
            "started_at": to_text(attempt.started_at),
            "finished_at": to_text(attempt.finished_at),
            "seconds": None if attempt.run_time is None else attempt.run_time / 1_000_000,
            "outcome": attempt.outcome,
            "error": attempt.error,
            "traceback": attempt.traceback,
            "result": None if attempt.result is None else json.loads(attempt.result),
            "result_dropped": attempt.result_dropped,
            "process": attempt.process,
            "plugin_version": attempt.plugin_version,
            "plugin_digest": attempt.plugin_digest,
            "trigger": attempt.trigger,
            "actor": attempt.actor,
            "operation_id": attempt.operation_id,
            "error_group": attempt.error_group,
            "log": attempt.log,
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
        "origin": event.origin,
        "corrects": event.corrects,
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
        "damaged": event.damage,
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
        "error_group": status.error_group,
    }
