"""Queries of events and their deliveries. They change nothing."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, select

from flowhooks import schema
from flowhooks.clock import MAX_TIME, MIN_TIME, to_datetime
from flowhooks.errors import DamagedRow, FlowhooksError, SettingsError
from flowhooks.ledger import database
from flowhooks.ledger.attempt_filters import PLUGIN_PATTERN, parse_plugin
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.ordering import BLOCKED_BY
from flowhooks.ledger.tables import (
    IS_BLOCKED,
    IS_LAST_ATTEMPT,
    IS_RUNNING_OR_FAILED,
    IS_SCHEDULED,
    IS_SUSPENDED,
    IS_WAITING,
    attempts,
    deliveries,
    events,
)
from flowhooks.model.delivery import OutcomeKind, State, Trigger
from flowhooks.model.event import DismissedBy, Event, EventState, NoMatch, Origin
from flowhooks.model.search_fields import FIELD_CONDITION, MAX_CONDITIONS, FieldCondition
from flowhooks.model.trace_context import TRACE_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection


class DeliveryStatus(NamedTuple):
    """The status of a delivery, for answers and listings.

    Attributes:
        delivery_id: the delivery's id.
        handler: its handler's id.
        state: its state.
        attempt: number of attempts that were started.
        due_at: from when it may run or be probed, in microseconds since 1970; None: it is not scheduled.
        outcome: the outcome of its last attempt; None if there was none, or it is running.
        error: the error of its last attempt, in one line.
        finished_at: when its last attempt ended, in microseconds since 1970; None if it has not.
        comment: the comment of an operator or of flowhooks.
        ordered: whether it has an order key.
        blocked_by: the id of the event whose delivery blocks it; None if it is not blocked.
        error_group: the fingerprint of the group of its last attempt's error; None if that has no error, or if the
            status was not read from the ledger.
        damage: which of its values are damaged, so that others stand for them; `""` if none is.
    """

    delivery_id: str
    handler: str
    state: State
    attempt: int
    due_at: int | None
    outcome: OutcomeKind | None = None
    error: str = ""
    finished_at: int | None = None
    comment: str = ""
    ordered: bool = False
    blocked_by: str | None = None
    error_group: str | None = None
    damage: str = ""

    @property
    def is_suspended(self) -> bool:
        """Whether it waits without a due time, because its handler is missing or a condition is undecided."""
        return self.state is State.WAITING and self.due_at is None


SUSPENDED: Final = "suspended"
"""Value of a filter's `state` for waiting deliveries without a due time."""
STATES: Final = (*(state.value for state in State), SUSPENDED, "parked", "dismissed")
"""Values of a filter's `state`: the states of deliveries and `suspended`, then `parked` and `dismissed` for events."""
JSON_SCHEMA_KEY: Final = "more"
"""Key of a field's metadata with the JSON Schema constraints that its type does not express."""
MAX_PLUGINS: Final = 100
"""Maximum number of plugins that a filter in JSON names. Each is a condition of the statement."""
_TIME: Final = {JSON_SCHEMA_KEY: {"minimum": MIN_TIME, "maximum": MAX_TIME}}
_PLUGIN: Final = {JSON_SCHEMA_KEY: {"pattern": f"^{PLUGIN_PATTERN.pattern}$"}}
_FIELDS: Final = {
    JSON_SCHEMA_KEY: {
        "items": {"type": "string", "pattern": f"^{FIELD_CONDITION.pattern}"},
        "minItems": 1,
        "maxItems": MAX_CONDITIONS,
    }
}


