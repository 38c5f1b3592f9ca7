"""Steps of bulk operations: they are planned, changed, released page by page, and finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from flowhooks.errors import InvalidTransition
from model import bulk
from model.machine import PICKS, WHICH
from model.running import Running

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIONS = st.sampled_from(["replay", "replay", "rerun", "mark-done", "mark-not-done", "close", "run-now"])
CHANGES = st.sampled_from(["start", "start", "start", "pause", "resume", "resume", "cancel"])
PLAN_FILTERS = st.sampled_from(
    ["one", "one", {}, {}, {"handler": "p:again"}, {"handler": "q:every", "state": "dead"}]
    + [{"state": state} for state in ("dead", "succeeded", "unknown", "waiting", "suspended", "parked")]
)
MAX_RELEASED = 2
"""The number of deliveries that one transaction releases here, so that most operations need several."""


class Operating(Running):
    """The steps of engines, runners and bulk operations."""

    def _wanted(self, wanted: Any, pick: int) -> dict[str, Any]:
        events = list(self.model.events)
        return {"ids": [events[pick % len(events)] if events else "none"]} if wanted == "one" else wanted

    @precondition(lambda self: self.model.deliveries())
    @rule(action=ACTIONS, wanted=PLAN_FILTERS, pick=PICKS, which=WHICH)
    def plan(self, action: str, wanted: Any, pick: int, which: int) -> None:
        """Plan an operation."""
        self._plan(action, self._wanted(wanted, pick), which)

    def _plan(self, action: str, event_filter: Mapping[str, Any], which: int) -> str:
        """Plan an operation; return its id, or `""` if it is refused."""
        arguments = {"action": action, "event_filter": event_filter}
        expected = bulk.planned_deliveries(self.model, action, event_filter)
        if expected is None:
            with pytest.raises(InvalidTransition):
                self.real.perform(self._flow(which), "plan_operation", **arguments)
            return ""
        result = self.real.perform(self._flow(which), "plan_operation", **arguments)
        assert result["planned"] == len(expected)
        self.model.operations[result["id"]] = bulk.Operation(
            action,
            event_filter,
            {
                self.real.ids[delivery.event, delivery.handler]: bulk.Item(
                    delivery.event, delivery.handler, delivery.state, len(delivery.attempts)
                )
                for delivery in expected
            },
        )
        return result["id"]

    @precondition(lambda self: self.model.operations)
    @rule(change=CHANGES, pick=PICKS, which=WHICH)
    def change_operation(self, change: str, pick: int, which: int) -> None:
        """Start, pause, resume or cancel an operation."""
        self._change(change, list(self.model.operations)[pick % len(self.model.operations)], which)

    def _change(self, change: str, operation_id: str, which: int) -> None:
        operation, (before, after) = self.model.operations[operation_id], bulk.CHANGES[change]
        if operation.state not in before:
            with pytest.raises(InvalidTransition):
                self.real.perform(self._flow(which), f"{change}_operation", operation_id=operation_id)
            return
        self.real.perform(self._flow(which), f"{change}_operation", operation_id=operation_id)
        operation.state = after
        self.model.audit_entries += 1

    @precondition(lambda self: self.model.operations)
    @rule(pick=PICKS, which=WHICH, breaks=st.sampled_from([False, False, False, True]))
    def release(self, pick: int, which: int, breaks: bool) -> None:
        """A process releases a page of an operation, or its transaction is undone before it is durable."""
        self._release(list(self.model.operations)[pick % len(self.model.operations)], which, breaks=breaks)

    def _release(self, operation_id: str, which: int, *, breaks: bool = False) -> bool:
        """Release a page; return whether the process has the lease."""
        operation, flow = self.model.operations[operation_id], self._flow(which)
        if breaks and operation.count("planned"):
            self.real.fail_release(flow, operation_id)
            return True
        released = self.real.release(flow, operation_id)
        if released is None:
            live = {other.app.ledger.process for other in self.real.flows} - {flow.app.ledger.process}
            assert operation.state != "running" or operation.process in live
            return False
        assert operation.state == "running"
        operation.process = flow.app.ledger.process
        assert (released.released, released.changed) == bulk.release(self.model, operation, MAX_RELEASED)
        return True

    @precondition(lambda self: self.model.deliveries())
    @rule(action=ACTIONS, wanted=PLAN_FILTERS, pick=PICKS, which=WHICH)
    def operate(self, action: str, wanted: Any, pick: int, which: int) -> None:
        """Plan an operation, start it and release all its deliveries."""
        if operation_id := self._plan(action, self._wanted(wanted, pick), which):
            self._change("start", operation_id, which)
            while self.model.operations[operation_id].count("planned"):
                assert self._release(operation_id, which)

    @precondition(lambda self: self.model.operations)
    @rule(which=WHICH)
    def finish_operations(self, which: int) -> None:
        """A process stores the results of the operations whose deliveries were all executed."""
        self.real.finish_operations(self._flow(which))
        bulk.finish(self.model)
