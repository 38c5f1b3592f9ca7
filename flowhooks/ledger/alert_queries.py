"""Queries for the causes of alerts, and the stored alerts.

Periodic checks find causes by one index lookup for each handler or class, however many deliveries or events share it.
Those of open alerts are counted at each check, from an index alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Subquery, and_, bindparam, case, func, select, update

from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.due_deliveries import each_handler
from flowhooks.ledger.tables import (
    IS_BLOCKED,
    IS_FAILED,
    IS_LAST_ATTEMPT,
    IS_RUNNING_OR_FAILED,
    IS_SCHEDULED,
    IS_SUSPENDED,
    IS_WAITING,
    MAX_INDEXED_CHARS,
    WAITS_FOR_HANDLER,
    alerts,
    attempts,
    deliveries,
    events,
    handlers,
    indexed,
    processes,
)
from flowhooks.model.alert import AlertCause
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Select

    from flowhooks.ledger.transaction import WriteTransaction


class HandlerIssue(NamedTuple):
    """A handler with deliveries that need attention.

    Attributes:
        handler: the handler's id.
        event_id: the id of the event whose delivery has had the problem for the longest time.
        since: since when, in microseconds since 1970.
    """

    handler: str
    event_id: str
    since: int


class ParkedBacklog(NamedTuple):
    """Parked events of one class and key.

    Attributes:
        callback_class: their class; `""` if they have none.
        process_key: their process definition key, or None.
        event_id: the id of the oldest of them.
        since: when that event was received, in microseconds since 1970.
    """

    callback_class: str
    process_key: str | None
    event_id: str
    since: int


class LatestOccurrence(NamedTuple):
    """The newest delivery or event that has the cause of an alert.

    Attributes:
        at: when it was added, in microseconds since 1970.
        error: the error of its last attempt; `""` if none failed.
    """

    at: int
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAlert:
    """An alert whose cause persists, as the last check found it.

    Attributes:
        id: its id.
        cause: its cause.
        subject: its subject, such as a handler's id, a plugin's name, or the name that parked events wait for.
        message: one sentence.
        started_at: since when its cause has existed, in microseconds since 1970.
        count: number of deliveries or events that share it.
        event_id: the id of one of those events, or `""`.
        notified_plugins: the plugins that accepted its last notification.
        acknowledged_at: when an operator acknowledged it, in microseconds since 1970; None: not acknowledged.
        acknowledged_by: the operator who acknowledged it; `""` if nobody did.
        last_at: when the newest delivery or event was added, in microseconds since 1970.
        last_error: the error of the newest delivery, in one line; `""` if none failed.
        notifications: number of notifications: 1, and 1 more for each growth.
        notified_at: when the last notification was created, in microseconds since 1970.
        notified_count: the lowest count since the last notification or the acknowledgement: growth is measured from it.
        grown_from: the count that the last notification compares with; 0 for the first one.
        accepted_plugins: the plugins that accepted one of its notifications.
        notification_errors: the last error of each plugin that has not accepted the last notification, by plugin.
    """

    id: str
    cause: AlertCause
    subject: str
    message: str
    started_at: int
    count: int
    event_id: str
    notified_plugins: tuple[str, ...] = ()
    acknowledged_at: int | None = None
    acknowledged_by: str = ""
    last_at: int = 0
    last_error: str = ""
    notifications: int = 1
    notified_at: int = 0
    notified_count: int = 0
    grown_from: int = 0
    accepted_plugins: tuple[str, ...] = ()
    notification_errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """Its cause and subject, as later messages name it."""
        return f"{self.cause.value} {self.subject}"


def failed(connection: Connection, state: State) -> list[HandlerIssue]:
    """Return the handlers with deliveries in `state`, *dead* or *unknown*."""
    rows = connection.execute(_FAILED, {"state": state.value})
    return sorted(_issue(row, row.changed_at) for row in rows)


def count_failed(connection: Connection, state: State, handler: str) -> int:
    """Return the number of a handler's deliveries in `state`, *dead* or *unknown*."""
    return _count(connection, IS_FAILED, deliveries.c.state == state.value, deliveries.c.handler == handler)


def latest_failed(connection: Connection, state: State, handler: str) -> LatestOccurrence | None:
    """Return the delivery of a handler that entered `state`, *dead* or *unknown*, last."""
    newest = (
        select(deliveries.c.changed_at, attempts.c.error)
        .outerjoin(attempts, IS_LAST_ATTEMPT)
        .where(IS_FAILED, deliveries.c.state == state.value, deliveries.c.handler == handler)
        .order_by(deliveries.c.changed_at.desc())
        .limit(1)
    )
    stored = connection.execute(newest).one_or_none()
    if stored is None:
        return None
    row, _ = repair(stored, [deliveries.c.changed_at, attempts.c.error])
    return LatestOccurrence(row.changed_at, row.error or "")


