"""The console in a real browser: no blocked resource or error, on a phone, in dark mode, by keyboard and by axe."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re
import socket
from contextlib import closing
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from flowhooks import Reject
from flowhooks.clock import SECOND
from flowhooks.ledger import circuit_state
from flowhooks.operations.context import Actor
from flowhooks.operations.pause import pause
from flowhooks.settings import OperatorSettings
from flowhooks.web.admin.passwords import hash_password
from support import browsers, engine_ledger
from support.waiting import WAIT_TIMEOUT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sqlite,
    pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell"),
]
PAGES = (
    "/",
    "/events",
    "/errors",
    "/handlers",
    "/handlers/p:archive",
    "/parked",
    "/operations",
    "/sources",
    "/sources/default",
    "/engines",
    "/rejected-requests",
    "/alerts",
    "/audit",
    "/storage",
    "/nothing",
)
LONG = "a_value_without_any_place_to_break_it_" * 9


@pytest.fixture
def console(harness, serve, listens, make_plugin, tmp_path):
    """A console with data of every kind, including long values."""
    folder = tmp_path / LONG[:200]
    folder.mkdir()
    (folder / "broken.py").write_text(f"raise ValueError({LONG!r})\n")

    def archive(event):
        if event.business_key == LONG:
            raise Reject(f"<script>document.title = 'pwned'</script> {LONG}")

    when = {"/" + "member" * 40: {"minimum": 1000, "description": LONG}}
    plugin = make_plugin(
        listens(archive, process_key="contract"),
        listens(archive, name="book", process_key="approval", conclusion=["approved", LONG[:128]]),
        listens(archive, name="large", process_key="approval", conclusion="approved", when=when),
        listens(archive, name="stuck", process_key="stuck"),
    )
    flow = harness.open(plugins={"p": plugin}, allow=("broken",), plugins_dirs=(str(folder),))
    flow.take("4711", key="contract", businessKey=LONG, more="<img src=x onerror=\"document.title='pwned'\">")
    for number in range(55):
        flow.take(f"i{number}", key="contract", businessKey=f"B-{number}")
    flow.take("4712", key=LONG, callback_class=f"com.example.{LONG}")
    flow.take("approved", key="approval", conclusion="approved")
    flow.take("rejected", key="approval", conclusion=LONG[:100])
    flow.take("undecided", key="approval")
    now = flow.clock.now()
    engine_ledger.position(flow, LONG, failed_since=now, failures=3, error=LONG, to_confirm=1200, skew=-SECOND)
    engine_ledger.gap(flow, LONG, now - SECOND, now, "refused", detail=LONG)
    engine_ledger.instance(flow, LONG, "1", disposition="skipped", rule="child")
    for status, source, conflict in (
        (401, "", ""),
        (422, LONG, ""),
        (409, LONG, flow.events(flow_instance_id="4711")[0]),
    ):
        flow.app.rejected_requests.record(
            path=f"/flow/{LONG}/call-back/complete",
            address="192.0.2.1",
            status=status,
            source=source,
            english=f"English {status} {LONG}",
            chinese=f"中文 {status} {LONG}",
            user_agent=LONG,
            event_id=conflict,
        )
    flow.app.rejected_requests.flush()
    circuit = circuit_state.OpenCircuit("p:stuck", LONG, "1", now + 3600 * SECOND)
    flow.app.ledger.write(
        lambda transaction: circuit_state.open_circuit(transaction, circuit, now, flow.app.ledger.pauses)
    )
    flow.take("stuck", key="stuck", wait=0)
    flow.app.alerts.poll()
    return serve(flow)


def event_of(console, instance="4711"):
    """The path of an event."""
    return f"/events/{console.flow.events(flow_instance_id=instance)[0]}"


@pytest.mark.parametrize(
    ("widths", "scheme", "locale"), [((320, 360), "dark", "zh-CN"), ((768, 1080, 1280), "light", "en-GB")]
)
def test_no_page_scrolls_sideways_or_fails_an_accessibility_check(console, visit, widths, scheme, locale):
    """On a phone, a tablet and a desktop, in each language, axe finds nothing and no page is too wide."""
    page = visit(console, "/nothing", scheme=scheme, locale=locale)
    states = [event_of(console, instance) for instance in ("4711", "rejected", "undecided", "stuck")]
    too_wide = []
    more = (f"{event_of(console, 'approved')}?explain=1", "/events?dismissed_by=condition", "/handlers/p:stuck")
    for path in (*PAGES, *states, *more):
        page.goto(f"/console{path}")
        for width in widths:
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                too_wide.append((path, width))
        assert (path, browsers.violations(page)) == (path, [])
        assert "pwned" not in page.title()
    assert too_wide == []


def test_the_explanation_of_a_route_opens_by_click_and_key(console, visit):
    """A click or key on the page of a routed event opens the explanation and moves to it."""
    page = visit(console, event_of(console, "approved"))
    link = page.get_by_role("link", name="Why these handlers?")
    link.focus()
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", name="Why these handlers")
    expect(heading).to_be_in_viewport()
    explained = page.locator("#explanation")
    expect(explained.get_by_role("row", name="p:book matches")).to_be_visible()
    expect(explained.get_by_role("row", name="p:large does not match")).to_be_visible()
    expect(explained.get_by_role("row", name="p:archive")).to_have_count(0)


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ("en-GB", ("Status", "Search", "The event that it contradicts")),
        ("zh-CN", ("状态码", "查询", "与之冲突的事件")),
    ],
)
def test_a_rejected_conflict_links_to_its_event(console, visit, locale, words):
    """An operator finds the conflicts among the rejected requests, and a link leads to the event, in each language."""
    status, search, contradicted = words
    page = visit(console, "/rejected-requests", locale=locale)
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label(status).select_option("409")
    page.get_by_role("button", name=search).click()
    page.wait_for_url("**/console/rejected-requests?status=409")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name=contradicted).click()
    expect(page.locator("h1")).to_contain_text("4711")


def test_events_are_filtered_by_the_reason_of_dismissal(console, visit):
    """The reason is chosen from a list and is in the address."""
    page = visit(console, "/events")
    page.get_by_label("Reason for dismissal").select_option("condition")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/console/events?dismissed_by=condition")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_the_overview_refreshes_automatically(console, visit):
    """New events are shown without a reload, until the page is paused, and again when it continues.

    The page distinguishes an answer with an error from a server that does not answer.
    """
    page = visit(console)
    page.clock.install()
    page.reload()
    tile = page.locator(".tile", has_text="parked").locator(".tile-count")
    expect(tile).to_have_text("2")
    console.flow.take("more-1", key="nobody")
    with page.expect_response("**/console/live"):
        page.clock.run_for(5_100)
    expect(tile).to_have_text("3")
    page.get_by_role("button", name="Pause").click()
    console.flow.take("more-2", key="nobody")
    page.clock.run_for(20_000)
    assert tile.inner_text() == "3"
    page.locator("h1").click()
    page.get_by_role("button", name="Resume").click()
    page.locator("h1").click()
    expect(tile).to_have_text("4")
    for answer, says in (
        (lambda route: route.fulfill(status=403), "Not refreshed: HTTP status 403."),
        (lambda _route: None, "The server does not respond."),
    ):
        page.route("**/console/live", answer)
        with page.expect_request("**/console/live"):
            page.clock.run_for(5_100)
        page.clock.run_for(15_100)
        expect(page.get_by_role("status")).to_have_text(says)


@pytest.mark.parametrize(
    ("locale", "says"),
    [
        (
            "en-GB",
            (
                *("Failing now", "source silent crm The CRM is silent. · acknowledged by ann", "paused since"),
                *("by ann: the ERP is down", "in the last hour: 1"),
                "due 0, retrying 0, blocked 0, paused or circuit open 2",
            ),
        ),
        (
            "zh-CN",
            (
                *("当前故障", "来源无回调 crm The CRM is silent. · 已由 ann 确认", "已暂停，始于"),
                *("运维人员：ann: the ERP is down", "最近一小时失败 1 次"),
                "到期 0，待重试 0，等待前序 0，已暂停或已熔断 2",
            ),
        ),
    ],
)
def test_the_overview_names_failing_sources_and_handlers(console, visit, locale, says):
    """The overview names silent sources, alerts, and paused handlers with their notes, and says why deliveries wait."""
    flow = console.flow
    pause(replace(flow.app.operation_context, by=Actor("ann", "cli")), ["p:archive"], note="the ERP is down")
    flow.take("paused", key="contract", wait=0)
    flow.app.alerts.poll()
    flow.app.alerts.stop(WAIT_TIMEOUT)  # a check would close an alert without a cause
    flow.sql(
        "INSERT INTO alerts (id, cause, subject, message, started_at, count, event_id, opened_at, notified, "
        "acknowledged_at, acknowledged_by)"
        " VALUES ('s', 'source_silent', 'crm', 'The CRM is silent. Ask.', 1, 1, '', 1, '[]', 2, 'ann')"
    )
    page = visit(console, locale=locale)
    for text in says:
        expect(page.locator("#live")).to_contain_text(text)
    expect(page.locator(".failing .badge").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_focused_link_pauses_the_refresh_of_the_overview(console, visit):
    """A link of the refreshed part that has the focus keeps it; the page says so, and goes on when the focus leaves."""
    page = visit(console)
    page.clock.install()
    page.reload()
    tile = page.locator(".tile", has_text="parked").locator(".tile-count")
    link = page.locator(".tile a").first
    link.focus()
    console.flow.take("more-1", key="nobody")
    page.clock.run_for(5_100)
    expect(page.get_by_text("Not refreshed while a link below has the focus.")).to_be_visible()
    expect(link).to_be_focused()
    page.locator("h1").click()
    page.clock.run_for(100)
    expect(tile).to_have_text("3")
    expect(page.get_by_text("Not refreshed")).not_to_be_visible()


def test_a_refresh_waits_for_the_release_of_the_mouse(console, visit):
    """New content could move a link away between the press and the release of the mouse: it waits for the release."""
    page = visit(console)
    page.clock.install()
    page.reload()
    tile = page.locator(".tile", has_text="parked").locator(".tile-count")
    before = tile.inner_text()
    page.locator("h1").hover()
    page.mouse.down()
    console.flow.take("more-1", key="nobody")
    page.clock.run_for(10_100)
    page.wait_for_timeout(200)
    assert tile.inner_text() == before
    page.mouse.up()
    page.clock.run_for(5_100)
    expect(tile).to_have_text("3")


def test_a_pending_refresh_does_not_move_the_focus(console, visit):
    """A link keeps a focus that it gets while new content is on its way. Otherwise a click on it would be lost."""
    page = visit(console)
    page.clock.install(time=0)
    page.clock.pause_at(1_000)  # otherwise a refresh could begin before the test waits for its request
    page.reload()
    link = page.locator(".tile a").first
    asked = []
    page.route("**/console/live", lambda route: asked.append(route))  # noqa: PLW0108 (Playwright sets attributes)
    with page.expect_request("**/console/live"):
        page.clock.run_for(5_100)
    link.focus()
    with page.expect_response("**/console/live"):
        asked[0].continue_()
    expect(page.get_by_text("Not refreshed while a link below has the focus.")).to_be_visible()
    expect(link).to_be_focused()


def test_pages_are_complete_without_scripts(console, visit):
    """Without scripts every page is complete: times are in UTC, and the overview has a reload link."""
    page = visit(console, scripts=False)
    assert page.get_by_role("link", name="Reload").is_visible()
    assert not page.locator("button.live-button").is_visible()
    assert re.search(r"As of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", page.locator("#live").inner_text())
    page.get_by_role("link", name="Events", exact=True).click()
    page.get_by_label("Flow instance id").fill("4711")
    page.get_by_role("button", name="Search").click()
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_have_text(re.compile("Event 4711"))


def test_times_are_shown_in_the_zone_of_the_browser(console, visit):
    """A script converts times to the browser's zone, which the page names."""
    page = visit(console, event_of(console))
    # These tests' clock starts at the beginning of 2026 in UTC, which is eight hours later in Shanghai.
    expect(page.locator("dl.facts")).to_contain_text("2026-01-01 08:00:00")
    expect(page.locator("footer")).to_contain_text("Asia/Shanghai")
    expect(page.locator("main")).not_to_contain_text("UTC", use_inner_text=True)


