"""Pages of events for somebody who looks through them, each found in bounded time; it must not know who looks.

What an index answers is found at once, however far back it lies. Anything else is looked for window by window along
the ids, and a page that was not filled in time says how far the look has come.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, exists, select

from flowhooks.clock import SECOND
from flowhooks.ledger import database
from flowhooks.ledger.queries import EventFilter, narrowed, standings
from flowhooks.ledger.tables import HAS_TIME, HELD, NOT_AT_REST, deliveries, events
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.queries import Standing, Stored

WINDOW: Final = 4_000
"""Events looked through by one statement."""
PATIENCE: Final = 0.1
"""Seconds after which no further window is begun."""
FEW: Final = 2_000
"""Open deliveries that are gone through one by one; where there are more of them, a window holds enough."""
_MARGIN: Final = 60 * SECOND
"""By how much an event's id and the time it was received may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """An event in a listing: everything but its body.

    Attributes:
        id: its id.
        received_at: when it came, in microseconds since 1970.
        source: its engine.
        kind: its kind of call-back.
        flow_instance_id: the engine's process instance id.
        business_key: its business key, or None.
        callback_class: its call-back class, or None.
        process_key: its process definition key, or None.
        process_version: its process definition version, or None.
        process_definition_id: the engine's id of the process definition, or None.
        conclusion: how the process ended in business terms, or None.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        route: handler id to the reason why.
        state: `"routed"`, `"parked"` or `"dismissed"`.
        repeats: how often the same call-back came again.
        standings: its deliveries.
    """

    id: str
    received_at: int
    source: str
    kind: str
    flow_instance_id: str
    business_key: str | None
    callback_class: str | None
    process_key: str | None
    process_version: int | None
    process_definition_id: str | None
    conclusion: str | None
    parked_by: str | None
    dismissed_by: str | None
    route: Mapping[str, str]
    state: str
    repeats: int
    standings: tuple[Standing, ...] = ()


def glimpse(stored: Stored) -> Glimpse:
    """What a listing has of an event that was read as a whole."""
    event = stored.event
    return Glimpse(
        id=event.id,
        received_at=round(event.received_at.timestamp() * SECOND),
        source=event.source,
        kind=event.kind,
        flow_instance_id=event.flow_instance_id,
        business_key=event.business_key,
        callback_class=event.callback_class,
        process_key=event.process_definition_key,
        process_version=event.process_definition_version,
        process_definition_id=event.process_definition_id,
        conclusion=event.conclusion,
        parked_by=stored.parked_by,
        dismissed_by=stored.dismissed_by,
        route=stored.route,
        state=stored.state,
        repeats=stored.repeats,
        standings=stored.standings,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Events, the newest first, and where to go on.

    Attributes:
        events: the events.
        older: what to give as `before` for the next older ones; `""` where there are none.
        newer: what to give as `after` for the next newer ones; `""` where there are none.
        looked_until: None if all there is on this page was found; else, in microseconds since 1970, how far the look
            had come when its time was over.
    """

    events: tuple[Glimpse, ...]
    older: str
    newer: str
    looked_until: int | None = None


def browse(
    connection: Connection,
    wanted: EventFilter,
    *,
    limit: int,
    before: str = "",
    after: str = "",
    window: int = WINDOW,
    patience: float = PATIENCE,
) -> Page:
    """One page of the events that a filter means.

    Args:
        connection: any connection.
        wanted: the filter.
        limit: how many at the most.
        before: the id before which to look, towards the older ones.
        after: the id after which to look, towards the newer ones; one of the two at the most.
        window: events looked through by one statement, where no index helps.
        patience: seconds after which no further window is begun.
    """
    look = _Look(connection, wanted, before=before, after=after)
    if look.direct:
        rows, reached = look.rows(limit + 1), ""
    else:
        rows, reached = look.through(limit + 1, window, patience)
    more = len(rows) > limit
    rows = rows[:limit]
    onwards = rows[-1].id if more else reached
    if after:
        rows.reverse()
        # One of those that are newer than `after` may be gone by now, but `after` itself was shown before.
        older, newer = (rows[-1].id if rows else after), onwards
    else:
        older, newer = onwards, ((rows[0].id if rows else before) if before else "")
    standing = standings(connection, [row.id for row in rows])
    return Page(
        events=tuple(_glimpse(row, standing.get(row.id, ())) for row in rows),
        older=older,
        newer=newer,
        looked_until=None if more or not reached else _time_of(connection, reached),
    )


