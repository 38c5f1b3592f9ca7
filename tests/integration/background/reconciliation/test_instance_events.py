"""Several events of one instance: which of them counts as the event of its end."""

from __future__ import annotations

import pytest

from support.asked_engine import MINUTE


def kinds(asked):
    """The kind and origin of each event."""
    return asked.flow.sql("SELECT kind, origin FROM events ORDER BY kind")


@pytest.fixture
def suspended(asked):
    """An app that asks the engine, whose instance `i1` runs and was reported as suspended ten minutes ago."""
    asked.engine.start("i1")
    asked.flow.take("i1", source="oa", kind="suspend", wait=0)
    asked.clock.advance(10 * MINUTE)
    return asked


@pytest.mark.either
def test_a_callback_of_a_running_instance_does_not_report_its_end(suspended):
    """The callback of the end was lost, so the instance is taken in although it has called before."""
    suspended.finish("i1")
    assert suspended.round().in_grace == 1
    assert suspended.after_grace().taken_in == 1
    assert kinds(suspended) == [("complete", "reconciled"), ("suspend", "callback")]
    rows = suspended.flow.sql("SELECT disposition, kind FROM engine_instances JOIN events ON id = event_id")
    assert rows == [("has_event", "complete")]
    assert suspended.after_grace().taken_in == 0


@pytest.mark.either
def test_a_repeat_of_such_a_callback_does_not_report_the_end(suspended):
    """The engine repeats a callback of before the end while the instance is in grace: it stays there."""
    suspended.finish("i1")
    suspended.round()
    suspended.flow.take("i1", source="oa", kind="suspend", wait=0)
    assert suspended.book() == {"i1": ("in_grace", "")}
    assert suspended.after_grace().taken_in == 1


@pytest.mark.either
@pytest.mark.parametrize("kind", ["finished", "cancel"])
def test_a_callback_at_the_end_reports_it(asked, kind):
    """A callback a minute before the end, by the engine's clock, is the event of the instance, whatever its kind."""
    asked.engine.start("i1")
    asked.clock.advance(10 * MINUTE)
    asked.flow.take("i1", source="oa", kind=kind, wait=0)
    asked.clock.advance(MINUTE)
    asked.finish("i1")
    assert asked.round().has_event == 1
    assert asked.after_grace().taken_in == 0
    assert kinds(asked) == [(kind, "callback")]


@pytest.mark.either
def test_a_callback_of_the_end_before_it_reports_it(asked):
    """A kind that says that the instance has ended counts whenever it came: it is not sent while the instance runs."""
    asked.engine.start("i1")
    asked.flow.take("i1", source="oa", kind="cancel", wait=0)
    asked.clock.advance(10 * MINUTE)
    asked.finish("i1")
    assert asked.round().has_event == 1


def test_two_callbacks_of_an_instance_that_pages_lack(open_app):
    """An instance that called with two classes, and that only a query by its id finds, fails no round."""
    asked = open_app({"tenants": ("a",)})
    asked.round()
    for name in ("x", "y"):
        asked.flow.take("i1", source="oa", callback_class=name, wait=0)
    asked.finish("i1", tenant_id="b")
    for _ in range(2):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert asked.book() == {"i1": ("has_event", "")}