@pytest.mark.parametrize(("zone", "shown"), [("Asia/Shanghai", "08:00"), ("America/New_York", "19:00")])
def test_a_displayed_time_is_valid_search_input(console, visit, zone, shown):
    """A displayed time, entered in the search, finds the event; the parsed time is shown in its zone and in UTC."""
    day = "2026-01-01" if zone == "Asia/Shanghai" else "2025-12-31"
    understood = f"Interpreted as {day} {shown}:00 {zone} = 2026-01-01 00:00:00 UTC"
    page = visit(console, "/events?flow=4711", zone=zone)
    assert page.locator("tbody a").first.inner_text() == f"{day} {shown}:00"
    page.get_by_label("Received since").fill(f"{day}T{shown}")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".understood")).to_have_text(understood)
    # The same search, submitted unchanged, has the same result.
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.locator(".understood")).to_have_text(understood)
    page.get_by_label("Received before").fill(f"{day}T{shown}")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".empty")).to_be_visible()


def test_an_address_means_the_same_in_another_zone(console, visit):
    """A search sent from Shanghai means the same moment in New York."""
    page = visit(console, "/events?flow=4711&since=2026-01-01T08:00&zone=Asia/Shanghai", zone="America/New_York")
    assert page.get_by_label("Received since").input_value().startswith("2025-12-31T19:00")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)


