"""What a ledger ought to hold, on paper: dictionaries, and the table of states as their one law.

It must not know how flowhooks does any of it: numbers and rules are written down here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.delivery import TRANSITIONS, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
IDENTITIES_FOR: Final = 400 * DAY
AGAIN_AFTER: Final = 60 * SECOND
PROBE_AGAIN: Final = 60 * SECOND
MOST_CONFLICTS: Final = 10
IGNORED: Final = "ignored"
LAW: Final = frozenset((row.source, row.target) for row in TRANSITIONS)
AT_REST: Final = {State.SUCCEEDED, State.CLOSED, State.DEAD}


class Retries(NamedTuple):
    """How often, and after how many seconds."""

    attempts: int
    delays: tuple[int, ...]

    def after(self, made: int) -> int | None:
        """Microseconds to the next attempt; None if there is none."""
        return None if made >= self.attempts else self.delays[min(made, len(self.delays)) - 1] * SECOND


UNASKED: Final = Retries(8, (5, 300, 1800, 7200, 18000, 36000, 36000))
"""What is gone by where a handler has declared nothing, and yet an attempt is to be made again."""


class Listener(NamedTuple):
    """A handler: what it listens to, and what it says of itself."""

    keys: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    every: bool = False
    retry: Retries | None = None
    probes: bool = False


HANDLERS: Final = {
    "p:once": Listener(keys=("leave",)),
    "p:again": Listener(keys=("leave", "trip"), classes=("C",), retry=Retries(3, (10, 100))),
    "p:asks": Listener(keys=("trip",), probes=True),
    "q:late": Listener(keys=("late",), retry=Retries(2, (1,))),
    "q:every": Listener(every=True),
}


@dataclass(slots=True)
class Attempt:
    """One run: whose, and how it ended."""

    process: str
    outcome: str | None = None
    finished: int | None = None


@dataclass(slots=True)
class Delivery:
    """One event for one handler."""

    event: str
    handler: str
    changed: int
    due: int | None
    state: State = State.WAITING
    retries_from: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def move(self, target: State, now: int, due: int | None = None) -> None:
        """Go to another state, as the law has it."""
        assert (self.state, target) in LAW, f"no delivery goes from {self.state} to {target}"
        self.state, self.changed, self.due = target, now, due

    def begin(self, process: str, now: int) -> None:
        """An attempt begins."""
        self.move(State.RUNNING, now)
        self.attempts.append(Attempt(process))

    def end(self, outcome: str, target: State, now: int, due: int | None = None) -> None:
        """The current attempt ends."""
        self.move(target, now, due)
        self.attempts[-1].outcome, self.attempts[-1].finished = outcome, now

    def shape(self) -> tuple[Any, ...]:
        """All of it, as it is compared."""
        attempts = [(one.process, one.outcome, one.finished) for one in self.attempts]
        return self.state, len(attempts), self.due, self.changed, self.retries_from, attempts

    def is_current(self, number: int) -> bool:
        """Whether it is this attempt that runs."""
        return self.state is State.RUNNING and number == len(self.attempts)


@dataclass(slots=True)
class Event:
    """A call-back that was taken in."""

    id: str
    identity: tuple[str, str]
    body: Mapping[str, Any]
    received: int
    state: str
    repeats: int = 0
    others: list[Mapping[str, Any]] = field(default_factory=list)
    deliveries: dict[str, Delivery] = field(default_factory=dict)


@dataclass(slots=True)
class Paper:
    """The whole ledger.

    Attributes:
        shared: whether several processes share it.
        now: what time it is.
        known: handlers that were ever loaded; `loaded` those that are now, `paused` those that are held.
        events: by id, the oldest first.
        gone: what is left of events that were purged, by identity: id and body.
        accepted, purged, deeds: how many events were taken in and went, and how often an operator changed something.
    """

    shared: bool
    now: int
    known: set[str] = field(default_factory=set)
    loaded: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    events: dict[str, Event] = field(default_factory=dict)
    gone: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    accepted: int = 0
    purged: int = 0
    deeds: int = 0

    def deliveries(self, *states: State) -> list[Delivery]:
        """All of them, or those in some states."""
        return [
            one for event in self.events.values() for one in event.deliveries.values() if not states or one.state in states
        ]

    @property
    def absent(self) -> set[str]:
        """Handlers whose deliveries wait without a time: of several processes another one might have them."""
        return set() if self.shared else self.known - self.loaded

    def route(self, body: Mapping[str, Any], callback_class: str) -> tuple[str, set[str]]:
        """What becomes of a call-back, and who gets it."""
        key = body.get("processDefinitionKey")
        wanting = {one for one in self.known if key in HANDLERS[one].keys or callback_class in HANDLERS[one].classes}
        every = {one for one in self.known if HANDLERS[one].every}
        if wanting:
            return "routed", wanting | every
        if key == IGNORED:
            return "routed" if every else "dismissed", every
        return "parked", every

    def store(self, event_id: str, identity: tuple[str, str], body: Mapping[str, Any], by: str | None) -> str:
        """Take a call-back in; `by` is who begins at once what may begin. The event's id that it is answered with."""
        if identity in self.gone:
            return self.gone[identity][0]
        if (event := self.find(identity)) is None:
            state, handlers = self.route(body, identity[1])
            event = self.events[event_id] = Event(event_id, identity, body, self.now, state)
            self.accepted += 1
            self.give(event, handlers)
            for one in event.deliveries.values():
                if by is not None and one.handler in self.loaded - self.paused:
                    one.begin(by, self.now)
        elif event.body == body:
            event.repeats += 1
        elif body not in event.others and len(event.others) < MOST_CONFLICTS:
            event.others.append(body)
        return event.id

    def find(self, identity: tuple[str, str]) -> Event | None:
        """The event of this identity that is stored."""
        return next((one for one in self.events.values() if one.identity == identity), None)

    def conflicts(self, identity: tuple[str, str], body: Mapping[str, Any]) -> bool:
        """Whether this identity came before with other data."""
        event = self.find(identity)
        before = event.body if event else self.gone[identity][1] if identity in self.gone else body
        return before != body

    def revive(self, event_id: str) -> None:
        """A call-back came again: what is dead and may run again gets one attempt more, once a minute."""
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
        """What an engine is told of an event."""
        if event_id not in self.events:
            return "done"  # only who it was is known, and it was done
        event = self.events[event_id]
        states = {one.state for one in event.deliveries.values()}
        if State.DEAD in states:
            return "dead"
        if event.state == "parked":
            return "parked"
        return "done" if states <= {State.SUCCEEDED, State.CLOSED} else "pending"

    def may_begin(self, one: Delivery, number: int) -> bool:
        """Whether attempt `number` of a delivery may begin."""
        return one.state is State.WAITING and number == len(one.attempts) + 1 and one.handler not in self.paused

    def finish(self, one: Delivery, number: int, fate: str) -> bool:
        """An attempt has come to its end; whether that counts."""
        if not one.is_current(number):
            return False
        retry, made = HANDLERS[one.handler].retry, number - one.retries_from
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
        """Processes have died, or all of them; how many of their deliveries went where."""
        went = dict.fromkeys((State.WAITING, State.DEAD, State.UNKNOWN), 0)
        for one in self.deliveries(State.RUNNING):
            if processes is not None and one.attempts[-1].process not in processes:
                continue
            listener = HANDLERS[one.handler]
            target, due = State.UNKNOWN, self.now if listener.probes else None
            if listener.retry:
                delay = listener.retry.after(len(one.attempts) - one.retries_from)
                target = State.DEAD if delay is None else State.WAITING
                due = None if delay is None else self.now + delay
            one.end("lost", target, self.now, None if one.handler in self.absent else due)
            went[target] += 1
        return went

    def reopen(self, loaded: Iterable[str]) -> None:
        """All processes have ended, and began anew with these handlers."""
        self.loaded = set(loaded)
        self.known |= self.loaded
        for one in self.deliveries(State.WAITING, State.UNKNOWN):
            has_somebody = one.handler in self.loaded and (one.state is State.WAITING or HANDLERS[one.handler].probes)
            if has_somebody and one.due is None:
                one.due = self.now
            elif not has_somebody and not self.shared:
                one.due = None
        self.lose()

    def asked(self, one: Delivery, verdict: bool | None) -> None:
        """A probe was asked what became of a lost attempt, if it was time for that."""
        if one.state is not State.UNKNOWN or one.due is None or one.due > self.now or one.handler in self.paused:
            return
        one.due = self.now + PROBE_AGAIN
        if verdict is True:
            one.move(State.SUCCEEDED, self.now)
        elif verdict is False:
            self.again(one)

    def again(self, one: Delivery, absent: Collection[str] = ()) -> None:
        """Have a delivery run again, by a schedule that starts anew."""
        one.move(State.WAITING, self.now, None if one.handler in absent else self.now)
        one.retries_from = len(one.attempts)

    def due(self) -> dict[tuple[str, str], tuple[int, bool]]:
        """What may run or be probed by now: how many attempts it has had, and whether it is to be probed."""
        return {
            (one.event, one.handler): (len(one.attempts), one.state is State.UNKNOWN)
            for one in self.deliveries(State.WAITING, State.UNKNOWN)
            if one.due is not None and one.due <= self.now
        }

    def give(self, event: Event, handlers: Iterable[str]) -> None:
        """An event gets deliveries for these handlers."""
        for handler in handlers:
            due = None if handler in self.absent else self.now
            event.deliveries[handler] = Delivery(event.id, handler, self.now, due)

    def shape(self) -> dict[str, Any]:
        """All that ought to be stored, as it is compared."""
        return {
            "events": {
                event.id: (
                    event.state,
                    event.repeats,
                    set(event.deliveries),
                    len(event.others),
                    {name: one.shape() for name, one in event.deliveries.items()},
                )
                for event in self.events.values()
            },
            "no event": {},
            "gone": {event_id for event_id, _ in self.gone.values()},
            "paused": self.paused,
            "accepted": self.accepted,
            "purged": self.purged,
            "deeds": self.deeds,
        }
