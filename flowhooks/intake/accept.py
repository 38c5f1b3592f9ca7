"""Accept a callback: route it, store it, and wait for its handlers for a limited time."""

from __future__ import annotations

import time
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import (
    IdentityConflict,
    InvalidCallback,
    LedgerUnusable,
    NewerSelectorsError,
    Unauthorized,
    Unavailable,
)
from flowhooks.failpoints import hit
from flowhooks.intake.callback import Answer, AnswerStatus, TakenIn
from flowhooks.ledger.accept_results import BatchRolledBack, EventBatch
from flowhooks.ledger.new_event import NewEvent
from flowhooks.ledger.purge import PURGED
from flowhooks.ledger.queries import DeliveryStatus
from flowhooks.model.delivery import COMPLETED_STATES, OutcomeKind, State, Trigger
from flowhooks.model.event import EventState, Origin, ParkedBy, digest, from_body
from flowhooks.model.search_fields import indexed_values
from flowhooks.routing.index import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from flowhooks.clock import Clock
    from flowhooks.intake.callback import Callback
    from flowhooks.intake.config import IntakeConfig
    from flowhooks.ledger.accept_results import AcceptResult
    from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.waiters import SpareThreads, Waiter, WaiterRegistry
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.plugins.notifier import HookNotifier
    from flowhooks.settings import RoutingSettings

REVIVE_COOLDOWN: Final = 60 * SECOND
"""Microseconds after its last attempt before a repeated callback can retry a dead delivery: one minute."""

log = structlog.get_logger(__name__)