def test_times_without_scripts_are_in_utc(console, visit):
    """Without scripts times are shown and parsed in UTC."""
    page = visit(console, "/events?flow=4711", scripts=False)
    page.get_by_label("Received since").fill("2026-01-01T00:00")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.locator(".understood").inner_text() == "Interpreted as 2026-01-01 00:00:00 UTC"


def test_a_search_has_a_short_address_and_pages_both_ways(console, visit):
    """Empty fields are not in the address; older and newer pages work in both directions, also by the back button.

    A search in a new tab leaves the fields as they are.
    """
    page = visit(console, "/events")
    page.get_by_label("Process definition key").fill("contract")
    page.get_by_label("State").select_option("succeeded")
    page.keyboard.press("Tab")
    with page.context.expect_page() as tab:
        page.get_by_role("button", name="Search").click(modifiers=["Control"])
    tab.value.wait_for_url("**/console/events?key=contract&state=succeeded")
    tab.value.close()
    expect(page.get_by_label("Business key")).to_be_enabled()
    page.get_by_role("button", name="Search").click()
    expect(page).to_have_url(f"http://{console.address}/console/events?key=contract&state=succeeded")
    expect(page.locator("tbody tr")).to_have_count(50)
    page.wait_for_load_state()  # the page's script replaces the times
    first = page.locator("tbody tr").first.inner_text()
    page.get_by_role("link", name="Older").first.click()
    expect(page.locator("tbody tr")).to_have_count(5)
    page.wait_for_load_state()
    page.go_back()
    expect(page.locator("tbody tr").first).to_have_text(first, use_inner_text=True)
    expect(page.get_by_label("Process definition key")).to_be_enabled()
    expect(page.get_by_label("Process definition key")).to_have_value("contract")


