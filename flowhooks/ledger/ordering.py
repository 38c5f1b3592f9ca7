"""Ordering and limits: deliveries of one order key run one at a time, a handler runs at most N at once.

Theory of operation
-------------------
An *order group* is a handler together with one order key. Each delivery of a group has a position:

- `-1` (`STARTED`): its first attempt has started. It stays first until it succeeds, is dead or is closed, also while it
  waits for a retry.
- `0` (`NEXT`): it may start.
- above `0`: it is blocked by the deliveries before it.

**Only `admissible` decides**, in the transaction that starts an attempt. It locks the limited handlers and then the
groups concerned, then reads which delivery is first of its group and how many deliveries of the handler run. The locks
are held until COMMIT, so two processes never start two deliveries of one group, nor one more than the limit. A
handler's rate is counted there, too (`start_limits.py`).

**Handlers are locked before groups**, because a claim for free slots locks its handlers before it reads which
deliveries are due, and so which groups they are of. If a claim had a group and waited for a handler, both could wait
for each other. For the same reason a transaction makes claims of one kind only, and pauses, resumes or otherwise
changes handlers only if it does nothing else (`run_last` and `call_alone` in `group_commit.py`). A claim that has its
locks waits for no delivery: a transaction that changes one may itself wait for these locks.

**Stored positions are a hint.** They keep blocked deliveries out of the index that runners poll, and they let the next
delivery be found in one index lookup. A wrong hint delays a delivery; it never starts one too early.

- `assign_positions` puts a new delivery behind the last one of its group.
- When a delivery leaves its group, `OrderScheduler.promote_next` promotes the next one in the same transaction.
- Two transactions at once may each miss what the other does: one adds a delivery behind another, which leaves its group
  in a transaction that does not see the new one. So a group with a newly blocked delivery is checked again a few times
  (`RECHECK_INTERVAL`), and `background.order_sweeper` reads all groups periodically, in pages.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

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
    update,
)

from flowhooks.errors import Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.deliveries import NEXT, Position
from flowhooks.ledger.start_limits import StartBudget, count_startable
from flowhooks.ledger.tables import IS_RUNNING_OR_FAILED, deliveries, in_order_group
from flowhooks.ledger.transaction import OrderGroup
from flowhooks.model.delivery import State
from flowhooks.model.ready_delivery import ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from flowhooks.clock import Clock
    from flowhooks.ledger.deliveries import ClaimRequest
    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.ledger.transaction import WriteTransaction

RECHECK_INTERVAL: Final = 0.1
"""Seconds between checks of a group in which a delivery was blocked."""
RECHECKS: Final = 3
"""Number of these checks. The next sweep finds what they miss."""
# A few more, because a damaged delivery, which is never started, must not keep the others from being read.
READ_BEYOND_LIMITS: Final = 4
"""Number of deliveries of a handler that are read beyond those that its limits allow to start."""
MAX_POSITION: Final = 2**62
"""A stored position from this number on is damaged."""
MAX_GROUPS: Final = 1_000
"""Maximum number of groups that are checked again at the same time."""
PAGE_SIZE: Final = 1_000
"""Maximum number of deliveries that `read_order_groups` reads."""

_GROUPS = database.row_array("groups", handler=Text, order_key=Text)
_OTHERS = deliveries.alias("others")
_SAME_GROUP: Final = (
    in_order_group(_OTHERS)
    & (_OTHERS.c.handler == deliveries.c.handler)
    & (_OTHERS.c.order_key == deliveries.c.order_key)
)
_BEFORE: Final = _SAME_GROUP & (
    tuple_(_OTHERS.c.order_position, _OTHERS.c.id) < tuple_(deliveries.c.order_position, deliveries.c.id)
)
IS_FIRST: Final = or_(deliveries.c.order_key.is_(None), ~exists(select(literal(1)).select_from(_OTHERS).where(_BEFORE)))
"""Whether nothing is before a delivery, because it is unordered or because it is the first of its order group."""
BLOCKED_BY: Final = case(
    (
        and_(deliveries.c.order_key.is_not(None), deliveries.c.state == State.WAITING.value),
        select(_OTHERS.c.event_id)
        .where(_BEFORE)
        .order_by(_OTHERS.c.order_position, _OTHERS.c.id)
        .limit(1)
        .scalar_subquery(),
    )
)
"""Id of the event whose delivery blocks a waiting one: the first of its order group; null if the delivery itself is
first."""


_IN_GROUP: Final = and_(
    in_order_group(deliveries),
    deliveries.c.handler == _GROUPS.c.handler,
    deliveries.c.order_key == _GROUPS.c.order_key,
)
_LAST: Final = select(
    _GROUPS.c.handler,
    _GROUPS.c.order_key,
    select(deliveries.c.order_position)
    .where(_IN_GROUP)
    .order_by(deliveries.c.order_position.desc(), deliveries.c.id.desc())
    .limit(1)
    .scalar_subquery()
    .label("order_position"),
)
_LEFT_GROUP: Final = deliveries.c.state.in_([State.DEAD.value, State.SUCCEEDED.value])
_REQUEUED: Final = select(deliveries.c.id, deliveries.c.handler, deliveries.c.order_key).where(
    deliveries.c.id.in_(database.string_array("ids")), deliveries.c.order_key.is_not(None), _LEFT_GROUP
)
_POSITIONS = database.row_array("positions", id=Text, order_position=BigInteger)
_SET_POSITIONS: Final = (
    update(deliveries)
    .where(deliveries.c.id == _POSITIONS.c.id, _LEFT_GROUP)
    .values(order_position=_POSITIONS.c.order_position)
)

_CANDIDATES: Final = deliveries.c.id.in_(database.string_array("ids"))
_LOCK: Final = database.lock_statement(
    database.string_array("handlers"),
    select((deliveries.c.handler + " " + deliveries.c.order_key).label("name")).where(
        _CANDIDATES, deliveries.c.order_key.is_not(None)
    ),
)
_LOCK_HANDLERS: Final = database.lock_statement(database.string_array("handlers"))
# A delivery that another transaction changes is skipped: that transaction may wait for a lock of this one.
_ADMISSIBLE: Final = (
    select(deliveries.c.id)
    .where(_CANDIDATES, deliveries.c.state == State.WAITING.value, IS_FIRST)
    .with_for_update(of=deliveries, key_share=True, skip_locked=True)
)
_RUNNING: Final = (
    select(deliveries.c.handler, func.count())
    .where(
        IS_RUNNING_OR_FAILED,
        deliveries.c.state == State.RUNNING.value,
        deliveries.c.handler.in_(database.string_array("handlers")),
    )
    .group_by(deliveries.c.handler)
)


_FIRST: Final = select(deliveries.c.id).where(_IN_GROUP).order_by(deliveries.c.order_position, deliveries.c.id).limit(1)
_PROMOTE: Final = (
    update(deliveries)
    .where(
        deliveries.c.id.in_(select(_FIRST.correlate(_GROUPS).scalar_subquery()).select_from(_GROUPS)),
        deliveries.c.state == State.WAITING.value,
        deliveries.c.order_position >= bindparam("least"),
    )
    .values(
        order_position=NEXT,
        # It was not late while it was blocked. A delivery that was not blocked keeps its time.
        due_at=case(
            (and_(deliveries.c.order_position > NEXT, deliveries.c.due_at < bindparam("now")), bindparam("now")),
            else_=deliveries.c.due_at,
        ),
    )
    .returning(deliveries.c.id, deliveries.c.handler, deliveries.c.attempt, deliveries.c.due_at)
)
"""Makes the first delivery of each group due, unless it has started."""

# The rest of the last group of a page is skipped, so a long backlog behind one key costs one page.
_NEXT_GROUPS: Final = (
    select(
        deliveries.c.handler,
        deliveries.c.order_key,
        # Compared here, because a damaged position may be no number.
        and_(deliveries.c.state == State.WAITING.value, deliveries.c.order_position > NEXT).label("blocked"),
    )
    .where(
        in_order_group(deliveries),
        tuple_(deliveries.c.handler, deliveries.c.order_key)
        > tuple_(bindparam("handler", type_=Text), bindparam("order_key", type_=Text)),
    )
    .order_by(deliveries.c.handler, deliveries.c.order_key, deliveries.c.order_position, deliveries.c.id)
    .limit(bindparam("page_size"))
)


class OrderGroupPage(NamedTuple):
    """Some order groups.

    Attributes:
        missed: those whose first delivery is blocked, so that its promotion was missed.
        last: the last group of the page; None if there are no groups after the page.
    """

    missed: list[OrderGroup]
    last: OrderGroup | None


def read_order_groups(connection: Connection, after: OrderGroup) -> OrderGroupPage:
    """Return a page of order groups that follow the group `after`, in the order of their handlers and keys.

    At most `PAGE_SIZE` deliveries are read, however many are stored.
    """
    parameters = {"handler": after.handler, "order_key": after.key, "page_size": PAGE_SIZE}
    rows = connection.execute(_NEXT_GROUPS, parameters).all()
    is_blocked: dict[OrderGroup, bool] = {}
    for row in rows:
        is_blocked.setdefault(OrderGroup(row.handler, row.order_key), row.blocked)  # of the first delivery
    missed = [group for group, blocked in is_blocked.items() if blocked]
    return OrderGroupPage(missed, next(reversed(is_blocked)) if len(rows) == PAGE_SIZE else None)


def assign_positions(transaction: WriteTransaction, new: Sequence[tuple[str, OrderGroup]]) -> dict[str, Position]:
    """Assign positions to deliveries, each behind the last delivery of its order group.

    A callback that was sent after the answer to another one is ordered after it: the earlier position is durable, and
    so it is visible here. Callbacks that are accepted at the same time may get any order.

    Args:
        transaction: the open transaction.
        new: ids of the deliveries with their order groups; deliveries of one group in their order.

    Returns:
        The positions by delivery id. They are not stored yet.
    """
    groups = json.dumps(list({group: None for _, group in new}))
    rows = transaction.connection.execute(_LAST, {"groups": groups})
    last = {OrderGroup(row.handler, row.order_key): row.order_position for row in rows}
    positions: dict[str, Position] = {}
    for delivery_id, group in new:
        before = last[group]
        number = last[group] = NEXT if before is None else _sound_position(before) + 1
        positions[delivery_id] = Position(group, number)
    transaction.blocked_groups.update(position.group for position in positions.values() if position.number > NEXT)
    return positions


def _sound_position(stored: Any) -> int:
    # Behind a damaged position, which may be no number, the ids decide.
    return stored if type(stored) is int and NEXT <= stored < MAX_POSITION else NEXT


def requeue_last(transaction: WriteTransaction, ids: Collection[str]) -> dict[str, Position]:
    """Store new positions, at the end of their order groups, for deliveries that left them and will wait again.

    Returns:
        The positions of the ordered deliveries among them, by id.
    """
    if not ids:
        return {}
    rows = transaction.connection.execute(_REQUEUED.order_by(deliveries.c.id), {"ids": json.dumps(list(ids))})
    requeued = [(row.id, OrderGroup(row.handler, row.order_key)) for row in rows]
    if not requeued:
        return {}
    positions = assign_positions(transaction, requeued)
    numbers = json.dumps([[delivery_id, position.number] for delivery_id, position in positions.items()])
    transaction.connection.execute(_SET_POSITIONS, {"positions": numbers})
    return positions


class Admission(NamedTuple):
    """Which deliveries may start.

    Attributes:
        ids: their ids.
        at_limit: the ids of those whose handler is at its concurrency limit.
        at_rate: the ids of those whose handler is at its rate.
        budget: counts the attempts that start, for the rates of their handlers.
    """

    ids: set[str]
    at_limit: set[str]
    at_rate: set[str]
    budget: StartBudget


def admissible(transaction: WriteTransaction, requests: Sequence[ClaimRequest], now: int) -> Admission:
    """Return the deliveries that may start: first of their order group, and below the limits of their handler.

    Until the transaction ends, no other transaction starts deliveries of these order groups or limited handlers, or
    changes one of those that may start. A delivery that another transaction is changing may not start.

    Args:
        transaction: the open transaction.
        requests: at most one for each delivery.
        now: microseconds since 1970.
    """
    limits = {request.queued.handler: request.limits for request in requests if request.limits is not None}
    parameters = {
        "ids": json.dumps([request.queued.delivery_id for request in requests]),
        "handlers": json.dumps(list(limits)),
    }
    database.lock(transaction.connection, _LOCK, parameters)
    first = set(transaction.connection.execute(_ADMISSIBLE, parameters).scalars())
    budget = StartBudget(transaction.connection, limits, now)
    if not limits:
        return Admission(first, set(), set(), budget)
    running = _count_running(transaction.connection, _with_concurrency(limits))
    admissible_ids: set[str] = set()
    at_limit: set[str] = set()
    at_rate: set[str] = set()
    for request in requests:
        handler, delivery_id = request.queued.handler, request.queued.delivery_id
        most = None if request.limits is None else request.limits.concurrency
        if most is not None and running[handler] >= most:
            at_limit.add(delivery_id)
        elif delivery_id in first:
            if budget.take(handler):
                admissible_ids.add(delivery_id)
                running[handler] += 1
            else:
                at_rate.add(delivery_id)
    return Admission(admissible_ids, at_limit, at_rate, budget)


def lock_handlers(transaction: WriteTransaction, handler_ids: Collection[str]) -> None:
    """Lock limited handlers, as `admissible` does, before their deliveries are read."""
    database.lock(transaction.connection, _LOCK_HANDLERS, {"handlers": json.dumps(sorted(handler_ids))})


def _with_concurrency(limits: Mapping[str, StartLimits]) -> dict[str, int]:
    return {handler: limit.concurrency for handler, limit in limits.items() if limit.concurrency is not None}


def _count_running(connection: Connection, handler_ids: Iterable[str]) -> Counter[str]:
    return Counter(dict(connection.execute(_RUNNING, {"handlers": json.dumps(list(handler_ids))}).all()))


def _to_read(startable: int) -> int:
    return startable + READ_BEYOND_LIMITS if startable > 0 else 0


class OrderScheduler:
    """Makes the first delivery of each order group due, and fills the free slots of limited handlers.

    Args:
        runner: receives, within the transactions, the deliveries that may run.
        clock: the source of the present time.
        due: returns the due deliveries of one handler, at most as many as given.
        shared: whether other processes write as well.
        write: queues a function for the writer, which calls it in a later transaction.
        limits: the limits of each limited handler that is loaded here, by its id.

    Attributes:
        limits: as given.
    """

    def __init__(
        self,
        *,
        runner: DeliveryQueue,
        clock: Clock,
        due: Callable[[Connection, int, str, int], list[ReadyDelivery]],
        shared: bool,
        write: Callable[[Callable[[WriteTransaction], None]], object],
        limits: dict[str, StartLimits],
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._due = due
        self._shared = shared
        self._write = write
        self._rechecks_left: dict[OrderGroup, int] = {}
        self._rechecks_lock = threading.Lock()
        self.limits = limits

    def promote_next(self, transaction: WriteTransaction) -> None:
        """Promote and enqueue the next delivery of each group that a delivery has left; called in each transaction.

        On a shared ledger, also schedule checks of newly blocked groups.
        """
        if transaction.freed_groups:
            self._promote(transaction, transaction.freed_groups, least=NEXT)
        if self._shared and transaction.blocked_groups:
            blocked = transaction.blocked_groups
            transaction.after_commit(lambda: self._schedule_rechecks(blocked))

    def fill_free_slots(self, transaction: WriteTransaction) -> None:
        """On a shared ledger, enqueue deliveries for free slots of limited handlers; called before each COMMIT.

        Claims of the same transaction may have filled these slots.
        """
        if self._shared and transaction.freed_handlers:
            self._fill_free_slots(transaction, transaction.freed_handlers)

    def before_commit(self, transaction: WriteTransaction) -> None:
        """Call both in a transaction without claims."""
        self.promote_next(transaction)
        self.fill_free_slots(transaction)

    def limit_to_free_slots(self, connection: Connection, limit_for: Callable[[str], int]) -> Callable[[str], int]:
        """Return `limit_for`, capped at what the limits of each handler allow now.

        On a shared ledger these include the concurrency limit; otherwise the slots of this process do.
        """
        limits = dict(self.limits)
        caps: dict[str, int] = {}
        if self._shared and (concurrency := _with_concurrency(limits)):
            running = _count_running(connection, concurrency)
            caps = {handler: _to_read(most - running[handler]) for handler, most in concurrency.items()}
        rated = {handler: limit for handler, limit in limits.items() if limit.rate is not None}
        for handler, count in count_startable(connection, rated, self._clock.now()).items():
            most = _to_read(count)
            caps[handler] = min(most, caps.get(handler, most))
        if not caps:
            return limit_for
        return lambda handler: min(limit_for(handler), caps[handler]) if handler in caps else limit_for(handler)

    def _promote(self, transaction: WriteTransaction, groups: Iterable[OrderGroup], *, least: int) -> None:
        parameters = {"groups": json.dumps(sorted(groups)), "now": self._clock.now(), "least": least}
        self._enqueue(transaction, transaction.connection.execute(_PROMOTE, parameters).all())

    def _enqueue(self, transaction: WriteTransaction, promoted: Iterable[Row[Any]]) -> None:
        now = self._clock.now()
        queued = [
            ReadyDelivery(row.id, row.handler, row.attempt, ordered=True)
            for row in promoted
            if type(row.due_at) is int and row.due_at <= now  # SQLite keeps values of any type
        ]
        if queued:
            self._runner.enqueue(transaction, queued, now)

    def _fill_free_slots(self, transaction: WriteTransaction, limited: Iterable[str]) -> None:
        """Enqueue deliveries of limited handlers for the slots that became free."""
        now = self._clock.now()
        limits = _with_concurrency({handler: self.limits[handler] for handler in limited if handler in self.limits})
        running = _count_running(transaction.connection, limits)
        for handler in sorted(limits):
            most = _to_read(limits[handler] - running[handler])
            if most and (queued := self._due(transaction.connection, now, handler, most)):
                self._runner.enqueue(transaction, queued, now)

    def _schedule_rechecks(self, groups: Collection[OrderGroup]) -> None:
        with self._rechecks_lock:
            begin = not self._rechecks_left
            if len(self._rechecks_left) < MAX_GROUPS:
                self._rechecks_left |= dict.fromkeys(groups, RECHECKS)
        if begin:
            self._recheck_soon()

    def _recheck_soon(self) -> None:
        timer = threading.Timer(RECHECK_INTERVAL, self._recheck)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # the system allows no further thread; the next sweep finds these groups
            with self._rechecks_lock:
                self._rechecks_left = {}

    def _recheck(self) -> None:
        with self._rechecks_lock:
            groups = list(self._rechecks_left)
        with suppress(Unavailable):  # the next sweep checks all groups
            self._write(lambda transaction: self._promote(transaction, groups, least=NEXT + 1))
        with self._rechecks_lock:
            self._rechecks_left = {
                group: remaining - 1 for group, remaining in self._rechecks_left.items() if remaining > 1
            }
            go_on = bool(self._rechecks_left)
        if go_on:
            self._recheck_soon()