ERROR_GROUP_CHARS: Final = re.compile("[0-9a-f]{8,64}")
"""The form of a filter's `error_group`: a fingerprint. Operations accept its first characters, at least eight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """A filter for events, used by every listing and every bulk operation. A field that is not set does not restrict.

    Attributes:
        ids: events with one of these ids.
        flow_instance_id: events of this process instance id of the engine.
        business_key: events with exactly this business key.
        callback_class: events with exactly this callback class.
        process_key: events with exactly this process definition key.
        conclusion: events with exactly this conclusion.
        dismissed_by: events that are dismissed for this reason.
        origin: events of callbacks (`"callback"`), of requests to the fixed URL of a source (`"ingress"`), events taken
            in from an engine's history (`"reconciled"`), or accepted corrections (`"correction"`).
        trace_id: events whose `traceparent` has this trace id of W3C Trace Context: 32 hexadecimal digits.
        handler: events with a delivery for this handler.
        state: events with a delivery in this state or with a `"suspended"` one, or events that are `"parked"` or
            `"dismissed"`.
        error_group: events with a delivery whose last attempt has an error of the group with this fingerprint.
        since: events received at or after this time, in microseconds since 1970.
        until: events received before this time, in microseconds since 1970.
        delivery_ids: events with one of these deliveries.
        plugin: events with an attempt by this plugin (`contracts`), or by this version of it (`contracts==1.4`).
        trigger: events with an attempt that was started for this reason.
        attempted_since: events with an attempt that was started at or after this time, in microseconds since 1970.
            Together with `plugin` and `trigger` it is about the same attempt.
        ran_by: events with a delivery whose last attempt was by this plugin, or by this version of it.
        query: events with exactly this process instance id, event id or delivery id, or with a business key that is
            this text or, from three characters on, begins with it.
        fields: events whose body meets all these conditions on indexed fields. As JSON: texts such as `/amount>=1000`.
        handler_plugins: events with a delivery for a handler of one of these plugins. `query` then means no delivery of
            another plugin.

    Raises:
        SettingsError: there is no such state, reason, origin, trigger or time, a plugin or a trace id is not written
            as described, the query is empty, or there are too many conditions. A typing error must not select all
            events.
    """

    ids: tuple[str, ...] = field(default=(), metadata={JSON_SCHEMA_KEY: {"minItems": 1}})
    flow_instance_id: str | None = None
    business_key: str | None = None
    callback_class: str | None = None
    process_key: str | None = None
    conclusion: str | None = None
    dismissed_by: str | None = field(default=None, metadata={JSON_SCHEMA_KEY: {"enum": tuple(DismissedBy)}})
    origin: str | None = field(default=None, metadata={JSON_SCHEMA_KEY: {"enum": tuple(Origin)}})
    trace_id: str | None = field(default=None, metadata={JSON_SCHEMA_KEY: {"pattern": f"^{TRACE_ID.pattern}$"}})
    handler: str | None = None
    state: str | None = field(default=None, metadata={JSON_SCHEMA_KEY: {"enum": STATES}})
    error_group: str | None = field(
        default=None, metadata={JSON_SCHEMA_KEY: {"pattern": f"^{ERROR_GROUP_CHARS.pattern}$"}}
    )
    since: int | None = field(default=None, metadata=_TIME)
    until: int | None = field(default=None, metadata=_TIME)
    delivery_ids: tuple[str, ...] = field(default=(), metadata={JSON_SCHEMA_KEY: {"minItems": 1}})
    plugin: str | None = field(default=None, metadata=_PLUGIN)
    trigger: str | None = field(default=None, metadata={JSON_SCHEMA_KEY: {"enum": tuple(Trigger)}})
    attempted_since: int | None = field(default=None, metadata=_TIME)
    ran_by: str | None = field(default=None, metadata=_PLUGIN)
    query: str | None = field(default=None, metadata={JSON_SCHEMA_KEY: {"minLength": 1}})
    fields: tuple[FieldCondition, ...] = field(default=(), metadata=_FIELDS)
    handler_plugins: tuple[str, ...] = field(
        default=(), metadata={JSON_SCHEMA_KEY: {"minItems": 1, "maxItems": MAX_PLUGINS}}
    )

    def __post_init__(self) -> None:
        if self.state is not None and self.state not in STATES:
            raise SettingsError(f"state must be one of {', '.join(STATES)}, not {self.state!r}")
        if self.dismissed_by is not None and self.dismissed_by not in set(DismissedBy):
            raise SettingsError(f"dismissed_by must be one of {', '.join(DismissedBy)}, not {self.dismissed_by!r}")
        if self.origin is not None and self.origin not in set(Origin):
            raise SettingsError(f"origin must be one of {', '.join(Origin)}, not {self.origin!r}")
        if self.error_group is not None and not ERROR_GROUP_CHARS.fullmatch(self.error_group):
            raise SettingsError(f"error_group must be 8 to 64 hexadecimal digits, not {self.error_group!r}")
        if self.trace_id is not None and not TRACE_ID.fullmatch(self.trace_id):
            raise SettingsError(f"trace_id must be 32 hexadecimal digits in lower case, not {self.trace_id!r}")
        if self.trigger is not None and self.trigger not in set(Trigger):
            raise SettingsError(f"trigger must be one of {', '.join(Trigger)}, not {self.trigger!r}")
        self._check_search()
        for plugin in (self.plugin, self.ran_by):
            if plugin is not None:
                parse_plugin(plugin)
        times = (self.since, self.until, self.attempted_since)
        if any(time is not None and not MIN_TIME <= time <= MAX_TIME for time in times):
            raise SettingsError("times of a filter must be microseconds since 1970, in the years 1 to 9999")

    def _check_search(self) -> None:
        if self.query == "":
            raise SettingsError("query must not be empty")
        if len(self.fields) > MAX_CONDITIONS:
            raise SettingsError(f"at most {MAX_CONDITIONS} conditions on fields are allowed, not {len(self.fields)}")

    @property
    def has_criteria(self) -> bool:
        """Whether any field is set."""
        return self != EventFilter()

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are set, as JSON values."""
        criteria = {member.name: getattr(self, member.name) for member in fields(self)}
        return {
            name: [str(item) for item in value] if isinstance(value, tuple) else value
            for name, value in criteria.items()
            if value not in (None, ())
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """A stored event, with the state and the deliveries that the ledger has for it.

    Attributes:
        event: the event.
        body: its body as received; of a request to a fixed URL: its mapped data as JSON.
        raw_body, media_type: as of `NewEvent`.
        state: routed, parked or dismissed.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        no_match: why handlers that share its class or key do not get it; None if that was not stored.
        route: handler id to the reason why.
        repeats: number of repeated callbacks.
        delivery_statuses: its deliveries, in the order of their creation.
        damage: which of its values are damaged, so that others stand for them; `""` if none is.
    """

    event: Event
    body: str
    raw_body: str | None = None
    media_type: str | None = None
    state: str
    parked_by: str | None = None
    dismissed_by: str | None = None
    no_match: NoMatch | None = None
    route: dict[str, str]
    repeats: int
    delivery_statuses: tuple[DeliveryStatus, ...]
    damage: str = ""


def to_event(row: Any, data: Mapping[str, Any] | None = None) -> Event:
    """Return the event of a row of `events`, as it was routed.

    Args:
        row: the row.
        data: its data, for a row without the body; default: parsed from the body, so that each caller has a copy of its
            own.

    Raises:
        DamagedRow: the row has no body that can be parsed, or no time.
    """
    try:
        return _to_event(row, data)
    except (FlowhooksError, AttributeError, OverflowError, TypeError, ValueError) as error:
        raise DamagedRow(f"event {row.id} cannot be read: {error}") from error


def _to_event(row: Any, data: Mapping[str, Any] | None) -> Event:
    return Event(
        id=row.id,
        source=row.source,
        kind=row.kind,
        flow_instance_id=row.flow_instance_id,
        business_key=row.business_key,
        callback_class=row.callback_class or None,
        process_definition_id=row.process_definition_id,
        process_definition_key=row.process_definition_key,
        process_definition_version=row.process_definition_version,
        conclusion=row.conclusion,
        data=schema.parse_callback(row.body.encode()) if data is None else data,
        received_at=to_datetime(row.received_at),
        origin=row.origin,
        corrects=row.corrects,
        traceparent=row.traceparent,
    )


_STATUS: Final = select(
    deliveries.c.event_id,
    deliveries.c.id,
    deliveries.c.handler,
    deliveries.c.state,
    deliveries.c.attempt,
    deliveries.c.due_at,
    deliveries.c.comment,
    attempts.c.outcome,
    attempts.c.error,
    attempts.c.finished_at,
    deliveries.c.order_key,
    attempts.c.error_group,
    BLOCKED_BY.label("blocked_by"),
).outerjoin(attempts, IS_LAST_ATTEMPT)
_STATUS_COLUMNS: Final = (
    deliveries.c.handler,
    deliveries.c.state,
    deliveries.c.attempt,
    deliveries.c.due_at,
    deliveries.c.comment,
    attempts.c.outcome,
    attempts.c.finished_at,
    attempts.c.error_group,
)
_STATUSES: Final = _STATUS.where(deliveries.c.event_id.in_(database.string_array("event_ids"))).order_by(
    deliveries.c.id
)
OPEN_STATES: Final[dict[str, tuple[ColumnElement[bool], ...]]] = {
    State.WAITING.value: (IS_WAITING & IS_SCHEDULED, IS_WAITING & IS_BLOCKED, IS_SUSPENDED),
    SUSPENDED: (IS_SUSPENDED,),
    **{
        state.value: (IS_RUNNING_OR_FAILED & (deliveries.c.state == state.value),)
        for state in (State.RUNNING, State.UNKNOWN, State.DEAD)
    },
}
"""For each state of open deliveries in a filter, the conditions that find such deliveries by an index."""


def delivery_statuses(connection: Connection, event_ids: Sequence[str]) -> dict[str, tuple[DeliveryStatus, ...]]:
    """Return the statuses of the deliveries of these events, by event id.

    Raises:
        DamagedRow: a delivery or its last attempt cannot be read.
    """
    by_event: dict[str, list[DeliveryStatus]] = defaultdict(list)
    for row in connection.execute(_STATUSES, {"event_ids": json.dumps(event_ids)}):
        by_event[row.event_id].append(_to_status(row))
    return {event_id: tuple(statuses) for event_id, statuses in by_event.items()}


def shown_delivery_statuses(connection: Connection, event_ids: Sequence[str]) -> dict[str, tuple[DeliveryStatus, ...]]:
    """Do the same for operators: a damaged delivery is *unknown*, and its error says so."""
    by_event: dict[str, list[DeliveryStatus]] = defaultdict(list)
    for row in connection.execute(_STATUSES, {"event_ids": json.dumps(event_ids)}):
        # Without an attempt, all columns of the attempt are null.
        of_attempt = () if row.error is None else (attempts.c.error,)
        repaired, damage = repair(row, (*_STATUS_COLUMNS, *of_attempt))
        status = _to_status(repaired)
        by_event[row.event_id].append(status._replace(error=damage, damage=damage) if damage else status)
    return {event_id: tuple(statuses) for event_id, statuses in by_event.items()}


def find_damage(state: str, route_size: int, statuses: Sequence[DeliveryStatus]) -> str:
    """Return why a repeated callback cannot be answered from these values of its event; `""` if it can.

    Only damaged rows contradict each other, or have a time that is no number. An answer made of them could say that all
    is done.
    """
    if state not in set(EventState):
        return f"the event's state is {state!r}"
    if len(statuses) != route_size:
        return f"the event has {len(statuses)} of {route_size} deliveries"
    for status in statuses:
        if status.state is State.SUCCEEDED and status.outcome not in {OutcomeKind.SUCCEEDED, OutcomeKind.LOST}:
            return f"delivery {status.delivery_id} has succeeded, but its last attempt has not"
        # SQLite keeps values of any type. Whether the delivery is awaited or retried depends on these times.
        if any(type(time) is not int for time in (status.due_at, status.finished_at) if time is not None):
            return f"a time of delivery {status.delivery_id} is no number"
    return ""


def delivery(connection: Connection, delivery_id: str) -> tuple[Event, DeliveryStatus] | None:
    """Return a delivery's event and status; None if there is no delivery with this id."""
    row = connection.execute(_STATUS.where(deliveries.c.id == delivery_id)).one_or_none()
    if row is None:
        return None
    return to_event(connection.execute(select(events).where(events.c.id == row.event_id)).one()), _to_status(row)


def shown_delivery(connection: Connection, delivery_id: str) -> tuple[str, DeliveryStatus, str] | None:
    """Return the id of a delivery's event, its status and its damage, or None. The event may be damaged, too."""
    row = connection.execute(_STATUS.where(deliveries.c.id == delivery_id)).one_or_none()
    if row is None:
        return None
    _, damage = repair(row, [column for column in _STATUS_COLUMNS if column.table is deliveries])
    return row.event_id, _to_status(repair(row, _STATUS_COLUMNS)[0]), damage


def _to_status(row: Any) -> DeliveryStatus:
    try:
        return _read_status(row)
    except ValueError as error:
        raise DamagedRow(f"delivery {row.id} cannot be read: {error}") from error


def _read_status(row: Any) -> DeliveryStatus:
    return DeliveryStatus(
        delivery_id=row.id,
        handler=row.handler,
        state=State(row.state),
        attempt=row.attempt,
        due_at=row.due_at,
        outcome=OutcomeKind(row.outcome) if row.outcome else None,
        error=row.error or "",
        finished_at=row.finished_at,
        comment=row.comment,
        ordered=row.order_key is not None,
        blocked_by=row.blocked_by,
        error_group=row.error_group,
    )


def to_stored_event(row: Any, statuses: tuple[DeliveryStatus, ...]) -> StoredEvent:
    """Return the event of a row of `events` for operators: values of a damaged row are replaced."""
    row, damage = repair(row, list(events.c))
    try:
        event = to_event(row)
    except DamagedRow:
        event, damage = to_event(row, {}), damage or "damaged: body; run `flowhooks verify`"
    no_match = NoMatch.from_json(row.no_match) if row.no_match else None
    if row.no_match and no_match is None:
        damage = damage or "damaged: no_match; run `flowhooks verify`"
    return StoredEvent(
        event=event,
        body=row.body,
        raw_body=row.raw_body,
        media_type=row.media_type,
        state=row.state,
        parked_by=row.parked_by,
        dismissed_by=row.dismissed_by,
        no_match=no_match,
        route=json.loads(row.route),
        repeats=row.repeats,
        delivery_statuses=statuses,
        damage=damage,
    )
