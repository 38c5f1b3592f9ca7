"""Parse times as operators write them: a date, a time, or a relative time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from flowhooks.clock import to_datetime

EXAMPLES: Final = "2026-11-24, 2026-11-24T09:30 (UTC), 2026-11-24T09:30+08:00, 2h or 3d"
"""Examples of accepted times, for error messages."""
_RELATIVE_TIME: Final = re.compile(r"(\d{1,9})\s*([smhdw])(\s+ago)?")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class NonexistentTime(ValueError):
    """A local time that clocks in the zone skipped when they were set forward."""


class TimeZoneRequired(ValueError):
    """The time has no offset, and no zone was given."""


def parse_time(text: str, zone: tzinfo | None = UTC, *, later: bool = False, now: int | None = None) -> int:
    """Parse a time into microseconds since 1970.

    Args:
        text: ISO 8601 date or time, or a relative time such as `2h` (two hours ago).
        zone: zone of a time without an offset; None: such a time is an error.
        later: use the later one of a time that occurs twice because clocks were set back.
        now: time to which relative times refer, in microseconds since 1970; None: the time of this machine's clock.

    Raises:
        NonexistentTime: the time does not exist in the zone.
        TimeZoneRequired: the time has no offset, and `zone` is None.
        ValueError: the text is not a time.
    """
    text = text.strip()
    try:
        if ago := _RELATIVE_TIME.fullmatch(text):
            time = (datetime.now(UTC) if now is None else to_datetime(now)) - timedelta(
                seconds=int(ago[1]) * _UNITS[ago[2]]
            )
        else:
            time = datetime.fromisoformat(text)
            time = _to_utc(time, zone, later=later) if time.tzinfo is None else time.astimezone(UTC)
        return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except (NonexistentTime, TimeZoneRequired):
        raise
    except (ValueError, OverflowError):
        raise ValueError(f"not a time: write {EXAMPLES}") from None


def is_relative(text: str) -> bool:
    """Tell whether a time is relative to now, and so differs at each parse."""
    return bool(_RELATIVE_TIME.fullmatch(text.strip()))


def is_ambiguous(text: str, zone: tzinfo) -> bool:
    """Tell whether a time occurs twice in a zone because clocks were set back."""
    try:
        return not is_relative(text) and parse_time(text, zone) != parse_time(text, zone, later=True)
    except ValueError:
        return False


def _to_utc(local: datetime, zone: tzinfo | None, *, later: bool) -> datetime:
    if zone is None:
        raise TimeZoneRequired("the time has no offset, and its time zone is not known")
    utc_time = local.replace(tzinfo=zone, fold=later).astimezone(UTC)
    if utc_time.astimezone(zone).replace(tzinfo=None) != local:
        raise NonexistentTime("clocks were set forward over this time")
    return utc_time
