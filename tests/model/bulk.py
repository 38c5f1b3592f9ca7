"""Bulk operations in the model: the deliveries of a plan, and what a release does with each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.delivery import State
from model import desk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.paper import Delivery, Paper

STATES: Final[Mapping[str, set[State]]] = {
    "replay": {State.DEAD},
    "rerun": {State.SUCCEEDED, State.DEAD},
    "mark-done": {State.UNKNOWN},
    "mark-not-done": {State.UNKNOWN},
    "close": {State.WAITING, State.DEAD, State.UNKNOWN},
    "run-now": {State.WAITING},
}
"""The actions, each with the states of the deliveries that it changes."""
CHANGES: Final[Mapping[str, tuple[set[str], str]]] = {
    "start": ({"planned"}, "running"),
    "pause": ({"running"}, "paused"),
    "resume": ({"paused"}, "running"),
    "cancel": ({"planned", "running", "paused"}, "cancelled"),
}
"""The changes of an operation by an operator: the states that permit it, and the new state."""


@dataclass(slots=True)
class Item:
    """One delivery of a plan, as it was planned."""

    event: str
    handler: str
    state: State
    made: int
    status: str = "planned"


@dataclass(slots=True)
class Operation:
    """A bulk operation: its items by the ids of their deliveries, and the process that has its lease."""

    action: str
    event_filter: Mapping[str, Any]
    items: dict[str, Item]
    state: str = "planned"
    process: str = ""

    def count(self, status: str) -> int:
        """The number of items with a status."""
        return sum(item.status == status for item in self.items.values())

    def shape(self) -> tuple[Any, ...]:
        """The operation in a comparable form."""
        items = {name: (item.state, item.made, item.status) for name, item in self.items.items()}
        return self.state, len(items), self.count("released"), self.count("changed"), items


def planned(paper: Paper, action: str, event_filter: Mapping[str, Any]) -> list[Delivery] | None:
    """The deliveries that a plan has; None if the action changes no delivery in the filter's state."""
    state, handler = event_filter.get("state"), event_filter.get("handler")
    if state is not None and state not in STATES[action] and (action, state) != ("close", "suspended"):
        return None
    return [
        one
        for event in desk.meant(paper, event_filter)
        for one in event.deliveries.values()
        if one.state in STATES[action]
        and desk.fits(one, handler, state)
        and (action != "run-now" or (_is_scheduled(paper, one) and one.handler not in paper.paused))
    ]


def _is_scheduled(paper: Paper, one: Delivery) -> bool:
    return one.due is not None and one.due > paper.now


def release(paper: Paper, operation: Operation, most: int) -> tuple[int, int]:
    """Act on the next items; return the numbers of released and of changed ones."""
    following = [name for name, item in sorted(operation.items.items()) if item.status == "planned"][:most]
    for name in following:
        item = operation.items[name]
        one = find(paper, item)
        item.status = "released" if one is not None and _act(paper, operation, item, one) else "changed"
    released = sum(operation.items[name].status == "released" for name in following)
    return released, len(following) - released


def find(paper: Paper, item: Item) -> Delivery | None:
    """The delivery of an item; None if its event was purged."""
    event = paper.events.get(item.event)
    return event.deliveries[item.handler] if event else None


def _act(paper: Paper, operation: Operation, item: Item, one: Delivery) -> bool:
    """Act on a delivery that is still as planned; return whether it was."""
    if (one.state, len(one.attempts)) != (item.state, item.made):
        return False
    match operation.action:
        case "run-now":
            if not _is_scheduled(paper, one):
                return False
            one.due = one.changed = paper.now
        case "close":
            if operation.event_filter.get("state") == "suspended" and one.due is not None:
                return False
            one.move(State.CLOSED, paper.now)
        case "mark-done":
            one.move(State.SUCCEEDED, paper.now)
        case _:
            paper.again(one, paper.absent)
    return True


def finish(paper: Paper) -> None:
    """End each running operation whose deliveries were all released and executed."""
    for operation in paper.operations.values():
        if operation.state == "running" and not operation.count("planned") and not _is_executing(paper, operation):
            operation.state = "finished"


def _is_executing(paper: Paper, operation: Operation) -> bool:
    released = [find(paper, item) for item in operation.items.values() if item.status == "released"]
    return operation.action not in {"close", "mark-done"} and any(
        one is not None and one.state in {State.WAITING, State.RUNNING} for one in released
    )
