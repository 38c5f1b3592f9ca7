"""Search by a name and by indexed fields: what is found, in pages, and by which indexes."""

from __future__ import annotations

import json
import re

import pytest

from flowhooks.errors import SettingsError
from flowhooks.ledger import database, few_matches, search
from flowhooks.ledger.filtered_events import count_events, find
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.search_fields import parse_field_condition
from support.run_bulk import run_bulk
from support.sent_statements import record_statements

FIELDS = ("/amount", "/vendor", "/paid")


def by(*conditions, **more):
    """A filter by conditions on fields."""
    return EventFilter(fields=tuple(map(parse_field_condition, conditions)), **more)


def few_candidates(monkeypatch, number):
    """Search only this number of events one by one."""
    monkeypatch.setattr(few_matches, "MAX_CANDIDATES", number)
    monkeypatch.setattr(search, "MAX_CANDIDATES", number)


class Orders:
    """A ledger with purchase orders, whose amounts, vendors and states are indexed."""

    def __init__(self, ledger_steps):
        self.ledger_steps = ledger_steps
        self.names = {}
        self.deliveries = {}

    def store(self, name, instance=None, business_key=None, handlers=("p:h",), **body):
        """Store an order of a name."""
        self.ledger_steps.clock.time += 1_000_000
        keys = {} if business_key is None else {"businessKey": business_key}
        event_id, queued = self.ledger_steps.accept(instance or f"i-{name}", *handlers, fields=FIELDS, **keys, **body)
        self.names[event_id] = name
        self.deliveries[name] = [delivery.delivery_id for delivery in queued]
        return event_id

    def found(self, event_filter):
        """The names of the events that match, newest first, the same in each listing."""
        ledger = self.ledger_steps.ledger
        listed = [self.names[stored.event.id] for stored in ledger.find(event_filter, limit=100)]
        assert ledger.count_events(event_filter) == len(listed)
        assert [self.names[stored.event.id] for stored in ledger.page(event_filter, limit=100)] == listed[::-1]
        assert self.paged(event_filter) == listed
        return listed

    def paged(self, event_filter):
        """The same, in pages of two and windows of three."""
        names, before = [], ""
        with self.ledger_steps.ledger.connection() as connection:
            while True:
                page = search_events(connection, event_filter, limit=2, before=before, window=3, time_budget=60)
                names += [self.names[event.id] for event in page.events]
                before = page.older
                if not before:
                    return names


@pytest.fixture
def orders(ledger_steps):
    """Orders of two vendors, with amounts of several types."""
    orders = Orders(ledger_steps)
    orders.store("a", business_key="PO-2026-001", amount=1000, vendor="ACME", paid=True)
    orders.store("b", business_key="PO-2026-002", amount=999.5, vendor="ACME", paid=False)
    orders.store("c", business_key="PO-2025-001", amount="1000", vendor="Müller & Söhne")
    orders.store("d", business_key="po-2026-001", amount=-7, vendor="acme", handlers=("p:h", "p:other"))
    orders.store("e", amount=[1000], vendor=None)
    orders.store("f", instance="PO-2026-001", amount=1e22, vendor="x" * 300, handlers=())
    for number in range(5):
        orders.store(f"n{number}", business_key=f"N-{number}", amount=5000 + number, vendor="Many", paid=True)
    return orders


@pytest.mark.parametrize("few", [0, 3, search.MAX_CANDIDATES])
def test_search_by_indexed_fields(orders, monkeypatch, few):
    """Texts are compared exactly, numbers by their value, and several conditions apply together."""
    few_candidates(monkeypatch, few)
    found = orders.found
    many = ["n4", "n3", "n2", "n1", "n0"]
    assert found(by("/vendor=ACME")) == ["b", "a"]
    assert found(by("/vendor=acme")) == ["d"]
    assert found(by("/vendor=Müller & Söhne")) == ["c"]
    assert found(by("/vendor=" + "x" * 256 + "anything")) == ["f"]
    assert found(by("/vendor=ACM")) == []
    assert found(by("/paid=true")) == [*many, "a"]
    assert found(by("/amount=1000")) == ["c", "a"]
    assert found(by("/amount=1000.0")) == ["a"]
    assert found(by("/amount=1e3")) == ["a"]
    assert found(by("/amount>=1000")) == [*many, "f", "a"]
    assert found(by("/amount<=999.5")) == ["d", "b"]
    assert found(by("/amount>=999.5", "/amount<=5001")) == ["n1", "n0", "b", "a"]
    assert found(by("/amount>=1000", "/vendor=ACME")) == ["a"]
    assert found(by("/vendor=Many", "/amount>=5003")) == ["n4", "n3"]
    assert found(by("/paid=true", "/vendor=ACME")) == ["a"]
    assert found(by("/amount>=1000", "/amount=1000")) == ["a"]
    assert found(by("/amount>=1000", "/amount<=999")) == []
    assert found(by("/nothing=1")) == []