def count_waiting(connection: Connection, handler: str) -> int:
    """Return the number of a handler's deliveries that wait, also behind others, but not for a missing handler."""
    of_handler = (deliveries.c.handler == handler, IS_WAITING)
    return sum(_count(connection, *of_handler, part) for part in (IS_SCHEDULED, IS_BLOCKED))


def running(connection: Connection) -> list[HandlerIssue]:
    """Return the handler, the event and the start time of every running delivery."""
    rows = connection.execute(
        select(deliveries.c.handler, deliveries.c.event_id, attempts.c.started_at)
        .join(attempts, IS_LAST_ATTEMPT)
        .where(IS_RUNNING_OR_FAILED, deliveries.c.state == State.RUNNING.value)
        .order_by(attempts.c.started_at)
    )
    return [_issue(row, row.started_at) for row in rows]


def overdue(connection: Connection, before: int) -> list[HandlerIssue]:
    """Return the handlers with deliveries that have been due since before `before`, and still wait.

    Retired handlers are left out, as in `missing_handlers`, because deliveries on a shared ledger keep their due time.
    So are paused handlers. For a resumed handler the time counts from its resumption, because its deliveries could not
    run before.
    """
    rows = connection.execute(_OVERDUE, {"before": before})
    issues = [_issue(row, row.due_at, row.resumed) for row in rows]
    return sorted(issue for issue in issues if issue.since <= before)


def count_overdue(connection: Connection, before: int, handler: str) -> int:
    """Return the number of a handler's deliveries that have been due since before `before`, and still wait."""
    return _count(connection, deliveries.c.handler == handler, IS_SCHEDULED, deliveries.c.due_at <= before, IS_WAITING)


def missing_handlers(connection: Connection, before: int, *, deliberate: bool = False) -> list[HandlerIssue]:
    """Return the missing handlers with deliveries that have waited for them since before `before`.

    Args:
        connection: any connection.
        before: a time in microseconds since 1970.
        deliberate: whether to include retired and paused handlers. The operator who retired or paused them was shown
            the waiting deliveries, and that they stay stored.
    """
    rows = connection.execute(_MISSING if deliberate else _MISSING_UNNOTICED)
    issues = [_issue(row, row.created_at, row.missing_since) for row in rows]
    return sorted(issue for issue in issues if issue.since <= before)


def count_missing_handler(connection: Connection, handler: str) -> int:
    """Return the number of deliveries that wait for a missing handler."""
    return _count(connection, IS_SUSPENDED, deliveries.c.handler == handler)


def _issue(stored: Any, *times: Any) -> HandlerIssue:
    """Return the problem of the handler of a row, which may be damaged, since the last of `times`."""
    row, _ = repair(stored, [deliveries.c.handler, deliveries.c.event_id])
    return HandlerIssue(row.handler, row.event_id, max(map(shown_time, times)))


def _oldest(order: Any, *where: ColumnElement[bool], only: tuple[ColumnElement[bool], ...] = ()) -> Select[Any]:
    """Return each handler's first delivery by `order` among `only`.

    `where` has to match a partial index on the handler and `order`.
    """
    each = each_handler(*where)
    oldest = (
        select(deliveries.c.id)
        .where(*where, *only, deliveries.c.handler == each.c.handler)
        .order_by(order)
        .limit(1)
        .correlate(each)
        .scalar_subquery()
    )
    ids = select(each.c.handler, oldest.label("id")).where(each.c.handler.is_not(None)).subquery("found")
    facts = deliveries.alias("facts")
    return select(
        ids.c.handler, facts.c.id, facts.c.event_id, facts.c.due_at, facts.c.created_at, facts.c.changed_at
    ).join(facts, facts.c.id == ids.c.id)


def _overdue() -> Select[Any]:
    is_late = (IS_WAITING, deliveries.c.due_at <= bindparam("before"))
    each = _oldest(deliveries.c.due_at, IS_SCHEDULED, only=is_late).subquery("oldest")
    resumed = func.coalesce(handlers.c.resumed_at, 0).label("resumed")
    return _with_handlers(each, each.c.due_at, resumed).where(_NOT_DELIBERATE)


def _missing() -> Select[Any]:
    each = _oldest(deliveries.c.id, IS_SUSPENDED).subquery("oldest")
    # A handler has been missing since the first start without it.
    missed = select(func.min(processes.c.started_at)).where(processes.c.started_at > handlers.c.last_seen_at)
    missing_since = func.coalesce(missed.scalar_subquery(), handlers.c.last_seen_at, 0)
    return _with_handlers(each, each.c.created_at, missing_since.label("missing_since"))


