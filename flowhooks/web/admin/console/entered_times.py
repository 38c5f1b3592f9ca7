"""Times in the query of a page: as they were entered, what they mean, and how an input field shows them again."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowhooks.clock import MAX_TIME, SECOND, to_datetime, to_text
from flowhooks.operations.time_parsing import NonexistentTime, TimeZoneRequired, is_ambiguous, is_relative, parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import tzinfo

_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,3}")


class EnteredTimes(NamedTuple):
    """Times as entered and as parsed, by parameter name.

    Attributes:
        given: the entered texts. A valid local time is in UTC with its offset, so that an address means the same in
            each zone.
        times: the parsed times, in microseconds since 1970.
        problems: the keys of the texts about invalid ones.
        twice: the names of times that are ambiguous in their zone, because the clocks are set back then.
        local: valid local times in their zone, with its name.
    """

    given: Mapping[str, str]
    times: Mapping[str, int]
    problems: Mapping[str, str]
    twice: frozenset[str]
    local: Mapping[str, str]

    @property
    def absolute(self) -> dict[str, str]:
        """The valid times with their dates, because `2h` means another time a minute later."""
        return {name: to_datetime(time).isoformat() for name, time in self.times.items()}


def parse_times(
    given: Mapping[str, str], zone_name: str, *, ends: Collection[str], now: int | None = None
) -> EnteredTimes:
    """Parse the times that a query states.

    Args:
        given: the entered texts, by parameter name.
        zone_name: the time zone of times without an offset; `""` for UTC.
        ends: the parameters that end a range: of an ambiguous time they mean the later one.
        now: current time for relative times, in microseconds since 1970; default: that of the machine.
    """
    zone = _time_zone(zone_name)
    times: dict[str, int] = {}
    problems: dict[str, str] = {}
    for name, text in given.items():
        try:
            times[name] = parse_time(text, zone, later=name in ends, now=now)
        except NonexistentTime:
            problems[name] = "events.no_such_time"
        except TimeZoneRequired:
            problems[name] = "events.no_zone"
        except ValueError:
            problems[name] = "events.no_time"
    local = [name for name in times if zone_name and not is_relative(given[name])]
    return EnteredTimes(
        given={**given, **{name: to_datetime(times[name]).isoformat() for name in local}},
        times=times,
        problems=problems,
        twice=frozenset(name for name in times if zone and is_ambiguous(given[name], zone)),
        local={name: _local_text(times[name], zone, zone_name) for name in local if zone not in {None, UTC}},
    )


def input_values(
    entered: EnteredTimes, name: str, *, is_invalid: bool = False, round_up: bool = False
) -> dict[str, Any]:
    """Return what the input field of a time shows: in UTC, because a script converts it to the viewer's zone.

    Args:
        entered: the times of the query.
        name: the parameter.
        is_invalid: whether to show it as it was entered, because it cannot be used.
        round_up: the direction in which it is rounded to whole seconds, as the input field has them.
    """
    time = entered.times.get(name)
    if time is None or is_invalid:
        return {"value": entered.given.get(name, ""), "instant": "", "time": None, "local": ""}
    whole = min(-(-time // SECOND), MAX_TIME // SECOND) * SECOND if round_up else time // SECOND * SECOND
    return {
        "value": f"{to_datetime(whole):%Y-%m-%dT%H:%M:%S}",
        "instant": to_text(whole),
        "time": time,
        "local": entered.local.get(name, ""),
    }


def _time_zone(name: str) -> tzinfo | None:
    """Return the time zone with this name; UTC for `""`; None if it is not known."""
    if name in {"", "UTC"}:
        return UTC
    try:
        return ZoneInfo(name) if _ZONE.fullmatch(name) else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _local_text(microseconds: int, zone: tzinfo | None, zone_name: str) -> str:
    return f"{to_datetime(microseconds).astimezone(zone):%Y-%m-%d %H:%M:%S} {zone_name}"
