"""The pages show conclusions, and why an event is parked, dismissed, routed, or not run."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from flowhooks import State
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.event import DismissedBy
from flowhooks.operations.dismiss import dismiss
from flowhooks.web.admin.console import event as event_page
from support.waiting import until

pytestmark = pytest.mark.either

HUGE = {"/amount": {"minimum": 1000}}


def done(event):
    """Do nothing."""


@pytest.fixture
def approvals(harness, listens):
    """Events of each state, whose handlers have conditions."""
    flow = harness.open(
        listens(done, name="book", process_key="contract", conclusion="approved"),
        listens(done, name="audit", process_key="contract", conclusion="approved", when=HUGE),
        listens(done, name="stop", process_key="order", kind="cancel"),
        routing={"ignore_process_keys": ("holiday",)},
    )
    flow.take("yes", key="contract", conclusion="approved", amount=5)
    flow.take("no", key="contract", conclusion="rejected")
    flow.take("open", key="contract", amount=5000)
    flow.take("kind", key="order")
    flow.take("set", key="holiday")
    flow.take("nobody", key="leave", conclusion="approved")
    flow.take("nameless", key=None)
    flow.take("dropped", key="leave")
    dismiss(flow.app.operation_context, EventFilter(flow_instance_id="dropped"))
    return flow


def page_of(console, instance, language="en", query=""):
    """The page of the event of a process instance."""
    (event_id,) = console.flow.events(flow_instance_id=instance)
    return console.page(f"/events/{event_id}{query}", language)


def test_an_event_shows_its_conclusion_and_the_reason_of_its_state(approvals, serve):
    """The page has a sentence for each reason to park or dismiss an event, in both languages."""
    console = serve(approvals)
    assert "Conclusion approved" in page_of(console, "yes").text
    assert "结论 approved" in page_of(console, "yes", "zh").text
    for instance, english, chinese in (
        ("no", "conditions of all these handlers are false", "条件都不成立"),
        ("open", "condition of a handler is undecided", "无法判断"),
        ("kind", "they all listen to other kinds of callback", "回调类型不同"),
        ("set", "the setting routing.ignore_process_keys contains the key", "routing.ignore_process_keys"),
        ("nobody", "no handler has this class or key", "没有处理器监听"),
        ("nameless", "neither a class nor a key", "既没有处理类，也没有流程定义 Key"),
        ("dropped", "Dismissed by an operator", "由运维人员操作"),
    ):
        assert english in page_of(console, instance).text, instance
        assert chinese in page_of(console, instance, "zh").text, instance


def test_the_command_that_explains_a_missing_handler(approvals, serve):
    """Only an event that no handler's class, key, version or source matches has the command, which reads no body."""
    console = serve(approvals)
    assert "flowhooks routes" in page_of(console, "nobody").text
    assert "flowhooks routes" not in page_of(console, "open").text


def test_the_stored_reasons_of_unmatched_handlers_are_shown(approvals, serve):
    """Each handler that did not get an event is named with its reason."""
    console = serve(approvals)
    text = page_of(console, "no").text
    assert "p:book conclusion 'rejected' is not one of approved" in text
    assert "p:audit conclusion 'rejected' is not one of approved" in text
    assert "no conclusion, but the handler requires one of approved" in page_of(console, "open").text
    assert "p:book 结论 'rejected' 不在其中：approved" in page_of(console, "no", "zh").text


def test_handlers_without_a_stored_reason_are_counted(harness, listens, serve):
    """Twenty reasons are stored, and the page says how many more handlers there are."""
    flow = harness.open(*[listens(done, name=f"h{number}", conclusion="approved") for number in range(25)])
    flow.take("no", conclusion="rejected")
    console = serve(flow)
    text = page_of(console, "no").text
    assert len(re.findall(r"p:h\d+ conclusion 'rejected'", text)) == 20
    assert "Handlers not shown: 5" in text
    assert "未显示的处理器：5 个" in page_of(console, "no", "zh").text


