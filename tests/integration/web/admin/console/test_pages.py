"""The pages over a real socket: each exists in both languages with its content only."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from flowhooks import Reject, Retry, State, hookimpl
from flowhooks.clock import SECOND
from flowhooks.errors import IdentityConflict, LedgerUnusable
from flowhooks.ledger import alert_queries, circuit_state, stats
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.acknowledge import acknowledge
from flowhooks.operations.bulk import plan_operation
from flowhooks.operations.context import Actor
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.purge import purge
from flowhooks.operations.record_backup import record_backup
from flowhooks.operations.reroute import reroute
from flowhooks.operations.resolve import Resolution, resolve
from flowhooks.web.admin.console import audit, events, handlers, parked, rejected_requests
from support.run_bulk import replay
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

PAGES = (
    "/",
    "/live",
    "/events",
    "/errors",
    "/handlers",
    "/parked",
    "/sources",
    "/engines",
    "/rejected-requests",
    "/alerts",
    "/audit",
    "/storage",
)


@pytest.fixture
def busy(harness, serve, listens, make_plugin):
    """A console with data of every kind."""

    def archive(event):
        """Move it into the archive."""
        if event.business_key == "B-bad":
            raise Reject("no such contract")
        if event.business_key == "B-later":
            raise RuntimeError("the archive sleeps")
        return {"archived": event.business_key}

    def broken():
        raise ValueError("payroll needs a table")

    flow = harness.open(
        plugins={
            "contracts": make_plugin(
                listens(archive, process_key="contract", retry=Retry(attempts=3)),
                listens(lambda event: None, name="idle", callback_class="com.example.Idle", concurrency=2, rate="10/s"),
            ),
            "payroll": SimpleNamespace(handlers=hookimpl(broken)),
        }
    )
    flow.take("4711", key="contract", businessKey="B-1", processDefinitionVersion=3)
    flow.take("4712", key="contract", businessKey="B-bad")
    flow.take("4713", key="contract", businessKey="B-later", wait=0)
    flow.take("4714", key="leave", callback_class="com.example.Leave")
    flow.take("4711", key="contract", businessKey="B-1", processDefinitionVersion=3)
    with pytest.raises(IdentityConflict):
        flow.take("4711", key="contract", businessKey="B-other")
    flow.settled(flow.events(flow_instance_id="4713")[0], State.WAITING, attempt=1)
    return serve(flow)


def test_every_page_in_both_languages(busy):
    """Each page is complete in the browser's language, with one heading and protective headers."""
    for path in PAGES:
        english, chinese = busy.page(path, "en-GB"), busy.page(path, "zh-CN,zh;q=0.9")
        if path != "/live":
            for page, language in ((english, "en"), (chinese, "zh-CN")):
                tags = [tag for tag, _ in page.tags]
                assert dict(page.tags)["html"]["lang"] == language
                assert tags.count("h1") == tags.count("main") == 1
        assert re.search(r"[\u4e00-\u9fff]", chinese.text)
        assert not re.search(r"[\u4e00-\u9fff]", english.text.replace("中文", ""))


def test_no_page_has_inline_code_or_external_resources(busy):
    """No page has an inline script, style or handler, or an external address; the headers forbid them."""
    event = busy.flow.events(flow_instance_id="4711")[0]
    for path in (*PAGES, f"/events/{event}", "/nothing"):
        answer = busy.get(path)
        for tag, attributes in answer.page.tags:
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith("on")]
            assert tag not in {"style", "iframe", "object", "embed"}
            assert tag != "script" or attributes["src"].startswith("/console/static/")
            for name in ("href", "src", "action"):
                assert attributes.get(name, "/").startswith(("/console", "/", "#"))
                assert "//" not in attributes.get(name, "/")
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Referrer-Policy"] == "same-origin"


def test_no_link_is_broken(busy):
    """Every page can be reached from the overview, and no link is broken."""
    seen, left = set(), ["/console/"]
    while left:
        address = left.pop()
        if (address := address.partition("#")[0]) in seen or "lang=" in address or not address:
            continue
        seen.add(address)
        answer = busy.get(address, root="")
        assert answer.status == 200, address
        if answer.headers["Content-Type"].startswith("text/html"):
            left += answer.page.links()
    assert {address.partition("?")[0] for address in seen} >= {f"/console{path}" for path in PAGES if path != "/live"}
    assert len([address for address in seen if "/events/" in address]) > 4


