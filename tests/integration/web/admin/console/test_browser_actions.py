"""Every action clicked in a real browser, in both languages: the question, the change and the message."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from flowhooks import Reject, State
from flowhooks.web.admin.console import action_page
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.texts import text
from support import browsers
from support.waiting import until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sqlite,
    pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell"),
]
ENGLISH, CHINESE = ("en-GB", "en"), ("zh-CN", "zh")
LOOKS = [
    (*ENGLISH, 1280, "light"),
    (*CHINESE, 360, "dark"),
    pytest.param(*ENGLISH, 360, "dark", marks=pytest.mark.long),
    pytest.param(*CHINESE, 1280, "light", marks=pytest.mark.long),
]


def languages(first, second):
    """Each language once; the second only in the long set."""
    several = [first, pytest.param(*second, marks=pytest.mark.long)]
    return pytest.mark.parametrize(("locale", "language"), several)


@pytest.fixture
def console(harness, serve, listens):
    """A console with something for every action."""
    tried = []

    def archive(event):
        tried.append(event.flow_instance_id)
        if event.flow_instance_id.startswith("47") and tried.count(event.flow_instance_id) == 1:
            raise Reject("the archive is full")

    flow = harness.open(listens(archive, process_key="contract"))
    for instance in ("4711", "4712", "4713", "i1"):
        flow.take(instance, key="contract", businessKey=f"C-{instance}")
    for instance in ("p1", "p2", "p3"):
        flow.take(instance, key=f"key-{instance}")
    flow.app.alerts.poll()
    return serve(flow)


def event_of(console, instance):
    """The id of the event of a flow instance."""
    return console.flow.events(flow_instance_id=instance)[0]


def clean(page):
    """Check that axe finds nothing, and that nothing is wider than the window."""
    assert (page.url, browsers.violations(page)) == (page.url, [])
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"], page.url


def act(page, name, language, *, note="", sure=False):
    """Click an action's button, check the question, and confirm; the browser returns to the first page."""
    origin = page.url
    role, part = ("button", "act") if ACTIONS[name].bulk else ("link", "act")
    if ACTIONS[name].bulk and page.locator("form.filter").count():
        part = "all"
    page.get_by_role(role, name=text(f"do.{name}.{part}", language), exact=True).first.click()
    expect(page.locator("h1")).to_have_text(text(f"do.{name}.title", language))
    clean(page)
    if note:
        page.get_by_label(text("do.note", language)).fill(note)
    if sure:
        page.get_by_label(text(f"do.{name}.sure", language)).check()
    page.get_by_role("button", name=text(f"do.{name}.button", language), exact=True).click()
    expect(page).to_have_url(origin)
    expect(page.get_by_role("status").first).to_be_visible()
    clean(page)


def says(page, key, language, **params):
    """Whether the page shows the message once."""
    expect(page.locator(".notice[role=status]")).to_contain_text(text(key, language, **params))


@pytest.mark.parametrize(("locale", "language", "width", "scheme"), LOOKS)
def test_flow_4711_is_fixed_by_clicking(console, visit, locale, language, *, width, scheme):
    """From the phone call to the archived contract: search, open, replay, and check the result."""
    page = visit(console, "/events", width=width, scheme=scheme, locale=locale)
    page.get_by_label(text("flow", language)).fill("4711")
    page.get_by_role("button", name=text("search", language)).click()
    page.locator("tbody a").first.click()
    act(page, "replay", language)
    says(page, "do.replay.did", language, count="1")
    console.flow.settled(event_of(console, "4711"), State.SUCCEEDED)
    page.reload()
    expect(page.locator(".notice[role=status]")).to_have_count(0)
    expect(page.locator(".delivery .s-succeeded").first).to_be_visible()
    act(page, "replay_again", language, sure=True)
    says(page, "do.replay_again.did", language, count="1")


@languages(ENGLISH, CHINESE)
def test_deliveries(console, visit, locale, language):
    """Deliveries of a search are replayed; an unknown one is resolved; one is closed with a note."""
    flow = console.flow
    for name, instance in (("did", "4711"), ("did_not", "4712")):
        event = event_of(console, instance)
        flow.sql("UPDATE deliveries SET state = 'unknown' WHERE event_id = ?", event)
        flow.sql("UPDATE attempts SET outcome = 'lost' WHERE delivery_id = ?", flow.only(event).delivery_id)
        page = visit(console, f"/events/{event}", locale=locale)
        act(page, name, language, note="I asked <b>the archive</b>")
        expect(page.locator("main")).to_contain_text("I asked <b>the archive</b>")
        flow.settled(event, State.SUCCEEDED)
    page = visit(console, f"/events/{event_of(console, '4713')}", locale=locale)
    act(page, "close", language, note="by hand")
    assert flow.only(event_of(console, "4713")).state is State.CLOSED
    flow.take("4714", key="contract")
    page = visit(console, "/events?key=contract", locale=locale)
    act(page, "replay", language)
    says(page, "do.replay.did", language, count="1")
    flow.settled(event_of(console, "4714"), State.SUCCEEDED)


