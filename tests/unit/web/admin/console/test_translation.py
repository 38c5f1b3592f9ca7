"""Chinese for the English texts of the ledger: messages of alerts, reasons and hints; other texts stay."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import string

import pytest

from flowhooks import Event
from flowhooks.background.alerts import causes, engine_causes, maintenance_causes, routing_causes
from flowhooks.background.alerts.cause import MessageTemplate
from flowhooks.ledger.alert_queries import OpenAlert
from flowhooks.model.alert import AlertCause
from flowhooks.model.selectors import Selectors
from flowhooks.routing.router import Candidate, Router
from flowhooks.web.admin.console.translation import CHINESE_MESSAGES, alert_message, translate_reason

MESSAGES = [
    *causes.MESSAGES.values(),
    *(
        value
        for module in (causes, engine_causes, maintenance_causes, routing_causes)
        for value in vars(module).values()
        if type(value) is MessageTemplate
    ),
]
"""Every message of an alert."""
WITH_REASONS = (routing_causes.UNDECIDED_EVENTS, routing_causes.UNDECIDED_DELIVERIES, routing_causes.CONCLUSION)


def names(text):
    """The placeholders of a text."""
    return {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}


def open_alert(template, *, count=1_234, subject="p:archive", why="Kaputt: no. 1."):
    """An alert as stored."""
    facts = {"cause": AlertCause.DEAD, "subject": subject, "count": count}
    message = template.fill(**facts, since=0, why=why)
    return OpenAlert(id="a", message=message, started_at=0, event_id="", last_at=0, notified_at=0, **facts)


def test_every_message_exists_in_chinese():
    """Every message has a Chinese text with the same placeholders."""
    assert set(CHINESE_MESSAGES) == set(MESSAGES)
    for english, chinese in CHINESE_MESSAGES.items():
        same = names(english.text) - {"are", "have", "many"} | ({"count"} if "many" in names(english.text) else set())
        assert names(chinese) == same, chinese


def test_the_last_gap_is_translated():
    """The interval of the last gap and its reason are Chinese; a detail of the engine stays as it is."""
    for detail, chinese in (("", ""), (", HTTP 401: no", "，HTTP 401: no")):
        alert = open_alert(engine_causes.GAP, count=1, why=f"the last one from 08:00 to 09:00, refused{detail}")
        assert f"无法读取：最近一段从 08:00 到 09:00，凭证或权限不足{chinese}。" in alert_message(alert, "zh")


@pytest.mark.parametrize("count", [1, 1_234])
def test_a_filled_message_is_translated(count):
    """A filled message is recognised and translated; an English page shows it unchanged."""
    for template in MESSAGES:
        alert = open_alert(template, count=count)
        why = "Kaputt：no. 1" if template in WITH_REASONS else "Kaputt: no. 1"
        facts = {"count": count, "subject": "p:archive", "quoted": "p:archive", "cause": "dead", "why": why}
        expected = CHINESE_MESSAGES[template].format(since="1970-01-01T00:00:00.000Z", **facts)
        assert alert_message(alert, "zh") == expected
        assert alert_message(alert, "en") == alert.message


def test_routing_reasons_within_a_message_are_translated():
    """The reason, the hints and the subject of an alert about routing are Chinese, too."""
    why = "p:book: no conclusion, but the handler requires one of approved"
    alert = open_alert(routing_causes.UNDECIDED_EVENTS, subject="class com.example.A and key leave", why=why)
    message = alert_message(alert, "zh")
    assert "有 1,234 个事件（处理类 com.example.A，流程 Key leave）" in message
    assert "p:book：没有结论，而处理器需要其中之一：approved。" in message
    hints = " (conclusion 'approved' is similar; conclusion 'Ok' differs only in case or white space)"
    alert = open_alert(routing_causes.CONCLUSION, subject="conclusion 'aproved' of key leave", why=hints)
    message = alert_message(alert, "zh")
    assert "没有处理器接收结论 'aproved'（流程 Key leave）" in message
    assert "已忽略（结论 'approved' 与之相近；结论 'Ok' 仅大小写或空白不同）。" in message


def test_the_newest_history_gap_is_translated():
    """The newest gap of an engine's history is described in Chinese; its detail stays."""
    why = "the last one from 1970-01-01T00:00:00.000Z to 1970-01-02T00:00:00.000Z, refused, HTTP 401: no"
    message = alert_message(open_alert(engine_causes.GAP, subject="oa", why=why), "zh")
    assert "最近一段从 1970-01-01T00:00:00.000Z 到 1970-01-02T00:00:00.000Z，凭证或权限不足，HTTP 401: no。" in message