def test_the_language_switch(console, visit):
    """A click changes the language of this page and of later ones."""
    page = visit(console, "/events?state=parked")
    page.get_by_role("link", name="中文").click()
    expect(page.locator("h1")).to_have_text("事件")
    expect(page).to_have_url(re.compile("state=parked"))
    page.get_by_role("link", name="处理器", exact=True).click()
    expect(page.locator("h1")).to_have_text(re.compile("处理器"))
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    page.get_by_role("link", name="English").click()
    expect(page.locator("h1")).to_have_text("Handlers and plugins")


def test_keyboard_navigation(console, visit):
    """The first tab skips the navigation, and the focus is visible."""
    page = visit(console, "/events")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "f-q"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.fixture
def guarded(harness, serve):
    """A console with a login."""
    operators = {"li": OperatorSettings(role="operate", password=hash_password("correct horse battery"))}
    return serve(harness.open(operators=operators))


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (("en-GB", "light", 1280), ("Name", "Password", "Log in", "Wrong name or password.", "Log out")),
        (("zh-CN", "dark", 360), ("用户名", "密码", "登录", "用户名或密码错误。", "退出登录")),
    ],
)
def test_logging_in_and_out(guarded, visit, looks, words):
    """A wrong password is reported; the right one leads to the requested page; then the operator logs out."""
    locale, scheme, width = looks
    name, password, log_in, wrong, log_out = words
    page = visit(guarded, "/events?state=dead", locale=locale, scheme=scheme, width=width)
    for given, shown in (("wrong", wrong), ("correct horse battery", log_out)):
        assert browsers.violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.get_by_label(name, exact=True).fill("li")
        page.get_by_label(password, exact=True).fill(given)
        page.get_by_role("button", name=log_in, exact=True).click()
        expect(page.get_by_text(shown)).to_be_visible()
    assert page.url.endswith("/console/events?state=dead")
    assert page.evaluate("document.cookie") == ""
    assert browsers.violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name=log_out).click()
    page.wait_for_url("**/console/login")
    page.go_back()
    expect(page.get_by_label(password, exact=True)).to_be_visible()