def _with_handlers(each: Subquery, *columns: ColumnElement[Any]) -> Select[Any]:
    query = select(each.c.handler, each.c.event_id, *columns)
    return query.select_from(each).outerjoin(handlers, handlers.c.id == each.c.handler)


# Built once: at each poll, that took more than half of the processor time of the poll.
_NOT_DELIBERATE: Final = and_(handlers.c.retired_at.is_(None), handlers.c.paused_at.is_(None))
_FAILED: Final = _oldest(deliveries.c.changed_at, IS_FAILED, deliveries.c.state == bindparam("state"))
_OVERDUE: Final = _overdue()
_MISSING: Final = _missing()
_MISSING_UNNOTICED: Final = _MISSING.where(_NOT_DELIBERATE)


def _count(connection: Connection, *where: ColumnElement[bool]) -> int:
    return int(connection.execute(select(func.count()).select_from(deliveries).where(*where)).scalar_one())


_GROUP: Final = (indexed(events.c.callback_class), indexed(events.c.process_definition_key))
"""Columns by which parked events are counted. Of a longer class or key, only the part that the index stores counts."""
_PARKED: Final = (
    select(events.c.callback_class, events.c.process_definition_key, events.c.id, events.c.received_at)
    .where(WAITS_FOR_HANDLER)
    .limit(1)
)
_FIRST_GROUP: Final = _PARKED.order_by(_GROUP[0], _GROUP[1].nulls_first(), events.c.received_at)


def parked_backlogs(connection: Connection, before: int, *, limit: int) -> tuple[list[ParkedBacklog], bool]:
    """Return the events that wait for a handler since before `before`, by class and key.

    Args:
        connection: any connection.
        before: microseconds since 1970.
        limit: maximum number of classes and keys that are examined, in their order.

    Returns:
        The classes and keys with such events; and whether all classes and keys were examined.
    """
    backlogs: list[ParkedBacklog] = []
    row = connection.execute(_FIRST_GROUP).one_or_none()
    for _ in range(limit):
        if row is None:
            return backlogs, True
        if (backlog := _to_backlog(row)).since <= before:
            backlogs.append(backlog)
        row = _group_after(connection, row.callback_class, row.process_definition_key)
    return backlogs, row is None


def _to_backlog(stored: Any) -> ParkedBacklog:
    row, _ = repair(stored, [events.c.callback_class, events.c.process_definition_key, events.c.id])
    return ParkedBacklog(row.callback_class, row.process_definition_key, row.id, shown_time(stored.received_at))


def _group_after(connection: Connection, callback_class: str, process_key: str | None) -> Any:
    class_, key = _GROUP
    class_prefix = callback_class[:MAX_INDEXED_CHARS]
    # A missing key sorts before all keys. `same_class` must not order by the class, which is fixed: SQLite would sort
    # all rows. And SQLite uses an index on an expression for a range, but not for IS NOT NULL.
    next_key = key >= "" if process_key is None else key > process_key[:MAX_INDEXED_CHARS]
    same_class = _PARKED.where(class_ == class_prefix, next_key).order_by(key, events.c.received_at)
    return (
        connection.execute(same_class).one_or_none()
        or connection.execute(_FIRST_GROUP.where(class_ > class_prefix)).one_or_none()
    )


def oldest_without_name(connection: Connection) -> ParkedBacklog | None:
    """Return the oldest parked event that has neither a class nor a key; None if there is none."""
    nameless = (_GROUP[0] == "", _GROUP[1].is_(None))
    row = connection.execute(_PARKED.where(*nameless).order_by(events.c.received_at)).one_or_none()
    return None if row is None else _to_backlog(row)


def count_parked(connection: Connection, before: int, callback_class: str, process_key: str | None) -> int:
    """Return the number of events of a class and key that have been parked since before `before`."""
    of_group = _of_group(before, callback_class, process_key)
    return int(connection.execute(select(func.count()).select_from(events).where(of_group)).scalar_one())


def latest_parked(
    connection: Connection, before: int, callback_class: str, process_key: str | None
) -> LatestOccurrence | None:
    """Return the newest event of a class and key that has been parked since before `before`."""
    of_group = _of_group(before, callback_class, process_key)
    received_at = connection.execute(select(func.max(events.c.received_at)).where(of_group)).scalar_one()
    return None if received_at is None else LatestOccurrence(received_at)


def _of_group(before: int, callback_class: str, process_key: str | None) -> ColumnElement[bool]:
    class_, key = _GROUP
    same_key = key.is_(None) if process_key is None else key == process_key[:MAX_INDEXED_CHARS]
    return and_(
        WAITS_FOR_HANDLER,
        class_ == callback_class[:MAX_INDEXED_CHARS],
        same_key,
        events.c.received_at <= before,
    )


