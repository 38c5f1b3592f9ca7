"""A moment as people write one: a date, a time, or so long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

EXAMPLES: Final = "2026-11-24, 2026-11-24T09:30 (UTC), 2026-11-24T09:30+08:00, 2h or 3d"
"""What may be written."""
_RELATIVE_TIME: Final = re.compile(r"(\d{1,9})\s*([smhdw])(\s+ago)?")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class NonexistentTime(ValueError):
    """Clocks in the zone were set forward over this time."""


class TimeZoneRequired(ValueError):
    """The time has no offset, and there is no zone to read it in."""


def parse_time(text: str, zone: tzinfo | None = UTC, *, later: bool = False) -> int:
    """The moment that is meant, in microseconds since 1970.

    Args:
        text: ISO 8601, a date, or so long ago, such as `2h`.
        zone: where a time without an offset is read; None: nowhere.
        later: of a time that comes twice, because clocks were set back, the later one is meant.

    Raises:
        NonexistentTime: there is no such time in the zone.
        TimeZoneRequired: it has no offset, and there is no zone.
        ValueError: it is no moment.
    """
    text = text.strip()
    try:
        if ago := _RELATIVE_TIME.fullmatch(text):
            time = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        else:
            time = datetime.fromisoformat(text)
            time = _to_utc(time, zone, later=later) if time.tzinfo is None else time.astimezone(UTC)
        return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except (NonexistentTime, TimeZoneRequired):
        raise
    except (ValueError, OverflowError):
        raise ValueError(f"not a time: write {EXAMPLES}") from None


def is_relative(text: str) -> bool:
    """Whether it says how long ago, and so means another moment each time."""
    return bool(_RELATIVE_TIME.fullmatch(text.strip()))


def is_ambiguous(text: str, zone: tzinfo) -> bool:
    """Whether a time comes twice in a zone, because clocks were set back."""
    try:
        return not is_relative(text) and parse_time(text, zone) != parse_time(text, zone, later=True)
    except ValueError:
        return False


def _to_utc(local: datetime, zone: tzinfo | None, *, later: bool) -> datetime:
    if zone is None:
        raise TimeZoneRequired("the time has no offset, and no zone is known to read it in")
    utc_time = local.replace(tzinfo=zone, fold=later).astimezone(UTC)
    if utc_time.astimezone(zone).replace(tzinfo=None) != local:
        raise NonexistentTime("clocks were set forward over this time")
    return utc_time
