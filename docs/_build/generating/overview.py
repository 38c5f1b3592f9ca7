"""The drawing of a callback's path from the engine to the handlers, with English or Chinese labels.

The README and the home page show it. The texts are in `TEXTS`; each is one line, because SVG does not wrap lines.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from .states import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Box(NamedTuple):
    """A box with a heading and lines of text below it.

    Attributes:
        name: the key of its texts; the first of these is the heading.
        x: its left side, in pixels.
        y: its top, in pixels.
        width: in pixels.
        height: in pixels.
        kind: the class of its colours.
    """

    name: str
    x: int
    y: int
    width: int
    height: int
    kind: str = "box"


class Arrow(NamedTuple):
    """An arrow with a line of text above or below it.

    Attributes:
        name: the key of its text; "" for an arrow without a text.
        start: where it begins, in pixels.
        end: where its head is, in pixels.
        middle: the middle of its text, in pixels from the left.
        below: how far below the arrow the text is, in pixels; negative for a text above it.
    """

    name: str
    start: tuple[int, int]
    end: tuple[int, int]
    middle: int = 0
    below: int = -7


WIDTH: Final = 860
HEIGHT: Final = 424
FLOWHOOKS: Final = Box("flowhooks", 280, 16, 330, 392, "frame")
PLUGINS: Final = Box("plugins", 690, 214, 154, 194, "frame")
BOXES: Final = (
    Box("engine", 10, 62, 162, 138),
    Box("check", 298, 54, 294, 60),
    Box("route", 298, 138, 294, 60),
    Box("store", 298, 222, 294, 78, "box done"),
    Box("run", 298, 332, 294, 60),
    Box("refused", 690, 54, 154, 60),
    Box("parked", 690, 138, 154, 60),
    Box("first", 704, 254, 126, 36),
    Box("second", 704, 300, 126, 36),
    Box("operator", 10, 332, 162, 60),
)
ARROWS: Final = (
    Arrow("callback", (172, 84), (297, 84), 226),
    Arrow("response", (280, 146), (173, 146), 226),
    Arrow("", (445, 114), (445, 137)),
    Arrow("", (445, 198), (445, 221)),
    Arrow("", (425, 300), (425, 331)),
    Arrow("", (465, 332), (465, 301)),
    Arrow("reject", (592, 84), (689, 84), 650),
    Arrow("park", (592, 168), (689, 168), 650),
    Arrow("call", (592, 354), (689, 354), 650),
    Arrow("result", (690, 370), (593, 370), 650, 17),
    Arrow("operate", (172, 362), (279, 362), 226),
)
NOTES: Final[Mapping[str, tuple[int, int]]] = {
    "stored": (226, 163),
    "running": (226, 180),
    "failed": (226, 197),
    "deliveries": (385, 320),
    "outcomes": (505, 320),
    "code": (767, 360),
    "code_more": (767, 378),
    "ways": (226, 379),
}
"""Centres of the other texts, in pixels."""
TEXTS: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "en": {
        "title": ("How a callback is processed: from the engine through flowhooks to the handlers of plugins",),
        "flowhooks": ("flowhooks",),
        "plugins": ("Plugins",),
        "engine": ("Workflow engine", "Flowable, Activiti,", "Camunda or other", "", "a process ended"),
        "check": ("1  Check", "credentials, JSON Schema"),
        "route": ("2  Route", "class or key, conclusion, data"),
        "store": ("3  Store", "event and deliveries: one transaction", "SQLite or PostgreSQL, synced to disk"),
        "run": ("4  Run", "each attempt is recorded"),
        "refused": ("Rejected", "4xx with the reason"),
        "parked": ("Parked", "waits for a plugin"),
        "first": ("handler",),
        "second": ("handler",),
        "operator": ("Operator", "sees every attempt"),
        "callback": ("callback",),
        "response": ("response",),
        "reject": ("invalid",),
        "park": ("no match",),
        "call": ("event",),
        "result": ("result",),
        "operate": ("replay, pause",),
        "stored": ("200 done",),
        "running": ("202 stored",),
        "failed": ("500 failed",),
        "deliveries": ("deliveries",),
        "outcomes": ("outcomes",),
        "code": ("your Python code",),
        "code_more": ("for each process",),
        "ways": ("console, CLI",),
    },
    "zh": {
        "title": ("回调的处理过程：从流程引擎经过 flowhooks 到插件的处理器",),
        "flowhooks": ("flowhooks",),
        "plugins": ("插件",),
        "engine": ("流程引擎", "Flowable、Activiti", "Camunda 等", "", "流程实例已结束"),
        "check": ("1  校验", "凭证、JSON Schema"),
        "route": ("2  路由", "类名或流程 Key、结论、数据"),
        "store": ("3  存储", "事件和投递：同一个事务", "SQLite 或 PostgreSQL，同步到磁盘"),
        "run": ("4  执行", "记录每一次尝试"),
        "refused": ("已拒绝", "4xx，附原因"),
        "parked": ("暂存", "等待插件"),
        "first": ("处理器",),
        "second": ("处理器",),
        "operator": ("运维人员", "查看每次尝试"),
        "callback": ("回调",),
        "response": ("响应",),
        "reject": ("无效",),
        "park": ("未匹配",),
        "call": ("事件",),
        "result": ("结果",),
        "operate": ("重放、暂停",),
        "stored": ("200 已完成",),
        "running": ("202 已存储",),
        "failed": ("500 失败",),
        "deliveries": ("投递",),
        "outcomes": ("结果",),
        "code": ("每个业务流程的",),
        "code_more": ("Python 代码",),
        "ways": ("控制台、命令行",),
    },
}
MORE_STYLE: Final = """
    svg { font-size: 14px; }
    .frame { fill: none; stroke: #64748b; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .by, .line { fill: #1f2937; text-anchor: middle; }
    @media (prefers-color-scheme: dark) {
      .frame { stroke: #94a3b8; }
      .line { fill: #e2e8f0; }
    }
"""
LINE: Final = 18
"""The height of a line of text, in pixels."""


def drawing(language: str) -> str:
    """The drawing as an SVG file.

    Args:
        language: `en` or `zh`.
    """
    texts = TEXTS[language]
    title = escape(texts["title"][0])
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"  <title>{title}</title>",
        f"  <style>{STYLE.rstrip()}{MORE_STYLE}  </style>",
        '  <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '    <path class="head" d="M0 0 10 5 0 10z"/>',
        "  </marker>",
        f'  <rect class="sheet" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
    ]
    for frame in (FLOWHOOKS, PLUGINS):
        out += [_rectangle(frame), _text("name", frame.x + frame.width // 2, frame.y + 24, texts[frame.name][0])]
    for arrow in ARROWS:
        out += _arrow(arrow, texts)
    for box in BOXES:
        out += _box(box, texts[box.name])
    out += [_text("line", x, y, texts[name][0]) for name, (x, y) in NOTES.items()]
    return "\n".join([*out, "</svg>", ""])


def _rectangle(box: Box) -> str:
    return (
        f'  <rect class="{box.kind}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
    )


def _text(kind: str, x: int, y: int, text: str) -> str:
    return f'  <text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _box(box: Box, texts: Sequence[str]) -> Iterator[str]:
    yield _rectangle(box)
    y = box.y + (box.height - (len(texts) - 1) * LINE) // 2 + 5
    for number, text in enumerate(texts):
        if text:
            yield _text("line" if number else "name", box.x + box.width // 2, y + number * LINE, text)


def _arrow(arrow: Arrow, texts: Mapping[str, Sequence[str]]) -> Iterator[str]:
    (x1, y1), (x2, y2) = arrow.start, arrow.end
    yield f'  <polyline class="arrow" points="{x1},{y1} {x2},{y2}" marker-end="url(#head)"/>'
    if arrow.name:
        yield _text("line", arrow.middle, y1 + arrow.below, texts[arrow.name][0])
