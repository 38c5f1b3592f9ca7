"""The query string of whatever lists events, as a filter and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowhooks.clock import to_datetime
from flowhooks.ledger.queries import STATES, EventFilter
from flowhooks.model.event import DismissedBy
from flowhooks.operations.time_parsing import NonexistentTime, TimeZoneRequired, is_ambiguous, is_relative, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import tzinfo

    import falcon

FIELDS: Final[Mapping[str, str]] = {
    "flow": "flow_instance_id",
    "business_key": "business_key",
    "class": "callback_class",
    "key": "process_key",
    "conclusion": "conclusion",
    "handler": "handler",
}
"""What the options of `flowhooks events list` are called, which are the names in the address too."""
CHOICES: Final[Mapping[str, tuple[str, ...]]] = {"state": STATES, "dismissed_by": tuple(DismissedBy)}
"""The names that take one of a few values."""
_UNKNOWN_CHOICE_TEXTS: Final = {"state": "events.no_state", "dismissed_by": "events.no_reason"}
"""The text about a value that a name does not take."""
MAX_VALUE_CHARS: Final = 4_000
_TIMES: Final = ("since", "until")


_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,3}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFilter:
    """What somebody looks for.

    Attributes:
        given: what was filled in, by its name in the address; times that were read in a zone as moments in UTC.
        event_filter: the filter; None where it makes no sense.
        problems: of those that make none, the text that says why, by name.
        twice: the names of times that come twice in their zone.
    """

    given: Mapping[str, str]
    event_filter: EventFilter | None
    problems: Mapping[str, str]
    twice: frozenset[str]

    @property
    def wrong(self) -> tuple[str, ...]:
        """The names of those that make no sense."""
        return tuple(self.problems)

    @property
    def pinned(self) -> dict[str, str]:
        """What was filled in with its times as moments: `2h` means the same a minute later."""
        times = {name: getattr(self.event_filter, name, None) for name in _TIMES}
        return {**self.given, **{name: _utc(time) for name, time in times.items() if time is not None}}

    def address(self, path: str, **more: str) -> str:
        """`path` with this filter and with `more` in its query."""
        query = {name: value for name, value in {**self.given, **more}.items() if value}
        return f"{path}?{urlencode(query)}" if query else path


def filter_from_request(request: falcon.Request) -> ParsedFilter:
    """What a request looks for; times without an offset are those of the zone that it names."""
    query = {name: value for name in (*FIELDS, *CHOICES, *_TIMES) if (value := query_text(request, name))}
    return parse_filter(query, zone=query_text(request, "zone"))


def parse_filter(query: Mapping[str, str], *, zone: str = "") -> ParsedFilter:
    """What somebody looks for who says this, by its names in the address; pages and the administration API alike.

    Args:
        query: what they say.
        zone: the name of the time zone of times without an offset; `""` for UTC.
    """
    problems: dict[str, str] = {}
    times: dict[str, int] = {}
    tz = _zone(zone)
    for name in _TIMES:
        if name not in query:
            continue
        try:
            times[name] = parse_time(query[name], tz, later=name == "until")
        except NonexistentTime:
            problems[name] = "events.no_such_time"
        except TimeZoneRequired:
            problems[name] = "events.no_zone"
        except ValueError:
            problems[name] = "events.no_time"
    problems |= {
        name: _UNKNOWN_CHOICE_TEXTS[name]
        for name, choices in CHOICES.items()
        if query.get(name) not in {None, *choices}
    }
    event_filter = None
    if not problems:
        texts: dict[str, Any] = {field: query.get(name) for name, field in FIELDS.items()}
        texts |= {name: query.get(name) for name in CHOICES}
        event_filter = EventFilter(since=times.get("since"), until=times.get("until"), **texts)
    local_times = {name for name in times if zone and not is_relative(query[name])}
    return ParsedFilter(
        given={**query, **{name: _utc(times[name]) for name in local_times}},
        event_filter=event_filter,
        problems=problems,
        twice=frozenset(name for name in times if tz and is_ambiguous(query[name], tz)),
    )


def _zone(name: str) -> tzinfo | None:
    if name in {"", "UTC"}:
        return UTC
    try:
        return ZoneInfo(name) if _ZONE.fullmatch(name) else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _utc(microseconds: int) -> str:
    return to_datetime(microseconds).isoformat()


def query_text(request: falcon.Request, name: str) -> str:
    """What the query says under a name, fit to be looked for: no database holds NUL, nor half a character."""
    value = request.get_param(name, default="") or ""
    return to_query_text(value.strip()[:MAX_VALUE_CHARS])


def to_query_text(value: str) -> str:
    """What a browser sent, fit to be stored or looked for."""
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