def test_the_overview(busy):
    """The overview has the counts of open work, the longest waits, and the results of handlers."""
    text = busy.page("/").text
    assert "dead 1 oldest:" in text
    assert "parked 1 oldest:" in text
    assert "contracts:archive" in text
    assert "33.3 %" in text
    assert busy.page("/live").text.partition(" Outstanding ")[2] in busy.page("/").text
    charts = [attributes for tag, attributes in busy.page("/live").tags if tag == "svg"]
    assert len(charts) == 3
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
    assert "handler missing 0 none" in text
    busy.flow.sql("UPDATE deliveries SET due_at = NULL WHERE state = 'waiting'")
    assert "handler missing 1 oldest:" in busy.page("/").text
    assert "处理器缺失 1" in busy.page("/", "zh").text


def events_at(console, address):
    """The ids of the events that a list shows; those of the groups on the page of parked events."""
    links = console.get(address, root="").page.links()
    if address == "/console/parked":
        groups = [link for link in links if link.startswith("/console/events?")]
        return set().union(*(events_at(console, group) for group in groups))
    return {link.partition("?")[0] for link in links if link.startswith("/console/events/0")}


def test_each_tile_has_the_number_of_events_at_its_address(busy):
    """Each tile leads to what it counts; below *waiting* are those that its list has and the other tile counts."""
    flow = busy.flow
    flow.take("4715", key="contract", businessKey="B-later", wait=0)
    flow.settled(flow.events(flow_instance_id="4715")[0], State.WAITING, attempt=1)
    ours = flow.only(flow.events(flow_instance_id="4713")[0]).delivery_id
    flow.sql("UPDATE deliveries SET due_at = NULL WHERE id = ?", ours)
    tiles = re.findall(
        r'<li class="tile[^"]*">\s*<a href="([^"]+)">\s*<span class="tile-name">([^<]+)</span>\s*'
        r'<span class="tile-count">(\d+)</span>\s*</a>(.*?)</li>',
        busy.get("/live").body.decode(),
        re.DOTALL,
    )
    assert {name: int(number) for _, name, number, _ in tiles} == {
        "waiting": 1,
        "running": 0,
        "dead": 1,
        "unknown": 0,
        "handler missing": 1,
        "parked": 1,
    }
    for address, name, number, below in tiles:
        also = re.search(r"The list also has those of missing handlers: (\d+)", below)
        assert bool(also) == (name == "waiting")
        assert len(events_at(busy, address)) == int(number) + (int(also[1]) if also else 0), address
    assert "列表还包含处理器缺失的投递：1 个" in busy.page("/", "zh").text


def test_events_are_filtered_by_each_field(busy):
    """Each field of the form filters the list, is in the address, and is filled in again."""
    for query, instances in (
        ("", {"4711", "4712", "4713", "4714"}),
        ("flow=4711", {"4711"}),
        ("business_key=B-bad", {"4712"}),
        ("class=com.example.Leave", {"4714"}),
        ("key=contract&state=waiting", {"4713"}),
        ("handler=contracts:archive&state=dead", {"4712"}),
        ("state=parked", {"4714"}),
        ("since=2025-12-31&until=2026-01-02T00:00%2B08:00", {"4711", "4712", "4713", "4714"}),
        ("until=2025-12-31", set()),
        ("flow=%00%ff", set()),
    ):
        page = busy.page(f"/events?{query}")
        assert set(re.findall(r"\b471\d\b", page.text)) == instances, query
        filled = {attributes["name"]: attributes["value"] for tag, attributes in page.tags if tag == "input"}
        selected = {attributes["value"] for _, attributes in page.tags if "selected" in attributes}
        filled["handler"] = ""  # a list
        for part in filter(None, query.split("&")):
            name, _, value = part.partition("=")
            if name in {"since", "until"}:
                value = {"2025-12-31": "2025-12-31T00:00:00"}.get(value, "2026-01-01T16:00:00")
            assert "%" in value or name == "state" or filled[name] == value or value in selected


def test_events_are_filtered_by_plugin_version(busy):
    """The list shows what one version of a plugin ran last; the action beside it has the same filter."""
    busy.flow.sql("UPDATE attempts SET plugin_version = '2.0'")
    busy.flow.sql("UPDATE attempts SET plugin_version = '1.4' WHERE outcome = 'failed'")
    for query, instances in (
        ("ran_by=contracts%3D%3D2.0", {"4711", "4712"}),
        ("plugin=contracts%3D%3D1.4", {"4713"}),
        ("trigger=first&attempted_since=2025-12-31", {"4711", "4712", "4713"}),
        ("trigger=run-now", set()),
    ):
        assert set(re.findall(r"\b471\d\b", busy.page(f"/events?{query}").text)) == instances, query
    page = busy.page("/events?ran_by=contracts%3D%3D2.0&state=succeeded&attempted_since=52w")
    (address,) = page.to_do("replay_again")
    query = dict(parse_qsl(urlsplit(address).query))
    assert (query["ran_by"], query["state"]) == ("contracts==2.0", "succeeded")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", query["attempted_since"])
    shown = busy.get(address, root="").page.text
    assert "Plugin of the last attempt contracts==2.0" in shown
    assert "Deliveries to replay: 1" in shown or "succeeded deliveries" in shown.lower()
    wrong = busy.page("/events?plugin=a+b&trigger=again")
    assert "such as contracts==1.4" in wrong.text
    assert "Unknown reason" in wrong.text


