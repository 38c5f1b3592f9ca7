"""Walks of an operator through incidents, in a real browser; the documentation states the clicks of each."""

from __future__ import annotations

import re
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from playwright.sync_api import expect

from flowhooks import Reject, State
from flowhooks.background import trends
from flowhooks.background.alerts.maintenance_causes import MIB
from flowhooks.cli.main import main
from flowhooks.ledger.reader import Reader
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.operations import server_audit
from flowhooks.operations.context import Actor
from flowhooks.operations.pause import pause
from flowhooks.operations.registry import run_operation
from flowhooks.settings import IngressSettings, OperatorSettings, Source, ValueTable
from flowhooks.web.admin.console.texts import text
from flowhooks.web.admin.passwords import hash_password
from support import browsers, copied_events, ingress, trend_rows
from support.app_harness import plugin
from support.logging_state import restore_logging  # noqa: F401 (a fixture)
from support.waiting import WAIT_TIMEOUT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.sqlite,
    pytest.mark.skipif(browsers.program() is None, reason="no Chromium: apt-get install chromium-headless-shell"),
]
PAGE = Path(__file__).parents[5] / "docs" / "how-to" / "use-the-console.md"
HEADING = "## What to click when"
DONE = ".o-finished"
"""The badge of a finished operation on its page."""
LOCALES = {"en": "en-GB", "zh": "zh-CN"}
both_languages = pytest.mark.parametrize("language", LOCALES)
each_language = pytest.mark.parametrize("language", ["en", pytest.param("zh", marks=pytest.mark.long)])
LIMITS = {
    "A system that a handler calls was down": 5,
    "A version of a plugin was wrong": 3,
    "Deliveries are unknown after a crash": 6,
    "An engine reports that a callback was rejected": 1,
}
"""The maximum number of clicks of situations, whatever the documentation states."""


def documented():
    """The number of clicks of each situation, as the table of the documentation states them."""
    section = PAGE.read_text("utf-8").partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    return {name: int(clicks) for name, clicks in re.findall(r"^\| ([^|]+?) \| (\d+) \|", section, re.MULTILINE)}


class Walk:
    """An operator at the console, who counts clicks; what is entered into fields, and ticked, is not a click."""

    def __init__(self, page, language):
        self.page = page
        self.language = language
        self.clicks = 0

    def says(self, key, **values):
        """A text of the console in the language of the walk."""
        return text(key, self.language, **values)

    def click(self, locator):
        """Click once."""
        locator.click()
        self.clicks += 1

    def go(self, name):
        """Click a page of the navigation, and wait for it."""
        label = self.says(f"nav.{name}")
        self.click(self.page.get_by_role("navigation").first.get_by_role("link", name=label, exact=True))
        expect(self.page.locator("nav [aria-current=page]")).to_have_text(label)

    def tile(self, state):
        """Click the tile of a state on the overview."""
        self.click(self.page.locator(".tile", has_text=self.says(f"state.{state}")).locator("a").first)

    def plan(self, name, count, place="main"):
        """Click the action in this part of the page, and wait for a plan of exactly so many deliveries."""
        labels = {self.says(f"do.{name}.act"), self.says(f"do.{name}.all")}
        pattern = re.compile(f"^({'|'.join(re.escape(label) for label in labels)})$")
        self.click(self.page.locator(place).get_by_role("button", name=pattern))
        expect(self.page.locator(".would")).to_have_text(self.says(f"do.{name}.would", count=f"{count:,}"))

    def confirm(self, name):
        """Click the button that starts what the page asks about."""
        button = self.says(f"do.{name}.button")
        self.click(self.page.locator("form.confirm").get_by_role("button", name=button, exact=True))

    def took(self, situation):
        """Check the number of clicks against the documentation and the limit."""
        assert {situation: self.clicks} == {situation: documented()[situation]}
        assert self.clicks <= LIMITS.get(situation, self.clicks)


