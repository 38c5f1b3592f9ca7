"""What several paths take in their queries, and how it is understood; it must not know any path."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from flowhooks.ledger.queries import STATES
from flowhooks.model.event import DismissedBy
from flowhooks.operations.time_parsing import EXAMPLES
from flowhooks.web.admin.api.query import Parameter, identity, number
from flowhooks.web.admin.console.filters import CHOICES, understood
from flowhooks.web.errors import HTTPRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.queries import EventFilter

AT_ONCE: Final = 50
MOST_AT_ONCE: Final = 200
TEXT: Final = {"type": "string", "minLength": 1}
_ID: Final = {"type": "string", "format": "uuid"}
TIME: Final = {
    "anyOf": [
        {"type": "string", "format": "date"},
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": r"^[0-9]{1,5} *[smhdw]( +ago)?$"},
    ]
}
"""What programs write of that which `operations.moment` understands; it understands more, such as no seconds."""
_WHEN: Final = f"such as {EXAMPLES} / 例如 {EXAMPLES}"


def _when(english: str, chinese: str) -> str:
    examples, its = _WHEN.split(" / ")
    return f"{english}, {examples}. / {chinese}，{its}。"


def limit(default: int) -> Parameter:
    """How many are wanted at the most."""
    return Parameter(
        name="limit",
        means="How many at the most. / 最多返回的条数。",
        schema={"type": "integer", "minimum": 1, "maximum": MOST_AT_ONCE, "default": default},
    )


AFTER: Final = Parameter(
    name="after",
    means="Go on after this one, towards the older ones: next of the answer before. / "
    "从该条之后继续，往更早的方向；取自上一次响应的 next。",
    schema=_ID,
)
FILTER: Final = (
    Parameter(
        name="id", means="This event; may be given several times. / 指定事件，可重复。", schema=_ID, several=True
    ),
    Parameter(name="flow", means="The engine's process instance id. / 流程实例Id。", schema=TEXT),
    Parameter(name="business_key", means="Exactly this business key. / 业务主键，精确匹配。", schema=TEXT),
    Parameter(name="class", means="Exactly this call-back class. / 回调处理类，精确匹配。", schema=TEXT),
    Parameter(name="key", means="Exactly this process definition key. / 流程定义Key，精确匹配。", schema=TEXT),
    Parameter(
        name="conclusion",
        means="Exactly this conclusion, in the words of handlers. / 审批结论（处理器所用的名称），精确匹配。",
        schema=TEXT,
    ),
    Parameter(
        name="handler",
        means="With a delivery for this handler, PLUGIN:NAME. / 有投递给该处理器（PLUGIN:NAME）的事件。",
        schema=TEXT,
    ),
    Parameter(
        name="state",
        means="With a delivery in this state; or parked, or dismissed. / "
        "有投递处于该状态的事件；或暂存（parked）、免处理（dismissed）的事件。",
        schema={"type": "string", "enum": list(STATES)},
    ),
    Parameter(
        name="dismissed_by",
        means="Dismissed for this reason. / 因该原因被免处理的事件。",
        schema={"type": "string", "enum": [reason.value for reason in DismissedBy]},
    ),
    Parameter(name="since", means=_when("Received at or after this", "在该时刻或之后收到"), schema=TIME),
    Parameter(name="until", means=_when("Received before this", "在该时刻之前收到"), schema=TIME),
)
"""Which events are meant: the names that the console's addresses have too, and `id`."""


def wanted(given: Mapping[str, list[str]]) -> EventFilter:
    """Which events are meant.

    Raises:
        HTTPRefusal: a value makes no sense.
    """
    asked = understood({name: values[0] for name, values in given.items() if name not in {"id", "limit", "after"}})
    if asked.wanted is None:
        name = asked.wrong[0]
        if name in CHOICES:
            raise HTTPRefusal(422, "query_choice", name=name, values=", ".join(CHOICES[name]))
        raise HTTPRefusal(422, "query_time", name=name, examples=EXAMPLES)
    found = replace(asked.wanted, ids=tuple(identity("id", one) for one in given.get("id", ())))
    if found.since is not None and found.until is not None and found.since >= found.until:
        raise HTTPRefusal(422, "query_times")
    return found


def how_many(given: Mapping[str, list[str]], default: int = AT_ONCE) -> int:
    """How many are wanted at the most.

    Raises:
        HTTPRefusal: that is no number, or out of range.
    """
    return number("limit", given["limit"][0], low=1, high=MOST_AT_ONCE) if "limit" in given else default


def cursor(given: Mapping[str, list[str]]) -> str:
    """After which one to go on; `""`: from the newest.

    Raises:
        HTTPRefusal: that is no id.
    """
    return identity("after", given["after"][0]) if "after" in given else ""
