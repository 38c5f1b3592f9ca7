"""Texts of the console about conclusions, conditions, and why an event is where it is, in both languages."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import Final

TEXTS: Final[dict[str, dict[str, str]]] = {
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
}