@pytest.fixture
def walk(visit):
    """A function that starts a walk on the overview, or on another page."""

    def start(console, language="en", path="/"):
        return Walk(visit(console, path, locale=LOCALES[language]), language)

    return start


def event_of(flow, instance):
    """The id of the event of a flow instance."""
    return flow.events(flow_instance_id=instance)[0]


def runs(flow):
    """The state and the number of attempts of each delivery, by its flow instance."""
    return {
        instance: (state, attempt)
        for instance, state, attempt in flow.sql(
            "SELECT flow_instance_id, deliveries.state, attempt FROM deliveries JOIN events ON events.id = event_id"
        )
    }


def test_each_documented_incident_has_a_test():
    """Every row of the table is walked here."""
    source = Path(__file__).read_text("utf-8")
    assert documented()
    assert [name for name in documented() if f'took("{name}")' not in source] == []


@each_language
def test_one_flow_was_not_archived(harness, listens, serve, walk, language):
    """From a flow instance to the error, its traceback, and the delivery that has succeeded."""
    repaired = []

    def archive(event):
        if not repaired:
            raise OSError("the archive is full")

    flow = harness.open(listens(archive))
    for instance in ("4710", "4711"):
        flow.take(instance)
    repaired.append(True)
    desk = walk(serve(flow), language)
    desk.go("events")
    desk.page.get_by_label(desk.says("flow")).fill("4711")
    desk.click(desk.page.get_by_role("button", name=desk.says("search"), exact=True))
    expect(desk.page.locator("tbody tr")).to_have_count(1)
    desk.click(desk.page.locator("tbody th a"))
    expect(desk.page.locator("h1")).to_contain_text("4711")
    desk.click(desk.page.locator(".timeline summary"))
    expect(desk.page.locator(".timeline pre")).to_contain_text("OSError: the archive is full")
    desk.plan("replay", 1)
    desk.confirm("replay")
    expect(desk.page.get_by_role("status").first).to_contain_text(desk.says("do.replay.did", count="1"))
    desk.took("The contract of a process instance was not archived")
    flow.settled(event_of(flow, "4711"), State.SUCCEEDED)
    desk.page.reload()
    expect(desk.page.locator(".delivery .s-succeeded").first).to_be_visible()
    assert runs(flow)["4710"] == ("dead", 1)


@pytest.mark.parametrize(("language", "failed", "rejected"), [("en", 3_178, 41), ("zh", 30, 4)])
def test_all_failures_of_an_erp_outage_are_replayed(harness, listens, serve, walk, language, *, failed, rejected):
    """All failures of one error are replayed, without a script; the rejected deliveries stay as they are."""
    erp = SimpleNamespace(up=False)

    def book(event):
        if event.flow_instance_id.startswith("wrong"):
            raise Reject("the order has no amount")
        if not erp.up:
            raise ConnectionError("the ERP does not answer")

    flow = harness.open(listens(book))
    copied_events.copy(flow, flow.take("order").event_id, failed - 1)
    copied_events.copy(flow, flow.take("wrong").event_id, rejected - 1)
    erp.up = True
    desk = walk(serve(flow), language)
    desk.click(desk.page.locator(".failing").get_by_role("link", name="the ERP does not answer"))
    desk.plan("replay", failed)
    desk.confirm("replay")
    expect(desk.page.locator(DONE)).to_be_visible(timeout=3 * WAIT_TIMEOUT * 1000)  # it is thousands of deliveries
    expect(desk.page.locator(".tile", has_text=desk.says("operation.succeeded"))).to_contain_text(f"{failed:,}")
    desk.took("A system that a handler calls was down")
    states = Counter((instance.partition("-")[0], *run) for instance, run in runs(flow).items())
    assert states == {("order", "succeeded", 2): failed, ("wrong", "dead", 1): rejected}


