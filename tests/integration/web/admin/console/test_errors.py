"""The pages of error groups: failures and rejects are two groups, and one is replayed from its page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import expect

import flowhooks
from flowhooks import Reject, State, hookimpl
from support import browsers


@pytest.fixture
def console(harness, serve, listens, make_plugin):
    """A console with two failed orders, of which the ERP may take now, and a rejected one. A plugin wraps each call."""
    erp = SimpleNamespace(up=False)

    def post(order):
        raise ConnectionError(f"no answer for order {order}")

    def sync(event):
        if event.flow_instance_id == "wrong":
            raise Reject("order 'wrong' has no amount")
        if erp.up:
            return
        try:
            post(event.flow_instance_id)
        except ConnectionError as error:
            raise RuntimeError("the ERP <did> not take it") from error

    @hookimpl(wrapper=True)
    def run_handler():
        return (yield)

    flow = harness.open(plugins={"p": make_plugin(listens(sync)), "w": make_plugin(run_handler=run_handler)})
    for instance in ("order-1", "order-2", "wrong"):
        flow.take(instance)
    console = serve(flow)
    console.erp = erp
    return console


def group_of(console, instance):
    """The error group of an event's only delivery."""
    (event_id,) = console.flow.events(flow_instance_id=instance)
    return console.flow.only(event_id).error_group


@pytest.mark.either
def test_error_group_pages_in_both_languages(console):
    """The list has a row for each group, and the page of one has its numbers, its traceback and its chain of causes."""
    failed, rejected = group_of(console, "order-1"), group_of(console, "wrong")
    versions = ("1.0", "1.1", "1.2", "2.0")
    console.flow.sql("UPDATE error_groups SET first_seen_at = 0, versions = ?", json.dumps(versions))
    listed = console.page("/errors")
    assert failed == group_of(console, "order-2") != rejected
    for words in ("RuntimeError", "the ERP <did> not take it", "Reject", "order # has no amount", "dead 2", "dead 1"):
        assert words in listed.text
    assert {f"/console/errors/{failed}", f"/console/errors/{rejected}"} <= set(listed.links())
    assert "No failed attempt of this handler." in console.page("/errors?handler=p:other").text
    in_english = (
        "First seen: 1970-01-01 00:00:00 UTC",
        "1.0 … 2.0 (4)",
        "in the last 24 hours: 2, at most 2 in one hour",
    )
    in_chinese = ("首次出现： 1970-01-01 00:00:00 UTC", "1.0 … 2.0 (4)", "最近 24 小时出现 2 次")  # noqa: RUF001 (Chinese)
    for language, texts in (("en", in_english), ("zh-CN", in_chinese)):
        listed = console.page("/errors", language)
        assert [listed.text.count(words) for words in texts] == [2, 2, 1]
    assert "未完成的投递" in listed.text
    for language, *texts in (
        (
            "en",
            "Chain of causes",
            "directly caused",
            in_english[2],
            "First seen 1970",
            "Plugin versions 1.0, 1.1, 1.2, 2.0",
        ),
        ("zh-CN", "异常链", "直接导致", in_chinese[2], "首次出现 1970", "插件版本 1.0, 1.1, 1.2, 2.0"),
    ):
        shown = console.page(f"/errors/{failed[:8]}", language)
        for words in (*texts, "ConnectionError: no answer for order order-", "raise RuntimeError(", ":sync"):
            assert words in shown.text
    (to_do,) = console.page(f"/errors/{failed}").to_do("replay")
    assert f"error_group={failed}" in to_do
    assert console.get("/errors/00000000").status == 404
    assert console.get("/errors/%00%ff").status == 404


@pytest.mark.either
def test_frames_of_flowhooks_are_folded(console):
    """The frames of flowhooks are in a part that is opened on demand; those of the plugin are in view."""
    page = console.get(f"/errors/{group_of(console, 'order-1')}").body.decode()
    folded = re.findall("<details>.*?</details>", page, re.DOTALL)
    assert re.search("<summary>... [0-9]+ frames of flowhooks &amp; pluggy</summary>", folded[0])
    own_frame = str(Path(flowhooks.__file__).parent)
    assert (own_frame in folded[0], "raise RuntimeError(" in folded[0]) == (True, False)
    in_view = page.replace(folded[0], "")
    assert (own_frame in in_view, "raise RuntimeError(" in in_view) == (False, True)


@pytest.mark.either
def test_the_overview_links_to_the_error(console):
    """An error that the overview names as failing now is a link to the page of the error."""
    shown = {f"/console/errors/{group_of(console, instance)}" for instance in ("order-1", "wrong")}
    assert shown <= set(console.page("/").links())


@pytest.mark.either
def test_events_are_filtered_and_replayed_by_their_error(console):
    """The list of events names the error with a link, and a replay of a filtered list runs the group only."""
    failed, rejected = group_of(console, "order-1"), group_of(console, "wrong")
    everything = console.page("/events")
    assert everything.links().count(f"/console/errors/{failed}") == 2
    assert "RuntimeError: the ERP <did> not take it" in everything.text
    page_of_error = console.page(f"/events?error_group={failed[:8]}")
    assert ("order-1" in page_of_error.text, "wrong" in page_of_error.text) == (True, False)
    (link,) = [
        link for link in page_of_error.links() if f"/{console.flow.events(flow_instance_id='order-2')[0]}?" in link
    ]
    assert "Next in the list: order-1" in console.get(link, root="").page.text
    assert "No matching events." in console.page("/events?error_group=00000000").text
    wrong = console.page("/events?error_group=x")
    assert "An error group is the id of a group" in wrong.text
    console.erp.up = True
    (address,) = console.page(f"/errors/{failed}").to_do("replay")
    answer, asking = console.act(address)
    assert "Deliveries to replay: 2" in asking.text
    assert "Error group" in asking.text
    assert answer.status == 303
    console.flow.settled(console.flow.events(flow_instance_id="order-2")[0], State.SUCCEEDED)
    console.flow.settled(console.flow.events(flow_instance_id="order-1")[0], State.SUCCEEDED)
    assert console.flow.only(console.flow.events(flow_instance_id="wrong")[0]).error_group == rejected
    on_overview = console.page("/").links()
    assert [f"/console/errors/{group}" in on_overview for group in (failed, rejected)] == [False, True]


@pytest.mark.browser
@pytest.mark.sqlite
@pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell")
@pytest.mark.parametrize(("width", "scheme", "locale"), [(360, "dark", "zh-CN"), (1280, "light", "en-GB")])
def test_an_error_group_is_replayed_in_a_browser(console, visit, width, scheme, locale):
    """From the list of errors, three clicks replay one kind of failure; no page is too wide, and axe finds nothing."""
    console.erp.up = True
    words = {"zh-CN": ("错误", "重放"), "en-GB": ("Errors", "Replay")}[locale]
    page = visit(console, "/", width=width, scheme=scheme, locale=locale)
    page.get_by_role("navigation").get_by_role("link", name=words[0], exact=True).click()
    page.wait_for_url("**/console/errors")
    for step in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert browsers.violations(page) == []
        if step == 0:
            page.get_by_role("link", name="RuntimeError").click()
            page.wait_for_url("**/console/errors/*")
    page.get_by_role("button", name=words[1], exact=True).click()
    expect(page.locator(".would")).to_contain_text("2")
    page.get_by_role("button", name=words[1], exact=True).click()
    expect(page.locator(".o-finished")).to_be_visible()
    for instance in ("order-1", "order-2"):
        console.flow.settled(console.flow.events(flow_instance_id=instance)[0], State.SUCCEEDED)
