"""Query parameters that several paths share, and their parsers."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from flowhooks.errors import NotFound, SettingsError
from flowhooks.ledger.attempt_filters import PLUGIN_PATTERN
from flowhooks.ledger.name_search import MIN_PREFIX_CHARS
from flowhooks.ledger.queries import ERROR_GROUP_CHARS, STATES
from flowhooks.ledger.rejected_requests import NO_SOURCE, RejectedFilter, parse_source
from flowhooks.model.delivery import Trigger
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.model.search_fields import FIELD_CONDITION, MAX_CONDITIONS, parse_field_condition
from flowhooks.model.trace_context import TRACE_ID
from flowhooks.operations.error_groups import complete_filter
from flowhooks.operations.time_parsing import EXAMPLES, parse_time
from flowhooks.web.admin.api.query import Parameter, parse_id, parse_integer
from flowhooks.web.admin.console.filters import CHOICES, CONDITIONS, PLUGINS, parse_filter
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.app import App
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.model.search_fields import FieldCondition
    from flowhooks.operations.access import Access

PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200
MAX_IDS: Final = 100
"""Maximum number of ids of events in a query."""
TEXT: Final = {"type": "string", "minLength": 1}
ID: Final = {"type": "string", "format": "uuid"}
PLUGIN: Final = {"type": "string", "pattern": f"^{PLUGIN_PATTERN.pattern}$"}
TIME: Final = {
    "anyOf": [
        {"type": "string", "format": "date"},
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": r"^[0-9]{1,5} *[smhdw]( +ago)?$"},
    ]
}
"""The forms of a time that programs write. `time_parsing.parse_time` accepts more, such as times without seconds."""
_TIME_EXAMPLES: Final = f"such as {EXAMPLES} / 例如 {EXAMPLES}"


def _time_description(english: str, chinese: str) -> str:
    examples, chinese_examples = _TIME_EXAMPLES.split(" / ")
    return f"{english}, {examples}. / {chinese}，{chinese_examples}。"


def limit_parameter(default: int) -> Parameter:
    """Return the parameter for the maximum number of items."""
    return Parameter(
        name="limit",
        description="Maximum number of items. / 最多返回的条数。",
        schema={"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": default},
    )


def time_parameter(name: str, english: str, chinese: str) -> Parameter:
    """Return a parameter that takes a time, with its meaning."""
    return Parameter(name=name, description=_time_description(english, chinese), schema=TIME)


def since_parameter(english: str, chinese: str) -> Parameter:
    """Return the parameter `since` with its meaning."""
    return time_parameter("since", english, chinese)


AFTER: Final = Parameter(
    name="after",
    description="Continue with the items older than this one: next of the previous response. / "
    "从该条之后继续，往更早的方向；取自上一次响应的 next。",
    schema=ID,
)
SINCE: Final = Parameter(name="since", description=_time_description("At or after this", "在该时刻或之后"), schema=TIME)
FILTER: Final = (
    Parameter(
        name="id",
        description="Id of an event; repeatable. / 事件 ID，可重复。",
        schema=ID,
        max_values=MAX_IDS,
    ),
    Parameter(
        name="q",
        description="Exactly this flow instance id, event id or delivery id, or a business key that is this text or, "
        f"from {MIN_PREFIX_CHARS} characters on, begins with it. / 流程实例 ID、事件 ID 或投递 ID（精确匹配），"
        f"或业务主键（精确匹配，或以该文本开头，至少 {MIN_PREFIX_CHARS} 个字符）。",
        schema=TEXT,
    ),
    Parameter(
        name="field",
        description="Condition on a field of the body that search.fields names, such as /vendor=ACME, /amount>=1000 or "
        "/amount<=1000; repeatable, and then all conditions must hold. / search.fields 所列请求体字段的条件，"
        "例如 /vendor=ACME、/amount>=1000 或 /amount<=1000；可重复，须全部满足。",
        schema={"type": "string", "pattern": f"^{FIELD_CONDITION.pattern}"},
        max_values=MAX_CONDITIONS,
    ),
    Parameter(name="flow", description="The engine's process instance id. / 流程实例 ID。", schema=TEXT),
    Parameter(name="business_key", description="Exactly this business key. / 业务主键，精确匹配。", schema=TEXT),
    Parameter(name="class", description="Exactly this callback class. / 回调处理类，精确匹配。", schema=TEXT),
    Parameter(name="key", description="Exactly this process definition key. / 流程定义 Key，精确匹配。", schema=TEXT),
    Parameter(
        name="conclusion",
        description="Exactly this conclusion, as handlers name it. / 结论（处理器所用的名称），精确匹配。",
        schema=TEXT,
    ),
    Parameter(
        name="handler",
        description="Events with a delivery to this handler, PLUGIN:NAME. / 有投递给该处理器（PLUGIN:NAME）的事件。",
        schema=TEXT,
    ),
    Parameter(
        name="state",
        description="Events with a delivery in this state, or parked or dismissed events. / "
        "有投递处于该状态的事件；或暂存（parked）、已忽略（dismissed）的事件。",
        schema={"type": "string", "enum": list(STATES)},
    ),
    Parameter(
        name="dismissed_by",
        description="Events dismissed for this reason. / 因该原因被忽略的事件。",
        schema={"type": "string", "enum": [reason.value for reason in DismissedBy]},
    ),
    Parameter(
        name="origin",
        description="Events of callbacks (callback), of requests to the fixed URL of a source (ingress), taken in from "
        "an engine's history (reconciled), or accepted corrections (correction). / 由回调产生的事件（callback）、"
        "由发往来源固定 URL 的请求产生的事件（ingress）、取自流程引擎历史的事件（reconciled），"
        "或采纳的更正（correction）。",
        schema={"type": "string", "enum": [origin.value for origin in Origin]},
    ),
    Parameter(
        name="trace_id",
        description="Events whose request had this trace id in its traceparent. / "
        "请求的 traceparent 含有该链路 ID 的事件。",
        schema={"type": "string", "pattern": f"^{TRACE_ID.pattern}$"},
    ),
    Parameter(
        name="error_group",
        description="Events with a delivery whose last attempt has an error of this group, by the group's id. / "
        "有投递的最后一次尝试属于该错误分组（ID）的事件。",
        schema={"type": "string", "pattern": f"^{ERROR_GROUP_CHARS.pattern}$"},
    ),
    since_parameter("Received at or after this", "在该时刻或之后收到"),
    Parameter(name="until", description=_time_description("Received before this", "在该时刻之前收到"), schema=TIME),
    Parameter(
        name="plugin",
        description="Events with an attempt by this plugin, NAME, or by this version of it, NAME==VERSION. / "
        "有某次尝试由该插件（NAME）或该版本（NAME==VERSION）执行的事件。",
        schema=PLUGIN,
    ),
    Parameter(
        name="trigger",
        description="Events with an attempt that was started for this reason. / 有某次尝试因该原因开始的事件。",
        schema={"type": "string", "enum": [trigger.value for trigger in Trigger]},
    ),
    Parameter(
        name="attempted_since",
        description=_time_description(
            "With an attempt that started at or after this; with plugin and trigger, such an attempt",
            "有某次尝试在该时刻或之后开始；与 plugin 和 trigger 同时使用时，指同一次尝试",
        ),
        schema=TIME,
    ),
    Parameter(
        name="ran_by",
        description="Events with a delivery whose last attempt was by this plugin, NAME, or by this version of it, "
        "NAME==VERSION. / 有投递的最后一次尝试由该插件（NAME）或该版本（NAME==VERSION）执行的事件。",
        schema=PLUGIN,
    ),
)
"""The filter of events: the same names as in the console's URLs, and `id`."""

