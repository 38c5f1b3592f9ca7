"""Whose turn it is: ordered deliveries run one at a time and in order, limited ones so many at once.

It must not know who asks, or what a delivery does. Only `admitted` decides, when an attempt begins. All else, a place
that says "held back" among it, is so that what may not begin is not looked at, and that what may is looked at soon.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
    union,
    update,
)

from flowhooks.errors import Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.deliveries import NEXT, Lane, Place
from flowhooks.ledger.tables import NOT_AT_REST, deliveries, handlers, in_lane
from flowhooks.model.delivery import Queued, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from sqlalchemy import ColumnElement, Connection, Row

    from flowhooks.clock import Clock
    from flowhooks.ledger.attempts import Claim
    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.model.delivery import Runner

LOOK_EVERY: Final = 0.1
LOOKS: Final = 3
"""How often, in seconds, and how many times a lane is looked at again in which something was held back: what that was
behind may have left in a transaction that did not see it yet. What is missed even then is found at the next sign of
life."""
MOST_LANES: Final = 1_000
"""Lanes that are looked at again at once, at the most."""

_LANES = database.rows("lanes", handler=Text, lane=Text)
_OTHERS = deliveries.alias("others")
_SAME_LANE: Final = (
    in_lane(_OTHERS) & (_OTHERS.c.handler == deliveries.c.handler) & (_OTHERS.c.lane == deliveries.c.lane)
)
_BEFORE: Final = _SAME_LANE & (tuple_(_OTHERS.c.turn, _OTHERS.c.id) < tuple_(deliveries.c.turn, deliveries.c.id))
FIRST: Final = or_(deliveries.c.lane.is_(None), ~exists(select(literal(1)).select_from(_OTHERS).where(_BEFORE)))
"""Whether nothing is before a delivery, because it is unordered or because it is the first of its lane."""
BEHIND: Final = case(
    (
        and_(deliveries.c.lane.is_not(None), deliveries.c.state == State.WAITING.value),
        select(_OTHERS.c.event_id).where(_BEFORE).order_by(_OTHERS.c.turn, _OTHERS.c.id).limit(1).scalar_subquery(),
    )
)
"""The event whose delivery holds a waiting one back: the first of its lane; null where that is itself."""


def _of(lanes: Any) -> ColumnElement[bool]:
    return and_(in_lane(deliveries), deliveries.c.handler == lanes.c.handler, deliveries.c.lane == lanes.c.lane)


_LAST: Final = select(
    _LANES.c.handler,
    _LANES.c.lane,
    select(deliveries.c.turn)
    .where(_of(_LANES))
    .order_by(deliveries.c.turn.desc(), deliveries.c.id.desc())
    .limit(1)
    .scalar_subquery()
    .label("turn"),
)
_LEFT: Final = deliveries.c.state.in_([State.DEAD.value, State.SUCCEEDED.value])
_COMING_BACK: Final = select(deliveries.c.id, deliveries.c.handler, deliveries.c.lane).where(
    deliveries.c.id.in_(database.keys("ids")), deliveries.c.lane.is_not(None), _LEFT
)
_PLACES = database.rows("places", id=Text, turn=BigInteger)
_COME_BACK: Final = update(deliveries).where(deliveries.c.id == _PLACES.c.id, _LEFT).values(turn=_PLACES.c.turn)

_ASKING: Final = deliveries.c.id.in_(database.keys("ids"))
_LOCK: Final = database.locking(
    union(
        select((deliveries.c.handler + " " + deliveries.c.lane).label("name")).where(
            _ASKING, deliveries.c.lane.is_not(None)
        ),
        database.keys("handlers"),
    )
)
_ADMITTED: Final = select(deliveries.c.id).where(_ASKING, deliveries.c.state == State.WAITING.value, FIRST)
_RUNNING: Final = (
    select(deliveries.c.handler, func.count())
    .where(NOT_AT_REST, deliveries.c.state == State.RUNNING.value, deliveries.c.handler.in_(database.keys("handlers")))
    .group_by(deliveries.c.handler)
)


def _first_of(lanes: Any) -> Any:
    first = select(deliveries.c.id).where(_of(lanes)).order_by(deliveries.c.turn, deliveries.c.id).limit(1)
    return select(first.correlate(lanes).scalar_subquery()).select_from(lanes)


def _call_up(lanes: Any) -> Any:
    """Let the first of each lane run from now on, unless it has begun."""
    # It was not late before its turn.
    due_at = case((deliveries.c.due_at < bindparam("now"), bindparam("now")), else_=deliveries.c.due_at)
    return (
        update(deliveries)
        .where(
            deliveries.c.id.in_(_first_of(lanes)),
            deliveries.c.state == State.WAITING.value,
            deliveries.c.turn >= bindparam("least"),
        )
        .values(turn=NEXT, due_at=due_at)
        .returning(deliveries.c.id, deliveries.c.handler, deliveries.c.attempt, deliveries.c.due_at)
    )


_CALL_UP: Final = _call_up(_LANES)
_ORDERED: Final = select(handlers.c.id).where(handlers.c.order_by.is_not(None))
_THIS: Final = in_lane(deliveries) & (deliveries.c.handler == bindparam("whose"))
_EACH: Final = (
    select(bindparam("whose", type_=Text).label("handler"), func.min(deliveries.c.lane).label("lane"))
    .where(_THIS)
    .cte("each_lane", recursive=True)
)
_FOLLOWING: Final = select(func.min(deliveries.c.lane)).where(_THIS, deliveries.c.lane > _EACH.c.lane)
# One step down the index for each lane, however many deliveries each of them has.
_EVERY: Final = _EACH.union_all(select(_EACH.c.handler, _FOLLOWING.scalar_subquery()).where(_EACH.c.lane.is_not(None)))
_CALL_UP_ALL: Final = _call_up(_EVERY)


def line_up(transaction: Transaction, new: Sequence[tuple[str, Lane]]) -> dict[str, Place]:
    """Give deliveries their places, each behind all that is in its lane by now.

    A call-back that was sent after another's answer comes after it: that one's place is durable, and so is seen here.
    Between two that were taken at once, any order is right.

    Args:
        transaction: the open transaction.
        new: the ids of the deliveries, and their lanes; those of one lane in their order.

    Returns:
        Their places by id. They are not written down yet.
    """
    wanted = json.dumps(list({lane: None for _, lane in new}))
    found = transaction.connection.execute(_LAST, {"lanes": wanted})
    last = {Lane(row.handler, row.lane): row.turn for row in found}
    places: dict[str, Place] = {}
    for delivery_id, lane in new:
        before = last[lane]
        turn = last[lane] = NEXT if before is None else max(before, NEXT) + 1
        places[delivery_id] = Place(lane, turn)
    transaction.held.update(place.lane for place in places.values() if place.turn > NEXT)
    return places


def come_back(transaction: Transaction, ids: Collection[str]) -> dict[str, Place]:
    """Give deliveries that have left their lanes new places at the end, for they are about to wait again.

    Returns:
        The places of those that are ordered, by id.
    """
    found = transaction.connection.execute(_COMING_BACK.order_by(deliveries.c.id), {"ids": json.dumps(list(ids))})
    coming = [(row.id, Lane(row.handler, row.lane)) for row in found]
    if not coming:
        return {}
    places = line_up(transaction, coming)
    turns = json.dumps([[one, place.turn] for one, place in places.items()])
    transaction.connection.execute(_COME_BACK, {"places": turns})
    return places


def admitted(transaction: Transaction, asking: Sequence[Claim]) -> tuple[set[str], set[str]]:
    """Which of those that ask may begin: each is the first of its lane, and its handler has room.

    Args:
        transaction: the open transaction; until it ends nobody else begins anything in these lanes, or of these
            limited handlers.
        asking: at most one for each delivery.

    Returns:
        The ids of those that may begin, and of those whose handler has no room.
    """
    limits = {one.queued.handler: one.limit for one in asking if one.limit is not None}
    parameters = {"ids": json.dumps([one.queued.delivery_id for one in asking]), "handlers": json.dumps(list(limits))}
    database.lock(transaction.connection, _LOCK, parameters)
    first = set(transaction.connection.execute(_ADMITTED, parameters).scalars())
    if not limits:
        return first, set()
    running = _running(transaction.connection, limits)
    may: set[str] = set()
    full: set[str] = set()
    for one in asking:
        handler, delivery_id = one.queued.handler, one.queued.delivery_id
        if one.limit is not None and running[handler] >= one.limit:
            full.add(delivery_id)
        elif delivery_id in first:
            may.add(delivery_id)
            running[handler] += 1
    return may, full


def _running(connection: Connection, of: Iterable[str]) -> Counter[str]:
    """How many deliveries of each of these handlers run."""
    return Counter(dict(connection.execute(_RUNNING, {"handlers": json.dumps(list(of))}).all()))


class Turns:
    """Sees to it that whatever has its turn runs soon.

    Args:
        runner: is told, within the transactions, what may run.
        clock: tells the time.
        due: finds what may run of one handler, so many at the most.
        shared: whether other processes write, too.
        write: has a function called in a transaction, some time.

    Attributes:
        limits: how many deliveries of a handler run at once, for those that are limited and loaded here.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        clock: Clock,
        due: Callable[[Connection, int, str, int], list[Queued]],
        shared: bool,
        write: Callable[[Callable[[Transaction], None]], object],
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._due = due
        self._shared = shared
        self._write = write
        self._doubtful: dict[Lane, int] = {}
        self._looking = threading.Lock()
        self.limits: dict[str, int] = {}

    def finish(self, transaction: Transaction) -> None:
        """At the end of each transaction: what has its turn by it is given to the runner."""
        if transaction.freed:
            self._call_up(transaction, transaction.freed, least=NEXT)
        if self._shared and transaction.ended_of:
            self._fill(transaction, transaction.ended_of)
        if self._shared and transaction.held:
            held = transaction.held
            transaction.after_commit(lambda: self._look_again(held))

    def call_up_missed(self, transaction: Transaction) -> None:
        """Let what is first of its lane run, where that was missed."""
        for handler in transaction.connection.execute(_ORDERED).scalars().all():
            parameters = {"whose": handler, "now": self._clock.now(), "least": NEXT + 1}
            self._enqueue(transaction, transaction.connection.execute(_CALL_UP_ALL, parameters).all())

    def within(self, connection: Connection, most: Callable[[str], int]) -> Callable[[str], int]:
        """`most`, which says how many of a handler are wanted, but not more than there is room for."""
        if not (self._shared and self.limits):
            return most
        running = _running(connection, self.limits)

        def wanted(handler: str) -> int:
            limit = self.limits.get(handler)
            return most(handler) if limit is None else min(most(handler), limit - running[handler])

        return wanted

    def _call_up(self, transaction: Transaction, lanes: Iterable[Lane], *, least: int) -> None:
        parameters = {"lanes": json.dumps(sorted(lanes)), "now": self._clock.now(), "least": least}
        self._enqueue(transaction, transaction.connection.execute(_CALL_UP, parameters).all())

    def _enqueue(self, transaction: Transaction, called_up: Iterable[Row[Any]]) -> None:
        now = self._clock.now()
        queued = [
            Queued(row.id, row.handler, row.attempt, ordered=True)
            for row in called_up
            if row.due_at is not None and row.due_at <= now
        ]
        if queued:
            self._runner.enqueue(transaction, queued, now)

    def _fill(self, transaction: Transaction, limited: Iterable[str]) -> None:
        """Have as many run of handlers of which something has ended as there is room for again."""
        now = self._clock.now()
        running = _running(transaction.connection, limited)
        for handler in sorted(limited):
            room = self.limits[handler] - running[handler]
            if room > 0 and (queued := self._due(transaction.connection, now, handler, room)):
                self._runner.enqueue(transaction, queued, now)

    def _look_again(self, lanes: Collection[Lane]) -> None:
        with self._looking:
            begin = not self._doubtful
            if len(self._doubtful) < MOST_LANES:
                self._doubtful |= dict.fromkeys(lanes, LOOKS)
        if begin:
            self._look_soon()

    def _look_soon(self) -> None:
        timer = threading.Timer(LOOK_EVERY, self._look)
        timer.daemon = True
        timer.start()

    def _look(self) -> None:
        with self._looking:
            lanes = list(self._doubtful)
        with suppress(Unavailable):  # and if so, at the next sign of life
            self._write(lambda transaction: self._call_up(transaction, lanes, least=NEXT + 1))
        with self._looking:
            self._doubtful = {lane: left - 1 for lane, left in self._doubtful.items() if left > 1}
            go_on = bool(self._doubtful)
        if go_on:
            self._look_soon()
