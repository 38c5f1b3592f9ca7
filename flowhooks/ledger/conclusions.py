"""Conclusions that no handler of the event's class or key names. Each is recorded once, for an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from flowhooks.ledger import checksums, database
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import conclusions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.event import Event

# An engine that sends free text as its conclusion must not fill the table.
MAX_RECORDED: Final = 1_000
"""Maximum number of conclusions that one process records."""


class UnknownConclusion(NamedTuple):
    """A received conclusion that no handler of the event's class or key named.

    Attributes:
        callback_class: the event's class; `""` if it had none.
        process_key: the event's process definition key; `""` if it had none.
        conclusion: the conclusion.
        event_id: the id of the first event with it.
        seen_at: when that event was received, in microseconds since 1970.
    """

    callback_class: str
    process_key: str
    conclusion: str
    event_id: str
    seen_at: int


_INSERT: Final = database.insert(conclusions).on_conflict_do_nothing()


class UnknownConclusions:
    """Records unknown conclusions. Used by the writer's thread only."""

    def __init__(self) -> None:
        self._recorded: set[tuple[str, str, str]] = set()

    def record(self, transaction: WriteTransaction, events: Iterable[Event], now: int) -> None:
        """Record the conclusions of these events, except those that are recorded already."""
        first_seen: dict[tuple[str, str, str], str] = {}
        for event in events:
            key = (event.callback_class or "", event.process_definition_key or "", event.conclusion or "")
            first_seen.setdefault(key, event.id)
        new = {key: event_id for key, event_id in first_seen.items() if key not in self._recorded}
        if not new or len(self._recorded) >= MAX_RECORDED:
            return
        # Sorted, so that two processes that insert the same rows do not deadlock.
        rows = [_row(UnknownConclusion(*key, event_id, now)) for key, event_id in sorted(new.items())]
        transaction.connection.execute(_INSERT, rows)
        transaction.after_commit(lambda: self._recorded.update(new))


def _row(unknown: UnknownConclusion) -> dict[str, object]:
    texts = (unknown.callback_class, unknown.process_key, unknown.conclusion)
    return {
        "sha256": checksums.texts_sha256(texts),
        "callback_class": unknown.callback_class,
        "process_definition_key": unknown.process_key,
        "conclusion": unknown.conclusion,
        "event_id": unknown.event_id,
        "seen_at": unknown.seen_at,
    }


def unknown_conclusions(connection: Connection) -> list[UnknownConclusion]:
    """Return at most 1,000 recorded conclusions, sorted by class, key and conclusion."""
    key = (conclusions.c.callback_class, conclusions.c.process_definition_key, conclusions.c.conclusion)
    columns = (*key, conclusions.c.event_id, conclusions.c.seen_at)
    rows = connection.execute(select(*columns).order_by(*key).limit(MAX_RECORDED))
    repaired = (repair(row, columns)[0] for row in rows)
    return [UnknownConclusion._make(getattr(row, column.name) for column in columns) for row in repaired]
