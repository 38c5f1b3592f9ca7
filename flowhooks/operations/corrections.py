"""Accept a conflicting body as a correction: an event of its own, whose handlers run as new deliveries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from flowhooks import schema
from flowhooks.clock import to_datetime
from flowhooks.errors import InvalidTransition, NotFound, SettingsError
from flowhooks.failpoints import hit
from flowhooks.ledger import corrections
from flowhooks.ledger.new_event import NewEvent
from flowhooks.model.delivery import COMPLETED_STATES, State
from flowhooks.model.event import EventState, Origin, from_body
from flowhooks.model.search_fields import indexed_values
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from flowhooks.ledger.corrections import Conflict
    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.operations.context import OperationContext

MIN_DIGEST_CHARS: Final = 8
"""Minimum length of the beginning of a digest that names a conflicting body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionResult:
    """Result of accepting a conflicting body, or of its dry run.

    Attributes:
        event_id: id of the correction; `""` in a dry run.
        corrects: id of the corrected event.
        digest: digest of the body.
        state: state of the correction: routed, parked or dismissed.
        handlers: ids of its handlers; each runs as a new delivery.
        ran: ids of those handlers that have completed their delivery of the corrected event.
        unfinished: ids of the deliveries of the corrected event that wait or run, and that stay as they are.
        dry_run: whether nothing was changed.
    """

    event_id: str
    corrects: str
    digest: str
    state: str
    handlers: tuple[str, ...]
    ran: tuple[str, ...]
    unfinished: tuple[str, ...]
    dry_run: bool


def accept_correction(
    context: OperationContext,
    event_id: str,
    digest: Annotated[str, {"minLength": MIN_DIGEST_CHARS}],
    *,
    note: str = "",
    dry_run: bool = False,
) -> CorrectionResult:
    """Accept a conflicting body of an event as its correction.

    The body becomes an event of its own, with the origin `"correction"`, and is routed by the current look-up. The
    corrected event stays as it is, with its deliveries.

    Args:
        context: what operations work with.
        event_id: id of the event with the conflicting body.
        digest: digest of the conflicting body, or its beginning of at least 8 characters.
        note: why the body is accepted, stored in the audit log. It is required, except for a dry run.
        dry_run: only report what would be done.

    Raises:
        NotFound: there is no such event, or it has no such conflicting body.
        EventPurged: the event was purged.
        SettingsError: the note is missing, or the beginning of the digest is too short or not unique.
        InvalidTransition: the body was accepted before, or a row is damaged.
        NewerSelectorsError: handlers are registered whose selectors this version cannot read.
        Unavailable: the ledger could not be written; the call changed nothing and may be repeated.
    """
    stored = context.reader.event(event_id)
    conflict = _find(context, event_id, digest)
    if conflict.corrected_by is not None:
        raise corrections.already_accepted(conflict.digest, conflict.corrected_by)
    if damage := stored.damage or conflict.damage:
        raise InvalidTransition(f"the body {conflict.digest[:12]} cannot be accepted because its row is {damage}")
    if not note.strip() and not dry_run:
        raise SettingsError("a correction needs a note that says why the body is accepted")
    item = _build_event(context, stored, conflict)
    if not dry_run:
        detail = {"digest": item.digest, "correction": item.event.id, "deliveries": len(item.deliveries), "note": note}
        ledger = context.ledger
        context.change(
            lambda transaction: corrections.accept(transaction, item, runner=ledger.runner, process=ledger.process),
            lambda _done: AuditRecord("accept_correction", event_id, detail),
        )
        hit("correction.committed")
        context.notify_accepted(item.event, list(item.route))
    statuses = stored.delivery_statuses
    return CorrectionResult(
        event_id="" if dry_run else item.event.id,
        corrects=event_id,
        digest=item.digest,
        state=item.state,
        handlers=tuple(item.route),
        ran=tuple(
            status.handler for status in statuses if status.handler in item.route and _is_completed(status.state)
        ),
        unfinished=tuple(status.delivery_id for status in statuses if status.state in {State.WAITING, State.RUNNING}),
        dry_run=dry_run,
    )


def _is_completed(state: State) -> bool:
    return state in COMPLETED_STATES and state is not State.CLOSED


def _find(context: OperationContext, event_id: str, digest: str) -> Conflict:
    if len(digest) < MIN_DIGEST_CHARS:
        raise SettingsError(f"the beginning of a digest needs at least {MIN_DIGEST_CHARS} characters")
    found = [conflict for conflict in context.reader.conflicts(event_id) if conflict.digest.startswith(digest)]
    if not found:
        raise NotFound(f"event {event_id} has no conflicting body {digest[:64]}")
    if len(found) > 1:
        raise SettingsError(f"event {event_id} has {len(found)} conflicting bodies {digest}…: give the whole digest")
    return found[0]


def _build_event(context: OperationContext, stored: StoredEvent, conflict: Conflict) -> NewEvent:
    original, now = stored.event, context.clock.now()
    source = context.settings.sources.get(original.source)
    event = from_body(
        schema.parse_callback(conflict.body.encode()),
        id=context.clock.new_id(),
        source=original.source,
        kind=conflict.kind,
        flow_instance_id=original.flow_instance_id,
        received_at=to_datetime(now),
        conclusions=source.conclusion if source else {},
        origin=Origin.CORRECTION.value,
        corrects=original.id,
    )
    router = context.router
    route = router.route(event)
    no_match = router.no_match(event) if route.state is not EventState.ROUTED or route.undecided else None
    return NewEvent(
        event=event,
        body=conflict.body,
        digest=conflict.digest,
        state=route.state,
        parked_by=route.parked_by,
        dismissed_by=route.dismissed_by,
        no_match=no_match.to_json() if no_match and no_match.total else None,
        unknown_conclusion=route.unknown_conclusion,
        route=route.handlers,
        deliveries=[(context.clock.new_id(), handler) for handler in route.handlers],
        missing_handlers=frozenset(context.missing_handlers),
        order_keys=router.order_keys(event, route.handlers),
        now=now,
        indexed_values=indexed_values(event.data, context.settings.search.fields),
    )
