"""A routed event that is about to be stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from flowhooks import schema
from flowhooks.ledger import checksums
from flowhooks.model.event import EventState, ParkedBy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.model.event import DismissedBy, Event
    from flowhooks.model.search_fields import IndexedValue

_JSON: Final = json.JSONEncoder(ensure_ascii=False)
Identity: TypeAlias = tuple[str, str, str, str]


# Not frozen: each field of a frozen dataclass is set by a call, and one is created for every callback.
@dataclass(slots=True, kw_only=True)
class NewEvent:
    """An event that is to be stored, already routed.

    Attributes:
        event: the event.
        body: its body as received; of a request to a fixed URL: its mapped data as JSON.
        digest: its body's digest.
        state: routed, parked or dismissed.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        no_match: why handlers that share its class or key do not get it, as JSON; None: not stored.
        unknown_conclusion: whether no handler of its class or key names its conclusion.
        route: handler id to the reason why.
        deliveries: (delivery id, handler id) for each of the route's handlers.
        missing_handlers: the ids of the handlers that are not loaded here: their deliveries are suspended.
        order_keys: the order key of the event for each handler that is ordered.
        webhook_id: the id of its signature; None if the callback was not signed.
        read: whether any code reads the event's data after it was stored, plugins that are notified of it included.
        locks_instance: whether its process instance is locked while it is stored: flowhooks asks the engine of its
            source about finished instances, or has learned of this one so.
        started_at: when its instance started, in microseconds since 1970, if reconciliation takes it in; None: not
            known.
        ended_at: when that instance ended, likewise.
        former_names: the earlier names of its source, if its instance is locked.
        instance_started_at: the same as `started_at`, if an earlier instance with its id has an event; otherwise None.
        now: when it was received, in microseconds since 1970.
        raw_body: the body as received, of a request to a fixed URL; otherwise None.
        media_type: the `Content-Type` of `raw_body`, or None.
        indexed_values: the values of its body by which it can be searched.
        webhook_digest: SHA-256 (hexadecimal) of the whole signed request, of a request to a fixed URL: its webhook id
            is valid for all its events. None: the id is valid for the event's path and data.
        body_sha256: SHA-256 (hexadecimal) of its body's bytes.
        identity_sha256: SHA-256 (hexadecimal) of its identity; of a correction: of its original and its digest.
    """

    event: Event
    body: str
    digest: str
    state: EventState
    parked_by: ParkedBy | None = None
    dismissed_by: DismissedBy | None = None
    no_match: str | None = None
    unknown_conclusion: bool = False
    route: Mapping[str, str]
    deliveries: Sequence[tuple[str, str]]
    missing_handlers: frozenset[str] = frozenset()
    order_keys: Mapping[str, str] = field(default_factory=dict)
    webhook_id: str | None = None
    read: bool = True
    locks_instance: bool = False
    started_at: int | None = None
    ended_at: int | None = None
    former_names: tuple[str, ...] = ()
    instance_started_at: int | None = None
    now: int
    raw_body: str | None = None
    media_type: str | None = None
    webhook_digest: str | None = None
    indexed_values: tuple[IndexedValue, ...] = ()
    body_sha256: str = field(init=False)
    identity_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        # Computed here and not in the writer's thread, which all other threads wait for.
        self.body_sha256 = checksums.body_sha256(self.body)
        if self.event.corrects is None:
            self.identity_sha256 = checksums.identity_sha256(self.event.identity, self.instance_started_at)
        else:
            self.identity_sha256 = checksums.correction_sha256(self.event.corrects, self.digest)

    def load(self) -> Event:
        """Return the event for one delivery, with a copy of the data unless nothing else uses them."""
        if not self.read and len(self.deliveries) == 1:
            return self.event
        return replace(self.event, data=schema.parse_callback(self.body.encode()))


def without_route(item: NewEvent) -> NewEvent:
    """Return the item without a route: it may be the instance of an earlier event, so its handlers must not run."""
    if item.parked_by is ParkedBy.END_STATE:
        return item
    return replace(
        item,
        state=EventState.PARKED,
        parked_by=ParkedBy.REUSED_ID,
        dismissed_by=None,
        no_match=None,
        unknown_conclusion=False,
        route={},
        deliveries=(),
        order_keys={},
    )


def event_row(item: NewEvent) -> dict[str, object]:
    """Return the row of `events` of an item."""
    event = item.event
    row: dict[str, object] = {
        "id": event.id,
        "source": event.source,
        "kind": event.kind,
        "flow_instance_id": event.flow_instance_id,
        "callback_class": event.callback_class or "",
        "business_key": event.business_key,
        "process_definition_id": event.process_definition_id,
        "process_definition_key": event.process_definition_key,
        "process_definition_version": event.process_definition_version,
        "body": item.body,
        "digest": item.digest,
        "state": item.state,
        "route": _JSON.encode(item.route),
        "route_size": len(item.route),
        "repeats": 0,
        "received_at": item.now,
        "conclusion": event.conclusion,
        "parked_by": item.parked_by,
        "dismissed_by": item.dismissed_by,
        "no_match": item.no_match,
        "body_sha256": item.body_sha256,
        "identity_sha256": item.identity_sha256,
        "traceparent": event.traceparent,
        "origin": event.origin,
        "instance_started_at": item.instance_started_at,
        "corrects": event.corrects,
        "raw_body": item.raw_body,
        "media_type": item.media_type,
    }
    row["row_sha256"] = checksums.row_sha256(row[name] for name in checksums.EVENT_COLUMNS)
    return row