def test_an_invalid_search_lists_nothing(busy):
    """An invalid search names the allowed values, and lists nothing."""
    page = busy.page("/events?since=soon&state=asleep")
    assert "Invalid date or time" in page.text
    assert "Unknown state" in page.text
    assert "4711" not in page.text
    assert [attributes["name"] for _, attributes in page.tags if "aria-invalid" in attributes] == ["state", "since"]


def test_times_are_parsed_in_the_submitted_zone(busy):
    """The parsed time is beside the field; links to older pages and actions have the same moments."""
    page = busy.page("/events?since=2025-12-31T09:09&until=2026-01-01T08:00:01&zone=Asia/Shanghai&key=contract")
    assert "Interpreted as 2025-12-31 09:09:00 Asia/Shanghai = 2025-12-31 01:09:00 UTC" in page.text
    assert "Interpreted as 2026-01-01 08:00:01 Asia/Shanghai = 2026-01-01 00:00:01 UTC" in page.text
    assert "4711" in page.text
    assert "4711" not in busy.page("/events?until=2026-01-01T08:00&zone=Asia/Shanghai").text
    assert "4711" in busy.page("/events?until=9999-12-31T23:59:59.999Z").text
    (address,) = page.to_do("replay")
    query = dict(parse_qsl(urlsplit(address).query))
    assert query["since"] == "2025-12-31T01:09:00+00:00"
    assert query["until"] == "2026-01-01T00:00:01+00:00"
    assert "zone" not in query
    # The recipient of the address sees the time in their own zone, and finds the same events.
    inputs = {attributes["name"]: attributes for tag, attributes in page.tags if tag == "input"}
    assert inputs["since"]["type"] == "datetime-local"
    assert (inputs["since"]["value"], inputs["zone"]["value"]) == ("2025-12-31T01:09:00", "UTC")
    assert inputs["since"]["data-instant"] == "2025-12-31T01:09:00.000Z"
    audit = busy.page("/audit?since=2025-12-31T09:09&zone=Asia/Shanghai")
    assert "Interpreted as 2025-12-31 09:09:00 Asia/Shanghai = 2025-12-31 01:09:00 UTC" in audit.text
    inputs = {attributes["name"]: attributes["value"] for tag, attributes in audit.tags if tag == "input"}
    assert (inputs["since"], inputs["zone"]) == ("2025-12-31T01:09:00+00:00", "UTC")
    assert "does not know this time zone" in busy.page("/audit?since=2025-12-31T09:09&zone=Nowhere/Land").text


def test_an_action_gets_an_interval_as_absolute_times(busy):
    """`2h` means the same in the list and in an action started from it."""
    (address,) = busy.page("/events?since=52w&key=contract&state=dead").to_do("replay")
    query = dict(parse_qsl(urlsplit(address).query))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", query["since"])


def test_addresses_of_pages_have_absolute_times(harness, serve):
    """The addresses of older and newer pages do not need the zone."""
    flow = harness.open()
    for number in range(60):
        flow.take(f"i{number}")
    page = serve(flow).page("/events?since=2026-01-01T08:00&zone=Asia/Shanghai")
    (older, _) = [link for link in page.links() if "before=" in link]
    assert "since=2026-01-01T00%3A00%3A00%2B00%3A00" in older


