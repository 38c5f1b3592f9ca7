"""The position of a source: noted at its first contact, or taken over from a former name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import and_, delete, select, update

from flowhooks.ledger import database, engine_book, engine_queries, history_gaps
from flowhooks.ledger.tables import IS_IN_GRACE, engine_instances, engine_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Select

    from flowhooks.ledger.transaction import WriteTransaction

_DECLINE_BATCH: Final = 1000


def make_first_contact(transaction: WriteTransaction, source: str, former_names: Sequence[str], now: int) -> str:
    """Create the position of a source that has none; a renamed source continues where its former name stopped.

    Args:
        transaction: the open transaction.
        source: the source.
        former_names: its former names.
        now: microseconds since 1970.

    Returns:
        The name under which the source is reconciled: another one, if a process with newer settings has renamed it.
    """
    connection, columns = transaction.connection, engine_positions.c
    names = json.dumps(sorted(former_names))
    if engine_book.position(connection, source) is not None:
        # A name that is no former name any more may be that of another engine.
        changed = update(engine_positions).where(columns.source == source, columns.former_names != names)
        connection.execute(changed.values(former_names=names))
        return source
    for former in former_names:
        renamed = update(engine_positions).where(columns.source == former)
        values = {"source": source, "former_names": names, "process": "", "process_until": 0}
        if connection.execute(renamed.values(values)).rowcount:
            # The instances in grace replace rows from when the source had its name before.
            _delete(connection, source, _ids_in_grace(former))
            _rename_in_grace(connection, former, source)
            history_gaps.rename(connection, former, source)
            return source
    if owner := engine_queries.present_name(connection, source):
        return owner
    first = dict.fromkeys(("since", "position", "read_until", "swept_at"), now)
    contact = database.insert(engine_positions).values(source=source, former_names=names, round_at=0, **first)
    connection.execute(contact.on_conflict_do_nothing())
    return source


def take_over(
    transaction: WriteTransaction, source: str, former_names: Sequence[str], *, overlap: int, rule: str, now: int
) -> None:
    """Let a source that has a position take over those of former names that the settings have named later.

    Only the process with the lease may do it: another one would write its own position over this one.

    Args:
        transaction: the open transaction.
        source: the source.
        former_names: its former names.
        overlap: microseconds before the last read end time of the former name from which on the history is read.
        rule: the rule that skips instances that an operator declines.
        now: microseconds since 1970.
    """
    connection = transaction.connection
    for former in former_names:
        before, own = engine_book.position(connection, former), engine_book.position(connection, source)
        if before is None or own is None:
            continue
        while engine_book.decline(transaction, former, rule=rule, now=now, limit=_DECLINE_BATCH)[1]:
            pass
        # The decisions of the source count: an instance can have called meanwhile.
        decided = select(engine_instances.c.flow_instance_id).where(engine_instances.c.source == source)
        _delete(connection, former, _ids_in_grace(former).where(engine_instances.c.flow_instance_id.in_(decided)))
        # Seen now, so that no earlier confirmation of the source covers them.
        _rename_in_grace(connection, former, source, first_seen_at=now, changed_at=now)
        skew = before.skew if own.skew is None else own.skew
        # A position without a difference of the clocks is by our clock: the engine has not answered yet.
        own_shift, shift = (skew or 0 if position.skew is None else 0 for position in (own, before))
        history_gaps.shift(connection, source, own_shift)
        history_gaps.shift(connection, former, shift)
        history_gaps.rename(connection, former, source)
        since = max(before.since, before.read_until - overlap) + shift
        values = {
            # The history that the former name has read is not read again: the decisions are under that name.
            "since": min(own.since + own_shift, since),
            "read_until": min(own.read_until + own_shift, before.read_until + shift),
            "position": min(own.position + own_shift, before.position + shift),
            "skew": skew,
        }
        engine_book.update_position(transaction, source, values)
        connection.execute(delete(engine_positions).where(engine_positions.c.source == former))


def _ids_in_grace(source: str) -> Select[tuple[str]]:
    return select(engine_instances.c.flow_instance_id).where(IS_IN_GRACE, engine_instances.c.source == source)


def _delete(connection: Connection, source: str, ids: Select[tuple[str]]) -> None:
    # Materialized by a subquery, because the statement deletes from the table that it reads.
    instances = select(ids.subquery("instances").c.flow_instance_id)
    book = engine_instances.c
    connection.execute(delete(engine_instances).where(book.source == source, book.flow_instance_id.in_(instances)))


def _rename_in_grace(connection: Connection, former: str, source: str, **values: int) -> None:
    is_waiting = and_(IS_IN_GRACE, engine_instances.c.source == former)
    connection.execute(update(engine_instances).where(is_waiting).values(source=source, **values))