@pytest.mark.parametrize("few", [0, search.MAX_CANDIDATES])
def test_search_by_a_field_and_other_criteria(orders, monkeypatch, few):
    """A condition on a field applies together with the state, the handler, times and ids."""
    few_candidates(monkeypatch, few)
    names = {name: event_id for event_id, name in orders.names.items()}
    assert orders.found(by("/amount>=1000", state="parked")) == ["f"]
    assert orders.found(by("/vendor=acme", handler="p:other")) == ["d"]
    assert orders.found(by("/vendor=ACME", handler="p:other")) == []
    assert orders.found(by("/vendor=ACME", state="waiting")) == ["b", "a"]
    assert orders.found(by("/vendor=ACME", ids=(names["a"], names["c"]))) == ["a"]
    assert orders.found(by("/vendor=ACME", business_key="PO-2026-002")) == ["b"]
    last = orders.ledger_steps.clock.now()
    assert orders.found(by("/vendor=Many", since=last - 1_000_000)) == ["n4", "n3"]
    assert orders.found(by("/vendor=Many", until=last - 3_000_000)) == ["n0"]


@pytest.mark.parametrize("few", [0, search.MAX_CANDIDATES])
def test_search_by_ids_and_business_key(orders, monkeypatch, few):
    """One text is an instance id, an event id, a delivery id, or a business key or its beginning."""
    few_candidates(monkeypatch, few)
    names = {name: event_id for event_id, name in orders.names.items()}
    found = orders.found
    assert found(EventFilter(query="PO-2026-001")) == ["f", "a"]
    assert found(EventFilter(query="PO-2026")) == ["b", "a"]
    assert found(EventFilter(query="PO-")) == ["c", "b", "a"]
    assert found(EventFilter(query="PO")) == []
    assert found(EventFilter(query="O-2026")) == []
    assert found(EventFilter(query="N-")) == []
    assert found(EventFilter(query="N-3")) == ["n3"]
    assert found(EventFilter(query="i-e")) == ["e"]
    assert found(EventFilter(query=names["d"])) == ["d"]
    assert found(EventFilter(query=names["d"][:-1])) == []
    assert found(EventFilter(query=orders.deliveries["d"][1])) == ["d"]
    assert found(EventFilter(query="PO-2026", state="parked")) == []
    assert found(by("/amount<=999.5", query="PO-2026")) == ["b"]
    assert found(EventFilter(query="PO-2026-001", state="parked")) == ["f"]
    assert found(EventFilter(query="%")) == []
    assert found(EventFilter(query="PO_")) == []


def test_a_long_business_key_is_found_by_its_beginning(ledger_steps):
    """The beginning is compared by characters, and a key that is longer than the index exactly."""
    orders = Orders(ledger_steps)
    long = "合同" * 140
    orders.store("one", business_key=f"{long}1")
    orders.store("two", business_key=f"{long}2")
    orders.store("three", business_key="合同")
    assert orders.found(EventFilter(query="合同合")) == ["two", "one"]
    assert orders.found(EventFilter(query=f"{long}2")) == ["two"]
    assert orders.found(EventFilter(query=long)) == []
    assert orders.found(EventFilter(query="合同")) == ["three"]


def test_search_by_a_field_pages_to_newer_events(orders, monkeypatch):
    """Paging back from an event finds the newer matches nearest to it."""
    few_candidates(monkeypatch, 0)
    names = {name: event_id for event_id, name in orders.names.items()}
    for condition in ("/vendor=Many", "/amount>=5000"):
        with orders.ledger_steps.ledger.connection() as connection:
            page = search_events(connection, by(condition), limit=2, after=names["n0"], window=2, time_budget=60)
        assert [orders.names[event.id] for event in page.events] == ["n2", "n1"]


def test_an_invalid_filter_is_rejected():
    """An empty query, or too many conditions, are refused."""
    with pytest.raises(SettingsError, match="query must not be empty"):
        EventFilter(query="")
    with pytest.raises(SettingsError, match="at most 20 conditions on fields are allowed, not 21"):
        by(*["/amount>=1"] * 21)


def test_a_filter_is_converted_to_json():
    """The audit log and operations store conditions as texts."""
    event_filter = by("/amount>=1000", "/vendor=A", query="PO-1")
    assert event_filter.to_json() == {"query": "PO-1", "fields": ["/amount>=1000", "/vendor=A"]}
    assert event_filter.has_criteria


@pytest.mark.either
def test_a_bulk_operation_by_fields_and_a_query(orders):
    """A bulk operation acts on the deliveries of the events that the list shows."""
    context = orders.ledger_steps.flow.app.operation_context
    assert run_bulk(context, BulkAction.CLOSE, EventFilter(query="PO-2025")).released == 1
    assert orders.found(EventFilter(state="closed")) == ["c"]


