"""Texts of the console about actions and the audit, in both languages."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, dict[str, str]]] = {
    # Run what is dead again.
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
    # Run what has succeeded once more.
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
    # Say of an unknown one what it did.
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
    # Close.
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
    # What every action has.
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
    # While it goes on.
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
    # Figures beside the first one.
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
    # The audit.
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
    # On other pages.
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
