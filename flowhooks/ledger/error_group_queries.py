"""Queries of error groups for operators. They change nothing, and the work of each is bounded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Text, case, false, func, literal, or_, select, union_all

from flowhooks.clock import SECOND
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.filter_conditions import in_error_group
from flowhooks.ledger.tables import (
    IS_FAILED,
    IS_SCHEDULED,
    IS_SUSPENDED,
    IS_WAITING,
    attempts,
    deliveries,
    error_groups,
)
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

HOURS: Final = 24
"""Number of hours whose attempts are counted one by one."""
_HOUR: Final = 3_600 * SECOND
MAX_COUNTED: Final = 20_000
"""Maximum number of attempts that are read for the activity of all groups of a page, the newest of each group."""
MAX_SEARCHED: Final = 200
"""Maximum number of attempts, and of deliveries of each kind, in which an open delivery of a group is searched."""
_OPEN_STATES: Final = (State.DEAD, State.WAITING, State.UNKNOWN)
# A delivery that was never started has no error, but the index does not tell.
_OPEN_CONDITIONS: Final = (
    IS_FAILED & (deliveries.c.state == State.DEAD.value),
    IS_FAILED & (deliveries.c.state == State.UNKNOWN.value),
    IS_WAITING & IS_SCHEDULED,
    IS_SUSPENDED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Attempts that failed for the same reason.

    Attributes:
        fingerprint: the group's id.
        handler: the handler's id.
        error_type: the type of the exception, or how the attempts ended.
        message: the message without ids, numbers, times, quoted values and addresses.
        frame: the innermost frame of the plugin; `""` if there is none.
        first_seen_at: when the first of its attempts ended, in microseconds since 1970.
        last_seen_at: when the last of its attempts ended, in microseconds since 1970.
        count: number of its attempts.
        versions: versions of the plugin with which it was seen.
        sample: the delivery and the number of its newest attempt.
        damage: which of its values are damaged; `""` if none is.
    """

    fingerprint: str
    handler: str
    error_type: str
    message: str
    frame: str
    first_seen_at: int
    last_seen_at: int
    count: int
    versions: tuple[str, ...]
    sample: tuple[str, int]
    damage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupActivity:
    """Recent attempts of an error group, and its deliveries that are still open.

    Attributes:
        hours: number of attempts that ended in each of the last 24 hours, the oldest hour first.
        dead: number of its deliveries that are *dead*, and whose last attempt has this error.
        waiting: number of those that wait for another attempt.
        unknown: number of those that are *unknown*.
        counted: number of attempts that were counted, the newest ones.
        is_complete: whether these are all attempts of the group. Otherwise the other numbers may be larger.
    """

    hours: tuple[int, ...]
    dead: int
    waiting: int
    unknown: int
    counted: int
    is_complete: bool

    @property
    def open(self) -> int:
        """Number of its deliveries that have not ended well and are not closed."""
        return self.dead + self.waiting + self.unknown


def list_groups(
    connection: Connection,
    *,
    handler: str | None = None,
    plugins: Collection[str] | None = None,
    since: int | None = None,
    limit: int,
    skip: int = 0,
) -> list[ErrorGroup]:
    """Return error groups, the one seen last first.

    Args:
        connection: any connection.
        handler: only groups of this handler.
        plugins: only groups of handlers of these plugins; None: all.
        since: only groups that were seen at or after this time, in microseconds since 1970.
        limit: maximum number of groups.
        skip: number of groups to skip.
    """
    query = select(error_groups).order_by(error_groups.c.last_seen_at.desc(), error_groups.c.fingerprint)
    if handler is not None:
        query = query.where(error_groups.c.handler == handler)
    if plugins is not None:
        of_handler = error_groups.c.handler
        query = query.where(
            or_(false(), *(func.substr(of_handler, 1, len(name) + 1) == f"{name}:" for name in plugins))
        )
    if since is not None:
        query = query.where(error_groups.c.last_seen_at >= since)
    return [_to_group(row) for row in connection.execute(query.limit(limit).offset(skip))]


def groups_with_prefix(connection: Connection, prefix: str, *, limit: int) -> list[ErrorGroup]:
    """Return at most `limit` groups whose fingerprint starts with a text."""
    # "g" follows the last hexadecimal digit.
    key = error_groups.c.fingerprint
    query = select(error_groups).where(key >= prefix, key < f"{prefix}g").order_by(key).limit(limit)
    return [_to_group(row) for row in connection.execute(query)]


def newest_attempt(connection: Connection, group: ErrorGroup) -> tuple[str, int] | None:
    """Return the delivery and the number of the newest attempt of a group that is still stored; None if none is."""
    query = select(attempts.c.delivery_id, attempts.c.number).where(*in_error_group(group.fingerprint))
    row = connection.execute(query.order_by(attempts.c.finished_at.desc()).limit(1)).first()
    return None if row is None else (row.delivery_id, row.number)