@pytest.mark.parametrize("path", ["/events", "/rejected-requests", "/audit"])
def test_all_pages_of_a_relative_search_start_at_one_time(harness, serve, monkeypatch, path):
    """`since=520w` means the same moment on each page of a list; the link to the other language repeats it."""
    for module in (audit, events, rejected_requests):
        monkeypatch.setattr(module, "PAGE_SIZE", 1)
    flow = harness.open(start=False)
    for number in range(3):
        flow.take(f"i{number}", wait=0)
        flow.app.rejected_requests.record(path=f"/{number}", address="", status=400, english="a", chinese="b")
        record_backup(replace(flow.app.operation_context, by=Actor("ann", "cli")))
    flow.app.rejected_requests.flush()
    console = serve(flow)
    first = console.page(f"{path}?since=520w")
    assert any("since=520w" in link for link in first.links())
    older = linked(first, "next")
    since = parse_qs(urlsplit(older).query)["since"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", since[0])
    second = console.get(older, root="").page
    assert parse_qs(urlsplit(linked(second, "next")).query)["since"] == since
    assert {"since": since} in [parse_qs(urlsplit(address).query) for address in second.links()]


def linked(page, relation):
    """The address of the next or the previous page of a list."""
    return next(attributes["href"] for _, attributes in page.tags if attributes.get("rel") == relation)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("since=2026-03-29T02:30&zone=Europe/Berlin", "does not exist in this time zone"),
        ("since=2026-03-29T02:30&zone=Nowhere/Land", "does not know this time zone"),
        ("since=2026-03-29T02:30&zone=../../etc/passwd", "does not know this time zone"),
        ("since=2026-03-29T02:30&zone=" + "x" * 5000, "does not know this time zone"),
        ("since=09:09&zone=Asia/Shanghai", "Invalid date or time"),
    ],
)
def test_invalid_times_are_reported(busy, query, says):
    """Each fault is reported, nothing is listed, and the input can be corrected."""
    page = busy.page(f"/events?{query}")
    assert says in page.text
    assert "4711" not in page.text
    (field,) = [attributes for _, attributes in page.tags if "aria-invalid" in attributes]
    assert (field["name"], field["type"]) == ("since", "text")
    assert query.partition("=")[2].startswith(field["value"])


def test_an_ambiguous_local_time_covers_both_hours(busy):
    """A local hour that occurs twice means its first start to its second end, with a note."""
    page = busy.page("/events?since=2026-10-25T02:30&until=2026-10-25T02:30&zone=Europe/Berlin")
    assert (
        "2026-10-25 02:30:00 Europe/Berlin = 2026-10-25 00:30:00 UTC This time occurs twice. The earlier one is used."
        in page.text
    )
    assert (
        "2026-10-25 02:30:00 Europe/Berlin = 2026-10-25 01:30:00 UTC This time occurs twice. The later one is used."
        in page.text
    )


def test_paging_through_events(harness, serve):
    """Older and newer links visit all pages and keep the filter."""
    flow = harness.open(start=False)
    for number in range(120):
        flow.take(f"i{number}", wait=0)
    console = serve(flow)
    found, address = [], "/console/events?key=leave"
    while address:
        page = console.get(address, root="").page
        found.append(re.findall(r"\bi\d+\b", page.text))
        address = next((attributes["href"] for tag, attributes in page.tags if attributes.get("rel") == "next"), None)
        assert address is None or "key=leave" in address
    assert [len(listing) for listing in found] == [50, 50, 20]
    assert [instance for several in found for instance in several] == [f"i{number}" for number in reversed(range(120))]
    back = next(attributes["href"] for tag, attributes in page.tags if attributes.get("rel") == "prev")
    assert re.findall(r"\bi\d+\b", console.get(back, root="").page.text) == found[1]


def test_the_page_of_an_event(busy):
    """The page has the route with reasons, repeats, attempts, and the original body, indented and as received."""
    (event,) = busy.flow.events(flow_instance_id="4711")
    text = busy.page(f"/events/{event}").text
    for shown in (event, "4711", "B-1", "key contract", "Attempt 1 succeeded", '"archived": "B-1"', "B-other"):
        assert shown in text
    assert "Identical callbacks received later 1" in text
    body = '{"processDefinitionKey": "contract", "businessKey": "B-1", "processDefinitionVersion": 3}'
    indented = '{ "processDefinitionKey": "contract", "businessKey": "B-1", "processDefinitionVersion": 3 }'
    for language, titles in (("en", ("Body, indented", "As received")), ("zh", ("请求体（缩进显示）", "原文"))):
        shown = busy.page(f"/events/{event}", language).text
        assert f"{titles[0]} {indented} {titles[1]} {body}" in shown
    (dead,) = busy.flow.events(flow_instance_id="4712")
    text = busy.page(f"/events/{dead}").text
    assert "no such contract" in text
    assert f"flowhooks events replay {dead} --handler contracts:archive" in text
    (waiting,) = busy.flow.events(flow_instance_id="4713")
    text = busy.page(f"/events/{waiting}").text
    assert "RuntimeError: the archive sleeps" in text
    assert "Traceback (most recent call last)" in text
    (parked,) = busy.flow.events(flow_instance_id="4714")
    command = "flowhooks routes --source=default --kind=complete --class=com.example.Leave --key=leave"
    assert command in busy.page(f"/events/{parked}").text
    # A delivery's id from the log leads to its event.
    delivery = busy.flow.only(event).delivery_id
    assert event in busy.page(f"/events/{delivery}").text