@both_languages
def test_events_of_a_wrong_plugin_version_are_rerun(harness, listens, serve, walk, language):
    """The 500 events that a wrong version ran last are run once more by its successor, and no others."""

    def version(number):
        def archive(event):
            return number

        contracts = plugin(listens(archive))
        contracts.__version__ = number
        return {"contracts": contracts}

    for number, instance, count in (("1.4", "right", 2), ("2.0", "wrong", 500)):
        flow = harness.open(plugins=version(number))
        copied_events.copy(flow, flow.take(instance).event_id, count - 1)
        flow.close()
    flow = harness.open(plugins=version("2.1"))
    desk = walk(serve(flow), language, path=f"/events/{event_of(flow, 'wrong-3')}")
    desk.click(desk.page.get_by_role("link", name="contracts 2.0", exact=True))
    expect(desk.page.locator("tbody tr")).to_have_count(50)  # the first page
    desk.plan("replay_again", 500, "p.acts")
    desk.page.get_by_label(desk.says("do.replay_again.sure")).check()
    desk.confirm("replay_again")
    expect(desk.page.locator(DONE)).to_be_visible()
    desk.took("A version of a plugin was wrong")
    states = Counter((instance.partition("-")[0], *run) for instance, run in runs(flow).items())
    assert states == {("right", "succeeded", 1): 2, ("wrong", "succeeded", 2): 500}


@both_languages
def test_no_handler_matches_a_process(harness, listens, serve, walk, language):
    """The parked events are one group, with their number, and a handler whose key is almost the same."""
    flow = harness.open(listens(lambda event: None, process_key="vehicle_request"))
    for number in range(3):
        flow.take(f"v{number}", key="Vehicle_Request")
    desk = walk(serve(flow), language)
    desk.tile("parked")
    group = desk.page.locator("tbody tr")
    expect(group).to_have_count(1)
    expect(group).to_contain_text("Vehicle_Request")
    expect(group.locator("td.number")).to_have_text("3")
    expect(group).to_contain_text("differs only in case" if language == "en" else "仅大小写或空白不同")
    desk.took("No handler takes the events of a process")


@both_languages
def test_a_mapping_ignores_too_much(harness, serve, walk, language):
    """The number of ignored requests leads to their rules, each with its last body."""
    mapped = IngressSettings(
        format="form",
        flow_instance_id=("/id",),
        kind=ValueTable(pointer="/status", values={"2": "complete"}, other="ignore"),
    )
    flow = harness.open(start=False, sources={"yudao": Source(token_sha256=("1" * 64,), ingress=mapped)})
    ingress.ignore(flow, "/status = other", body="id=7&status=5", times=12)
    operator = walk(serve(flow), language)
    operator.go("sources")
    operator.click(operator.page.get_by_role("link", name="12", exact=True))
    expect(operator.page.locator("h1")).to_contain_text("yudao")
    operator.click(operator.page.locator("summary", has_text=operator.says("ignored.body")))
    expect(operator.page.get_by_text("id=7&status=5")).to_be_visible()
    operator.took("An approval at a sender with a fixed URL has no event")


@both_languages
def test_an_engine_stopped_sending_callbacks(harness, listens, serve, walk, language):
    """The overview names the source; its page has the last callback, and no rejected request."""
    flow = harness.open(
        listens(lambda event: None), sources={"oa": Source(token_sha256=("1" * 64,), silent_after=3600.0)}
    )
    flow.take("i1", source="oa")
    flow.app.alerts.poll()
    flow.advance(3700)
    flow.app.alerts.poll()
    desk = walk(serve(flow), language)
    expect(desk.page.locator(".failing")).to_contain_text("oa")
    desk.go("sources")
    desk.click(desk.page.get_by_role("link", name="oa", exact=True))
    expect(desk.page.locator("h1")).to_contain_text("oa")
    expect(desk.page.locator("dl.facts")).to_contain_text("2026-01-01 08:00:00")
    expect(desk.page.locator("section", has_text=desk.says("rejected.title"))).to_contain_text(
        desk.says("rejected.none")
    )
    desk.took("An engine sends no callbacks")


