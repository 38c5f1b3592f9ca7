"""Queries of the callbacks of each source, its rejected requests, and the routing fields of its events.

They change nothing. Each query reads a bounded number of events, the newest ones.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, bindparam, func, select

from flowhooks.clock import DAY, SECOND, id_lower_bound
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import events, ignored_requests, rejected_requests, trends
from flowhooks.model.event import CALLBACK_ORIGINS
from flowhooks.model.trend import RESOLUTIONS, TrendKind

if TYPE_CHECKING:
    from sqlalchemy import Connection

HOUR: Final = 3600 * SECOND
MAX_RECENT_EVENTS: Final = 10_000
"""Maximum number of events, the newest, from which the callbacks of the last day are counted."""
MAX_SEARCHED_EVENTS: Final = 100_000
"""Maximum number of events, the newest, among which the last callback of a source is searched."""
MAX_SEEN_EVENTS: Final = 20_000
"""Maximum number of events, the newest, whose versions, classes and conclusions count as seen."""


_LAST_SUCCESS: Final = (
    select(trends.c.started_at)
    .where(
        trends.c.kind == TrendKind.SOURCE.value,
        trends.c.subject == bindparam("source"),
        trends.c.resolution == bindparam("resolution"),
        trends.c.started_at < bindparam("until", type_=BigInteger),
        trends.c.outcome >= "200",
        trends.c.outcome < "300",
    )
    .order_by(trends.c.started_at.desc())
    .limit(1)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackRate:
    """The callbacks of one source that became events.

    Attributes:
        last_at: when the last one was received, in microseconds since 1970; None: none was found.
        last_hour: number of the last hour.
        last_day: number of the last 24 hours.
        truncated: whether there may be more, because only the newest events are counted.
    """

    last_at: int | None = None
    last_hour: int = 0
    last_day: int = 0
    truncated: bool = False


class Rejections(NamedTuple):
    """Requests of one source that were rejected with the same status for the same reason.

    Attributes:
        status: the HTTP status.
        requests: number of requests, as far as they are stored.
        last_at: when the last of them was rejected, in microseconds since 1970.
        reason_en: the reason of the last one, in English.
        reason_zh: the same in Chinese.
    """

    status: int
    requests: int
    last_at: int
    reason_en: str
    reason_zh: str


class SeenFields(NamedTuple):
    """Routing fields that events of one source and key had.

    Attributes:
        source: the name of the source.
        kind: their kind of callback.
        key: their process definition key.
        version: their process definition version, or None.
        callback_class: their class; `""` if they had none.
        conclusion: their conclusion, or None.
        events: number of events.
        event_id: the id of the newest of them.
    """

    source: str
    kind: str
    key: str
    version: int | None
    callback_class: str
    conclusion: str | None
    events: int
    event_id: str


def recent_callbacks(connection: Connection, now: int) -> tuple[dict[str, CallbackRate], bool]:
    """Return the callbacks of the last 24 hours by source, from the newest events, and whether there may be more.

    If there may be more, a source without an entry may also have called.
    """
    newest = (
        select(events.c.source, events.c.received_at, events.c.origin)
        .where(events.c.id >= id_lower_bound(now - DAY))
        .order_by(events.c.id.desc())
        .limit(MAX_RECENT_EVENTS)
    )
    rows = connection.execute(newest).all()
    truncated = len(rows) == MAX_RECENT_EVENTS
    calls = [row for row in rows if type(row.received_at) is int and row.origin in CALLBACK_ORIGINS]
    day = Counter(row.source for row in calls)
    hour = Counter(row.source for row in calls if row.received_at >= now - HOUR)
    last: dict[str, int] = {}
    for row in calls:
        last[row.source] = max(row.received_at, last.get(row.source, 0))
    rates = {
        source: CallbackRate(last_at=last[source], last_hour=hour[source], last_day=count, truncated=truncated)
        for source, count in day.items()
    }
    return rates, truncated


def last_callback(connection: Connection, source: str) -> int | None:
    """Return when the last callback of a source was received; None if none of the newest events is one."""
    newest = (
        select(events.c.source, events.c.origin, events.c.received_at)
        .order_by(events.c.id.desc())
        .limit(MAX_SEARCHED_EVENTS)
        .subquery()
    )
    query = (
        select(newest.c.received_at).where(newest.c.source == source, newest.c.origin.in_(CALLBACK_ORIGINS)).limit(1)
    )
    found = connection.execute(query).scalar_one_or_none()
    return found if type(found) is int else None


def newest_callbacks(connection: Connection, since: int, until: int) -> dict[str, int]:
    """Return when the last callback of each source was received, from `since` to before `until`.

    Only the newest `MAX_SEARCHED_EVENTS` events of that time are read; a source without a callback among them is left
    out. A request that was ignored counts, too: it shows that the source can call.
    """
    newest_events = (
        select(events.c.source, events.c.origin, events.c.received_at)
        .where(events.c.id >= id_lower_bound(since), events.c.id < id_lower_bound(until))
        .order_by(events.c.id.desc())
        .limit(MAX_SEARCHED_EVENTS)
        .subquery()
    )
    stored = (
        select(newest_events.c.source, func.max(newest_events.c.received_at))
        .where(newest_events.c.origin.in_(CALLBACK_ORIGINS))
        .group_by(newest_events.c.source)
    )
    ignored = (
        select(ignored_requests.c.source, func.max(ignored_requests.c.last_at))
        .where(ignored_requests.c.last_at >= since, ignored_requests.c.last_at < until)
        .group_by(ignored_requests.c.source)
    )
    newest: dict[str, int] = {}
    for source, at in (*connection.execute(stored), *connection.execute(ignored)):
        if type(at) is int:  # not a damaged value
            newest[source] = max(at, newest.get(source, 0))
    return newest


def last_success(connection: Connection, source: str, until: int) -> int | None:
    """Return until when a source has surely sent its last request with a successful response, of those before `until`.

    That is the end of the minute or hour of that request in the trends. None: none is recorded.
    """
    ends = []
    for resolution in RESOLUTIONS:
        parameters = {"source": source, "resolution": resolution, "until": until}
        started_at = connection.execute(_LAST_SUCCESS, parameters).scalar_one_or_none()
        if type(started_at) is int:  # not a damaged value
            ends.append(started_at + resolution * SECOND)
    return max(ends, default=None)


def count_callbacks(connection: Connection, source: str, since: int, *, limit: int) -> int:
    """Return the number of callbacks of a source since `since` that became events, at most `limit`."""
    theirs = (
        select(events.c.id)
        .where(events.c.id >= id_lower_bound(since), events.c.source == source, events.c.origin.in_(CALLBACK_ORIGINS))
        .limit(limit)
        .subquery()
    )
    return int(connection.execute(select(func.count()).select_from(theirs)).scalar_one())


def rejections(connection: Connection, source: str) -> list[Rejections]:
    """Return the stored rejections of a source by status and reason, the last one first.

    Args:
        connection: any connection.
        source: the name of the source; `""`: of requests whose source is not known.
    """
    merged: dict[tuple[int, str], Rejections] = {}
    rows = connection.execute(
        select(rejected_requests).where(rejected_requests.c.source == source).order_by(rejected_requests.c.id.desc())
    )
    for stored in rows:
        row, _ = repair(stored, list(rejected_requests.c))
        key = row.status, row.reason_en
        earlier = merged.get(key)
        requests = row.count + (earlier.requests if earlier else 0)
        merged[key] = (
            earlier._replace(requests=requests)
            if earlier
            else Rejections(row.status, requests, row.rejected_at, row.reason_en, row.reason_zh)
        )
    return list(merged.values())


def client_errors(connection: Connection, since: int) -> dict[str, tuple[int, int, str]]:
    """Return the requests since `since` that were rejected with 4xx, by source.

    A row counts equal requests. If the first of them is older than `since`, the number since then is estimated: the
    requests count as evenly distributed.

    Returns:
        For each source: the number of requests, when the first of them was rejected, and the reason of the last one.
    """
    table = rejected_requests.c
    query = (
        select(table.source, table.status, table.count, table.first_rejected_at, table.rejected_at, table.reason_en)
        .where(table.rejected_at >= since, table.status.between(400, 499), table.source != "")
        .order_by(table.rejected_at)
    )
    found: dict[str, tuple[int, int, str]] = {}
    for row in connection.execute(query):
        count, first = row.count, row.first_rejected_at
        if first < since:
            count = max(1, count * (row.rejected_at - since) // max(1, row.rejected_at - first))
            first = since
        before, earliest, _ = found.get(row.source, (0, first, ""))
        found[row.source] = before + count, min(first, earliest), f"{row.status}: {row.reason_en}"
    return found


def seen_fields(connection: Connection, since: int) -> list[SeenFields]:
    """Return the routing fields of events with a key that were received since `since`, from the newest events."""
    newest = (
        select(
            events.c.id,
            events.c.source,
            events.c.kind,
            events.c.process_definition_key,
            events.c.process_definition_version,
            events.c.callback_class,
            events.c.conclusion,
        )
        .where(events.c.id >= id_lower_bound(since))
        .order_by(events.c.id.desc())
        .limit(MAX_SEEN_EVENTS)
        .subquery()
    )
    group = (
        newest.c.source,
        newest.c.kind,
        newest.c.process_definition_key,
        newest.c.process_definition_version,
        newest.c.callback_class,
        newest.c.conclusion,
    )
    query = (
        select(*group, func.count(), func.max(newest.c.id))
        .where(newest.c.process_definition_key.is_not(None))
        .group_by(*group)
    )
    return [SeenFields(*row) for row in connection.execute(query)]