def test_an_attempt_shows_its_trigger_and_its_operator(busy):
    """Each attempt names the plugin, its digest, why it started and who asked for it; a bulk operation is a link."""
    (dead,) = busy.flow.events(flow_instance_id="4712")
    ann = replace(busy.flow.app.operation_context, by=Actor("ann", "console"))
    planned = plan_operation(ann, BulkAction.REPLAY, EventFilter(ids=(dead,))).id
    operation = replay(ann, EventFilter(ids=(dead,))).id
    busy.flow.settled(dead, State.DEAD, attempt=2)
    page = busy.page(f"/events/{dead}")
    assert f"/console/operations/{planned}" not in page.links()
    assert f"Operations that acted on it: {operation}" in page.text
    assert re.search(r"contracts [0-9a-f]{12} · first attempt", page.text)
    assert "replay by ann · bulk operation" in page.text
    assert f"/console/operations/{operation}" in page.links()
    assert re.search("重放 操作人： ?ann", busy.page(f"/events/{dead}", "zh").text)


def test_details_of_actions_are_names_and_values(busy):
    """The audit log shows the details of an action as names and values in the language of the page, and no JSON."""
    ann = replace(busy.flow.app.operation_context, by=Actor("ann", "console"))
    replay(ann, EventFilter(handler="contracts:archive", state="dead", until=busy.flow.clock.now() + 1))
    page = busy.page("/audit?action=operation")
    for name, value in (
        ("Change", "started"),
        ("Action", "Replay dead deliveries"),
        ("Deliveries", "1"),
        ("Handler", "contracts:archive"),
        ("State", "dead"),
        ("Received before", "2026-01-01 00:00:00 UTC"),
    ):
        assert f"{name} {value}" in page.text
    assert "{" not in page.text
    chinese = busy.page("/audit?action=operation", "zh").text
    assert "变更 已开始" in chinese
    assert "状态 最终失败" in chinese


def test_an_event_lists_the_actions_of_operators(busy):
    """The page lists operator, interface, action and note, newest first, if there were any."""
    (dead,) = busy.flow.events(flow_instance_id="4712")
    (parked,) = busy.flow.events(flow_instance_id="4714")
    assert not any("/audit?target=" in link for link in busy.page(f"/events/{parked}").links())
    desk = replace(busy.flow.app.operation_context, by=Actor("ann", "console"))
    dismiss(desk, EventFilter(ids=(parked,)), note="sent by a test")
    reroute(replace(desk, by=Actor("bob", "cli")), EventFilter(ids=(parked,)))
    resolve(desk, busy.flow.only(dead).delivery_id, Resolution.CLOSE, note="by hand")
    text = busy.page(f"/events/{parked}").text
    assert re.search(r"bob on the command line .* ann in the console .* sent by a test", text)
    assert "by hand" in busy.page(f"/events/{dead}").text
    assert re.search(r"ann 控制台", busy.page(f"/events/{parked}", "zh").text)


def test_an_acknowledged_alert_shows_its_operator(busy):
    """An acknowledged alert shows its operator, comes after the others, and does not count in the overview."""
    busy.flow.app.alerts.poll()
    with busy.flow.app.ledger.connection() as connection:
        found = alert_queries.open_alerts(connection)
    assert f"{len(found)} unacknowledged alert" in busy.page("/").text
    first = found[0]
    assert len(busy.page("/alerts").to_do("acknowledge")) == len(found)
    acknowledge(replace(busy.flow.app.operation_context, by=Actor("ann", "console")), [first.id])
    page = busy.page("/alerts")
    assert len(page.to_do("acknowledge")) == len(found) - 1
    assert re.search(r"\bann 20", page.text)
    chinese = busy.page("/alerts", "zh").text
    assert "已确认" in chinese
    assert re.search(r"处理器 contracts:archive 有 1 个投递最终失败，最早始于 \S+ \S+ UTC ?。请排除原因", chinese)
    assert "is dead" not in chinese
    assert re.search(r"最早：\S+ (微秒|毫秒|秒|分钟|小时|天)", busy.page("/", "zh").text)
    left = len(found) - 1
    assert (f"{left} unacknowledged alert" in busy.page("/").text) == (left > 0)


def test_the_body_is_downloaded_unchanged(busy):
    """The download is the original body, byte for byte, and browsers do not show it as a page."""
    (event,) = busy.flow.events(flow_instance_id="4711")
    answer = busy.get(f"/events/{event}/body")
    assert answer.body.decode() == busy.flow.app.ledger.event(event).body
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{event}.json"'
    assert busy.get("/events/none/body").status == 404


