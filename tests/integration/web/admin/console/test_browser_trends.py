"""A handler over time in a real browser: a range by mouse, by the form and its time zone, and without scripts."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import expect

from flowhooks.clock import to_text
from support import browsers, trend_rows
from support.trend_rows import MINUTE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sqlite,
    pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell"),
]
PATH = "/handlers/p:archive"


@pytest.fixture
def console(harness, listens, serve, clock):
    """A console whose handler has been slower for an hour than yesterday."""
    clock.advance(days=300, hours=14)
    flow = harness.open(listens(lambda event: None, name="archive"))
    trend_rows.store(flow, trend_rows.slow_today("handler", "p:archive", clock.now()))
    return serve(flow)


def given(page):
    """The times in the address."""
    query = parse_qs(urlparse(page.url).query)
    return query["from"][0], query["to"][0]


def test_a_range_is_selected_by_mouse(console, visit):
    """Dragging over the last sixth of a chart shows the last hour, in which every attempt is slow."""
    page = visit(console, PATH)
    expect(page.get_by_text("Point at a chart")).to_be_visible()
    chart = page.locator(".plot svg").first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 5 / 6, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.9, y)
    expect(page.locator(".selection")).to_have_count(1)
    page.mouse.move(box["x"] + box["width"] + 20, y)
    with page.expect_navigation():
        page.mouse.up()
    now = console.flow.clock.now()
    assert given(page) == (to_text(now - 60 * MINUTE), to_text(now))
    expect(page.locator("#slowdown")).to_contain_text("p95 is 4.85 s, yesterday at this time 485 ms.")
    expect(page.locator(".selection")).to_have_count(0)


def test_values_are_shown_at_the_mouse_pointer(console, visit):
    """The values of a step are shown while the mouse points at it, in the viewer's time zone."""
    page = visit(console, PATH)
    hint = page.locator(".drag")
    expect(hint).to_have_text("Point at a chart to read its values. Drag over it to show a shorter time.")
    chart = page.locator(".plot svg").nth(3)
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 180.5 / 181, box["y"] + 20)
    expect(hint).to_have_text(
        "Starts at 2026-10-28 21:58:00 · Attempts 16 · Success rate 87.5 % · Median 3.5 s · p95 4.85 s"
    )
    page.mouse.move(5, box["y"] + box["height"] + 300)
    expect(hint).to_contain_text("Point at a chart")


def test_a_click_selects_nothing(console, visit):
    """A click on a chart, and a drag to the same place, leave the page as it is."""
    page = visit(console, PATH)
    address = page.url
    page.locator(".plot svg").first.click()
    expect(page.locator(".selection")).to_have_count(0)
    assert page.url == address


@pytest.mark.parametrize(("zone", "hours"), [("Asia/Shanghai", 8), ("America/New_York", -4)])
def test_a_range_is_entered_in_the_form(console, visit, zone, hours):
    """Times are entered in the viewer's zone, and shown with it as they were understood."""
    page = visit(console, PATH, zone=zone)
    start = console.flow.clock.now() - 60 * MINUTE
    local = to_text(start + hours * 60 * MINUTE)[:16]
    page.get_by_label("From").fill(local)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#u-from")).to_contain_text(local.replace("T", " "))
    expect(page.get_by_label("From")).to_have_value(re.compile(f"^{local}"))
    expect(page.locator("#slowdown")).to_contain_text("p95 is 4.85 s")


def test_presets_and_form_work_without_scripts(console, visit):
    """The presets and the form work without scripts, in UTC; the hint at the mouse is hidden."""
    page = visit(console, PATH, scripts=False)
    expect(page.get_by_text("Point at a chart")).to_be_hidden()
    page.get_by_role("link", name="hour", exact=True).click()
    expect(page.locator("#slowdown")).to_contain_text("p95 is 4.85 s")
    page.get_by_label("From").fill(to_text(console.flow.clock.now() - 30 * MINUTE)[:16])
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#slowdown")).to_contain_text("p95 is 4.85 s")


@pytest.mark.parametrize(("width", "scheme", "locale"), [(360, "dark", "zh-CN"), (1280, "light", "en-GB")])
def test_charts_fit_and_are_accessible_on_phone_and_desktop(console, visit, width, scheme, locale):
    """The charts fit the page, and axe finds nothing, also with the table of steps."""
    page = visit(console, f"{PATH}?from=24h", width=width, scheme=scheme, locale=locale)
    page.locator("details summary").last.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert browsers.violations(page) == []
