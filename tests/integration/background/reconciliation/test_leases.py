"""Rounds of one source never overlap, and a process that has lost its lease writes nothing."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from flowhooks.background.reconciliation.reconciler import SourceReconciler
from flowhooks.errors import LedgerError
from support.asked_engine import MINUTE, settings_of
from support.waiting import WAIT_TIMEOUT, until


@pytest.fixture
def gate(engine):
    """A function that lets the next page of the engine wait; it returns two events: it waits, and it may go on."""

    def shut():
        waits, may_go_on = threading.Event(), threading.Event()

        def before_call(method):
            if method == "finished" and not waits.is_set():
                waits.set()
                assert may_go_on.wait(WAIT_TIMEOUT)

        engine.before_call = before_call
        return waits, may_go_on

    return shut


@pytest.mark.either
def test_two_rounds_of_a_process_follow_each_other(asked, gate, together):
    """An operator's round waits for the one in progress, and then finds that nothing is left to do."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(121)
    _, may_go_on = gate()
    may_go_on.set()
    results = together(*[lambda: asked.service.reconcile_now("oa") for _ in range(2)])
    assert sorted(result.taken_in for result in results) == [0, 1]
    assert {result.error for result in results} == {""}
    assert len(asked.flow.events()) == 1


@pytest.mark.either
def test_one_request_waits_for_the_round_in_progress(asked, gate):
    """Further requests are answered *busy* at once, also those that would decline instances."""
    waits, may_go_on = gate()
    rounds = asked.service._workers["oa"].reconciler._rounds
    results = []
    requests = [threading.Thread(target=lambda: results.append(asked.round())) for _ in range(2)]
    requests[0].start()
    assert waits.wait(WAIT_TIMEOUT)
    requests[1].start()
    until(rounds.is_awaited)
    assert asked.failed().reason == "busy"
    with pytest.raises(LedgerError, match="another request waits for the round of oa"):
        asked.service.decline("oa", note="")
    may_go_on.set()
    for request in requests:
        request.join(WAIT_TIMEOUT)
    assert [result.reason for result in results] == ["", ""]


@pytest.mark.postgresql
def test_only_one_of_two_processes_makes_a_round(asked, open_app, gate):
    """While one process reads the history, the round of the other one is *busy* and reads nothing."""
    other = open_app()
    asked.finish("i1")
    waits, may_go_on = gate()
    first = threading.Thread(target=asked.round)
    first.start()
    assert waits.wait(WAIT_TIMEOUT)
    calls = len(asked.engine.calls)
    assert other.failed().reason == "busy"
    assert len(asked.engine.calls) == calls
    may_go_on.set()
    first.join(WAIT_TIMEOUT)
    assert asked.book() == {"i1": ("in_grace", "")}
    assert other.round().in_grace == 1


@pytest.mark.postgresql
def test_the_lease_of_a_process_that_has_ended_is_free(asked, open_app):
    """A process that was marked as stopped does not keep others from the history."""
    other = open_app()
    dead = asked.flow.app.ledger.process
    until = asked.clock.now() + 10**15
    asked.flow.sql("UPDATE engine_positions SET process = ?, process_until = ?", dead, until)
    assert other.failed().reason == "busy"
    asked.flow.sql("UPDATE processes SET stopped_at = ? WHERE id = ?", asked.clock.now(), dead)
    other.round()


@pytest.mark.either
def test_a_round_that_has_lost_its_lease_writes_nothing(asked, gate):
    """A process that was suspended for too long stops at the page, and leaves the book to the other one."""
    asked.finish("i1")
    before = asked.position()
    waits, may_go_on = gate()
    results = []
    round_in_progress = threading.Thread(target=lambda: results.append(asked.failed()))
    round_in_progress.start()
    assert waits.wait(WAIT_TIMEOUT)
    asked.flow.sql("UPDATE engine_positions SET process = ?", asked.clock.new_id())
    may_go_on.set()
    round_in_progress.join(WAIT_TIMEOUT)
    assert [result.reason for result in results] == ["stopped"]
    assert (asked.book(), asked.position()) == ({}, before)


