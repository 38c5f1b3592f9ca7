"""Every action clicked in a real browser: the question, the change and the message.

The default set clicks each action in English or in Chinese, alternately, and the steps of an operation in both. The
long set clicks each action in the other language, too.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest
from playwright.sync_api import expect

from flowhooks import Reject, Retry, State
from flowhooks.errors import IdentityConflict
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.reroute import ParkedRerouter
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import Router
from flowhooks.settings import Source
from flowhooks.settings.engine import EngineSettings
from flowhooks.web.admin.console import action_page
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.operations import STEPS
from flowhooks.web.admin.console.texts import text
from support import browsers, engine_ledger
from support.engine_fakes import FakeReconciler, engine_plugin
from support.waiting import WAIT_TIMEOUT, until

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


NOTE = "I asked <b>the archive</b>"
PLACES = {
    "replay": "EVENT/dead",
    "replay_again": "EVENT/done",
    "mark_done": "/events?state=unknown&flow=unknown-1",
    "mark_not_done": "/events?state=unknown&flow=unknown-2",
    "close_all": "/events?state=dead&flow=dead-2",
    "run_now": "EVENT/later",
    "did": "EVENT/unknown-3",
    "did_not": "EVENT/unknown-4",
    "close": "EVENT/dead-3",
    "correct": "EVENT/twice",
    "reroute": "EVENT/parked",
    "reroute_parked": "/parked",
    "dismiss": "/parked",
    "pause": "/handlers",
    "resume": "/handlers",
    "confirm_reconciliation": "/engines",
    "decline_reconciliation": "/engines",
    "close_gaps": "/engines",
    "acknowledge": "/alerts",
}
"""A page with each action; `EVENT/…` is the page of the event of a flow instance."""
COUNTS = {"confirm_reconciliation": "1,200", "decline_reconciliation": "1,200"}
"""The number that the message of an action has; 1 of the others."""
TWO_CLICKS = """(name) => {
  const button = [...document.querySelectorAll("button")].find((button) => button.textContent.trim() === name);
  const prevented = [];
  addEventListener("submit", (event) => prevented.push(event.defaultPrevented));
  button.click();
  button.click();
  return prevented;
}"""
"""Clicks a button twice before the browser leaves the page; returns whether its form was kept from being sent."""


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


def act(page, name, language, *, check_origin=True):
    """Click an action's button, check the question, and confirm; the browser returns to the first page."""
    origin, action = page.url, ACTIONS[name]
    button = page.locator(f'a[href^="/console/do/{name}?"], button[formaction^="/console/do/{name}?"]').first
    assert button.inner_text() in {text(f"do.{name}.{part}", language) for part in parts(name)}
    button.click()
    expect(page.locator("h1")).to_have_text(text(f"do.{name}.title", language))
    clean(page)
    if action.note or action.bulk:
        page.get_by_label(text("do.note_needed" if action.needs_note else "do.note", language)).fill(NOTE)
    if action.twice:
        page.get_by_label(text(f"do.{name}.sure", language)).check()
    page.get_by_role("button", name=text(f"do.{name}.button", language), exact=True).click()
    expect(page).to_have_url(origin)
    expect(page.get_by_role("status").first).to_be_visible()
    if check_origin:
        clean(page)


def parts(name):
    """The texts that a button of an action may have: an action with a plan may apply to a whole list."""
    return ("act", "all") if ACTIONS[name].bulk else ("act",)


def step(page, name, language):
    """Click the button of an operation that takes a step with it."""
    button = page.locator(f'form[action*="/operations/"][action*="/{name}"] button')
    shown = {"start": "do.replay.button", "rate": "operation.set_rate"}.get(name, f"operation.{name}")
    expect(button).to_have_text(text(shown, language))
    button.click()


def says(page, key, language, **params):
    """Whether the page shows the message once."""
    expect(page.locator(".notice[role=status]")).to_contain_text(text(key, language, **params))


@pytest.mark.parametrize(("locale", "language", "width", "scheme"), LOOKS)
def test_flow_4711_is_searched_replayed_and_checked(console, visit, locale, language, *, width, scheme):
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
    act(page, "replay_again", language)
    says(page, "do.replay_again.did", language, count="1")


