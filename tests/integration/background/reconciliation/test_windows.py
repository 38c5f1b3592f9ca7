"""The window of a round, and the pages of the history in it."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta

import pytest

from flowhooks.clock import DAY, SECOND, to_datetime
from flowhooks.model.engine import EndState, FinishedInstance, FinishedPage
from support.app_harness import plugin
from support.asked_engine import MINUTE, grant, settings_of
from support.silent_engine import SilentClient

pytestmark = pytest.mark.either
HOUR = 3600
COMPLETED = EndState.COMPLETED


def windows(engine):
    """The window of each page that was asked for."""
    return [call[1:3] for call in engine.calls if call[0] == "finished"]


def empty_pages(engine, names):
    """Pages without instances, each with a cursor of its own."""
    cursors = [json.dumps(["2026-01-01T00:00:00+00:00", str(name)]) for name in names]
    return [FinishedPage(instances=(), cursor=cursor, engine_time=engine.now()) for cursor in cursors]


class LocalTimeEngine(SilentClient):
    """Stores end times in local time without a zone; when the clocks go back, an hour of them is ambiguous."""

    def __init__(self, clock):
        self.clock = clock
        self.ends = {}

    def finish(self, instance_id):
        """End an instance now."""
        self.ends[instance_id] = self.to_local(to_datetime(self.clock.now()))

    @staticmethod
    def to_local(time):
        """A time as the engine stores it: in Berlin, where the clocks go back at one o'clock UTC."""
        return (time + timedelta(hours=2 if time < datetime(2026, 10, 25, 1, tzinfo=UTC) else 1)).replace(tzinfo=None)

    @staticmethod
    def to_utc(local):
        """A stored time; an ambiguous one counts as standard time."""
        is_summer = local < datetime(2026, 10, 25, 2)  # noqa: DTZ001 (local time)
        return (local - timedelta(hours=2 if is_summer else 1)).replace(tzinfo=UTC)

    def finished(self, since, until, cursor=None):
        """The instances whose stored time lies between the two."""
        first, last = self.to_local(since), self.to_local(until)
        found = sorted((end, name) for name, end in self.ends.items() if first <= end <= last)
        instances = [FinishedInstance(id=name, ended_at=self.to_utc(end), end_state=COMPLETED) for end, name in found]
        return FinishedPage(instances=tuple(instances), engine_time=to_datetime(self.clock.now()))


