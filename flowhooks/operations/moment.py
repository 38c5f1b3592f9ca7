"""A moment as people write one: a date, a time, or so long ago; it must not know who writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EXAMPLES: Final = "2026-11-24, 2026-11-24T09:30 (UTC), 2026-11-24T09:30+08:00, 2h or 3d"
"""What may be written."""
_AGO: Final = re.compile(r"(\d{1,9})\s*([smhdw])(\s+ago)?")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(text: str) -> int:
    """The moment that is meant, in microseconds since 1970. Without a zone it is UTC.

    Args:
        text: ISO 8601, a date, or so long ago, such as `2h`.

    Raises:
        ValueError: it is none of these.
    """
    text = text.strip()
    try:
        if ago := _AGO.fullmatch(text):
            found = datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        else:
            found = datetime.fromisoformat(text)
            found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise ValueError(f"not a time: write {EXAMPLES}") from None