class Intake:
    """Turns callbacks into stored events and answers.

    Args:
        ledger: stores the events.
        config: the initial configuration; `reconfigure` replaces it.
        handlers: the loaded handlers, by id.
        runs_somewhere: whether a live process runs deliveries of a handler id; callbacks do not wait for others.
        waiters: wait for deliveries.
        notifier: notifies the plugins of new events.
        clock: time and ids.

    Attributes:
        config: the configuration for new callbacks.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        config: IntakeConfig,
        handlers: Mapping[str, Handler],
        runs_somewhere: Callable[[str], bool],
        waiters: WaiterRegistry,
        notifier: HookNotifier,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._handlers = handlers
        self.config = config
        self._runs_somewhere = runs_somewhere
        self._waiters = waiters
        self._notifier = notifier
        self._clock = clock
        self._draining = False

    def reconfigure(self, config: IntakeConfig) -> None:
        """Use a new configuration for new callbacks. Callbacks in progress keep the one that they started with."""
        self.config = config

    def drain(self) -> None:
        """Reject new callbacks, and end the waits of callbacks in progress."""
        self._draining = True
        self._waiters.cancel_all()

    def accept(
        self,
        callback: Callback,
        *,
        wait: float,
        config: IntakeConfig | None = None,
        spare_threads: SpareThreads | None = None,
    ) -> Answer:
        """Store a callback, once per identity, and wait for its handlers.

        Args:
            callback: the callback.
            wait: maximum seconds to wait for the handlers; 0: return as soon as the event is stored.
            config: the configuration that the client was authenticated with; default: the current one.
            spare_threads: the server that has called this thread; None if it cannot replace the thread while it waits.

        Returns:
            The answer. The event is durable.

        Raises:
            IdentityConflict: an earlier callback with the same identity had other data. The new body is stored with the
                earlier event, unless that has been purged.
            Unauthorized: the webhook id was used before, for another callback.
            InvalidCallback: the event is new, no handler matches it, and the settings reject such events.
            Unavailable: the callback is not known to be stored; repeating it is safe.
        """
        if self._draining:
            raise Unavailable("draining")
        new, route = self._build_event(callback, config or self.config)
        started = time.monotonic()
        with self._open_waiter(new, wait) as waiter:
            accepted = self._store(new, waiter, wait, spare_threads)
            _check(accepted, callback)
            if accepted.new:
                self._notifier.event_accepted(new.event, list(new.route))
                left = wait - (time.monotonic() - started)
                statuses = self._wait_for_outcomes(new, waiter, left, spare_threads)
                return _build_answer(accepted.event_id, accepted.state, statuses, route)
        # Its deliveries were not stored, so nothing waits for them. The waiter may have had the last slot.
        return self._answer_repeat(accepted, route, wait=wait, spare_threads=spare_threads)

    def accept_all(
        self,
        callbacks: Sequence[Callback],
        ignored: Sequence[IgnoredRequestRecord] = (),
        *,
        config: IntakeConfig | None = None,
    ) -> list[Answer | IdentityConflict]:
        """Store the callbacks of one request, all or none, and count its ignored parts. Never waits for handlers.

        Args:
            callbacks: the callbacks; may be empty.
            ignored: what an ignore rule answers.
            config: as of `accept`.

        Returns:
            The answer to each callback, or its conflict, once everything is durable.

        Raises:
            Unauthorized, InvalidCallback, Unavailable: as of `accept`, for one of the callbacks. Nothing is stored.
        """
        if self._draining:
            raise Unavailable("draining")
        built = [self._build_event(callback, config or self.config) for callback in callbacks]
        batch = EventBatch(tuple(new for new, _ in built), tuple(ignored))
        try:
            results = self._ledger.wait_for(self._ledger.accept(batch))
        except BatchRolledBack as error:
            _check_all(error.results, callbacks)
            raise
        _check_all(results, callbacks)
        for (new, _), result in zip(built, results, strict=True):
            if result.new:
                self._notifier.event_accepted(new.event, list(new.route))
        repeats = self._retry_dead([result for result in results if not result.new and not result.conflict])
        answers: list[Answer | IdentityConflict] = []
        for (new, route), result in zip(built, results, strict=True):
            if result.conflict:
                answers.append(IdentityConflict(result.event_id, purged=result.state == PURGED))
                continue
            statuses = self._wait_for_outcomes(new, None, 0, None) if result.new else repeats[result.event_id]
            answers.append(_build_answer(result.event_id, result.state, statuses, route))
        return answers

    def take_in(self, callback: Callback) -> TakenIn:
        """Store a finished instance from an engine's history as an event, unless it has one.

        An event that no handler takes is parked, also if the settings reject such callbacks: no engine would get the
        answer.

        Args:
            callback: the callback that the instance becomes, with the origin `"reconciled"`.

        Returns:
            The event of the instance. It is durable.

        Raises:
            Unavailable: the instance is not known to be stored; calling again is safe.
        """
        if self._draining:
            raise Unavailable("draining")
        new, _ = self._build_event(callback, self.config)
        accepted = self._ledger.wait_for(self._ledger.accept(new))
        hit("take_in.committed")
        if accepted.new:
            is_routed = accepted.state == EventState.ROUTED
            self._notifier.event_accepted(new.event, list(new.route) if is_routed else [])
        return TakenIn(
            event_id=accepted.event_id,
            disposition="purged" if accepted.state == PURGED else "has_event",
            new=accepted.new,
            reused_id=accepted.instance_id_reused,
        )

    def _open_waiter(self, new: NewEvent, wait: float) -> AbstractContextManager[Waiter | None]:
        """Register a waiter before the event is stored, so that it misses nothing."""
        awaited = [
            delivery_id
            for delivery_id, handler in new.deliveries
            if handler not in new.missing_handlers and self._runs_somewhere(handler)
        ]
        if wait <= 0 or not awaited:
            return nullcontext()
        return self._waiters.open(new.event.id, awaited, wait) or nullcontext()

    def _store(
        self, new: NewEvent, waiter: Waiter | None, seconds: float, spare_threads: SpareThreads | None
    ) -> AcceptResult:
        """Store an event, and wait at once for its outcomes if there is a waiter; return the result of the storing."""
        stored, left = self._ledger.accept(new), self._ledger.write_timeout
        # If plugins are notified of stored events, this thread queues the notification, and waits for handlers then.
        if waiter is not None and not self._notifier.has_subscribers:
            started = time.monotonic()
            waiter.wait_from_storing(stored, new.deliveries, min(seconds, left), spare_threads)
            left -= time.monotonic() - started
        return self._ledger.wait_for(stored, max(0.0, left))

    def _wait_for_outcomes(
        self, new: NewEvent, waiter: Waiter | None, seconds: float, spare_threads: SpareThreads | None
    ) -> Collection[DeliveryStatus]:
        """Wait for the deliveries of a stored event; return their statuses."""
        known: dict[str, DeliveryStatus] = {}
        if waiter is not None:
            if waiter.is_pending:
                self._stop_waiting_for_idle(new, waiter)
                waiter.wait(max(0.0, seconds), spare_threads)
            is_pending = waiter.is_pending  # before the copy, which would lack an outcome that is recorded in between
            known |= waiter.delivery_statuses
            if is_pending:
                known |= self._read_statuses(new.event.id)
        statuses = {
            delivery_id: known.get(delivery_id)
            or DeliveryStatus(
                delivery_id=delivery_id,
                handler=handler,
                state=State.WAITING,
                attempt=0,
                due_at=None if handler in new.missing_handlers else new.now,
            )
            for delivery_id, handler in new.deliveries
        }
        return (statuses | known).values()

    def _stop_waiting_for_idle(self, new: NewEvent, waiter: Waiter) -> None:
        """Stop waiting for deliveries that have not started, and whose handler no process runs since the routing."""
        of_idle = {delivery_id for delivery_id, handler in new.deliveries if not self._runs_somewhere(handler)}
        awaited = waiter.pending_of(of_idle) if of_idle else ()
        found = self._read_statuses(new.event.id) if awaited else {}
        self._waiters.notify_snapshot(new.event.id, found.values())
        for delivery_id in awaited:
            if delivery_id not in found or found[delivery_id].state is not State.RUNNING:
                waiter.stop_waiting_for(delivery_id)

    def _build_event(self, callback: Callback, config: IntakeConfig) -> tuple[NewEvent, Route]:
        now = self._clock.now()
        settings, router = config.settings, config.router
        name = settings.source_name(callback.source)
        source = settings.sources.get(name)
        event: Event = from_body(
            callback.body,
            id=self._clock.new_id(),
            source=name,
            kind=callback.kind,
            flow_instance_id=callback.flow_instance_id,
            received_at=to_datetime(now),
            conclusions=source.conclusion if source else {},
            origin=callback.origin,
            traceparent=callback.traceparent,
        )
        is_reconciled = callback.origin == Origin.RECONCILED
        former_names = source.former_names if source is not None else ()
        locks_instance = is_reconciled or bool(former_names) or (source is not None and source.engine is not None)
        try:
            route = router.route(event)
        except NewerSelectorsError as error:
            raise Unavailable("newer_handlers") from error
        if callback.end_undecided:
            route = Route({}, EventState.PARKED, ParkedBy.END_STATE)
        if (
            not is_reconciled
            and (rejection := _rejection_key(route, settings.routing))
            and not self._is_stored(event, former_names, may_be_taken_in=locks_instance)
        ):
            raise InvalidCallback(rejection)
        explained = route.parked_by is not ParkedBy.END_STATE and (
            route.state is not EventState.ROUTED or route.undecided
        )
        no_match = router.no_match(event) if explained else None
        new = NewEvent(
            event=event,
            body=callback.text,
            digest=digest(callback.body, settings.ignore_pointers(name)),
            state=route.state,
            parked_by=route.parked_by,
            dismissed_by=route.dismissed_by,
            no_match=no_match.to_json() if no_match and no_match.total else None,
            unknown_conclusion=route.unknown_conclusion,
            route=route.handlers,
            deliveries=[(self._clock.new_id(), handler) for handler in route.handlers],
            missing_handlers=config.missing_handlers,
            order_keys=router.order_keys(event, route.handlers),
            webhook_id=callback.webhook_id,
            read=self._notifier.has_subscribers,
            locks_instance=locks_instance,
            started_at=callback.started_at,
            ended_at=callback.ended_at,
            former_names=former_names,
            now=now,
            raw_body=callback.raw_body,
            media_type=callback.media_type,
            webhook_digest=callback.webhook_digest,
            indexed_values=indexed_values(event.data, settings.search.fields) if settings.search.fields else (),
        )
        return new, route

    def _is_stored(self, event: Event, former_names: tuple[str, ...], *, may_be_taken_in: bool) -> bool:
        """Return whether an event has the identity, or was taken in for the instance, under a name of the source."""
        _, kind, instance, callback_class = event.identity
        names = (event.source, *former_names)
        try:
            return any(self._ledger.is_stored((name, kind, instance, callback_class)) for name in names) or (
                may_be_taken_in and any(self._ledger.is_taken_in(name, event.flow_instance_id) for name in names)
            )
        except LedgerUnusable as error:
            raise Unavailable("ledger_down") from error

    def _answer_repeat(
        self, accepted: AcceptResult, route: Route, *, wait: float, spare_threads: SpareThreads | None
    ) -> Answer:
        """Answer a repeated callback: keep succeeded deliveries, wait for active ones, retry dead ones."""
        dead = {
            status.delivery_id: status.attempt for status in accepted.delivery_statuses if status.state is State.DEAD
        }
        delivery_statuses = self._retry_dead([accepted])[accepted.event_id]
        unfinished = [status for status in delivery_statuses if self._may_progress(status)]
        if unfinished and wait > 0:
            started = time.monotonic()
            delivery_ids = [status.delivery_id for status in unfinished]
            waiter = self._waiters.open(accepted.event_id, delivery_ids, wait, retried=dead)
            with waiter or nullcontext():
                if waiter is not None:
                    self._waiters.notify_snapshot(accepted.event_id, self._read_statuses(accepted.event_id).values())
                    waiter.wait(max(0.0, wait - (time.monotonic() - started)), spare_threads)
                    is_pending = waiter.is_pending  # before the copy, as above
                    latest = {status.delivery_id: status for status in delivery_statuses} | waiter.delivery_statuses
                    if is_pending:
                        latest |= self._read_statuses(accepted.event_id)
                    delivery_statuses = tuple(latest.values())
        return _build_answer(accepted.event_id, accepted.state, delivery_statuses, route)

    def _may_progress(self, status: DeliveryStatus) -> bool:
        if status.state is State.WAITING:
            return status.due_at is not None and self._runs_somewhere(status.handler)
        return status.state is State.RUNNING

    def _retry_dead(self, repeats: Sequence[AcceptResult]) -> dict[str, tuple[DeliveryStatus, ...]]:
        """Retry dead deliveries of events that are repeated; return the deliveries of each event by its id."""
        now, missing_handlers = self._clock.now(), self.config.missing_handlers
        statuses_of = {repeat.event_id: repeat.delivery_statuses for repeat in repeats}
        retryable = {
            event_id: found
            for event_id, statuses in statuses_of.items()
            if (found := [status for status in statuses if self._may_retry(status, now)])
        }
        if retryable:
            dead = [status for found in retryable.values() for status in found]
            self._ledger.write(
                partial(
                    self._ledger.requeue,
                    delivery_statuses=dead,
                    trigger=Trigger.REPEATED,
                    missing_handlers=missing_handlers,
                )
            )
        for event_id in retryable:
            before = {status.delivery_id: status for status in statuses_of[event_id]}
            statuses_of[event_id] = tuple((before | self._read_statuses(event_id)).values())
        return statuses_of

    def _read_statuses(self, event_id: str) -> dict[str, DeliveryStatus]:
        """Return the statuses of an event's deliveries by delivery id; empty if the ledger cannot be read."""
        try:
            return {status.delivery_id: status for status in self._ledger.delivery_statuses(event_id)}
        except LedgerUnusable:
            return {}  # the event is stored, so an error must not fail the callback

    def _may_retry(self, status: DeliveryStatus, now: int) -> bool:
        handler = self._handlers.get(status.handler)
        return (
            status.state is State.DEAD
            and status.outcome is not OutcomeKind.REJECTED
            and handler is not None
            and handler.retry is not None
            # A much later time is that of a clock that was ahead. The clocks of processes differ a little.
            and (status.finished_at is None or abs(now - status.finished_at) >= REVIVE_COOLDOWN)
        )