def test_first_contact_imports_no_older_instance(open_app):
    """The position of a new source is now: an instance that ended before is never read."""
    asked = open_app()
    asked.finish("old")
    asked.clock.advance(MINUTE)
    asked.round()
    assert asked.position().since == asked.clock.now()
    asked.clock.advance(2 * DAY // SECOND)
    asked.round()
    asked.after_grace()
    assert asked.book() == {}


@pytest.mark.parametrize("skew", [-HOUR, HOUR, -40, 40])
def test_the_engines_clock_determines_the_window(open_app, logged, skew):
    """With a clock that is ahead or behind, first contact, window and grace are right, and the log says it once."""
    asked = open_app()
    asked.engine.skew = timedelta(seconds=skew)
    asked.finish("old")
    asked.clock.advance(MINUTE)
    asked.round()
    assert asked.position().since == asked.clock.now() + skew * SECOND
    assert asked.position().skew == skew * SECOND
    asked.clock.advance(MINUTE)
    asked.finish("new")
    asked.round()
    asked.clock.advance(119)
    assert asked.round().taken_in == 0
    asked.clock.advance(2)
    assert asked.round().taken_in == 1
    assert asked.book() == {"new": ("has_event", "")}
    assert len([record for record in logged if record["event"] == "engine_clock_skew"]) == 1


@pytest.mark.parametrize(("skew", "measured"), [(0, 0), (20, 0), (-HOUR, -HOUR), (HOUR, HOUR - 40)])
def test_a_slow_page_is_no_difference_of_the_clocks(asked, logged, skew, measured):
    """The engine tells its time at any moment of a call, so only a difference that the call does not explain counts."""
    before = len(windows(asked.engine))
    asked.engine.skew = timedelta(seconds=skew)
    asked.engine.after_page = lambda: asked.clock.advance(40)
    asked.round()
    assert asked.position().skew == measured * SECOND
    assert len(windows(asked.engine)) - before == (2 if measured else 1)
    reported = [record["seconds"] for record in logged if record["event"] == "engine_clock_skew"]
    assert reported == ([measured] if measured else [])


def test_a_difference_within_that_of_a_slow_page_stays(asked):
    """A slow page says less than a quick one, and does not replace what that has measured."""
    asked.engine.skew = timedelta(seconds=50)
    asked.round()
    asked.engine.after_page = lambda: asked.clock.advance(40)
    asked.round()
    assert asked.position().skew == 50 * SECOND
    asked.engine.skew = timedelta(seconds=-50)
    asked.round()
    assert asked.position().skew == -50 * SECOND


@pytest.mark.parametrize("every", [5, 30])
def test_an_engines_clock_that_was_ahead(asked, every):
    """After a correction of the engine's clock the next round reads what ended since the one before."""
    asked.engine.skew = timedelta(hours=20)
    for _ in range(3):
        asked.clock.advance(5 * MINUTE)
        asked.round()
    asked.engine.skew = timedelta(0)
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.clock.advance(every * MINUTE)
    asked.round()
    assert "i1" in asked.book()
    assert asked.position().read_until == asked.clock.now()


def test_an_engines_clock_that_was_ahead_at_first_contact(open_app):
    """The first contact is not later than now."""
    asked = open_app()
    asked.engine.skew = timedelta(hours=20)
    asked.round()
    asked.engine.skew = timedelta(0)
    asked.clock.advance(MINUTE)
    asked.round()
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_an_engines_clock_that_was_far_behind_at_first_contact(open_app):
    """There is no first contact before the clock is right, so what ended before it is not taken in."""
    asked = open_app()
    asked.finish("old")
    asked.clock.advance(3 * HOUR)
    asked.engine.skew = timedelta(days=-10)
    failed = asked.failed()
    assert (failed.reason, asked.position().skew) == ("invalid", None)
    assert failed.error.startswith("the engine's clock is 864,000 s behind this machine's at the first contact")
    asked.engine.skew = timedelta(0)
    asked.clock.advance(MINUTE)
    asked.finish("new")
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert asked.book() == {"new": ("has_event", "")}


@pytest.mark.parametrize("whose", ["engine", "ours"])
def test_a_clock_that_is_behind_for_some_rounds(open_app, monkeypatch, whose):
    """The first contact stays, so what ended before it is not taken in when the clock is right again."""
    asked = open_app()
    asked.finish("old")
    asked.clock.advance(MINUTE)
    asked.round()
    since, now = asked.position().since, asked.clock.now
    for _ in range(2):
        asked.clock.advance(5 * MINUTE)
        with monkeypatch.context() as patch:
            if whose == "engine":
                patch.setattr(asked.engine, "skew", timedelta(days=-10))
            else:
                patch.setattr(asked.clock, "now", lambda: now() - 10 * DAY)
                patch.setattr(asked.engine, "skew", timedelta(days=10))
            asked.round()
    for _ in range(2):
        asked.clock.advance(5 * MINUTE)
        asked.round()
    assert asked.position().since == since
    asked.finish("new")
    asked.round()
    asked.after_grace()
    assert asked.book() == {"new": ("has_event", "")}


def test_our_clock_was_ahead(asked, logged, monkeypatch):
    """If the engine tells no time, a correction of our clock by more than a day loses nothing, and is recorded."""
    asked.engine.gives_time = False
    now = asked.clock.now
    with monkeypatch.context() as patch:
        patch.setattr(asked.clock, "now", lambda: now() + 30 * HOUR * SECOND)
        asked.round()
    asked.finish("i1")
    asked.clock.advance(5 * MINUTE)
    assert asked.round().read == 1
    assert asked.position().swept_at == asked.position().read_until == asked.clock.now()
    assert [record["reason"] for record in logged if record["event"] == "history_gap"] == ["invalid"]
    assert asked.gaps() == [("invalid", True)]


@pytest.mark.parametrize("skew", [-HOUR, 20 * MINUTE])
def test_the_first_contact_is_corrected_once(open_app, skew):
    """Rounds that fail after the first answer do not move the first contact again."""
    asked = open_app()
    asked.engine.skew = timedelta(seconds=skew)
    first = asked.clock.now() + skew * SECOND
    for _ in range(3):
        position = asked.position()
        asked.engine.fail(method="finished", after=1 if position is None or position.skew is None else 0)
        asked.failed()
        asked.engine.recover()
        asked.clock.advance(MINUTE)
    assert asked.position().since == first
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_an_engine_that_sends_no_time(open_app):
    """Without the engine's time, its clock counts as equal to ours."""
    asked = open_app()
    asked.engine.gives_time = False
    asked.round()
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1


@pytest.mark.parametrize("skew", [-3 * HOUR, 3 * HOUR])
def test_an_engine_that_sends_no_time_any_more(asked, skew):
    """A difference that was measured before does not stay, for example after a proxy has removed the header."""
    asked.engine.skew = timedelta(seconds=skew)
    asked.round()
    asked.engine.gives_time = False
    asked.engine.skew = timedelta(0)
    asked.clock.advance(20 * MINUTE)
    asked.finish("i1")
    asked.round()
    assert (asked.book(), asked.position().skew) == ({"i1": ("in_grace", "")}, 0)
    assert asked.position().read_until == asked.clock.now()
    assert asked.after_grace().taken_in == 1


def test_an_instance_from_the_future_is_imported(asked):
    """A wrong end time cannot postpone an instance by more than the grace after it was first read."""
    asked.engine.gives_time = False
    asked.engine.skew = timedelta(seconds=-1)
    asked.finish("i1", ended_at=to_datetime(asked.clock.now() + SECOND))
    asked.round()
    assert asked.after_grace().taken_in == 1


def test_each_window_overlaps_the_previous_window(asked):
    """A transaction that commits within ten minutes after its end time is found."""
    asked.clock.advance(20 * MINUTE)
    asked.round()
    asked.finish("slow", visible=False)
    asked.clock.advance(5 * MINUTE)
    asked.round()
    asked.engine.commit("slow")
    asked.clock.advance(4 * MINUTE)
    assert asked.round().taken_in == 1
    since, until = windows(asked.engine)[-1]
    assert until - since == timedelta(minutes=14)


def test_one_sweep_a_day(asked):
    """Once a day the last 24 hours are read again, which finds what committed hours later."""
    asked.clock.advance(2 * DAY // SECOND)
    asked.round()
    asked.finish("slow", visible=False)
    asked.clock.advance(2 * HOUR)
    asked.round()
    asked.engine.commit("slow")
    asked.clock.advance(MINUTE)
    assert asked.round().read == 0
    asked.clock.advance(22 * HOUR - MINUTE)
    assert asked.round().taken_in == 1
    since, until = windows(asked.engine)[-1]
    assert until - since == timedelta(days=1)
    asked.clock.advance(MINUTE)
    asked.round()
    since, until = windows(asked.engine)[-1]
    assert until - since == timedelta(minutes=11)


@pytest.mark.parametrize("every", [5, 15, 30])
def test_an_engine_that_stores_local_times(harness, clock, every):
    """When the clocks go back, an interval can look empty in local time; each instance is read within two hours."""
    clock.advance((datetime(2026, 10, 24, 23, tzinfo=UTC) - to_datetime(clock.now())).total_seconds())
    engine = LocalTimeEngine(clock)
    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": lambda config: engine})}
    flow = harness.open(plugins=plugins, sources={"oa": settings_of()}, start=False)
    flow.app.reconciliation.reconcile_now("oa")
    for minutes in range(5, 420, 5):
        clock.advance(5 * MINUTE)
        if minutes <= 240:
            engine.finish(f"i{minutes}")
        if minutes % every == 0:
            assert flow.app.reconciliation.reconcile_now("oa").error == ""
    assert flow.sql("SELECT count(*) FROM engine_instances") == [(48,)]


def test_pages_and_repeats(open_app):
    """All pages are read; an instance on two pages, or that ends twice on a page, is one instance."""
    asked = open_app({"page_size": 3})
    asked.round()
    asked.clock.advance(1)
    for number in range(10):
        asked.finish(f"i{number}")
    asked.finish("twice")
    asked.clock.advance(0.001)
    asked.finish("twice")
    result = asked.round()
    assert result.in_grace == len(asked.book()) == 11
    assert len([call for call in asked.engine.calls if call[0] == "finished"]) == 2 + 4
    assert asked.after_grace().taken_in == 11


def test_many_pages_without_instances(asked):
    """A client that leaves out other tenants can have any number of pages without an instance."""
    asked.engine.answer_with(*empty_pages(asked.engine, range(150)))
    asked.finish("i1")
    assert asked.round().in_grace == 1


def test_a_repeated_cursor_is_an_error(asked):
    """A client whose cursors repeat has no last page."""
    asked.engine.answer_with(*empty_pages(asked.engine, "aba"))
    assert asked.failed().error == "the pages of the engine client make no progress"


def test_long_cursors_are_not_stored(harness):
    """An engine whose cursors have megabytes does not fill the memory with its pages."""
    numbers = iter(range(100, 140))

    class Client(SilentClient):
        def finished(self, since, until, cursor=None):
            number = next(numbers, None)
            return FinishedPage(instances=(), cursor=None if number is None else f"{number}" + "x" * 1_000_000)

    plugins = {"p": plugin(grant, engine_clients=lambda: {"fake": Client})}
    flow = harness.open(plugins=plugins, sources={"oa": settings_of()}, start=False)
    tracemalloc.start()
    try:
        assert flow.app.reconciliation.reconcile_now("oa").error == ""
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert next(numbers, None) is None
    assert peak < 20_000_000


def test_an_interrupted_reading_continues(open_app):
    """If a later page fails, the pages before it are in the book, and the next round reads on from there."""
    asked = open_app({"page_size": 2})
    asked.round()
    for number in range(60):
        asked.clock.advance(MINUTE)
        asked.finish(f"i{number:02}")
    asked.engine.fail(method="finished", after=20)
    asked.failed()
    assert len(asked.book()) == 40
    asked.engine.recover()
    before = len(windows(asked.engine))
    asked.round()
    assert len(asked.book()) == 60
    assert len(windows(asked.engine)) - before == 16


def test_the_position_waits_for_instances_in_grace(asked):
    """The position is the end of the window, but not after the end of an instance that is not decided."""
    asked.round()
    assert asked.position().position == asked.clock.now()
    asked.finish("i1")
    ended_at = asked.clock.now()
    asked.clock.advance(MINUTE)
    asked.round()
    assert (asked.position().position, asked.position().read_until) == (ended_at, asked.clock.now())
    asked.after_grace()
    assert asked.position().position == asked.clock.now()
