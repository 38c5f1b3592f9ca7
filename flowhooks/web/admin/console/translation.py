"""Chinese for texts that the ledger and the router have in English: messages of alerts, reasons and hints."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flowhooks.background.alerts.cause import MessageTemplate
from flowhooks.background.alerts.causes import MESSAGES, OTHERS, OTHERS_SUBJECT, SUSPENDED, UNDECIDED_ENDS
from flowhooks.background.alerts.engine_causes import (
    GAP,
    INVALID,
    MISSED,
    NO_ENGINE,
    OVERDUE,
    REJECTED,
    RENAMED,
    REUSED,
    SILENT,
    SKEW,
    UNCONFIRMED,
    UNREACHABLE,
    UNSTORED,
)
from flowhooks.background.alerts.maintenance_causes import BACKUP, CLOCK_JUMP, DISK, GROWTH, KEY, NO_BACKUP, SIZE
from flowhooks.background.alerts.routing_causes import (
    CONCLUSION,
    CONFLICT,
    NO_NAME,
    UNDECIDED_DELIVERIES,
    UNDECIDED_EVENTS,
)
from flowhooks.model.alert import AlertCause
from flowhooks.web.admin.console.texts import TEXTS, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.alert_queries import OpenAlert

MAX_REASON_CHARS: Final = 4_000
"""Longer reasons are not translated, because matching a pattern takes longer than the length of the text."""
_WHY: Final = "\0"
"""Stands for the part of a message that is not stored separately. No message contains it."""

CHINESE_MESSAGES: Final[Mapping[MessageTemplate, str]] = {
    MESSAGES[AlertCause.DEAD]: (
        "处理器 {subject} 有 {count:,} 个投递最终失败，最早始于 {since}。"
        "请排除原因，然后执行 `flowhooks events replay --handler {quoted}`。"
    ),
    MESSAGES[AlertCause.UNKNOWN]: (
        "处理器 {subject} 有 {count:,} 个投递结果未知，最早始于 {since}。"
        "请核实各投递的业务是否已完成，然后执行 `flowhooks events resolve`。"
    ),
    MESSAGES[AlertCause.WAITING]: (
        "处理器 {subject} 有 {count:,} 个投递尚未开始，最早的应在 {since} 执行。"
        "`flowhooks events list --state running` 显示占用线程的投递。"
    ),
    SUSPENDED: (
        "处理器 {subject} 的插件没有加载，有 {count:,} 个投递在等待，最早始于 {since}。"
        "请修复或重新安装插件，然后重启服务器。`flowhooks check` 显示原因。"
    ),
    MESSAGES[AlertCause.PARKED]: (
        "有 {count:,} 个事件没有匹配的处理器，已暂存（{subject}），最早始于 {since}。"
        "请安装监听它的插件，或把流程 Key 加入 routing.ignore_process_keys。"
    ),
    MESSAGES[AlertCause.CIRCUIT_OPEN]: (
        "处理器 {subject} 连续失败（{why}），自 {since} 起已熔断，{count:,} 个投递在等待。请排除原因。"
        "flowhooks 定时试探执行一个投递，成功后恢复。也可执行 `flowhooks handlers resume {quoted}` 立即恢复。"
    ),
    MESSAGES[AlertCause.OVERDUE]: (
        "处理器 {subject} 有 {count:,} 次尝试超过时限，最早始于 {since}。线程无法终止，请查明处理器在等待什么。"
        '设置 isolation = "process" 后，超时的尝试会被终止。'
    ),
    MESSAGES[AlertCause.QUARANTINED]: (
        "插件 {subject} 自 {since} 起无法使用，其处理器的投递在等待：{why}。请修复插件，然后重启服务器。"
    ),
    OTHERS: (
        "另有 {count:,} 条同类告警（{cause}）超过数量上限，未逐一发出，最早始于 {since}。请执行 `flowhooks check`。"
    ),
    UNDECIDED_EVENTS: (
        "有 {count:,} 个事件（{subject}）无法判断处理器的条件，最早始于 {since}：{why}。"
        "请让流程引擎发送该字段，然后处理已暂存的事件：`flowhooks events list --state parked`。"
    ),
    UNDECIDED_DELIVERIES: (
        "处理器 {subject} 的条件无法判断，有 {count:,} 个投递没有执行，最早始于 {since}：{why}。"
        "请修改处理器并重启服务器，或关闭这些投递：`flowhooks events resolve`。"
    ),
    CONCLUSION: (
        "没有处理器接收{subject}，首次收到于 {since}。这类事件已忽略{why}。请在处理器中声明该结论、"
        "在 [sources.NAME.conclusion] 中映射，或加入 routing.ignore_conclusions。"
    ),
    CONFLICT: (
        "来源 {subject} 有 {count:,} 次回调与已有事件标识相同但数据不同，最早始于 {since}，均已保存，不运行处理器。"
        "`flowhooks events show {why}` 显示差异。请确认流程引擎是否重复使用了流程实例 ID，或更改了结论。"
    ),
    UNDECIDED_ENDS: (
        "有 {count:,} 个事件（{subject}）已暂存，等待运维人员决定，最早始于 {since}："
        "流程引擎的历史没有说明流程实例如何结束，或以前的实例用过同一 ID。`flowhooks events show {why}` 显示最近一个。"
        "请在流程引擎中查明，实例已完成则执行 `flowhooks events reroute ID`，否则执行 "
        "`flowhooks events dismiss ID`。"
    ),
    NO_NAME: (
        "有 {count:,} 个事件既没有 callBackProcessClass 也没有 processDefinitionKey，最早始于 {since}，"
        "没有处理器能匹配。请让流程引擎至少发送其中一个，然后对已暂存的事件执行 `flowhooks events dismiss`。"
    ),
    UNREACHABLE: (
        "自 {since} 起无法读取流程引擎 {subject} 的历史，已失败 {count:,} 次：{why}。"
        "请检查 [sources.NAME.engine] 的 url 和凭证以及流程引擎本身，"
        "然后执行 `flowhooks engines reconcile --source {quoted}`。"
    ),
    UNSTORED: (
        "自 {since} 起无法存储流程引擎 {subject} 的历史，已失败 {count:,} 次：{why}。"
        "请查明数据库为什么繁忙、磁盘是否已满，然后执行 `flowhooks engines reconcile --source {quoted}`。"
    ),
    OVERDUE: (
        "流程引擎 {subject} 的历史自 {since} 之后没有完整读取过，也没有记录错误。"
        "请执行 `flowhooks engines reconcile --source {quoted}`，其结果说明是什么原因。"
        "日志中的原因是 `reconciliation_postponed` 或 `reconciliation_fault`。"
    ),
    RENAMED: (
        "流程引擎 {subject} 的历史自 {since} 之后没有完整读取过：现在以 {why} 的名称读取。"
        "请在 {subject} 的 former_names 中加入该名称，除非仍有服务器使用它。"
    ),
    NO_ENGINE: (
        "来源 {subject} 有 {count:,} 个已结束的流程实例没有事件，也不会补收，因为配置中不再有其流程引擎，"
        "最早结束于 {since}。如果该来源已改名，请在新名称的来源的 former_names 中加入 {subject}；"
        "否则请重新添加 [sources.{subject}.engine]。如果其间该流程引擎曾属于另一个来源，"
        "{subject} 的 former_names 必须包含该来源，否则处理器会执行两次。"
    ),
    MISSED: (
        "流程引擎 {subject} 有 {count:,} 个流程实例已完成但没有回调，最早于 {since} 补收，事件取自流程引擎的历史。"
        "`flowhooks events show {why}` 显示其中一个。请查明流程引擎为什么没有回调，或其回调为什么得到 503。"
    ),
    GAP: (
        "流程引擎 {subject} 的历史有 {count:,} 个时间段无法读取：{why}。"
        "在此期间结束的流程实例可能缺失。请向流程引擎核对，"
        "或在历史可读后执行 `flowhooks engines reconcile --source {quoted} --since {since}`。"
        "如果历史已删除，请查明哪些流程实例已结束，然后执行 `flowhooks engines close-gaps --source {quoted}`。"
    ),
    REUSED: (
        "流程引擎 {subject} 有 {count:,} 个流程实例重复使用了以前的实例 ID，最早发现于 {since}，均已作为新事件补收。"
        "`flowhooks engines show {why}` 显示最近一个。请确认流程引擎是否恢复过备份或更换过。"
    ),
    SILENT: (
        "来源 {subject} 自 {since} 起没有发送回调，已超过 silent_after。请确认流程引擎是否运行、能否访问 flowhooks。"
        "`flowhooks sources test {quoted}` 显示它的凭证是否被接受。"
    ),
    REJECTED: (
        "来源 {subject} 最近一小时有 {count:,} 次回调被拒绝，多于接收的次数，最早于 {since}。最近的原因：{why}。"
        "请修正流程引擎发送的内容，`flowhooks send` 可检查请求体。"
    ),
    UNCONFIRMED: (
        "流程引擎 {subject} 有 {count:,} 个流程实例等待补收，超过 max_new 的上限，最早结束于 {since}。"
        "请用 `flowhooks engines reconcile --source {quoted} --dry-run` 查看，"
        "然后执行 `flowhooks engines reconcile --source {quoted} --confirm` 补收，"
        "或执行 `flowhooks engines decline --source {quoted}` 不补收。"
    ),
    INVALID: (
        "流程引擎 {subject} 有 {count:,} 个已结束的流程实例没有事件，因为其数据不能成为回调：{why}。"
        "请在流程引擎或配置中更正，然后执行 `flowhooks engines reconcile --source {quoted} --since {since}`。"
        "该告警在最近一次发现一天后关闭。"
    ),
    DISK: (
        "台账所在磁盘（{subject}）只剩 {why}，低于 alerts.disk_free_mib，发现于 {since}。磁盘写满后，回调将得到 503。"
        "请清理磁盘，或把数据库移到更大的磁盘。`flowhooks db purge` 在文件内为新事件腾出空间。"
    ),
    SIZE: (
        "台账（{subject}）已有 {count:,} MiB，超过 alerts.ledger_max_mib，发现于 {since}。请缩短保留期或执行 "
        "`flowhooks db purge`，并查明事件为什么这么多：`flowhooks events list` 显示最新的事件。"
    ),
    GROWTH: (
        "台账（{subject}）24 小时内增长了 {count:,} MiB，超过 alerts.ledger_growth_mib，发现于 {since}。"
        "请查明谁发送了这么多或这么大的事件：`flowhooks events list` 显示最新的事件。"
        "然后用 rate 或 max_body_bytes 限制来源，或调大该配置项。"
    ),
    BACKUP: (
        "台账（{subject}）的最近一次备份记录于 {since}，已超过 alerts.backup_max_age。请查明定期备份为什么没有运行，"
        "并执行 `flowhooks db backup FILE`。使用 PostgreSQL 时执行 pg_dump，然后执行 `flowhooks db record-backup`。"
    ),
    NO_BACKUP: (
        "台账（{subject}）自 {since} 起使用，没有备份记录，已超过 alerts.backup_max_age。"
        "请定期执行 `flowhooks db backup FILE`。使用 PostgreSQL 时执行 pg_dump，然后执行 `flowhooks db record-backup`。"
    ),
    CLOCK_JUMP: (
        "主机 {subject} 的时钟在最近 24 小时内跳变 {count:,} 次，最早于 {since}，最近一次相差 {why}。"
        "请查明是什么设置了时钟，并用 NTP 同步。跳变超过一天后，一小时内不清理数据。"
    ),
    KEY: (
        "来源 {subject} 的最后一个凭证将在 {why} 到期，此后其回调将得到 401。"
        "请执行 `flowhooks sources rotate {quoted}`，并把新密钥交给流程引擎。"
    ),
    SKEW: (
        "流程引擎 {subject} 的时钟与 flowhooks 相差 {why}，发现于 {since}。请用 NTP 同步两边的时钟。"
        "`flowhooks engines list` 显示差值。"
    ),
}
"""The Chinese message for each English one."""
_WITH_REASONS: Final = (UNDECIDED_EVENTS, UNDECIDED_DELIVERIES, CONCLUSION)
"""The messages whose `why` is a reason or a hint of the router, and not an error."""
_LAST_GAP: Final = re.compile(r"the last one from (\S+) to (\S+), (\w+)(?:, (.*))?", re.DOTALL)

_REASONS: Final = tuple(
    (re.compile(english, re.DOTALL), chinese)
    for english, chinese in (
        # Why a handler does not match.
        (r"kind is (.+), not (.+)", r"回调类型是 \1，不是 \2"),
        (r"source (['\"].*['\"]) is not one of (.+)", r"来源 \1 不在其中：\2"),
        (
            r"no processDefinitionVersion, but versions (.+) requires one",
            r"没有 processDefinitionVersion，而版本条件 \1 需要它",
        ),
        (r"version (-?\d+) is not (\S+)", r"版本 \1 不符合 \2"),
        (r"conclusion (['\"].*['\"]) is not one of (.+)", r"结论 \1 不在其中：\2"),
        (r"no conclusion, but the handler requires one of (.+)", r"没有结论，而处理器需要其中之一：\1"),
        (r"(/.*) is absent, but the condition (.+) needs it", r"缺少 \1，而条件 \2 需要它"),
        (r"(/.*) is an? (\w+), which the condition (.+) cannot decide", r"\1 的类型是 \2，条件 \3 无法判断"),
        (r"(/.*) is (.+), but the condition is (.+)", r"\1 是 \2，而条件是 \3"),
        (r"`flowhooks events show (\S+)` shows why", r"`flowhooks events show \1` 显示原因"),
        # Hints at a misspelling.
        (r"class (.+) differs only in case or white space", r"处理类 \1 仅大小写或空白不同"),
        (r"key (.+) differs only in case or white space", r"流程 Key \1 仅大小写或空白不同"),
        (r"conclusion (.+) differs only in case or white space", r"结论 \1 仅大小写或空白不同"),
        (r"class (.+) is similar", r"处理类 \1 与之相近"),
        (r"key (.+) is similar", r"流程 Key \1 与之相近"),
        (r"conclusion (.+) is similar", r"结论 \1 与之相近"),
        (r"(.+) is known, but not as a class", r"\1 不是处理类，而是流程 Key"),
        (r"(.+) is known, but not as a key", r"\1 不是流程 Key，而是处理类"),
    )
)
_WHOLE: Final = {"every": "所有事件", "neither class nor key": "既无处理类也无流程 Key", OTHERS_SUBJECT: "（其他）"}
_STARTS: Final = (("class ", "处理类 ", 6), ("key ", "流程 Key ", 4), ("every, ", "所有事件", 5))
"""How the reason for a match starts, the Chinese for it, and the number of characters that it replaces."""
_PARTS: Final = (
    (", conditions on ", "，字段条件 ", "", ""),
    (", conclusion ", "，结论 ", "", ""),
    (", source ", "，来源 ", " of ", " 属于 "),
    (", version ", "，版本 ", " in ", " 符合 "),
    (" and key ", "，流程 Key ", "", ""),
)
"""The further parts of the reason for a match, the last one first, and the word within each part."""


def alert_message(alert: OpenAlert, language: str) -> str:
    """Return the message of an alert; in English if another version of flowhooks stored another text."""
    if language != "zh":
        return alert.message
    for template, chinese in CHINESE_MESSAGES.items():
        before, mark, after = template.fill(
            cause=alert.cause, subject=alert.subject, count=alert.count, since=alert.started_at, why=_WHY
        ).partition(_WHY)
        end = len(alert.message) - len(after)
        if alert.message.startswith(before) and alert.message[end:] == after and (mark or end == len(before)):
            why = alert.message[len(before) : end]
            return MessageTemplate(chinese).fill(
                cause=alert.cause,
                subject=translate_reason(alert.subject, language),
                count=alert.count,
                since=alert.started_at,
                why=_translate_why(why)
                if template in _WITH_REASONS
                else _translate_gap(why)
                if template is GAP
                else why,
            )
    return alert.message


def _translate_why(why: str) -> str:
    """Translate a reason, which the id of its handler may precede, or hints in brackets."""
    if why.startswith(" (") and why.endswith(")"):
        return f"（{'；'.join(translate_reason(hint, 'zh') for hint in why[2:-1].split('; '))}）"
    handler, separator, reason = why.partition(": ")
    return f"{handler}：{translate_reason(reason, 'zh')}" if separator else translate_reason(why, "zh")


def _translate_gap(why: str) -> str:
    """Translate the interval of the last gap, and the reason why it could not be read."""
    parts = _LAST_GAP.fullmatch(why)
    if parts is None:
        return why
    key, detail = f"gap.{parts[3]}", f"，{parts[4]}" if parts[4] else ""
    return f"最近一段从 {parts[1]} 到 {parts[2]}，{text(key, 'zh') if key in TEXTS else parts[3]}{detail}"


def translate_reason(reason: str, language: str) -> str:
    """Return a reason or a hint of the router, or the subject of an alert; another text is returned unchanged."""
    if language != "zh" or len(reason) > MAX_REASON_CHARS:
        return reason
    if reason in _WHOLE:
        return _WHOLE[reason]
    if reason.startswith("conclusion ") and (
        parts := re.fullmatch(r"conclusion (['\"].*['\"]) of (.+)", reason, re.DOTALL)
    ):
        return f"结论 {parts[1]}（{translate_reason(parts[2], language)}）"
    for pattern, chinese in _REASONS:
        if match := pattern.fullmatch(reason):
            return match.expand(chinese)
    for start, chinese, length in _STARTS:
        if reason.startswith(start):
            return chinese + _translate_parts(reason[length:])
    return reason


def _translate_parts(reason: str) -> str:
    tail = ""
    for part, chinese, word, chinese_word in _PARTS:
        rest, mark, value = reason.rpartition(part)
        if mark:
            reason, tail = rest, f"{chinese}{value.replace(word, chinese_word, 1) if word else value}{tail}"
    return reason + tail