MIN_REJECTED_STATUS: Final = 400
MAX_REJECTED_STATUS: Final = 599
REJECTED_FILTER: Final = (
    Parameter(
        name="status",
        description="Answered with this HTTP status. / 返回了该 HTTP 状态码。",
        schema={"type": "integer", "minimum": MIN_REJECTED_STATUS, "maximum": MAX_REJECTED_STATUS},
    ),
    Parameter(
        name="source",
        description=f"Of this source; {NO_SOURCE}: the source is not known, because the request had no valid "
        "credential or was rejected before the credential was checked. / "
        f"来自该来源；{NO_SOURCE}：来源未知的请求，即没有有效凭证，或在检查凭证之前被拒绝。",
        schema=TEXT,
    ),
    Parameter(
        name="flow",
        description="Flow instance id in the path, exactly, decoded. / 路径中的流程实例 ID，完全匹配，已解码。",
        schema=TEXT,
    ),
    Parameter(
        name="path",
        description="A part of the path, as it was sent. / 路径的一部分，按发送的原样。",
        schema=TEXT,
    ),
    Parameter(
        name="since",
        description=_time_description("Last rejected at or after this", "最近一次拒绝在该时刻或之后"),
        schema=TIME,
    ),
    Parameter(
        name="until",
        description=_time_description("Last rejected before this", "最近一次拒绝在该时刻之前"),
        schema=TIME,
    ),
)
"""The filter of rejected requests: the same names as in the console's URLs."""


