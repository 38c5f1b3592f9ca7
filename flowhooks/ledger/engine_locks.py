"""Locks of process instances, for sources whose engine flowhooks asks.

A callback and reconciliation may store the same instance at once, in two processes. Both lock the instance first,
whatever class or kind the callback has, so the second one finds what the first one stored.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from flowhooks.ledger import database

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

_LOCK: Final = database.lock_statement(database.string_array("instances"))


def lock(connection: Connection, instances: Iterable[tuple[str, str]]) -> None:
    """Lock process instances until the transaction ends; wait for transactions that have locked one of them.

    Call it once in a transaction, before anything else is read or written. On SQLite it does nothing, because a writing
    transaction has the whole database to itself.

    Args:
        connection: a writing connection.
        instances: source and process instance id of each.
    """
    names = {json.dumps(["engine instance", source, instance_id]) for source, instance_id in instances}
    database.lock(connection, _LOCK, {"instances": json.dumps(sorted(names))})