def test_a_routed_event_links_to_the_reasons_for_each_handler(approvals, serve, monkeypatch):
    """A link on the page of a routed event leads to the reasons for and against each handler."""
    console = serve(approvals)
    assert "p:audit" not in page_of(console, "yes").text
    (link,) = [link for link in page_of(console, "yes").links() if "explain=1" in link]
    page = console.get(link.partition("#")[0], root="", Accept_Language="en").page
    assert ("section", {"id": "explanation", "aria-labelledby": "explained"}) in page.tags
    assert "p:book matches key contract, conclusion approved" in page.text
    assert 'p:audit does not match /amount is 5, but the condition is {"minimum": 1000}' in page.text
    assert "不匹配" in page_of(console, "yes", "zh", "?explain=1").text
    monkeypatch.setattr(event_page, "MAX_EXPLAINED", 1)
    text = page_of(console, "yes", query="?explain=1").text
    assert "p:book matches" in text
    assert "p:audit" not in text
    assert "Handlers not shown: 1" in text


def test_the_explanation_of_thousands_of_handlers_is_limited(harness, listens, serve):
    """With thousands of handlers on one key the page has a hundred, matching ones first."""
    handlers = [listens(done, name=f"h{number:04}", conclusion="rejected") for number in range(3000)]
    flow = harness.open(*handlers, listens(done, name="last", conclusion="approved"))
    flow.take("yes", conclusion="approved")
    answer = serve(flow).get(f"/events/{flow.events()[0]}?explain=1", Accept_Language="en")
    assert answer.page.text.count("does not match") == 99
    assert "p:last matches" in answer.page.text
    assert "Handlers not shown: 2,901" in answer.page.text
    assert len(answer.body) < 100_000


def test_a_delivery_shows_the_effect_of_new_conditions(harness, listens, serve):
    """New conditions leave a delivery waiting or close it: its page shows the state and the reason."""
    flow = harness.open(listens(done, name="h"), start=False)
    undecided = flow.take("1", wait=0).event_id
    false = flow.take("2", wait=0, conclusion="rejected").event_id
    flow.close()
    flow = harness.open(listens(done, name="h", conclusion="approved"))
    flow.settled(false, State.CLOSED)
    assert until_noted(flow, undecided)
    console = serve(flow)
    for event_id, english, chinese, reason, chinese_reason in (
        (
            undecided,
            "the handler's condition is undecided for this event",
            "无法判断处理器的条件",
            "no conclusion, but the handler requires one of approved",
            "没有结论，而处理器需要其中之一：approved",
        ),
        (
            false,
            "the handler's condition is false",
            "处理器的条件不成立",
            "conclusion 'rejected' is not one of approved",
            "结论 'rejected' 不在其中：approved",
        ),
    ):
        for page, words, why in (
            (console.page(f"/events/{event_id}"), english, reason),
            (console.page(f"/events/{event_id}", "zh"), chinese, chinese_reason),
        ):
            assert words in page.text
            assert page.text.count(why) == 1
            assert "plugin is not loaded" not in page.text


def until_noted(flow, event_id):
    """The only delivery of an event, once it has a note."""
    return until(lambda: flow.only(event_id).comment and flow.only(event_id))


def test_events_are_filtered_by_conclusion_and_dismissal_reason(approvals, serve):
    """The list shows both and can be filtered by both."""
    console = serve(approvals)
    listed = {
        "conclusion=approved": {"yes", "nobody"},
        "conclusion=rejected": {"no"},
        "state=dismissed": {"no", "kind", "set", "dropped"},
        "dismissed_by=condition": {"no"},
        "dismissed_by=kind": {"kind"},
        "dismissed_by=setting": {"set"},
        "dismissed_by=operator": {"dropped"},
    }
    for query, instances in listed.items():
        page = console.page(f"/events?{query}")
        cells = [
            text for text in page.texts if text in {"yes", "no", "open", "kind", "set", "nobody", "nameless", "dropped"}
        ]
        assert set(cells) == instances, query
    chosen = [attributes for tag, attributes in console.page("/events?dismissed_by=kind").tags if tag == "option"]
    assert [option["value"] for option in chosen if "selected" in option] == ["kind"]
    assert {*DismissedBy} <= {option["value"] for option in chosen}
    assert re.search(
        r"no – contract rejected dismissed condition false", console.page("/events?conclusion=rejected").text
    )
    assert "条件不成立" in console.page("/events?conclusion=rejected", "zh").text
    wrong = console.page("/events?dismissed_by=nobody")
    assert "Unknown reason" in wrong.text
    assert [attributes["name"] for _, attributes in wrong.tags if "aria-invalid" in attributes] == ["dismissed_by"]