def test_the_overview_requests_a_login_after_the_session_has_ended(guarded, visit):
    """After the session has ended, the overview requests a login instead of reporting an unreachable server."""
    page = visit(guarded)
    page.get_by_label("Name").fill("li")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.clock.install()
    page.reload()
    guarded.flow.sql("DELETE FROM sessions")
    page.clock.run_for(5_100)
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_form_of_another_site_is_rejected(guarded, visit):
    """A form of another site is refused in a real browser, and the session of the operator stays."""
    page = visit(guarded)
    page.get_by_label("Name").fill("li")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    evil = page.context.new_page()
    evil.route(
        "http://evil.example/",
        lambda route: route.fulfill(
            content_type="text/html",
            body=f'<form method="post" action="http://{guarded.address}/console/logout"><button>go</button></form>',
        ),
    )
    evil.goto("http://evil.example/")
    evil.get_by_role("button").click()
    expect(evil.get_by_text("Nothing was changed")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_the_origin_is_accepted_without_tls_from_another_machine(harness, serve, visit):
    """Under a name that is not loopback, browsers send only a form's origin; the console's own is accepted."""
    address = elsewhere()
    operators = {"li": OperatorSettings(role="operate", password=hash_password("correct horse battery"))}
    console = serve(harness.open(operators=operators, admin="0.0.0.0:8081"), listen="0.0.0.0:0")
    console.address = f"{address}:{console.address.rpartition(':')[2]}"
    page = visit(console)
    page.get_by_label("Name").fill("li")
    page.get_by_label("Password").fill("correct horse battery")
    with page.expect_request("**/login*") as asked:
        page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    sent = asked.value.all_headers()
    assert (sent["origin"], sent.get("sec-fetch-site")) == (f"http://{console.address}", None)


def elsewhere():
    """A non-loopback address of this machine, found without sending anything."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return probe.getsockname()[0]
