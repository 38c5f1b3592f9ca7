"""The model: the expected content of a ledger in dictionaries; its only rule is the table of states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.delivery import TRANSITIONS, State
from model.listeners import DEFAULT_RETRY, HANDLERS, SECOND
from model.routes import Callback, Route, decide, route

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from model.bulk import Operation
    from model.listeners import Conditions

DAY: Final = 86_400 * SECOND
IDENTITY_RETENTION: Final = 400 * DAY
REVIVE_COOLDOWN: Final = 60 * SECOND
PROBE_INTERVAL: Final = 60 * SECOND
MAX_CONFLICTS: Final = 10
MAX_LATE_CALLBACKS: Final = 10
ALLOWED_TRANSITIONS: Final = frozenset((row.source, row.target) for row in TRANSITIONS)
TERMINAL_STATES: Final = {State.SUCCEEDED, State.CLOSED, State.DEAD}


@dataclass(slots=True)
class Attempt:
    """One attempt: its process and its outcome."""

    process: str
    outcome: str | None = None
    finished: int | None = None


@dataclass(slots=True)
class Delivery:
    """The delivery of one event to one handler."""

    event: str
    handler: str
    callback: Callback
    changed: int
    due: int | None
    state: State = State.WAITING
    retry_base: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def move(self, target: State, now: int, due: int | None = None) -> None:
        """Change the state as the table permits."""
        assert (self.state, target) in ALLOWED_TRANSITIONS, f"no delivery goes from {self.state} to {target}"
        self.state, self.changed, self.due = target, now, due

    def begin(self, process: str, now: int) -> None:
        """Start an attempt."""
        self.move(State.RUNNING, now)
        self.attempts.append(Attempt(process))

    def end(self, outcome: str, target: State, now: int, due: int | None = None) -> None:
        """End the current attempt."""
        self.move(target, now, due)
        self.attempts[-1].outcome, self.attempts[-1].finished = outcome, now

    def shape(self) -> tuple[Any, ...]:
        """The delivery in a comparable form."""
        attempts = [(attempt.process, attempt.outcome, attempt.finished) for attempt in self.attempts]
        return self.state, len(attempts), self.due, self.changed, self.retry_base, attempts

    def is_current(self, number: int) -> bool:
        """Whether this attempt is running."""
        return self.state is State.RUNNING and number == len(self.attempts)


@dataclass(slots=True)
class Event:
    """An accepted callback, or an instance that was taken in.

    `late_bodies` has the bodies stored beside it: class, body and number of repeats of each. `conflicting_bodies` has
    the bodies that contradict it. `last_body_at` is the time of the last body in either list.
    """

    id: str
    identity: tuple[str, str, str]
    body: Mapping[str, Any]
    received: int
    rerouted: int = 0
    state: str = ""
    parked_by: str | None = None
    dismissed_by: str | None = None
    no_match: frozenset[str] | None = None
    repeats: int = 0
    conflicting_bodies: list[Mapping[str, Any]] = field(default_factory=list)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    origin: str = "callback"
    late_bodies: list[list[Any]] = field(default_factory=list)
    last_body_at: int = 0

    @property
    def callback(self) -> Callback:
        """The input of routing."""
        return Callback(self.identity, self.body)

    def apply_route(self, new_route: Route) -> None:
        """Set the state that a route gives, with its reasons; a routed event stays routed."""
        is_routed = "routed" in {self.state, new_route.state}
        self.state = "routed" if is_routed else new_route.state
        self.parked_by = None if is_routed else new_route.parked_by
        self.dismissed_by = None if is_routed else new_route.dismissed_by
        self.no_match = new_route._replace(state=self.state).no_match


@dataclass(slots=True)
class LedgerModel:
    """The whole expected ledger.

    Attributes:
        shared: whether several processes share it.
        now: the time.
        known: all handlers that were ever loaded, with their conditions then; `loaded` those loaded now, `paused`
            those that are paused.
        events: by id, oldest first.
        purged_identities: the remaining data of purged events, by identity: id and body.
        purged_instances: the same by process instance: when each was received, its id and its origin.
        operations: the bulk operations by id.
        ignored: the number of ignored requests by rule.
        accepted, purged, audit_entries: the numbers of accepted and purged events, and of changes by operators.
    """

    shared: bool
    now: int
    known: dict[str, Conditions] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    events: dict[str, Event] = field(default_factory=dict)
    purged_identities: dict[tuple[str, str, str], tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    purged_instances: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    purged: int = 0
    audit_entries: int = 0

    def deliveries(self, *states: State) -> list[Delivery]:
        """All deliveries, or those in some states."""
        return [
            delivery
            for event in self.events.values()
            for delivery in event.deliveries.values()
            if not states or delivery.state in states
        ]

    @property
    def missing_handlers(self) -> set[str]:
        """Handlers whose deliveries wait without a due time: another process might have loaded them."""
        return set() if self.shared else self.known.keys() - self.loaded

    def route(self, event: Event) -> Route:
        """The present route of an event."""
        return route(event.callback, self.known)

    def decide(self, delivery: Delivery) -> bool | None:
        """Whether the handler's present conditions hold for a delivery; None: undecided."""
        return decide(self.known[delivery.handler], delivery.callback)

    def store(
        self,
        event_id: str,
        identity: tuple[str, str, str],
        body: Mapping[str, Any],
        by: str | None,
        origin: str = "callback",
    ) -> str:
        """Accept a callback, and return its event's id; process `by` starts deliveries at once if possible."""
        if (taken_in := self.taken_in(identity)) is not None:
            return self.add_late(taken_in, identity, body)
        if identity in self.purged_identities:
            return self.purged_identities[identity][0]
        if purged := self.purged_taken_in(identity):
            return purged
        if (event := self.find(identity)) is None:
            event = self.events[event_id] = Event(event_id, identity, body, self.now, origin=origin)
            self.begin(event, by)
        elif event.body == body:
            event.repeats += 1
        elif body not in event.conflicting_bodies and len(event.conflicting_bodies) < MAX_CONFLICTS:
            event.conflicting_bodies.append(body)
            event.last_body_at = self.now
        return event.id

    def begin(self, event: Event, by: str | None) -> None:
        """Route a new event; process `by` starts its deliveries at once if possible."""
        self.accepted += 1
        if event.parked_by == "end_state":
            return
        new_route = self.route(event)
        event.apply_route(new_route)
        self.add_deliveries(event, new_route.handlers)
        for delivery in event.deliveries.values():
            if by is not None and delivery.handler in self.loaded - self.paused:
                delivery.begin(by, self.now)

    def take_in(
        self, event_id: str, identity: tuple[str, str, str], body: Mapping[str, Any], by: str | None, *, undecided: bool
    ) -> tuple[str, str]:
        """Take in an instance; return the id of its event, and its disposition."""
        stored = [(event.received, event.id) for event in self.events.values() if event.identity[0] == identity[0]]
        if stored:
            return max(stored)[1], "has_event"
        if purged := self.purged_instances.get(identity[0]):
            return max(purged)[1], "purged"
        event = self.events[event_id] = Event(event_id, identity, body, self.now, origin="reconciled")
        if undecided:
            event.state, event.parked_by = "parked", "end_state"
        self.begin(event, by)
        return event_id, "has_event"

    def taken_in(self, identity: tuple[str, str, str]) -> Event | None:
        """The event that was taken in for the instance of a callback."""
        return next(
            (
                event
                for event in self.events.values()
                if event.identity[0] == identity[0] and event.origin == "reconciled"
            ),
            None,
        )

    def purged_taken_in(self, identity: tuple[str, str, str]) -> str:
        """The id of the purged event that was taken in for the instance of a callback; `""` if there is none."""
        purged = [entry for entry in self.purged_instances.get(identity[0], []) if entry[2] == "reconciled"]
        return (
            max(purged)[1] if purged and identity not in self.purged_identities and self.find(identity) is None else ""
        )

    def contradicts(self, event: Event, identity: tuple[str, str, str], body: Mapping[str, Any]) -> bool:
        """Whether a late callback and its event both have a named value, and the two differ."""
        names = ("processDefinitionKey", "processDefinitionVersion", "conclusion")
        pairs = [(event.body.get(name), body.get(name)) for name in names]
        pairs.append((event.identity[1] or None, identity[1] or None))
        if event.parked_by != "end_state":
            pairs.append((event.identity[2], identity[2]))
        return any(stored != sent for stored, sent in pairs if stored is not None and sent is not None)

    def add_late(self, event: Event, identity: tuple[str, str, str], body: Mapping[str, Any]) -> str:
        """Add a late callback to its event; return the event's id."""
        class_and_body = [identity[1], body]
        if self.contradicts(event, identity, body):
            if class_and_body not in event.conflicting_bodies and len(event.conflicting_bodies) < MAX_CONFLICTS:
                event.conflicting_bodies.append(class_and_body)
                event.last_body_at = self.now
        elif class_and_body == [event.identity[1], event.body] and event.parked_by != "end_state":
            event.repeats += 1
        elif (
            event.state != "routed"
            and class_and_body not in [body[:2] for body in event.late_bodies]
            and self.keep(event, [event.identity[1], event.body], replaced_by=class_and_body)
        ):
            event.identity, event.body = identity, body
            for delivery in event.deliveries.values():
                delivery.callback = event.callback
            new_route = self.route(event)
            event.state, event.rerouted = "", self.now
            event.apply_route(new_route)
            self.add_deliveries(event, new_route.handlers - set(event.deliveries))
        else:
            self.keep(event, class_and_body)
        return event.id

    def keep(self, event: Event, class_and_body: list[Any], *, replaced_by: list[Any] | None = None) -> bool:
        """Keep a body beside an event; return whether it is kept."""
        if class_and_body == replaced_by:
            return True
        for kept in event.late_bodies:
            if kept[:2] == class_and_body:
                kept[2] += 1
                return True
        if len(event.late_bodies) >= MAX_LATE_CALLBACKS:
            return False
        event.late_bodies.append([*class_and_body, 0])
        event.last_body_at = max(event.last_body_at, event.received if replaced_by else self.now)
        return True

    def find(self, identity: tuple[str, str, str]) -> Event | None:
        """The stored event with this identity."""
        return next((event for event in self.events.values() if event.identity == identity), None)

    def conflicts(self, identity: tuple[str, str, str], body: Mapping[str, Any]) -> bool:
        """Whether this identity was stored with other data, or the callback contradicts the event of its instance."""
        if (taken_in := self.taken_in(identity)) is not None:
            return self.contradicts(taken_in, identity, body)
        if self.purged_taken_in(identity):
            return True
        event = self.find(identity)
        before = (
            event.body if event else self.purged_identities[identity][1] if identity in self.purged_identities else body
        )
        return before != body

    def is_known(self, identity: tuple[str, str, str]) -> bool:
        """Whether a callback makes no new event."""
        return (
            identity in self.purged_identities or self.find(identity) is not None or self.taken_in(identity) is not None
        )

    def revive(self, event_id: str) -> None:
        """Retry dead deliveries of a repeated callback, at most once a minute."""
        for delivery in self.events[event_id].deliveries.values() if event_id in self.events else ():
            last = delivery.attempts[-1] if delivery.attempts else None
            if (
                delivery.state is State.DEAD
                and delivery.handler in self.loaded
                and HANDLERS[delivery.handler].retry
                and last.outcome != "rejected"
                and abs(self.now - last.finished) >= REVIVE_COOLDOWN
            ):
                delivery.move(State.WAITING, self.now, self.now)

    def answer(self, event_id: str) -> str:
        """The answer to an engine about an event."""
        if event_id not in self.events:
            return "done"  # only its identity is known, and it was finished
        event = self.events[event_id]
        states = {delivery.state for delivery in event.deliveries.values()}
        if State.DEAD in states:
            return "dead"
        if event.state == "parked":
            return "parked"
        return "done" if states <= {State.SUCCEEDED, State.CLOSED} else "pending"

    def may_begin(self, delivery: Delivery, number: int) -> bool:
        """Whether attempt `number` of a delivery may start."""
        return (
            delivery.state is State.WAITING
            and number == len(delivery.attempts) + 1
            and delivery.handler not in self.paused
        )

    def check_conditions(self, delivery: Delivery, made: int) -> None:
        """Before an attempt: a false condition closes the delivery, an undecided one suspends it."""
        if delivery.state is not State.WAITING or made != len(delivery.attempts):
            return
        if self.decide(delivery) is False:
            delivery.move(State.CLOSED, self.now)
        elif delivery.due is not None:
            delivery.due, delivery.changed = None, self.now

    def end_unentered(self, delivery: Delivery, number: int) -> None:
        """End an attempt started at the acceptance, because its handler's conditions do not hold."""
        if delivery.is_current(number):
            delivery.end("failed", State.CLOSED if self.decide(delivery) is False else State.WAITING, self.now)

    def finish(self, delivery: Delivery, number: int, fate: str) -> bool:
        """End an attempt; return whether its outcome counts."""
        if not delivery.is_current(number):
            return False
        retry, attempts = HANDLERS[delivery.handler].retry, number - delivery.retry_base
        retries = [retry] if retry else []
        if fate == "never enters" or (fate == "asks for time" and not retry):
            retries.append(DEFAULT_RETRY)
        delay = next((delay for options in retries if (delay := options.delay_after(attempts)) is not None), None)
        if fate == "returns":
            delivery.end("succeeded", State.SUCCEEDED, self.now)
        elif fate == "rejects":
            delivery.end("rejected", State.DEAD, self.now)
        elif delay is None:
            delivery.end("failed", State.DEAD, self.now)
        else:
            delivery.end(
                "failed", State.WAITING, self.now, self.now + (60 * SECOND if fate == "asks for time" else delay)
            )
        return True

    def expire(self, processes: Collection[str] | None = None) -> dict[State, int]:
        """Processes expire, or all of them; return the new states of their deliveries with counts."""
        counts = dict.fromkeys((State.WAITING, State.DEAD, State.UNKNOWN), 0)
        for delivery in self.deliveries(State.RUNNING):
            if processes is not None and delivery.attempts[-1].process not in processes:
                continue
            listener = HANDLERS[delivery.handler]
            target, due = State.UNKNOWN, self.now if listener.probes else None
            if listener.retry:
                delay = listener.retry.delay_after(len(delivery.attempts) - delivery.retry_base)
                target = State.DEAD if delay is None else State.WAITING
                due = None if delay is None else self.now + delay
            delivery.end("lost", target, self.now, None if delivery.handler in self.missing_handlers else due)
            counts[target] += 1
        return counts

    def reopen(self, loaded: Mapping[str, Conditions]) -> None:
        """End all processes, and restart them with these handlers."""
        self.loaded = set(loaded)
        self.known |= loaded
        for delivery in self.deliveries(State.WAITING, State.UNKNOWN):
            has_runner = delivery.handler in self.loaded and (
                delivery.state is State.WAITING or HANDLERS[delivery.handler].probes
            )
            if has_runner and delivery.due is None:
                delivery.due = self.now
            elif not has_runner and not self.shared:
                delivery.due = None
        self.expire()

    def record_probe(self, delivery: Delivery, verdict: bool | None) -> None:
        """Record a probe of a lost attempt, if it was due."""
        if (
            delivery.state is not State.UNKNOWN
            or delivery.due is None
            or delivery.due > self.now
            or delivery.handler in self.paused
        ):
            return
        delivery.due = self.now + PROBE_INTERVAL
        if verdict is True:
            delivery.move(State.SUCCEEDED, self.now)
        elif verdict is False:
            self.requeue(delivery)

    def requeue(self, delivery: Delivery, missing_handlers: Collection[str] = ()) -> None:
        """Let a delivery run again with a new schedule."""
        delivery.move(State.WAITING, self.now, None if delivery.handler in missing_handlers else self.now)
        delivery.retry_base = len(delivery.attempts)

    def count_dismissed(self) -> dict[str, int]:
        """The number of dismissed events that each handler matches."""
        counts: dict[str, int] = {}
        for event in self.events.values():
            new_route = self.route(event)
            if event.dismissed_by in {"condition", "kind"}:
                for handler in new_route.handlers - set(event.deliveries):
                    if not HANDLERS[handler].every:
                        counts[handler] = counts.get(handler, 0) + 1
        return counts

    def due(self) -> dict[tuple[str, str], tuple[int, bool]]:
        """Deliveries that are due for a run or a probe: their attempts so far, and whether it is a probe."""
        return {
            (delivery.event, delivery.handler): (len(delivery.attempts), delivery.state is State.UNKNOWN)
            for delivery in self.deliveries(State.WAITING, State.UNKNOWN)
            if delivery.due is not None and delivery.due <= self.now
        }

    def add_deliveries(self, event: Event, handlers: Iterable[str]) -> None:
        """Give an event deliveries for these handlers."""
        for handler in sorted(handlers):
            due = None if handler in self.missing_handlers else self.now
            event.deliveries[handler] = Delivery(event.id, handler, event.callback, self.now, due)

    def shape(self) -> dict[str, Any]:
        """The whole expected content in a comparable form."""
        return {
            "events": {
                event.id: (
                    (event.state, event.parked_by, event.dismissed_by),
                    event.no_match,
                    event.repeats,
                    set(event.deliveries),
                    len(event.conflicting_bodies),
                    (event.origin, len(event.late_bodies), sum(repeats for *_, repeats in event.late_bodies)),
                    {name: delivery.shape() for name, delivery in event.deliveries.items()},
                )
                for event in self.events.values()
            },
            "no event": {},
            "purged_identities": {event_id for event_id, _ in self.purged_identities.values()},
            "paused": self.paused,
            "ignored": dict(self.ignored),
            "accepted": self.accepted,
            "purged": self.purged,
            "operations": {name: operation.shape() for name, operation in self.operations.items()},
            "audit_entries": self.audit_entries,
        }
