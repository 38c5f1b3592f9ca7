"""The sources of time, ids and random numbers, in one class so that tests can replace them."""

from __future__ import annotations

import os
import random
import struct
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECOND: Final = 1_000_000
"""Microseconds per second. All times in the ledger are whole microseconds since 1970, in UTC."""
DAY: Final = 86_400 * SECOND

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MIN_TIME: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
MAX_TIME: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
"""The first and the last time that `to_datetime` can return, in microseconds since 1970."""
_LATEST: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_VERSION_7: Final = 0x7000
_VARIANT: Final = 0x8000_0000_0000_0000
_VARIANT_MASK: Final = 0x3FFF_FFFF_FFFF_FFFF
_RANDOM_BLOCK: Final = struct.Struct("256Q")
"""Layout of a block of random bytes, enough for 256 ids.

One read serves many ids, because `os.urandom` releases the interpreter lock and the thread then competes for it with
all other threads."""


_SINCE_BOOT: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)
"""On Linux `time.monotonic` stands still while the machine sleeps, and this clock does not."""

MAX_CLOCK_SKEW: Final = SECOND
"""Microseconds by which this machine's clock may differ from another one and still be used. Clocks synchronised by NTP
differ by less."""


class Clock:
    """The real clock: the time of this machine, corrected by an offset if `sync` finds it wrong."""

    _random_blocks: Iterator[int] = iter(())

    def __init__(self) -> None:
        self._offset = 0

    def now(self) -> int:
        """Return the time in microseconds since 1970, UTC."""
        return time.time_ns() // 1000 + self._offset

    def sync(self, read_time: Callable[[], int]) -> int:
        """Follow another clock from now on, unless the two differ by at most `MAX_CLOCK_SKEW`.

        Args:
            read_time: returns the time of the other clock, in microseconds since 1970.

        Returns:
            The offset that is added to this machine's clock, in microseconds; 0 if its time is used as it is.
        """
        before, other, after = time.time_ns() // 1000, read_time(), time.time_ns() // 1000
        self._offset = 0 if before - MAX_CLOCK_SKEW <= other <= after + MAX_CLOCK_SKEW else other - after
        return self._offset

    def random(self) -> float:
        """Return a random number from 0 up to, not including, 1."""
        return random.random()  # noqa: S311 (jitter, not a secret)

    def new_id(self) -> str:
        """Return a UUID version 7 (RFC 9562), which sorts by its creation time to a quarter of a microsecond.

        The twelve bits after the version hold the fraction of the millisecond (method 3 of section 6.2).
        """
        milliseconds, microseconds = divmod(self.now(), 1000)
        fraction = _VERSION_7 | (microseconds * 4096 // 1000)
        tail = _VARIANT | (self._random_bits() & _VARIANT_MASK)
        digits = f"{milliseconds:012x}{fraction:04x}{tail:016x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def _random_bits(self) -> int:
        # `next` on an iterator is atomic, so no two threads get the same item.
        while (bits := next(self._random_blocks, None)) is None:
            self._random_blocks = iter(_RANDOM_BLOCK.unpack(os.urandom(_RANDOM_BLOCK.size)))
        return bits


def seconds_since_boot() -> float:
    """Return the seconds since the machine was started, which no change of the clock affects.

    On Linux the time in which the machine slept is included; elsewhere this is `time.monotonic`.
    """
    return time.monotonic() if _SINCE_BOOT is None else time.clock_gettime(_SINCE_BOOT)


def id_lower_bound(timestamp: int) -> str:
    """Return the lowest id that can be created at a time, given in microseconds since 1970."""
    digits = f"{min(max(0, timestamp) // 1000, 2**48 - 1):012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def id_time(key: str) -> int | None:
    """Return the creation time of an id in microseconds since 1970, to the millisecond; None if it is not an id."""
    try:
        return int(key.replace("-", "")[:12], 16) * 1000
    except ValueError:
        return None


def is_time(microseconds: int) -> bool:
    """Return whether a number of microseconds since 1970 is a time that `to_datetime` can return."""
    return 0 <= microseconds <= _LATEST


def to_datetime(microseconds: int) -> datetime:
    """Return a time in microseconds since 1970 as an aware datetime in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


@overload
def to_text(microseconds: int) -> str: ...


@overload
def to_text(microseconds: int | None) -> str | None: ...


def to_text(microseconds: int | None) -> str | None:
    """Return ISO 8601 text in UTC to the millisecond, such as `2026-11-24T09:30:00.000Z`; None for None."""
    if microseconds is None:
        return None
    return to_datetime(microseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")