@pytest.fixture
def everything(harness, serve, listens, monkeypatch):
    """A console on which each action can be clicked, on a page of `PLACES`."""
    # Its second time, 40 seconds after the start, would route the parked events before they are routed by clicks.
    monkeypatch.setattr(ParkedRerouter, "start", lambda _rerouter: None)
    tried = set()

    def archive(event):
        if event.flow_instance_id.startswith("dead") and event.flow_instance_id not in tried:
            tried.add(event.flow_instance_id)
            raise Reject("the archive is full")

    def later(event):
        if event.flow_instance_id not in tried:
            tried.add(event.flow_instance_id)
            raise RuntimeError("busy")

    handlers = [listens(archive), listens(later, process_key="later", retry=Retry(attempts=3, delays=(86_400,)))]
    engine = EngineSettings(client="flowable", url="http://oa:8080")
    flow = harness.open(
        plugins={"p": engine_plugin(*handlers)}, sources={"oa": Source(engine=engine), "erp": Source(engine=engine)}
    )
    flow.app.alerts.stop(WAIT_TIMEOUT)  # a check would close the first alert of the page while it is acknowledged
    flow.app.reconciliation.stop(WAIT_TIMEOUT)  # the results are the rows below
    FakeReconciler("oa", "erp").install(flow.app)
    for instance in ("dead", "dead-2", "dead-3", "done", "unknown-1", "unknown-2", "unknown-3", "unknown-4"):
        flow.take(instance)
    flow.sql(
        "UPDATE deliveries SET state = 'unknown'"
        " WHERE event_id IN (SELECT id FROM events WHERE flow_instance_id LIKE 'unknown%')"
    )
    unknown = "SELECT id FROM deliveries WHERE state = 'unknown'"
    flow.sql(f"UPDATE attempts SET outcome = 'lost' WHERE delivery_id IN ({unknown})")
    flow.settled(flow.take("later", key="later", wait=0).event_id, State.WAITING, attempt=1)
    flow.take("twice", amount=1)
    with pytest.raises(IdentityConflict):
        flow.take("twice", amount=2)
    for instance, key in (("parked", "new"), ("parked-2", "new"), ("nobody", "nobody")):
        flow.take(instance, key=key)
    # As if another process had loaded a plugin with a handler of parked events.
    candidate = Candidate("p:archive", listens(archive, process_key="new").selectors)
    flow.app._live.current = replace(flow.app._live.current, router=Router([candidate]))
    now = flow.clock.now()
    for source in ("oa", "erp"):
        engine_ledger.position(flow, source, to_confirm=1200)
    engine_ledger.gap(flow, "oa", now - 2, now - 1, "refused")
    flow.app.alerts.poll()
    return serve(flow)


@pytest.mark.parametrize(
    "looks", [(ENGLISH, CHINESE), pytest.param((CHINESE, ENGLISH), marks=pytest.mark.long)], ids=["en-zh", "zh-en"]
)
def test_each_action_is_clicked_and_audited(everything, visit, looks):
    """Each action of the registry is clicked, and the audit log has it. A new action fails until it has a place."""
    flow = everything.flow
    screens = {"en": {"width": 1280, "scheme": "light"}, "zh": {"width": 360, "scheme": "dark"}}
    pages = {language: visit(everything, locale=locale, **screens[language]) for locale, language in looks}
    assert PLACES.keys() == ACTIONS.keys()
    for name, (_, language) in zip(PLACES, cycle(looks), strict=False):
        page = pages[language]
        place, _, instance = PLACES[name].partition("EVENT/")
        page.goto(f"/console{f'/events/{event_of(everything, instance)}' if instance else place}")
        act(page, name, language, check_origin=False)
        says(page, f"do.{name}.did", language, count=COUNTS.get(name, "1"))
    page.get_by_role("link", name=text("nav.audit", language), exact=True).click()
    clean(page)
    for name in ("pause", "resume", "acknowledge", "dismiss", "reroute", "close_gaps"):
        expect(page.locator("tbody")).to_contain_text(text(f"audit.did.{name}", language))
    expect(page.locator("tbody")).to_contain_text(NOTE)
    page.goto(f"/console/events/{event_of(everything, 'unknown-3')}")
    expect(page.locator("main")).to_contain_text(NOTE)
    until(flow.is_idle)
    states = dict(
        flow.sql("SELECT flow_instance_id, deliveries.state FROM deliveries JOIN events ON events.id = event_id")
    )
    done = {"dead", "done", "later", "twice", "parked", "parked-2", *(f"unknown-{number}" for number in range(1, 5))}
    assert states == dict.fromkeys(done, "succeeded") | dict.fromkeys(("dead-2", "dead-3"), "closed")


def test_long_work_continues_without_clicks(console, visit, monkeypatch):
    """A progress bar advances from request to request without a click, until all is done."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "PREVIEW_TIME_BUDGET", WAIT_TIMEOUT)
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
        page.wait_for_load_state()  # the page's script sets its timer by the paused clock
        page.clock.run_for(1_000)
    page.clock.resume()
    says(page, "do.dismiss.did", "en", count="3")
    assert page.url.endswith("/console/events?state=parked")


def test_long_work_without_scripts(console, visit, monkeypatch):
    """Without scripts the bar advances with a click, or stops and keeps the finished work."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "PREVIEW_TIME_BUDGET", WAIT_TIMEOUT)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    page = visit(console, "/events?state=parked", scripts=False)
    page.get_by_role("link", name="Dismiss").click()
    page.locator("form.confirm").get_by_role("button", name="Dismiss").click()
    expect(page.locator("progress")).to_have_attribute("value", "1")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("progress")).to_have_attribute("value", "2")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".would")).to_contain_text("Stopped.")
    assert len(console.flow.events(state="parked")) == 1


