"""Counts over time of a handler, a source or an error group, and what follows from them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTE: Final = 60
HOUR: Final = 3_600
RESOLUTIONS: Final = (MINUTE, HOUR)
"""Lengths of the stored intervals, in seconds."""
# 1, 2 and 5 of each decade, which the graduation of scales uses: the limits of a bucket differ by a factor of 2 to 2.5,
# so a percentile is off by less than that. The range is that of the buckets of attempts in `observability.metrics`.
BUCKETS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000),
    *(1_000_000, 2_000_000),
)
"""Upper limits of the buckets of durations, in milliseconds, from 1 ms to 33 minutes. They never change, because stored
counts have no others."""
NO_LIMIT: Final = -1
"""The bucket of durations above all limits."""
NO_DURATION: Final = 0
"""The bucket of what has no duration."""
OTHERS: Final = "(others)"
"""Subject that counts for all subjects of a kind beyond the maximum number. No subject has this form."""
_LOWER_LIMITS: Final = dict(zip((*BUCKETS, NO_LIMIT), (0, *BUCKETS), strict=True))


class TrendKey(NamedTuple):
    """The key of a count.

    Attributes:
        kind: a `TrendKind`.
        subject: a handler's id, a source's name or the fingerprint of an error group; or `OTHERS`.
        resolution: the length of the interval, in seconds: one of `RESOLUTIONS`.
        started_at: the start of the interval, a multiple of its length; in microseconds since 1970.
        outcome: as of the kind.
        bucket: one of `BUCKETS`, `NO_LIMIT` or `NO_DURATION`.
    """

    kind: str
    subject: str
    resolution: int
    started_at: int
    outcome: str
    bucket: int


class TrendKind(StrEnum):
    """The kinds of subjects that are counted."""

    HANDLER = "handler"
    """Attempts of a handler, by its id. The outcomes are the values of `OutcomeKind`."""
    SOURCE = "source"
    """Responses to the requests of a source, by its name. The outcomes are HTTP statuses as text."""
    ERROR_GROUP = "error_group"
    """Failed attempts of an error group, by its fingerprint, without durations. The outcomes are as of a handler."""


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """The counts of one interval.

    Attributes:
        started_at: the start of the interval, in microseconds since 1970.
        counts: number of attempts or responses by outcome and bucket. A bucket is one of `BUCKETS`, `NO_LIMIT` or
            `NO_DURATION`.
    """

    started_at: int
    counts: Mapping[tuple[str, int], int]

    @property
    def count(self) -> int:
        """Number of all attempts or responses."""
        return sum(self.counts.values())

    def by_outcome(self) -> dict[str, int]:
        """Return the number of attempts or responses by outcome."""
        sums: Counter[str] = Counter()
        for (outcome, _), count in self.counts.items():
            sums[outcome] += count
        return dict(sums)

    def by_bucket(self) -> dict[int, int]:
        """Return the number of attempts or responses by bucket, whatever their outcome; see `percentile`."""
        sums: Counter[int] = Counter()
        for (_, bucket), count in self.counts.items():
            sums[bucket] += count
        return dict(sums)


@dataclass(frozen=True, slots=True)
class TrendMark:
    """An event of the deployment that can explain a change.

    Attributes:
        at: when it happened, in microseconds since 1970.
        kind: `"start"`: a server or worker started; `"plugin"`: a process started with another version of a plugin
            than the start before.
        text: `"server"` or `"worker"`; the plugin and its version, such as `"payments 2.0.0"`.
    """

    at: int
    kind: str
    text: str


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration."""
    index = bisect_left(BUCKETS, seconds * 1_000)
    return BUCKETS[index] if index < len(BUCKETS) else NO_LIMIT


def percentile(counts: Mapping[int, int], share: float) -> float | None:
    """Return the duration that a share of the counted durations does not exceed, in milliseconds.

    It is interpolated within its bucket, as if the durations in a bucket were evenly spread. A duration above all
    limits counts as the highest limit. Counts without a duration, and of unknown buckets, do not count.

    Args:
        counts: number of durations by bucket.
        share: the share, such as 0.95; from 0 to 1.

    Returns:
        The duration; None if there is none.

    Raises:
        ValueError: the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share must be from 0 to 1, not {share}")
    filled = [(limit, lower, counts[limit]) for limit, lower in _LOWER_LIMITS.items() if counts.get(limit, 0) > 0]
    rank, below, result = share * sum(count for *_, count in filled), 0, None
    for limit, lower, count in filled:
        upper = lower if limit == NO_LIMIT else limit
        result = lower + (upper - lower) * min(1.0, max(0.0, (rank - below) / count))
        below += count
        if below >= rank:
            break
    return result