def test_handlers_and_plugins(busy):
    """A quarantined plugin comes first with its traceback; a handler without callbacks is marked."""
    text = busy.page("/handlers").text
    assert text.index("payroll quarantined") < text.index("contracts loaded")
    assert "ValueError: payroll needs a table" in text
    assert "Traceback (most recent call last)" in text
    idle = text.index("contracts:idle")
    assert text.index("no recent calls") > idle
    assert "Move it into the archive." in text
    assert "key contract" in text
    assert "at most 2 at a time starts at most 10/s" in text
    assert "最多同时执行 2 个 最多启动 10/s" in busy.page("/handlers", "zh").text
    assert "payroll" not in busy.page("/handlers?q=idle").text
    assert "No matching plugins." in busy.page("/handlers?q=none-of-them").text


def test_many_handlers_are_paged(harness, serve, listens, monkeypatch):
    """A page has a limited number of handlers; the next ones are on the next page."""
    monkeypatch.setattr(handlers, "PAGE_SIZE", 2)
    console = serve(harness.open(*[listens(lambda event: None, name=f"h{number}") for number in range(5)]))
    found, address = [], "/console/handlers"
    while address:
        page = console.get(address, root="").page
        found += re.findall(r"p:h\d", page.text)
        address = next((attributes["href"] for tag, attributes in page.tags if attributes.get("rel") == "next"), None)
    assert found == [f"p:h{number}" for number in range(5)]


def test_pages_state_the_limit_of_counts(harness, serve, listens, monkeypatch):
    """If there is more open or parked work than is counted, the page says so."""
    flow = harness.open(listens(lambda event: None, name="h"), start=False)
    for number in range(3):
        flow.take(f"w{number}", wait=0)
        flow.take(f"p{number}", key="nobody")
    console = serve(flow)
    for most, said in ((4, False), (3, True)):
        monkeypatch.setattr(stats, "MAX_GROUPED", most)
        monkeypatch.setattr(parked, "MAX_GROUPED", most)
        shown = console.page("/handlers").text
        assert (f"At most {most} of each kind are counted" in shown) == said
        assert ("≥ 3" in shown) == said
        assert (f"Only the oldest {most} are counted" in console.page("/parked").text) == said
        assert (f"At most {most} of each kind are counted" in console.page("/handlers/p:h").text) == said
    flow.take("p3", key="nobody")
    monkeypatch.setattr(stats, "MAX_GROUPED", 4)
    assert "At most 4 of each kind are counted" in console.page("/handlers").text, "no handler takes the parked ones"


def test_a_blocked_delivery_links_to_the_blocking_event(harness, serve, listens):
    """A blocked delivery links to the blocking event; other deliveries have a time."""

    def change(event):
        raise RuntimeError("not yet")

    flow = harness.open(listens(change, order_by="business_key", retry=Retry(attempts=3)))
    first = flow.take("1", wait=0, businessKey="k").event_id
    flow.settled(first, State.WAITING, attempt=1)
    held = [flow.take(instance, wait=0, businessKey="k").event_id for instance in ("2", "3")]
    console = serve(flow)
    for event_id in held:
        page = console.page(f"/events/{event_id}")
        assert f"Blocked by an earlier event with the same order key: {first}" in page.text
        assert "Attempt 1" not in page.text
        assert f"/console/events/{first}" in page.links()
        assert "正在等待同一排序键的前一事件" in console.page(f"/events/{event_id}", "zh-CN").text
    text = console.page(f"/events/{first}").text
    assert "Attempt 2 of 3, in 5" in text
    assert "Blocked by" not in text


def test_parked_events_are_grouped(harness, serve, listens):
    """Parked events are grouped by what they wait for, with similar names."""
    flow = harness.open(listens(lambda event: None, name="h", process_key="contract"), start=False)
    for number in range(3):
        flow.take(f"i{number}", key="Contract", processDefinitionVersion=7)
    flow.take("other", key=None, callback_class="com.example.Unknown")
    text = serve(flow).page("/parked").text
    assert "key Contract v7" in text
    assert text.index("com.example.Unknown") > text.index("key Contract")
    assert "key 'contract' differs only in case or white space" in text