@each_language
def test_a_server_was_killed(harness, listens, serve, walk, language):
    """Of 22 unknown deliveries two were not done: these run again, and the others are marked as done."""
    flow = harness.open(listens(lambda event: None))
    for number in range(22):
        flow.take(f"u{number}")
    flow.sql("UPDATE deliveries SET state = 'unknown'")
    flow.sql("UPDATE attempts SET outcome = 'lost'")
    desk = walk(serve(flow), language)
    desk.tile("unknown")
    expect(desk.page.locator("tbody tr")).to_have_count(22)
    for instance in ("u1", "u14"):
        desk.page.get_by_label(desk.says("events.select", flow=instance), exact=True).check()
    desk.plan("mark_not_done", 2, "#rows")
    desk.confirm("mark_not_done")
    expect(desk.page.locator(DONE)).to_be_visible()
    desk.click(desk.page.get_by_role("link", name=desk.says("do.back"), exact=True))
    expect(desk.page.locator("tbody tr")).to_have_count(20)
    desk.plan("mark_done", 20, "p.acts")
    desk.confirm("mark_done")
    expect(desk.page.locator(DONE)).to_be_visible()
    desk.took("Deliveries are unknown after a crash")
    done = {f"u{number}": ("succeeded", 2 if number in {1, 14} else 1) for number in range(22)}
    assert runs(flow) == done


@both_languages
def test_a_handler_is_slower_than_yesterday(harness, listens, serve, walk, monkeypatch, *, language):
    """The overview leads to the handler, whose page says how long its attempts take, and took yesterday."""
    # If the attempts below were stored before the page is shown, they would change its p95.
    monkeypatch.setattr(trends, "FLUSH_INTERVAL", threading.TIMEOUT_MAX)
    flow = harness.open(
        listens(lambda event: flow.clock.advance(0.01), name="quick", process_key="quick"),
        listens(lambda event: flow.clock.advance(3.2), name="slow", process_key="slow"),
    )
    for number in range(3):
        flow.take(f"q{number}", key="quick")
        flow.take(f"s{number}", key="slow")
    trend_rows.store(flow, trend_rows.slow_today("handler", "p:slow", flow.clock.now()))
    desk = walk(serve(flow), language)
    desk.click(desk.page.get_by_role("row", name="p:slow").get_by_role("link"))
    now, earlier = ("4.47 s", "485 ms") if language == "en" else ("4.47 秒", "485 毫秒")
    slower = desk.says("trend.compared.yesterday", now=now, earlier=earlier)
    expect(desk.page.get_by_text(slower, exact=True)).to_be_visible()
    desk.took("A handler is slower than yesterday")


@both_languages
def test_an_engine_reports_a_rejection(harness, serve, walk, language):
    """One page has what was rejected, when, from where, and why."""
    flow = harness.open()
    for status, instance, why in ((401, "4711", "no valid token"), (422, "4712", "the class is too long")):
        flow.app.rejected_requests.record(
            path=f"/flow/{instance}/call-back/complete",
            address="192.0.2.1",
            status=status,
            source="" if status == 401 else "oa",
            english=why,
            chinese=why,
        )
    flow.app.rejected_requests.flush()
    desk = walk(serve(flow), language)
    desk.go("rejected_requests")
    row = desk.page.locator("tbody tr", has_text="/flow/4712/")
    for shown in ("2026-01-01 08:00:00", "422", "oa", "192.0.2.1", "the class is too long"):
        expect(row).to_contain_text(shown)
    desk.took("An engine reports that a callback was rejected")


