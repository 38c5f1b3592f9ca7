"""The console of a restricted role in a real browser: what it offers works, in both languages and on a phone."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from flowhooks import Reject
from flowhooks.settings import MaskingSettings, OperatorSettings, RoleSettings
from flowhooks.web.admin.passwords import hash_password
from support import browsers

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sqlite,
    pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell"),
]

PASSWORD = "correct horse battery"


@pytest.fixture
def console(harness, serve, make_plugin, listens):
    """A console with an operator whose role has one plugin and sees no salaries."""

    def book(event):
        raise Reject(f"cannot book {event.data['salary']}")

    plugins = {name: make_plugin(listens(book, process_key=name)) for name in ("pay", "secretive")}
    flow = harness.open(
        plugins=plugins,
        operators={"li": OperatorSettings(role="payments", password=hash_password(PASSWORD))},
        roles={"payments": RoleSettings(may="operate", plugins=("pay",), masked=True)},
        masking=MaskingSettings(fields=("/salary",)),
    )
    for name in ("pay", "secretive"):
        flow.take(f"{name}-1", key=name, salary="confidential")
    return serve(flow)


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (("en-GB", "light", 1280), ("Name", "Password", "Log in", "Pause", "does not allow this")),
        (("zh-CN", "dark", 360), ("用户名", "密码", "登录", "暂停", "您的角色不允许此操作")),
    ],
)
def test_links_and_buttons_of_a_restricted_role_work(console, visit, looks, words):
    """Each link of the navigation opens a page without a trace of the other plugin, and a click pauses a handler."""
    locale, scheme, width = looks
    name, password, log_in, pause, refused = words
    page = visit(console, "/", locale=locale, scheme=scheme, width=width)
    page.get_by_label(name, exact=True).fill("li")
    page.get_by_label(password, exact=True).fill(PASSWORD)
    page.get_by_role("button", name=log_in, exact=True).click()
    page.wait_for_url("**/console/handlers")
    expect(page.locator(".who")).to_contain_text("payments")
    places = [link.get_attribute("href") for link in page.locator("nav ul").first.locator("a").all()]
    assert places == [f"/console/{place}" for place in ("events", "handlers", "operations", "alerts", "audit")]
    for place in [*places, "/console/events?state=dead"]:
        page.goto(place)
        assert page.locator("main").is_visible()
        assert "secretive" not in page.content()
        assert "confidential" not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert browsers.violations(page) == []
    page.locator("tbody a").first.click()
    expect(page.locator("main")).to_contain_text("•••")
    assert "confidential" not in page.content()
    assert browsers.violations(page) == []
    page.goto("/console/handlers")
    page.get_by_role("link", name=pause, exact=True).click()
    page.locator("form.confirm button").first.click()
    page.wait_for_url("**/console/handlers")
    assert console.flow.sql("SELECT id FROM handlers WHERE paused_at IS NOT NULL") == [("pay:book",)]
    page.goto("/console/parked")
    expect(page.get_by_role("heading", name=refused)).to_be_visible()
    assert browsers.violations(page) == []
