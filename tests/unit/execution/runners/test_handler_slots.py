"""The slots of a process: each handler gets its share, and lets others have a turn."""

from __future__ import annotations

import threading

import pytest

from flowhooks.execution.runners import handler_slots
from flowhooks.execution.runners.handler_slots import HandlerSlots
from flowhooks.execution.runners.runner import max_per_handler
from flowhooks.ledger.attempts import StartedDelivery
from flowhooks.model.ready_delivery import ReadyDelivery
from support.waiting import WAIT_TIMEOUT


@pytest.fixture
def slots():
    """Eight slots; the handler `p:two` may use two of them."""
    return HandlerSlots(8, {"p:two": 2}.get)


def started(handler, number=0):
    """A started delivery."""
    return StartedDelivery(ReadyDelivery(f"d{number}", handler, 0), None)


def test_a_handler_gets_at_most_three_quarters_of_the_slots_and_its_limit(slots):
    """A handler gets three quarters of the slots or its concurrency, as long as slots are free."""
    assert [slots.take(handler) for handler in ("p:two", "p:two", "p:a", "p:a", "p:b")] == [2, 0, 6, 0, 0]
    assert slots.taken == 8
    slots.release("p:a", 4)
    assert slots.take("p:b") == 4
    assert slots.take("p:c") == 0


@pytest.mark.parametrize(("slots", "most"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (24, 18)])
def test_one_handler_leaves_slots_for_others(slots, most):
    """One handler leaves at least one slot for others, unless there is only one."""
    assert max_per_handler(slots) == most


def test_a_new_delivery_leaves_one_slot_for_jobs(slots):
    """Deliveries that start with their callback never take the last slot."""
    assert [slots.take_one(handler) for handler in ("p:a", "p:b", "p:c", "p:d") for _ in range(2)] == [
        *[True] * 7,
        False,
    ]


def test_a_new_delivery_does_not_overtake_a_backlog(slots):
    """While older deliveries of a handler are due, new ones do not start with their callback."""
    slots.set_backlog("p:a", has_more=True)
    assert not slots.take_one("p:a")
    slots.set_backlog("p:a", has_more=False)
    assert slots.take_one("p:a")


def test_handlers_that_need_no_job(slots):
    """A handler without a free slot, and one with a backlog, take no job; without any slot no handler does."""
    slots.take("p:a")
    slots.set_backlog("p:b", has_more=True)
    assert slots.closed() == {"p:a", "p:b"}
    assert slots.closed(claiming=2) is None
    slots.take("p:b")
    assert slots.closed() is None


def test_slots_are_refilled_when_all_started_deliveries_run(slots):
    """The next deliveries are marked when no thread has yet to take one of the last ones."""
    slots.take("p:two")
    slots.set_backlog("p:two", has_more=True)
    slots.start([started("p:two", number) for number in range(2)])
    slots.next()
    assert not slots.should_refill("p:two")
    slots.next()
    assert slots.should_refill("p:two")
    assert slots.to_refill() == []
    slots.release("p:two", 1)
    assert slots.to_refill() == ["p:two"]


def test_a_turn_ends_only_without_a_free_slot(slots, monkeypatch):
    """A turn ends only if others may be waiting."""
    slots.take("p:a")
    slots.set_backlog("p:a", has_more=True)
    monkeypatch.setattr(handler_slots, "TURN_SECONDS", -1.0)
    assert not slots.is_turn_over("p:a")
    slots.take("p:b")
    assert slots.is_turn_over("p:a")
    monkeypatch.setattr(handler_slots, "TURN_SECONDS", 1_000.0)
    assert not slots.is_turn_over("p:a")


def test_a_freed_slot_is_reported_if_a_job_may_be_waiting():
    """A slot of a full handler, or the only free one, is reported; that of a handler with a backlog is not."""
    freed = []
    slots = HandlerSlots(4, {}.get, lambda: freed.append(1))
    slots.take("p:a")
    slots.release("p:a", 1)
    assert len(freed) == 1
    slots.release("p:a", 1)
    assert len(freed) == 1
    slots.take("p:a")
    slots.set_backlog("p:a", has_more=True)
    slots.release("p:a", 1)
    assert len(freed) == 1
    slots.take("p:a")
    slots.take("p:b")
    slots.release("p:a", 1)
    assert len(freed) == 2


def test_threads_end_when_all_deliveries_have_ended(slots):
    """A thread that waits at the stop ends only after the last slot is free, and none is taken any more."""
    slots.take("p:two")
    ended = threading.Event()
    waiting = threading.Thread(target=lambda: (slots.next(), ended.set()), daemon=True)
    waiting.start()
    slots.stop()
    assert slots.take("p:a") == 0
    assert not slots.take_one("p:a")
    slots.release("p:two", 1)
    assert not ended.is_set()
    slots.release("p:two", 1)
    assert ended.wait(WAIT_TIMEOUT)
