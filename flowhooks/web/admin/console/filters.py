"""The filter of events in query strings: parsing and writing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.errors import SettingsError
from flowhooks.ledger.attempt_filters import parse_plugin
from flowhooks.ledger.queries import ERROR_GROUP_CHARS, STATES, EventFilter
from flowhooks.model.delivery import Trigger
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.model.search_fields import MAX_CONDITIONS, FieldCondition, check_fields, parse_field_condition
from flowhooks.model.trace_context import TRACE_ID
from flowhooks.web.admin.console.entered_times import EnteredTimes, input_values, parse_times
from flowhooks.web.admin.console.field_inputs import conditions_from_inputs

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import falcon

FIELDS: Final[Mapping[str, str]] = {
    "q": "query",
    "flow": "flow_instance_id",
    "business_key": "business_key",
    "class": "callback_class",
    "key": "process_key",
    "conclusion": "conclusion",
    "trace_id": "trace_id",
    "handler": "handler",
    "plugin": "plugin",
    "ran_by": "ran_by",
    "error_group": "error_group",
}
"""Query parameters, named like the options of `flowhooks events list`, and their fields in `EventFilter`."""
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "state": STATES,
    "dismissed_by": tuple(DismissedBy),
    "origin": tuple(Origin),
    "trigger": tuple(Trigger),
}
"""Query parameters that take one of a few values."""
_UNKNOWN_CHOICE_TEXTS: Final = {
    "state": "events.no_state",
    "dismissed_by": "events.no_reason",
    "origin": "events.no_origin",
    "trigger": "events.no_trigger",
}
"""The text about an invalid value of each of them."""
_PATTERNS: Final = {
    "error_group": (ERROR_GROUP_CHARS, "events.no_error_group"),
    "trace_id": (TRACE_ID, "events.no_trace_id"),
}
"""Query parameters of a certain form, and the texts about invalid values of them."""
_EXACT: Final = frozenset({"flow", "business_key", "class", "key", "conclusion"})
"""Query parameters that are compared as they are, because a value in a callback may begin or end with white space."""
MAX_VALUE_CHARS: Final = 4_000
TIMES: Final = ("since", "until", "attempted_since")
"""Query parameters that take a time."""
CONDITIONS: Final = "field"
"""Query parameter with a condition on an indexed field; repeatable. In a filter as entered, it has a line for each."""
PLUGINS: Final = ("plugin", "ran_by")
"""Query parameters that take a plugin, or a version of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFilter:
    """A filter of events as entered and as parsed.

    Attributes:
        given: the entered values by parameter name; times that were entered in a time zone are converted to UTC.
        event_filter: the filter; None if a value is invalid.
        problems: the keys of the texts about invalid values, by parameter name.
        entered: the times.
    """

    given: Mapping[str, str]
    event_filter: EventFilter | None
    problems: Mapping[str, str]
    entered: EnteredTimes

    @property
    def pinned(self) -> dict[str, str]:
        """The entered values with absolute times."""
        return {**self.given, **self.entered.absolute}

    def address(self, path: str, **more: str) -> str:
        """Return the URL of `path` with this filter and with `more` in its query."""
        query = [
            (name, item)
            for name, value in {**self.given, **more}.items()
            for item in (value.split("\n") if name == CONDITIONS else [value])
            if item
        ]
        return f"{path}?{urlencode(query)}" if query else path

    def pinned_address(self, path: str, **more: str) -> str:
        """Return the same with absolute times."""
        return self.address(path, **self.entered.absolute, **more)


def filter_from_request(request: falcon.Request) -> ParsedFilter:
    """Return the filter in the query of a request; times without an offset are in the zone that the query names."""
    names = (*FIELDS, *CHOICES, *TIMES)
    query = {name: text for name in names if (text := filter_text(name, request.get_param(name, default="") or ""))}
    conditions = [
        to_query_text(value.strip())
        for value in (*(request.get_param_as_list(CONDITIONS) or ()), *conditions_from_inputs(request))
    ]
    if given := "\n".join(filter(None, conditions)):
        query[CONDITIONS] = given
    return parse_filter(query, zone=query_text(request, "zone"))


def parse_filter(query: Mapping[str, str], *, zone: str = "", now: int | None = None) -> ParsedFilter:
    """Return the filter that query parameters state, for pages and for the administration API.

    Args:
        query: the values by parameter name.
        zone: the time zone of times without an offset; `""` for UTC.
        now: current time for relative times, in microseconds since 1970; default: that of the machine.
    """
    conditions, problems = _parse_conditions(query.get(CONDITIONS, ""))
    entered = parse_times({name: query[name] for name in TIMES if name in query}, zone, ends=("until",), now=now)
    problems |= entered.problems
    problems |= {
        name: _UNKNOWN_CHOICE_TEXTS[name]
        for name, choices in CHOICES.items()
        if query.get(name) not in {None, *choices}
    }
    for name in PLUGINS:
        try:
            parse_plugin(query.get(name, "any"))
        except SettingsError:
            problems[name] = "events.no_plugin"
    problems |= {
        name: text
        for name, (pattern, text) in _PATTERNS.items()
        if name in query and not pattern.fullmatch(query[name])
    }
    event_filter = None
    if not problems:
        values: dict[str, Any] = {field: query.get(name) for name, field in FIELDS.items()}
        values |= {name: query.get(name) for name in CHOICES}
        values |= {**entered.times, "fields": conditions}
        event_filter = EventFilter(**values)
    return ParsedFilter(given={**query, **entered.given}, event_filter=event_filter, problems=problems, entered=entered)


def _parse_conditions(lines: str) -> tuple[tuple[FieldCondition, ...], dict[str, str]]:
    """Return conditions on fields, one a line, and the problem with them by parameter name."""
    try:
        conditions = tuple(parse_field_condition(line) for line in lines.split("\n") if line)
    except SettingsError:
        return (), {CONDITIONS: "events.no_field"}
    # A text of the maximum length may have been cut, and a condition that was cut would select other events.
    too_many = len(conditions) > MAX_CONDITIONS or len(lines) >= MAX_VALUE_CHARS
    return conditions, {CONDITIONS: "events.many_fields"} if too_many else {}


def refuse_unknown_fields(parsed: ParsedFilter, indexed_fields: Collection[str]) -> ParsedFilter:
    """Return the filter with a problem if it has a condition on a field that the setting `search.fields` lacks."""
    if parsed.event_filter is None:
        return parsed
    try:
        check_fields(parsed.event_filter.fields, indexed_fields)
    except SettingsError:
        return replace(parsed, event_filter=None, problems={CONDITIONS: "events.unknown_field"})
    return parsed


def time_values(parsed: ParsedFilter, name: str) -> dict[str, Any]:
    """Return what the input field of a time shows."""
    # Rounding outwards keeps all events in the result.
    return input_values(parsed.entered, name, round_up=name == "until")


def filter_text(name: str, value: str) -> str:
    """Return the value of one of a filter's parameters as text that a database can search."""
    return to_query_text((value if name in _EXACT else value.strip())[:MAX_VALUE_CHARS])


def query_text(request: falcon.Request, name: str) -> str:
    """Return the value of a query parameter as text that a database can search: no NUL, no lone surrogates."""
    value = request.get_param(name, default="") or ""
    return to_query_text(value.strip()[:MAX_VALUE_CHARS])


def to_query_text(value: str) -> str:
    """Return text from a browser as a database can store or search it."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
