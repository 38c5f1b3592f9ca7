"""The model: the expected content of a ledger in dictionaries; its only rule is the table of states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.delivery import TRANSITIONS, State
from model.listeners import HANDLERS, SECOND, UNASKED
from model.routes import Callback, Route, decide, route

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from model.bulk import Operation
    from model.listeners import Conditions

DAY: Final = 86_400 * SECOND
IDENTITIES_FOR: Final = 400 * DAY
AGAIN_AFTER: Final = 60 * SECOND
PROBE_AGAIN: Final = 60 * SECOND
MAX_CONFLICTS: Final = 10
MAX_LATE: Final = 10
LAW: Final = frozenset((row.source, row.target) for row in TRANSITIONS)
AT_REST: Final = {State.SUCCEEDED, State.CLOSED, State.DEAD}


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
        assert (self.state, target) in LAW, f"no delivery goes from {self.state} to {target}"
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
        attempts = [(one.process, one.outcome, one.finished) for one in self.attempts]
        return self.state, len(attempts), self.due, self.changed, self.retry_base, attempts

    def is_current(self, number: int) -> bool:
        """Whether this attempt is running."""
        return self.state is State.RUNNING and number == len(self.attempts)


@dataclass(slots=True)
class Event:
    """An accepted callback, or an instance that was taken in.

    `late` has the bodies that are kept beside it: class, body and number of repeats of each. `beside_at` tells when the
    last one of these and of the conflicting ones, `others`, was received.
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
    others: list[Mapping[str, Any]] = field(default_factory=list)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    origin: str = "callback"
    late: list[list[Any]] = field(default_factory=list)
    beside_at: int = 0

    @property
    def callback(self) -> Callback:
        """The input of routing."""
        return Callback(self.identity, self.body)

    def become(self, found: Route) -> None:
        """Set the state that a route gives, with its reasons; a routed event stays routed."""
        is_routed = "routed" in {self.state, found.state}
        self.state = "routed" if is_routed else found.state
        self.parked_by = None if is_routed else found.parked_by
        self.dismissed_by = None if is_routed else found.dismissed_by
        self.no_match = found._replace(state=self.state).no_match


