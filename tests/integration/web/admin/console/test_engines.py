"""The pages of engines and sources, in both languages, with the confirmation of a reconciliation."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger import rejected_requests, source_queries
from flowhooks.operations.sources import source_statuses
from flowhooks.settings import Secret, Source
from flowhooks.settings.engine import EngineSettings
from support import engine_ledger
from support.engine_fakes import FakeReconciler, engine_plugin
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

HOUR = 3600 * SECOND


@pytest.fixture
def console(harness, serve, listens, tmp_path):
    """A console with an engine with a problem, one that is fine, and a source that only calls."""
    harness.check_at_end = False
    token = tmp_path / "token"
    token.write_text("0123456789abcdefghij")
    engine = EngineSettings(
        client="flowable",
        url="http://oa:8080",
        username="rest",
        password=Secret(env="OA_PASSWORD"),
        variables=("amount",),
    )
    flow = harness.open(
        plugins={
            "p": engine_plugin(listens(lambda event: None, process_key="leave", versions=">=2", conclusion="approved"))
        },
        environ={"OA_PASSWORD": "pa55word of the engine"},
        start=False,
        sources={
            "oa": Source(token_file=str(token), engine=engine, allow=()),
            "pulled": Source(engine=replace(engine, password=None)),
            "erp": Source(
                secrets=(Secret(file=str(token), not_after=datetime(2026, 1, 5, tzinfo=UTC)),), silent_after=86400.0
            ),
        },
    )
    now = flow.clock.now()
    engine_ledger.position(
        flow,
        "oa",
        failed_since=now - HOUR,
        failures=7,
        reason="refused",
        error="HTTP 401 for /query/historic-process-instances",
        skew=45 * SECOND,
        to_confirm=1200,
        waiting=7,
        definitions=engine_ledger.definitions(("leave", 1, "Leave"), ("travel", 4)),
        definitions_at=now,
    )
    engine_ledger.position(flow, "pulled")
    engine_ledger.gap(flow, "oa", now - 2 * HOUR, now - HOUR, "refused", detail="HTTP 401")
    engine_ledger.instance(flow, "oa", "i1")
    engine_ledger.instance(flow, "oa", "i2", disposition="skipped", rule="child")
    engine_ledger.instance(flow, "oa", "i3", disposition="skipped", rule="from a newer version")
    flow.pulled = engine_ledger.taken_in(flow, "oa", "i1", processDefinitionVersion=2, conclusion="rejected")
    flow.take("c1", source="erp", wait=0)
    row = rejected_requests.RejectedRequest(
        id=flow.clock.new_id(),
        rejected_at=now,
        first_rejected_at=now,
        count=12,
        source="erp",
        path="/flow/1/call-back/complete",
        address="10.0.0.1",
        status=422,
        reason_en="conclusion must be a string",
        reason_zh="conclusion 必须是字符串",
    )
    flow.app.ledger.write(lambda transaction: rejected_requests.store(transaction, [row]))
    flow.engines = FakeReconciler("oa", "pulled")
    flow.engines.install(flow.app)
    return serve(flow)


def test_the_list_of_engines(console):
    """Engines with a problem come first, with state, error, position, gaps, and counts by disposition and rule."""
    text = console.page("/engines").text
    assert text.index("oa State failing") < text.index("pulled State up to date")
    assert "7 failed reconciliations since 2025-12-31 23:00:00 UTC : HTTP 401 for /query/historic" in text
    assert "Engine's clock minus ours +45.0 s" in text
    assert "the credential or its rights did not suffice HTTP 401" in text
    assert "skipped called by another instance 1" in text
    assert "skipped from a newer version 1" in text
    assert "Callbacks missed in 24 h 1" in text
    assert "7 finished instances wait for the engine to call again" in text
    chinese = console.page("/engines", "zh").text
    assert "对账已失败 7 次" in chinese
    assert "有 7 个已结束的流程实例在等待流程引擎重新回调" in chinese
    assert "被其他实例调用" in chinese


def test_the_page_without_an_engine(harness, serve):
    """Without an engine the page says how to configure one, and the source `default` is listed."""
    console = serve(harness.open(start=False))
    assert "[sources.NAME.engine]" in console.page("/engines").text
    assert "default none in 24 h" in console.page("/sources").text


def test_a_reconciliation_is_confirmed(console):
    """The button leads to a page with the number and the consequence; its form confirms, once."""
    (address,) = console.page("/engines").to_do("confirm_reconciliation")
    answer, asking = console.act(address)
    assert "Finished instances to take in: 1,200" in asking.text
    assert "cannot be undone" in asking.text
    assert "Finished instances that the next reconciliation takes in: 1,200" in console.follow(answer).page.text
    assert console.flow.engines.confirmed == ["oa"]
    _, sent = asking.form()
    assert (sent["shown.instances"], sent["shown.seen_until"]) == ("1200", str(console.flow.clock.now()))
    chinese = console.get(address, root="", Accept_Language="zh").page.text
    assert "将补收的已结束流程实例：1,200 个" in chinese
    assert "reconciliation confirmed oa" in console.page("/audit").text


def test_a_reconciliation_is_declined(console):
    """The page has the number and the consequence, and takes a note; its form declines what was shown."""
    (address,) = console.page("/engines").to_do("decline_reconciliation")
    answer, asking = console.act(address, note="handled by the old system")
    assert "Finished instances to decline: 1,200" in asking.text
    assert "Finished instances that were declined: 1,200" in console.follow(answer).page.text
    assert console.flow.engines.declined == [("oa", console.flow.clock.now(), "handled by the old system")]
    assert "将不补收的已结束流程实例：1,200 个" in console.get(address, root="", Accept_Language="zh").page.text
    assert "reconciliation declined oa" in console.page("/audit").text


def test_gaps_are_closed(console):
    """The page has the number of gaps, and takes a note; its form closes them, and the audit log has the note."""
    (address,) = console.page("/engines").to_do("close_gaps")
    assert "将关闭的缺口：1 个" in console.get(address, root="", Accept_Language="zh").page.text
    answer, asking = console.act(address, note="compared")
    assert "Gaps to close: 1" in asking.text
    assert "Gaps that were closed: 1" in console.follow(answer).page.text
    assert console.page("/engines").to_do("close_gaps") == []
    audit = console.page("/audit").text
    assert "gaps closed oa" in audit
    assert "compared" in audit


def test_the_list_of_sources(console):
    """Each source has its last callback, rates, rejections, an expiring secret, and the state of its engine."""
    text = console.page("/sources").text
    assert re.search(r"erp expires soon 2026-01-05 00:00:00 UTC 2026-01-01 00:00:00 UTC 1 1 12 – –", text)
    assert "oa none in 24 h 0 0 0 – failing missed: 1" in text
    assert "pulled does not call" in text
    assert "不回调" in console.page("/sources", "zh").text


def test_the_page_of_a_source(console):
    """The page of a source has its rejections with reasons, ages of credentials, engine, coverage and settings."""
    text = console.page("/sources/erp").text
    assert "422 12 2026-01-01 00:00:00 UTC conclusion must be a string" in text
    assert "signing secret" in text
    assert "silent_after 86400" in text
    page = console.page("/sources/oa")
    assert "failing" in page.text
    assert "no handler listens to it" in page.text
    assert "no handler takes version 1" in page.text
    assert "no handler takes the conclusion rejected events: 1" in page.text
    assert "engine.password env OA_PASSWORD" in page.text
    assert "engine.variables amount" in page.text
    assert "conclusion 必须是字符串" in console.page("/sources/erp", "zh").text
    assert "没有处理器监听" in console.page("/sources/oa", "zh").text
    assert "only reads the history" in console.page("/sources/pulled").text
    assert console.get("/sources/nobody").status == 404


def test_no_secret_is_shown(console):
    """Neither a token nor its hash is on a page."""
    for path in ("/sources", "/sources/oa", "/sources/erp", "/engines"):
        body = console.get(path).body
        assert b"0123456789abcdefghij" not in body
        assert b"pa55word" not in body


def test_a_source_shows_a_callback_older_than_a_day(console):
    """The page of one source finds a callback that is older than a day."""
    console.flow.clock.advance(3 * DAY // SECOND)
    assert "Last callback 2026-01-01 00:00:00 UTC" in console.page("/sources/erp").text
    assert "Last callback none among the newest events" in console.page("/sources/oa").text


def test_a_quiet_source_of_a_busy_ledger_is_not_called_silent(console, monkeypatch):
    """If not all events of a day are counted, a source without a counted callback may also have called."""
    flow = console.flow
    flow.take("c2", source="oa", wait=0)
    flow.take("c3", source="erp", wait=0)
    monkeypatch.setattr(source_queries, "MAX_RECENT_EVENTS", 1)
    statuses = source_statuses(flow.app.ledger, flow.app.settings, flow.clock.now(), ["erp", "oa", "pulled"])
    assert [(status.rate.last_day, status.rate.truncated) for status in statuses] == [(1, True), (0, True), (0, True)]
    text = console.page("/sources").text
    assert "none in 24 h" not in text
    assert "oa none among the newest events ≥ 0 ≥ 0" in text
    assert "最新的事件中没有" in console.page("/sources", "zh").text


@pytest.mark.parametrize(("many", "marks"), [(20, 0), (21, 2)])
def test_cut_lists_of_a_definition_are_marked(harness, serve, listens, many, marks):
    """Of the versions and conclusions that no handler takes, 20 each are shown; a mark says that there are more."""
    engine = EngineSettings(client="flowable", url="http://oa:8080")
    harness.check_at_end = False
    flow = harness.open(
        plugins={
            "p": engine_plugin(listens(lambda event: None, process_key="leave", versions=">=99", conclusion="approved"))
        },
        start=False,
        sources={"oa": Source(token_sha256=("5" * 64,), engine=engine)},
    )
    definitions = engine_ledger.definitions(("leave", 1))
    engine_ledger.position(flow, "oa", definitions=definitions, definitions_at=flow.clock.now())
    for number in range(1, many + 1):
        flow.take(f"v{number}", source="oa", key="leave", processDefinitionVersion=number, wait=0)
        other = {"processDefinitionVersion": 99, "conclusion": f"c{number}"}
        flow.take(f"c{number}", source="oa", key="leave", wait=0, **other)
    body = serve(flow).get("/sources/oa").body.decode()
    (cell,) = re.findall(r'<td data-label="Not covered">.*?</td>', body, re.DOTALL)
    assert (cell.count("takes version"), cell.count("takes the conclusion")) == (20, 20)
    assert cell.count('<li class="quiet">…</li>') == marks


def test_events_are_filtered_by_origin(console):
    """The list of events can be limited to events that were taken in; the address has the choice."""
    page = console.page("/events?origin=reconciled")
    assert console.flow.pulled in " ".join(page.links())
    assert "c1" not in page.text
    assert "c1" in console.page("/events?origin=callback").text
    assert "Unknown origin" in console.page("/events?origin=elsewhere").text
    chosen = [tag["value"] for name, tag in page.tags if name == "option" and "selected" in tag]
    assert chosen == ["reconciled"]


def test_an_alert_links_to_its_source(console):
    """The subject of an alert about an engine or a source is a link to its page."""
    console.flow.app.alerts.poll()
    console.flow.app.alerts.stop(WAIT_TIMEOUT)
    links = console.page("/alerts").links()
    assert "/console/engines" in links
    assert "/console/sources/erp" in links
