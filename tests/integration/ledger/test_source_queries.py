"""The newest events of a source: when its callbacks were received, and how many."""

from __future__ import annotations

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger import source_queries
from flowhooks.ledger.queries import EventFilter
from support.app_harness import ingress_callback

pytestmark = pytest.mark.either


def test_requests_to_fixed_urls_are_callbacks(harness):
    """Events of requests to fixed URLs count as callbacks; events that were taken in do not."""
    flow = harness.open()
    flow.take("i1", source="oa")
    flow.clock.advance(60)
    flow.app.intake.accept_all([ingress_callback("i2"), ingress_callback("i3")])
    at = flow.clock.now()
    flow.clock.advance(60)
    flow.take_in("i4", source="oa")
    now = flow.clock.now()
    with flow.app.ledger.connection() as connection:
        rates, truncated = source_queries.recent_callbacks(connection, now)
        rate = rates["oa"]
        assert not truncated
        assert (rate.last_at, rate.last_day) == (at, 3)
        assert source_queries.last_callback(connection, "oa") == at
        assert source_queries.newest_callbacks(connection, now - DAY, now + SECOND) == {"oa": at}
        assert source_queries.count_callbacks(connection, "oa", now - DAY, limit=10) == 3


def test_only_the_newest_events_are_searched(harness, monkeypatch):
    """The last callback of each source is searched in a bounded number of events, without those of another time."""
    flow = harness.open()
    flow.take("i1", source="oa")
    flow.clock.advance(60)
    at = flow.clock.now()
    flow.take("i2", source="erp")
    flow.clock.advance(60)
    flow.take("i3", source="erp")
    monkeypatch.setattr(source_queries, "MAX_SEARCHED_EVENTS", 1)
    with flow.app.ledger.connection() as connection:
        assert source_queries.newest_callbacks(connection, 0, at + SECOND) == {"erp": at}


def test_events_are_filtered_by_origin(harness):
    """A filter by origin selects the events of requests to fixed URLs, with the received body of each."""
    flow = harness.open()
    flow.take("i1", source="oa")
    given = ingress_callback("i2")
    flow.app.intake.accept_all([given])
    (stored,) = flow.app.ledger.find(EventFilter(origin="ingress"), limit=10)
    assert (stored.event.flow_instance_id, stored.body) == ("i2", given.text)
    assert (stored.raw_body, stored.media_type) == (given.raw_body, given.media_type)
    (other,) = flow.app.ledger.find(EventFilter(origin="callback"), limit=10)
    assert (other.event.flow_instance_id, other.raw_body, other.media_type) == ("i1", None, None)