@dataclass(slots=True)
class Paper:
    """The whole expected ledger.

    Attributes:
        shared: whether several processes share it.
        now: the time.
        known: all handlers that were ever loaded, with their conditions then; `loaded` those loaded now, `paused`
            those that are paused.
        events: by id, oldest first.
        gone: the rest of purged events, by identity: id and body.
        gone_instances: the same by process instance: when each was received, its id and its origin.
        operations: the bulk operations by id.
        ignored: the number of ignored requests by rule.
        accepted, purged, deeds: the numbers of accepted and purged events, and of operators' changes.
    """

    shared: bool
    now: int
    known: dict[str, Conditions] = field(default_factory=dict)
    loaded: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    events: dict[str, Event] = field(default_factory=dict)
    gone: dict[tuple[str, str, str], tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    gone_instances: dict[str, list[tuple[int, str, str]]] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    purged: int = 0
    deeds: int = 0

    def deliveries(self, *states: State) -> list[Delivery]:
        """All deliveries, or those in some states."""
        return [
            one
            for event in self.events.values()
            for one in event.deliveries.values()
            if not states or one.state in states
        ]

    @property
    def absent(self) -> set[str]:
        """Handlers whose deliveries wait without a due time: another process might have loaded them."""
        return set() if self.shared else self.known.keys() - self.loaded

    def route(self, event: Event) -> Route:
        """The present route of an event."""
        return route(event.callback, self.known)

    def decide(self, one: Delivery) -> bool | None:
        """Whether the handler's present conditions hold for a delivery; None: undecided."""
        return decide(self.known[one.handler], one.callback)

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
        if identity in self.gone:
            return self.gone[identity][0]
        if gone := self.purged_taken_in(identity):
            return gone
        if (event := self.find(identity)) is None:
            event = self.events[event_id] = Event(event_id, identity, body, self.now, origin=origin)
            self.begin(event, by)
        elif event.body == body:
            event.repeats += 1
        elif body not in event.others and len(event.others) < MAX_CONFLICTS:
            event.others.append(body)
            event.beside_at = self.now
        return event.id

    def begin(self, event: Event, by: str | None) -> None:
        """Route a new event; process `by` starts its deliveries at once if possible."""
        self.accepted += 1
        if event.parked_by == "end_state":
            return
        found = self.route(event)
        event.become(found)
        self.give(event, found.handlers)
        for one in event.deliveries.values():
            if by is not None and one.handler in self.loaded - self.paused:
                one.begin(by, self.now)

    def take_in(
        self, event_id: str, identity: tuple[str, str, str], body: Mapping[str, Any], by: str | None, *, undecided: bool
    ) -> tuple[str, str]:
        """Take in an instance; return the id of its event, and its disposition."""
        stored = [(one.received, one.id) for one in self.events.values() if one.identity[0] == identity[0]]
        if stored:
            return max(stored)[1], "has_event"
        if gone := self.gone_instances.get(identity[0]):
            return max(gone)[1], "purged"
        event = self.events[event_id] = Event(event_id, identity, body, self.now, origin="reconciled")
        if undecided:
            event.state, event.parked_by = "parked", "end_state"
        self.begin(event, by)
        return event_id, "has_event"

    def taken_in(self, identity: tuple[str, str, str]) -> Event | None:
        """The event that was taken in for the instance of a callback."""
        return next(
            (one for one in self.events.values() if one.identity[0] == identity[0] and one.origin == "reconciled"), None
        )

    def purged_taken_in(self, identity: tuple[str, str, str]) -> str:
        """The id of the purged event that was taken in for the instance of a callback; `""` if there is none."""
        gone = [one for one in self.gone_instances.get(identity[0], []) if one[2] == "reconciled"]
        return max(gone)[1] if gone and identity not in self.gone and self.find(identity) is None else ""

    def contradicts(self, event: Event, identity: tuple[str, str, str], body: Mapping[str, Any]) -> bool:
        """Whether a late callback and its event both have a named value, and the two differ."""
        names = ("processDefinitionKey", "processDefinitionVersion", "conclusion")
        pairs = [(event.body.get(name), body.get(name)) for name in names]
        pairs.append((event.identity[1] or None, identity[1] or None))
        if event.parked_by != "end_state":
            pairs.append((event.identity[2], identity[2]))
        return any(one != other for one, other in pairs if one is not None and other is not None)

    def add_late(self, event: Event, identity: tuple[str, str, str], body: Mapping[str, Any]) -> str:
        """Add a late callback to its event; return the event's id."""
        whole = [identity[1], body]
        if self.contradicts(event, identity, body):
            if whole not in event.others and len(event.others) < MAX_CONFLICTS:
                event.others.append(whole)
                event.beside_at = self.now
        elif whole == [event.identity[1], event.body] and event.parked_by != "end_state":
            event.repeats += 1
        elif (
            event.state != "routed"
            and whole not in [body[:2] for body in event.late]
            and self.keep(event, [event.identity[1], event.body], replaced_by=whole)
        ):
            event.identity, event.body = identity, body
            for one in event.deliveries.values():
                one.callback = event.callback
            found = self.route(event)
            event.state, event.rerouted = "", self.now
            event.become(found)
            self.give(event, found.handlers - set(event.deliveries))
        else:
            self.keep(event, whole)
        return event.id

    def keep(self, event: Event, whole: list[Any], *, replaced_by: list[Any] | None = None) -> bool:
        """Keep a body beside an event; return whether it is kept."""
        if whole == replaced_by:
            return True
        for one in event.late:
            if one[:2] == whole:
                one[2] += 1
                return True
        if len(event.late) >= MAX_LATE:
            return False
        event.late.append([*whole, 0])
        event.beside_at = max(event.beside_at, event.received if replaced_by else self.now)
        return True

    def find(self, identity: tuple[str, str, str]) -> Event | None:
        """The stored event with this identity."""
        return next((one for one in self.events.values() if one.identity == identity), None)

    def conflicts(self, identity: tuple[str, str, str], body: Mapping[str, Any]) -> bool:
        """Whether this identity was stored with other data, or the callback contradicts the event of its instance."""
        if (taken_in := self.taken_in(identity)) is not None:
            return self.contradicts(taken_in, identity, body)
        if self.purged_taken_in(identity):
            return True
        event = self.find(identity)
        before = event.body if event else self.gone[identity][1] if identity in self.gone else body
        return before != body

    def is_known(self, identity: tuple[str, str, str]) -> bool:
        """Whether a callback makes no new event."""
        return identity in self.gone or self.find(identity) is not None or self.taken_in(identity) is not None

    def revive(self, event_id: str) -> None:
        """Retry dead deliveries of a repeated callback, at most once a minute."""
        for one in self.events[event_id].deliveries.values() if event_id in self.events else ():
            last = one.attempts[-1] if one.attempts else None
            if (
                one.state is State.DEAD
                and one.handler in self.loaded
                and HANDLERS[one.handler].retry
                and last.outcome != "rejected"
                and self.now - last.finished >= AGAIN_AFTER
            ):
                one.move(State.WAITING, self.now, self.now)

    def answer(self, event_id: str) -> str:
        """The answer to an engine about an event."""
        if event_id not in self.events:
            return "done"  # only its identity is known, and it was finished
        event = self.events[event_id]
        states = {one.state for one in event.deliveries.values()}
        if State.DEAD in states:
            return "dead"
        if event.state == "parked":
            return "parked"
        return "done" if states <= {State.SUCCEEDED, State.CLOSED} else "pending"

    def may_begin(self, one: Delivery, number: int) -> bool:
        """Whether attempt `number` of a delivery may start."""
        return one.state is State.WAITING and number == len(one.attempts) + 1 and one.handler not in self.paused

    def check_conditions(self, one: Delivery, made: int) -> None:
        """Before an attempt: a false condition closes the delivery, an undecided one suspends it."""
        if one.state is not State.WAITING or made != len(one.attempts):
            return
        if self.decide(one) is False:
            one.move(State.CLOSED, self.now)
        elif one.due is not None:
            one.due, one.changed = None, self.now

    def end_unentered(self, one: Delivery, number: int) -> None:
        """End an attempt started at the acceptance, because its handler's conditions do not hold."""
        if one.is_current(number):
            one.end("failed", State.CLOSED if self.decide(one) is False else State.WAITING, self.now)

    def finish(self, one: Delivery, number: int, fate: str) -> bool:
        """End an attempt; return whether its outcome counts."""
        if not one.is_current(number):
            return False
        retry, made = HANDLERS[one.handler].retry, number - one.retry_base
        ways = [retry] if retry else []
        if fate == "never enters" or (fate == "asks for time" and not retry):
            ways.append(UNASKED)
        delay = next((found for way in ways if (found := way.after(made)) is not None), None)
        if fate == "returns":
            one.end("succeeded", State.SUCCEEDED, self.now)
        elif fate == "rejects":
            one.end("rejected", State.DEAD, self.now)
        elif delay is None:
            one.end("failed", State.DEAD, self.now)
        else:
            one.end("failed", State.WAITING, self.now, self.now + (60 * SECOND if fate == "asks for time" else delay))
        return True

    def lose(self, processes: Collection[str] | None = None) -> dict[State, int]:
        """Processes expire, or all of them; return the new states of their deliveries with counts."""
        went = dict.fromkeys((State.WAITING, State.DEAD, State.UNKNOWN), 0)
        for one in self.deliveries(State.RUNNING):
            if processes is not None and one.attempts[-1].process not in processes:
                continue
            listener = HANDLERS[one.handler]
            target, due = State.UNKNOWN, self.now if listener.probes else None
            if listener.retry:
                delay = listener.retry.after(len(one.attempts) - one.retry_base)
                target = State.DEAD if delay is None else State.WAITING
                due = None if delay is None else self.now + delay
            one.end("lost", target, self.now, None if one.handler in self.absent else due)
            went[target] += 1
        return went

    def reopen(self, loaded: Mapping[str, Conditions]) -> None:
        """End all processes, and restart them with these handlers."""
        self.loaded = set(loaded)
        self.known |= loaded
        for one in self.deliveries(State.WAITING, State.UNKNOWN):
            has_somebody = one.handler in self.loaded and (one.state is State.WAITING or HANDLERS[one.handler].probes)
            if has_somebody and one.due is None:
                one.due = self.now
            elif not has_somebody and not self.shared:
                one.due = None
        self.lose()

    def asked(self, one: Delivery, verdict: bool | None) -> None:
        """Record a probe of a lost attempt, if it was due."""
        if one.state is not State.UNKNOWN or one.due is None or one.due > self.now or one.handler in self.paused:
            return
        one.due = self.now + PROBE_AGAIN
        if verdict is True:
            one.move(State.SUCCEEDED, self.now)
        elif verdict is False:
            self.again(one)

    def again(self, one: Delivery, absent: Collection[str] = ()) -> None:
        """Let a delivery run again with a new schedule."""
        one.move(State.WAITING, self.now, None if one.handler in absent else self.now)
        one.retry_base = len(one.attempts)

    def dismissed_wanted(self) -> dict[str, int]:
        """The number of dismissed events that each handler matches."""
        counts: dict[str, int] = {}
        for event in self.events.values():
            found = self.route(event)
            if event.dismissed_by in {"condition", "kind"}:
                for handler in found.handlers - set(event.deliveries):
                    if not HANDLERS[handler].every:
                        counts[handler] = counts.get(handler, 0) + 1
        return counts

    def due(self) -> dict[tuple[str, str], tuple[int, bool]]:
        """Deliveries that are due for a run or a probe: their attempts so far, and whether it is a probe."""
        return {
            (one.event, one.handler): (len(one.attempts), one.state is State.UNKNOWN)
            for one in self.deliveries(State.WAITING, State.UNKNOWN)
            if one.due is not None and one.due <= self.now
        }

    def give(self, event: Event, handlers: Iterable[str]) -> None:
        """Give an event deliveries for these handlers."""
        for handler in sorted(handlers):
            due = None if handler in self.absent else self.now
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
                    len(event.others),
                    (event.origin, len(event.late), sum(repeats for *_, repeats in event.late)),
                    {name: one.shape() for name, one in event.deliveries.items()},
                )
                for event in self.events.values()
            },
            "no event": {},
            "gone": {event_id for event_id, _ in self.gone.values()},
            "paused": self.paused,
            "ignored": dict(self.ignored),
            "accepted": self.accepted,
            "purged": self.purged,
            "operations": {name: one.shape() for name, one in self.operations.items()},
            "deeds": self.deeds,
        }
