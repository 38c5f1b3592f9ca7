"""Errors of engines, and gaps in their histories."""

from __future__ import annotations

import gc
from dataclasses import replace
from datetime import timedelta

import pytest

from flowhooks.background.alerts.engine_causes import UNSTORED, EngineCauseFinder
from flowhooks.background.reconciliation import callback_checks, due
from flowhooks.clock import DAY, SECOND
from flowhooks.errors import EngineError, Unavailable
from flowhooks.intake.callback import Callback
from flowhooks.ledger import engine_book, history_gaps
from flowhooks.ledger.engine_book import BookRow
from flowhooks.model.alert import AlertCause
from flowhooks.model.engine import EngineInfo
from support.asked_engine import MINUTE, settings_of

pytestmark = pytest.mark.either
HOUR = 3600


@pytest.mark.parametrize("reason", ["unreachable", "refused", "invalid"])
def test_an_error_of_the_engine_is_recorded_and_loses_nothing(asked, logged, reason):
    """A round that fails records the reason, leaves the position, and the next one reads the same window."""
    before = asked.position()
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.engine.fail(EngineError(reason, "401 of GET /history"))
    failed_at = asked.clock.now()
    assert asked.failed().reason == reason
    asked.clock.advance(MINUTE)
    asked.failed()
    position = asked.position()
    assert (position.reason, position.error, position.failures) == (reason, "401 of GET /history", 2)
    assert (position.failed_since, position.read_until) == (failed_at, before.read_until)
    assert len([record for record in logged if record["event"] == "reconciliation_failed"]) == 1
    asked.engine.recover()
    assert asked.round().in_grace == 1
    position = asked.position()
    assert (position.reason, position.failures, position.failed_since) == ("", 0, None)
    assert [record["event"] for record in logged].count("reconciliation_recovered") == 1
    assert asked.after_grace().taken_in == 1


def test_a_history_level_that_is_too_low_is_an_error(open_app):
    """If the engine's history level is too low, no round reads it, and the error says what to do."""
    asked = open_app()
    asked.engine.info = EngineInfo(product="Camunda", version="7.23", problem="Set the history level to audit.")
    assert asked.failed().error == "Camunda 7.23: Set the history level to audit."
    assert asked.position().reason == "invalid"
    asked.engine.info = EngineInfo(product="Camunda", version="7.23")
    asked.round()
    assert asked.position().product == "Camunda 7.23"


def test_a_long_failure_is_a_gap_until_the_interval_is_read(asked, logged):
    """After more than an hour of failures the interval is a gap; it is closed when it was read after all."""
    asked.engine.fail(EngineError("refused", "401"))
    since = asked.position().read_until
    asked.failed()
    asked.clock.advance(HOUR)
    asked.failed()
    assert asked.gaps() == []
    asked.clock.advance(1)
    asked.failed()
    asked.clock.advance(MINUTE)
    asked.failed()
    assert asked.gaps() == [("refused", False)]
    assert asked.flow.sql("SELECT since, until FROM history_gaps") == [(since, asked.clock.now())]
    assert len([record for record in logged if record["event"] == "history_gap"]) == 1
    asked.engine.recover()
    asked.round()
    assert asked.gaps() == [("refused", True)]


def test_an_interrupted_reading_of_a_gap_continues(open_app, monkeypatch, logged):
    """The pages before the interruption are no part of the gap any more, and the next round closes the rest."""
    asked = open_app({"page_size": 2})
    asked.round()
    asked.engine.fail()
    for number in range(16):
        asked.clock.advance(3 * HOUR)
        asked.finish(f"i{number:02}")
        asked.failed()
    ((_, end),) = asked.flow.sql("SELECT since, until FROM history_gaps")
    asked.engine.recover()
    ledger, pages = asked.flow.app.ledger, asked.engine.pages

    def busy(function):
        raise Unavailable("ledger_slow")

    with monkeypatch.context() as patch:
        read = len(pages)
        asked.engine.after_page = lambda: len(pages) == read + 5 and patch.setattr(ledger, "write", busy)
        assert asked.failed().reason == "database"
        asked.engine.after_page = None
    assert len(asked.book()) == 8
    read_until = asked.position().read_until
    assert asked.flow.sql("SELECT since, until, closed_at FROM history_gaps") == [(read_until, end, None)]
    asked.clock.advance(MINUTE)
    asked.round()
    assert len(asked.book()) == 16
    assert asked.gaps() == [("unreachable", True)]
    assert [record["gaps"] for record in logged if record["event"] == "history_gap_closed"] == [1]


