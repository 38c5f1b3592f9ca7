"""Registered handlers. A handler whose plugin is missing still gets its deliveries."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, bindparam, case, select, update

from flowhooks.errors import DamagedRow, FlowhooksError, NewerSelectorsError
from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.pauses import CircuitState, lock_in_order, to_circuit
from flowhooks.ledger.tables import (
    IS_BLOCKED,
    IS_RUNNING_OR_FAILED,
    IS_SCHEDULED,
    IS_SUSPENDED,
    IS_WAITING,
    deliveries,
    handlers,
)
from flowhooks.model.delivery import State
from flowhooks.model.retry import Retry
from flowhooks.model.selectors import Selectors

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.handler import Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredHandler:
    """A handler as the ledger has registered it.

    Attributes:
        id: `plugin:name`.
        selectors: its selectors when it was last loaded; None: they are damaged, or a newer flowhooks recorded them in
            a format that this version cannot read.
        last_seen_at: when it was last loaded, in microseconds since 1970.
        order_by: its `order_by=` when it was last loaded; None: unordered.
        concurrency: its maximum number of deliveries that run at the same time, when it was last loaded; None: no
            limit.
        rate: its maximum number of attempts that start in a time, such as `10/s`, when it was last loaded; None: no
            limit.
        paused_at: when it was paused, in microseconds since 1970; None: it is not paused.
        circuit: its open circuit; None: the circuit is closed.
        damage: which of its values are damaged, so that others stand for them; `""` if none is.
    """

    id: str
    selectors: Selectors | None
    last_seen_at: int
    order_by: str | None = None
    concurrency: int | None = None
    rate: str | None = None
    paused_at: int | None = None
    circuit: CircuitState | None = None
    damage: str = ""


_INSERT: Final = database.insert(handlers)
_UPSERT: Final = _INSERT.on_conflict_do_update(
    index_elements=["id"],
    set_={
        "selectors": _INSERT.excluded.selectors,
        "retry": _INSERT.excluded.retry,
        "has_probe": _INSERT.excluded.has_probe,
        "last_seen_at": _INSERT.excluded.last_seen_at,
        "retired_at": None,
        "order_by": _INSERT.excluded.order_by,
        "concurrency": _INSERT.excluded.concurrency,
        "rate": _INSERT.excluded.rate,
        # Attempts that started at another rate say nothing about the new one.
        "rate_next_at": case((handlers.c.rate.is_not_distinct_from(_INSERT.excluded.rate), handlers.c.rate_next_at)),
    },
)

_INSERT_NEW: Final = database.insert(handlers).on_conflict_do_nothing(index_elements=["id"])

_UNKNOWN: Final = IS_RUNNING_OR_FAILED & (deliveries.c.state == State.UNKNOWN.value)
_WITH_PROBE: Final = select(handlers.c.id).where(
    handlers.c.has_probe == 1, handlers.c.id.in_(database.string_array("loaded"))
)
"""Loaded handlers that have a probe."""
_IS_LOADED: Final = deliveries.c.handler.in_(database.string_array("loaded"))
_WITH_DELIVERIES: Final = select(deliveries.c.handler).where(_IS_LOADED).distinct()
_NOW: Final = bindparam("now", type_=BigInteger)
_CLEAR_PROBE: Final = (
    update(deliveries)
    .where(_UNKNOWN, deliveries.c.due_at.is_not(None), deliveries.c.handler.not_in(_WITH_PROBE))
    .values(due_at=None)
)
_WAKE: Final = (
    update(deliveries).where(IS_SUSPENDED, _IS_LOADED).values(due_at=_NOW),
    update(deliveries)
    .where(_UNKNOWN, deliveries.c.due_at.is_(None), deliveries.c.handler.in_(_WITH_PROBE))
    .values(due_at=_NOW),
    _CLEAR_PROBE.where(_IS_LOADED),
)
_SUSPEND: Final = (
    *(
        update(deliveries).where(has_time, IS_WAITING, ~_IS_LOADED).values(due_at=None)
        for has_time in (IS_SCHEDULED, IS_BLOCKED)
    ),
    _CLEAR_PROBE,
)
_REGISTERED: Final = select(handlers).where(handlers.c.retired_at.is_(None)).order_by(handlers.c.id)
_RETIRED: Final = select(handlers.c.id).where(handlers.c.retired_at.is_not(None))


def retry_from_json(text: str | None) -> Retry | None:
    """Return the stored retry schedule of a handler; None if it declared none when it was last loaded.

    Raises:
        DamagedRow: it is damaged, or a newer flowhooks stored it in a format that this version cannot read.
    """
    try:
        return Retry(**json.loads(text)) if text else None
    except (TypeError, ValueError, RecursionError) as error:
        raise DamagedRow(f"the retry schedule of a handler cannot be read: {error}") from error


def register(transaction: WriteTransaction, loaded: Iterable[Handler], now: int) -> None:
    """Register the loaded handlers. Other handlers do not change, and paused handlers stay paused."""
    if rows := _rows(loaded, now):
        transaction.connection.execute(_UPSERT, rows)
        transaction.notice.handlers = True


def register_new(transaction: WriteTransaction, loaded: Iterable[Handler], now: int) -> None:
    """Register those of the loaded handlers that have deliveries and were never registered."""
    rows = _rows(loaded, now)
    ids = {"loaded": json.dumps([row["id"] for row in rows])}
    has_deliveries = frozenset(transaction.connection.execute(_WITH_DELIVERIES, ids).scalars())
    if new_rows := [row for row in rows if row["id"] in has_deliveries]:
        transaction.connection.execute(_INSERT_NEW, new_rows)
        transaction.notice.handlers = True


def _rows(loaded: Iterable[Handler], now: int) -> list[dict[str, Any]]:
    return [
        {
            "id": handler.id,
            "selectors": json.dumps(handler.selectors.to_json(), ensure_ascii=False),
            "retry": json.dumps(asdict(handler.retry)) if handler.retry else None,
            "has_probe": int(handler.probe is not None),
            "first_seen_at": now,
            "last_seen_at": now,
            "retired_at": None,
            "order_by": handler.order_by,
            "concurrency": handler.concurrency,
            "rate": handler.rate,
        }
        for handler in sorted(loaded, key=lambda handler: handler.id)  # as in `StartBudget.use`
    ]


def registered_handlers(connection: Connection) -> list[RegisteredHandler]:
    """Return all registered handlers that are not retired, sorted by id."""
    return [_to_registered(row) for row in connection.execute(_REGISTERED)]


def _to_registered(stored: Any) -> RegisteredHandler:
    row, damage = repair(stored, list(handlers.c))
    selectors, is_damaged = _selectors(row.selectors)
    return RegisteredHandler(
        id=row.id,
        selectors=selectors,
        last_seen_at=row.last_seen_at,
        order_by=row.order_by,
        concurrency=row.concurrency,
        rate=row.rate,
        # With a damaged time it is paused, too: no attempt starts.
        paused_at=None if stored.paused_at is None else shown_time(stored.paused_at),
        circuit=None if stored.circuit_opened_at is None else to_circuit(stored),
        damage=damage or ("damaged: selectors; run `flowhooks verify`" if is_damaged else ""),
    )


def _selectors(text: str) -> tuple[Selectors | None, bool]:
    """Return the selectors, None if they cannot be read, and whether they are damaged."""
    try:
        return Selectors.from_json(json.loads(text)), False
    except NewerSelectorsError:
        return None, False
    except (FlowhooksError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
        return None, True


def retired(connection: Connection) -> frozenset[str]:
    """Return the ids of the handlers that were retired and have not been loaded since."""
    return frozenset(connection.execute(_RETIRED).scalars())


def retire(transaction: WriteTransaction, ids: Iterable[str], now: int) -> frozenset[str]:
    """Retire handlers until they are loaded again; return the ids of those that were registered.

    Their deliveries stay stored.
    """
    is_registered = handlers.c.retired_at.is_(None)
    selected = lock_in_order(is_registered, handlers.c.id.in_(database.string_array("ids")))
    statement = update(handlers).where(is_registered, handlers.c.id.in_(selected)).values(retired_at=now)
    rows = transaction.connection.execute(statement.returning(handlers.c.id), {"ids": json.dumps(list(ids))})
    retired_ids = frozenset(rows.scalars())
    transaction.notice.handlers |= bool(retired_ids)
    return retired_ids


def wake_waiting(transaction: WriteTransaction, loaded: Iterable[str], now: int) -> None:
    """Make suspended deliveries of loaded handlers due, and *unknown* ones whose handler has a probe.

    The probe may be new since the plugin was fixed or installed again. *Unknown* deliveries whose loaded handler has no
    probe lose their due time, because runners would poll them forever.
    """
    parameters = {"loaded": json.dumps(list(loaded)), "now": now}
    for statement in _WAKE:
        transaction.connection.execute(statement, parameters)


def suspend_missing(transaction: WriteTransaction, loaded: Iterable[str], now: int) -> None:
    """Make deliveries of loaded handlers due as `wake_waiting` does, and suspend those of all other handlers.

    Runners do not poll deliveries without a due time, so a million deliveries that wait for a missing plugin cost
    nothing.
    """
    loaded = list(loaded)
    wake_waiting(transaction, loaded, now)
    for statement in _SUSPEND:
        transaction.connection.execute(statement, {"loaded": json.dumps(loaded)})


def register_loaded(transaction: WriteTransaction, loaded: Collection[Handler], now: int) -> list[RegisteredHandler]:
    """Register the loaded handlers; return the registered handlers that are not loaded."""
    register(transaction, loaded, now)
    loaded_ids = {handler.id for handler in loaded}
    return [registered for registered in registered_handlers(transaction.connection) if registered.id not in loaded_ids]


def wake_loaded(transaction: WriteTransaction, loaded: Collection[Handler], now: int, *, shared: bool) -> None:
    """Make the suspended deliveries of registered handlers due.

    Args:
        transaction: the open transaction.
        loaded: the loaded handlers.
        now: microseconds since 1970.
        shared: whether another process may have the other handlers; otherwise their deliveries are suspended.
    """
    with database.with_statement_timeout(transaction.connection, None):
        (wake_waiting if shared else suspend_missing)(transaction, [handler.id for handler in loaded], now)