def test_long_work_is_stopped_while_a_request_works(console, visit, monkeypatch):
    """The button also works while the form that continues is on its way, and the action does not go on by itself."""
    monkeypatch.setattr("flowhooks.operations.dismiss.PAGE_SIZE", 1)
    monkeypatch.setattr(action_page, "PREVIEW_TIME_BUDGET", WAIT_TIMEOUT)
    monkeypatch.setattr(action_page, "REQUEST_TIME_BUDGET", -1.0)
    page = visit(console, "/events?state=parked")
    page.clock.install(time=0)
    page.clock.pause_at(1_000)
    page.get_by_role("link", name="Dismiss").click()
    page.locator("form.confirm").get_by_role("button", name="Dismiss").click()
    expect(page.locator("progress")).to_have_attribute("value", "1")
    page.wait_for_load_state()  # the page's script sets its timer by the paused clock
    page.evaluate("""() => {
        document.addEventListener("submit", (event) => { if (!event.submitter) event.preventDefault(); });
        document.querySelector("form[data-go-on]").requestSubmit();
    }""")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".would")).to_contain_text("at least 1")
    page.clock.run_for(10_000)
    expect(page.locator(".would")).to_contain_text("Stopped.")
    assert len(console.flow.events(state="parked")) == 2


def test_action_pages_are_accessible(console, visit, monkeypatch):
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


def test_cancel_is_the_first_button_by_keyboard(console, visit):
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


def test_a_double_click_acts_once(console, visit):
    """A double click acts once, also on a button that a refresh brought; the way back stays.

    A button that is clicked with Ctrl works in a new tab, and stays usable in its own.
    """
    page = visit(console, f"/events/{event_of(console, '4711')}")
    replay = page.get_by_role("button", name="Replay", exact=True)
    with page.context.expect_page() as tab:
        replay.click(modifiers=["Control"])
    expect(tab.value.locator("form.confirm")).to_be_visible()
    tab.value.close()
    # A request that is cancelled with the browser's stop button can be sent again some seconds later.
    page.clock.install()
    page.route("**/do/replay?**", lambda route: route.abort("aborted"), times=1)
    with page.expect_event("requestfailed"):
        replay.click()
    page.clock.run_for(6_000)
    replay.click()
    page.wait_for_load_state()  # until the page's script has run, each click sends the form
    page.locator("form.confirm").get_by_role("button", name="Replay").dblclick()
    says(page, "do.replay.did", "en", count="1")
    assert len(console.flow.sql("SELECT id FROM audit_log")) == 1
    page.goto("/console/events?state=dead")
    page.locator("p.acts").get_by_role("button", name="Replay failed deliveries").click()
    field = page.get_by_label(text("operation.rate_field", "en"))
    field.fill("0.001")
    step(page, "start", "en")
    expect(page.locator(".o-running")).to_be_visible()
    field.fill("0.002")  # while the field has the focus, the page does not refresh itself
    page.locator("#live > div").evaluate("(part) => (part.id = 'before')")
    page.locator("h1").click()
    expect(page.locator("#before")).to_have_count(0)
    expect(field).to_have_value("0.002")  # a refresh leaves what was entered
    assert page.evaluate(TWO_CLICKS, text("operation.pause", "en")) == [False, True]
    expect(page.locator(".o-paused")).to_be_visible()
    page.get_by_role("link", name=text("do.back", "en"), exact=True).click()
    expect(page).to_have_url(re.compile(r"/console/events\?state=dead$"))


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
    step(page, "start", language)
    expect(page.locator(".o-running")).to_have_text(text("operation_state.running", language))
    expect(page.locator("main")).to_contain_text("the ERP <b>is up</b>")
    clean(page)
    step(page, "pause", language)
    expect(page.locator(".o-paused")).to_have_text(text("operation_state.paused", language))
    clean(page)
    field = page.get_by_label(text("operation.rate_field", language))
    field.fill("")
    step(page, "rate", language)
    expect(page.locator("main")).not_to_contain_text("0.001")  # the page after the change
    expect(field).to_have_value("")
    step(page, "resume", language)
    # The page refreshes itself until the operation has finished.
    expect(page.locator(".o-finished")).to_have_text(text("operation_state.finished", language))
    expect(page.locator("progress")).to_have_attribute("value", "2")
    # The rest of the page is that of the end, too.
    expect(page.locator(".live")).to_have_count(0)
    expect(page.locator("tbody .s-succeeded")).to_have_count(2)
    clean(page)
    assert [unpaid.flow.only(event_of(unpaid, f"p{number}")).attempt for number in range(3)] == [2, 1, 2]
    page.get_by_role("link", name=text("nav.operations", language), exact=True).click()
    expect(page.locator("tbody")).to_contain_text(text("operation_state.finished", language))
    clean(page)


