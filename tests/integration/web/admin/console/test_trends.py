"""The pages of a handler and of a source over time."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import quote

import pytest

from flowhooks.clock import to_text
from flowhooks.operations.context import Actor
from flowhooks.operations.pause import pause
from support import trend_rows
from support.trend_rows import MINUTE

pytestmark = pytest.mark.either


def archive(event):
    """Archive a contract, or fail."""
    if event.flow_instance_id.startswith("bad"):
        raise OSError("the archive is full")


@pytest.fixture
def console(harness, listens, serve, clock):
    """A console whose handler has been slower for an hour than on the days before."""
    clock.advance(days=300, hours=14)
    flow = harness.open(listens(archive, process_key="contract"))
    now = clock.now()
    trend_rows.store(flow, trend_rows.slow_today("handler", "p:archive", now))
    trend_rows.store(flow, trend_rows.slow_today("source", "default", now, good="200", bad="503"))
    return serve(flow)


def drawn(page):
    """The number of each kind of shape, by CSS class."""
    shapes = [attrs.get("class", "") for tag, attrs in page.tags if tag in {"rect", "path"}]
    return {name: shapes.count(name) for name in shapes}


@pytest.mark.parametrize(
    ("path", "bad"), [("/handlers/p%3Aarchive", "failed 60"), ("/sources/default", "503 60")], ids=["handler", "source"]
)
def test_a_handler_slower_than_yesterday(console, path, bad):
    """The page says in a sentence that the p95 is longer than yesterday, and draws both days and last week."""
    page = console.page(path)
    assert "p95 is 4.47 s, yesterday at this time 485 ms. This is 9.2 times as long." in page.text
    assert "96.4 % 100 % 100 %" in page.text
    assert bad in page.text
    shapes = drawn(page)
    assert {name: shapes[f"line l-{name}"] for name in ("now", "yesterday", "last_week")} == {
        "now": 3,
        "yesterday": 4,
        "last_week": 4,
    }
    assert shapes["good"] >= 180
    assert shapes["bad"] == 30
    chinese = console.page(path, "zh").text
    assert "P95 耗时 4.47 秒，昨天同一时段 485 毫秒。 为当时的 9.2 倍。" in chinese


def test_a_range_of_yesterday(console):
    """A range of yesterday shows that it was not slow; its fields keep the range, in UTC without scripts."""
    now = console.flow.clock.now()
    start, end = (to_text(now - minutes * MINUTE)[:19] for minutes in (26 * 60, 25 * 60))
    page = console.page(f"/handlers/p%3Aarchive?from={start}&to={end}")
    assert "p95 is" not in page.text
    fields = {attrs["name"]: attrs.get("value") for tag, attrs in page.tags if tag == "input"}
    assert (fields["from"], fields["to"]) == (start, end)
    assert fields["zone"] == "UTC"
    local = console.page(f"/handlers/p%3Aarchive?from={start}&to={end}&zone=Asia/Shanghai")
    fields = {attrs["name"]: attrs.get("value") for tag, attrs in local.tags if tag == "input"}
    assert fields["from"] == to_text(now - (26 + 8) * 60 * MINUTE)[:19]


@pytest.mark.parametrize("preset", ["1h", "6h", "24h", "7d", "30d"])
def test_preset_periods(console, preset):
    """Each offered period is shown, and its link is marked as the current one."""
    page = console.page(f"/handlers/p%3Aarchive?from={preset}")
    current = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs.get("aria-current") == "true"]
    assert current == [f"/console/handlers/p%3Aarchive?from={preset}#trend"]
    assert drawn(page)["good"] > 0


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("from=yesterday-ish", "Invalid date or time."),
        ("from=2026-10-28&to=2026-10-27", "The start must be before the end."),
        ("from=2099-01-01", "The start is in the future."),
        ("from=2020-01-01", "The start must be at most 400 days before the end."),
        ("from=0001-01-01&to=0001-01-02", "The start must be before the end."),
        ("from=2026-03-29T02:30&zone=Europe/Berlin", "This time does not exist in this time zone"),
        ("from=2026-03-29T02:30&zone=Nowhere/Land", "The server does not know this time zone."),
    ],
)
def test_an_invalid_time_is_explained(console, query, text):
    """An invalid time is explained, the entered text stays in its field, and the rest of the page is shown."""
    page = console.page(f"/handlers/p%3Aarchive?{query}")
    assert text in page.text
    assert "Listens to" in page.text
    assert not any("line" in attrs.get("class", "") for tag, attrs in page.tags if tag == "path")
    invalid = [attrs["value"] for tag, attrs in page.tags if tag == "input" and "aria-invalid" in attrs]
    assert invalid == [re.match(r"from=([^&]*)", query)[1]]


def test_one_of_two_times_is_invalid(console):
    """The valid time stays in its field beside the invalid one."""
    page = console.page("/handlers/p%3Aarchive?from=2026-10-01&to=soon")
    fields = {attrs["name"]: attrs.get("value") for tag, attrs in page.tags if tag == "input"}
    assert (fields["from"], fields["to"]) == ("2026-10-01T00:00:00", "soon")


def test_the_state_of_the_handler(console):
    """The page has selectors, open deliveries, the pause with its operator, and the last errors with their links."""
    flow = console.flow
    for number in range(3):
        flow.take(f"bad{number}", key="contract")
    pause(replace(flow.app.operation_context, by=Actor("li", "console")), ["p:archive"])
    page = console.page("/handlers/p%3Aarchive")
    assert "key contract" in page.text
    assert "by li" in page.text
    assert "OSError the archive is full" in page.text
    links = page.links()
    for link in (
        "/console/events?state=dead&handler=p%3Aarchive",
        "/console/events?handler=p%3Aarchive",
        "/console/errors?handler=p%3Aarchive",
        "/console/audit?target=p%3Aarchive",
    ):
        assert link in links, link
    assert [link for link in links if re.fullmatch(r"/console/errors/[0-9a-f]+", link)] != []
    assert page.to_do("resume") != []


def test_links_to_the_handler(console):
    """The list of handlers, the page of an event, and the overview lead to the handler."""
    console.flow.take("bad1", key="contract")
    event_id = console.flow.events(flow_instance_id="bad1")[0]
    for path in ("/handlers", f"/events/{event_id}", "/", "/errors"):
        assert "/console/handlers/p%3Aarchive" in console.page(path).links(), path


def test_an_alert_links_to_the_handler(console):
    """An open alert about a handler has a link to the handler over time."""
    console.flow.take("bad1", key="contract")
    console.flow.app.alerts.poll()
    assert "/console/handlers/p%3Aarchive" in console.page("/alerts").links()


def test_an_error_over_a_week(console):
    """The page of an error has the attempts of the last seven days."""
    flow = console.flow
    flow.take("bad1", key="contract")
    (fingerprint,) = [row[0] for row in flow.sql("SELECT fingerprint FROM error_groups")]
    trend_rows.store(
        flow,
        trend_rows.rows(
            "error_group", fingerprint, flow.clock.now() - 3 * 24 * 60 * MINUTE, minutes=10, seconds=0, outcome="failed"
        ),
    )
    page = console.page(f"/errors/{fingerprint}")
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert "attempts in the last 7 days: 40" in labels


def test_a_removed_handler(console):
    """Of a handler that is neither loaded nor registered, what was recorded is still shown."""
    now = console.flow.clock.now()
    trend_rows.store(console.flow, trend_rows.rows("handler", "old:h", now - 60 * MINUTE, minutes=9, seconds=1))
    page = console.page("/handlers/old%3Ah")
    assert "neither loaded nor registered" in page.text
    assert drawn(page)["line l-now"] == 3


@pytest.mark.parametrize(
    "name", ["p:none", "x", "p:archive/..", "<script>", "\u202e", "'; DROP TABLE trends; --", "%00"]
)
def test_an_unknown_handler_is_404(console, name):
    """An unknown handler is a page with status 404."""
    answer = console.get(f"/handlers/{name if name == '%00' else quote(name, safe='')}")
    assert answer.status == 404


def test_a_handler_without_attempts_has_no_charts(harness, listens, serve):
    """A handler that never ran has a page without charts."""
    page = serve(harness.open(listens(archive))).page("/handlers/p%3Aarchive")
    assert "Nothing is recorded in this time, or at the same time yesterday or last week." in page.text
    assert "No failed attempt of this handler." in page.text
