"""An engine uses a process instance id again: each instance has its event, and clocks that differ double nothing."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.errors import IdentityConflict
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.reroute import reroute, reroute_parked

pytestmark = pytest.mark.either


@pytest.mark.parametrize("first", ["callback", "reconciled"])
@pytest.mark.parametrize("amount", [1, 2], ids=["repeat", "other"])
def test_an_earlier_event_does_not_decide_an_instance_in_grace(asked, logged, first, amount):
    """A callback that flowhooks answers with the event of an earlier instance leaves the new one in grace."""
    if first == "callback":
        asked.flow.take("i1", source="oa", amount=1, wait=0)
    else:
        asked.finish("i1", variables={"amount": 1})
        asked.round()
        assert asked.after_grace().taken_in == 1
        asked.flow.take("i1", source="oa", amount=1, wait=0)
    asked.clock.advance(3 * DAY // SECOND)
    asked.round()
    asked.finish("i1")
    assert asked.round().in_grace == 1
    with contextlib.suppress(IdentityConflict):
        asked.flow.take("i1", source="oa", amount=amount, wait=0)
    assert asked.book() == {"i1": ("in_grace", "")}
    assert asked.after_grace().taken_in == 1
    assert asked.book() == {"i1": ("has_event", "")}
    assert len(asked.flow.events()) == 2
    assert [record["flow_instance_id"] for record in logged if record["event"] == "instance_id_reused"] == ["i1"]


def test_the_time_of_a_proxy_duplicates_no_event(asked, monkeypatch):
    """Engine and flowhooks agree, and a proxy that is ten minutes slow sets `Date`: each instance has its callback."""
    page_of = type(asked.engine)._page

    def page_by_proxy(engine, *of):
        page = page_of(engine, *of)
        return replace(page, engine_time=page.engine_time - timedelta(minutes=10))

    monkeypatch.setattr(type(asked.engine), "_page", page_by_proxy)
    asked.round()
    asked.engine.start("i1")
    asked.clock.advance(20)
    asked.finish("i1")
    asked.flow.take("i1", source="oa", wait=0)
    for _ in range(4):
        asked.clock.advance(300)
        asked.round()
    assert asked.book() == {"i1": ("has_event", "")}
    assert asked.events() == {"i1": "callback"}
    assert len(asked.flow.events()) == 1


@pytest.mark.parametrize(("hours", "is_parked"), [(0.25, True), (14, True), (25, False)])
def test_an_event_of_the_day_before_parks_the_instance(asked, logged, hours, is_parked):
    """A clock can have been wrong when the callback was received, so the handlers of the instance do not run again."""
    asked.flow.take("i1", source="oa", wait=0)
    asked.clock.advance(hours * 3600)
    asked.round()
    asked.finish("i1")
    asked.round()
    assert asked.after_grace().taken_in == 1
    assert asked.book() == {"i1": ("has_event", "")}
    parked = asked.flow.sql("SELECT parked_by FROM events WHERE origin = 'reconciled'")
    assert parked == [("reused_id" if is_parked else None,)]
    assert asked.flow.sql("SELECT count(*) FROM deliveries") == [(1 if is_parked else 2,)]
    assert "instance_id_reused" in {record["event"] for record in logged}
    context = asked.flow.app.operation_context
    reroute_parked(context)
    assert asked.flow.sql("SELECT count(*) FROM deliveries") == [(1 if is_parked else 2,)]
    if is_parked:
        ids = asked.flow.sql("SELECT id FROM events WHERE origin = 'reconciled'")
        reroute(context, EventFilter(ids=tuple(row[0] for row in ids)))
        assert asked.flow.sql("SELECT count(*) FROM deliveries") == [(2,)]
    assert asked.flow.app.ledger.verify().problems == []