def test_an_alert_shows_its_growth(busy):
    """The page has the count of the last check, the growth since the last notification, and the last error."""
    busy.flow.app.alerts.stop(WAIT_TIMEOUT)
    busy.flow.app.alerts.poll()
    busy.flow.sql(
        "UPDATE alerts SET count = 3220, notified_count = 20, last_error = 'ErpUnavailable <b>503</b>',"
        " notifications = 3, notified = '[\"mail\"]' WHERE cause = 'dead'"
    )
    page = busy.page("/alerts")
    assert "3,220 (+3,200 since the last notification)" in page.text
    assert "Last error: ErpUnavailable <b>503</b>" in page.text
    assert "mail 3 times" in page.text
    chinese = busy.page("/alerts", "zh").text
    assert "上次通知后新增 3,200" in chinese
    assert "最近的错误" in chinese


def test_undelivered_notifications_are_counted(busy):
    """The overview and the page of alerts count the notifications that a plugin could not deliver, with the error."""
    busy.flow.app.alerts.stop(WAIT_TIMEOUT)
    busy.flow.app.alerts.poll()
    busy.flow.sql("""UPDATE alerts SET notification_errors = '{"mail": "smtp <b>down</b>"}' WHERE cause = 'dead'""")
    for path in ("/", "/alerts"):
        text = busy.page(path).text
        assert re.search("1 notification could not be delivered, and is sent again: mail ?: smtp <b>down</b>", text)
        assert re.search("1 条通知未能送达，稍后重发： mail ?: smtp <b>down</b>", busy.page(path, "zh").text)
    assert re.search("Not delivered by mail ?: smtp <b>down</b>", busy.page("/alerts").text)


def test_an_alert_has_the_next_step_and_a_link(busy, eventually):
    """An open alert has the next step and a link to its object."""
    eventually(lambda: busy.flow.sql("SELECT 1 FROM alerts WHERE cause = 'dead'"))
    page = busy.page("/alerts")
    assert "dead contracts:archive" in page.text
    assert "run flowhooks events replay --handler contracts:archive" in page.text
    assert "/console/events?state=dead&handler=contracts%3Aarchive" in page.links()
    for language, sentence in (("en", "the first since"), ("zh", "最早始于")):
        body = busy.get("/alerts", Accept_Language=language).body.decode()
        assert re.search(rf'{sentence} <time datetime="[0-9T:.-]+Z">[0-9-]+ [0-9:]+ UTC</time>', body)


def test_the_language_is_remembered(busy):
    """The switch keeps the page, and a cookie keeps the choice against the browser's own."""
    page = busy.page("/events?state=dead&since=2025-01-01")
    (switch,) = [link for link in page.links() if "lang=" in link]
    assert "state=dead" in switch
    assert "since=2025-01-01" in switch
    answer = busy.get(switch, root="")
    assert "投递" in answer.page.text
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "总览" in busy.get("/", Cookie=cookie.partition(";")[0], Accept_Language="en").page.text
    assert busy.get("/", Cookie="flowhooks_language=fr", Accept_Language="en").page.text.count("Overview") > 0


def test_unknown_paths_and_ids_are_404_pages(busy):
    """Unknown paths, ids and files are pages that say so, without a traceback."""
    for path in (
        "/nothing",
        "/events/none",
        "/events/%00%ff",
        "/events/a%0d%0ab",
        "/events/1/2/3",
        "/static/../page.py",
    ):
        answer = busy.get(path)
        assert answer.status == 404, path
        assert b"Traceback" not in answer.body
    assert busy.get("/static/none.css").status == 404
    assert busy.get("", root="/").status == 302
    assert busy.get("", root="/").headers["Location"].endswith("/console/")
    assert busy.get("/events", method="POST", Sec_Fetch_Site="same-origin").status == 405