def test_a_search_of_dismissed_events_offers_only_their_actions(approvals, serve):
    """A search by the reason of dismissal offers the actions for dismissed events only."""
    console = serve(approvals)
    page = console.page("/events?dismissed_by=condition")
    (address,) = page.to_do("reroute")
    assert page.to_do("replay") == []
    asked = console.get(address, root="", Accept_Language="en").page
    assert "Reason for dismissal condition false" in asked.text
    assert parse_qs(urlsplit(address).query)["dismissed_by"] == ["condition"]
    assert asked.form() is None  # no condition has changed since


def test_parked_groups_show_conclusion_and_missing_member(approvals, serve):
    """Groups have their conclusion, the missing member, and the command that explains them completely."""
    console = serve(approvals)
    text = console.page("/parked").text
    assert "conclusion approved" in text
    assert "--source=default --kind=complete --key=leave --conclusion=approved" in text
    assert "each event is routed by its own body" in text
    assert "The oldest event lacks conclusion" in text
    assert "No handler can match these events" in text
    chinese = console.page("/parked", "zh").text
    assert "按各自的请求体路由" in chinese
    assert "结论 approved" in chinese


def test_a_parked_group_without_a_conclusion(harness, listens, serve):
    """If only the conclusion is missing, the whole group lacks it; hints name similar conclusions."""
    flow = harness.open(listens(done, name="h", conclusion="approved"), listens(done, name="c", kind="cancel"))
    flow.take("1")
    flow.take("2", key="Leave", conclusion="approved")
    text = serve(flow).page("/parked").text
    assert "A handler's condition needs conclusion, which these events lack" in text
    assert "its own body" not in text
    assert "key 'leave' differs only in case or white space" in text


def test_a_group_is_dismissed_with_its_conclusion(harness, serve):
    """The button of a group selects only events of its conclusion."""
    flow = harness.open()
    flow.take("1", conclusion="approved")
    flow.take("2", conclusion="rejected")
    flow.take("3", key="other")
    console = serve(flow)
    queries = [parse_qs(urlsplit(address).query) for address in console.page("/parked").to_do("dismiss")]
    found = {(query["key"][0], query.get("conclusion", [""])[0]) for query in queries}
    assert found == {("leave", "approved"), ("leave", "rejected"), ("other", "")}


def test_handlers_show_their_conditions(approvals, serve):
    """Each handler has its conclusions and its conditions as JSON, with any number of keys."""
    console = serve(approvals)
    text = console.page("/handlers").text
    assert re.search(r"p:book .* conclusion approved", text)
    assert f"condition /amount: {json.dumps(HUGE['/amount'])}" in text
    assert "条件 /amount" in console.page("/handlers", "zh").text


def test_a_handler_shows_the_number_of_matching_dismissed_events(harness, listens, serve):
    """The page has the number of matching dismissed events and the command that delivers them."""
    flow = harness.open(listens(done, name="book", conclusion="approved"))
    for number in range(3):
        flow.take(f"no{number}", conclusion="rejected")
    assert "reroute" not in serve(flow).page("/handlers").text
    flow.close()
    console = serve(harness.open(listens(done, name="book", conclusion="approved"), listens(done, name="inform")))
    text = console.page("/handlers").text
    assert "Dismissed events that this handler takes now: 3." in text
    assert "flowhooks events reroute --handler=p:inform --state=dismissed --since=2026-01-01" in text
    assert "已忽略事件：3 个" in console.page("/handlers", "zh").text
    assert len(console.flow.events(state="dismissed")) == 3


def test_conditions_are_shown_beside_many_keys(harness, listens, serve):
    """Keys are cut off after twenty, but conditions are not."""
    keys = [f"key{number}" for number in range(30)]
    console = serve(harness.open(listens(done, name="h", process_key=keys, conclusion="approved")))
    text = console.page("/handlers").text
    assert "key19" in text
    assert "key20" not in text
    assert "conclusion approved" in text


def test_routing_pages_with_handlers_of_a_newer_version_are_503(harness, listens, serve):
    """With handlers recorded by a newer flowhooks, pages that route respond with 503 and the reason."""
    flow = harness.open(listens(done, name="h", process_key="order"))
    flow.take("1")
    flow.sql("UPDATE handlers SET selectors = ?", json.dumps({"format": 99}))
    flow.close()
    # Without the plugin, so that only the ledger's record counts.
    console = serve(harness.open())
    for path in ("/parked", "/handlers", f"/events/{console.flow.events()[0]}?explain=1"):
        answer = console.get(path, Accept_Language="en")
        assert answer.status == 503
        assert "A newer version of flowhooks has registered handlers" in answer.page.text
        assert "更新版本" in console.get(path, Accept_Language="zh").page.text