def test_a_message_of_another_version():
    """An unknown message is shown unchanged."""
    alert = open_alert(MessageTemplate("{many} of {subject} went away."))
    assert alert_message(alert, "zh") == "1,234 deliveries of p:archive went away."


EVENT = Event(
    id="",
    flow_instance_id="1",
    callback_class="com.example.A",
    process_definition_key="leave",
    process_definition_version=3,
    source="oa",
    conclusion="approved",
    data={"amount": 5},
    received_at=None,
)


@pytest.mark.parametrize(
    ("selectors", "chinese"),
    [
        ({"kind": "cancel"}, "回调类型是 'complete'，不是 'cancel'"),
        ({"sources": ("erp", "hr")}, "来源 'oa' 不在其中：erp, hr"),
        ({"versions": ">=4"}, "版本 3 不符合 >=4"),
        ({"conclusions": ("rejected",)}, "结论 'approved' 不在其中：rejected"),
        ({"when": {"/amount": {"minimum": 10}}}, '/amount 是 5，而条件是 {"minimum": 10}'),
        ({"when": {"/amount": "x"}}, '/amount 的类型是 number，条件 "x" 无法判断'),
        ({"when": {"/vendor": "x"}}, '缺少 /vendor，而条件 "x" 需要它'),
    ],
)
def test_reasons_of_a_handler_mismatch_are_translated(selectors, chinese):
    """Each reason of the selectors is translated."""
    given = Selectors(process_keys=("leave",), **selectors)
    assert translate_reason(given.why_filtered_out(EVENT) or given.why_not(EVENT), "zh") == chinese


def test_missing_event_members_are_translated():
    """A missing version or conclusion is translated."""
    bare = Event(id="", flow_instance_id="1", process_definition_key="leave", data={}, received_at=None)
    given = Selectors(process_keys=("leave",), versions=">=2").why_filtered_out(bare)
    assert translate_reason(given, "zh") == "没有 processDefinitionVersion，而版本条件 '>=2' 需要它"
    given = Selectors(process_keys=("leave",), conclusions=("approved",)).why_not(bare)
    assert translate_reason(given, "zh") == "没有结论，而处理器需要其中之一：approved"


@pytest.mark.parametrize(
    ("selectors", "chinese"),
    [
        ({"process_keys": ("leave",)}, "流程 Key leave"),
        ({"every": True}, "所有事件"),
        ({"every": True, "sources": ("oa",)}, "所有事件，来源 oa 属于 oa"),
        (
            {
                "callback_classes": ("com.example.A",),
                "process_keys": ("leave",),
                "versions": ">=2,<5",
                "sources": ("oa", "erp"),
                "conclusions": ("approved",),
                "when": {"/amount": 5},
            },
            "处理类 com.example.A，流程 Key leave，版本 3 符合 >=2,<5，来源 oa 属于 oa, erp，"  # noqa: ISC004
            "结论 approved，字段条件 /amount",
        ),
    ],
)
def test_reasons_of_a_handler_match_are_translated(selectors, chinese):
    """Each part of a stored reason is translated."""
    route = Router([Candidate(handler_id="p:h", selectors=Selectors(**selectors))]).route(EVENT)
    assert translate_reason(route.handlers["p:h"], "zh") == chinese
    assert translate_reason(route.handlers["p:h"], "en") == route.handlers["p:h"]


def test_router_hints_are_translated():
    """Each hint of the router at a misspelling is translated."""
    router = Router(
        [Candidate(handler_id="p:h", selectors=Selectors(callback_classes=("Aaaaa",), process_keys=("Leave",)))]
    )
    for key, callback_class, chinese in (
        ("leave", None, "流程 Key 'Leave' 仅大小写或空白不同"),
        ("Leaves", None, "流程 Key 'Leave' 与之相近"),
        ("Aaaaa", None, "'Aaaaa' 不是流程 Key，而是处理类"),
        (None, "aaaaa", "处理类 'Aaaaa' 仅大小写或空白不同"),
        (None, "Aaaaab", "处理类 'Aaaaa' 与之相近"),
        (None, "Leave", "'Leave' 不是处理类，而是流程 Key"),
    ):
        hints = router.explain(process_key=key, callback_class=callback_class).hints
        assert chinese in [translate_reason(hint, "zh") for hint in hints]


def test_unknown_texts_are_unchanged():
    """Texts that are unknown or very long are returned unchanged, within a short time."""
    for text in ("", "no reason is stored", "/a is " * 700, "class " + " and key " * 2_000):
        assert translate_reason(text, "zh") == text
    assert translate_reason("(others)", "zh") == "（其他）"
