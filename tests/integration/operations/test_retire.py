"""Retire: a retired handler gets no new events, and its stored data is kept."""

from __future__ import annotations

import pytest

from flowhooks import Retry, State
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.registry import run_operation
from flowhooks.operations.retire import retire
from support.run_bulk import replay


def nothing(event):
    """Do nothing."""


def due(flow):
    """All deliveries that a runner can find."""
    return flow.app.ledger.due_deliveries(flow.clock.now() + 10**15, lambda _handler: 100)


@pytest.mark.sqlite
def test_events_of_a_retired_handler_are_parked_after_a_restart(harness, listens):
    """From the next start on, events of a retired handler are parked, and no start reports it missing."""
    harness.open(listens(nothing), start=False).close()
    flow = harness.open(start=False)
    assert flow.app.operation_context.missing_handlers == {"p:nothing"}
    done = retire(flow.app.operation_context, ["p:nothing"])
    assert (done.handlers, done.skipped, done.dry_run) == (("p:nothing",), (), False)
    assert flow.app.ledger.registered_handlers() == []
    flow.close()
    later = harness.open(start=False)
    assert later.take(wait=0).status == "parked"


def test_a_dry_run_changes_nothing(harness, listens):
    """A dry run returns the same result, and the handler stays known."""
    harness.open(listens(nothing), start=False).close()
    flow = harness.open(start=False)
    done = retire(flow.app.operation_context, ["p:nothing", "p:other"], dry_run=True)
    assert (done.handlers, done.skipped, done.dry_run) == (("p:nothing",), ("p:other",), True)
    assert [handler.id for handler in flow.app.ledger.registered_handlers()] == ["p:nothing"]


def test_unknown_and_retired_handlers_are_skipped(harness, listens):
    """A second retirement changes nothing, and the time of the first stays."""
    harness.open(listens(nothing), start=False).close()
    flow = harness.open(start=False)
    retire(flow.app.operation_context, ["p:nothing"])
    (before,) = flow.sql("SELECT retired_at FROM handlers")
    flow.clock.advance(60)
    done = retire(flow.app.operation_context, ["p:nothing", "p:other", "p:other"])
    assert (done.handlers, done.skipped) == ((), ("p:nothing", "p:other"))
    assert flow.sql("SELECT retired_at FROM handlers") == [before]


def test_stored_deliveries_of_a_retired_handler_are_counted(harness, listens):
    """The numbers of waiting, *unknown* and dead deliveries are reported; none is changed."""

    def failing(event):
        raise ValueError("no")

    flow = harness.open(listens(failing, name="h"))
    dead = flow.take("dead").event_id
    flow.close()
    flow = harness.open(listens(nothing, name="h"), start=False)
    lost = flow.take("lost", wait=0).event_id
    (queued,) = due(flow)
    assert flow.app.ledger.claim(queued)
    harness.crash(flow)
    flow = harness.open(start=False)
    waiting = [flow.take(f"waits-{number}", wait=0).event_id for number in range(2)]
    states = {event_id: flow.only(event_id).state for event_id in (dead, lost, *waiting)}
    assert list(states.values()) == [State.DEAD, State.UNKNOWN, State.WAITING, State.WAITING]
    done = retire(flow.app.operation_context, ["p:h"])
    assert (done.waiting, done.unknown, done.dead) == (2, 1, 1)
    assert {event_id: flow.only(event_id).state for event_id in states} == states


def test_a_running_server_still_runs_a_retired_handler(harness, listens):
    """A handler that is loaded while it is retired still gets its events, and they still run."""
    flow = harness.open(listens(nothing))
    assert retire(flow.app.operation_context, ["p:nothing"]).handlers == ("p:nothing",)
    assert flow.take().status == "done"


def test_a_reinstalled_handler_gets_its_waiting_deliveries(harness, listens):
    """After a plugin is installed again, all its stored data is there."""
    harness.open(listens(nothing), start=False).close()
    flow = harness.open(start=False)
    event_id = flow.take(wait=0).event_id
    retire(flow.app.operation_context, ["p:nothing"])
    flow.close()
    flow = harness.open(listens(nothing))
    assert flow.settled(event_id, State.SUCCEEDED).attempt == 1
    assert [handler.id for handler in flow.app.ledger.registered_handlers()] == ["p:nothing"]


@pytest.mark.sqlite
def test_replayed_deliveries_wait_for_a_retired_handler(harness, listens):
    """Replayed and recovered deliveries of a missing handler have no due time, because no process polls them."""

    def failing(event):
        raise ValueError("no")

    flow = harness.open(listens(failing, name="h"))
    dead = flow.take("dead").event_id
    flow.close()
    flow = harness.open(listens(nothing, name="h", retry=Retry()), start=False)
    lost = flow.take("lost", wait=0).event_id
    (queued,) = due(flow)
    assert flow.app.ledger.claim(queued)
    retire(flow.app.operation_context, ["p:h"])
    harness.crash(flow)
    flow = harness.open()
    assert flow.only(lost).state is State.WAITING
    replay(flow.app.operation_context, EventFilter(handler="p:h"))
    assert flow.only(dead).state is State.WAITING
    assert due(flow) == []
    assert [flow.only(event_id).attempt for event_id in (dead, lost)] == [1, 1]


def test_the_operation_is_called_by_name(harness, listens):
    """The operation is called as by the API and commands, with ids as a list of strings."""
    harness.open(listens(nothing), start=False).close()
    flow = harness.open(start=False)
    assert run_operation(flow.app.operation_context, "retire", {"handlers": ["p:nothing"]}) == {
        "handlers": ("p:nothing",),
        "skipped": (),
        "waiting": 0,
        "unknown": 0,
        "dead": 0,
        "dry_run": False,
    }