@languages(CHINESE, ENGLISH)
def test_parked_events(console, visit, locale, language):
    """One group is dismissed in its row, the rest by the search, and one event is rerouted."""
    page = visit(console, "/parked", locale=locale)
    act(page, "dismiss", language, note="a trial")
    says(page, "do.dismiss.did", language, count="1")
    page.goto("/console/events?state=parked")
    act(page, "dismiss", language)
    says(page, "do.dismiss.did", language, count="2")
    page.goto(f"/console/events/{event_of(console, 'p1')}")
    act(page, "reroute", language)
    assert console.flow.events(state="parked") == [event_of(console, "p1")]


@languages(ENGLISH, CHINESE)
def test_handlers_alerts_and_the_audit(console, visit, locale, language):
    """A handler is paused and resumed, an alert acknowledged, and the audit log shows all of it."""
    page = visit(console, "/handlers", locale=locale)
    act(page, "pause", language, note="the archive moves")
    expect(page.locator("main")).to_contain_text(text("handlers.paused_by", language, who="local"))
    act(page, "resume", language)
    page.goto("/console/alerts")
    act(page, "acknowledge", language)
    expect(page.locator("main")).to_contain_text("local")
    page.get_by_role("link", name=text("nav.audit", language), exact=True).click()
    clean(page)
    for name in ("pause", "resume", "acknowledge"):
        expect(page.locator("tbody")).to_contain_text(text(f"audit.did.{name}", language))


def test_long_work_goes_on_by_itself(console, visit, monkeypatch):
    """A progress bar advances from request to request without a click, until all is done."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    page = visit(console, "/events?state=parked", width=360)
    page.clock.install(time=0)
    page.clock.pause_at(1_000)  # otherwise the bar could advance, or disappear, before the test sees it
    page.get_by_role("link", name="Dismiss").click()
    page.locator("form.confirm").get_by_role("button", name="Dismiss").click()
    bar = page.locator("progress")
    for done in ("1", "2"):
        expect(bar).to_have_attribute("value", done)
        expect(bar).to_have_attribute("max", "3")
        page.clock.run_for(1_000)
    page.clock.resume()
    says(page, "do.dismiss.did", "en", count="3")
    assert page.url.endswith("/console/events?state=parked")


def test_long_work_without_scripts(console, visit, monkeypatch):
    """Without scripts the bar advances with a click, or stops and keeps the finished work."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    page = visit(console, "/events?state=parked", scripts=False)
    page.get_by_role("link", name="Dismiss").click()
    page.locator("form.confirm").get_by_role("button", name="Dismiss").click()
    expect(page.locator("progress")).to_have_attribute("value", "1")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("progress")).to_have_attribute("value", "2")
    page.get_by_role("link", name="Stop").click()
    assert len(console.flow.events(state="parked")) == 1