_COLUMNS: Final = (
    events.c.id,
    events.c.received_at,
    events.c.source,
    events.c.kind,
    events.c.flow_instance_id,
    events.c.business_key,
    events.c.callback_class,
    events.c.process_definition_key,
    events.c.process_definition_version,
    events.c.process_definition_id,
    events.c.conclusion,
    events.c.parked_by,
    events.c.dismissed_by,
    events.c.route,
    events.c.state,
    events.c.repeats,
)
_WAITING: Final = deliveries.c.state == State.WAITING.value
_PARKED: Final = events.c.state == bindparam("parked", "parked", literal_execute=True)
_ALL_PARKED: Final = EventFilter(state="parked")
_OPEN: Final[dict[str, tuple[ColumnElement[bool], ...]]] = {
    State.WAITING: (
        and_(_WAITING, HAS_TIME),
        and_(_WAITING, HELD),
        and_(_WAITING, deliveries.c.due_at.is_(None)),
    ),
    **{
        state: (and_(NOT_AT_REST, deliveries.c.state == state.value),)
        for state in (State.RUNNING, State.DEAD, State.UNKNOWN)
    },
}
"""What finds the deliveries of a state by an index, for those states in which something may still become of them."""


class _Look:
    """One look for events: what narrows it, and which way it goes."""

    def __init__(self, connection: Connection, wanted: EventFilter, *, before: str, after: str) -> None:
        self._connection = connection
        self._wanted = wanted
        self._upwards = bool(after)
        self._cursor = after or before
        self._ids = self._candidates()
        self._asked = [] if self._ids is not None else _of_delivery(wanted)
        self._bounds = _bounds(wanted)
        # Of what is asked of a delivery nothing is left to `narrowed`: it would look for it in all deliveries.
        state = wanted.state if wanted.state in {"parked", "dismissed"} else None
        self._query = narrowed(select(*_COLUMNS), replace(wanted, handler=None, state=state)).where(*self._bounds)
        if self._ids is not None:
            self._query = self._query.where(events.c.id.in_(database.keys("candidates"))).params(
                candidates=json.dumps(self._ids)
            )

    @property
    def direct(self) -> bool:
        """Whether an index finds it all, or nothing is asked for that would leave an event out."""
        wanted = self._wanted
        return (
            self._ids is not None
            or bool(wanted.ids)
            or wanted.flow_instance_id is not None
            or wanted.business_key is not None
            or not replace(wanted, since=None, until=None).narrows
            or replace(wanted, since=None, until=None) == _ALL_PARKED
        )

    def rows(self, limit: int, *, start: str = "", end: str = "") -> list[Any]:
        """The first events in the direction of the look, after `start` and up to `end`, that one included."""
        column = events.c.id
        query = self._query.where(*self._between(column, start or self._cursor, end))
        if self._asked:
            # The same bounds again of the delivery: else PostgreSQL reads all of them to find those of a few events.
            its_event = deliveries.c.event_id
            bounds = self._between(its_event, start or self._cursor, end)
            query = query.where(exists(select(deliveries.c.id).where(its_event == column, *bounds, *self._asked)))
        query = query.order_by(column if self._upwards else column.desc()).limit(limit)
        return list(self._connection.execute(query))

    def through(self, limit: int, window: int, patience: float) -> tuple[list[Any], str]:
        """The same window by window; also the id up to which it has looked, `""` if to the end."""
        deadline = time.monotonic() + patience
        found: list[Any] = []
        start = self._cursor
        for end in self._windows(window):
            found += self.rows(limit - len(found), start=start, end=end)
            start = end
            if not end or len(found) >= limit or time.monotonic() > deadline:
                break
        return found, start

    def _windows(self, window: int) -> Iterator[str]:
        """The last id of each window; `""` for the one that goes to the end."""
        column = events.c.id
        order = column if self._upwards else column.desc()
        # By ids alone: the time at which each was received would have all of the events read.
        within = select(column).where(*self._bounds).order_by(order).limit(1).offset(window - 1)
        start = self._cursor
        while True:
            query = within
            if start:
                query = query.where(column > start if self._upwards else column < start)
            start = self._connection.execute(query).scalar() or ""
            yield start

    def _between(self, column: ColumnElement[str], start: str, end: str) -> list[ColumnElement[bool]]:
        """After `start` and up to `end`, that one included, in the direction of the look; `""` is no bound."""
        bounds = []
        if start:
            bounds.append(column > start if self._upwards else column < start)
        if end:
            bounds.append(column <= end if self._upwards else column >= end)
        return bounds

    def _candidates(self) -> Sequence[str] | None:
        """The events of all deliveries in an open state, or all that are parked, where those are few; else None."""
        wanted = self._wanted
        found: set[str] = set()
        if wanted.state == "parked" and wanted.handler is None:
            found.update(self._connection.execute(select(events.c.id).where(_PARKED).limit(FEW + 1)).scalars())
            return sorted(found) if len(found) <= FEW else None
        if wanted.state not in _OPEN:
            return None
        for condition in _OPEN[wanted.state]:
            query = select(deliveries.c.event_id, deliveries.c.handler).where(condition).limit(FEW + 1)
            rows = self._connection.execute(query).all()
            if len(rows) > FEW:
                return None
            found.update(row.event_id for row in rows if wanted.handler in {None, row.handler})
        return sorted(found)