def open_alerts(connection: Connection) -> list[OpenAlert]:
    """Return the open alerts, oldest first."""
    rows = connection.execute(select(alerts).where(alerts.c.closed_at.is_(None)).order_by(alerts.c.id))
    return [parse_alert(row) for row in rows]


def recently_closed(connection: Connection, *, limit: int) -> list[tuple[OpenAlert, int]]:
    """Return the newest closed alerts, newest first, each with when it was closed, in microseconds since 1970."""
    closed = select(alerts).where(alerts.c.closed_at.is_not(None)).order_by(alerts.c.id.desc()).limit(limit)
    return [(parse_alert(row), repair(row, [alerts.c.closed_at])[0].closed_at) for row in connection.execute(closed)]


def parse_alert(stored: Any) -> OpenAlert:
    """Return an alert of a row of its table; a damaged value is replaced by one that can be shown."""
    row, damage = repair(stored, list(alerts.c))
    return OpenAlert(
        id=row.id,
        cause=AlertCause(row.cause),
        subject=row.subject,
        message=damage or row.message,
        started_at=row.started_at,
        count=row.count,
        event_id=row.event_id,
        notified_plugins=tuple(json.loads(row.notified)),
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        last_at=row.last_at,
        last_error=row.last_error,
        notifications=row.notifications,
        notified_at=row.notified_at,
        notified_count=row.notified_count,
        grown_from=row.grown_from,
        accepted_plugins=tuple(json.loads(row.accepted)),
        notification_errors=json.loads(row.notification_errors),
    )


def insert_alerts(transaction: WriteTransaction, new: Sequence[OpenAlert], now: int) -> set[str]:
    """Store new alerts, except if an alert for the same cause and subject is open; return the stored ids."""
    opened = set()
    for alert in new:
        row = asdict(alert) | {"cause": alert.cause.value, "opened_at": now}
        row |= {
            "notified": json.dumps(row.pop("notified_plugins")),
            "accepted": json.dumps(row.pop("accepted_plugins")),
            "notification_errors": json.dumps(row.pop("notification_errors")),
        }
        statement = (
            database.insert(alerts)
            .values(row)
            .on_conflict_do_nothing(index_elements=["cause", "subject"], index_where=alerts.c.closed_at.is_(None))
            .returning(alerts.c.id)
        )
        opened.update(transaction.connection.execute(statement).scalars())
    return opened


def acknowledge(transaction: WriteTransaction, ids: Collection[str], who: str, now: int) -> dict[str, str]:
    """Acknowledge alerts; return the cause and subject of each that was open and not yet acknowledged, by id.

    Growth is then measured from the present counts.
    """
    conditions = (
        alerts.c.id.in_(database.string_array("ids")),
        alerts.c.closed_at.is_(None),
        alerts.c.acknowledged_at.is_(None),
    )
    values = {"acknowledged_at": now, "acknowledged_by": who, "notified_count": alerts.c.count}
    changed = update(alerts).where(*conditions).values(values).returning(*alerts.columns)
    rows = transaction.connection.execute(changed, {"ids": json.dumps([*ids])}).mappings()
    return {alert.id: alert.about for alert in map(parse_alert, rows)}


def mark_notified(transaction: WriteTransaction, alert: OpenAlert) -> None:
    """Store which plugins accepted an alert's last notification, and why others did not.

    If there is a newer notification, only store that they accepted an earlier one.
    """
    of_alert = update(alerts).where(alerts.c.id == alert.id)
    transaction.connection.execute(of_alert.values(accepted=json.dumps(alert.accepted_plugins)))
    transaction.connection.execute(
        of_alert.where(alerts.c.notifications == alert.notifications).values(
            notified=json.dumps(alert.notified_plugins),
            notification_errors=json.dumps(alert.notification_errors, ensure_ascii=False),
        )
    )


def update_alert(transaction: WriteTransaction, alert: OpenAlert) -> None:
    """Store the present state of an alert, and its newest notification."""
    names = ("count", "message", "event_id", "last_at", "last_error", "notifications", "notified_at", "grown_from")
    # An operator may have acknowledged the alert since it was read: keep the count that the acknowledgement stored if
    # it is lower.
    notified_count = case(
        (alerts.c.notifications < alert.notifications, alert.notified_count),
        (alerts.c.notified_count > alert.notified_count, alert.notified_count),
        else_=alerts.c.notified_count,
    )
    values = {name: getattr(alert, name) for name in names}
    transaction.connection.execute(
        update(alerts)
        .where(alerts.c.id == alert.id)
        .values(
            **values,
            notified=json.dumps(alert.notified_plugins),
            notification_errors=json.dumps(alert.notification_errors, ensure_ascii=False),
            notified_count=notified_count,
        )
    )