@pytest.mark.parametrize(("locale", "language"), [ENGLISH, CHINESE])
def test_next_event_of_a_list_and_cancelling_an_operation(unpaid, visit, locale, language):
    """After acting on an event the operator opens the next one; an operation on the others is cancelled half way."""
    page = visit(unpaid, "/events?state=dead", locale=locale)
    page.locator("tbody th a").first.click()
    expect(page.locator("h1")).to_contain_text("p2")
    act(page, "close", language, check_origin=False)
    page.locator("a[rel=next]").click()
    expect(page.locator("h1")).to_contain_text("p1")
    page.goto("/console/events?state=dead")
    page.locator("p.acts").get_by_role("button", name=text("do.replay.all", language), exact=True).click()
    page.get_by_label(text("operation.rate_field", language)).fill("0.001")
    step(page, "start", language)
    step(page, "cancel", language)
    expect(page.locator(".o-cancelled")).to_have_text(text("operation_state.cancelled", language))
    expect(page.locator("main")).to_contain_text(text("operation.left", language))
    # The page is loaded again when the delivery that was released has ended.
    expect(page.locator(".live")).to_have_count(0)
    clean(page)
    assert unpaid.flow.only(event_of(unpaid, "p2")).state is State.CLOSED
    assert [unpaid.flow.only(event_of(unpaid, f"p{number}")).state for number in (0, 1)].count(State.DEAD) >= 1


def test_a_page_that_answers_a_wrong_rate_refreshes_to_the_end(unpaid, visit):
    """At the end, the page about a wrong rate becomes that of the operation, and the form is not sent again."""
    context = unpaid.flow.app.operation_context
    pause(context, ["p:pay"])  # the operation could have ended before the rate is sent
    page = visit(unpaid, "/events?state=dead")
    page.locator("p.acts").get_by_role("button", name="Replay failed deliveries").click()
    step(page, "start", "en")
    page.get_by_label(text("operation.rate_field", "en")).fill("x")
    step(page, "rate", "en")
    expect(page.locator("#wrong-rate")).to_be_visible()
    sent = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.locator("h1").click()  # while the field has the focus, the page does not refresh itself
    resume(context, ["p:pay"])
    expect(page.locator(".o-finished")).to_have_text("finished")
    expect(page.locator(".live")).to_have_count(0)
    expect(page.locator("#wrong-rate")).to_have_count(0)
    expect(page).to_have_url(re.compile(r"/console/operations/[^/]+\?back="))
    assert sent == []


def test_each_step_of_an_operation_is_clicked():
    """The two tests above click each step that a page of an operation offers."""
    source = Path(__file__).read_text("utf-8")
    assert [name for name in STEPS if f'step(page, "{name}", language)' not in source] == []


@pytest.mark.parametrize(("locale", "language"), [ENGLISH, CHINESE])
def test_a_button_does_not_move_while_pressed(unpaid, visit, locale, language):
    """A button that is pressed for longer than a refresh takes sends its form: the message about the focus has room."""
    page = visit(unpaid, "/events?state=dead", locale=locale, width=360)
    page.locator("p.acts").get_by_role("button", name=text("do.replay.all", language), exact=True).click()
    page.get_by_label(text("operation.rate_field", language)).fill("0.001")
    step(page, "start", language)
    page.get_by_label(text("operation.rate_field", language)).fill("2")
    button = page.locator('form[action*="/rate"] button')
    page.wait_for_load_state()  # without its style sheet and its script, the page has other places
    at = button.bounding_box()
    page.mouse.move(at["x"] + at["width"] / 2, at["y"] + 2)
    page.mouse.down()
    page.wait_for_timeout(2_500)  # longer than a refresh of this page
    assert button.bounding_box() == at
    page.mouse.up()
    expect(page.locator("dl.facts").last).to_contain_text(text("operation.rate_field", language) + "2")


def test_an_operation_without_scripts(unpaid, visit):
    """Without scripts the plan, the start and the progress work with reloads; the next of the list is a link."""
    context = unpaid.flow.app.operation_context
    pause(context, ["p:pay"])  # the operation could have ended before its page is shown, which then offers no reload
    page = visit(unpaid, "/events?state=dead", scripts=False)
    page.get_by_role("button", name="Replay failed deliveries").first.click()
    page.get_by_role("button", name="Replay", exact=True).click()
    expect(page.locator("h1")).to_have_text("Replay dead deliveries")
    expect(page.get_by_role("link", name="Reload")).to_be_visible()
    resume(context, ["p:pay"])
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