def _of_delivery(wanted: EventFilter) -> list[ColumnElement[bool]]:
    """What a filter asks of one and the same delivery of an event."""
    asked: list[ColumnElement[bool]] = []
    if wanted.state in set(State):
        asked.append(deliveries.c.state == wanted.state)
    if wanted.handler is not None:
        asked.append(deliveries.c.handler == wanted.handler)
    return asked


def _bounds(wanted: EventFilter) -> list[ColumnElement[bool]]:
    """Between which ids a filter's times lie, for those are what an index has."""
    bounds = []
    if wanted.since is not None:
        bounds.append(events.c.id >= first_id(wanted.since - _MARGIN))
    if wanted.until is not None:
        bounds.append(events.c.id < first_id(wanted.until + _MARGIN))
    return bounds


def first_id(moment: int) -> str:
    """What sorts before every id that was made at or after a moment, in microseconds since 1970."""
    digits = f"{min(max(0, moment) // 1000, 2**48 - 1):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def _time_of(connection: Connection, event_id: str) -> int | None:
    return connection.execute(select(events.c.received_at).where(events.c.id == event_id)).scalar()


def _glimpse(row: Any, standing: tuple[Standing, ...]) -> Glimpse:
    return Glimpse(
        id=row.id,
        received_at=row.received_at,
        source=row.source,
        kind=row.kind,
        flow_instance_id=row.flow_instance_id,
        business_key=row.business_key,
        callback_class=row.callback_class or None,
        process_key=row.process_definition_key,
        process_version=row.process_definition_version,
        process_definition_id=row.process_definition_id,
        conclusion=row.conclusion,
        parked_by=row.parked_by,
        dismissed_by=row.dismissed_by,
        route=json.loads(row.route),
        state=row.state,
        repeats=row.repeats,
        standings=standing,
    )
