"""The search by one text and by fields of the body, in the API and on the console's page of events."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

pytestmark = pytest.mark.either


@pytest.fixture
def orders(harness, serve, listens):
    """A console and API of a ledger with purchase orders whose amounts and vendors are indexed."""

    def fail(event):
        raise ValueError("no")

    flow = harness.open(listens(fail, name="h"), search={"fields": ("/amount", "/vendor")})
    for number in range(3):
        flow.take(f"i{number}", businessKey=f"PO-2026-{number}", amount=1000 * number, vendor="A&B=C")
    return serve(flow)


def events_url(*conditions, **more):
    """The query of a search."""
    return urlencode([*more.items(), *(("field", condition) for condition in conditions)])


def found(orders, *conditions, **more):
    """The instances that the API finds."""
    answer = orders.get(f"/api/events?{events_url(*conditions, **more)}", root="")
    assert answer.status == 200, answer.body
    return [event["flow_instance_id"] for event in json.loads(answer.body)["events"]]


def refused(orders, *conditions):
    """The message of the API about conditions that it refuses."""
    answer = orders.get(f"/api/events?{events_url(*conditions)}", root="", Accept_Language="en")
    assert answer.status == 422, answer.body
    return json.loads(answer.body)["message"]


def test_the_api_searches_by_text_and_fields(orders):
    """`q` is one text, and `field` may be repeated; both apply together."""
    (event_id,) = orders.flow.events(flow_instance_id="i1")
    assert found(orders, q="PO-2026") == ["i2", "i1", "i0"]
    assert found(orders, q="PO-2026-2") == ["i2"]
    assert found(orders, q=event_id) == found(orders, q="i1") == ["i1"]
    assert found(orders, q=orders.flow.only(event_id).delivery_id) == ["i1"]
    assert found(orders, "/amount>=1000") == ["i2", "i1"]
    assert found(orders, "/amount>=1000", "/amount<=1500", "/vendor=A&B=C") == ["i1"]
    assert found(orders, "/amount>=1000", q="PO-2026-0") == []


def test_the_api_rejects_invalid_or_unindexed_fields(orders):
    """A condition of another form, too many of them, and a field that is not indexed are refused by name."""
    assert "The parameter field must be a condition such as /vendor=ACME" in refused(orders, "amount")
    assert "The parameter field must be a condition" in refused(orders, "/amount>=much")
    assert "the setting search.fields: /amount, /vendor." in refused(orders, "/total>=1")
    assert "more than 20 times" in refused(orders, *["/amount>=1"] * 21)


def test_the_console_searches_by_text_and_fields(orders):
    """The page lists the matches, and its links and buttons keep the search."""
    page = orders.page(f"/events?{events_url('/amount>=1000', '/vendor=A&B=C', q='PO-2026', state='dead')}")
    assert [f"i{number}" in page.text for number in range(3)] == [False, True, True]
    day = next(link for link in page.links() if "since=24h" in link)
    assert parse_qs(urlsplit(day).query)["field"] == ["/amount>=1000", "/vendor=A&B=C"]
    (address,) = page.to_do("replay")
    (other_language,) = [link for link in page.links() if "lang=zh" in link]
    came_from = parse_qs(urlsplit(address).query)["back"][0]
    for link in (other_language, came_from):
        assert parse_qs(urlsplit(link).query)["field"] == ["/amount>=1000", "/vendor=A&B=C"]
    planned = orders.ask(address).page
    assert "Deliveries to replay: 2" in planned.text
    for words in ("/amount>=1000", "/vendor=A&B=C", "PO-2026"):
        assert words in planned.text


def test_the_console_rejects_invalid_or_unindexed_fields(orders):
    """The page says how a condition is written, and which fields are indexed; it lists nothing."""
    for conditions, words in (
        (["amount"], "is written as /vendor=ACME"),
        (["/total=1"], "that the setting search.fields names: /amount, /vendor"),
        (["/amount>=1"] * 21, "too many conditions"),
        ([f"/vendor={'x' * 4000}"], "too long"),
        (["/amount=1\n/total=1"], "that the setting search.fields names"),
    ):
        page = orders.page(f"/events?{events_url(*conditions)}")
        assert words in page.text
        assert "i1" not in page.text
