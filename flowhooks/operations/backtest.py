"""Backtest plugins: evaluate stored events with the installed plugins and with others, and compare the results.

Nothing is stored, and no handler is entered: only routes, conditions and schemas are evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import InvalidCallback
from flowhooks.model.event import FIELDS, Event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.operations.lookup import Lookup
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.routing.router import CandidateMatch

Subject: TypeAlias = Literal["route", "data", "body", "state"]
"""The subject of a difference: the route to a handler, the verdict of its plugin's data schema, the verdict of the
schema of the kind of callback, or only the state of the event."""

MAX_CANDIDATES: Final = 10_000
"""Maximum number of handlers of one event that are compared; those that match come first. More would be cut at another
handler before and after, which would look like a difference."""
MAX_SAMPLES: Final = 5
"""Maximum number of event ids that are kept of a group."""
MAX_REASONS: Final = 3
"""Maximum number of different reasons that are kept of a group."""

DELIVERED: Final = "delivered"
WAITS: Final = "waits"
UNDECIDED: Final = "undecided"
NOT_DELIVERED: Final = "not delivered"
VALID: Final = "valid"
INVALID: Final = "invalid"
_UNAVAILABLE: Final = {
    "missing": "no loaded plugin has the handler, which is still registered: its deliveries wait",
    "quarantined": "its plugin is quarantined: its deliveries wait",
    "denied": "the settings exclude its plugin: its deliveries wait",
    "elsewhere": "only other processes run the handler",
}


class HandlerOutcome(NamedTuple):
    """The outcome of an event at one handler.

    Attributes:
        route: `"delivered"`, `"waits"` (delivered to a handler that is not loaded), `"undecided"` or `"not delivered"`.
        why: the reason.
        violation: why the data violates the schemas of the handler's plugin; `""` if it is valid or not delivered.
    """

    route: str
    why: str
    violation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventOutcome:
    """The outcome of an event with one set of plugins.

    Attributes:
        state: `"routed"`, or `"parked"` or `"dismissed"` with the reason, such as `"parked (condition)"`.
        handlers: the outcome at each handler that shares its class or key or takes every event, by handler id.
        violation: why a callback with its body would be rejected; `""` if it would be accepted.
    """

    state: str
    handlers: Mapping[str, HandlerOutcome]
    violation: str = ""

    def to_json(self) -> dict[str, Any]:
        """Encode for another process."""
        return {"state": self.state, "handlers": dict(self.handlers), "violation": self.violation}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EventOutcome:
        """Decode the result of `to_json`."""
        handlers = {handler: HandlerOutcome(*outcome) for handler, outcome in document["handlers"].items()}
        return cls(state=document["state"], handlers=handlers, violation=document["violation"])


_COPIED: Final = ("id", "source", "kind", "flow_instance_id", *FIELDS.values(), "origin", "corrects")


def event_to_json(event: Event) -> dict[str, Any]:
    """Encode an event for another process."""
    received_at = round(event.received_at.timestamp() * SECOND)
    return {name: getattr(event, name) for name in _COPIED} | {"data": event.data, "received_at": received_at}


def event_from_json(document: Mapping[str, Any]) -> Event:
    """Decode the result of `event_to_json`."""
    return Event(**{**document, "received_at": to_datetime(document["received_at"])})


def evaluate(event: Event, *, lookup: Lookup, plugins: Plugins) -> EventOutcome:
    """Evaluate what these plugins would make of an event, without running a handler.

    Args:
        event: a stored event.
        lookup: the look-up of the plugins and of the registered handlers.
        plugins: the plugins.

    Raises:
        NewerSelectorsError: a newer flowhooks has registered handlers.
    """
    explanation = lookup.router.explain_event(event, max_candidates=MAX_CANDIDATES)
    route = explanation.route
    reason = route.parked_by or route.dismissed_by
    return EventOutcome(
        state=f"{route.state} ({reason})" if reason else route.state.value,
        handlers={
            match.handler_id: _handler_outcome(match, event, lookup=lookup, plugins=plugins)
            for match in explanation.verdicts
        },
        violation=_body_violation(event, plugins),
    )


def _handler_outcome(match: CandidateMatch, event: Event, *, lookup: Lookup, plugins: Plugins) -> HandlerOutcome:
    if not match.matched:
        return HandlerOutcome(UNDECIDED if match.undecided else NOT_DELIVERED, match.reason)
    handler = plugins.handlers.get(match.handler_id)
    if handler is None:
        return HandlerOutcome(WAITS, _UNAVAILABLE[lookup.availability(match.handler_id)])
    return HandlerOutcome(DELIVERED, match.reason, plugins.why_data_invalid(handler, event) or "")


def _body_violation(event: Event, plugins: Plugins) -> str:
    if event.kind not in plugins.schemas.kinds:
        return f"there is no kind of callback {event.kind!r}"
    try:
        plugins.schemas.check_body(event.kind, event.data)
    except InvalidCallback as error:
        return error.text("en")
    return ""


class Difference(NamedTuple):
    """A difference between two outcomes of an event.

    Attributes:
        subject: what differs.
        handler: the handler; `""` if the event itself differs.
        before: the outcome with the installed plugins.
        after: the outcome with the other plugins.
        why: the reason for the outcome afterwards.
    """

    subject: Subject
    handler: str
    before: str
    after: str
    why: str


_ABSENT: Final = HandlerOutcome(NOT_DELIVERED, "no registered handler with this id listens to its class or key")


def differences(before: EventOutcome, after: EventOutcome) -> Iterator[Difference]:
    """Yield the differences between two outcomes of an event."""
    routes_differ = False
    for handler in {**before.handlers, **after.handlers}:
        old, new = before.handlers.get(handler, _ABSENT), after.handlers.get(handler, _ABSENT)
        if old.route != new.route:
            routes_differ = True
            yield Difference("route", handler, old.route, new.route, new.why)
        # Data is checked where it is delivered. A new delivery of valid data is no further difference.
        if new.route == DELIVERED and bool(old.violation) != bool(new.violation):
            was = _validity(old.violation) if old.route == DELIVERED else NOT_DELIVERED
            yield Difference("data", handler, was, _validity(new.violation), new.violation)
    if bool(before.violation) != bool(after.violation):
        yield Difference("body", "", _validity(before.violation), _validity(after.violation), after.violation)
    if before.state != after.state and not routes_differ:
        yield Difference("state", "", before.state, after.state, "")


def _validity(violation: str) -> str:
    return INVALID if violation else VALID


@dataclass(slots=True)
class DifferenceGroup:
    """Events with the same difference.

    Attributes:
        events: number of events.
        samples: ids of the first of them.
        reasons: different reasons, in the order in which they were found.
        more_reasons: whether there are other reasons.
    """

    events: int = 0
    samples: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    more_reasons: bool = False

    def add(self, event_id: str, why: str) -> None:
        """Add an event."""
        self.events += 1
        if len(self.samples) < MAX_SAMPLES:
            self.samples.append(event_id)
        if why and why not in self.reasons:
            if len(self.reasons) < MAX_REASONS:
                self.reasons.append(why)
            else:
                self.more_reasons = True


class GroupKey(NamedTuple):
    """The values that all events of a group have in common.

    Attributes:
        callback_class: their class, or None.
        process_key: their process definition key, or None.
        conclusion: their conclusion, or None.
        state_before: their state with the installed plugins.
        state_after: their state with the other plugins.
        subject, handler, before, after: as of `Difference`.
    """

    callback_class: str | None
    process_key: str | None
    conclusion: str | None
    state_before: str
    state_after: str
    subject: Subject
    handler: str
    before: str
    after: str


class Comparison:
    """The differences of many events, grouped.

    Attributes:
        compared: number of compared events.
        different: number of events with a difference.
        groups: the groups, in the order in which they were found.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.different = 0
        self.groups: dict[GroupKey, DifferenceGroup] = {}

    def add(self, event: Event, before: EventOutcome, after: EventOutcome) -> None:
        """Compare two outcomes of an event."""
        self.compared += 1
        is_different = False
        for difference in differences(before, after):
            is_different = True
            key = GroupKey(
                event.callback_class,
                event.process_definition_key,
                event.conclusion,
                before.state,
                after.state,
                *difference[:-1],
            )
            self.groups.setdefault(key, DifferenceGroup()).add(event.id, difference.why)
        self.different += is_different

    def sorted_groups(self) -> list[tuple[GroupKey, DifferenceGroup]]:
        """Return the groups: those of one class, key and conclusion together, the largest first."""
        totals: dict[tuple[str | None, ...], int] = {}
        for key, group in self.groups.items():
            totals[key[:3]] = max(totals.get(key[:3], 0), group.events)
        return sorted(
            self.groups.items(),
            key=lambda item: (-totals[item[0][:3]], tuple(part or "" for part in item[0][:3]), -item[1].events),
        )
