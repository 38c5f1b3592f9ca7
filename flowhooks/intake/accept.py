"""Taking a call-back in: route it, store it, wait a little for its handlers; it must not know HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import structlog

from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import (
    Conflict,
    LedgerUnusable,
    NewerSelectorsError,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from flowhooks.ledger.events import NewEvent
from flowhooks.ledger.purge import PURGED
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.model.delivery import DONE, OutcomeKind, State
from flowhooks.model.event import EventState, ParkedBy, digest, from_body

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from flowhooks.clock import Clock
    from flowhooks.intake.waiters import Watch, Watches
    from flowhooks.ledger.events import AcceptResult
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.notifier import Notices
    from flowhooks.routing.index import Route
    from flowhooks.routing.router import Router
    from flowhooks.settings import RoutingSettings, Settings

ANOTHER_ATTEMPT_AFTER: Final = 60 * SECOND
"""A call-back that comes again gives a dead delivery one more attempt, once a minute at the most."""

log = structlog.get_logger(__name__)


class Status(StrEnum):
    """What an answer says, the gravest first."""

    DEAD = "dead"
    PARKED = "parked"
    PENDING = "pending"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBack:
    """A call-back that its schema has accepted.

    Attributes:
        source: the engine that sent it.
        kind: its kind.
        flow_instance_id: from its path.
        body: its JSON object, nulls left out.
        text: its body as received.
        message: the id under which it was signed; None if it was not.
    """

    source: str
    kind: str
    flow_instance_id: str
    body: Mapping[str, Any]
    text: str
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine is told.

    Attributes:
        event_id: the stored event.
        status: dead if any delivery is; else parked; else pending if any is unfinished; else done.
        delivery_statuses: how its deliveries stand.
        parked_by: why the event is parked; None if it is not.
        undecided: the member that a handler's condition lacks, where that is why it is parked; else `""`.
    """

    event_id: str
    status: Status
    delivery_statuses: tuple[DeliveryStatus, ...]
    parked_by: ParkedBy | None = None
    undecided: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a call-back is taken by, from its credential to its route: one object, so that all of it changes at once.

    Attributes:
        settings: as they are now.
        router: says where it goes.
        absent: ids of handlers that are known but not loaded.
    """

    settings: Settings
    router: Router
    absent: frozenset[str]


class Intake:
    """The way of a call-back from its body to its answer.

    Args:
        ledger: stores it.
        rules: what it is taken by, until `go_by` says otherwise.
        handlers: those that are loaded, by id.
        runs: whether a process that lives runs a handler's deliveries: for others nobody waits.
        watches: where to wait.
        notices: who is told of new events.
        clock: time and ids.

    Attributes:
        rules: what a call-back that comes now is taken by.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        rules: Rules,
        handlers: Mapping[str, Handler],
        runs: Callable[[str], bool],
        watches: Watches,
        notices: Notices,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._handlers = handlers
        self.rules = rules
        self._runs = runs
        self._watches = watches
        self._notices = notices
        self._clock = clock
        self._draining = False

    def go_by(self, rules: Rules) -> None:
        """Take what comes from now on by other rules; what has come is taken by those that it came under."""
        self.rules = rules

    def drain(self) -> None:
        """Take nothing more in; those who wait are answered at once."""
        self._draining = True
        self._watches.release()

    def take(self, call_back: CallBack, *, wait: float, rules: Rules | None = None) -> Answer:
        """Store a call-back, once for its identity, and wait for its handlers.

        Args:
            call_back: what was sent.
            wait: seconds to wait for the handlers at the most; 0 answers as soon as it is stored.
            rules: what its sender was let in by; default: those of now.

        Returns:
            The answer. It is durably stored.

        Raises:
            Conflict: its identity came before with other data, which is kept, unless that event has been purged.
            Unauthorized: the id under which it was signed was used before, for another call-back.
            Unprocessable: it is new, nobody wants it, and the settings say to refuse what nobody wants.
            Unavailable: it is not known to be stored; calling again is safe.
        """
        if self._draining:
            raise Unavailable("draining")
        new, route = self._routed(call_back, rules or self.rules)
        event_id = new.event.id
        present = [
            one for one, handler in new.deliveries if handler not in new.missing_handlers and self._runs(handler)
        ]
        watch = self._watches.open(event_id, present, wait) if wait > 0 and present else None
        try:
            accepted = self._stored(new, watch, wait)
            if accepted.webhook_id_reused:
                log.warning(
                    "signature_misused",
                    source=call_back.source,
                    webhook_id=call_back.message,
                    flow=call_back.flow_instance_id,
                    why="its webhook-id was used before for another path or other data",
                    next="ask the engine whether it reuses ids; if not, somebody has a copy: replace its secret",
                )
                raise Unauthorized("unauthorized", cause="message_reused")
            if accepted.conflict:
                raise Conflict(accepted.event_id, purged=accepted.state == PURGED)
            if not accepted.new:
                if watch is not None:
                    # What it was to watch does not exist; its place may be the only one that is free.
                    self._watches.close(event_id, watch)
                    watch = None
                return self._again(accepted, route, wait=wait)
            self._notices.accepted(new.event, list(new.route))
            delivery_statuses = {
                delivery_id: DeliveryStatus(
                    delivery_id=delivery_id,
                    handler=handler,
                    state=State.WAITING,
                    attempt=0,
                    due_at=None if handler in new.missing_handlers else new.now,
                )
                for delivery_id, handler in new.deliveries
            }
            if watch is not None:
                delivery_statuses |= watch.delivery_statuses
                if watch.waits:
                    delivery_statuses |= self._stored_standings(event_id)
            return _answer(event_id, accepted.state, delivery_statuses.values(), route)
        finally:
            if watch is not None:
                self._watches.close(event_id, watch)

    def _stored(self, new: NewEvent, watch: Watch | None, wait: float) -> AcceptResult:
        """Store an event; and where it is watched, wait for its handlers in the same breath.

        To be woken once, by what comes last, is cheaper than to be woken for every step.
        """
        if watch is None:
            return self._ledger.accept(new)

        def known(accepted: AcceptResult | None) -> None:
            if accepted is None or not accepted.new:
                watch.release()
            # Since this one was routed, its handler may have been paused, before there was anything to be told of.
            elif not_run := [one for one, handler in new.deliveries if not self._runs(handler)]:
                self._watches.pass_over(new.event.id, not_run)

        started = time.monotonic()
        stored = self._ledger.accept_async(new, known)
        # No longer than storing may take: whoever cannot be told that it is stored is told that.
        watch.wait(min(wait, self._ledger.timeout))
        accepted = stored(max(0.0, self._ledger.timeout - (time.monotonic() - started)))
        if accepted.new:
            watch.wait(max(0.0, wait - (time.monotonic() - started)))
        return accepted

    def _routed(self, call_back: CallBack, rules: Rules) -> tuple[NewEvent, Route]:
        now = self._clock.now()
        settings, router = rules.settings, rules.router
        source = settings.sources.get(call_back.source)
        event: Event = from_body(
            call_back.body,
            id=self._clock.new_id(),
            source=call_back.source,
            kind=call_back.kind,
            flow_instance_id=call_back.flow_instance_id,
            received_at=to_datetime(now),
            conclusions=source.conclusion if source else {},
        )
        try:
            route = router.route(event)
        except NewerSelectorsError as error:
            raise Unavailable("newer_handlers") from error
        if (refused := _refusal(route, settings.routing)) and not self._is_stored(event):
            raise Unprocessable(refused)
        no_match = router.no_match(event) if route.state is not EventState.ROUTED or route.undecided else None
        new = NewEvent(
            event=event,
            body=call_back.text,
            digest=digest(call_back.body, settings.identity.ignore),
            state=route.state,
            parked_by=route.parked_by,
            dismissed_by=route.dismissed_by,
            no_match=no_match.to_json() if no_match and no_match.total else None,
            unknown_conclusion=route.unknown_conclusion,
            route=route.handlers,
            deliveries=[(self._clock.new_id(), handler) for handler in route.handlers],
            missing_handlers=rules.absent,
            order_keys=router.order_keys(event, route.handlers),
            webhook_id=call_back.message,
            read=self._notices.wanted,
            now=now,
        )
        return new, route

    def _is_stored(self, event: Event) -> bool:
        """Whether it came before: then it is answered as any repeat, whoever wants it by now."""
        try:
            return self._ledger.is_stored(event.identity)
        except LedgerUnusable as error:
            raise Unavailable("ledger_down") from error

    def _again(self, accepted: AcceptResult, route: Route, *, wait: float) -> Answer:
        """Answer a call-back that came before: what succeeded stays, what moves is joined, what is dead may go on."""
        delivery_statuses = accepted.delivery_statuses
        if any(one.state is State.DEAD for one in delivery_statuses):
            delivery_statuses = self._revive(accepted.event_id, delivery_statuses)
        moving = [one for one in delivery_statuses if self._moves(one)]
        if moving and wait > 0:
            started = time.monotonic()
            watch = self._watches.open(accepted.event_id, [one.delivery_id for one in moving], wait)
            if watch is not None:
                try:
                    watch.tell_before(self._stored_standings(accepted.event_id).values())
                    watch.wait(max(0.0, wait - (time.monotonic() - started)))
                    latest = {one.delivery_id: one for one in delivery_statuses} | watch.delivery_statuses
                    if watch.waits:
                        latest |= self._stored_standings(accepted.event_id)
                    delivery_statuses = tuple(latest.values())
                finally:
                    self._watches.close(accepted.event_id, watch)
        return _answer(accepted.event_id, accepted.state, delivery_statuses, route)

    def _moves(self, standing: DeliveryStatus) -> bool:
        """Whether it may settle by itself soon."""
        if standing.state is State.WAITING:
            return standing.due_at is not None and self._runs(standing.handler)
        return standing.state is State.RUNNING

    def _revive(self, event_id: str, delivery_statuses: tuple[DeliveryStatus, ...]) -> tuple[DeliveryStatus, ...]:
        now = self._clock.now()
        again = [one for one in delivery_statuses if self._may_try_again(one, now)]
        if not again:
            return delivery_statuses
        absent = self.rules.absent
        self._ledger.write(lambda transaction: self._ledger.requeue(transaction, again, missing_handlers=absent))
        return tuple(({one.delivery_id: one for one in delivery_statuses} | self._stored_standings(event_id)).values())

    def _stored_standings(self, event_id: str) -> dict[str, DeliveryStatus]:
        """How an event's deliveries stand, by id; nothing where that cannot be read, for it is stored all the same."""
        try:
            return {one.delivery_id: one for one in self._ledger.delivery_statuses(event_id)}
        except LedgerUnusable:
            return {}

    def _may_try_again(self, standing: DeliveryStatus, now: int) -> bool:
        handler = self._handlers.get(standing.handler)
        return (
            standing.state is State.DEAD
            and standing.outcome is not OutcomeKind.REJECTED
            and handler is not None
            and handler.retry is not None
            and (standing.finished_at is None or now - standing.finished_at >= ANOTHER_ATTEMPT_AFTER)
        )


def _refusal(route: Route, routing: RoutingSettings) -> str | None:
    """The message of the refusal, where the settings refuse what would be parked; None: it is stored."""
    if route.parked_by is ParkedBy.HANDLER and routing.no_handler == "reject":
        return "no_handler"
    if route.parked_by is ParkedBy.NAME and routing.no_name == "reject":
        return "no_name"
    return None


def _answer(event_id: str, state: str, delivery_statuses: Collection[DeliveryStatus], route: Route) -> Answer:
    states = {one.state for one in delivery_statuses}
    if State.DEAD in states:
        status = Status.DEAD
    elif state == EventState.PARKED:
        # A repeat is answered by the route of its own body, which is the same.
        return Answer(
            event_id=event_id,
            status=Status.PARKED,
            delivery_statuses=tuple(delivery_statuses),
            parked_by=route.parked_by,
            undecided=route.undecided,
        )
    elif states <= DONE:
        status = Status.DONE
    else:
        status = Status.PENDING
    return Answer(event_id=event_id, status=status, delivery_statuses=tuple(delivery_statuses))