def has_open_delivery(connection: Connection, group: ErrorGroup, *, max_searched: int = MAX_SEARCHED) -> bool:
    """Tell whether a delivery that failed last with the error of a group has neither succeeded nor been closed.

    It is *dead* or *unknown*, waits for another attempt, or is running it. If there are too many deliveries to be sure,
    the answer is yes.

    Args:
        connection: any connection.
        group: the group.
        max_searched: maximum number of attempts, and of deliveries of each kind, that are read.
    """
    newest = (
        select(attempts.c.delivery_id, attempts.c.number)
        .where(*in_error_group(group.fingerprint))
        .order_by(attempts.c.finished_at.desc())
        .limit(max_searched)
        .subquery()
    )
    has_failed_last = (deliveries.c.attempt == newest.c.number) & deliveries.c.state.in_(
        [state.value for state in _OPEN_STATES]
    )
    is_tried_again = (deliveries.c.attempt == newest.c.number + 1) & (deliveries.c.state == State.RUNNING.value)
    query = (
        select(deliveries.c.id)
        .join(newest, newest.c.delivery_id == deliveries.c.id)
        .where(or_(has_failed_last, is_tried_again))
    )
    if connection.execute(query.limit(1)).first() is not None:
        return True
    return group.count > max_searched and any(
        _may_include(connection, group, condition, max_searched) for condition in _OPEN_CONDITIONS
    )


def _may_include(connection: Connection, group: ErrorGroup, condition: ColumnElement[bool], most: int) -> bool:
    """Tell whether deliveries that meet a condition may include one that failed last with the error of a group."""
    query = select(deliveries.c.id, deliveries.c.attempt).where(condition, deliveries.c.handler == group.handler)
    found = query.limit(most).subquery()
    is_last = (attempts.c.delivery_id == found.c.id) & (attempts.c.number == found.c.attempt)
    number, in_group = connection.execute(
        select(func.count(), func.count(case((attempts.c.error_group == group.fingerprint, 1)))).select_from(
            found.outerjoin(attempts, is_last)
        )
    ).one()
    return bool(in_group) or number >= most


def activities(
    connection: Connection, groups: Sequence[ErrorGroup], *, now: int, max_counted: int = MAX_COUNTED
) -> dict[str, GroupActivity]:
    """Return the activity of groups by fingerprint, with one statement for all of them.

    Args:
        connection: any connection.
        groups: the groups.
        now: microseconds since 1970; the last hour ends then.
        max_counted: maximum number of attempts that are read, the newest of each group. A group with few attempts
            leaves its share to the others.
    """
    shares = _shares({group.fingerprint: max(0, group.count) for group in groups}, max_counted)
    if not shares:
        return {}
    since = now - HOURS * _HOUR
    queries = [_activity(fingerprint, share, since) for fingerprint, share in shares.items()]
    hours = {fingerprint: [0] * HOURS for fingerprint in shares}
    sums = {fingerprint: dict.fromkeys(("attempts", *_OPEN_STATES), 0) for fingerprint in shares}
    for row in connection.execute(union_all(*queries) if len(queries) > 1 else queries[0]):
        if row.hour >= 0:
            hours[row.fingerprint][min(row.hour, HOURS - 1)] += row.attempts
        for name in sums[row.fingerprint]:
            sums[row.fingerprint][name] += getattr(row, name)
    counts = {group.fingerprint: group.count for group in groups}
    return {
        fingerprint: GroupActivity(
            hours=tuple(hours[fingerprint]),
            dead=found[State.DEAD],
            waiting=found[State.WAITING],
            unknown=found[State.UNKNOWN],
            counted=found["attempts"],
            is_complete=shares[fingerprint] >= counts[fingerprint],
        )
        for fingerprint, found in sums.items()
    }


def _shares(counts: Mapping[str, int], total: int) -> dict[str, int]:
    """Divide a number among groups: none gets more than its count, and the rest is shared equally."""
    shares: dict[str, int] = {}
    for done, (fingerprint, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[fingerprint] = max(1, min(count, (total - sum(shares.values())) // (len(counts) - done)))
    return shares


def _activity(fingerprint: str, most: int, since: int) -> Select[Any]:
    newest = (
        select(attempts.c.delivery_id, attempts.c.number, attempts.c.finished_at)
        .where(*in_error_group(fingerprint))
        .order_by(attempts.c.finished_at.desc())
        .limit(most)
        .subquery()
    )
    # The whole number of hours; -1 for all attempts before.
    age = newest.c.finished_at - literal(since, BigInteger)
    hour = case((age < 0, -1), else_=age // literal(_HOUR, BigInteger)).label("hour")
    is_last = deliveries.c.attempt == newest.c.number
    open_states = [
        func.sum(case((is_last & (deliveries.c.state == state.value), 1), else_=0)).label(state.value)
        for state in _OPEN_STATES
    ]
    return (
        select(literal(fingerprint, Text).label("fingerprint"), hour, func.count().label("attempts"), *open_states)
        .join(deliveries, deliveries.c.id == newest.c.delivery_id)
        .group_by(hour)
    )


def _to_group(row: Any) -> ErrorGroup:
    row, damage = repair(row, list(error_groups.c))
    return ErrorGroup(
        fingerprint=row.fingerprint,
        handler=row.handler,
        error_type=row.error_type,
        message=row.message,
        frame=row.frame,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        count=row.count,
        versions=tuple(str(version) for version in json.loads(row.versions)),
        sample=(row.sample_delivery_id, row.sample_attempt),
        damage=damage,
    )
