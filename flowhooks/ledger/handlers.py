"""The registered handlers, so that one whose plugin is missing still gets its deliveries."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, update

from flowhooks.errors import NewerSelectorsError
from flowhooks.ledger import database
from flowhooks.ledger.pauses import CircuitState
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
    """A handler as it is registered.

    Attributes:
        id: `plugin:name`.
        selectors: what it listened to when it was last loaded; None: a newer flowhooks recorded it in a format that
            this one cannot read.
        last_seen_at: when that was, in microseconds since 1970.
        order_by: what its deliveries were ordered by, then; or None.
        concurrency: how many of them could run at once, then; None: any number.
        paused_at: since when it is paused, in microseconds since 1970; None: it is not.
        circuit: its open circuit; None: it is closed.
    """

    id: str
    selectors: Selectors | None
    last_seen_at: int
    order_by: str | None = None
    concurrency: int | None = None
    paused_at: int | None = None
    circuit: CircuitState | None = None


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
    },
)

_UNKNOWN: Final = IS_RUNNING_OR_FAILED & (deliveries.c.state == State.UNKNOWN.value)
_WITH_PROBE: Final = select(handlers.c.id).where(
    handlers.c.has_probe == 1, handlers.c.id.in_(database.string_array("loaded"))
)
"""Loaded handlers that can tell whether a lost attempt did its work."""


def retry_from_json(text: str | None) -> Retry | None:
    """The retry that a handler declared when it was last loaded."""
    return Retry(**json.loads(text)) if text else None


def register(transaction: WriteTransaction, loaded: Iterable[Handler], now: int) -> None:
    """Write down the handlers that are loaded now; those that are not stay as they were, and what is paused, paused."""
    rows: list[dict[str, Any]] = [
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
        }
        for handler in loaded
    ]
    if rows:
        transaction.connection.execute(_UPSERT, rows)
        transaction.notice.handlers = True


def registered_handlers(connection: Connection) -> list[RegisteredHandler]:
    """Every handler that was ever loaded and not retired, by id."""
    rows = connection.execute(select(handlers).where(handlers.c.retired_at.is_(None)).order_by(handlers.c.id))
    return [
        RegisteredHandler(
            id=row.id,
            selectors=_selectors(row.selectors),
            last_seen_at=row.last_seen_at,
            order_by=row.order_by,
            concurrency=row.concurrency,
            paused_at=row.paused_at,
            circuit=None
            if row.circuit_opened_at is None
            else CircuitState(row.circuit_opened_at, row.circuit_reason, row.circuit_retry_at or 0),
        )
        for row in rows
    ]


def _selectors(text: str) -> Selectors | None:
    try:
        return Selectors.from_json(json.loads(text))
    except NewerSelectorsError:
        return None


def retired(connection: Connection) -> frozenset[str]:
    """The ids of the handlers that were retired and have not been loaded since."""
    return frozenset(connection.execute(select(handlers.c.id).where(handlers.c.retired_at.is_not(None))).scalars())


def retire(transaction: WriteTransaction, ids: Iterable[str], now: int) -> frozenset[str]:
    """Retire handlers until they are loaded again; the ids of those that were registered. Their deliveries stay."""
    is_registered = handlers.c.id.in_(database.string_array("ids")) & handlers.c.retired_at.is_(None)
    statement = update(handlers).where(is_registered).values(retired_at=now).returning(handlers.c.id)
    retired_ids = frozenset(transaction.connection.execute(statement, {"ids": json.dumps(list(ids))}).scalars())
    transaction.notice.handlers |= bool(retired_ids)
    return retired_ids


def wake_waiting(transaction: WriteTransaction, loaded: Iterable[str], now: int) -> None:
    """Let what waits for a loaded handler run, and ask one that can tell of what is *unknown*.

    Perhaps it can since its plugin was mended, or is there again.
    """
    loaded_json = json.dumps(list(loaded))
    is_here = deliveries.c.handler.in_(database.string_array("loaded"))
    transaction.connection.execute(
        update(deliveries).where(IS_SUSPENDED, is_here).values(due_at=now), {"loaded": loaded_json}
    )
    transaction.connection.execute(
        update(deliveries)
        .where(_UNKNOWN, deliveries.c.due_at.is_(None), deliveries.c.handler.in_(_WITH_PROBE))
        .values(due_at=now),
        {"loaded": loaded_json},
    )


def suspend_missing(transaction: WriteTransaction, loaded: Iterable[str], now: int) -> None:
    """Let what waits for a loaded handler run, and keep what waits for any other from being looked at.

    A delivery without a time is passed over by the runner, so that a million that wait for a missing plugin
    cost nothing. The same goes for an *unknown* one that nobody can be asked about.
    """
    loaded = list(loaded)
    wake_waiting(transaction, loaded, now)
    connection = transaction.connection
    loaded_json = json.dumps(loaded)
    for has_time in (IS_SCHEDULED, IS_BLOCKED):
        connection.execute(
            update(deliveries)
            .where(has_time, IS_WAITING, deliveries.c.handler.not_in(database.string_array("loaded")))
            .values(due_at=None),
            {"loaded": loaded_json},
        )
    connection.execute(
        update(deliveries)
        .where(_UNKNOWN, deliveries.c.due_at.is_not(None), deliveries.c.handler.not_in(_WITH_PROBE))
        .values(due_at=None),
        {"loaded": loaded_json},
    )


def register_loaded(
    transaction: WriteTransaction, loaded: Collection[Handler], now: int, *, suspend_others: bool
) -> list[RegisteredHandler]:
    """Write down which handlers are loaded, and let run what waits for them; those that are registered but missing.

    Args:
        transaction: the open transaction.
        loaded: those that are loaded.
        now: microseconds since 1970.
        suspend_others: whether what waits for any other is kept from being looked at.
    """
    register(transaction, loaded, now)
    loaded_ids = {handler.id for handler in loaded}
    with database.without_statement_timeout(transaction.connection):
        (suspend_missing if suspend_others else wake_waiting)(transaction, loaded_ids, now)
    return [registered for registered in registered_handlers(transaction.connection) if registered.id not in loaded_ids]
