"""All texts of the console, in English and Chinese."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import Any, Final

TEXTS: Final[dict[str, dict[str, str]]] = {
    # All pages.
    "skip": {"en": "Skip to the content", "zh": "跳到正文"},
    "nav": {"en": "Pages", "zh": "页面"},
    "nav.overview": {"en": "Overview", "zh": "总览"},
    "nav.events": {"en": "Events", "zh": "事件"},
    "nav.errors": {"en": "Errors", "zh": "错误"},
    "nav.handlers": {"en": "Handlers", "zh": "处理器"},
    "nav.parked": {"en": "Parked", "zh": "暂存"},
    "nav.rejected_requests": {"en": "Rejected", "zh": "已拒绝"},
    "nav.operations": {"en": "Operations", "zh": "批量操作"},
    "nav.sources": {"en": "Sources", "zh": "来源"},
    "nav.engines": {"en": "Engines", "zh": "流程引擎"},
    "nav.alerts": {"en": "Alerts", "zh": "告警"},
    "handler_plugins": {"en": "Plugins of the handlers", "zh": "处理器所属插件"},
    "role.view": {"en": "read-only", "zh": "只读"},
    "role.operate": {"en": "full access", "zh": "可操作"},
    "logout": {"en": "Log out", "zh": "退出登录"},
    "login.title": {"en": "Log in", "zh": "登录"},
    "login.name": {"en": "Name", "zh": "用户名"},
    "login.password": {"en": "Password", "zh": "密码"},
    "login.wrong": {"en": "Wrong name or password.", "zh": "用户名或密码错误。"},
    "login.wait": {
        "en": "Too many attempts. Try again in {seconds} s.",
        "zh": "尝试次数过多，请在 {seconds} 秒后重试。",
    },
    "times.utc": {"en": "Times in UTC", "zh": "时区：UTC"},
    "times.local": {"en": "Times in", "zh": "时区："},
    # Words on several pages.
    "handler": {"en": "Handler", "zh": "处理器"},
    "error_group": {"en": "Error group", "zh": "错误分组"},
    "trace_id": {"en": "Trace id", "zh": "链路 ID"},
    "deliveries": {"en": "Deliveries", "zh": "投递"},
    "received": {"en": "Received", "zh": "接收时间"},
    "flow": {"en": "Flow instance id", "zh": "流程实例 ID"},
    "business_key": {"en": "Business key", "zh": "业务主键"},
    "q": {"en": "Flow, event or delivery id, or business key", "zh": "流程、事件或投递 ID，或业务主键"},
    "field": {"en": "Fields of the body", "zh": "请求体字段"},
    "class": {"en": "Callback class", "zh": "回调处理类"},
    "key": {"en": "Process definition key", "zh": "流程定义 Key"},
    "version": {"en": "Version", "zh": "流程版本"},
    "source": {"en": "Source", "zh": "来源"},
    "kind": {"en": "Kind", "zh": "回调类型"},
    "state": {"en": "State", "zh": "状态"},
    "since": {"en": "Received since", "zh": "接收时间从"},
    "until": {"en": "Received before", "zh": "接收时间至"},
    "why": {"en": "Why", "zh": "原因"},
    "traceback": {"en": "Traceback", "zh": "异常堆栈"},
    "search": {"en": "Search", "zh": "查询"},
    "reset": {"en": "Reset", "zh": "重置"},
    "newest": {"en": "Newest", "zh": "最新"},
    "newer": {"en": "Newer", "zh": "较新"},
    "older": {"en": "Older", "zh": "较早"},
    "more_than": {"en": "> {count}", "zh": "超过 {count}"},
    # States: of deliveries, of events, of attempts, of plugins and handlers.
    "state.any": {"en": "Any", "zh": "全部"},
    "state.waiting": {"en": "waiting", "zh": "等待中"},
    "state.running": {"en": "running", "zh": "执行中"},
    "state.succeeded": {"en": "succeeded", "zh": "成功"},
    "state.dead": {"en": "dead", "zh": "最终失败"},
    "state.unknown": {"en": "unknown", "zh": "结果未知"},
    "state.closed": {"en": "closed", "zh": "已关闭"},
    "state.parked": {"en": "parked", "zh": "暂存"},
    "state.dismissed": {"en": "dismissed", "zh": "已忽略"},
    "state.purged": {"en": "purged", "zh": "已清理"},
    "state.damaged": {"en": "damaged", "zh": "已损坏"},
    "state.suspended": {"en": "suspended", "zh": "已挂起"},
    "state.handler_missing": {"en": "handler missing", "zh": "处理器缺失"},
    "state.failed": {"en": "failed", "zh": "失败"},
    "state.rejected": {"en": "rejected", "zh": "处理器拒绝"},
    "state.lost": {"en": "lost", "zh": "中断"},
    "state.loaded": {"en": "loaded", "zh": "已加载"},
    "state.quarantined": {"en": "quarantined", "zh": "已隔离"},
    "state.condition": {"en": "condition undecided", "zh": "条件无法判断"},
    "state.conclusion": {"en": "unknown conclusion", "zh": "未知结论"},
    "state.conflict": {"en": "conflict", "zh": "回调冲突"},
    "state.denied": {"en": "denied by the settings", "zh": "被配置禁用"},
    "state.missing": {"en": "missing", "zh": "缺失"},
    "state.elsewhere": {"en": "in another process", "zh": "在其他进程"},
    "state.paused": {"en": "paused", "zh": "已暂停"},
    "state.circuit_open": {"en": "circuit open", "zh": "已熔断"},
    "state.overdue": {"en": "overdue", "zh": "超时未结束"},
    "state.retired": {"en": "retired", "zh": "已停用"},
    "state.engine_unreachable": {"en": "engine unreachable", "zh": "无法读取引擎"},
    "state.callbacks_missed": {"en": "callbacks missed", "zh": "回调缺失"},
    "state.history_gap": {"en": "gap in the history", "zh": "历史缺口"},
    "state.instance_id_reused": {"en": "instance id reused", "zh": "实例 ID 重复使用"},
    "state.source_silent": {"en": "source silent", "zh": "来源无回调"},
    "state.source_rejected": {"en": "callbacks rejected", "zh": "回调被拒绝"},
    "state.reconciliation_unconfirmed": {"en": "to be confirmed", "zh": "待确认补收"},
    "state.instances_invalid": {"en": "instances invalid", "zh": "实例数据无效"},
    "state.clock_skew": {"en": "clock skew", "zh": "时钟偏差"},
    "state.disk_nearly_full": {"en": "disk nearly full", "zh": "磁盘将满"},
    "state.ledger_growth": {"en": "ledger too large", "zh": "台账过大"},
    "state.backup_too_old": {"en": "backup too old", "zh": "备份过旧"},
    "state.clock_jump": {"en": "clock jumped", "zh": "时钟跳变"},
    "state.key_expiring": {"en": "credential expires", "zh": "凭证即将过期"},
    "state.test": {"en": "test", "zh": "测试"},
    # The overview.
    "overview.title": {"en": "Overview", "zh": "总览"},
    "overview.as_of": {"en": "As of", "zh": "截至"},
    "overview.trouble": {"en": "Problem:", "zh": "故障："},
    "overview.alert": {"en": "{count} unacknowledged alert", "zh": "{count} 条告警待确认"},
    "overview.alerts": {"en": "{count} unacknowledged alerts", "zh": "{count} 条告警待确认"},
    "overview.running": {"en": "running for {span}", "zh": "已运行 {span}"},
    "overview.failing": {"en": "Failing now", "zh": "当前故障"},
    "overview.circuit": {"en": "circuit open since", "zh": "已熔断，始于"},
    "overview.paused": {"en": "paused since", "zh": "已暂停，始于"},
    "overview.paused_by": {"en": "by {name}", "zh": "运维人员：{name}"},
    "overview.errors": {"en": "{count} failed attempts, last", "zh": "失败 {count} 次，最近"},
    "overview.waiting": {
        "en": "due {due}, retrying {retrying}, blocked {blocked}, paused {paused}",
        "zh": "到期 {due}，待重试 {retrying}，排队 {blocked}，已暂停 {paused}",
    },
    "overview.states": {"en": "Outstanding", "zh": "待处理"},
    "overview.oldest": {"en": "oldest: {age}", "zh": "最早：{age}前"},
    "tile.waiting": {"en": "on time", "zh": "正常"},
    "tile.running": {"en": "idle", "zh": "空闲"},
    "tile.dead": {"en": "none", "zh": "没有"},
    "tile.unknown": {"en": "none", "zh": "没有"},
    "tile.handler_missing": {"en": "none", "zh": "没有"},
    "tile.parked": {"en": "none", "zh": "没有"},
    "overview.arrivals": {"en": "Events received", "zh": "接收的事件"},
    "overview.per_minute": {
        "en": "per minute ({count} in the last {span})",
        "zh": "个/分钟（最近 {span}共 {count} 个）",
    },
    "overview.arrivals_says": {
        "en": "{count} events in {span}, at most {most} in each sixtieth of it",
        "zh": "{span}内收到 {count} 个事件，每六十分之一时段最多 {most} 个",
    },
    "overview.answers": {"en": "Responses of this process since its start:", "zh": "本进程启动以来的响应："},
    "overview.ago": {"en": "{span} ago", "zh": "{span}前"},
    "overview.now": {"en": "now", "zh": "现在"},
    "overview.performance": {"en": "Handler performance", "zh": "处理器表现"},
    "overview.sampled": {
        "en": "Last attempts of the newest deliveries ({count}), since",
        "zh": "按最新 {count} 个投递的最后一次尝试统计，起始时间",
    },
    "overview.attempts": {"en": "Attempts", "zh": "尝试"},
    "overview.attempts_says": {
        "en": "over time: {succeeded} succeeded, {failed} did not succeed",
        "zh": "随时间变化：成功 {succeeded} 次，未成功 {failed} 次",
    },
    "overview.rate": {"en": "Success rate", "zh": "成功率"},
    "overview.slowest": {"en": "Latency", "zh": "耗时"},
    "overview.lengths_says": {"en": "longest duration over time, up to {most}", "zh": "各时段最长耗时，最多 {most}"},
    "overview.median": {"en": "Median", "zh": "中位数"},
    "overview.most": {"en": "p95", "zh": "P95 耗时"},
    "overview.left_out": {"en": "Handlers not shown: {count}", "zh": "未显示的处理器：{count} 个"},
    "overview.nothing_yet": {"en": "No deliveries yet.", "zh": "还没有投递。"},
    "live.pause": {"en": "Pause", "zh": "暂停刷新"},
    "live.go_on": {"en": "Resume", "zh": "继续刷新"},
    "live.reload": {"en": "Reload", "zh": "刷新"},
    "live.focused": {
        "en": "Not refreshed while a link below has the focus.",
        "zh": "焦点位于下方链接时不会刷新。",
    },
    "live.lost": {"en": "The server does not respond.", "zh": "服务器没有响应。"},
    # Events.
    "events.title": {"en": "Events", "zh": "事件"},
    "events.what": {"en": "Key and class", "zh": "流程 Key 与处理类"},
    "events.pages": {"en": "Pages of events ({number})", "zh": "事件翻页（{number}）"},
    "events.repeats": {"en": "repeated: {count}", "zh": "重复回调 {count} 次"},
    "events.more": {"en": "and {count} more", "zh": "另有 {count} 个"},
    "events.none": {"en": "No matching events.", "zh": "没有匹配的事件。"},
    "events.none_yet": {"en": "No events yet.", "zh": "还没有收到事件。"},
    "events.searched_until": {
        "en": "No index supports this search, so it is slow. Searched so far: events received since",
        "zh": "此查询没有索引支持，速度较慢。已查到的接收时间：",
    },
    "events.look_on": {"en": "Keep searching", "zh": "继续查找"},
    "events.no_state": {"en": "Unknown state. Choose one from the list.", "zh": "状态无效，请从列表中选择。"},
    "events.no_time": {
        "en": "Invalid date or time. Write 2026-11-24T09:30 (in the time zone of this page), 2026-11-24T09:30+08:00, "
        "2026-11-24, 2h or 3d.",
        "zh": "日期或时间无效。请写成 2026-11-24T09:30（按本页的时区）、2026-11-24T09:30+08:00、2026-11-24、2h 或 3d。",
    },
    "events.no_such_time": {
        "en": "This time does not exist in this time zone, because the clocks were set forward over it. Enter an "
        "earlier or later time.",
        "zh": "该时区没有这个时间（夏令时跳过）。请输入更早或更晚的时间。",
    },
    "events.no_zone": {
        "en": "The server does not know this time zone. Write the time with its offset, such as "
        "2026-11-24T09:30+08:00. Or install time zone data (package tzdata) on the server.",
        "zh": "服务器没有该时区的数据。请写明时差，例如 2026-11-24T09:30+08:00，或在服务器上安装时区数据（tzdata）。",
    },
    "events.understood": {"en": "Interpreted as", "zh": "解析为"},
    "events.twice.earlier": {
        "en": "This time occurs twice. The earlier one is used.",
        "zh": "该时间出现两次，取较早的一次。",
    },
    "events.twice.later": {
        "en": "This time occurs twice. The later one is used.",
        "zh": "该时间出现两次，取较晚的一次。",
    },
    "events.lately": {"en": "Last", "zh": "最近"},
    "events.lately.15m": {"en": "15 minutes", "zh": "15 分钟"},
    "events.lately.1h": {"en": "hour", "zh": "1 小时"},
    "events.lately.24h": {"en": "24 hours", "zh": "24 小时"},
    "events.lately.7d": {"en": "7 days", "zh": "7 天"},
    # One event.
    "event.title": {"en": "Event", "zh": "事件"},
    "event.id": {"en": "Event id", "zh": "事件 ID"},
    "event.definition": {"en": "Process definition id", "zh": "流程定义 ID"},
    "event.repeats": {"en": "Identical callbacks received later", "zh": "后续相同回调次数"},
    "event.same_flow": {"en": "All events of this flow instance", "zh": "该流程实例的全部事件"},
    "event.same_trace": {"en": "All events of this trace", "zh": "该链路的所有事件"},
    "event.same_business_key": {"en": "All events of this business key", "zh": "该业务主键的全部事件"},
    "event.route": {"en": "Route", "zh": "路由"},
    "interface.console": {"en": "in the console", "zh": "控制台"},
    "interface.api": {"en": "through the API", "zh": "通过 API"},
    "interface.cli": {"en": "on the command line", "zh": "命令行"},
    "event.error_group": {"en": "All attempts with this error", "zh": "所有出现该错误的尝试"},
    "event.delivery_id": {"en": "Delivery id", "zh": "投递 ID"},
    "copy": {"en": "Copy", "zh": "复制"},
    "copied": {"en": "Copied", "zh": "已复制"},
    "event.next": {"en": "Attempt {number}", "zh": "第 {number} 次尝试"},
    "event.next_of": {"en": "Attempt {number} of {total}", "zh": "第 {number} 次尝试（共 {total} 次）"},
    "event.next_in": {"en": "{attempt}, in {duration}", "zh": "{attempt}，{duration}后"},
    "event.next_now": {"en": "{attempt}, due now", "zh": "{attempt}，已到时间"},
    "event.next_running": {"en": "{attempt}, running since", "zh": "{attempt}，运行中，开始时间："},
    "event.facts": {"en": "Details", "zh": "详情"},
    "event.blocked_by": {
        "en": "Blocked by an earlier event with the same order key:",
        "zh": "按顺序执行，正在等待同一排序键的前一事件：",
    },
    "event.for_plugin": {
        "en": "Waiting for the handler. Its plugin is not loaded.",
        "zh": "正在等待处理器：其插件没有加载。",
    },
    "event.circuit_open": {
        "en": "Waiting until the handler works again. Its circuit breaker is open because its last attempts failed. "
        "Open since",
        "zh": "等待处理器恢复：处理器连续失败，已熔断。熔断时间：",
    },
    "event.paused": {
        "en": "Waiting until the handler is resumed. Paused since",
        "zh": "处理器已暂停，恢复后才会执行。暂停时间：",
    },
    "event.operations": {"en": "Operations that acted on it:", "zh": "处理过它的批量操作："},
    "event.note": {"en": "Note:", "zh": "备注："},
    "event.then.dead": {"en": "Fix the cause, then replay the delivery:", "zh": "排除原因后重放："},
    "event.then.unknown": {
        "en": "The attempt was interrupted. Find out whether the handler did its work, then record the outcome:",
        "zh": "执行被中断。请核实业务是否已完成，再人工确认：",
    },
    "event.verdicts": {
        "en": "with --did, --did-not or --close",
        "zh": "加 --did、--did-not 或 --close",
    },
    "event.earlier": {"en": "Earlier attempts not shown: {count}", "zh": "未显示的更早尝试：{count} 次"},
    "event.attempt": {"en": "Attempt {number}", "zh": "第 {number} 次尝试"},
    "event.returned": {"en": "Returned", "zh": "返回值"},
    "event.result_dropped": {"en": "Result not stored:", "zh": "返回值未保存："},
    "event.log": {"en": "Log of the handler", "zh": "处理器日志"},
    "event.no_attempt": {"en": "No attempt has started.", "zh": "尚未开始尝试。"},
    "event.no_delivery": {"en": "This event has no deliveries.", "zh": "没有投递。"},
    "event.left_out": {"en": "Deliveries not shown: {count}", "zh": "未显示的投递：{count} 个"},
    "event.body": {"en": "Body", "zh": "请求体"},
    "event.pretty": {"en": "Body, indented", "zh": "请求体（缩进显示）"},
    "event.raw": {"en": "As received", "zh": "原文"},
    "event.mapped": {"en": "As mapped", "zh": "映射后的数据"},
    "event.mapped_says": {
        "en": "The settings of the source, or its receiver, made this body from the request to the fixed URL.",
        "zh": "该请求体由来源的配置或接收插件根据发往固定地址的请求生成。",
    },
    "event.received_body": {"en": "Request as received", "zh": "收到的请求原文"},
    "event.received_too_long": {
        "en": "The request is long. Only its beginning is shown. Download the file for all of it.",
        "zh": "请求较长，仅显示开头。完整内容请下载文件。",
    },
    "event.too_long": {
        "en": "The body is long. Only its beginning is shown. Download the file for all of it.",
        "zh": "请求体较长，仅显示开头。完整内容请下载文件。",
    },
    "event.download": {"en": "Download as a file", "zh": "下载为文件"},
    "event.conflicts": {"en": "Conflicting bodies", "zh": "冲突的请求体"},
    "event.conflicts_says": {
        "en": "Later callbacks had the same identity but different data. They were rejected with 409. The first "
        "callback remains valid until an operator accepts another body as a correction.",
        "zh": "后来的回调标识相同但数据不同，已返回 409 拒绝。以第一次回调为准，除非运维人员将其他请求体采纳为更正。",
    },
    "event.conflicts_answered": {
        "en": "Later requests had the same identity but different data. They were answered as a success, because their "
        "sender must not fail, and the bodies were kept. The first request remains valid until an operator accepts "
        "another body as a correction.",
        "zh": "后来的请求标识相同但数据不同。为避免发送方失败，已返回成功，请求体已保存。"
        "以第一次请求为准，除非运维人员将其他请求体采纳为更正。",
    },
    "event.digest": {"en": "Digest of the body", "zh": "请求体的摘要"},
    "event.diff": {"en": "Differences from the first body", "zh": "与第一个请求体的差异"},
    "event.diff_says": {
        "en": "Lines with - are only in the first body, lines with + only in this one. White space and the order of "
        "members are left out.",
        "zh": "标 - 的行只在第一个请求体中，标 + 的行只在本请求体中。不比较空白和成员顺序。",
    },
    "event.diff_removed": {"en": "only in the first body:", "zh": "只在第一个请求体中："},
    "event.diff_added": {"en": "only in this body:", "zh": "只在本请求体中："},
    "event.conflict_count": {"en": "Conflicting bodies: {count}", "zh": "冲突的请求体：{count} 个"},
    "event.diff_equal": {"en": "Equal lines: {count}", "zh": "相同的行：{count} 行"},
    "event.diff_none": {
        "en": "The bodies are too long to be compared here.",
        "zh": "请求体过长，无法在此比较。",
    },
    "event.diff_kind": {"en": "Kind of this callback:", "zh": "该回调的类型："},
    "event.corrected_by": {
        "en": "This body was accepted as a correction. Its event:",
        "zh": "该请求体已被采纳为更正，对应的事件：",
    },
    "event.corrects": {"en": "Corrects event", "zh": "更正的事件"},
    "event.unfinished": {
        "en": "Deliveries of the first body that are not finished: {count}. They still run with the first body. Close "
        "them if their work is not needed.",
        "zh": "第一个请求体尚未完成的投递：{count} 个，仍将按第一个请求体执行。如果不再需要，请关闭。",
    },
    "event.late_callbacks": {"en": "Further bodies of this instance", "zh": "该流程实例的其他请求体"},
    "event.late_callbacks_says": {
        "en": "flowhooks took the finished instance from the engine's history, and the engine sent a callback later. "
        "Nothing ran twice. If the event was parked or dismissed, the callback decided it, and the body from the "
        "history is shown here.",
        "zh": "flowhooks 先从流程引擎的历史记录中取得了这个已结束的流程实例，之后流程引擎才发送回调。"
        "没有任何处理器重复运行。如果事件当时处于暂存或已忽略状态，则以该回调为准，这里显示历史记录中的请求体。",
    },
    "event.origin": {"en": "Origin", "zh": "由来"},
    "event.traceparent": {"en": "Trace (traceparent)", "zh": "链路（traceparent）"},
    "event.origin.correction": {"en": "correction, accepted by an operator", "zh": "更正，由运维人员采纳"},
    "event.origin.ingress": {"en": "request to the fixed URL", "zh": "发往固定地址的请求"},
    "event.origin.reconciled": {"en": "taken from the engine's history", "zh": "取自流程引擎的历史记录"},
    "event.by": {"en": "by", "zh": "操作人："},
    "events.by_attempt": {"en": "By attempts", "zh": "按尝试查找"},
    "events.no_plugin": {
        "en": "Write a plugin as its name, or as its name and version, such as contracts==1.4.",
        "zh": "请写插件的名称，或名称和版本，例如 contracts==1.4。",
    },
    "events.no_trigger": {"en": "Unknown reason. Choose one from the list.", "zh": "执行原因无效，请从列表中选择。"},
    "plugin": {"en": "Plugin of an attempt", "zh": "某次尝试的插件"},
    "ran_by": {"en": "Plugin of the last attempt", "zh": "最后一次尝试的插件"},
    "trigger": {"en": "Why it started", "zh": "执行原因"},
    "attempted_since": {"en": "Attempted since", "zh": "尝试不早于"},
    "event.ran_by": {
        "en": "All events whose last attempt was by this version",
        "zh": "最后一次尝试由该版本执行的全部事件",
    },
    "event.operation": {"en": "bulk operation", "zh": "批量操作"},
    "trigger.first": {"en": "first attempt", "zh": "首次尝试"},
    "trigger.retry": {"en": "retry", "zh": "重试"},
    "trigger.trial": {"en": "trial", "zh": "试探执行"},
    "trigger.reconciled": {"en": "reconciliation", "zh": "对账"},
    "trigger.repeated": {"en": "repeated callback", "zh": "重复回调"},
    "trigger.probe": {"en": "probe", "zh": "探查"},
    "trigger.replay": {"en": "replay", "zh": "重放"},
    "trigger.resolved": {"en": "resolved", "zh": "人工确认"},
    "trigger.run-now": {"en": "run now", "zh": "立即执行"},
    # Handlers and plugins.
    "handlers.title": {"en": "Handlers and plugins", "zh": "处理器与插件"},
    "handlers.name": {"en": "Name contains", "zh": "名称包含"},
    "handlers.since": {
        "en": "Recent calls, counted in the newest deliveries ({count}), since",
        "zh": "最近调用按最新 {count} 个投递统计，起始时间",
    },
    "handlers.cut": {
        "en": "The outstanding numbers are incomplete. At most {count} of each kind are counted.",
        "zh": "待处理的数量不完整：每类最多统计 {count} 个。",
    },
    "handlers.hooks": {"en": "Hooks:", "zh": "钩子："},
    "handlers.of": {"en": "Handlers of {name}", "zh": "{name} 的处理器"},
    "handlers.listens": {"en": "Listens to", "zh": "选择条件"},
    "handlers.open": {"en": "Outstanding", "zh": "待处理"},
    "handlers.called": {"en": "Last called", "zh": "最近调用"},
    "handlers.times": {"en": "{count} of the newest deliveries", "zh": "最新投递中的 {count} 个"},
    "handlers.never": {"en": "no recent calls", "zh": "近期无调用"},
    "handlers.retry": {"en": "retries: up to {count} attempts", "zh": "自动重试：最多 {count} 次尝试"},
    "handlers.concurrency": {"en": "at most {count} at a time", "zh": "最多同时执行 {count} 个"},
    "handlers.rate": {"en": "starts at most {rate}", "zh": "最多启动 {rate}"},
    "handlers.process": {
        "en": "in a process of its own: at most {seconds} s and {mebibytes} MiB",
        "zh": "在独立进程中运行：最多 {seconds} 秒、{mebibytes} MiB",
    },
    "handlers.thread": {"en": "in a thread: overdue after {seconds} s", "zh": "在线程中运行：{seconds} 秒后视为超时"},
    "handlers.missing": {
        "en": "This plugin was loaded before and is not loaded now. Deliveries to its handlers wait.",
        "zh": "以前加载过，现在没有加载。其处理器的投递都在等待。",
    },
    "handlers.elsewhere": {
        "en": "This plugin is not loaded here. Other processes run its handlers.",
        "zh": "此处未加载。其处理器由其他进程运行。",
    },
    "handlers.retired": {
        "en": "This plugin was uninstalled. Its stored deliveries remain.",
        "zh": "已卸载。已存储的投递仍然保留。",
    },
    "handlers.circuit_open": {
        "en": "The circuit breaker is open because the last attempts failed. Open since",
        "zh": "连续失败，已熔断。熔断时间：",
    },
    "circuit.reason": {"en": "Last error:", "zh": "最近的错误："},
    "circuit.retry": {"en": "Next trial at", "zh": "下次试探："},
    "handlers.paused": {
        "en": "New deliveries are stored and wait. Paused since",
        "zh": "新的投递照常保存，恢复前不执行。暂停时间：",
    },
    "handlers.none_of_it": {"en": "This plugin has no handlers.", "zh": "该插件没有处理器。"},
    "handlers.none": {"en": "No matching plugins.", "zh": "没有匹配的插件。"},
    "handlers.pages": {"en": "Pages of handlers", "zh": "处理器翻页"},
    "handlers.first": {"en": "First", "zh": "首页"},
    "handlers.next": {"en": "Next", "zh": "下一页"},
    "listens.class": {"en": "class", "zh": "处理类"},
    "listens.key": {"en": "key", "zh": "流程 Key"},
    "listens.every": {"en": "every event", "zh": "所有事件"},
    "listens.versions": {"en": "versions", "zh": "版本"},
    "listens.source": {"en": "source", "zh": "来源"},
    "listens.kind": {"en": "kind", "zh": "回调类型"},
    # Parked events.
    "parked.title": {"en": "Parked events", "zh": "暂存的事件"},
    "parked.more": {
        "en": "There are more events. Only the oldest {count} are counted.",
        "zh": "数量更多，仅统计最早的 {count} 个。",
    },
    "parked.waits_for": {"en": "Routing fields", "zh": "路由字段"},
    "parked.oldest": {"en": "Oldest", "zh": "最早"},
    "parked.then": {"en": "What to do", "zh": "处理办法"},
    "parked.deliverable": {
        "en": "A handler takes these events now. Deliver them:",
        "zh": "现在已有匹配的处理器，可补投：",
    },
    "parked.install": {
        "en": "Install a plugin that listens to the class or key, or add the key to routing.ignore_process_keys.",
        "zh": "安装监听该处理类或流程 Key 的插件，或把流程 Key 加入 routing.ignore_process_keys。",
    },
    "parked.neither": {
        "en": "neither a class nor a key",
        "zh": "既没有处理类，也没有流程 Key",
    },
    "parked.left_out": {"en": "Groups not shown: {count}", "zh": "未显示的分组：{count} 个"},
    "parked.none": {"en": "No parked events.", "zh": "没有暂存的事件。"},
    # Rejected requests.
    "errors.title": {"en": "Errors", "zh": "错误"},
    "errors.says": {
        "en": "Failed attempts of a handler with the same error are one group. In messages, # stands for ids, numbers, "
        "times and quoted values, which differ each time.",
        "zh": "同一处理器中错误相同的失败尝试归为一组。消息中的 # 代表每次不同的 ID、数字、时间和引用的值。",
    },
    "errors.error": {"en": "Error", "zh": "错误"},
    "errors.other": {"en": "Other errors", "zh": "其他错误"},
    "errors.first": {"en": "First seen", "zh": "首次出现"},
    "errors.last": {"en": "Last seen", "zh": "最近出现"},
    "errors.attempts": {"en": "Attempts", "zh": "尝试"},
    "errors.open": {"en": "Open deliveries", "zh": "未完成的投递"},
    "errors.day": {"en": "Last 24 hours", "zh": "最近 24 小时"},
    "errors.day_says": {
        "en": "Attempts with this error in the last 24 hours: {count}, at most {most} in one hour",
        "zh": "最近 24 小时出现 {count} 次，一小时内最多 {most} 次",
    },
    "errors.versions": {"en": "Plugin versions", "zh": "插件版本"},
    "errors.frame": {"en": "Place in the plugin", "zh": "插件中的位置"},
    "errors.events": {"en": "Events with this error", "zh": "出现该错误的事件"},
    "errors.newest": {"en": "Newest attempt", "zh": "最近一次尝试"},
    "errors.event": {"en": "Its event", "zh": "所属事件"},
    "errors.chain": {"en": "Chain of causes", "zh": "异常链"},
    "errors.relation.cause": {"en": "directly caused", "zh": "直接导致"},
    "errors.relation.context": {"en": "while it was handled", "zh": "处理上述异常时引发"},
    "errors.folded": {"en": "... {count} frames of {packages}", "zh": "… {packages} 的 {count} 个栈帧"},
    "errors.no_attempt": {
        "en": "No attempt with this error is stored any more.",
        "zh": "出现该错误的尝试均已清理。",
    },
    "errors.none": {"en": "No attempt has failed.", "zh": "没有失败的尝试。"},
    "errors.none_match": {"en": "No failed attempt of this handler.", "zh": "该处理器没有失败的尝试。"},
    "errors.pages": {"en": "Pages of errors", "zh": "错误翻页"},
    "rejected.title": {"en": "Rejected requests", "zh": "被拒绝的请求"},
    "rejected.says": {
        "en": "These requests were answered with an error, and no event was stored for them. The body of a conflict "
        "(409) is stored with the event that was received before. The engine must correct the requests or send them "
        "again. Equal requests share a row. The last 1,000 rows are kept; for each status and source at most "
        "100, and at least the last 10.",
        "zh": "这些请求已返回错误，没有存储为事件。冲突（409）的请求体保存在先前收到的事件中。"
        "需由流程引擎更正或重发。相同的请求合并为一行。"
        "保留最近 1000 行；每个状态码和来源最多 100 行，且至少保留最近 10 行。",
    },
    "rejected.count": {"en": "{count} times since", "zh": "共 {count} 次，始于"},
    "rejected.at": {"en": "Time", "zh": "时间"},
    "rejected.status": {"en": "Status", "zh": "状态码"},
    "rejected.path": {"en": "Path", "zh": "路径"},
    "rejected.from": {"en": "From", "zh": "来源地址"},
    "rejected.why": {"en": "Why", "zh": "原因"},
    "rejected.pages": {"en": "Pages of rejected requests", "zh": "被拒绝的请求翻页"},
    "rejected.none": {"en": "No rejected requests.", "zh": "没有被拒绝的请求。"},
    "rejected.none_match": {"en": "No rejected requests match the filter.", "zh": "没有符合条件的被拒绝的请求。"},
    "rejected.no_source": {"en": "no valid credential", "zh": "没有有效凭证"},
    "rejected.part_of_path": {"en": "Part of the path", "zh": "路径包含"},
    "rejected.event": {"en": "The event that it contradicts", "zh": "与之冲突的事件"},
    # Engines.
    "engines.title": {"en": "Engines", "zh": "流程引擎"},
    "engines.says": {
        "en": "flowhooks reads the history of these engines periodically, and takes in the instances that completed "
        "without a callback.",
        "zh": "flowhooks 定时读取这些流程引擎的历史，补收已完成但没有回调的流程实例。",
    },
    "engines.none": {
        "en": "No engine. A source with a section [sources.NAME.engine] has one.",
        "zh": "没有流程引擎。在来源中配置 [sources.NAME.engine] 后即可主动查询。",
    },
    "engines.state": {"en": "State", "zh": "状态"},
    "engine_state.never_asked": {"en": "not asked yet", "zh": "尚未查询"},
    "engine_state.failing": {"en": "failing", "zh": "失败"},
    "engine_state.to_confirm": {"en": "to be confirmed", "zh": "待确认"},
    "engine_state.up_to_date": {"en": "up to date", "zh": "正常"},
    "engines.settings": {"en": "Settings", "zh": "配置"},
    "engines.not_configured": {"en": "no longer in the settings", "zh": "已不在配置中"},
    "engines.product": {"en": "Product", "zh": "产品"},
    "engines.position": {"en": "History read until", "zh": "历史已读取至"},
    "engines.succeeded": {"en": "Last success", "zh": "最近成功"},
    "engines.first_contact": {"en": "First contact", "zh": "首次连接"},
    "engines.skew": {"en": "Engine's clock minus ours", "zh": "与本机时钟之差"},
    "engines.missed": {"en": "Callbacks missed in 24 h", "zh": "24 小时缺失回调"},
    "engines.taken_in": {"en": "Taken in during 24 h", "zh": "24 小时补收"},
    "engines.gaps": {"en": "Gaps in the history", "zh": "历史缺口"},
    "engines.gap_since": {"en": "Ends from", "zh": "结束时间从"},
    "engines.gap_until": {"en": "until", "zh": "至"},
    "gap.deleted": {"en": "the engine has deleted its history", "zh": "流程引擎已删除历史"},
    "gap.refused": {"en": "the credential or its rights did not suffice", "zh": "凭证或权限不足"},
    "gap.unreachable": {"en": "the engine did not answer", "zh": "流程引擎没有响应"},
    "gap.invalid": {"en": "the engine's answer could not be read", "zh": "无法解析流程引擎的响应"},
    "engines.failing": {"en": "{count} failed reconciliations since", "zh": "对账已失败 {count} 次，始于"},
    "engines.waiting": {
        "en": "{count} finished instances wait for the engine to call again, because this server could not take "
        "callbacks.",
        "zh": "有 {count} 个已结束的流程实例在等待流程引擎重新回调，因为本服务器此前无法接收回调。",
    },
    "engines.unconfirmed": {
        "en": "{count} finished instances wait to be taken in, more than max_new allows at once.",
        "zh": "有 {count} 个已结束的流程实例等待补收，超过 max_new 的上限。",
    },
    "engines.book": {
        "en": "Finished instances (at most the newest {count})",
        "zh": "已结束的流程实例（最多统计最新 {count} 个）",
    },
    "engines.disposition": {"en": "Disposition", "zh": "处理结果"},
    "engines.rule": {"en": "Rule", "zh": "规则"},
    "engines.instances": {"en": "Instances", "zh": "实例数"},
    "disposition.has_event": {"en": "have an event", "zh": "已有事件"},
    "disposition.skipped": {"en": "skipped", "zh": "已跳过"},
    "disposition.in_grace": {"en": "wait for their callback", "zh": "等待回调"},
    "rule.child": {"en": "called by another instance", "zh": "被其他实例调用"},
    "rule.end_state": {"en": "its kind of end is not read", "zh": "不读取该结束方式"},
    "rule.tenant": {"en": "another tenant", "zh": "其他租户"},
    "rule.before_first_contact": {"en": "ended before the first contact", "zh": "在首次连接前结束"},
    "rule.purged": {"en": "its event was purged", "zh": "事件已清理"},
    "rule.invalid_id": {"en": "its id is not valid", "zh": "实例 ID 无效"},
    "rule.too_large": {"en": "its variables are too large", "zh": "变量过大"},
    "rule.invalid": {"en": "the schema rejects it", "zh": "不符合 Schema"},
    "rule.rejected": {"en": "the settings reject it", "zh": "配置拒绝"},
    "rule.declined": {"en": "declined by an operator", "zh": "运维人员决定不补收"},
    # Sources.
    "sources.title": {"en": "Sources", "zh": "来源"},
    "sources.says": {
        "en": "The engines that may send callbacks, or that flowhooks asks.",
        "zh": "可以发送回调的流程引擎，以及 flowhooks 主动查询的流程引擎。",
    },
    "sources.last": {"en": "Last callback", "zh": "最近的回调"},
    "sources.hour": {"en": "Callbacks in 1 h", "zh": "1 小时回调数"},
    "sources.day": {"en": "Callbacks in 24 h", "zh": "24 小时回调数"},
    "sources.rejected": {"en": "Rejected requests", "zh": "被拒绝的请求"},
    "sources.engine": {"en": "Engine", "zh": "流程引擎"},
    "sources.pull_only": {"en": "does not call", "zh": "不回调"},
    "sources.pull_only_says": {
        "en": "This source has no credential, so it cannot call. flowhooks only reads the history of its engine.",
        "zh": "该来源没有凭证，无法回调。flowhooks 只读取其流程引擎的历史。",
    },
    "sources.no_callback": {"en": "none in 24 h", "zh": "24 小时内没有"},
    "sources.none_found": {"en": "none among the newest events", "zh": "最新的事件中没有"},
    "sources.missed": {"en": "missed: {count}", "zh": "缺失 {count} 个"},
    "sources.fixed_url": {"en": "Fixed URL", "zh": "固定地址"},
    "sources.format.cloudevent": {"en": "CloudEvents", "zh": "CloudEvents 事件"},
    "sources.format.form": {"en": "form", "zh": "表单"},
    "sources.format.json": {"en": "JSON", "zh": "JSON 对象"},
    "sources.receiver": {"en": "read by the plugin", "zh": "读取请求的插件："},
    "ignored.title": {"en": "Ignored requests", "zh": "被忽略的请求"},
    "ignored.column": {"en": "Ignored requests", "zh": "被忽略的请求"},
    "ignored.says": {
        "en": "Requests to the fixed URL that became no callback, by rule: a value of the table kind in the settings, "
        "or the name that the receiver gave. The sender was answered with a success, and nothing was stored.",
        "zh": "发往固定地址但未成为回调的请求，按规则统计：规则是配置中 kind 对照表的值，或接收插件给出的名称。"
        "发送方得到了成功的答复，请求没有存储。",
    },
    "ignored.none": {
        "en": "No request was ignored. A request is counted here if the table kind in the settings names its value "
        "as ignore, or if the receiver makes no callback of it.",
        "zh": "没有被忽略的请求。如果配置中的 kind 对照表将请求的值标为 ignore，或接收插件没有将请求转换为回调，"
        "请求会在此计数。",
    },
    "ignored.count": {"en": "Requests: {count}.", "zh": "请求数：{count}。"},
    "ignored.empty": {"en": "The request had no body.", "zh": "该请求没有请求体。"},
    "ignored.first": {"en": "First:", "zh": "首次："},
    "ignored.last": {"en": "Last:", "zh": "最近："},
    "ignored.body": {"en": "Body of the last request", "zh": "最近一次请求的请求体"},
    "ignored.cut": {
        "en": "The first {shown} of {total} characters. The whole body:",
        "zh": "此处仅显示前 {shown} 个字符，共 {total} 个。完整的请求体：",
    },
    "media_type": {"en": "Content-Type:", "zh": "媒体类型（Content-Type）："},
    "sources.unattributed": {
        "en": "Rejected requests without a valid credential, which belong to no source: {count}.",
        "zh": "没有有效凭证、不属于任何来源的被拒绝请求：{count} 个。",
    },
    "sources.requests": {"en": "Requests", "zh": "请求数"},
    "sources.last_rejected": {"en": "Last one", "zh": "最近一次"},
    "sources.credentials": {"en": "Credentials", "zh": "凭证"},
    "sources.credential": {"en": "Credential", "zh": "凭证"},
    "credential.token": {"en": "token", "zh": "令牌"},
    "credential.secret": {"en": "signing secret", "zh": "签名密钥"},
    "sources.location": {"en": "Location", "zh": "位置"},
    "sources.in_settings": {"en": "its hash is in the settings", "zh": "配置中的哈希值"},
    "sources.age": {"en": "Age of the file", "zh": "文件时间"},
    "sources.expiry": {"en": "Expires", "zh": "到期时间"},
    "sources.no_expiry": {"en": "never", "zh": "不过期"},
    "sources.expired": {"en": "expired", "zh": "已过期"},
    "sources.expires": {"en": "expires soon", "zh": "即将过期"},
    "sources.settings": {"en": "Settings in force", "zh": "生效的配置"},
    "sources.settings_says": {
        "en": "Secrets are not shown, only their locations.",
        "zh": "不显示密钥，只显示其位置。",
    },
    "sources.setting": {"en": "Setting", "zh": "配置项"},
    "sources.value": {"en": "Value", "zh": "值"},
    # Coverage.
    "coverage.title": {"en": "Coverage", "zh": "覆盖情况"},
    "coverage.says": {
        "en": "The definitions that the engine has deployed, compared with the handlers.",
        "zh": "流程引擎已部署的流程定义与处理器的对照。",
    },
    "coverage.unread": {
        "en": "The definitions of the engine are not known yet. To ask the engine now:",
        "zh": "尚未读取流程引擎的流程定义。立即查询：",
    },
    "coverage.definition": {"en": "Definition", "zh": "流程定义"},
    "coverage.uncovered": {"en": "Not covered", "zh": "未覆盖"},
    "coverage.tenant": {"en": "tenant", "zh": "租户"},
    "coverage.no_handler": {"en": "no handler listens to it", "zh": "没有处理器监听"},
    "coverage.ignored": {"en": "needs no handler", "zh": "无需处理器"},
    "coverage.version": {"en": "no handler takes version {version}", "zh": "没有处理器接收版本 {version}"},
    "coverage.conclusion": {"en": "no handler takes the conclusion", "zh": "没有处理器接收结论"},
    "coverage.events": {"en": "events: {count}", "zh": "事件：{count} 个"},
    "coverage.covered": {"en": "everything is covered", "zh": "全部覆盖"},
    "coverage.left_out": {"en": "And {count} more definitions.", "zh": "另有 {count} 个流程定义。"},
    "coverage.none": {"en": "The engine has no definitions.", "zh": "流程引擎没有流程定义。"},
    # Alerts.
    "alerts.title": {"en": "Alerts", "zh": "告警"},
    "alerts.says": {
        "en": "There is one alert for each cause. It closes when its cause is gone. Listeners are notified again when "
        "the count has grown. Acknowledge an alert to show that you are handling it.",
        "zh": "每个原因一条告警，原因消除后自动结束。数量明显增加时再次通知。确认告警表示您正在处理。",
    },
    "alerts.open": {"en": "Open", "zh": "未消除"},
    "alerts.over": {"en": "Closed", "zh": "已结束"},
    "alerts.about": {"en": "About", "zh": "对象"},
    "alerts.since": {"en": "Since", "zh": "开始"},
    "alerts.until": {"en": "Until", "zh": "结束"},
    "alerts.count": {"en": "Count", "zh": "数量"},
    "alerts.new": {"en": "(+{count} since the last notification)", "zh": "（上次通知后新增 {count}）"},
    "alerts.last": {"en": "Latest:", "zh": "最近一次："},
    "alerts.last_error": {"en": "Last error:", "zh": "最近的错误："},
    "alerts.notifications": {"en": "{count} times, last", "zh": "共 {count} 次，最近"},
    "alerts.message": {"en": "Message", "zh": "内容"},
    "alerts.told": {"en": "Notified", "zh": "已通知"},
    "alerts.nobody": {"en": "not yet", "zh": "尚未通知"},
    "alerts.not_delivered_by": {"en": "Not delivered by", "zh": "未能送达，插件："},
    "alerts.undelivered": {
        "en": "{count} notification could not be delivered, and is sent again:",
        "zh": "{count} 条通知未能送达，稍后重发：",
    },
    "alerts.undelivered_many": {
        "en": "{count} notifications could not be delivered, and are sent again:",
        "zh": "{count} 条通知未能送达，稍后重发：",
    },
    "alerts.acknowledged": {"en": "Acknowledged", "zh": "已确认"},
    "alerts.unseen": {"en": "not yet", "zh": "尚未确认"},
    "alerts.event": {"en": "One of the events", "zh": "其中一个事件"},
    "alerts.none": {"en": "No open alerts.", "zh": "没有未消除的告警。"},
    # Errors.
    "problem.purged.what": {"en": "This event was purged", "zh": "该事件已被清理"},
    "problem.purged.then": {
        "en": "Its retention period has ended. flowhooks still recognises the same callback, and does not run it "
        "again.",
        "zh": "其保存期限已过。相同的回调仍能识别，不会再次执行。",
    },
    "problem.nothing.what": {"en": "Not found", "zh": "未找到"},
    "problem.nothing.then": {
        "en": "Search for it under Events. It may have been purged, or the address may be incomplete.",
        "zh": "请到“事件”页查找：可能已被清理，或者地址不完整。",
    },
    "problem.ledger.what": {"en": "The ledger cannot be read at present", "zh": "暂时无法读取台账"},
    "problem.ledger.then": {
        "en": "The server log has the reason. Reload this page when the database is available again.",
        "zh": "原因见服务器日志。数据库恢复后请刷新本页。",
    },
    "problem.newer.what": {
        "en": "A newer version of flowhooks has registered handlers",
        "zh": "处理器已由更新版本的 flowhooks 注册",
    },
    "problem.newer.then": {
        "en": "This version cannot read their selectors, and routes no events. Run the newer version here too.",
        "zh": "本版本无法读取其选择条件，因此不路由任何事件。请在此处也运行该更新版本。",
    },
    "problem.ours.what": {"en": "Internal server error", "zh": "服务器内部错误"},
    "problem.ours.then": {
        "en": "Details are in the server log. Other pages may still work.",
        "zh": "详情见服务器日志。其他页面可能仍可使用。",
    },
    "refused.bound.what": {"en": "The console is not available here", "zh": "此处不能打开控制台"},
    "refused.bound.then": {
        "en": "Other machines can reach this address, and the settings have no operators. Add an operator (flowhooks "
        "operators new). Or set admin to 127.0.0.1 and a port, and open the console through a tunnel: ssh -L "
        "8081:127.0.0.1:8081 with the server's name.",
        "zh": "其他机器可以访问该监听地址，而配置中没有运维人员。请在配置中添加（flowhooks operators new），"
        "或者把配置项 admin 设为 127.0.0.1 加端口，再通过隧道访问：ssh -L 8081:127.0.0.1:8081 加服务器名。",
    },
    "refused.host.what": {"en": "The console is not available under this host name", "zh": "不能用此主机名打开控制台"},
    "refused.host.then": {
        "en": "Open http://127.0.0.1 or http://localhost with the port. A web site with any other name could read the "
        "console through your browser.",
        "zh": "请用 http://127.0.0.1 或 http://localhost 加端口打开。使用其他名称的网站可能借浏览器读取控制台。",
    },
    "refused.name.what": {"en": "The console has another address", "zh": "控制台的地址不是这个"},
    "refused.name.then": {
        "en": "Open the address in the setting public_url.",
        "zh": "请用配置项 public_url 中的地址打开。",
    },
    "refused.origin.what": {"en": "Nothing was changed", "zh": "未做任何修改"},
    "refused.origin.then": {
        "en": "The request came from another site, or did not state its origin. If you sent it, open the console "
        "again and repeat the action there. Behind a proxy, the Host header must reach this server unchanged, "
        "and public_url must be the console's address.",
        "zh": "该请求来自其他网站，或者没有说明来源。如果是您本人的操作，请重新打开控制台后再试。使用反向代理时，"
        "Host 请求头须原样转发，配置项 public_url 须为控制台的地址。",
    },
    "refused.login_header.what": {"en": "This login is not accepted", "zh": "不接受此登录方式"},
    "refused.login_header.then": {
        "en": "The request has a header that names an operator, but it does not come from the proxy in the setting "
        "login.proxy, or the header has no usable value. The server log has the reason. Open the console at the "
        "address of the proxy.",
        "zh": "请求带有指明运维人员的请求头，但它不是来自配置项 login.proxy 中的代理，或者其值不可用。"
        "原因见服务器日志。请通过代理的地址打开控制台。",
    },
    "refused.no_role.what": {"en": "You have no access to this console", "zh": "您没有访问此控制台的权限"},
    "refused.no_role.then": {
        "en": "You are logged in, but none of your groups has a role here. Ask the administrators of this server for "
        "a group that the setting login.groups names, then log in again.",
        "zh": "您已登录，但您所在的组在此没有角色。请向本服务器的管理员申请加入配置项 login.groups 中列出的组，"
        "然后重新登录。",
    },
    "refused.scope.what": {"en": "Your role does not allow this", "zh": "您的角色不允许此操作"},
    "refused.scope.then": {
        "en": "Your role is limited to some plugins, or values are hidden from it. Ask an operator with another role.",
        "zh": "您的角色仅限于部分插件，或者某些值对该角色隐藏。请联系拥有其他角色的运维人员。",
    },
    "refused.masked.what": {"en": "Your role may not search by this field", "zh": "您的角色不能按此字段搜索"},
    "refused.masked.then": {
        "en": "The values of this field are hidden from your role. Search by other fields.",
        "zh": "该字段的值对您的角色隐藏。请按其他字段搜索。",
    },
    "refused.role.what": {"en": "Your access is read-only", "zh": "您只能查看，不能修改"},
    "refused.role.then": {
        "en": "Nothing was changed. Ask an operator who has the role operate.",
        "zh": "未做任何修改。请联系角色为 operate 的运维人员。",
    },
    # Conclusions and conditions; why an event is parked or dismissed.
    "conclusion": {"en": "Conclusion", "zh": "结论"},
    "origin": {"en": "Origin", "zh": "由来"},
    "origin.callback": {"en": "callback of the engine", "zh": "流程引擎的回调"},
    "origin.correction": {"en": "accepted correction", "zh": "采纳的更正"},
    "origin.ingress": {"en": "request to the fixed URL", "zh": "发往固定地址的请求"},
    "origin.reconciled": {"en": "taken in from the history", "zh": "取自流程引擎的历史"},
    "dismissed_by": {"en": "Reason for dismissal", "zh": "忽略原因"},
    "listens.conclusion": {"en": "conclusion", "zh": "结论"},
    "listens.when": {"en": "condition", "zh": "条件"},
    # Why an event is parked or dismissed: in a listing, and on its own page.
    "parked_by.handler": {"en": "no matching handler", "zh": "没有匹配的处理器"},
    "parked_by.condition": {"en": "condition undecided", "zh": "条件无法判断"},
    "parked_by.name": {"en": "neither class nor key", "zh": "既无处理类也无流程 Key"},
    "parked_by.end_state": {"en": "end not known", "zh": "结束方式不明"},
    "parked_by.reused_id": {"en": "instance id used again", "zh": "流程实例 id 重复"},
    "dismissed_by.condition": {"en": "condition false", "zh": "条件不成立"},
    "dismissed_by.kind": {"en": "handlers listen to other kinds", "zh": "回调类型不同"},
    "dismissed_by.setting": {"en": "ignored by a setting", "zh": "配置指定"},
    "dismissed_by.operator": {"en": "dismissed by an operator", "zh": "运维人员指定"},
    "event.parked_by.handler": {
        "en": "Parked: no handler has this class or key, or the handlers that have it do not accept the version or "
        "source. The event is delivered when a matching handler is installed.",
        "zh": "暂存：没有处理器监听它的处理类或流程定义 Key，或者这些处理器不接受它的版本或来源。"
        "安装匹配的处理器后会自动投递。",
    },
    "event.parked_by.condition": {
        "en": "Parked: the condition of a handler is undecided for this event, because a member of the body is "
        "missing or has another type. Correct what the engine sends, or the handler. An operator decides on "
        "this event.",
        "zh": "暂存：请求体中的字段缺失或类型不符，无法判断处理器的条件。请更正流程引擎发送的内容，或修改处理器。"
        "本事件由运维人员处理。",
    },
    "event.parked_by.name": {
        "en": "Parked: the event has neither a class nor a key, so no handler can match it. An operator decides on "
        "this event.",
        "zh": "暂存：事件既没有处理类，也没有流程定义 Key，没有处理器能匹配。本事件由运维人员处理。",
    },
    "event.parked_by.end_state": {
        "en": "Parked: the engine's history does not tell how the process instance ended. Find out in the engine; then "
        "reroute the event if the instance completed, or dismiss it.",
        "zh": "暂存：流程引擎的历史记录没有说明流程实例如何结束。请在流程引擎中查明；"
        "如果实例正常完成，请重新路由该事件，否则请忽略它。",
    },
    "event.parked_by.reused_id": {
        "en": "Parked: an event that was received less than a day before this instance started has the same process "
        "instance id. Compare both with the engine; then reroute the event if it is another instance, or dismiss it.",
        "zh": "暂存：在该流程实例启动前不到一天，已收到流程实例 id 相同的事件。请与流程引擎核对两者；"
        "如果是另一个流程实例，请重新路由该事件，否则请忽略它。",
    },
    "event.dismissed_by.condition": {
        "en": "Dismissed: handlers have this class or key, but the conditions of all these handlers are false.",
        "zh": "已忽略：有处理器监听它的处理类或流程定义 Key，但各处理器的条件都不成立。",
    },
    "event.dismissed_by.kind": {
        "en": "Dismissed: handlers have this class or key, but they all listen to other kinds of callback.",
        "zh": "已忽略：有处理器监听它的处理类或流程定义 Key，但它们监听的回调类型不同。",
    },
    "event.dismissed_by.setting": {
        "en": "Dismissed: the setting routing.ignore_process_keys contains the key.",
        "zh": "已忽略：配置项 routing.ignore_process_keys 包含它的流程定义 Key。",
    },
    "event.dismissed_by.operator": {"en": "Dismissed by an operator.", "zh": "已忽略：由运维人员操作。"},
    # Why handlers get an event or not.
    "event.no_match": {"en": "Handlers that do not match", "zh": "不匹配的处理器"},
    "event.no_match_more": {"en": "Handlers not shown: {count}", "zh": "未显示的处理器：{count} 个"},
    "event.explain": {"en": "Why these handlers?", "zh": "为什么是这些处理器？"},
    "event.explained": {"en": "Why these handlers", "zh": "为什么是这些处理器"},
    "event.explain_now": {"en": "Which handlers match now?", "zh": "现在哪些处理器匹配？"},
    "event.explained_now": {"en": "Which handlers match now", "zh": "现在哪些处理器匹配"},
    "event.explained_says": {
        "en": "The result with the current handlers. It may differ from the result when the event was received.",
        "zh": "按现有处理器得出的结果，可能与接收事件时不同。",
    },
    "event.explained_none": {
        "en": "No current handler listens to the class, the key or every event.",
        "zh": "现有处理器都不监听它的处理类或流程定义 Key，也没有监听所有事件的处理器。",
    },
    "event.gets": {"en": "matches", "zh": "匹配"},
    "event.gets_not": {"en": "does not match", "zh": "不匹配"},
    "event.result": {"en": "Result", "zh": "结果"},
    # Deliveries that conditions keep from running.
    "event.undecided": {
        "en": "Waiting without a due time, because the handler's condition is undecided for this event. The condition "
        "is checked again when a process that has loaded the handler starts.",
        "zh": "等待中，没有执行时间：无法判断处理器的条件对本事件是否成立。加载该处理器的进程启动时会重新判断。",
    },
    "event.false": {
        "en": "Closed without running, because the handler's condition is false for this event.",
        "zh": "已关闭，没有执行：处理器的条件不成立。",
    },
    # Handlers.
    "handlers.dismissed": {
        "en": "Dismissed events that this handler takes now: {count}. Installing a plugin does not deliver them. To "
        "deliver them, run:",
        "zh": "该处理器现在匹配的已忽略事件：{count} 个。安装插件不会投递这些事件，如需投递请执行：",
    },
    # Events.
    "events.no_error_group": {
        "en": "An error group is the id of a group on the page Errors, or its first 8 characters.",
        "zh": "错误分组应为“错误”页上分组的 ID，或其开头的至少 8 个字符。",
    },
    "events.no_trace_id": {
        "en": "A trace id has 32 digits from 0 to 9 and a to f.",
        "zh": "链路 ID 应为 32 位数字 0 到 9 和字母 a 到 f。",
    },
    "events.no_field": {
        "en": "A condition on a field of the body is written as /vendor=ACME, /amount>=1000 or /amount<=1000.",
        "zh": "请求体字段的条件写作 /vendor=ACME、/amount>=1000 或 /amount<=1000。",
    },
    "events.many_fields": {
        "en": "There are too many conditions on fields of the body.",
        "zh": "请求体字段的条件过多。",
    },
    "events.unknown_field": {
        "en": "Events can be searched only by the fields that the setting search.fields names: {fields}",
        "zh": "只能按设置 search.fields 列出的字段查找事件：{fields}",
    },
    "events.no_origin": {"en": "Unknown origin. Choose one from the list.", "zh": "由来无效，请从列表中选择。"},
    "events.no_reason": {"en": "Unknown reason. Choose one from the list.", "zh": "原因无效，请从列表中选择。"},
    # Parked events.
    "parked.says": {
        "en": "No handler matches these events, or the condition of a handler is undecided. The events are stored. "
        "When a matching handler is installed, the events that had no handler are delivered.",
        "zh": "没有处理器匹配这些事件，或者无法判断处理器的条件。它们已存储。"
        "没有处理器的事件在安装匹配的处理器后会自动投递。",
    },
    "parked.undecided": {
        "en": "A handler's condition needs {member}, which these events lack. Correct what the engine sends, or the "
        "handler.",
        "zh": "这些事件缺少 {member}，无法判断处理器的条件。请更正流程引擎发送的内容，或修改处理器。",
    },
    "parked.nameless": {
        "en": "No handler can match these events. Let the engine send a class or a key. Handle these events by hand, "
        "then dismiss each one on its own page.",
        "zh": "没有处理器能匹配这些事件。请让流程引擎以后至少填写处理类或流程 Key。已有的请人工处理，"
        "然后在各自的事件页忽略。",
    },
    "parked.by_data": {
        "en": "A handler's condition reads the body, so each event is routed by its own body. Deliver the events that "
        "a handler takes now:",
        "zh": "处理器的条件要读取请求体，因此各事件按各自的请求体路由。可补投现在已有匹配处理器的事件：",
    },
    "parked.oldest_lacks": {
        "en": "The oldest event lacks {member}, or the member has another type.",
        "zh": "最早的一个缺少 {member}，或者其类型不符。",
    },
    "parked.explain": {"en": "Full explanation:", "zh": "查看详细原因："},
    # Actions and the audit log.
    # Replay dead deliveries.
    "do.replay.act": {"en": "Replay", "zh": "重放"},
    "do.replay.all": {"en": "Replay failed deliveries", "zh": "重放失败的投递"},
    "do.replay.title": {"en": "Replay dead deliveries", "zh": "重放最终失败的投递"},
    "do.replay.would": {"en": "Deliveries to replay: {count}", "zh": "将重放的投递：{count} 个"},
    "do.replay.undo": {
        "en": "This cannot be undone: the handlers run again. Fix the cause first. Earlier attempts stay on record.",
        "zh": "无法撤销：处理器会再次执行。请先排除原因。以前的尝试记录保留。",
    },
    "do.replay.button": {"en": "Replay", "zh": "重放"},
    "do.replay.did": {"en": "Deliveries replayed: {count}", "zh": "已安排重放的投递：{count} 个"},
    # Run succeeded deliveries again.
    "do.replay_again.act": {"en": "Run a second time", "zh": "再执行一次"},
    "do.replay_again.all": {"en": "Re-run succeeded deliveries", "zh": "重跑已成功的投递"},
    "do.replay_again.title": {"en": "Re-run succeeded deliveries", "zh": "重跑已成功的投递"},
    "do.replay_again.would": {
        "en": "Deliveries to run a second time: {count}",
        "zh": "将重复执行的投递：{count} 个",
    },
    "do.replay_again.undo": {
        "en": "This cannot be undone. The work has already been done. A payment may be booked twice or a mail sent "
        "twice, unless the handler prevents that.",
        "zh": "无法撤销。该业务已经完成：除非处理器自己防重，否则可能重复记账、重复发信。",
    },
    "do.replay_again.sure": {"en": "I know that the work is done a second time.", "zh": "我知道这会把业务再做一遍。"},
    "do.replay_again.button": {"en": "Run a second time", "zh": "再执行一次"},
    "do.replay_again.did": {
        "en": "Deliveries that run a second time: {count}",
        "zh": "已安排再次执行的投递：{count} 个",
    },
    # Resolve unknown deliveries together.
    "do.mark_done.act": {"en": "Mark as done", "zh": "确认已完成"},
    "do.mark_done.all": {"en": "Mark as done", "zh": "确认已完成"},
    "do.mark_done.title": {"en": "Mark unknown deliveries as done", "zh": "人工确认：已完成"},
    "do.mark_done.would": {"en": "Deliveries to mark as done: {count}", "zh": "将确认为已完成的投递：{count} 个"},
    "do.mark_done.undo": {
        "en": "The deliveries count as succeeded and do not run again. Find out first that their work was done. To "
        "undo it, run a delivery a second time from the page of its event.",
        "zh": "这些投递将视为成功，不再执行。请先核实业务确已完成。如确认有误，只能在事件页再执行一次。",
    },
    "do.mark_done.button": {"en": "Mark as done", "zh": "确认已完成"},
    "do.mark_done.did": {"en": "Deliveries marked as done: {count}", "zh": "已确认为成功的投递：{count} 个"},
    "do.mark_not_done.act": {"en": "Not done: run again", "zh": "未完成，重新执行"},
    "do.mark_not_done.all": {"en": "Not done: run again", "zh": "未完成，重新执行"},
    "do.mark_not_done.title": {"en": "Run unknown deliveries again", "zh": "人工确认：未完成，重新执行"},
    "do.mark_not_done.would": {"en": "Deliveries to run again: {count}", "zh": "将重新执行的投递：{count} 个"},
    "do.mark_not_done.undo": {
        "en": "This cannot be undone. If a handler did its work after all, the work is done a second time.",
        "zh": "无法撤销：如果其实已经完成，业务会再做一遍。",
    },
    "do.mark_not_done.button": {"en": "Not done: run again", "zh": "未完成，重新执行"},
    "do.mark_not_done.did": {"en": "Deliveries that run again: {count}", "zh": "已安排重新执行的投递：{count} 个"},
    # Close deliveries together.
    "do.close_all.act": {"en": "Close the suspended deliveries", "zh": "关闭已挂起的投递"},
    "do.close_all.all": {"en": "Close deliveries", "zh": "关闭投递"},
    "do.close_all.title": {"en": "Close deliveries", "zh": "关闭投递"},
    "do.close_all.would": {"en": "Deliveries to close: {count}", "zh": "将关闭的投递：{count} 个"},
    "do.close_all.undo": {
        "en": "This cannot be undone: a closed delivery never runs again, also when its handler is installed again. "
        "Write in the note who has done the work.",
        "zh": "无法撤销：关闭后不会再执行，重新安装处理器后也不会。请在备注中写明由谁办理。",
    },
    "do.close_all.button": {"en": "Close", "zh": "关闭"},
    "do.close_all.did": {"en": "Deliveries closed: {count}", "zh": "已关闭的投递：{count} 个"},
    # Run scheduled deliveries now.
    "do.run_now.act": {"en": "Run now", "zh": "立即执行"},
    "do.run_now.all": {"en": "Run now", "zh": "立即执行"},
    "do.run_now.title": {"en": "Run waiting deliveries now", "zh": "立即执行等待中的投递"},
    "do.run_now.would": {"en": "Deliveries to run now: {count}", "zh": "将立即执行的投递：{count} 个"},
    "do.run_now.undo": {
        "en": "The next attempt does not wait for its scheduled time. The number of attempts stays as it is, and the "
        "order of ordered deliveries is kept.",
        "zh": "下一次尝试不再等到预定时间。尝试次数不变；按序处理的投递仍按顺序执行。",
    },
    "do.run_now.button": {"en": "Run now", "zh": "立即执行"},
    "do.run_now.did": {"en": "Deliveries that run now: {count}", "zh": "已立即执行的投递：{count} 个"},
    # Resolve an unknown delivery.
    "do.did.act": {"en": "Mark as done", "zh": "确认已完成"},
    "do.did.title": {"en": "Mark an unknown delivery as done", "zh": "人工确认：已完成"},
    "do.did.would": {
        "en": "The delivery counts as succeeded and does not run again.",
        "zh": "该投递将视为成功，不再执行。",
    },
    "do.did.undo": {
        "en": "If this was wrong, run the delivery a second time from the page of its event.",
        "zh": "如确认有误，可在事件页再执行一次。",
    },
    "do.did.button": {"en": "Mark as done", "zh": "确认已完成"},
    "do.did.did": {"en": "The delivery counts as succeeded.", "zh": "已人工确认为成功。"},
    "do.did_not.act": {"en": "Not done: run again", "zh": "未完成，重新执行"},
    "do.did_not.title": {"en": "Run an unknown delivery again", "zh": "人工确认：未完成"},
    "do.did_not.would": {"en": "The delivery runs again, from the beginning.", "zh": "该投递将从头重新执行。"},
    "do.did_not.undo": {
        "en": "This cannot be undone. If the handler did its work after all, the work is done a second time.",
        "zh": "无法撤销：如果其实已经完成，业务会再做一遍。",
    },
    "do.did_not.button": {"en": "Not done: run again", "zh": "未完成，重新执行"},
    "do.did_not.did": {"en": "The delivery runs again.", "zh": "已安排重新执行。"},
    # Close a delivery.
    "do.close.act": {"en": "Close", "zh": "关闭"},
    "do.close.title": {"en": "Close a delivery", "zh": "关闭投递"},
    "do.close.would": {"en": "The delivery is closed and does not run again.", "zh": "该投递将关闭，不再执行。"},
    "do.close.undo": {
        "en": "This cannot be undone: a closed delivery never runs again. Write in the note who has done its work.",
        "zh": "无法撤销：关闭后不会再执行。请在备注中写明由谁办理。",
    },
    "do.close.button": {"en": "Close", "zh": "关闭"},
    "do.close.did": {"en": "The delivery is closed.", "zh": "已关闭。"},
    # Accept a conflicting body.
    "do.correct.act": {"en": "Accept as a correction", "zh": "采纳为更正"},
    "do.correct.title": {"en": "Accept a body as a correction", "zh": "采纳请求体为更正"},
    "do.correct.would": {
        "en": "The body becomes an event of its own, and its handlers run with it. The first event stays as it is.",
        "zh": "该请求体将成为独立的事件，并由处理器执行。第一个事件保持不变。",
    },
    "do.correct.handlers": {"en": "Handlers that run:", "zh": "将执行的处理器："},
    "do.correct.ran": {"en": "(has run with the first body)", "zh": "（已按第一个请求体执行过）"},
    "do.correct.no_handler": {
        "en": "No handler takes this body now. The event is parked or dismissed.",
        "zh": "当前没有处理器接收该请求体：事件将暂存或忽略。",
    },
    "do.correct.unfinished": {
        "en": "Deliveries of the first body that are not finished: {count}. They still run with the first body. Close "
        "them on the page of the first event if their work is not needed.",
        "zh": "第一个请求体尚未完成的投递：{count} 个，仍将按第一个请求体执行。"
        "如果不再需要，请在第一个事件的页面上关闭。",
    },
    "do.correct.undo": {
        "en": "This cannot be undone. A handler that has run with the first body does its work a second time, with "
        "other data. Write in the note why this body is right.",
        "zh": "无法撤销。已按第一个请求体执行过的处理器会按不同的数据再执行一次。请在备注中写明为何以该请求体为准。",
    },
    "do.correct.button": {"en": "Accept as a correction", "zh": "采纳为更正"},
    "do.correct.did": {
        "en": "The body is accepted. Its event is linked beside it.",
        "zh": "已采纳。对应事件的链接见该请求体旁。",
    },
    # Parked events.
    "do.reroute_parked.act": {"en": "Deliver the events that a handler takes now", "zh": "补投已有处理器的事件"},
    "do.reroute_parked.title": {"en": "Deliver parked events that a handler takes now", "zh": "补投暂存的事件"},
    "do.reroute_parked.would": {"en": "Parked events to deliver: {count}", "zh": "将补投的暂存事件：{count} 个"},
    "do.reroute_parked.undo": {
        "en": "This cannot be undone: the handlers run. The next start also delivers these events.",
        "zh": "无法撤销：处理器将执行。下次启动时也会自动补投。",
    },
    "do.reroute_parked.button": {"en": "Deliver", "zh": "补投"},
    "do.reroute_parked.did": {"en": "Parked events delivered: {count}", "zh": "已补投的暂存事件：{count} 个"},
    "do.dismiss.act": {"en": "Dismiss", "zh": "忽略"},
    "do.dismiss.title": {"en": "Dismiss parked events", "zh": "忽略暂存的事件"},
    "do.dismiss.would": {"en": "Parked events to dismiss: {count}", "zh": "将忽略的暂存事件：{count} 个"},
    "do.dismiss.undo": {
        "en": "The events stay stored. To undo this, reroute them, for example after you have installed a handler.",
        "zh": "事件仍然保留。需要时（例如安装处理器后）可用“重新路由”撤销。",
    },
    "do.dismiss.button": {"en": "Dismiss", "zh": "忽略"},
    "do.dismiss.did": {"en": "Events dismissed: {count}", "zh": "已忽略的事件：{count} 个"},
    "do.reroute.act": {"en": "Reroute", "zh": "重新路由"},
    "do.reroute.title": {"en": "Reroute events", "zh": "重新路由"},
    "do.reroute.would": {"en": "Events that get new deliveries: {count}", "zh": "将增加投递的事件：{count} 个"},
    "do.reroute.undo": {
        "en": "New deliveries cannot be withdrawn: their handlers run. Existing deliveries do not change.",
        "zh": "新增的投递无法撤回，处理器将执行。已有的投递不变。",
    },
    "do.reroute.button": {"en": "Reroute", "zh": "重新路由"},
    "do.reroute.did": {"en": "Events that got new deliveries: {count}", "zh": "已增加投递的事件：{count} 个"},
    # Handlers.
    "do.pause.act": {"en": "Pause", "zh": "暂停"},
    "do.pause.title": {"en": "Pause a handler", "zh": "暂停处理器"},
    "do.pause.would": {"en": "Handlers to pause: {count}", "zh": "将暂停的处理器：{count} 个"},
    "do.pause.undo": {
        "en": "Callbacks are still accepted, and deliveries to this handler wait. Running attempts are not stopped. "
        "Resume the handler to run its deliveries.",
        "zh": "回调照常接收，其投递等待；正在执行的不会中断。恢复后继续执行。",
    },
    "do.pause.button": {"en": "Pause", "zh": "暂停"},
    "do.pause.did": {"en": "Handlers paused: {count}", "zh": "已暂停的处理器：{count} 个"},
    "do.resume.act": {"en": "Resume", "zh": "恢复"},
    "do.resume.title": {"en": "Resume a handler", "zh": "恢复处理器"},
    "do.resume.would": {"en": "Handlers to resume: {count}", "zh": "将恢复的处理器：{count} 个"},
    "do.resume.undo": {
        "en": "Waiting deliveries of this handler run when they are due. You can pause it again.",
        "zh": "其等待的投递到期后执行。可以再次暂停。",
    },
    "do.resume.button": {"en": "Resume", "zh": "恢复"},
    "do.resume.did": {"en": "Handlers resumed: {count}", "zh": "已恢复的处理器：{count} 个"},
    # Engines.
    "do.confirm_reconciliation.act": {"en": "Take them in", "zh": "补收"},
    "do.confirm_reconciliation.title": {"en": "Confirm a reconciliation", "zh": "确认补收"},
    "do.confirm_reconciliation.would": {
        "en": "Finished instances to take in: {count}",
        "zh": "将补收的已结束流程实例：{count} 个",
    },
    "do.confirm_reconciliation.undo": {
        "en": "Each of them becomes an event at the next reconciliation, and its handlers run. The effects of a "
        "handler cannot be undone.",
        "zh": "下一次对账时它们都会成为事件并执行处理器。处理器的执行结果无法撤销。",
    },
    "do.confirm_reconciliation.button": {"en": "Take them in", "zh": "补收"},
    "do.confirm_reconciliation.did": {
        "en": "Finished instances that the next reconciliation takes in: {count}",
        "zh": "下一次对账将补收的流程实例：{count} 个",
    },
    "do.decline_reconciliation.act": {"en": "Decline", "zh": "不补收"},
    "do.decline_reconciliation.title": {"en": "Decline a reconciliation", "zh": "拒绝补收"},
    "do.decline_reconciliation.would": {
        "en": "Finished instances to decline: {count}",
        "zh": "将不补收的已结束流程实例：{count} 个",
    },
    "do.decline_reconciliation.undo": {
        "en": "None of them becomes an event, and no handler runs for them. A later callback is still accepted. "
        "`flowhooks engines reconcile --since TIME --declined` takes declined instances in later.",
        "zh": "它们都不会成为事件，也不会执行处理器。引擎的回调仍会接收。日后可用 "
        "`flowhooks engines reconcile --since TIME --declined` 补收。",
    },
    "do.decline_reconciliation.button": {"en": "Decline", "zh": "不补收"},
    "do.decline_reconciliation.did": {
        "en": "Finished instances that were declined: {count}",
        "zh": "未补收的流程实例：{count} 个",
    },
    "do.close_gaps.act": {"en": "Close", "zh": "关闭"},
    "do.close_gaps.title": {"en": "Close gaps in the history", "zh": "关闭历史缺口"},
    "do.close_gaps.would": {"en": "Gaps to close: {count}", "zh": "将关闭的缺口：{count} 个"},
    "do.close_gaps.undo": {
        "en": "Close a gap only after you have looked for the instances that ended in it: flowhooks does not read the "
        "interval again. A gap cannot be opened again.",
        "zh": "请先查清缺口内结束的流程实例，再关闭缺口：flowhooks 不会再次读取该时段。关闭后无法重新打开。",
    },
    "do.close_gaps.button": {"en": "Close", "zh": "关闭"},
    "do.close_gaps.did": {"en": "Gaps that were closed: {count}", "zh": "已关闭的缺口：{count} 个"},
    # Alerts.
    "do.acknowledge.act": {"en": "Acknowledge", "zh": "确认"},
    "do.acknowledge.title": {"en": "Acknowledge an alert", "zh": "确认告警"},
    "do.acknowledge.would": {"en": "Alerts to acknowledge: {count}", "zh": "将确认的告警：{count} 条"},
    "do.acknowledge.undo": {
        "en": "The alert shows your name until its cause is gone. Its cause does not change. Listeners are notified "
        "again only when the count has doubled.",
        "zh": "告警旁会显示您的名字，直到原因消除。告警的原因不受影响。此后只有数量翻倍时才再次通知。",
    },
    "do.acknowledge.button": {"en": "Acknowledge", "zh": "确认"},
    "do.acknowledge.did": {"en": "Alerts acknowledged: {count}", "zh": "已确认的告警：{count} 条"},
    # Texts of all actions.
    "do.delivery": {"en": "Delivery", "zh": "投递"},
    "do.selected": {"en": "Selected", "zh": "选中"},
    "do.alert": {"en": "Alert", "zh": "告警"},
    "do.what": {"en": "Selection", "zh": "对象"},
    "do.becomes": {"en": "becomes", "zh": "变为"},
    "do.at_least": {"en": "at least {count}", "zh": "至少 {count}"},
    "do.counted": {
        "en": "There are more than the number above. All of them are processed.",
        "zh": "实际数量多于以上统计，将处理全部。",
    },
    "do.nothing": {
        "en": "There is nothing to do: nothing in the selection is in a state that allows this action. Another "
        "operator may have done it already.",
        "zh": "无需操作：所选对象都不在可操作的状态，可能已有人处理。",
    },
    "do.nothing_left": {
        "en": "Nothing was done: the state had already changed.",
        "zh": "没有执行任何操作：状态已经变化。",
    },
    "do.may_not": {
        "en": "Your access is read-only. Ask an operator who has the role operate.",
        "zh": "您只有查看权限，请联系角色为 operate 的运维人员。",
    },
    "do.note": {"en": "Note for the audit log (optional)", "zh": "备注，记入审计（可不填）"},
    "do.unsure": {"en": "Tick the box to confirm.", "zh": "请先勾选确认。"},
    "do.cancel": {"en": "Cancel", "zh": "取消"},
    "do.back": {"en": "Back", "zh": "返回"},
    "do.gone.what": {"en": "Not found", "zh": "对象不存在"},
    "do.gone.then": {
        "en": "It may have been purged, or the address may be incomplete. Nothing was changed.",
        "zh": "可能已被清理，或者地址不完整。没有做任何更改。",
    },
    "do.moved.what": {"en": "The state has changed", "zh": "状态已经变化"},
    "do.moved.then": {
        "en": "Another operator or the server has changed it already. Nothing was changed now. Go back and check the "
        "current state.",
        "zh": "可能已有人处理，或系统已自动处理。没有做任何更改，请返回查看当前状态。",
    },
    "do.unclear.what": {"en": "The selection is not clear", "zh": "无法识别操作对象"},
    "do.unclear.then": {
        "en": "Nothing was changed. Go back and use the button there.",
        "zh": "没有做任何更改，请返回后重新点击按钮。",
    },
    "do.unavailable.what": {"en": "The ledger cannot be written at present", "zh": "暂时无法写入台账"},
    "do.unavailable.then": {
        "en": "Nothing was changed. Try again later. The server log has the reason.",
        "zh": "没有做任何更改，请稍后重试。原因见服务器日志。",
    },
    # Progress of an action.
    "do.on.under_way": {"en": "In progress", "zh": "进行中"},
    "do.on.gone": {"en": "Events processed: {count}", "zh": "已处理的事件：{count} 个"},
    "do.on.gone_of": {"en": "Events processed: {count} of {total}", "zh": "已处理的事件：{count} / {total}"},
    "do.on.says": {
        "en": "The action continues while this page is open. Processed events stay processed. If you start again, "
        "only the rest is processed.",
        "zh": "本页打开期间持续进行。已完成的部分不会丢失。重新开始时只处理剩余部分。",
    },
    "do.stopped.title": {"en": "Stopped", "zh": "已停止"},
    "do.stopped.did": {"en": "Stopped.", "zh": "已停止。"},
    "do.stopped.says": {
        "en": "Processed events stay processed. The button continues with the rest.",
        "zh": "已完成的部分不会丢失。下面的按钮继续处理剩余部分。",
    },
    "do.stopped.command": {"en": "Equivalent command:", "zh": "对应的命令："},
    "do.on.failed": {
        "en": "The ledger cannot be written at present. Processed events stay processed. Continue later.",
        "zh": "暂时无法写入台账。已完成的部分不受影响，请稍后继续。",
    },
    "do.on.go_on": {"en": "Continue", "zh": "继续"},
    "do.on.stop": {"en": "Stop", "zh": "停止"},
    # Plans of operations.
    "plan.first": {
        "en": "The plan shows exactly which deliveries the action changes. Nothing is changed before you confirm it.",
        "zh": "计划会准确列出将要处理的投递。确认之前不会做任何更改。",
    },
    "plan.show": {"en": "Show the plan", "zh": "查看计划"},
    "plan.planning": {
        "en": "The plan is being made. Deliveries so far: {count}",
        "zh": "正在生成计划。目前的投递：{count} 个",
    },
    "plan.oldest": {"en": "Oldest event received", "zh": "最早的事件接收时间"},
    "plan.newest": {"en": "Newest event received", "zh": "最新的事件接收时间"},
    "plan.made": {"en": "Planned", "zh": "计划时间"},
    "plan.by_handler": {"en": "Deliveries by handler", "zh": "按处理器统计的投递"},
    "plan.by_state": {"en": "Deliveries by state", "zh": "按状态统计的投递"},
    "plan.by_error": {"en": "Deliveries by error", "zh": "按错误统计的投递"},
    "plan.error": {"en": "Last error", "zh": "最近的错误"},
    "plan.largest": {
        "en": "Only the {count} largest handlers are listed.",
        "zh": "仅列出投递最多的 {count} 个处理器。",
    },
    "plan.paused": {
        "en": "This handler is paused: its deliveries run after it is resumed.",
        "zh": "该处理器已暂停，恢复后才会执行。",
    },
    "plan.circuit_open": {
        "en": "The circuit breaker of this handler is open: its deliveries run when a trial has succeeded.",
        "zh": "该处理器已熔断，试探成功后才会执行。",
    },
    "plan.missing": {
        "en": "The plugin of this handler is not loaded: its deliveries run after it is installed again.",
        "zh": "该处理器的插件没有加载，重新安装后才会执行。",
    },
    # Operations.
    "operations.title": {"en": "Operations", "zh": "批量操作"},
    "operations.says": {
        "en": "Changes that operators made to many deliveries: replays, verdicts on unknown deliveries, closed "
        "deliveries. An operation runs in the server and continues after a restart.",
        "zh": "运维人员对多个投递执行的操作：重放、人工确认、关闭等。操作在服务器中运行，重启后继续。",
    },
    "operations.none": {"en": "No operations yet.", "zh": "还没有批量操作。"},
    "operations.pages": {"en": "Pages of operations", "zh": "批量操作翻页"},
    "operations.all": {"en": "All operations", "zh": "全部批量操作"},
    "operation.id": {"en": "Operation id", "zh": "操作 ID"},
    "operation.note": {"en": "Note", "zh": "备注"},
    "operation.follow": {"en": "Follow the operation", "zh": "查看操作进度"},
    "operation.executed": {
        "en": "Deliveries executed: {count} of {total}",
        "zh": "已执行的投递：{count} / {total}",
    },
    "operation.succeeded": {"en": "Succeeded", "zh": "成功"},
    "operation.failed": {"en": "Failed again", "zh": "再次失败"},
    "operation.remaining": {"en": "Remaining", "zh": "剩余"},
    "operation.changed": {"en": "Changed meanwhile", "zh": "期间已变化"},
    "operation.paced": {
        "en": "Released so far: {count}, at most {rate} per second.",
        "zh": "已释放：{count} 个，每秒最多 {rate} 个。",
    },
    "operation.left": {
        "en": "The remaining deliveries that were not released stay as they are. Released ones still run.",
        "zh": "剩余投递中尚未释放的保持原状，已释放的仍会执行。",
    },
    "operation.pause": {"en": "Pause the operation", "zh": "暂停操作"},
    "operation.resume": {"en": "Resume the operation", "zh": "继续操作"},
    "operation.cancel": {"en": "Cancel the rest", "zh": "取消剩余部分"},
    "operation.rate_field": {"en": "Deliveries per second at most", "zh": "每秒最多投递数"},
    "operation.rate_says": {
        "en": "Empty: no limit. For example 5, or 0.5 for one delivery every two seconds.",
        "zh": "留空表示不限。例如 5；0.5 表示每两秒一个。",
    },
    "operation.set_rate": {"en": "Set the rate", "zh": "设置速率"},
    "operation.no_rate": {"en": "no limit", "zh": "不限"},
    "operation.wrong_rate": {
        "en": "The rate must be a number from 0.001 to 10000, such as 5 or 0.5, or empty.",
        "zh": "速率必须是 0.001 到 10000 之间的数字，例如 5 或 0.5；也可留空。",
    },
    "operation.started": {"en": "Started", "zh": "开始时间"},
    "operation.finished": {"en": "Finished", "zh": "结束时间"},
    "operation.did": {"en": "Operation", "zh": "操作进度"},
    "operation.no_items": {"en": "No matching deliveries.", "zh": "没有匹配的投递。"},
    "operation.pages": {"en": "Pages of deliveries", "zh": "投递翻页"},
    "operation_state.planning": {"en": "planning", "zh": "计划中"},
    "operation_state.planned": {"en": "not started", "zh": "未开始"},
    "operation_state.running": {"en": "running", "zh": "执行中"},
    "operation_state.paused": {"en": "paused", "zh": "已暂停"},
    "operation_state.cancelled": {"en": "cancelled", "zh": "已取消"},
    "operation_state.finished": {"en": "finished", "zh": "已结束"},
    "item_status.planned": {"en": "not released yet", "zh": "尚未释放"},
    "item_status.released": {"en": "released", "zh": "已释放"},
    "item_status.changed": {"en": "changed meanwhile", "zh": "期间已变化"},
    "item_status.succeeded": {"en": "succeeded", "zh": "成功"},
    "item_status.failed": {"en": "failed again", "zh": "再次失败"},
    # Walk through a list.
    "walk.pages": {"en": "Walk through the list", "zh": "逐个处理列表"},
    "walk.back": {"en": "Back to the list", "zh": "返回列表"},
    "walk.next": {"en": "Next in the list:", "zh": "列表中的下一个："},
    "walk.last": {"en": "No further event in the list.", "zh": "列表中没有其他事件。"},
    # Further figures of a result.
    "sum.skipped": {"en": "Skipped because of their state: {count}", "zh": "状态不符而跳过：{count} 个"},
    "sum.changed_meanwhile": {
        "en": "Skipped because their state had changed: {count}",
        "zh": "状态已变化而跳过：{count} 个",
    },
    "sum.parked": {
        "en": "Parked again because no handler matches: {count}",
        "zh": "没有匹配的处理器而重新暂存：{count} 个",
    },
    "sum.dismissed": {"en": "Dismissed: {count}", "zh": "已忽略：{count} 个"},
    "sum.waiting": {"en": "Waiting deliveries of this handler: {count}", "zh": "等待该处理器的投递：{count} 个"},
    # The audit log.
    "nav.audit": {"en": "Audit", "zh": "审计"},
    "audit.title": {"en": "Audit", "zh": "审计"},
    "audit.says": {
        "en": "Actions of operators in the console, on the command line and through the API. Each action is recorded "
        "in the transaction that performs it.",
        "zh": "运维人员通过控制台、命令行或 API 执行的操作，与操作本身在同一事务中记录。",
    },
    "audit.at": {"en": "Time", "zh": "时间"},
    "audit.actor": {"en": "Operator", "zh": "运维人员"},
    "audit.action": {"en": "Action", "zh": "操作"},
    "audit.target": {"en": "Target", "zh": "对象"},
    "audit.detail": {"en": "Details", "zh": "详情"},
    "audit.several": {"en": "several", "zh": "多个"},
    "audit.sought": {"en": "Id of an event, a handler or an alert", "zh": "事件、处理器或告警的 ID"},
    "audit.pages": {"en": "Pages of the audit log", "zh": "审计翻页"},
    "audit.none": {"en": "No matching actions.", "zh": "没有操作记录。"},
    "audit.of_this": {"en": "Actions of operators", "zh": "操作记录"},
    "audit.all": {"en": "All in the audit log", "zh": "查看审计"},
    "audit.did.index_fields": {"en": "fields indexed", "zh": "索引字段"},
    "audit.did.purge": {"en": "events purged", "zh": "清理旧事件"},
    "audit.did.operation": {"en": "bulk operation", "zh": "批量操作"},
    "audit.did.resolve": {"en": "delivery resolved", "zh": "人工确认"},
    "audit.did.reroute_parked": {"en": "parked events delivered", "zh": "补投"},
    "audit.did.retire": {"en": "handler retired", "zh": "停用处理器"},
    "audit.did.accept_correction": {"en": "body accepted as a correction", "zh": "采纳请求体为更正"},
    "audit.did.dismiss": {"en": "events dismissed", "zh": "忽略事件"},
    "audit.did.reroute": {"en": "events rerouted", "zh": "重新路由"},
    "audit.did.pause": {"en": "handler paused", "zh": "暂停处理器"},
    "audit.did.resume": {"en": "handler resumed", "zh": "恢复处理器"},
    "audit.did.reconcile": {"en": "reconciliation started", "zh": "启动对账"},
    "audit.did.confirm_reconciliation": {"en": "reconciliation confirmed", "zh": "确认补收"},
    "audit.did.close_gaps": {"en": "gaps closed", "zh": "关闭历史缺口"},
    "audit.did.decline_reconciliation": {"en": "reconciliation declined", "zh": "拒绝补收"},
    "audit.since": {"en": "Since, such as 2h or 2026-11-24", "zh": "不早于，例如 2h 或 2026-11-24"},
    "interface.server": {"en": "in the server", "zh": "服务器"},
    "audit.did.start": {"en": "server started", "zh": "服务器启动"},
    "audit.did.install": {"en": "plugins installed", "zh": "安装插件"},
    "audit.did.uninstall": {"en": "plugins uninstalled", "zh": "卸载插件"},
    "audit.did.restart": {"en": "restart requested", "zh": "请求重启"},
    "audit.did.compact": {"en": "database compacted", "zh": "压缩数据库"},
    "audit.did.reload": {"en": "settings read again", "zh": "重新读取配置"},
    "audit.did.login": {"en": "logged in", "zh": "登录"},
    "audit.did.logout": {"en": "logged out", "zh": "退出登录"},
    "audit.did.login_refused": {"en": "login refused", "zh": "拒绝登录"},
    "audit.did.acknowledge": {"en": "alert acknowledged", "zh": "确认告警"},
    "audit.did.test_alerts": {"en": "test message sent", "zh": "发送测试消息"},
    "audit.did.record_backup": {"en": "backup recorded", "zh": "记录备份"},
    "audit.more": {"en": "{count} more", "zh": "另有 {count} 项"},
    "audit.field.about": {"en": "Alerts", "zh": "告警"},
    "audit.field.address": {"en": "Client address", "zh": "客户端地址"},
    "audit.field.after": {"en": "Up to event", "zh": "处理到事件"},
    "audit.field.alerts": {"en": "Alert ids", "zh": "告警 ID"},
    "audit.field.by": {"en": "Logged in by", "zh": "登录方式"},
    "audit.field.change": {"en": "Change", "zh": "变更"},
    "audit.field.changed": {"en": "Settings changed", "zh": "已变更的配置"},
    "audit.field.correction": {"en": "Correction", "zh": "更正"},
    "audit.field.count": {"en": "Times", "zh": "次数"},
    "audit.field.damaged": {"en": "Damaged", "zh": "已损坏"},
    "audit.field.declined": {"en": "Declined instances too", "zh": "包括已拒绝的实例"},
    "audit.field.deliveries": {"en": "Deliveries", "zh": "投递"},
    "audit.field.delivery": {"en": "Delivery", "zh": "投递"},
    "audit.field.digest": {"en": "Digest of the body", "zh": "请求体摘要"},
    "audit.field.errors": {"en": "Plugins", "zh": "插件"},
    "audit.field.events": {"en": "Events", "zh": "事件"},
    "audit.field.gaps": {"en": "Gaps", "zh": "历史缺口"},
    "audit.field.handler": {"en": "Handler", "zh": "处理器"},
    "audit.field.handlers": {"en": "Handlers", "zh": "处理器"},
    "audit.field.instances": {"en": "Process instances", "zh": "流程实例"},
    "audit.field.kind": {"en": "Process", "zh": "进程"},
    "audit.field.last_at": {"en": "Last time", "zh": "最近一次"},
    "audit.field.name": {"en": "File", "zh": "文件"},
    "audit.field.needs_restart": {"en": "Settings that need a restart", "zh": "重启后生效的配置"},
    "audit.field.operation": {"en": "Action", "zh": "操作"},
    "audit.field.fields": {"en": "Fields", "zh": "字段"},
    "audit.field.plugins": {"en": "Plugins", "zh": "插件"},
    "audit.field.plugins_changed": {"en": "Plugins changed", "zh": "已变更的插件"},
    "audit.field.rate": {"en": "Deliveries per second", "zh": "每秒投递数"},
    "audit.field.role": {"en": "Role", "zh": "角色"},
    "audit.field.route": {"en": "Alert route", "zh": "告警路由"},
    "audit.field.settings_changed": {"en": "Settings changed", "zh": "已变更的配置"},
    "audit.field.since": {"en": "History since", "zh": "历史记录起始时间"},
    "audit.field.size": {"en": "Size in bytes", "zh": "字节数"},
    "audit.field.verdict": {"en": "Verdict", "zh": "人工确认"},
    "audit.field.version": {"en": "Version", "zh": "版本"},
    "audit.word.no_limit": {"en": "no limit", "zh": "不限"},
    "audit.word.yes": {"en": "yes", "zh": "是"},
    "audit.word.no": {"en": "no", "zh": "否"},
    "audit.word.by.password": {"en": "password", "zh": "密码"},
    "audit.word.by.proxy": {"en": "header of the proxy", "zh": "代理的请求头"},
    "audit.word.by.token": {"en": "token", "zh": "令牌"},
    "audit.word.verdict.did": {"en": "done", "zh": "已完成"},
    "audit.word.verdict.did_not": {"en": "not done, runs again", "zh": "未完成，重新执行"},
    "audit.word.verdict.close": {"en": "closed", "zh": "已关闭"},
    "audit.word.change.started": {"en": "started", "zh": "已开始"},
    "audit.word.change.paused": {"en": "paused", "zh": "已暂停"},
    "audit.word.change.resumed": {"en": "resumed", "zh": "已恢复"},
    "audit.word.change.cancelled": {"en": "cancelled", "zh": "已取消"},
    "audit.word.change.rate": {"en": "rate changed", "zh": "已更改速率"},
    "audit.word.kind.server": {"en": "server", "zh": "服务器"},
    "audit.word.kind.worker": {"en": "worker", "zh": "工作进程"},
    # The page of the ledger's size.
    "nav.storage": {"en": "Storage", "zh": "存储"},
    "storage.title": {"en": "Storage", "zh": "存储"},
    "storage.says": {
        "en": "How much space the database takes, and how long data is kept.",
        "zh": "数据库占用的空间，以及数据的保留期。",
    },
    "storage.database": {"en": "Database", "zh": "数据库"},
    "storage.size": {"en": "Size", "zh": "大小"},
    "storage.unused": {"en": "Unused in the file", "zh": "文件内空闲"},
    "storage.log": {"en": "Write-ahead log", "zh": "预写日志"},
    "storage.free": {"en": "Free on its disk", "zh": "磁盘剩余"},
    "storage.growth": {"en": "Growth", "zh": "增长"},
    "storage.growth_since": {"en": "since", "zh": "起始时间："},
    "storage.growth_unknown": {
        "en": "known after an hour of running",
        "zh": "运行一小时后才有数据",
    },
    "storage.days_until_full": {
        "en": "At this rate, the disk is full in {days} days.",
        "zh": "照此速度，磁盘将在 {days} 天后写满。",
    },
    "storage.events": {"en": "Events stored", "zh": "已存储事件"},
    "storage.oldest": {"en": "Oldest event received", "zh": "最早事件的接收时间"},
    "storage.no_events": {"en": "none", "zh": "没有"},
    "storage.backup": {"en": "Last recorded backup", "zh": "最近一次备份记录"},
    "storage.no_backup": {"en": "none", "zh": "没有"},
    "storage.compact": {
        "en": "New data fills the unused part before the file grows. The file becomes smaller only if the server is "
        "stopped and this command is run:",
        "zh": "新数据先使用文件内的空闲部分，用完后文件才变大。要让文件变小，请停止服务器，执行：",
    },
    "storage.autovacuum": {
        "en": "Autovacuum makes the space of deleted rows free for new ones. The database rarely becomes smaller.",
        "zh": "PostgreSQL 的 autovacuum 让新数据重复使用已删除数据的空间，数据库通常不会变小。",
    },
    "storage.retention": {"en": "Retention", "zh": "保留期"},
    "storage.retention_says": {
        "en": "The settings in force. Age counts from the last change, or from the callback for identities.",
        "zh": "当前生效的配置。时间从最后一次变化算起；唯一标识从回调之时算起。",
    },
    "storage.day": {"en": "{count} day", "zh": "{count} 天"},
    "storage.days": {"en": "{count} days", "zh": "{count} 天"},
    "storage.forever": {"en": "forever", "zh": "永久保留"},
    "storage.alerts": {"en": "Limits of the alerts", "zh": "告警阈值"},
    "storage.alerts_say": {
        "en": "An alert is raised when a limit is passed. Open alerts:",
        "zh": "超过阈值时发出告警。未关闭的告警：",
    },
    "storage.alert.disk_free_mib": {"en": "less than {mib} MiB free", "zh": "剩余不足 {mib} MiB"},
    "storage.alert.ledger_max_mib": {"en": "more than {mib} MiB", "zh": "超过 {mib} MiB"},
    "storage.alert.ledger_growth_mib": {"en": "more than {mib} MiB in 24 hours", "zh": "24 小时内超过 {mib} MiB"},
    "storage.never": {"en": "no alert", "zh": "不告警"},
    # Links on other pages.
    "events.all_of_these": {"en": "All matching events, on every page:", "zh": "对全部查询结果（含其他页）："},
    "events.dead_of_these": {
        "en": "All dead deliveries of the matching events, on every page:",
        "zh": "对全部查询结果中最终失败的投递（含其他页）：",
    },
    "events.selected": {"en": "The selected events:", "zh": "对选中的事件："},
    "events.dead_selected": {
        "en": "Dead deliveries of the selected events:",
        "zh": "对选中事件中最终失败的投递：",
    },
    "events.select": {"en": "Select {flow}", "zh": "选择 {flow}"},
    "handlers.paused_by": {"en": "by {who}", "zh": "运维人员：{who}"},
}


def text(key: str, language: str, /, **params: Any) -> str:
    """Return the text `key` in `language`, with `params` filled in.

    Raises:
        KeyError: the text, the language or a parameter does not exist.
    """
    return TEXTS[key][language].format_map(params)
