"""Browsing: a page has exactly the matches of its filter, and all pages have each match once, in both directions."""

from __future__ import annotations

import pytest
from sqlalchemy import event

from flowhooks import State
from flowhooks.clock import id_lower_bound
from flowhooks.ledger import search
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from support.sent_statements import record_statements

ALL_FILTERS = [
    {},
    {"flow_instance_id": "i1"},
    {"business_key": "B-2"},
    {"callback_class": "C"},
    {"process_key": "k2"},
    {"process_key": "none"},
    {"handler": "p:b"},
    *({"state": state} for state in (*State, "parked", "dismissed")),
    {"state": "dead", "handler": "p:b"},
    {"state": "dead", "process_key": "k1"},
    {"state": "parked", "callback_class": "C"},
    {"state": "waiting", "business_key": "B-2"},
    {"since": 90_000_000},
    {"until": 90_000_000},
    {"since": 60_000_000, "until": 120_000_000, "process_key": "k1"},
]


def page(ledger_steps, wanted, **given):
    """One page."""
    with ledger_steps.ledger.connection() as connection:
        return search_events(connection, EventFilter(**wanted), **{"limit": 3, **given})


def ids(found):
    """The events of a page."""
    return [event.id for event in found.events]


@pytest.fixture
def many(ledger_steps):
    """A ledger with events of all kinds over two minutes."""
    states = [*State]
    for number in range(16):
        ledger_steps.clock.time = number * 8_000_000
        body = {"processDefinitionKey": f"k{number % 3}"} | ({"businessKey": f"B-{number % 4}"} if number % 2 else {})
        if number % 5 == 4:
            body["callBackProcessClass"] = "C"
        instance = f"i{number}"
        if number % 6 == 1:
            instance, body["callBackProcessClass"] = "i1", f"C{number}"
        if number % 7 == 6:
            parked, _ = ledger_steps.accept(instance, **body)
            if number > 12:
                ledger_steps.sql("UPDATE events SET state = 'dismissed' WHERE id = ?", parked)
            continue
        _, (queued,) = ledger_steps.accept(instance, f"p:{'ab'[number % 2]}", **body)
        ledger_steps.bring(queued, states[number % len(states)])
    return ledger_steps


@pytest.mark.parametrize("window", [search.WINDOW, 2])
def test_pages_contain_each_match_of_a_filter_once(many, window):
    """Paging to older events and back finds each event of a filter once, in order."""
    for wanted in ALL_FILTERS:
        expected = [stored_event.event.id for stored_event in many.ledger.find(EventFilter(**wanted), limit=100)]
        found, before = [], ""
        while True:
            found_page = page(many, wanted, before=before, window=window, time_budget=60)
            found += ids(found_page)
            assert found_page.searched_until is None
            if not (before := found_page.older):
                break
        assert found == expected, wanted
        back, after = [], id_lower_bound(0)
        while after:
            found_page = page(many, wanted, after=after, window=window, time_budget=60)
            back = ids(found_page) + back
            after = found_page.newer
        assert back == expected, wanted


def test_pages_link_to_the_newer_and_older_page(many):
    """The first page has no newer page; a later page links to exactly the one before it."""
    first = page(many, {})
    assert first.newer == ""
    second = page(many, {}, before=first.older)
    assert ids(page(many, {}, after=second.newer)) == ids(first)
    assert page(many, {}, after=second.newer).older == first.older


def test_a_search_without_an_index_stops_at_its_limit(many):
    """A search without an index stops at its limit, returns its position and continues from there."""
    for wanted in ({"process_key": "none"}, {"handler": "nobody"}, {"state": "closed", "handler": "x"}):
        found_page, looks, times = page(many, wanted, window=5, time_budget=0), 1, []
        while found_page.older:
            assert found_page.events == ()
            times.append(found_page.searched_until)
            found_page, looks = page(many, wanted, before=found_page.older, window=5, time_budget=0), looks + 1
        assert looks == 4
        assert times == sorted(times, reverse=True)
        assert found_page.searched_until is None


def test_scanning_and_windowed_search_give_the_same_result(many, monkeypatch):
    """Scanning open deliveries or searching them in windows gives the same result."""
    for few in (0, 1, search.MAX_CANDIDATES):
        monkeypatch.setattr(search, "MAX_CANDIDATES", few)
        for state in ("waiting", "running", "dead", "unknown", "parked"):
            found = page(many, {"state": state}, limit=100)
            assert ids(found) == [
                stored_event.event.id for stored_event in many.ledger.find(EventFilter(state=state), limit=100)
            ]
            assert found.events


def test_a_listed_event_has_every_field_but_the_body(ledger_steps):
    """A listed event has every field but the body, and its deliveries."""
    body = {"processDefinitionKey": "k", "processDefinitionVersion": 3, "businessKey": "B", "callBackProcessClass": "C"}
    event_id, _ = ledger_steps.accept("i1", "p:a", **body)
    ledger_steps.accept("i1", "p:a", **body)
    (listed,) = page(ledger_steps, {}).events
    assert (listed.id, listed.flow_instance_id, listed.business_key, listed.callback_class) == (
        event_id,
        "i1",
        "B",
        "C",
    )
    assert (listed.process_key, listed.process_version, listed.source, listed.kind) == ("k", 3, "default", "complete")
    assert (listed.state, listed.repeats, listed.received_at) == ("routed", 1, ledger_steps.clock.now())
    assert [(delivery_status.handler, delivery_status.state) for delivery_status in listed.delivery_statuses] == [
        ("p:a", State.WAITING)
    ]
    with record_statements(ledger_steps.ledger._engine) as taken:
        assert ledger_steps.ledger.find_summaries(EventFilter(flow_instance_id="i1"), limit=2) == [listed]
    assert not [statement for statement, _ in taken if "body" in statement]
    assert ledger_steps.ledger.find_summaries(EventFilter(), limit=2, after=listed.id) == []


@pytest.mark.sqlite
def test_no_search_scans_a_whole_table(many):
    """Each statement of a search reads an index between two ids, or an index with few rows."""
    asked = []
    event.listen(many.ledger._engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
    newest = page(many, {}).older
    asked.clear()
    for wanted in ALL_FILTERS:
        page(many, wanted, before=newest, window=5)
    assert len(asked) > len(ALL_FILTERS)
    plans = [row[-1] for statement, values in asked for row in many.sql(f"EXPLAIN QUERY PLAN {statement}", *values)]
    whole = [line for line in plans if line.startswith(("SCAN deliveries", "SCAN events"))]
    partial = (
        "events_parked",
        "events_parked_backlog",
        "deliveries_suspended",
        "deliveries_due",
        "deliveries_order_group",
    )
    assert [line for line in whole if not line.endswith(partial)] == []