def rejected_filter_from_query(query: Mapping[str, list[str]], *, now: int) -> RejectedFilter:
    """Return the filter of rejected requests that a query states.

    Args:
        query: the query of a request.
        now: the current time, in microseconds since 1970.

    Raises:
        LocalizedHTTPError: a value is invalid.
    """
    given = {name: values[0] for name, values in query.items()}
    times = filter_from_query({name: query[name] for name in ("since", "until") if name in query}, now=now)
    status = given.get("status")
    return RejectedFilter(
        status=None
        if status is None
        else parse_integer("status", status, low=MIN_REJECTED_STATUS, high=MAX_REJECTED_STATUS),
        source=parse_source(given.get("source")),
        flow_instance_id=given.get("flow"),
        path=given.get("path"),
        since=times.since,
        until=times.until,
    )


def filter_from_query(query: Mapping[str, list[str]], *, now: int) -> EventFilter:
    """Return the filter of events that a query states.

    Args:
        query: the query of a request.
        now: the current time, in microseconds since 1970.

    Raises:
        LocalizedHTTPError: a value is invalid.
    """
    others = {"id", "limit", "after", CONDITIONS}
    parsed = parse_filter({name: values[0] for name, values in query.items() if name not in others}, now=now)
    if parsed.event_filter is None:
        name = next(iter(parsed.problems))
        if name == "error_group":
            raise LocalizedHTTPError(422, "query_id", name=name)
        if name == "trace_id":
            raise LocalizedHTTPError(422, "query_trace_id", name=name)
        if name in CHOICES:
            raise LocalizedHTTPError(422, "query_choice", name=name, values=", ".join(CHOICES[name]))
        if name in PLUGINS:
            raise LocalizedHTTPError(422, "query_choice", name=name, values="NAME, NAME==VERSION")
        raise LocalizedHTTPError(422, "query_time", name=name, examples=EXAMPLES)
    event_filter = replace(
        parsed.event_filter,
        ids=tuple(parse_id("id", event_id) for event_id in query.get("id", ())),
        fields=_conditions_from_query(query),
    )
    if event_filter.since is not None and event_filter.until is not None and event_filter.since >= event_filter.until:
        raise LocalizedHTTPError(422, "query_times")
    return event_filter


def _conditions_from_query(query: Mapping[str, list[str]]) -> tuple[FieldCondition, ...]:
    try:
        return tuple(map(parse_field_condition, query.get(CONDITIONS, ())))
    except SettingsError:
        raise LocalizedHTTPError(422, "query_field", name=CONDITIONS) from None


def searched_filter(query: Mapping[str, list[str]], app: App, access: Access) -> EventFilter:
    """Return the filter that a query states, for a search in the ledger of an app, restricted to what an operator sees.

    Args:
        query: the query of a request.
        app: the app.
        access: what the operator sees.

    Raises:
        Forbidden: the filter would reveal a hidden value.
        LocalizedHTTPError: a value is invalid, a field is not indexed, or there is no such error group.
    """
    event_filter, indexed_fields = filter_from_query(query, now=app.clock.now()), app.settings.search.fields
    event_filter = access.restrict(event_filter)
    try:
        return complete_filter(app.ledger, event_filter, indexed_fields, plugins=access.plugins)
    except NotFound:
        raise LocalizedHTTPError(404, "no_such_error_group") from None
    except SettingsError:
        names = ", ".join(indexed_fields) or "–"
        raise LocalizedHTTPError(422, "query_field_unknown", name=CONDITIONS, names=names) from None


def time_from_query(query: Mapping[str, list[str]], name: str = "since", *, now: int) -> int | None:
    """Return a time in microseconds since 1970; None if the query has none.

    Args:
        query: the query of a request.
        name: the parameter.
        now: the current time, in microseconds since 1970.

    Raises:
        LocalizedHTTPError: the value is not a time.
    """
    if name not in query:
        return None
    try:
        return parse_time(query[name][0], now=now)
    except ValueError:
        raise LocalizedHTTPError(422, "query_time", name=name, examples=EXAMPLES) from None


def limit_from_query(query: Mapping[str, list[str]], default: int = PAGE_SIZE) -> int:
    """Return the maximum number of items.

    Raises:
        LocalizedHTTPError: the value is not a number, or out of range.
    """
    return parse_integer("limit", query["limit"][0], low=1, high=MAX_PAGE_SIZE) if "limit" in query else default


def cursor_from_query(query: Mapping[str, list[str]]) -> str:
    """Return the id after which the page starts; `""`: start with the newest.

    Raises:
        LocalizedHTTPError: the value is not an id.
    """
    return parse_id("after", query["after"][0]) if "after" in query else ""
