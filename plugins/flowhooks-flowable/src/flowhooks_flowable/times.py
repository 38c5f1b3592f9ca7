"""Times in the format of the REST API: milliseconds, with a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def floor_ms(time: datetime) -> int:
    """Return the milliseconds since 1970, rounded down."""
    return (time - _EPOCH) // _MILLISECOND


def ceil_ms(time: datetime) -> int:
    """Return the milliseconds since 1970, rounded up."""
    return -((_EPOCH - time) // _MILLISECOND)


def to_json(milliseconds: int) -> str:
    """Return the text of a time, in the format that each version of Flowable reads in the body of a query."""
    return (_EPOCH + milliseconds * _MILLISECOND).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_json(text: object) -> datetime:
    """Return the time of a member of a response.

    Raises:
        ValueError: the member is not a time with a zone.
    """
    if not isinstance(text, str):
        raise ValueError("not a string")  # noqa: TRY004 (each invalid time raises the same error)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("without a zone")
    return time.astimezone(UTC)
