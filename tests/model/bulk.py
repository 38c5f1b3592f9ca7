"""Bulk operations in the model: the deliveries of a plan, and what a release does with each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.delivery import State
from model import desk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.paper import Delivery, LedgerModel

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
    attempts: int
    status: str = "planned"


@dataclass(slots=True)
class Operation:
    """A bulk operation: its items by the ids of their deliveries, the process that has its lease, whether it ended."""

    action: str
    event_filter: Mapping[str, Any]
    items: dict[str, Item]
    state: str = "planned"
    process: str = ""
    ended: bool = False

    def count(self, status: str) -> int:
        """The number of items with a status."""
        return sum(item.status == status for item in self.items.values())

    def shape(self) -> tuple[Any, ...]:
        """The operation in a comparable form."""
        items = {name: (item.state, item.attempts, item.status) for name, item in self.items.items()}
        return self.state, len(items), self.count("released"), self.count("changed"), items


def planned_deliveries(model: LedgerModel, action: str, event_filter: Mapping[str, Any]) -> list[Delivery] | None:
    """The deliveries that a plan has; None if the action changes no delivery in the filter's state."""
    state, handler = event_filter.get("state"), event_filter.get("handler")
    if state is not None and state not in STATES[action] and (action, state) != ("close", "suspended"):
        return None
    return [
        delivery
        for event in desk.matching_events(model, event_filter)
        for delivery in event.deliveries.values()
        if delivery.state in STATES[action]
        and desk.matches_delivery(delivery, handler, state)
        and (action != "run-now" or (_is_scheduled(model, delivery) and delivery.handler not in model.paused))
    ]


def _is_scheduled(model: LedgerModel, delivery: Delivery) -> bool:
    return delivery.due is not None and delivery.due > model.now


def release(model: LedgerModel, operation: Operation, limit: int) -> tuple[int, int]:
    """Act on the next items; return the numbers of released and of changed ones."""
    next_items = [name for name, item in sorted(operation.items.items()) if item.status == "planned"][:limit]
    for name in next_items:
        item = operation.items[name]
        delivery = find(model, item)
        item.status = "released" if delivery is not None and _act(model, operation, item, delivery) else "changed"
    released = sum(operation.items[name].status == "released" for name in next_items)
    return released, len(next_items) - released


def find(model: LedgerModel, item: Item) -> Delivery | None:
    """The delivery of an item; None if its event was purged."""
    event = model.events.get(item.event)
    return event.deliveries[item.handler] if event else None


def _act(model: LedgerModel, operation: Operation, item: Item, delivery: Delivery) -> bool:
    """Act on a delivery that is still as planned; return whether it was."""
    if (delivery.state, len(delivery.attempts)) != (item.state, item.attempts):
        return False
    match operation.action:
        case "run-now":
            if not _is_scheduled(model, delivery):
                return False
            delivery.due = delivery.changed = model.now
        case "close":
            if operation.event_filter.get("state") == "suspended" and delivery.due is not None:
                return False
            delivery.move(State.CLOSED, model.now)
        case "mark-done":
            delivery.move(State.SUCCEEDED, model.now)
        case _:
            model.requeue(delivery, model.missing_handlers)
    return True


def finish(model: LedgerModel) -> None:
    """End each operation that releases no further delivery and whose released ones were all executed."""
    for operation in model.operations.values():
        is_released = operation.state == "cancelled" or (
            operation.state == "running" and not operation.count("planned")
        )
        if is_released and not _is_executing(model, operation):
            operation.ended = True
            operation.state = "finished" if operation.state == "running" else operation.state


def _is_executing(model: LedgerModel, operation: Operation) -> bool:
    released = [find(model, item) for item in operation.items.values() if item.status == "released"]
    return operation.action not in {"close", "mark-done"} and any(
        delivery is not None and delivery.state in {State.WAITING, State.RUNNING} for delivery in released
    )