def test_the_pages_of_actions_are_accessible(console, visit, monkeypatch):
    """On a phone in dark mode, axe finds nothing for the bar, an empty question and a missing object."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    page = visit(console, "/do/dismiss?state=parked", width=360, scheme="dark", locale="zh-CN")
    # Without automatic continuation, so that the page stays during the check.
    page.evaluate("window.setTimeout = () => 0")
    page.add_init_script("window.setTimeout = ((own) => (f, ms) => ms === 400 ? 0 : own(f, ms))(window.setTimeout)")
    page.get_by_role("button", name="忽略").click()
    expect(page.locator("progress")).to_be_visible()
    clean(page)
    for path in (
        "/do/close?delivery=nothing",
        "/do/dismiss?key=nothing",
        "/do/replay",
        f"/do/close?delivery={console.flow.only(event_of(console, 'i1')).delivery_id}",
    ):
        page.goto(f"/console{path}")
        clean(page)


def test_by_keyboard_the_safe_way_comes_first(console, visit):
    """In the note Enter does nothing; the first of the two buttons cancels."""
    page = visit(console, f"/do/dismiss?id={event_of(console, 'p1')}&back=/console/parked")
    page.get_by_label("Note").fill("a")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Cancel"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/console/parked$"))
    assert len(console.flow.events(state="parked")) == 3


def test_two_quick_clicks(console, visit):
    """A double click acts once."""
    page = visit(console, f"/events/{event_of(console, '4711')}")
    page.get_by_role("button", name="Replay", exact=True).click()
    page.locator("form.confirm").get_by_role("button", name="Replay").dblclick()
    says(page, "do.replay.did", "en", count="1")
    assert len(console.flow.sql("SELECT id FROM audit_log")) == 1


@pytest.fixture
def unpaid(harness, serve, listens):
    """A console with three dead deliveries, whose handler works at its second attempt."""
    tried = []

    def pay(event):
        tried.append(event.flow_instance_id)
        if tried.count(event.flow_instance_id) == 1:
            raise Reject("the ERP is down")

    flow = harness.open(listens(pay, process_key="pay"))
    for number in range(3):
        flow.take(f"p{number}", key="pay")
    return serve(flow)


@pytest.mark.parametrize(("locale", "language"), [ENGLISH, CHINESE])
def test_an_operation_from_the_plan_to_its_end(unpaid, visit, locale, language):
    """Two rows are selected; the plan gets a note and a rate; the operation is paused, resumed, and finishes."""
    phone = {"width": 360, "scheme": "dark"} if language == "zh" else {}
    page = visit(unpaid, "/events?state=dead", locale=locale, **phone)
    clean(page)
    for number in (0, 2):
        page.get_by_label(text("events.select", language, flow=f"p{number}"), exact=True).check()
    rows = page.locator("form#rows")
    rows.get_by_role("button", name=text("do.replay.all", language), exact=True).click()
    expect(page.locator(".would")).to_have_text(text("do.replay.would", language, count="2"))
    clean(page)
    page.get_by_label(text("do.note", language)).fill("the ERP <b>is up</b>")
    page.get_by_label(text("operation.rate_field", language)).fill("0.001")
    page.get_by_role("button", name=text("do.replay.button", language), exact=True).click()
    expect(page.locator(".o-running")).to_have_text(text("operation_state.running", language))
    expect(page.locator("main")).to_contain_text("the ERP <b>is up</b>")
    clean(page)
    page.get_by_role("button", name=text("operation.pause", language), exact=True).click()
    expect(page.locator(".o-paused")).to_have_text(text("operation_state.paused", language))
    clean(page)
    field = page.get_by_label(text("operation.rate_field", language))
    field.fill("")
    page.get_by_role("button", name=text("operation.set_rate", language), exact=True).click()
    expect(page.locator("main")).not_to_contain_text("0.001")  # the page after the change
    expect(field).to_have_value("")
    page.get_by_role("button", name=text("operation.resume", language), exact=True).click()
    # The page refreshes itself until the operation has finished.
    expect(page.locator(".o-finished")).to_have_text(text("operation_state.finished", language))
    expect(page.locator("progress")).to_have_attribute("value", "2")
    clean(page)
    assert [unpaid.flow.only(event_of(unpaid, f"p{number}")).attempt for number in range(3)] == [2, 1, 2]
    page.get_by_role("link", name=text("nav.operations", language), exact=True).click()
    expect(page.locator("tbody")).to_contain_text(text("operation_state.finished", language))
    clean(page)


def test_an_operation_without_scripts(unpaid, visit):
    """Without scripts the plan, the start and the progress work with reloads; the next of the list is a link."""
    page = visit(unpaid, "/events?state=dead", scripts=False)
    page.get_by_role("button", name="Replay failed deliveries").first.click()
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.locator("h1")).to_have_text("Replay dead deliveries")
    for number in range(3):
        unpaid.flow.settled(event_of(unpaid, f"p{number}"), State.SUCCEEDED)
    until(lambda: unpaid.flow.sql("SELECT state FROM operations") == [("finished",)])
    page.get_by_role("link", name="Reload").click()
    expect(page.locator(".o-finished")).to_have_text("finished")
    unpaid.flow.take("p9", key="pay")
    unpaid.flow.take("p8", key="pay")
    page.goto("/console/events?state=dead")
    page.locator("tbody a").first.click()
    page.get_by_role("link", name="Next in the list: p9").click()
    expect(page.locator("h1")).to_contain_text("p9")