@both_languages
def test_a_new_version_was_started(harness, serve, walk, language):
    """The overview has the time since the start, and the audit log the versions that have changed with it.

    That a new version refuses no callback while it starts is tested by `tests/acceptance/test_restart.py`, and of an
    upgraded plugin by `tests/integration/cli/plugins/test_install.py`.
    """
    flow = harness.open()
    for number in ("1.4", "2.0"):
        versions = {"contracts": PluginVersion(number, "")}
        server_audit.record_start(flow.app.ledger, flow.clock, flow.app.settings, versions, kind="server")
        flow.advance(60)
    desk = walk(serve(flow), language)
    desk.go("audit")
    expect(desk.page.locator("tbody tr").first).to_contain_text("1.4 -> 2.0")
    desk.took("Something has changed since a restart")


@both_languages
@pytest.mark.usefixtures("restore_logging")
def test_a_disk_is_nearly_full(harness, serve, walk, monkeypatch, *, language):
    """The overview names the disk of the ledger, the alert is acknowledged, and the ledger is backed up and purged.

    `tests/acceptance/test_backup.py` starts a server with a backup.
    """
    monkeypatch.setattr("flowhooks.composition.free_disk_bytes", lambda _url: 600 * MIB)
    flow = harness.open(alerts={"disk_free_mib": 1000}, routing={"ignore_process_keys": ("ignored",)})
    event_id = flow.take("old", key="ignored").event_id
    flow.app.alerts.poll()
    desk = walk(serve(flow), language)
    expect(desk.page.locator(".failing")).to_contain_text("0.6 GiB")
    desk.go("alerts")
    desk.click(desk.page.get_by_role("link", name=desk.says("do.acknowledge.act"), exact=True))
    desk.page.get_by_label(desk.says("do.note")).fill("more disk is ordered")
    desk.confirm("acknowledge")
    expect(desk.page.get_by_role("status").first).to_contain_text(desk.says("do.acknowledge.did", count="1"))
    desk.took("The disk is nearly full")
    backup = harness.folder / "backup.db"
    result = CliRunner().invoke(main, ["db", "backup", str(backup), "--database", flow.address])
    assert result.exit_code == 0, result.output
    context = flow.app.operation_context
    run_operation(context, "record_backup", {"name": backup.name})  # as the command asks the server to
    purged = run_operation(context, "purge", {"event_filter": {"until": flow.clock.now() + 1}})
    assert purged["events"] == 1
    desk.page.get_by_role("link", name=desk.says("nav.storage"), exact=True).click()
    for fact, said in (("storage.backup", "2026-01-01 08:00:00"), ("storage.oldest", desk.says("storage.no_events"))):
        expect(desk.page.locator("dl.facts > div", has_text=desk.says(fact))).to_contain_text(said)
    assert flow.events() == []
    with closing(Reader(f"sqlite:///{backup}")) as restored:
        assert restored.quick_check() is None
        assert restored.event(event_id).event.flow_instance_id == "old"


@both_languages
def test_an_operator_with_the_role_view_sees_the_audit_log(harness, listens, serve, walk, language):
    """An operator of the role view sees who did what, and has no buttons."""
    operators = {"wang": OperatorSettings(role="view", password=hash_password("correct horse battery"))}
    flow = harness.open(listens(lambda event: None, name="archive"), operators=operators)
    pause(replace(flow.app.operation_context, by=Actor("li", "console")), ["p:archive"], note="the archive moves")
    desk = walk(serve(flow), language)
    desk.page.get_by_label(desk.says("login.name"), exact=True).fill("wang")
    desk.page.get_by_label(desk.says("login.password"), exact=True).fill("correct horse battery")
    desk.click(desk.page.get_by_role("button", name=desk.says("login.title"), exact=True))
    desk.go("audit")
    row = desk.page.locator("tbody tr", has_text="the archive moves")
    expect(row).to_contain_text("li")
    desk.took("Somebody asks who did something")
    desk.go("handlers")
    expect(desk.page.locator("main")).to_contain_text("p:archive")
    expect(desk.page.locator(".act")).to_have_count(0)
