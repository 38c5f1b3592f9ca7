"""The text of a message about an alert, in English or Chinese.

Classes and keys come from callbacks, so a sender of callbacks can put any text into a message. Line breaks in such text
are replaced by spaces, so each value stays on one line.
"""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, tzinfo

    from flowhooks import Alert

LANGUAGES: Final = ("en", "zh")
MAX_TITLE_CHARS: Final = 200
"""Maximum characters of a title. Mail clients show no more of a subject."""
MAX_VALUE_CHARS: Final = 1_500
"""Maximum characters of a value. WeCom accepts 2,048 bytes in total."""

_CAUSE_NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "dead": ("dead", "最终失败"),
    "unknown": ("unknown", "结果未知"),
    "parked": ("parked", "事件暂存"),
    "waiting": ("waiting", "等待过久"),
    "circuit_open": ("circuit open", "已熔断"),
    "overdue": ("overdue", "超时未结束"),
    "quarantined": ("quarantined", "插件已隔离"),
    "condition": ("condition undecided", "条件无法判断"),
    "conclusion": ("unknown conclusion", "未知结论"),
    "conflict": ("conflict", "回调冲突"),
    "engine_unreachable": ("engine unreachable", "无法读取引擎"),
    "callbacks_missed": ("callbacks missed", "回调缺失"),
    "history_gap": ("gap in the history", "历史缺口"),
    "instance_id_reused": ("instance id reused", "实例 ID 重复使用"),
    "source_silent": ("source silent", "来源无回调"),
    "source_rejected": ("callbacks rejected", "回调被拒绝"),
    "reconciliation_unconfirmed": ("to be confirmed", "待确认补收"),
    "instances_invalid": ("instances invalid", "实例数据无效"),
    "clock_skew": ("clock skew", "时钟偏差"),
    "disk_nearly_full": ("disk nearly full", "磁盘将满"),
    "ledger_growth": ("ledger too large", "台账过大"),
    "backup_too_old": ("backup too old", "备份过旧"),
    "clock_jump": ("clock jumped", "时钟跳变"),
    "key_expiring": ("credential expires", "凭证即将过期"),
    "test": ("test", "测试"),
}
_CHINESE_TEXTS: Final[Mapping[str, str]] = {
    "dead": (
        "处理器 {subject} 有 {count} 个投递最终失败。请排除原因，然后执行 flowhooks events replay --handler {quoted}。"
    ),
    "unknown": (
        "处理器 {subject} 有 {count} 个投递结果未知。请核实各投递的业务是否已完成，然后执行 flowhooks events resolve。"
    ),
    "parked": (
        "有 {count} 个事件没有匹配的处理器，已暂存（{subject}）。"
        "请安装监听它的插件，或把流程 Key 加入 routing.ignore_process_keys。"
    ),
    "waiting": ("处理器 {subject} 有 {count} 个投递尚未开始：处理器没有加载，或线程被占用。请执行 flowhooks check。"),
    "circuit_open": (
        "处理器 {subject} 连续失败，已熔断，{count} 个投递在等待。请排除原因。"
        "flowhooks 定时试探执行一个投递，成功后恢复。也可执行 flowhooks handlers resume {quoted} 立即恢复。"
    ),
    "overdue": (
        "处理器 {subject} 有 {count} 次尝试超过时限。线程无法终止，请查明处理器在等待什么。"
        '设置 isolation = "process" 后，超时的尝试会被终止。'
    ),
    "quarantined": (
        "插件 {subject} 无法使用，其处理器的投递在等待。请修复插件，然后重启服务器。flowhooks check 显示原因。"
    ),
    "condition": (
        "{subject} 有 {count} 个事件或投递无法判断处理器的条件，因为字段缺失或类型不符。"
        "请让流程引擎发送该字段，然后处理已暂存的事件：flowhooks events list --state parked。"
    ),
    "conclusion": (
        "没有处理器接收{subject}。这类事件已忽略。请在处理器中声明该结论、在 [sources.NAME.conclusion] 中映射，"
        "或加入 routing.ignore_conclusions。"
    ),
    "conflict": (
        "来源 {subject} 有 {count} 次回调与已有事件标识相同但数据不同，均已返回 409 并保存。"
        "请确认流程引擎是否重复使用了流程实例 ID，或更改了结论。"
    ),
    "engine_unreachable": (
        "无法读取流程引擎 {subject} 的历史，已失败 {count} 次，或者在告警开始之后没有完整读取过。"
        "如果是无法存储流程引擎 {subject} 的历史，请查明数据库为什么繁忙。"
        "否则请检查 [sources.NAME.engine] 的 url 和凭证以及流程引擎本身，然后执行 "
        "flowhooks engines reconcile --source {quoted}。"
    ),
    "callbacks_missed": (
        "流程引擎 {subject} 有 {count} 个流程实例已完成但没有回调，事件已从其历史补收。请查明流程引擎为什么没有回调。"
    ),
    "history_gap": (
        "流程引擎 {subject} 的历史有 {count} 个时间段无法读取，在此期间结束的流程实例可能缺失。"
        "请执行 flowhooks engines list 查看时间段，历史可读后执行 "
        "flowhooks engines reconcile --source {quoted} --since TIME。"
    ),
    "instance_id_reused": (
        "流程引擎 {subject} 有 {count} 个流程实例重复使用了以前的实例 ID，均已作为新事件补收。"
        "请确认流程引擎是否恢复过备份或更换过。"
    ),
    "source_silent": (
        "来源 {subject} 没有发送回调，已超过 silent_after。请确认流程引擎是否运行、能否访问 flowhooks。"
        "flowhooks sources test {quoted} 显示它的凭证是否被接受。"
    ),
    "source_rejected": (
        "来源 {subject} 最近一小时有 {count} 次回调被拒绝，多于接收的次数。请修正流程引擎发送的内容，"
        "控制台的来源页面显示原因。"
    ),
    "reconciliation_unconfirmed": (
        "流程引擎 {subject} 有 {count} 个流程实例等待补收，超过 max_new 的上限，或者配置中不再有其流程引擎。"
        "请执行 flowhooks engines list 查看，然后执行 flowhooks engines reconcile --source {quoted} --confirm，"
        "或恢复配置。"
    ),
    "instances_invalid": (
        "流程引擎 {subject} 有 {count} 个已结束的流程实例没有事件，因为其数据不能成为回调。请在流程引擎或配置中更正，"
        "然后执行 flowhooks engines reconcile --source {quoted} --since TIME。控制台显示原因。"
    ),
    "clock_skew": "流程引擎 {subject} 的时钟与 flowhooks 相差超过 30 秒。请用 NTP 同步两边的时钟。",
    "disk_nearly_full": (
        "flowhooks 台账所在磁盘的剩余空间低于 alerts.disk_free_mib。磁盘写满后，回调将得到 503。"
        "请清理磁盘，或把数据库移到更大的磁盘。"
    ),
    "ledger_growth": (
        "flowhooks 的台账超过 alerts.ledger_max_mib，或 24 小时内的增长超过 alerts.ledger_growth_mib（{count} MiB）。"
        "请查明谁发送了这么多或这么大的事件，"
        "缩短保留期，或执行 flowhooks db purge。"
    ),
    "backup_too_old": (
        "flowhooks 的台账没有备份记录，或最近一次备份已超过 alerts.backup_max_age。请查明定期备份为什么没有运行，"
        "并执行 flowhooks db backup FILE。使用 PostgreSQL 时执行 pg_dump，然后执行 flowhooks db record-backup。"
    ),
    "clock_jump": "主机 {subject} 的时钟在最近 24 小时内跳变 {count} 次。请查明是什么设置了时钟，并用 NTP 同步。",
    "key_expiring": (
        "来源 {subject} 的最后一个凭证即将到期，此后其回调将得到 401。"
        "请执行 flowhooks sources rotate {quoted}，并把新密钥交给流程引擎。"
    ),
    "test": "这是 flowhooks 的测试消息，由 flowhooks alerts test 发送。没有任何问题。",
}
_CHINESE_OTHERS: Final = "另有 {count} 条同类告警超过数量上限，未逐一发出。请执行 flowhooks check。"
_CHINESE_UNDECIDED: Final = (
    "有 {count} 个事件（{subject}）已暂存，等待运维人员决定："
    "流程引擎的历史没有说明流程实例如何结束，或以前的实例用过同一 ID。"
    "请在流程引擎中查明，实例已完成则执行 flowhooks events reroute ID，否则执行 flowhooks events dismiss ID。"
)
_CHINESE_GROWTH: Final = "比上次通知增加 {new}。"
_RESOLVED: Final = {"en": "resolved", "zh": "已恢复"}
_CHINESE_RESOLVED: Final = "已恢复：{subject} 的原因“{cause}”已消除，从 {since} 到 {until}，最后的数量为 {count}。"
_SEVERITY_NAMES: Final = {"zh": {"info": "提示", "warning": "警告", "error": "错误"}}
_LABELS: Final = {
    "en": (
        *("Cause", "Severity", "Subject", "Plugin version", "Since", "Resolved", "Count", "Event", "Alert", "Latest"),
        *("Last error", "Host", "Console"),
        "{name}: {value}",
    ),
    "zh": (
        *(
            "原因",
            "级别",
            "对象",
            "插件版本",
            "始于",
            "恢复于",
            "数量",
            "事件",
            "告警",
            "最近一次",
            "最近的错误",
            "主机",
        ),
        *("控制台", "{name}：{value}"),
    ),
}
_GROWN_COUNT: Final = {"en": "{count} (+{new} since the last notification)", "zh": "{count}（比上次通知增加 {new}）"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The message to people about an alert.

    Attributes:
        id: the alert's id, the same in all its notifications.
        number: number of this notification: 1 for the first, and 1 more each time the alert has grown.
        is_resolved: whether the message reports the end of the alert.
        title: the title, one line.
        text: the message of the alert, one line: the problem and the next step.
        details: lines, each with a label and a value.
        link: the line with the address of the console; `""`: no link.
    """

    id: str
    number: int
    is_resolved: bool = False
    title: str
    text: str
    details: tuple[str, ...]
    link: str = ""


def compose(alert: Alert, *, language: str, prefix: str, console_url: str, zone: tzinfo | None = None) -> Message:
    """Compose the message about an alert.

    Args:
        alert: the alert.
        language: one of `LANGUAGES`.
        prefix: start of the title; may be `""`.
        console_url: the console's address; `""`: the address in the alert, if it is complete and not only a path.
        zone: time zone of the times; None: the time zone of this machine.
    """
    cause, subject = _CAUSE_NAMES[alert.cause][LANGUAGES.index(language)], one_line(alert.subject)
    text = one_line(alert.message)
    if language == "zh":
        text = _chinese_text(alert, cause, subject, zone)
    *labels, line_format = _LABELS[language]
    link = _console_link(console_url, alert.console_url)
    count_format = _GROWN_COUNT[language] if alert.new_count else "{count}"
    values = (
        cause,
        _SEVERITY_NAMES.get(language, {}).get(alert.severity, alert.severity),
        subject,
        one_line(alert.plugin_version),
        _local_time(alert.started_at, zone),
        _local_time(alert.resolved_at, zone),
        count_format.format(count=alert.count, new=alert.new_count),
        one_line(alert.event_id),
        one_line(alert.id),
        _local_time(alert.last_at, zone),
        one_line(alert.last_error),
        one_line(alert.host),
    )
    # The last label has no value here: it is the label of the link.
    details = [
        line_format.format(name=label, value=value) for label, value in zip(labels, values, strict=False) if value
    ]
    growth = f"(+{alert.new_count})" if alert.new_count else ""
    resolved = f"[{_RESOLVED[language]}]" if alert.resolved_at else ""
    title = " ".join(part for part in (prefix, resolved, line_format.format(name=cause, value=subject), growth) if part)
    return Message(
        id=alert.id,
        number=alert.notification,
        is_resolved=alert.resolved_at is not None,
        title=_truncate(title, MAX_TITLE_CHARS),
        text=_truncate(text, MAX_VALUE_CHARS),
        details=tuple(details),
        link=f"{labels[-1]}: {link}" if link else "",
    )


def _chinese_text(alert: Alert, cause: str, subject: str, zone: tzinfo | None) -> str:
    if alert.resolved_at:
        return _CHINESE_RESOLVED.format(
            subject=subject,
            cause=cause,
            count=alert.count,
            since=_local_time(alert.started_at, zone),
            until=_local_time(alert.resolved_at, zone),
        )
    template = _CHINESE_OTHERS if alert.subject == "(others)" else _CHINESE_TEXTS[alert.cause]
    if alert.cause == "parked" and alert.subject.startswith("source "):
        template = _CHINESE_UNDECIDED
    growth = _CHINESE_GROWTH.format(new=alert.new_count) if alert.new_count else ""
    return template.format(subject=subject, quoted=shlex.quote(subject), count=alert.count) + growth


def one_line(text: str) -> str:
    """Replace line breaks and other unprintable characters by spaces, and truncate the text."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return _truncate(" ".join(line.split()), MAX_VALUE_CHARS)


def _local_time(timestamp: datetime | None, zone: tzinfo | None) -> str:
    """Return the local time with the name of its zone and the offset from UTC; `""` for None."""
    if timestamp is None:
        return ""
    local = timestamp.astimezone(zone)
    name, offset = local.strftime("%Z"), local.isoformat()[-6:]
    zone_text = name if name in {"UTC", "GMT"} else f"{name} (UTC{offset})" if name.isalpha() else f"UTC{offset}"
    return f"{local:%Y-%m-%d %H:%M:%S} {zone_text}"


def _console_link(console_url: str, page: str) -> str:
    """Return the address of a page of the console; `""` if neither argument has the host. `page` may be a path."""
    parts = urlsplit(page)
    if not console_url:
        return page if parts.scheme else ""
    base = console_url.rstrip("/").removesuffix("/console")
    return f"{base}{parts.path}{f'?{parts.query}' if parts.query else ''}"


def _truncate(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
