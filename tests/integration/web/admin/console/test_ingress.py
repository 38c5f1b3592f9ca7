"""The console with senders that have a fixed URL: their events, and the requests that were ignored."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import pytest
from playwright.sync_api import expect

from flowhooks.errors import IdentityConflict
from flowhooks.settings import IngressSettings, Source, ValueTable
from flowhooks.web.admin.console.texts import text
from support import browsers, ingress

pytestmark = pytest.mark.sqlite


@pytest.fixture
def flow(harness, listens):
    """A flow with an event of the fixed URL of a source, and one of a callback."""
    flow = harness.open(listens(lambda event: None))
    ingress.take(flow, "fixed", processDefinitionKey="leave")
    flow.take("called")
    return flow


def path_of(console, instance):
    """The path of the event of an instance."""
    return f"/events/{console.flow.events(flow_instance_id=instance)[0]}"


def test_the_origin_and_the_trace_of_an_event(flow, serve):
    """The page has the fixed URL and the trace in both languages, and neither for a callback."""
    console = serve(flow)
    page = console.page(path_of(console, "fixed")).text
    assert "Origin request to the fixed URL /in/yudao" in page
    assert f"Trace (traceparent) {ingress.TRACEPARENT}" in page
    chinese = console.page(path_of(console, "fixed"), "zh").text
    assert "由来 发往固定 URL 的请求 /in/yudao" in chinese
    assert f"链路（traceparent） {ingress.TRACEPARENT}" in chinese
    page = console.page(path_of(console, "called")).text
    assert "traceparent" not in page
    assert "Origin" not in page


def test_events_are_filtered_by_origin(flow, serve):
    """The filter offers the origin, and finds the events of fixed URLs only."""
    console = serve(flow)
    page = console.page("/events?origin=ingress")
    assert "request to the fixed URL" in page.text
    assert path_of(console, "fixed") in " ".join(page.links())
    assert path_of(console, "called") not in " ".join(page.links())
    assert "发往固定 URL 的请求" in console.page("/events", "zh").text


def test_events_are_filtered_by_trace(flow, serve):
    """The page of an event leads to all events of its trace; an invalid trace id is explained in both languages."""
    console = serve(flow)
    trace_id = ingress.TRACEPARENT[3:35]
    assert f"/console/events?trace_id={trace_id}" in console.page(path_of(console, "fixed")).links()
    links = " ".join(console.page(f"/events?trace_id={trace_id}").links())
    assert path_of(console, "fixed") in links
    assert path_of(console, "called") not in links
    assert "A trace id has 32 digits" in console.page("/events?trace_id=x").text
    assert "链路 ID 应为 32 位" in console.page("/events?trace_id=x", "zh").text


HOSTILE = "</pre><script>document.title = 'pwned'</script>\u202e"
LONG = "a-rule-without-any-place-to-break-" * 3


@pytest.fixture
def console(harness, serve, listens, make_plugin):
    """A console with a source whose requests were ignored, one that a plugin reads, and one without a fixed URL."""
    mapped = IngressSettings(
        format="form",
        flow_instance_id=("/id",),
        kind=ValueTable(pointer="/status", values={"1": "ignore"}, other="complete"),
    )

    def receive_request(source, request):
        return None

    flow = harness.open(
        plugins={
            "p": make_plugin(listens(lambda event: None)),
            "dingtalk": make_plugin(receive_request=receive_request),
        },
        sources={
            "yudao": Source(token_sha256=("1" * 64,), ingress=mapped),
            "dd": Source(ingress=IngressSettings(receiver="dingtalk")),
            "erp": Source(token_sha256=("2" * 64,)),
        },
    )
    ingress.ignore(
        flow, "/status = 1", body="id=7&status=1", media_type="application/x-www-form-urlencoded", times=1200
    )
    flow.clock.advance(60)
    ingress.ignore(flow, f"/status = {HOSTILE}", body=HOSTILE + "x" * 3000)
    ingress.ignore(flow, LONG, body="")
    ingress.take(flow, "fixed", processDefinitionKey="leave", raw=f"id=fixed&more={HOSTILE}", media_type="text/odd")
    return serve(flow)


def test_an_event_shows_its_request_as_received(console):
    """The raw body is text and never markup, behind a summary, with its media type and a download of its own."""
    path = path_of(console, "fixed")
    page = console.page(path)
    assert "The settings of the source, or its receiver, made this body" in page.text
    assert "Request as received Content-Type: text/odd" in page.text
    assert "id=fixed&more=</pre><script>document.title = 'pwned'</script>" in page.text
    assert "As mapped" in page.text
    assert "As received" not in page.text
    answer = console.get(f"{path}/body?raw=1")
    assert answer.body.decode() == f"id=fixed&more={HOSTILE}"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].endswith('.txt"')
    assert console.get(f"{path}/body").body == b'{"processDefinitionKey":"leave"}'
    assert f"/console{path}/body?raw=1" in page.links()
    chinese = console.page(path, "zh").text
    assert "收到的请求原文 媒体类型（Content-Type）： text/odd" in chinese
    console.flow.take("called", source="erp")
    page = console.page(path_of(console, "called"))
    assert "As received" in page.text
    assert "Request as received" not in page.text


def test_a_conflict_at_a_fixed_url(console):
    """The page says that the other request was answered as a success."""
    with pytest.raises(IdentityConflict):
        ingress.take(console.flow, "fixed", processDefinitionKey="leave", businessKey="2", raw="b")
    page = console.page(path_of(console, "fixed")).text
    assert "They were answered as a success, because their sender must not fail" in page
    assert "409" not in page
    assert "已返回成功，请求体已保存" in console.page(path_of(console, "fixed"), "zh").text


def test_the_list_of_sources_shows_fixed_urls(console):
    """The list has the URL, the format or the plugin, and the number of ignored requests with a link to them."""
    page = console.page("/sources")
    assert "yudao /in/yudao form" in page.text
    assert "dd /in/dd read by the plugin dingtalk" in page.text
    assert "1,202" in page.text
    assert "/console/sources/yudao#ignored" in page.links()
    assert "/console/sources/dd#ignored" not in page.links()
    chinese = console.page("/sources", "zh").text
    assert "yudao /in/yudao 表单" in chinese
    assert "被忽略的请求" in chinese


def test_ignored_requests_of_a_source(console):
    """Each rule has its count, times and last body, which is text and never markup; a long body is cut with a note."""
    page = console.page("/sources/yudao")
    assert "/status = 1 Requests: 1,200. First:" in page.text
    assert "id=7&status=1" in page.text
    assert "Content-Type: application/x-www-form-urlencoded" in page.text
    assert "The first 2,000 of 3,048 characters. The whole body:" in page.text
    assert "flowhooks sources show yudao --body" in page.text
    assert HOSTILE.removesuffix("\u202e") in page.text
    assert "\u202e" not in page.text
    assert [tag for tag, _ in page.tags if tag == "script"] == [
        tag for tag, _ in console.page("/sources/erp").tags if tag == "script"
    ]
    chinese = console.page("/sources/yudao", "zh").text
    assert "请求数：1,200。 首次：" in chinese
    assert "此处仅显示前 2,000 个字符，共 3,048 个。" in chinese


def test_sources_without_ignored_requests(console):
    """A fixed URL without an ignored request says when one is counted; other sources have no such part."""
    assert "No request was ignored. A request is counted here if" in console.page("/sources/dd").text
    assert "没有被忽略的请求。" in console.page("/sources/dd", "zh").text
    assert "Ignored requests" not in console.page("/sources/erp").text


@pytest.mark.browser
@pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium")
@pytest.mark.parametrize("look", [("en-GB", "en", 1280, "light"), ("zh-CN", "zh", 360, "dark")])
def test_a_request_as_received_is_reached_by_two_clicks(console, visit, look):
    """From the list to the body of an ignored request by two clicks, and on the page of an event by one.

    No page scrolls sideways, and axe finds nothing.
    """
    from axe_playwright_python.sync_playwright import Axe

    locale, language, width, scheme = look
    page = visit(console, "/sources", width=width, scheme=scheme, locale=locale)

    def check():
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        violations = Axe().run(page).response["violations"]
        assert [(violation["id"], violation["nodes"][0]["html"]) for violation in violations] == []

    check()
    page.get_by_role("link", name="1,202").click()
    page.wait_for_url("**/console/sources/yudao#ignored")
    part = page.locator("section", has=page.locator("#ignored"))
    expect(part.locator("article")).to_have_count(3)
    summary = part.locator("article", has_text="/status = 1").locator("summary")
    expect(summary).to_have_text(text("ignored.body", language))
    summary.click()
    expect(part.get_by_text("id=7&status=1")).to_be_visible()
    for number, shown in ((0, HOSTILE[:6]), (1, text("ignored.empty", language))):
        part.locator("summary").nth(number).focus()
        page.keyboard.press("Enter")
        expect(part.locator("details").nth(number)).to_contain_text(shown)
        expect(part.locator("details").nth(number)).to_have_attribute("open", "")
    check()
    page.goto(f"/console{path_of(console, 'fixed')}")
    page.locator("summary", has_text=text("event.received_body", language)).click()
    expect(page.get_by_text("id=fixed&more=")).to_be_visible()
    check()
    assert "pwned" not in page.title()
