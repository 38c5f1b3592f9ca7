"""The search of events in a real browser: the field on every page, the filter, downloads and keyboard shortcuts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from flowhooks import Reject
from flowhooks.ledger.queries import EventFilter
from support import browsers

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sqlite,
    pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell"),
]


@pytest.fixture
def console(harness, serve, listens):
    """A console with more events than a page has, of two handlers."""

    def archive(event):
        if event.business_key == "B-7":
            raise Reject("=1+1")

    flow = harness.open(listens(archive, process_key="contract"), listens(archive, name="book", process_key="approval"))
    for number in range(60):
        flow.take(f"i{number}", key="contract", businessKey=f"B-{number}")
    flow.take("4711", key="approval", businessKey="A-2026-1")
    return serve(flow)


def test_the_search_field_on_every_page_finds_an_event(console, visit):
    """The key / moves to the field; a flow, or the beginning of a business key, lists its events."""
    page = visit(console, "/alerts")
    page.keyboard.press("/")
    find = page.get_by_role("searchbox", name="Find an event")
    expect(find).to_be_focused()
    page.keyboard.type("4711")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"http://{console.address}/console/events?q=4711")
    expect(page.locator("tbody tr")).to_have_count(1)
    find.fill("A-2026")
    find.press("Enter")
    expect(page).to_have_url(f"http://{console.address}/console/events?q=A-2026")  # the page before had one row, too
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(find).to_have_value("A-2026")
    find.fill("A-2027")
    find.press("Enter")
    expect(page.locator(".empty")).to_be_visible()


def test_an_id_in_the_search_opens_the_event(console, visit):
    """The id of an event or of a delivery leads to the page of the event at once, also without scripts."""
    (stored,) = console.flow.app.ledger.find(EventFilter(flow_instance_id="4711"), limit=2)
    page = visit(console, "/", scripts=False)
    for name in (stored.event.id, stored.delivery_statuses[0].delivery_id):
        find = page.get_by_role("searchbox", name="Find an event")
        find.fill(name)
        find.press("Enter")
        expect(page).to_have_url(f"http://{console.address}/console/events/{stored.event.id}")


def test_the_list_of_shortcuts(console, visit):
    """The key ? lists the keys; Escape closes the list; the keys do nothing while someone types."""
    page = visit(console, "/events")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    page.get_by_label("Flow instance id").press("?")
    expect(dialog).to_be_hidden()
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(dialog).to_be_visible()
    assert browsers.violations(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    dialog.get_by_label("Use these keys").uncheck()
    dialog.get_by_role("button", name="Close").click()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Find an event")).not_to_be_focused()
    page.reload()
    page.keyboard.press("?")
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize(("scheme", "locale", "width"), [("dark", "zh-CN", 360), ("light", "en-GB", 1280)])
def test_the_list_of_shortcuts_is_accessible(console, visit, scheme, locale, width):
    """The list of keys has no accessibility problem in either language and colour scheme."""
    page = visit(console, "/events?q=4711", scheme=scheme, locale=locale, width=width)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert browsers.violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_rows_and_pages_by_keyboard(console, visit):
    """The keys j and k move through the rows, Enter opens one, n and p turn the pages."""
    page = visit(console, "/events")
    links = page.locator("tbody th a")
    page.keyboard.press("j")
    expect(links.nth(0)).to_be_focused()
    page.keyboard.press("j")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("k")
    expect(links.nth(0)).to_be_focused()
    page.keyboard.press("n")
    expect(page.locator("tbody tr")).to_have_count(11)
    page.wait_for_load_state()  # until the page's script has run, a key does nothing
    page.keyboard.press("p")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.wait_for_load_state()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("4711")
    # A row with two links is one step.
    console.flow.take("i60", key="approval", businessKey="B-7")
    console.flow.app.alerts.poll()
    page.goto("/console/alerts")
    for row in range(2):
        page.keyboard.press("j")
        expect(page.locator("tbody tr").nth(row).locator("th a").first).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator("tbody tr").nth(0).locator("th a").first).to_be_focused()
    # The links of a row may all be beside its name.
    console.flow.take("i61", key="nobody")
    page.goto("/console/parked")
    page.keyboard.press("j")
    expect(page.locator("tbody tr td a").first).to_be_focused()


def test_events_are_filtered_by_a_handler_from_the_list(console, visit):
    """A handler is chosen from a list, by plugin; the search has its events only."""
    page = visit(console, "/events")
    page.get_by_label("Handler").select_option("p:book")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Handler")).to_have_value("p:book")
    # White space around a pasted value is removed.
    page.wait_for_load_state()  # by the page's script
    page.get_by_label("Business key").fill(" A-2026-1 ")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_label("Business key")).to_have_value("A-2026-1")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_a_removed_handler_is_still_shown_as_the_filter(console, visit):
    """A handler in the address that no plugin has is still shown as the filter."""
    page = visit(console, "/events?handler=gone:handler")
    expect(page.get_by_label("Handler")).to_have_value("gone:handler")
    expect(page.locator(".empty")).to_be_visible()


@pytest.mark.parametrize("label", ["Received since", "Attempted since"])
def test_the_time_field_names_the_zone_of_the_browser(console, visit, label):
    """The field names the zone of the browser, and the search shows what was understood in both zones."""
    page = visit(console, "/events?plugin=none", zone="Asia/Shanghai")
    field = page.locator(".field", has=page.get_by_label(label))
    expect(field.locator(".zone")).to_have_text("Asia/Shanghai")
    page.get_by_label(label).fill("2026-01-01T08:00")
    page.get_by_role("button", name="Search").click()
    expect(field.locator(".understood")).to_have_text(
        "Interpreted as 2026-01-01 08:00:00 Asia/Shanghai = 2026-01-01 00:00:00 UTC"
    )


@pytest.mark.parametrize(
    ("locale", "table", "lines"), [("en-GB", "CSV", "JSON lines"), ("zh-CN", "CSV 文件", "JSON Lines 文件")]
)
def test_a_search_is_downloaded(console, visit, locale, table, lines):
    """The links above the list download all events of the search, not only those of the page."""
    page = visit(console, "/events?key=contract", locale=locale)
    with page.expect_download() as waiting:
        page.get_by_role("link", name=table, exact=True).click()
    file = waiting.value
    assert file.suggested_filename.startswith("flowhooks-events-")
    rows = list(csv.DictReader(io.StringIO(Path(file.path()).read_text("utf-8-sig"), newline="")))
    assert len(rows) == 60
    assert {row["error"] for row in rows} == {"", "'=1+1"}
    with page.expect_download() as waiting:
        page.get_by_role("link", name=lines, exact=True).click()
    assert len([json.loads(line) for line in Path(waiting.value.path()).read_text("utf-8").splitlines()]) == 60


def test_values_of_the_body_are_searched(harness, serve, listens, visit):
    """Each declared field has an input: a value, or limits of a number; links of the page keep the search."""
    flow = harness.open(listens(lambda event: None, process_key="order"), search={"fields": ("/amount", "/vendor")})
    for number in range(4):
        flow.take(f"i{number}", key="order", amount=1000 * number, vendor="ACME")
    console = serve(flow)
    page = visit(console, "/events")
    page.get_by_label("/amount").fill(">=1000 <=2000")
    page.get_by_label("/vendor").fill("ACME")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.get_by_label("/amount")).to_have_value(">=1000 <=2000")
    expect(page.get_by_label("/vendor")).to_have_value("ACME")
    with page.expect_download() as waiting:
        page.get_by_role("link", name="JSON lines", exact=True).click()
    assert len(Path(waiting.value.path()).read_text("utf-8").splitlines()) == 2
    page.get_by_label("/amount").fill(">=much")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("alert")).to_contain_text("/amount>=1000")
