"""The fake engine: late transactions, deleted history, clock skew, failures and old pages on demand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flowhooks import EngineConfig, EngineError, InstanceStatus
from flowhooks.testing import FakeEngine, ManualClock

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock():
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def engine(clock):
    """An engine with that clock."""
    return FakeEngine(clock)


def ids(page):
    """The ids of a page."""
    return [instance.id for instance in page.instances]


def everything(engine, cursor=None):
    """A page of all instances."""
    return engine.finished(START - timedelta(days=1), START + timedelta(days=9), cursor)


def test_the_engines_clock_is_ahead(engine, clock):
    """End times and the engine's time have the skew."""
    engine.skew = timedelta(seconds=90)
    assert engine.finish().ended_at == START + timedelta(seconds=90)
    clock.advance(minutes=1)
    assert everything(engine).engine_time == START + timedelta(seconds=150)
    engine.gives_time = False
    assert everything(engine).engine_time is None


def test_a_slow_transaction_appears_late_with_its_end_time(engine, clock):
    """Until the commit the instance runs; then it is before an instance that was read already."""
    slow = engine.finish("slow", visible=False)
    clock.advance(minutes=1)
    engine.finish("fast")
    assert ids(everything(engine)) == ["fast"]
    assert engine.instance("slow") is InstanceStatus.RUNNING
    engine.commit("slow")
    assert ids(everything(engine)) == ["slow", "fast"]
    assert engine.instance("slow").ended_at == slow.ended_at


def test_an_id_can_end_twice(engine, clock):
    """The history has both instances, and `instance` returns the last one."""
    engine.finish("1")
    clock.advance(days=1)
    last = engine.finish("1")
    assert ids(everything(engine)) == ["1", "1"]
    assert engine.instance("1") == last


def test_history_is_deleted(engine, clock):
    """Single instances, or all before a time."""
    engine.finish("1")
    clock.advance(minutes=1)
    middle = engine.finish("2").ended_at
    engine.finish("3")
    engine.delete("3")
    assert ids(everything(engine)) == ["1", "2"]
    engine.delete(before=middle)
    assert ids(everything(engine)) == ["2"]
    assert engine.instance("1") is InstanceStatus.ABSENT


def test_calls_fail_on_demand(engine):
    """A given error, for one method, after some calls, and a number of times."""
    engine.fail(ValueError("broken"), method="definitions", after=1, times=1)
    assert engine.definitions() == []
    with pytest.raises(ValueError, match="broken"):
        engine.definitions()
    assert engine.definitions() == []
    engine.fail()
    for call in (engine.check, lambda: everything(engine)):
        with pytest.raises(EngineError) as caught:
            call()
        assert caught.value.reason == "unreachable"
    engine.recover()
    assert engine.check() == engine.info
    assert [name for name, *_ in engine.calls] == ["definitions"] * 3 + ["check", "finished", "check"]


def test_an_old_page_is_returned_again(engine):
    """The next call returns the given page, and the one after that the real one."""
    engine.finish("1")
    old = everything(engine)
    engine.finish("2")
    engine.answer_with(old)
    assert everything(engine) == old
    assert ids(everything(engine)) == ["1", "2"]
    assert len(engine.pages) == 3


def test_instances_end_between_two_pages(engine):
    """`after_page` runs after a page was read."""
    for number in range(3):
        engine.finish(f"a{number}")
    client = engine.client(EngineConfig(source="oa", url="http://127.0.0.1:0", page_size=2))
    engine.after_page = lambda: engine.finish("b")
    page = everything(client)
    assert ids(page) == ["a0", "a1"]
    engine.after_page = None
    assert ids(everything(client, page.cursor)) == ["a2", "b"]


def test_before_call_gets_the_method_name(engine):
    """`before_call` gets the name of the method before the call."""
    seen = []
    engine.before_call = seen.append
    engine.instance("1")
    client = engine.client(EngineConfig(source="oa", url="http://127.0.0.1:0"))
    client.close()
    assert seen == ["instance"]
    assert client.closed


@pytest.mark.parametrize(
    ("value", "conclusion", "callback_class"),
    [("x", "x", "x"), ("", None, None), (True, "true", None), (2.5, "2.5", None), ([1], None, None)],
)
def test_variables_are_texts_as_in_an_engine(engine, value, conclusion, callback_class):
    """A number or truth value is a conclusion in JSON, and no class; a list is neither."""
    engine.finish("1", variables={"conclusion": value, "callBackProcessClass": value})
    (instance,) = everything(engine).instances
    assert (instance.conclusion, instance.callback_class) == (conclusion, callback_class)


def test_the_fake_engine_is_available_as_a_plugin(engine):
    """The plugin's hook offers clients of this engine by name."""
    (name, factory), *_ = engine.plugin("acme").engine_clients().items()
    engine.finish("1", variables={"amount": 7, "other": 8})
    client = factory(EngineConfig(source="oa", url="http://127.0.0.1:0", variables=("amount",)))
    assert name == "acme"
    assert client.instance("1").variables == {"amount": 7}
