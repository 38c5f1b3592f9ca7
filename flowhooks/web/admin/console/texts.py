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
    "nav.handlers": {"en": "Handlers", "zh": "处理器"},
    "nav.parked": {"en": "Parked", "zh": "暂存"},
    "nav.rejected_requests": {"en": "Rejected", "zh": "拒收"},
    "nav.alerts": {"en": "Alerts", "zh": "告警"},
    "role.view": {"en": "may look", "zh": "只读"},
    "role.operate": {"en": "may operate", "zh": "可操作"},
    "logout": {"en": "Log out", "zh": "退出登录"},
    "login.title": {"en": "Log in", "zh": "登录"},
    "login.name": {"en": "Name", "zh": "用户名"},
    "login.password": {"en": "Password", "zh": "密码"},
    "login.wrong": {"en": "Name or password is wrong.", "zh": "用户名或密码错误。"},
    "login.wait": {
        "en": "Too many attempts. Try again in {seconds} s.",
        "zh": "尝试次数过多，请在 {seconds} 秒后重试。",
    },
    "times.utc": {"en": "Times are UTC", "zh": "时间均为 UTC"},
    "times.local": {"en": "Times are those of", "zh": "时间按所在时区显示："},
    # Words on several pages.
    "handler": {"en": "Handler", "zh": "处理器"},
    "deliveries": {"en": "Deliveries", "zh": "投递"},
    "received": {"en": "Received", "zh": "接收时间"},
    "flow": {"en": "Flow instance id", "zh": "流程实例 Id"},
    "business_key": {"en": "Business key", "zh": "业务主键"},
    "class": {"en": "Call-back class", "zh": "回调处理类"},
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
    "state.dead": {"en": "dead", "zh": "失败"},
    "state.unknown": {"en": "unknown", "zh": "结果未知"},
    "state.closed": {"en": "closed", "zh": "已关闭"},
    "state.parked": {"en": "parked", "zh": "暂存"},
    "state.dismissed": {"en": "dismissed", "zh": "免处理"},
    "state.handler_missing": {"en": "handler missing", "zh": "处理器缺失"},
    "state.failed": {"en": "failed", "zh": "出错"},
    "state.rejected": {"en": "rejected", "zh": "拒绝"},
    "state.lost": {"en": "lost", "zh": "丢失"},
    "state.loaded": {"en": "loaded", "zh": "已加载"},
    "state.quarantined": {"en": "quarantined", "zh": "隔离"},
    "state.condition": {"en": "condition undecided", "zh": "条件无法判断"},
    "state.conclusion": {"en": "unknown conclusion", "zh": "未知审批结论"},
    "state.conflict": {"en": "conflict", "zh": "回调冲突"},
    "state.denied": {"en": "denied by the settings", "zh": "被配置禁用"},
    "state.missing": {"en": "missing", "zh": "缺失"},
    "state.elsewhere": {"en": "in another process", "zh": "在其他进程"},
    "state.paused": {"en": "paused", "zh": "已暂停"},
    "state.circuit_open": {"en": "circuit open", "zh": "已熔断"},
    "state.overdue": {"en": "overdue", "zh": "超时未结束"},
    "state.retired": {"en": "retired", "zh": "停用"},
    # The overview.
    "overview.title": {"en": "Overview", "zh": "总览"},
    "overview.as_of": {"en": "As of", "zh": "截至"},
    "overview.trouble": {"en": "Trouble:", "zh": "故障："},
    "overview.alerts": {"en": "Alerts that nobody sees to yet: {count}", "zh": "尚无人处理的告警：{count}"},
    "overview.states": {"en": "What is open", "zh": "未完成"},
    "overview.oldest": {"en": "oldest: {age}", "zh": "最早：{age}前"},
    "tile.waiting": {"en": "nothing is late", "zh": "没有逾期"},
    "tile.running": {"en": "nothing runs", "zh": "没有执行中的投递"},
    "tile.dead": {"en": "none", "zh": "没有"},
    "tile.unknown": {"en": "none", "zh": "没有"},
    "tile.handler_missing": {"en": "none", "zh": "没有"},
    "tile.parked": {"en": "none", "zh": "没有"},
    "overview.arrivals": {"en": "Events received", "zh": "接收的事件"},
    "overview.per_minute": {"en": "a minute: {count} in {span}", "zh": "个/分钟：{span}内 {count} 个"},
    "overview.arrivals_says": {
        "en": "{count} events in {span}, {most} at the most in one sixtieth of it",
        "zh": "{span}内 {count} 个事件，六十分之一时段内最多 {most} 个",
    },
    "overview.answers": {
        "en": "Answered by this process since it started:",
        "zh": "本进程启动以来的响应：",
    },
    "overview.ago": {"en": "{span} ago", "zh": "{span}前"},
    "overview.now": {"en": "now", "zh": "现在"},
    "overview.performance": {"en": "Handlers lately", "zh": "处理器近况"},
    "overview.sampled": {
        "en": "The last attempts of the newest deliveries: {count}, since",
        "zh": "按最新的 {count} 个投递的最后一次尝试统计，起始时间",
    },
    "overview.attempts": {"en": "Attempts", "zh": "尝试"},
    "overview.attempts_says": {
        "en": "over time: {succeeded} succeeded, {failed} did not",
        "zh": "随时间变化：成功 {succeeded}，未成功 {failed}",
    },
    "overview.rate": {"en": "Succeeded", "zh": "成功率"},
    "overview.slowest": {"en": "Latency", "zh": "耗时"},
    "overview.lengths_says": {"en": "slowest over time, up to {most}", "zh": "各时段最慢耗时，最多 {most}"},
    "overview.median": {"en": "Median", "zh": "中位数"},
    "overview.most": {"en": "95 %", "zh": "95 分位"},
    "overview.left_out": {
        "en": "Handlers that are not shown: {count}",
        "zh": "未显示的处理器：{count}",
    },
    "overview.nothing_yet": {
        "en": "Nothing has been delivered yet.",
        "zh": "还没有任何投递。",
    },
    "live.pause": {"en": "Pause", "zh": "暂停刷新"},
    "live.go_on": {"en": "Go on", "zh": "继续刷新"},
    "live.reload": {"en": "Reload", "zh": "刷新"},
    "live.lost": {"en": "The server does not answer.", "zh": "服务器没有响应。"},
    # Events.
    "events.title": {"en": "Events", "zh": "事件"},
    "events.what": {"en": "Key and class", "zh": "流程与处理类"},
    "events.pages": {"en": "Pages of events ({number})", "zh": "事件翻页（{number}）"},
    "events.repeats": {"en": "came again: {count}", "zh": "重复回调 {count} 次"},
    "events.more": {"en": "and {count} more", "zh": "另有 {count} 个"},
    "events.none": {"en": "No event is like that.", "zh": "没有符合条件的事件。"},
    "events.none_yet": {"en": "No event has come yet.", "zh": "还没有收到事件。"},
    "events.searched_until": {
        "en": "No index answers this search: so far it has gone through what came since",
        "zh": "此查询没有索引可用，目前查到的接收时间为",
    },
    "events.look_on": {"en": "Look on", "zh": "继续查找"},
    "events.no_state": {
        "en": "There is no such state; choose one of the list.",
        "zh": "没有这种状态，请从列表中选择。",
    },
    "events.no_time": {
        "en": "This is no date with a time. Write 2026-11-24T09:30 (in the zone of the times that are shown), "
        "2026-11-24T09:30+08:00, 2026-11-24, 2h or 3d.",
        "zh": "日期时间无法识别，请写成 2026-11-24T09:30（按页面显示时间的时区）、2026-11-24T09:30+08:00、"
        "2026-11-24、2h 或 3d。",
    },
    "events.no_such_time": {
        "en": "There is no such time in this zone: clocks were set forward over it. Take a time before or after it.",
        "zh": "该时区没有这个时间（夏令时跳过）。请选择之前或之后的时间。",
    },
    "events.no_zone": {
        "en": "This server does not know the time zone. Write the time with its offset, such as "
        "2026-11-24T09:30+08:00, or install time zone data (package tzdata) where the server runs.",
        "zh": "服务器不认识该时区。请写明时差，例如 2026-11-24T09:30+08:00，或在服务器上安装时区数据（tzdata）。",
    },
    "events.understood": {"en": "Understood as", "zh": "理解为"},
    "events.twice.earlier": {
        "en": "This time comes twice: the earlier one is meant.",
        "zh": "该时间出现两次，取较早的一次。",
    },
    "events.twice.later": {
        "en": "This time comes twice: the later one is meant.",
        "zh": "该时间出现两次，取较晚的一次。",
    },
    "events.lately": {"en": "Last", "zh": "最近"},
    "events.lately.15m": {"en": "15 minutes", "zh": "15 分钟"},
    "events.lately.1h": {"en": "hour", "zh": "1 小时"},
    "events.lately.24h": {"en": "24 hours", "zh": "24 小时"},
    "events.lately.7d": {"en": "7 days", "zh": "7 天"},
    # One event.
    "event.title": {"en": "Event", "zh": "事件"},
    "event.id": {"en": "Event id", "zh": "事件 Id"},
    "event.definition": {"en": "Process definition id", "zh": "流程定义 Id"},
    "event.repeats": {"en": "Identical call-backs after it", "zh": "其后相同的回调次数"},
    "event.same_flow": {"en": "All of this flow instance", "zh": "该流程实例的全部事件"},
    "event.same_business_key": {"en": "All of this business key", "zh": "该业务主键的全部事件"},
    "event.route": {"en": "Route", "zh": "路由"},
    "interface.console": {"en": "at the console", "zh": "控制台"},
    "interface.api": {"en": "by the API", "zh": "通过 API"},
    "interface.cli": {"en": "by a command", "zh": "命令行"},
    "event.due": {"en": "It runs when its turn comes, not before", "zh": "轮到时执行，不早于"},
    "event.blocked_by": {
        "en": "It runs in its turn. It is blocked by an event of the same order key:",
        "zh": "按顺序执行，须等待同一排序键的前一事件：",
    },
    "event.for_plugin": {
        "en": "It waits for its handler, whose plugin is not loaded.",
        "zh": "等待其处理器：对应的插件没有加载。",
    },
    "event.circuit_open": {
        "en": "It waits until its handler works again. Its circuit is open because its last attempts failed, since",
        "zh": "等待处理器恢复正常。该处理器连续失败，熔断时间：",
    },
    "event.paused": {
        "en": "It waits until its handler is resumed, which is paused since",
        "zh": "处理器已暂停，恢复后才会执行。暂停时间：",
    },
    "event.note": {"en": "Note:", "zh": "备注："},
    "event.then.dead": {
        "en": "When the cause is mended, run it again:",
        "zh": "排除原因后重新执行：",
    },
    "event.then.unknown": {
        "en": "It was cut off. Find out whether it did its work, and say so:",
        "zh": "执行被中断。请核实是否已完成，再裁定：",
    },
    "event.verdicts": {
        "en": "with --did, --did-not or --close",
        "zh": "加 --did、--did-not 或 --close",
    },
    "event.earlier": {"en": "Earlier attempts that are not shown: {count}", "zh": "未显示的更早尝试：{count}"},
    "event.attempt": {"en": "Attempt {number}", "zh": "第 {number} 次尝试"},
    "event.returned": {"en": "Returned", "zh": "返回值"},
    "event.no_attempt": {"en": "No attempt has begun.", "zh": "尚未开始尝试。"},
    "event.no_delivery": {"en": "It has no delivery.", "zh": "没有投递。"},
    "event.left_out": {"en": "Deliveries that are not shown: {count}", "zh": "未显示的投递：{count}"},
    "event.body": {"en": "Body", "zh": "请求体"},
    "event.pretty": {"en": "Body, indented", "zh": "请求体（缩进显示）"},
    "event.raw": {"en": "As received", "zh": "原文"},
    "event.too_long": {
        "en": "The body is long; only its beginning is shown. The file has all of it.",
        "zh": "请求体较长，仅显示开头部分；完整内容请下载。",
    },
    "event.download": {"en": "Download as a file", "zh": "下载为文件"},
    "event.conflicts": {"en": "Conflicting bodies", "zh": "冲突的请求体"},
    "event.conflicts_says": {
        "en": "The same identity came again with other data, and was rejected with 409. The first call-back stands.",
        "zh": "同一标识又以不同数据回调，已返回 409 拒绝；以第一次回调为准。",
    },
    # Handlers and plugins.
    "handlers.title": {"en": "Handlers and plugins", "zh": "处理器与插件"},
    "handlers.name": {"en": "Part of the name", "zh": "名称包含"},
    "handlers.since": {
        "en": "Calls are counted among the newest deliveries: {count}, since",
        "zh": "调用次数按最新的 {count} 个投递统计，起始时间",
    },
    "handlers.cut": {
        "en": "More is open than is counted here: of each kind, {count} are gone through at the most.",
        "zh": "未完成的数量多于此处统计：每类最多统计 {count} 个。",
    },
    "handlers.hooks": {"en": "Hooks:", "zh": "钩子："},
    "handlers.of": {"en": "Handlers of {name}", "zh": "{name} 的处理器"},
    "handlers.listens": {"en": "Listens to", "zh": "选择条件"},
    "handlers.open": {"en": "Open", "zh": "未完成"},
    "handlers.called": {"en": "Last called", "zh": "最近调用"},
    "handlers.times": {"en": "{count} of the newest deliveries", "zh": "最新投递中的 {count} 个"},
    "handlers.never": {"en": "nobody calls it", "zh": "没有调用"},
    "handlers.retry": {"en": "retries: up to {count} attempts", "zh": "可重试：最多 {count} 次尝试"},
    "handlers.process": {
        "en": "in a process of its own: {seconds} s and {mebibytes} MiB at the most",
        "zh": "在独立进程中运行：最多 {seconds} 秒、{mebibytes} MiB",
    },
    "handlers.thread": {"en": "in a thread: overdue after {seconds} s", "zh": "在线程中运行：{seconds} 秒后视为超时"},
    "handlers.missing": {
        "en": "It was loaded before and is not now; what its handlers would do waits for it.",
        "zh": "以前加载过，现在没有；其处理器的投递都在等待。",
    },
    "handlers.elsewhere": {
        "en": "It is not loaded here; other processes run its handlers.",
        "zh": "此处未加载；其处理器由其他进程运行。",
    },
    "handlers.retired": {
        "en": "It was uninstalled; what is stored for it stays.",
        "zh": "已卸载；为它存储的投递仍然保留。",
    },
    "handlers.circuit_open": {
        "en": "Its last attempts failed. Its circuit is open since",
        "zh": "连续失败，熔断时间：",
    },
    "circuit.retry": {"en": "One delivery is tried from", "zh": "下次试运行时间："},
    "handlers.paused": {
        "en": "What comes for it is stored and waits. Paused since",
        "zh": "新的投递照常保存，恢复前不执行。暂停时间：",
    },
    "handlers.none_of_it": {"en": "It has no handlers.", "zh": "没有处理器。"},
    "handlers.none": {"en": "No plugin is like that.", "zh": "没有符合条件的插件。"},
    "handlers.pages": {"en": "Pages of handlers", "zh": "处理器翻页"},
    "handlers.first": {"en": "First", "zh": "首页"},
    "handlers.next": {"en": "Next", "zh": "下一页"},
    "listens.class": {"en": "class", "zh": "处理类"},
    "listens.key": {"en": "key", "zh": "流程 Key"},
    "listens.every": {"en": "every event", "zh": "所有事件"},
    "listens.versions": {"en": "versions", "zh": "版本"},
    "listens.source": {"en": "source", "zh": "来源"},
    "listens.kind": {"en": "kind", "zh": "类型"},
    # Parked events.
    "parked.title": {"en": "Parked events", "zh": "暂存的事件"},
    "parked.more": {
        "en": "There are more: the oldest {count} are counted.",
        "zh": "数量更多，仅统计最早的 {count} 个。",
    },
    "parked.waits_for": {"en": "Waits for", "zh": "等待"},
    "parked.oldest": {"en": "Oldest", "zh": "最早"},
    "parked.then": {"en": "What to do", "zh": "处理办法"},
    "parked.deliverable": {"en": "A handler takes these now. Deliver them:", "zh": "现在已有处理器，可补投："},
    "parked.install": {
        "en": "Install a plugin that listens to the class or key, or name the key in routing.ignore_process_keys.",
        "zh": "安装对应的插件，或把流程 Key 写入 routing.ignore_process_keys。",
    },
    "parked.neither": {
        "en": "neither a class nor a key",
        "zh": "既没有处理类，也没有流程 Key",
    },
    "parked.left_out": {"en": "Groups that are not shown: {count}", "zh": "未显示的分组：{count}"},
    "parked.none": {"en": "Nothing is parked.", "zh": "没有暂存的事件。"},
    # Rejected requests.
    "rejected.title": {"en": "Rejected requests", "zh": "被拒绝的请求"},
    "rejected.says": {
        "en": "Answered with an error, and not stored: the engine has to correct them, or to call again. "
        "The last 1,000 are kept.",
        "zh": "已返回错误且未存储，需由流程引擎更正或重发。保留最近 1000 条。",
    },
    "rejected.at": {"en": "When", "zh": "时间"},
    "rejected.status": {"en": "Status", "zh": "状态码"},
    "rejected.path": {"en": "Path", "zh": "路径"},
    "rejected.from": {"en": "From", "zh": "来源地址"},
    "rejected.why": {"en": "Why", "zh": "原因"},
    "rejected.pages": {"en": "Pages of rejected requests", "zh": "拒收记录翻页"},
    "rejected.none": {"en": "No request has been rejected.", "zh": "没有被拒绝的请求。"},
    # Alerts.
    "alerts.title": {"en": "Alerts", "zh": "告警"},
    "alerts.says": {
        "en": "One alert for each cause; it is over when its cause has gone. Listeners are notified again when it has "
        "grown. To acknowledge an alert says that somebody sees to it.",
        "zh": "每个原因一条告警；原因消除后告警结束，数量明显增加时再次通知。确认告警表示已有人处理。",
    },
    "alerts.open": {"en": "Open", "zh": "未消除"},
    "alerts.over": {"en": "Over", "zh": "已结束"},
    "alerts.about": {"en": "About", "zh": "对象"},
    "alerts.since": {"en": "Since", "zh": "开始"},
    "alerts.until": {"en": "Until", "zh": "结束"},
    "alerts.count": {"en": "Count", "zh": "数量"},
    "alerts.new": {"en": "(+{count} since the last notification)", "zh": "（上次通知后新增 {count}）"},
    "alerts.last": {"en": "Latest:", "zh": "最近一次："},
    "alerts.last_error": {"en": "Last error:", "zh": "最近的错误："},
    "alerts.notifications": {"en": "{count} times, last", "zh": "共 {count} 次，最近："},
    "alerts.message": {"en": "Message", "zh": "内容"},
    "alerts.told": {"en": "Told", "zh": "已通知"},
    "alerts.nobody": {"en": "nobody yet", "zh": "尚未通知"},
    "alerts.acknowledged": {"en": "Acknowledged", "zh": "已确认"},
    "alerts.unseen": {"en": "by nobody yet", "zh": "尚未确认"},
    "alerts.event": {"en": "One of the events", "zh": "其中一个事件"},
    "alerts.none": {"en": "No alert is open.", "zh": "没有未消除的告警。"},
    # Errors.
    "problem.purged.what": {"en": "This event was purged", "zh": "该事件已被清理"},
    "problem.purged.then": {
        "en": "It had been kept for as long as was wanted. The same call-back is still known, and runs nothing.",
        "zh": "其保存期限已过。相同的回调仍能识别，不会再次执行。",
    },
    "problem.nothing.what": {"en": "There is nothing here", "zh": "页面不存在"},
    "problem.nothing.then": {
        "en": "Look for it under Events: it may have been purged, or the address may be incomplete.",
        "zh": "请到“事件”页查找：它可能已被清除，或者地址不完整。",
    },
    "problem.ledger.what": {"en": "The ledger cannot be read just now", "zh": "暂时无法读取台账"},
    "problem.ledger.then": {
        "en": "The server's log has the reason. Reload this page when the database answers again.",
        "zh": "原因见服务器日志。数据库恢复后请刷新本页。",
    },
    "problem.newer.what": {
        "en": "A newer version of flowhooks has recorded handlers",
        "zh": "处理器已由更新版本的 flowhooks 登记",
    },
    "problem.newer.then": {
        "en": "This version cannot read what they listen to, and routes nothing. Run the newer version here, too.",
        "zh": "本版本无法读取其选择条件，因此不分发任何事件。请在此处也运行该更新版本。",
    },
    "problem.ours.what": {"en": "The server failed because of an error of its own", "zh": "服务器内部错误"},
    "problem.ours.then": {
        "en": "The server's log has the details. The other pages may work.",
        "zh": "详情见服务器日志。其他页面可能仍可使用。",
    },
    "refused.bound.what": {"en": "The console is not shown here", "zh": "此处不能打开控制台"},
    "refused.bound.then": {
        "en": "This listener can be reached by other machines, and the settings name nobody who may log in. "
        "Add an operator to them (flowhooks operators new), or set admin to 127.0.0.1 and a port, and open the console "
        "through a tunnel: ssh -L 8081:127.0.0.1:8081 with the server's name.",
        "zh": "其他机器可以访问该监听地址，而配置中没有可以登录的运维人员。请在配置中添加（flowhooks operators new），"
        "或者把配置项 admin 设为 127.0.0.1 加端口，再通过隧道访问：ssh -L 8081:127.0.0.1:8081 加服务器名。",
    },
    "refused.host.what": {"en": "The console is not shown under this name", "zh": "不能用此主机名打开控制台"},
    "refused.host.then": {
        "en": "Open it as http://127.0.0.1 or http://localhost with the port. "
        "Any other name could be a web site that wants to read it through your browser.",
        "zh": "请用 http://127.0.0.1 或 http://localhost 加端口打开。其他名称可能是想借浏览器读取本页的网站。",
    },
    "refused.name.what": {"en": "The console has another address", "zh": "控制台的地址不是这个"},
    "refused.name.then": {
        "en": "Open it under the address that is public_url in the settings.",
        "zh": "请用配置项 public_url 中的地址打开。",
    },
    "refused.origin.what": {"en": "Nothing was changed", "zh": "未做任何修改"},
    "refused.origin.then": {
        "en": "This did not come from a page of the console, but from another site, or without saying where from. "
        "If it was you, open the console again and repeat it there. Behind a proxy, the Host header has to reach this "
        "server as the browser sent it, and public_url in the settings has to be the console's address.",
        "zh": "该请求不是从控制台页面发出的：它来自其他网站，或者没有说明来源。"
        "如果是您本人的操作，请重新打开控制台后再试。"
        "使用反向代理时，Host 请求头须原样转发，配置项 public_url 须为控制台的地址。",
    },
    "refused.role.what": {"en": "You may look, and not change anything", "zh": "您只能查看，不能修改"},
    "refused.role.then": {
        "en": "Nothing was changed. Ask somebody whose role in the settings is operate.",
        "zh": "未做任何修改。请联系配置中角色为 operate 的运维人员。",
    },
    # Conclusions and conditions; why an event is parked or dismissed.
    "conclusion": {"en": "Conclusion", "zh": "审批结论"},
    "dismissed_by": {"en": "Dismissed because", "zh": "免处理原因"},
    "listens.conclusion": {"en": "conclusion", "zh": "审批结论"},
    "listens.when": {"en": "condition", "zh": "条件"},
    # Why an event is parked or dismissed: in a listing, and on its own page.
    "parked_by.handler": {"en": "no handler takes it", "zh": "没有对应的处理器"},
    "parked_by.condition": {"en": "a condition cannot be decided", "zh": "条件无法判断"},
    "parked_by.name": {"en": "it has neither class nor key", "zh": "没有处理类和流程 Key"},
    "dismissed_by.condition": {"en": "a condition is false", "zh": "条件不成立"},
    "dismissed_by.kind": {"en": "handlers listen to other kinds", "zh": "回调类型不同"},
    "dismissed_by.setting": {"en": "a setting says so", "zh": "配置指定"},
    "dismissed_by.operator": {"en": "an operator says so", "zh": "运维人员指定"},
    "event.parked_by.handler": {
        "en": "Parked: no handler has its class or key, or none of those takes its version and source. "
        "It is delivered when such a handler is installed.",
        "zh": "暂存：没有处理器对应它的处理类或流程定义 Key，或者这些处理器不接受它的版本或来源。"
        "安装合适的处理器后会自动投递。",
    },
    "event.parked_by.condition": {
        "en": "Parked: the condition of a handler cannot be decided for this event, because a member of the body is "
        "absent or of another type. Correct what the engine sends, or the handler. An operator decides on this event.",
        "zh": "暂存：请求体中的字段缺失或类型不符，无法判断处理器的条件。请更正流程引擎发送的内容，或修改处理器；"
        "本事件由运维人员处理。",
    },
    "event.parked_by.name": {
        "en": "Parked: it has neither a class nor a key, so that no handler can be found for it. "
        "An operator decides on this event.",
        "zh": "暂存：它既没有处理类，也没有流程定义 Key，无法找到处理器。本事件由运维人员处理。",
    },
    "event.dismissed_by.condition": {
        "en": "Dismissed: handlers have its class or key, and a condition of each of them is false.",
        "zh": "免处理：有处理器对应它的处理类或流程定义 Key，但各处理器的条件都不成立。",
    },
    "event.dismissed_by.kind": {
        "en": "Dismissed: handlers have its class or key, and they all listen to other kinds of callback.",
        "zh": "免处理：有处理器对应它的处理类或流程定义 Key，但它们监听的回调类型不同。",
    },
    "event.dismissed_by.setting": {
        "en": "Dismissed: the setting routing.ignore_process_keys names its key.",
        "zh": "免处理：配置项 routing.ignore_process_keys 列出了它的流程定义 Key。",
    },
    "event.dismissed_by.operator": {
        "en": "Dismissed: an operator dismissed it.",
        "zh": "免处理：由运维人员设为免处理。",
    },
    # Why handlers get an event or not.
    "event.no_match": {"en": "Handlers that did not get it", "zh": "未收到它的处理器"},
    "event.no_match_more": {"en": "Handlers that are not shown: {count}", "zh": "未显示的处理器：{count}"},
    "event.explain": {"en": "Why these handlers?", "zh": "为什么是这些处理器？"},
    "event.explained": {"en": "Why these handlers", "zh": "为什么是这些处理器"},
    "event.explain_now": {"en": "Which handlers would get it now?", "zh": "现在哪些处理器会处理它？"},
    "event.explained_now": {"en": "Which handlers would get it now", "zh": "现在哪些处理器会处理它"},
    "event.explained_says": {
        "en": "What the present handlers would do with this event. It may differ from what happened when it came.",
        "zh": "按现有处理器得出的结果，可能与事件到达时不同。",
    },
    "event.explained_none": {
        "en": "No present handler has its class or key, and none takes every event.",
        "zh": "现有处理器都不对应它的处理类或流程定义 Key，也没有监听所有事件的处理器。",
    },
    "event.gets": {"en": "gets it", "zh": "处理"},
    "event.gets_not": {"en": "does not get it", "zh": "不处理"},
    "event.result": {"en": "Result", "zh": "结果"},
    # Deliveries that conditions keep from running.
    "event.undecided": {
        "en": "It waits without a time, because the handler's condition cannot be decided for this event. The "
        "condition is checked again when a process starts that has the handler.",
        "zh": "等待中，没有执行时间：无法判断处理器的条件对本事件是否成立。加载该处理器的进程启动时会重新判断。",
    },
    "event.false": {
        "en": "It was closed and did not run, because the handler's condition was false for this event.",
        "zh": "已关闭，没有执行：处理器的条件不成立。",
    },
    # Handlers.
    "handlers.dismissed": {
        "en": "Dismissed events that it would take now: {count}. No installation delivers them; this command does:",
        "zh": "它现在会处理的免处理事件：{count} 个。安装插件不会投递这些事件，如需投递请执行：",
    },
    # Events.
    "events.no_reason": {
        "en": "There is no such reason; choose one of the list.",
        "zh": "没有这种原因，请从列表中选择。",
    },
    # Parked events.
    "parked.says": {
        "en": "No handler takes these events yet, or the condition of one cannot be decided. They are stored. Events "
        "that no handler takes are delivered when a handler for them is installed.",
        "zh": "目前没有处理器处理这些事件，或者无法判断处理器的条件。它们已存储。"
        "没有处理器的事件在安装处理器后会自动投递。",
    },
    "parked.undecided": {
        "en": "These events lack {member}, which a handler needs to decide whether it takes them. Correct what the "
        "engine sends, or the handler.",
        "zh": "这些事件缺少 {member}，处理器需要它才能判断是否处理。请更正流程引擎发送的内容，或修改处理器。",
    },
    "parked.nameless": {
        "en": "No handler can be found for these events. Have the engine send a class or a key with later ones, deal "
        "with these by hand, and dismiss each on its own page.",
        "zh": "无法为这些事件找到处理器。请让流程引擎以后至少填写处理类或流程 Key；"
        "已有的请人工处理，然后在各自的事件页设为免处理。",
    },
    "parked.by_data": {
        "en": "A handler's condition reads the body, so each event is routed by its own body. Deliver those that a "
        "handler takes now:",
        "zh": "处理器的条件要读取请求体，因此各事件逐个按其请求体路由。可补投现在已有处理器的事件：",
    },
    "parked.oldest_lacks": {
        "en": "The oldest one lacks {member}, or it has another type.",
        "zh": "最早的一个缺少 {member}，或者其类型不符。",
    },
    "parked.explain": {"en": "Why, in full:", "zh": "查看详细原因："},
    # Actions and the audit log.
    # Retry dead deliveries.
    "do.replay.act": {"en": "Run again", "zh": "重新执行"},
    "do.replay.title": {"en": "Run dead deliveries again", "zh": "重新执行失败的投递"},
    "do.replay.would": {"en": "Deliveries that run again: {count}", "zh": "将重新执行的投递：{count} 个"},
    "do.replay.undo": {
        "en": "This cannot be undone: what a handler does again, it has done. Mend the cause first. "
        "Earlier attempts stay on record.",
        "zh": "无法撤销：处理器重新做的事不能收回，请先排除原因。以前的尝试记录保留。",
    },
    "do.replay.button": {"en": "Run again", "zh": "重新执行"},
    "do.replay.did": {"en": "Deliveries that run again: {count}", "zh": "已安排重新执行的投递：{count} 个"},
    # Run succeeded deliveries again.
    "do.replay_again.act": {"en": "Run once more", "zh": "再执行一次"},
    "do.replay_again.title": {
        "en": "Run deliveries once more that have succeeded",
        "zh": "再次执行已成功的投递",
    },
    "do.replay_again.would": {
        "en": "Deliveries whose work is done a second time: {count}",
        "zh": "将重复执行的投递：{count} 个",
    },
    "do.replay_again.undo": {
        "en": "This cannot be undone. The work has been done already: a payment may be booked twice, "
        "a mail sent twice, unless the handler takes care of that itself.",
        "zh": "无法撤销。该业务已经完成：除非处理器自己防重，否则可能重复记账、重复发信。",
    },
    "do.replay_again.sure": {
        "en": "I know that the work is done a second time.",
        "zh": "我知道这会把业务再做一遍。",
    },
    "do.replay_again.button": {"en": "Do the work a second time", "zh": "再做一遍"},
    "do.replay_again.did": {"en": "Deliveries that run once more: {count}", "zh": "已安排再次执行的投递：{count} 个"},
    # Resolve an unknown delivery.
    "do.did.act": {"en": "It did its work", "zh": "已完成"},
    "do.did.title": {"en": "Say that it did its work", "zh": "裁定：已完成"},
    "do.did.would": {"en": "It counts as succeeded, and does not run.", "zh": "将视为成功，不再执行。"},
    "do.did.undo": {
        "en": "If that was wrong, run it once more from the page of its event.",
        "zh": "如裁定有误，可在事件页再执行一次。",
    },
    "do.did.button": {"en": "It did its work", "zh": "已完成"},
    "do.did.did": {"en": "It counts as succeeded.", "zh": "已裁定为成功。"},
    "do.did_not.act": {"en": "It did not: run it", "zh": "未完成，重新执行"},
    "do.did_not.title": {"en": "Say that it did not do its work", "zh": "裁定：未完成"},
    "do.did_not.would": {"en": "It runs again, from the beginning.", "zh": "将从头重新执行。"},
    "do.did_not.undo": {
        "en": "This cannot be undone: if it did its work after all, that is done a second time.",
        "zh": "无法撤销：如果其实已经完成，业务会再做一遍。",
    },
    "do.did_not.button": {"en": "It did not: run it", "zh": "未完成，重新执行"},
    "do.did_not.did": {"en": "It runs again.", "zh": "已安排重新执行。"},
    # Close a delivery.
    "do.close.act": {"en": "Close", "zh": "关闭"},
    "do.close.title": {"en": "Close a delivery", "zh": "关闭投递"},
    "do.close.would": {
        "en": "Nothing more is done about it; it counts as settled.",
        "zh": "不再执行，视为已了结。",
    },
    "do.close.undo": {
        "en": "This cannot be undone: what is closed never runs again. Say in the note who has done its work.",
        "zh": "无法撤销：关闭后不会再执行。请在备注中写明由谁办理。",
    },
    "do.close.button": {"en": "Close it", "zh": "关闭"},
    "do.close.did": {"en": "It is closed.", "zh": "已关闭。"},
    # Parked events.
    "do.reroute_parked.act": {"en": "Deliver what a handler takes now", "zh": "补投已有处理器的事件"},
    "do.reroute_parked.title": {"en": "Deliver parked events that a handler takes now", "zh": "补投暂存的事件"},
    "do.reroute_parked.would": {
        "en": "Parked events that are delivered: {count}",
        "zh": "将补投的暂存事件：{count} 个",
    },
    "do.reroute_parked.undo": {
        "en": "This cannot be undone: their handlers run. It also happens by itself at the next start.",
        "zh": "无法撤销：处理器将执行。下次启动时也会自动补投。",
    },
    "do.reroute_parked.button": {"en": "Deliver them", "zh": "补投"},
    "do.reroute_parked.did": {"en": "Parked events that were delivered: {count}", "zh": "已补投的暂存事件：{count} 个"},
    "do.dismiss.act": {"en": "Dismiss", "zh": "免处理"},
    "do.dismiss.title": {"en": "Dismiss parked events", "zh": "将暂存事件设为免处理"},
    "do.dismiss.would": {
        "en": "Parked events of which nobody need take care: {count}",
        "zh": "将设为免处理的暂存事件：{count} 个",
    },
    "do.dismiss.undo": {
        "en": "They stay stored. Undo it by routing them again, also when a handler for them is installed later.",
        "zh": "事件仍然保留。需要时（例如以后安装了处理器）可用“重新路由”撤销。",
    },
    "do.dismiss.button": {"en": "Dismiss", "zh": "设为免处理"},
    "do.dismiss.did": {"en": "Events that were dismissed: {count}", "zh": "已设为免处理的事件：{count} 个"},
    "do.reroute.act": {"en": "Route again", "zh": "重新路由"},
    "do.reroute.title": {"en": "Route events again", "zh": "重新路由"},
    "do.reroute.would": {
        "en": "Events that are given deliveries they do not have: {count}",
        "zh": "将增加投递的事件：{count} 个",
    },
    "do.reroute.undo": {
        "en": "New deliveries cannot be taken back: their handlers run. Those that are there stay as they are.",
        "zh": "新增的投递无法撤回，处理器将执行。已有的投递不变。",
    },
    "do.reroute.button": {"en": "Route again", "zh": "重新路由"},
    "do.reroute.did": {"en": "Events that were given deliveries: {count}", "zh": "已增加投递的事件：{count} 个"},
    # Handlers.
    "do.pause.act": {"en": "Pause", "zh": "暂停"},
    "do.pause.title": {"en": "Pause a handler", "zh": "暂停处理器"},
    "do.pause.would": {"en": "Handlers that run nothing more: {count}", "zh": "将暂停的处理器：{count} 个"},
    "do.pause.undo": {
        "en": "Call-backs are still taken, and its deliveries wait. What runs just now is not stopped. "
        "Resume it, and they run.",
        "zh": "回调照常接收，其投递等待；正在执行的不会中断。恢复后继续执行。",
    },
    "do.pause.button": {"en": "Pause it", "zh": "暂停"},
    "do.pause.did": {"en": "Handlers that were paused: {count}", "zh": "已暂停的处理器：{count} 个"},
    "do.resume.act": {"en": "Resume", "zh": "恢复"},
    "do.resume.title": {"en": "Resume a handler", "zh": "恢复处理器"},
    "do.resume.would": {"en": "Handlers that run again: {count}", "zh": "将恢复的处理器：{count} 个"},
    "do.resume.undo": {
        "en": "What waits for it runs at once; it can be paused again.",
        "zh": "等待的投递立即开始执行；可以再次暂停。",
    },
    "do.resume.button": {"en": "Resume it", "zh": "恢复"},
    "do.resume.did": {"en": "Handlers that were resumed: {count}", "zh": "已恢复的处理器：{count} 个"},
    # Alerts.
    "do.acknowledge.act": {"en": "I see to it", "zh": "认领"},
    "do.acknowledge.title": {"en": "Say that you see to an alert", "zh": "认领告警"},
    "do.acknowledge.would": {"en": "Alerts that you see to: {count}", "zh": "将认领的告警：{count} 个"},
    "do.acknowledge.undo": {
        "en": "Your name stands beside it until its cause has gone. It changes nothing about the cause. "
        "Listeners are notified again only when the alert has doubled.",
        "zh": "告警旁会显示您的名字，直到原因消除。告警的原因不受影响。此后只有数量翻倍时才再次通知。",
    },
    "do.acknowledge.button": {"en": "I see to it", "zh": "认领"},
    "do.acknowledge.did": {"en": "Alerts that you see to: {count}", "zh": "已认领的告警：{count} 个"},
    # Texts of all actions.
    "do.delivery": {"en": "Delivery", "zh": "投递"},
    "do.alert": {"en": "Alert", "zh": "告警"},
    "do.what": {"en": "What is meant", "zh": "对象"},
    "do.becomes": {"en": "becomes", "zh": "变为"},
    "do.at_least": {"en": "at least {count}", "zh": "至少 {count}"},
    "do.counted": {
        "en": "There are more than were counted just now. All of them are meant.",
        "zh": "数量较多，尚未数完；将处理全部。",
    },
    "do.nothing": {
        "en": "There is nothing to do: none of what is meant is in a state from which this is done. "
        "Perhaps somebody has done it already.",
        "zh": "无需操作：所选对象都不在可操作的状态，可能已有人处理。",
    },
    "do.nothing_left": {
        "en": "There was nothing left to do: it had moved on by then.",
        "zh": "没有需要处理的：状态已经变化。",
    },
    "do.may_not": {
        "en": "You may look, and not do this. Ask somebody with the role operate.",
        "zh": "您只有查看权限，请联系有操作权限（operate）的人。",
    },
    "do.note": {"en": "Note, for those who look later (optional)", "zh": "备注，供以后查看（可不填）"},
    "do.unsure": {"en": "Tick the box if you mean it.", "zh": "如确定要执行，请先勾选。"},
    "do.cancel": {"en": "Cancel", "zh": "取消"},
    "do.back": {"en": "Back", "zh": "返回"},
    "do.gone.what": {"en": "It is not there any more", "zh": "对象已不存在"},
    "do.gone.then": {
        "en": "It may have been purged, or the address may be incomplete. Nothing was changed.",
        "zh": "可能已被清除，或者地址不完整。没有做任何更改。",
    },
    "do.moved.what": {"en": "It has moved on", "zh": "状态已经变化"},
    "do.moved.then": {
        "en": "Somebody else, or the machine, was quicker. Nothing was changed. Go back and look how it stands now.",
        "zh": "可能已有人处理，或系统已自动处理。没有做任何更改，请返回查看当前状态。",
    },
    "do.unclear.what": {"en": "It is not clear what is meant", "zh": "无法识别操作对象"},
    "do.unclear.then": {
        "en": "Nothing was changed. Go back, and use the button there.",
        "zh": "没有做任何更改，请返回后重新点击按钮。",
    },
    "do.unavailable.what": {"en": "The ledger cannot be written just now", "zh": "暂时无法写入台账"},
    "do.unavailable.then": {
        "en": "Nothing was changed. Try again in a moment; the server's log has the reason.",
        "zh": "没有做任何更改，请稍后重试；原因见服务器日志。",
    },
    # Progress of an action.
    "do.on.under_way": {"en": "Under way", "zh": "进行中"},
    "do.on.gone": {"en": "Events gone through: {count}", "zh": "已处理的事件：{count} 个"},
    "do.on.gone_of": {"en": "Events gone through: {count} of {total}", "zh": "已处理的事件：{count} / {total}"},
    "do.on.says": {
        "en": "It goes on while this page is open. What is done stays done. Starting it again does the rest.",
        "zh": "本页打开期间持续进行。已完成的部分不会丢失；重新开始时只处理剩余部分。",
    },
    "do.on.says_all": {
        "en": "It goes on while this page is open. What is done stays done, and starting it again from the list runs "
        "all of them again, also those that were started. Stop here leads to a page that goes on where it stopped; "
        "the audit has that place too.",
        "zh": "本页打开期间持续进行。已完成的部分不会丢失；如果从列表重新开始，全部投递（包括已执行的）都会再执行一遍。"
        "“到此为止”之后的页面可从中断处继续；中断位置也记录在审计中。",
    },
    "do.stopped.title": {"en": "Stopped", "zh": "已停止"},
    "do.stopped.did": {"en": "Stopped.", "zh": "已停止。"},
    "do.stopped.says": {
        "en": "What is done stays done. Starting it again does the rest, as the button does.",
        "zh": "已完成的部分不会丢失。重新开始只处理剩余部分，与下面的按钮相同。",
    },
    "do.stopped.says_all": {
        "en": "What is done stays done. The button goes on with what is left. Starting it again from the list runs all "
        "of them again, also those that were started. The address of this page can be kept.",
        "zh": "已完成的部分不会丢失。下面的按钮从中断处继续，只处理剩余部分。如果从列表重新开始，全部投递"
        "（包括已执行的）都会再执行一遍。本页地址可以保存。",
    },
    "do.stopped.command": {"en": "The same on the command line:", "zh": "对应的命令："},
    "do.on.failed": {
        "en": "The ledger could not be written just now. What was done before stays done; go on in a moment.",
        "zh": "暂时无法写入台账。已完成的部分不受影响，请稍后继续。",
    },
    "do.on.go_on": {"en": "Go on", "zh": "继续"},
    "do.on.stop": {"en": "Stop here", "zh": "到此为止"},
    # Further figures of a result.
    "sum.skipped": {
        "en": "Skipped because they are in another state: {count}",
        "zh": "状态不符而跳过：{count} 个",
    },
    "sum.changed_meanwhile": {
        "en": "Left alone because they had changed meanwhile: {count}",
        "zh": "状态已变化而跳过：{count} 个",
    },
    "sum.out_of_order": {
        "en": "Of ordered handlers, and so after what waits for the same key by now: {count}",
        "zh": "属于按序处理器，排在同一键的等待者之后：{count} 个",
    },
    "sum.parked": {"en": "Parked again, for nobody wants them: {count}", "zh": "没有处理器而重新暂存：{count} 个"},
    "sum.dismissed": {
        "en": "Dismissed, for the settings say that nobody need want them: {count}",
        "zh": "按配置免处理：{count} 个",
    },
    "sum.waiting": {"en": "Deliveries that wait for it: {count}", "zh": "等待它的投递：{count} 个"},
    # The audit log.
    "nav.audit": {"en": "Audit", "zh": "审计"},
    "audit.title": {"en": "Audit", "zh": "审计"},
    "audit.says": {
        "en": "What operators have done, by console, command or API; written down in the transaction that does it.",
        "zh": "操作员通过控制台、命令或接口所做的操作，与操作本身在同一事务中记录。",
    },
    "audit.at": {"en": "When", "zh": "时间"},
    "audit.actor": {"en": "Who", "zh": "操作员"},
    "audit.action": {"en": "What", "zh": "操作"},
    "audit.target": {"en": "About", "zh": "对象"},
    "audit.detail": {"en": "Details", "zh": "详情"},
    "audit.several": {"en": "several", "zh": "多个"},
    "audit.sought": {"en": "Id of an event, a handler or an alert", "zh": "事件、处理器或告警的 Id"},
    "audit.pages": {"en": "Pages of the audit", "zh": "审计翻页"},
    "audit.none": {"en": "Nobody has done anything about it.", "zh": "没有操作记录。"},
    "audit.of_this": {"en": "What operators have done", "zh": "操作记录"},
    "audit.all": {"en": "All in the audit", "zh": "查看审计"},
    "audit.did.purge": {"en": "purged old events", "zh": "清理旧事件"},
    "audit.did.replay": {"en": "run again", "zh": "重新执行"},
    "audit.did.resolve": {"en": "resolved", "zh": "裁定"},
    "audit.did.reroute_parked": {"en": "delivered what was parked", "zh": "补投"},
    "audit.did.retire": {"en": "handler retired", "zh": "停用处理器"},
    "audit.did.dismiss": {"en": "dismissed", "zh": "设为免处理"},
    "audit.did.reroute": {"en": "routed again", "zh": "重新路由"},
    "audit.did.pause": {"en": "handler paused", "zh": "暂停处理器"},
    "audit.did.resume": {"en": "handler resumed", "zh": "恢复处理器"},
    "audit.did.acknowledge": {"en": "alert acknowledged", "zh": "认领告警"},
    # Links on other pages.
    "events.all_of_these": {"en": "All of these, on every page:", "zh": "对全部查询结果（含其他页）："},
    "events.dead_of_these": {
        "en": "All dead deliveries of these, on every page:",
        "zh": "对全部查询结果中失败的投递（含其他页）：",
    },
    "events.unknown": {
        "en": "Only you can say what an unknown delivery did: decide each on its own page.",
        "zh": "结果未知的投递只能由人判断：请在各自的事件页逐个裁定。",
    },
    "handlers.paused_by": {"en": "by {who}", "zh": "操作员：{who}"},
}


def text(key: str, language: str, /, **params: Any) -> str:
    """Return the text `key` in `language`, with `params` filled in.

    Raises:
        KeyError: the text, the language or a parameter does not exist.
    """
    return TEXTS[key][language].format_map(params)