@pytest.mark.parametrize("skew", [-5, 5])
def test_a_first_contact_that_fails_for_long(open_app, skew):
    """The gap begins by our clock; the first answer corrects it, as it does the first contact."""
    asked = open_app()
    asked.engine.skew = timedelta(seconds=skew)
    first = asked.clock.now() + skew * SECOND
    asked.engine.fail()
    for _ in range(3):
        asked.failed()
        asked.clock.advance(HOUR)
    assert asked.gaps() == [("unreachable", False)]
    asked.engine.recover()
    asked.round()
    assert asked.gaps() == [("unreachable", True)]
    assert asked.flow.sql("SELECT since FROM history_gaps") == [(first,)]
    assert asked.position().since == first


def test_the_gap_of_a_former_name_without_contact(open_app):
    """The former name has never reached the engine, so its gap is by our clock, too."""
    asked = open_app(sources={"old": settings_of()})
    asked.engine.skew = timedelta(seconds=5)
    asked.engine.fail()
    for _ in range(3):
        asked.failed("old")
        asked.clock.advance(HOUR)
    asked.engine.recover()
    settings = asked.flow.app.settings
    for former_names in ((), ("old",)):
        asked.flow.app.reload(replace(settings, sources={"new": settings_of(former_names=former_names)}))
        asked.round("new")
    assert asked.gaps() == [("unreachable", True)]


def test_a_slow_schedule_opens_a_gap_only_after_three_failures(open_app):
    """A gap opens only after three rounds that fail."""
    asked = open_app({"reconcile_every": float(2 * HOUR)})
    asked.round()
    asked.engine.fail()
    for _ in range(4):
        asked.failed()
        assert asked.gaps() == []
        asked.clock.advance(2 * HOUR)
    asked.failed()
    assert asked.gaps() == [("unreachable", False)]


def test_a_callback_without_an_instance_in_the_history_is_a_gap(asked):
    """A callback whose instance the engine does not know is a gap: its history may be deleted too early."""
    asked.flow.take("gone", source="oa", wait=0)
    asked.round()
    assert asked.gaps() == []
    asked.clock.advance(10 * MINUTE)
    asked.round()
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert asked.gaps() == [("deleted", False)]
    asked.clock.advance(10 * MINUTE)
    calls = len(asked.engine.calls)
    asked.round()
    assert [call[0] for call in asked.engine.calls[calls:]] == ["finished"]


def test_callbacks_are_checked_after_our_clock_was_ahead(asked, monkeypatch):
    """When the clock is right again, a callback counts although an earlier round has asked until a later time."""
    now = asked.clock.now
    with monkeypatch.context() as patch:
        patch.setattr(asked.clock, "now", lambda: now() + 10 * DAY)
        patch.setattr(asked.engine, "skew", timedelta(days=-10))
        asked.round()
    asked.clock.advance(MINUTE)
    asked.flow.take("gone", source="oa", wait=0)
    for _ in range(2):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert asked.gaps() == [("deleted", False)]


def test_callbacks_are_read_a_few_at_a_time(asked, monkeypatch):
    """A round reads a limited number of events, and the next one goes on behind them."""
    monkeypatch.setattr(engine_book, "MAX_EVENTS_READ", 2)
    monkeypatch.setattr(callback_checks, "MAX_READS", 2)
    for number in range(5):
        asked.flow.take(f"other{number}", wait=0)
    asked.flow.take("gone", source="oa", wait=0)
    for gaps in ([], [], [("deleted", False)]):
        asked.clock.advance(10 * MINUTE)
        asked.round()
        assert asked.gaps() == gaps