def _check(accepted: AcceptResult, callback: Callback) -> None:
    """Raise the error for a callback that was neither stored nor is a repeated one."""
    if accepted.webhook_id_reused:
        log.warning(
            "webhook_id_reused",
            source=callback.source,
            webhook_id=callback.webhook_id,
            flow_instance_id=callback.flow_instance_id,
            why="the webhook-id was used before for another path or other data",
            next="check whether the engine reuses ids; if not, an attacker has a copy of a request: replace the secret",
        )
        raise Unauthorized("unauthorized", cause="message_reused")
    if accepted.conflict:
        raise IdentityConflict(accepted.event_id, purged=accepted.state == PURGED)
    if accepted.damage:
        log.error(
            "event_damaged",
            event_id=accepted.event_id,
            source=callback.source,
            flow_instance_id=callback.flow_instance_id,
            why=accepted.damage,
            next="run `flowhooks verify`, and restore a backup; repeated callbacks are answered 503 until then",
        )
        raise Unavailable("event_damaged")


def _check_all(results: Sequence[AcceptResult], callbacks: Sequence[Callback]) -> None:
    """Raise the error for a batch of which nothing was stored."""
    for result, callback in zip(results, callbacks, strict=True):
        if not result.conflict:
            _check(result, callback)


def _rejection_key(route: Route, routing: RoutingSettings) -> str | None:
    """Return the message key if the settings reject an event without a handler; otherwise None."""
    if route.parked_by is ParkedBy.HANDLER and routing.no_handler == "reject":
        return "no_handler"
    if route.parked_by is ParkedBy.NAME and routing.no_name == "reject":
        return "no_name"
    return None


def _build_answer(event_id: str, state: str, delivery_statuses: Collection[DeliveryStatus], route: Route) -> Answer:
    states = {status.state for status in delivery_statuses}
    if State.DEAD in states:
        status = AnswerStatus.DEAD
    elif state == EventState.PARKED:
        # A repeated callback has the same body, so its own route gives the reason.
        return Answer(
            event_id=event_id,
            status=AnswerStatus.PARKED,
            delivery_statuses=tuple(delivery_statuses),
            parked_by=route.parked_by,
            # Conditions of `every` handlers do not park an event.
            undecided=route.undecided if route.parked_by is ParkedBy.CONDITION else "",
        )
    elif states <= COMPLETED_STATES:
        status = AnswerStatus.DONE
    else:
        status = AnswerStatus.PENDING
    return Answer(event_id=event_id, status=status, delivery_statuses=tuple(delivery_statuses))
