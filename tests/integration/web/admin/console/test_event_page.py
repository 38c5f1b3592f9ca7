"""The page of one event: its state and next step first, its bodies side by side, and corrections."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import expect

from flowhooks import Reject, Retry, State
from flowhooks.errors import IdentityConflict
from flowhooks.web.admin.console.texts import text
from support import browsers

HOSTILE = "</pre><script>document.title = 'pwned'</script>"

pytestmark = pytest.mark.sqlite


@pytest.fixture
def flow(harness, listens):
    """A flow with a handler that fails for some instances, and has four attempts."""
    ran = []

    def pay(event):
        ran.append((event.flow_instance_id, event.data.get("amount"), event.corrects))
        if event.flow_instance_id == "waits":
            raise RuntimeError("the bank is closed")
        if event.flow_instance_id == "dies":
            raise Reject("the account does not exist")
        return "已归档" if event.flow_instance_id == "archived" else None

    flow = harness.open(listens(pay, name="pay", retry=Retry(attempts=4, delays=[24], jitter=0)))
    flow.ran = ran
    return flow


@pytest.fixture
def console(flow, serve):
    """A console with a waiting delivery, and with an event in conflict."""
    event_id = flow.take("waits", amount=1, wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.take("twice", amount=12345678901234567890123, note=HOSTILE)
    with pytest.raises(IdentityConflict):
        flow.take("twice", amount=12345678901234567890124, note=HOSTILE)
    return serve(flow)


def path_of(console, instance):
    """The path of the oldest event of an instance."""
    return f"/events/{console.flow.events(flow_instance_id=instance)[0]}"


def test_a_result_is_shown_in_its_language(console):
    """A result with Chinese text is readable on the page."""
    console.flow.take("archived")
    assert 'Returned "已归档"' in console.page(path_of(console, "archived")).text


def test_a_lost_attempt_has_no_run_time(console):
    """Only when a lost attempt started is known."""
    flow = console.flow
    delivery = flow.only(flow.take("lost").event_id).delivery_id
    path = path_of(console, "lost")
    assert "UTC · 0 s" in console.page(path).text
    flow.sql("UPDATE deliveries SET state = 'unknown' WHERE id = ?", delivery)
    flow.sql("UPDATE attempts SET outcome = 'lost' WHERE delivery_id = ?", delivery)
    assert "UTC · 0 s" not in console.page(path).text


def test_a_delivery_shows_its_next_step(console):
    """The number of the attempt and of all attempts, and what keeps a delivery from running instead."""
    flow = console.flow
    path = path_of(console, "waits")
    assert "Attempt 2 of 4, in 24 s (" in console.page(path).text
    which = text("event.next_of", "zh", number=2, total=4)
    chinese = text("event.next_in", "zh", attempt=which, duration="24 秒")
    assert f"{chinese} (" in console.page(path, "zh-CN").text
    flow.sql("UPDATE handlers SET retry = NULL")
    assert "Attempt 2 of 8, in 24 s (" in console.page(path).text
    flow.sql("UPDATE handlers SET retry = '[]'")
    assert "Attempt 2, in 24 s (" in console.page(path).text
    flow.sql("UPDATE handlers SET paused_at = ?", flow.clock.now())
    page = console.page(path).text
    assert "Waiting until the handler is resumed" in page
    assert "Attempt 2" not in page


def test_an_event_links_to_its_error_handler_and_source(console):
    """The error group of an attempt, the handler and the source; each link leads to a page."""
    page = console.page(path_of(console, "waits"))
    flow = console.flow
    (attempt,) = flow.app.ledger.attempts(flow.only(path_of(console, "waits").rpartition("/")[2]).delivery_id)
    for link in (f"/console/errors/{attempt.error_group}", "/console/handlers/p%3Apay", "/console/sources/default"):
        assert link in page.links()
        assert console.get(link, root="").status == 200


@pytest.mark.parametrize(("handlers", "said"), [(100, False), (103, True)])
def test_a_cut_route_is_marked(console, handlers, said):
    """The route has at most 100 handlers; below them is the number of the others."""
    path = path_of(console, "twice")
    route = json.dumps({f"p:h{number}": "key k" for number in range(handlers)})
    console.flow.sql("UPDATE events SET route = ? WHERE id = ?", route, path.rpartition("/")[2])
    page = console.page(path).text
    assert "p:h99" in page
    assert "p:h100" not in page
    assert ("Handlers not shown: 3" in page) == said
    assert (text("event.no_match_more", "zh", count="3") in console.page(path, "zh-CN").text) == said


def test_the_log_of_an_attempt(console):
    """Log records are text, never markup, in both languages; an attempt without records has no such part."""
    flow, path = console.flow, path_of(console, "waits")
    assert text("event.log", "en") not in console.page(path).text
    flow.sql("UPDATE attempts SET log = ?", f"2026-01-01T00:00:00.000Z info pay: {HOSTILE}\u202e\nsecond line")
    for language in ("en", "zh"):
        page = console.page(path, {"en": "en", "zh": "zh-CN"}[language])
        assert text("event.log", language) in page.text
        assert f"Z info pay: {HOSTILE}\\u202e second line" in page.text
        assert "pwned" not in str(page.tags)


def test_a_hostile_body_is_shown_and_accepted(console):
    """The differences have exact integers, nothing is markup, and the accepted event is linked both ways."""
    flow = console.flow
    page = console.page(path_of(console, "twice"))
    assert '- "amount": 12345678901234567890123,' in page.text
    assert '+ "amount": 12345678901234567890124,' in page.text
    assert HOSTILE in page.text
    (button,) = page.to_do("correct")
    original = flow.events(flow_instance_id="twice")[0]
    refused, _ = console.act(button, note="  ")
    assert refused.status == 422
    assert "Enter a note that says why." in refused.page.text
    assert "Note for the audit log (required)" in refused.page.text
    assert refused.page.form() is not None
    answer, asked = console.act(button, note="the bank says so")
    assert "p:pay (has run with the first body)" in asked.text
    page = console.follow(answer).page
    first, correction = flow.events(flow_instance_id="twice")
    assert first == original
    assert page.to_do("correct") == []
    assert f"/console/events/{correction}" in page.links()
    assert "the bank says so" in page.text
    flow.settled(correction, State.SUCCEEDED)
    page = console.page(f"/events/{correction}")
    assert f"/console/events/{original}" in page.links()
    assert "correction, accepted by an operator" in page.text
    assert flow.ran[-1] == ("twice", 12345678901234567890124, original)
    assert console.get(button, root="").status == 409


def test_large_bodies_in_conflict_are_cut(flow, serve):
    """A page with long bodies in conflict has neither of them whole, and no differences."""
    flow.take("large", amount=1, more="x" * 200_000)
    with pytest.raises(IdentityConflict):
        flow.take("large", amount=2, more="y" * 200_000)
    console = serve(flow)
    answer = console.get(path_of(console, "large"))
    assert len(answer.body) < 300_000
    assert "too long to be compared" in answer.page.text
    assert answer.page.to_do("correct") != []


@pytest.mark.browser
@pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell")
@pytest.mark.parametrize("look", [("en-GB", "en", (1280, 720), "light"), ("zh-CN", "zh", (390, 844), "dark")])
def test_state_and_next_step_are_above_the_fold(console, visit, look):
    """On a desktop and on a phone an event of each state shows its state, what to do, and the button for it."""
    locale, language, (width, height), scheme = look
    flow = console.flow
    flow.take("dies")
    unknown = flow.only(flow.take("lost").event_id).delivery_id
    flow.sql("UPDATE deliveries SET state = 'unknown' WHERE id = ?", unknown)
    flow.sql("UPDATE attempts SET outcome = 'lost' WHERE delivery_id = ?", unknown)
    flow.take("nobody", key="nobody")
    flow.take("done")
    page = visit(console, width=width, scheme=scheme, locale=locale)
    page.set_viewport_size({"width": width, "height": height})
    attempt = text("event.next_of", language, number=2, total=4)
    duration = "24 s" if language == "en" else "24 秒"
    for instance, state, step, action in (
        ("waits", "waiting", text("event.next_in", language, attempt=attempt, duration=duration), "run_now"),
        ("dies", "dead", text("event.then.dead", language), "replay"),
        ("lost", "unknown", text("event.then.unknown", language), "did"),
        ("nobody", "parked", text("event.parked_by.handler", language), "dismiss"),
        ("done", "succeeded", "", "replay_again"),
    ):
        page.goto(f"/console{path_of(console, instance)}")
        badge, button = page.locator(".now .badge"), text(f"do.{action}.act", language)
        expect(badge).to_have_text(text(f"state.{state}", language))
        shown = [badge, page.get_by_text(button, exact=True), *([page.locator(".next, .notice")] if step else [])]
        if step:
            expect(shown[-1]).to_contain_text(step)
        for locator in shown:
            box = locator.bounding_box()
            assert box["y"] + box["height"] <= height, (state, locator)


@pytest.mark.browser
@pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell")
@pytest.mark.parametrize("look", [("en-GB", "en", 1280, "light"), ("zh-CN", "zh", 390, "dark")])
def test_ids_and_bodies_are_copied_and_accepted_in_a_browser(console, visit, look):
    """Ids and the body are copied exactly, and a body is accepted by two clicks."""
    locale, language, width, scheme = look
    page = visit(console, path_of(console, "twice"), width=width, scheme=scheme, locale=locale)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    # A button says for two seconds that it has copied: here until the page is left.
    page.evaluate("() => { const own = setTimeout; window.setTimeout = (f, ms) => (ms === 2000 ? 0 : own(f, ms)); }")
    event_id = console.flow.events(flow_instance_id="twice")[0]
    copied = {text("event.id", language): event_id, text("flow", language): "twice"}
    for label, value in copied.items():
        page.get_by_role("button", name=f"{text('copy', language)} {label}", exact=True).click()
        expect(page.get_by_role("button", name=f"{text('copied', language)} {label}", exact=True)).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == value
    page.locator("button[data-copy-url]").click()
    expect(page.locator("button[data-copy-url]")).to_contain_text(text("copied", language))
    assert page.evaluate("navigator.clipboard.readText()") == console.flow.app.ledger.event(event_id).body
    assert browsers.violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name=text("do.correct.act", language), exact=True).click()
    assert browsers.violations(page) == []
    page.get_by_label(text("do.note_needed", language)).fill("the bank says so")
    page.get_by_role("button", name=text("do.correct.button", language), exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text(text("do.correct.did", language))
    assert page.title() != "pwned"
    assert len(console.flow.events(flow_instance_id="twice")) == 2
