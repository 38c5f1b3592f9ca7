"""The text of a note about an alert, in English or Chinese.

Callbacks name their classes and keys, so any sender of callbacks can have text in here. It stays on its line.
"""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks import Alert

LANGUAGES: Final = ("en", "zh")
MOST_SUBJECT: Final = 200
MOST_VALUE: Final = 1_500
"""Characters of a subject and of any one value: a mail client shows no more, and WeCom takes 2,048 bytes in all."""

_CAUSES: Final[Mapping[str, tuple[str, str]]] = {
    "dead": ("dead", "投递失败"),
    "unknown": ("unknown", "结果未知"),
    "parked": ("parked", "事件暂存"),
    "waiting": ("waiting", "长时间等待"),
    "circuit_open": ("circuit open", "处理器已熔断"),
    "overdue": ("overdue", "执行超时"),
    "quarantined": ("quarantined", "插件隔离"),
    "condition": ("condition undecided", "条件无法判断"),
    "conclusion": ("unknown conclusion", "未知结论"),
    "conflict": ("conflict", "回调冲突"),
}
_CHINESE: Final[Mapping[str, str]] = {
    "dead": (
        "处理器 {subject} 有 {count} 条投递最终失败。请排除原因后执行 flowhooks events replay --handler {quoted}。"
    ),
    "unknown": (
        "处理器 {subject} 有 {count} 条投递结果未知：运行中进程被终止。"
        "请查明各自做了什么，再执行 flowhooks events resolve。"
    ),
    "parked": (
        "有 {count} 个事件无处理器接收，仍在暂存（{subject}）。"
        "请安装监听它的插件，或在 routing.ignore_process_keys 中写明不需要。"
    ),
    "waiting": (
        "处理器 {subject} 有 {count} 条投递等待过久：处理器未加载，或线程被占用。请执行 flowhooks check 查看。"
    ),
    "circuit_open": (
        "处理器 {subject} 接连失败，已熔断，{count} 条投递在等待。flowhooks 会定时试投一条，成功即恢复；"
        "排除原因后也可执行 flowhooks handlers resume {quoted}。"
    ),
    "overdue": (
        "处理器 {subject} 有 {count} 次执行超过时限且无法终止。请查明它在等什么；"
        '设置 isolation = "process" 后，超时的执行会被终止。'
    ),
    "quarantined": (
        "插件 {subject} 无法使用，已被隔离，其处理器的投递在等待。请修复后重启服务；flowhooks check 会说明原因。"
    ),
    "condition": (
        "{subject} 有 {count} 个事件或投递无法判断处理器的条件：字段缺失或类型不符。"
        "请让引擎正确发送该字段，再执行 flowhooks events list --state parked 处理已暂存的事件。"
    ),
    "conclusion": (
        "没有处理器接收{subject}，这类事件已忽略。请在处理器中声明该结论、在 [sources.NAME.conclusion] 中映射，"
        "或写入 routing.ignore_conclusions。"
    ),
    "conflict": (
        "来源 {subject} 有 {count} 次回调与已有事件标识相同但数据不同，均已返回 409 并保存。"
        "请确认引擎是否重复使用了流程实例 ID，或更改了结论。"
    ),
}
_OTHERS: Final = "另有 {count} 个同类告警，因数量过多未逐一发出。请执行 flowhooks check 查看。"
_GROWN: Final = "比上次通知新增 {new}。"
_FIELDS: Final = {
    "en": ("Cause", "About", "Since", "Count", "Event", "Alert", "Latest", "Last error", "Look", "{name}: {value}"),
    "zh": ("原因", "对象", "始于", "数量", "事件", "告警", "最近一次", "最近的错误", "查看", "{name}：{value}"),
}
_TIME: Final = "%Y-%m-%d %H:%M:%S UTC"
_NEW: Final = {"en": "{count} (+{new} since the last notification)", "zh": "{count}（上次通知后新增 {new}）"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note for people about an alert.

    Attributes:
        id: the alert's id: the same in all its notifications.
        number: of this notification: 1 for the first, and 1 more each time that the alert has grown.
        title: one line.
        sentence: what is the matter and what to do, one line.
        facts: lines, each a name and a value.
        link: where to look; `""` for nowhere.
    """

    id: str
    number: int
    title: str
    sentence: str
    facts: tuple[str, ...]
    link: str = ""


def compose(alert: Alert, *, language: str, prefix: str, console_url: str) -> Note:
    """The note about an alert.

    Args:
        alert: the alert.
        language: one of `LANGUAGES`.
        prefix: what the title begins with; may be `""`.
        console_url: the console's address; `""` for none.
    """
    place = LANGUAGES.index(language)
    cause, subject = _CAUSES[alert.cause][place], on_one_line(alert.subject)
    sentence = on_one_line(alert.message)
    if language == "zh":
        text = _OTHERS if alert.subject == "(others)" else _CHINESE[alert.cause]
        grown = _GROWN.format(new=alert.new_count) if alert.new_count else ""
        sentence = text.format(subject=subject, quoted=shlex.quote(subject), count=alert.count) + grown
    *names, form = _FIELDS[language]
    link = _link(console_url, alert.event_id)
    count = _NEW[language] if alert.new_count else "{count}"
    values = (
        cause,
        subject,
        alert.started_at.strftime(_TIME),
        count.format(count=alert.count, new=alert.new_count),
        on_one_line(alert.event_id),
        on_one_line(alert.id),
        alert.last_at.strftime(_TIME) if alert.last_at else "",
        on_one_line(alert.last_error),
    )
    facts = [form.format(name=name, value=value) for name, value in zip(names, values, strict=False) if value]
    grown = f"(+{alert.new_count})" if alert.new_count else ""
    title = " ".join(part for part in (prefix, f"{cause}:" if place == 0 else f"{cause}：", subject, grown) if part)
    return Note(
        id=alert.id,
        number=alert.notification,
        title=_cut(title, MOST_SUBJECT),
        sentence=_cut(sentence, MOST_VALUE),
        facts=tuple(facts),
        link=f"{names[-1]}: {link}" if link else "",
    )


def on_one_line(text: str) -> str:
    """A text without line ends and whatever else cannot be printed."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return _cut(" ".join(line.split()), MOST_VALUE)


def _link(console_url: str, event_id: str) -> str:
    if not console_url or not event_id:
        return console_url
    return f"{console_url.rstrip('/')}/events/{quote(event_id, safe='')}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