@pytest.mark.either
def test_queries_about_callbacks_renew_the_lease(asked):
    """Many slow answers about single instances do not outlast it: a process that has lost it asks no further."""
    for number in range(3):
        asked.flow.take(f"called{number}", source="oa", wait=0)
    for _ in range(2):
        asked.round()
        asked.clock.advance(10 * MINUTE)
    asked.service._workers["oa"].reconciler._context.lease_seconds = 0.0  # so that it is always old

    def lose_lease(method):
        if method == "instance":
            asked.flow.sql("UPDATE engine_positions SET process = ?", asked.clock.new_id())

    asked.engine.before_call = lose_lease
    calls = len(asked.engine.calls)
    assert asked.failed().reason == "stopped"
    assert [call[0] for call in asked.engine.calls[calls:]].count("instance") == 1


@pytest.mark.either
def test_an_unreadable_position_does_not_end_the_thread(open_app, monkeypatch):
    """The thread of the source makes its round, which reports what is wrong."""

    def fail(_reconciler):
        raise TypeError("round_at is a text")

    monkeypatch.setattr(SourceReconciler, "position", fail)
    asked = open_app(start=True)
    until(lambda: "finished" in [call[0] for call in asked.engine.calls])
    assert asked.service._workers["oa"].is_alive()


@pytest.mark.either
def test_changed_settings_wait_for_the_round_in_progress(asked, monkeypatch):
    """A round with new settings begins after the one with the old settings has released its lease."""
    asked.finish("i1")
    old = asked.service._workers["oa"].reconciler
    release, asks, may_release = old._release_lease, threading.Event(), threading.Event()

    def release_late(*given):
        assert may_release.wait(WAIT_TIMEOUT)
        release(*given)

    monkeypatch.setattr(old, "_release_lease", release_late)
    first = threading.Thread(target=old.run)
    first.start()
    until(asked.book)
    asked.service.reconfigure(replace(asked.flow.app.settings, sources={"oa": settings_of({"grace": 60.0})}))
    asked.engine.before_call = lambda method: method == "finished" and (asks.set(), first.join(WAIT_TIMEOUT))
    results = []
    second = threading.Thread(target=lambda: results.append(asked.round()))
    second.start()
    may_release.set()
    first.join(WAIT_TIMEOUT)
    second.join(WAIT_TIMEOUT)
    assert (asks.is_set(), [result.reason for result in results]) == (True, [""])


@pytest.mark.either
def test_a_stop_ends_a_round_within_a_page(asked, gate):
    """A stop does not wait for the engine, and what the round has written stays."""
    asked.finish("i1")
    waits, may_go_on = gate()
    results = []
    round_in_progress = threading.Thread(target=lambda: results.append(asked.failed()))
    round_in_progress.start()
    assert waits.wait(WAIT_TIMEOUT)
    asked.service.begin_stop()
    round_in_progress.join(WAIT_TIMEOUT)
    assert [result.reason for result in results] == ["stopped"]
    assert asked.flow.sql("SELECT process FROM engine_positions") == [("",)]
    may_go_on.set()


@pytest.mark.postgresql
def test_a_process_with_old_settings_makes_no_round_of_a_renamed_source(open_app, clock, engine):
    """While servers are renamed one after the other, no instance is taken in under both names."""
    old = open_app(sources={"oa": settings_of()})
    old.round("oa")
    clock.advance(60)
    new = open_app(sources={"ob": settings_of(former_names=("oa",))})
    new.round("ob")
    assert old.failed("oa").reason == "busy"
    clock.advance(10)
    new.finish("called")
    new.flow.take("called", source="ob", wait=0)
    new.finish("silent")
    for _ in range(3):
        clock.advance(130)
        assert old.failed("oa").reason == "busy"
        new.round("ob")
    rows = new.flow.sql("SELECT source, flow_instance_id, origin FROM events ORDER BY flow_instance_id")
    assert rows == [("ob", "called", "callback"), ("ob", "silent", "reconciled")]
    assert new.flow.sql("SELECT source FROM engine_positions") == [("ob",)]
    new.flow.close()
    again = open_app(sources={"ob": settings_of()})
    again.round("ob")
    old.round("oa")  # the name is free for another engine