def test_deleted_history_is_one_gap(asked):
    """Each round may find another callback without an instance; they are one gap, until none is found for a week."""
    for number in range(3):
        asked.flow.take(f"gone{number}", source="oa", wait=0)
        for _ in range(2):
            asked.clock.advance(10 * MINUTE)
            asked.round()
    (gap,) = asked.flow.sql("SELECT since, until, found_at FROM history_gaps")
    received = asked.flow.sql("SELECT min(received_at), max(received_at) FROM events")
    assert gap[:2] == received[0]
    asked.clock.advance(8 * DAY // SECOND)
    asked.flow.take("gone3", source="oa", wait=0)
    for _ in range(2):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert asked.gaps() == [("deleted", False)] * 2


def test_a_closed_gap_of_deleted_history_is_not_found_again(asked, open_app):
    """A closed gap is not found again after a restart; another callback without an instance is a new gap."""
    asked.flow.take("gone", source="oa", wait=0)
    for _ in range(2):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    write = asked.flow.app.ledger.write
    now = asked.clock.now()
    assert write(lambda transaction: history_gaps.close_seen(transaction, "oa", now, now)) == 1
    asked.flow.app.close(0)
    again = open_app()
    again.round()
    assert again.gaps() == [("deleted", True)]
    again.flow.take("gone2", source="oa", wait=0)
    for _ in range(2):
        again.clock.advance(10 * MINUTE)
        again.round()
    assert again.gaps() == [("deleted", True), ("deleted", False)]


def write_gap(asked, since, until, reason="refused", at=0):
    """Record a gap at a time in seconds."""
    now = asked.clock.now() + at * SECOND
    return asked.flow.app.ledger.write(
        lambda transaction: history_gaps.record(transaction, "oa", (since, until), reason=reason, detail="", now=now)
    )


def intervals(asked):
    """The interval and reason of each gap."""
    return asked.flow.sql("SELECT since, until, reason FROM history_gaps ORDER BY since")


def test_overlapping_gaps_are_merged(asked):
    """A gap that is found again is extended; the part that was read meanwhile is no part of it any more."""
    assert write_gap(asked, 100, 200)
    assert not write_gap(asked, 100, 300)
    assert not write_gap(asked, 150, 400)
    assert intervals(asked) == [(150, 400, "refused")]
    assert write_gap(asked, 500, 600)
    assert not write_gap(asked, 500, 700, "unreachable")
    assert intervals(asked) == [(150, 400, "refused"), (500, 700, "unreachable")]


def test_an_interval_that_was_read_is_taken_from_the_gaps(asked):
    """A gap that was read is closed, the rest of others stays open, and no gap replaces another one."""
    for gap in [(100, 200), (130, 140, "unreachable"), (150, 600, "invalid"), (180, 500, "unreachable")]:
        write_gap(asked, *gap)
    write_gap(asked, 300, 900, "deleted")
    ledger, now = asked.flow.app.ledger, asked.clock.now()
    assert ledger.write(lambda transaction: history_gaps.trim(transaction, "oa", (120, 300), now)) == 1
    rest = [(298, 600, "invalid"), (299, 500, "unreachable"), (300, 900, "deleted")]
    assert intervals(asked) == [(100, 200, "refused"), (130, 140, "unreachable"), *rest]
    assert asked.flow.sql("SELECT since FROM history_gaps WHERE closed_at IS NOT NULL") == [(130,)]


def test_old_gaps_are_deleted(asked):
    """A gap that is closed, or that nothing can close, is deleted after 90 days; an open one stays."""
    write_gap(asked, 100, 200)
    write_gap(asked, 300, 400, "deleted")
    write_gap(asked, 500, 600)
    asked.flow.app.ledger.write(lambda transaction: history_gaps.close(transaction, "oa", 500, asked.clock.now()))
    write_gap(asked, 700, 800, "invalid", at=91 * DAY // SECOND)
    assert intervals(asked) == [(100, 200, "refused"), (700, 800, "invalid")]


def test_a_renamed_source_keeps_its_gaps(asked):
    """The gaps of the former name are those of the source, so their alert stays."""
    write_gap(asked, 100, 200)
    settings = replace(asked.flow.app.settings, sources={"ob": settings_of(former_names=("oa",))})
    asked.flow.app.reload(settings)
    asked.round("ob")
    assert asked.flow.sql("SELECT source, since FROM history_gaps") == [("ob", 100)]


def test_an_early_callback_is_checked_until_its_instance_ends(asked):
    """An instance that calls while it runs is no gap; its row is written when it has ended."""
    asked.engine.start("early")
    asked.flow.take("early", source="oa", wait=0)
    for _ in range(3):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert [call for call in asked.engine.calls if call[0] == "instance"] == [("instance", "early")] * 2
    asked.engine.before_call = lambda method: method == "instance" and asked.engine.finish("early")
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert (asked.gaps(), asked.book()) == ([], {"early": ("has_event", "")})


def test_an_engine_error_for_one_callback_fails_no_round(asked, logged):
    """An error of the engine for one instance is logged, the others are asked about, and it is asked about again."""
    for name in ("bad", "gone"):
        asked.flow.take(name, source="oa", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.round()
    asked.clock.advance(10 * MINUTE)
    asked.engine.fail(EngineError("invalid", "400 for this id"), method="instance", times=1)
    asked.round()
    assert [record["flow_instance_id"] for record in logged if record["event"] == "instance_not_read"] == ["bad"]
    ((detail,),) = asked.flow.sql("SELECT detail FROM history_gaps")
    assert "gone" in detail
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert [call[1] for call in asked.engine.calls if call[0] == "instance"] == ["bad", "gone", "bad"]


def test_an_engine_that_always_fails_is_queried_three_times_per_round(asked):
    """If each answer is an error, a round asks only three times; a later one asks about all of them."""
    for number in range(10):
        asked.flow.take(f"gone{number}", source="oa", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.round()
    asked.clock.advance(10 * MINUTE)
    asked.engine.fail(method="instance")
    asked.round()
    asked_about = lambda: [call[1] for call in asked.engine.calls if call[0] == "instance"]  # noqa: E731
    assert len(asked_about()) == 3
    asked.engine.recover()
    asked.clock.advance(10 * MINUTE)
    asked.round()
    assert len(set(asked_about())) == 10
    assert len(asked_about()) == 13


def test_a_round_checks_at_most_a_hundred_callbacks(asked):
    """Many callbacks without an instance cost a bounded number of requests in each round, and none is left out."""
    for number in range(150):
        asked.flow.take(f"gone{number}", source="oa", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.round()
    counts = []
    for _ in range(4):
        asked.clock.advance(10 * MINUTE)
        asked.round()
        counts.append(len([call for call in asked.engine.calls if call[0] == "instance"]))
    assert counts[-3:] in ([100, 150, 150], [150, 150, 150])


def test_a_page_from_a_cache_does_not_move_the_position(asked):
    """Yesterday's page again is refused, and an old empty page does not count as read."""
    asked.finish("i1")
    asked.round()
    yesterday = asked.engine.pages[-1]
    asked.clock.advance(2 * DAY // SECOND)
    asked.round()
    asked.finish("i2")
    asked.engine.answer_with(yesterday)
    assert "outside of the window" in asked.failed().error
    asked.clock.advance(HOUR)
    asked.engine.answer_with(replace(yesterday, instances=()))
    before = asked.position().read_until
    asked.service.reconcile_now("oa")
    assert asked.position().read_until == before
    asked.round()
    assert "i2" in asked.book()


def test_a_busy_ledger_is_a_failure_of_the_round(asked, logged, monkeypatch):
    """An error of the lease step is counted with its cause, as soon as it can be stored, and the alert names it."""
    ledger = asked.flow.app.ledger
    write = ledger.write

    def busy(function, *given, **named):
        raise Unavailable("ledger_slow")

    began = asked.clock.now()
    monkeypatch.setattr(ledger, "write", busy)
    assert asked.failed().error == "not stored: the database was too busy to write in time"
    assert asked.position().failures == 0
    asked.clock.advance(MINUTE)
    for _ in range(2):
        writes = iter([busy, write])
        monkeypatch.setattr(ledger, "write", lambda *given, _writes=writes, **named: next(_writes)(*given, **named))
        asked.failed()
    position = asked.position()
    assert (position.reason, position.failures, position.failed_since) == ("database", 3, began)
    postponed = [record["why"] for record in logged if record["event"] == "reconciliation_postponed"]
    assert postponed == ["not stored: the database was too busy to write in time"] * 3
    monkeypatch.setattr(ledger, "write", write)
    with ledger.connection() as connection:
        (cause,) = EngineCauseFinder(lambda: asked.flow.app.settings).find(connection, asked.clock.now())
    assert (cause.cause, cause.template) == (AlertCause.ENGINE_UNREACHABLE, UNSTORED)
    asked.round()
    assert (asked.position().failures, asked.position().reason) == (0, "")
    assert [record["event"] for record in logged].count("reconciliation_recovered") == 1
    assert asked.gaps() == []


def test_a_failure_of_another_processs_source_is_not_counted(asked, monkeypatch):
    """While another process reconciles, an error of this one says nothing about the source."""
    now = asked.clock.now()
    asked.flow.sql(
        "INSERT INTO processes (id, kind, host, pid, started_at, heartbeat_at) "
        f"VALUES ('other', 'server', 'h', 1, {now}, {now})"
    )
    asked.flow.sql(f"UPDATE engine_positions SET process = 'other', process_until = {2**53}")
    ledger = asked.flow.app.ledger
    write = ledger.write

    def busy(*_given, **_named):
        monkeypatch.setattr(ledger, "write", write)
        raise Unavailable("ledger_slow")

    monkeypatch.setattr(ledger, "write", busy)
    asked.failed()
    assert asked.position().failures == 0
    asked.flow.sql("DELETE FROM processes WHERE id = 'other'")


def test_a_database_error_is_not_blamed_on_the_engine(asked, monkeypatch):
    """If an instance cannot be stored, the engine is not blamed, and the next round takes it in."""
    asked.finish("i1")
    asked.round()
    asked.clock.advance(121)

    def unavailable(callback):
        raise Unavailable("ledger_down")

    with monkeypatch.context() as patch:
        patch.setattr(asked.service._workers["oa"].reconciler._context, "take_in", unavailable)
        assert asked.failed().reason == "database"
    assert asked.position().failures == 0
    assert asked.round().taken_in == 1


def test_an_unstorable_instance_does_not_delay_other_instances(asked, monkeypatch):
    """The other instances are taken in, and the round does not count as a success until all are stored."""
    for name in ("i1", "i2", "i3"):
        asked.finish(name)
        asked.clock.advance(1)
    asked.round()
    take_in = asked.flow.app.intake.take_in

    def refuse(callback):
        if callback.flow_instance_id == "i2":
            raise Unavailable("newer_handlers")
        return take_in(callback)

    with monkeypatch.context() as patch:
        patch.setattr(asked.service._workers["oa"].reconciler._context, "take_in", refuse)
        asked.clock.advance(121)
        for _ in range(3):
            assert asked.failed().reason == "database"
        assert asked.events() == {"i1": "reconciled", "i3": "reconciled"}
        assert asked.position().succeeded_at < asked.clock.now()
    assert asked.round().taken_in == 1
    assert asked.position().succeeded_at == asked.clock.now()


def test_instances_that_are_not_stored_do_not_stay_in_memory(open_app, monkeypatch):
    """While the ledger refuses writes, a round has the rows of two pages in memory, however many instances are due."""
    monkeypatch.setattr(due, "PAGE_OF_DUE", 10)
    asked = open_app({"max_new": 1000})
    asked.round()
    asked.clock.advance(1)
    for number in range(100):
        asked.finish(f"i{number:02}", variables={"amount": "x" * 1000})
    asked.round()
    asked.clock.advance(121)
    in_memory = []

    def refuse(callback):
        if callback.flow_instance_id == "i99":
            gc.collect()
            in_memory.extend(item for item in gc.get_objects() if type(item) in {BookRow, Callback})
        raise Unavailable("ledger_full")

    monkeypatch.setattr(asked.service._workers["oa"].reconciler._context, "take_in", refuse)
    expected = "100 instances are not stored, first i00: too many other writes wait for the database"
    assert asked.failed().error == expected
    assert 0 < len(in_memory) <= 25