def test_head_responses_have_no_body(busy):
    """HEAD responds as GET without the page."""
    for path in PAGES:
        answer = busy.get(path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.sqlite
def test_errors_are_shown_as_a_page(harness, serve, logged, monkeypatch):
    """An unreadable ledger or an internal error is a page with the next step; the log has the reason."""
    flow = harness.open(start=False)
    console = serve(flow)
    for error, status, told in (
        (LedgerUnusable("the secret of the disk"), 503, "page_failed"),
        (RuntimeError("the secret of the server"), 500, "request_failed"),
    ):

        def fails(error=error):
            raise error

        monkeypatch.setattr(flow.app.ledger, "connection", fails)
        answer = console.get("/parked")
        assert answer.status == status
        assert "server log" in answer.page.text
        assert b"secret" not in answer.body
        assert [record for record in logged if record["event"] == told]


def test_static_files_are_cached(busy):
    """The files of a page have their types, and may be cached as long as their content is unchanged."""
    page = busy.page("/")
    named = [attributes["src"] for tag, attributes in page.tags if tag in {"script", "img"}]
    named += [attributes["href"] for tag, attributes in page.tags if tag == "link"]
    kinds = set()
    for address in named:
        answer = busy.get(address, root="")
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        # A server of another version may be asked for the file of this one, which nobody may keep then.
        for other in (address.partition("?")[0], f"{address}x"):
            assert busy.get(other, root="").headers["Cache-Control"] == "no-store"
        kinds.add(answer.headers["Content-Type"].partition(";")[0])
    assert kinds == {"text/css", "text/javascript", "image/svg+xml"}


@pytest.mark.postgresql
def test_a_plugin_of_another_process_is_not_shown_as_missing(harness, listens, serve):
    """A plugin whose handlers run in another process is not shown as missing."""
    has = harness.open(listens(lambda event: None, name="h"), start=False)
    page = serve(harness.open(start=False))
    text = page.page("/handlers").text
    assert "in another process" in text
    assert "Other processes run its handlers" in text
    has.close()
    assert "This plugin was loaded before and is not loaded now" in page.page("/handlers").text


def test_a_paused_handler(busy):
    """The page of handlers and each waiting delivery have its badge and the start of the pause."""
    assert "paused" not in busy.page("/handlers").text
    pause(busy.flow.app.operation_context, ["contracts:archive"])
    event = busy.flow.take("4720", key="contract", businessKey="B-9", wait=0).event_id
    assert "paused New deliveries are stored and wait. Paused since" in busy.page("/handlers").text
    assert "已暂停" in busy.page("/handlers", "zh").text
    assert "Waiting until the handler is resumed. Paused since" in busy.page(f"/events/{event}").text
    resume(busy.flow.app.operation_context, ["contracts:archive"])
    busy.flow.settled(event, State.SUCCEEDED)
    assert "paused" not in busy.page("/handlers").text


def test_the_operator_of_a_pause_stays_known(busy):
    """The pages name the operator who paused handlers, however many other actions without a target follow."""
    flow = busy.flow
    context = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    assert len(pause(context, ["contracts:*"], note="<the archive> moves").handlers) > 1
    for _ in range(21):
        flow.sql(
            "INSERT INTO audit_log (id, at, actor, interface, action, target, detail)"
            " VALUES (?, ?, 'bob', 'cli', 'export', '', '{}')",
            flow.clock.new_id(),
            flow.clock.now(),
        )
    for path in ("/handlers", "/handlers/contracts:archive"):
        assert re.search(r"Paused since [-0-9: UTC]+ by ann: <the archive> moves", busy.page(path).text), path


def test_an_open_circuit(busy):
    """The page of handlers and each waiting delivery have the reason and the time of the next trial."""
    app = busy.flow.app
    assert "on time" in busy.page("/").text
    wish = circuit_state.OpenCircuit("contracts:archive", "<b>away</b>", "1", app.clock.now() + 3600 * SECOND)
    app.ledger.write(
        lambda transaction: circuit_state.open_circuit(transaction, wish, app.clock.now(), app.ledger.pauses)
    )
    event = busy.flow.take("4721", key="contract", businessKey="B-10", wait=0).event_id
    overview = busy.page("/")
    assert "paused or circuit open 2" in overview.text
    assert "on time" not in overview.text
    assert "正常" not in busy.page("/", "zh").text
    assert re.search(r"circuit open contracts:archive circuit open since [-0-9: UTC]+: <b>away</b>", overview.text)
    assert "/console/handlers/contracts%3Aarchive" in overview.links()
    assert "已熔断 contracts:archive 已熔断，始于" in busy.page("/", "zh").text
    page = busy.page("/handlers").text
    assert "circuit open The circuit breaker is open because the last attempts failed. Open since" in page
    assert "Last error: <b>away</b> · Next trial at" in page
    assert "已熔断" in busy.page("/handlers", "zh").text
    assert "Waiting until the handler works again" in busy.page(f"/events/{event}").text
    resume(app.operation_context, ["contracts:archive"])
    busy.flow.settled(event, State.SUCCEEDED)


def test_a_purged_event_has_a_page_that_states_the_purge(harness, serve):
    """The page of a purged event says that it was purged, in both languages."""
    flow = harness.open(routing={"ignore_process_keys": ("leave",)})
    event_id = flow.take("i1").event_id
    purge(flow.app.operation_context, EventFilter(until=flow.clock.now() + 1))
    console = serve(flow)
    for language, words in (("en", "This event was purged"), ("zh", "该事件已被清理")):
        answer = console.get(f"/events/{event_id}", Accept_Language=language)
        assert answer.status == 404
        assert words in answer.page.text
    assert "Not found" in console.get("/events/other", Accept_Language="en").page.text