MANY = 20_000
RARE = 1_000
FILL = (
    """
    INSERT INTO events (id, source, kind, flow_instance_id, callback_class, business_key, body, digest, state, route,
        route_size, repeats, received_at, identity_sha256)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'e' || CAST(100000 + i AS TEXT), 'default', 'complete', 'i' || CAST(i AS TEXT), '',
        'PO-' || CAST(100000 + i AS TEXT), '{}', 'd', 'routed', '{}', 1, 0, i, CAST(i AS TEXT) FROM n
    """,
    """
    INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, due_at, comment, created_at,
        changed_at, order_position)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'd' || CAST(100000 + i AS TEXT), 'e' || CAST(100000 + i AS TEXT), 'p:h', 'dead', 1, 0, NULL, '',
        i, i, 0 FROM n
    """,
    """
    INSERT INTO event_fields (event_id, field, value, number)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'e' || CAST(100000 + i AS TEXT), '/amount', CAST(i AS TEXT), i FROM n
    """,
    f"""
    INSERT INTO event_fields (event_id, field, value, number)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
    SELECT 'e' || CAST(100000 + i AS TEXT), '/vendor', CASE MOD(i, {RARE}) WHEN 0 THEN 'rare' ELSE 'often' END, NULL
        FROM n
    """,
)
TABLES = "events|deliveries|event_fields"
SEARCHES = {
    "an id": EventFilter(query="e100500"),
    "a delivery": EventFilter(query="d100500"),
    "an instance": EventFilter(query="i500"),
    "a key": EventFilter(query="PO-100500"),
    "few keys": EventFilter(query="PO-1005"),
    "nothing": EventFilter(query="nothing"),
    "many keys": EventFilter(query="PO-1"),
    "a rare value": by("/vendor=rare"),
    "a frequent value": by("/vendor=often"),
    "a narrow range": by("/amount>=500", "/amount<=600"),
    "a wide range": by("/amount>=10"),
    "no number": by("/amount>=1000000"),
    "both": by("/amount>=10", "/vendor=often"),
    "a field and a state": by("/vendor=often", state="dead"),
    "a key and a handler": EventFilter(query="PO-1", handler="p:h"),
    "a field and a whole key": by("/vendor=often", business_key="PO-100500"),
    "a range and some ids": by("/amount>=10", ids=("e100500", "e100501")),
}
BROAD = frozenset(
    {"many keys", "a frequent value", "a wide range", "both", "a field and a state", "a key and a handler"}
)


def whole(connection, statement, parameters):
    """The lines of a statement's plan that read a large table, or an index of it, without a bound."""
    if connection.dialect.name == "sqlite":
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        return [line for line in plan if re.match(rf"SCAN ({TABLES})\b", line)]
    plan = [line for (line,) in connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {statement}", parameters)]
    return [
        line
        for line, following in zip(plan, [*plan[1:], ""], strict=True)
        if re.search(rf"Seq Scan on ({TABLES})", line)
        or (re.search(rf"Index (Only )?Scan .*({TABLES})", line) and "Index Cond" not in following)
    ]


def test_a_narrow_range_is_found_by_one_index_range(harness):
    """A lower and an upper limit are one range, so old events in it are found although many meet each limit."""
    harness.check_at_end = False
    flow = harness.open(start=False)
    for statement in FILL:
        flow.sql(statement, MANY)
    with flow.app.ledger.connection() as connection:
        wanted = by("/amount>=50", "/amount<=52", "/vendor=often")
        page = search_events(connection, wanted, limit=50, window=10, time_budget=0)
    assert [event.id for event in page.events] == ["e100052", "e100051", "e100050"]
    assert page.searched_until is None


@pytest.mark.parametrize("analyzed", [True, False])
def test_no_search_scans_a_whole_table(harness, analyzed):
    """Each statement of a page reads ranges of an index, whether few or many events match."""
    harness.check_at_end = False
    flow = harness.open(start=False)
    for statement in FILL:
        flow.sql(statement, MANY)
    if analyzed:
        flow.sql("ANALYZE")
    calls = {name: lambda connection, wanted=wanted: page(connection, wanted) for name, wanted in SEARCHES.items()}
    for name in SEARCHES.keys() - BROAD:
        wanted = SEARCHES[name]
        calls |= {
            f"list: {name}": lambda connection, wanted=wanted: find(connection, wanted, limit=50),
            f"count: {name}": lambda connection, wanted=wanted: count_events(connection, wanted),
        }
    engine = database.open_engine(flow.address, writing=True)
    scanned = {}
    with engine.connect() as connection:
        for name, call in calls.items():
            with record_statements(connection) as taken:
                call(connection)
            assert taken
            if found := [line for statement in taken for line in whole(connection, *statement)]:
                scanned[name] = found, [statement for statement, _ in taken]
    engine.dispose()
    assert scanned == {}, json.dumps(scanned, indent=1)


def page(connection, wanted):
    """A page from the middle, with small windows."""
    search_events(connection, wanted, limit=50, before="e110000", window=100, time_budget=60)
