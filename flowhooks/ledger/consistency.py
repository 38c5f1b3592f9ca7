"""Conservation: whether all that was accepted is still accounted for; it must not mend anything."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import Select, func, select

from flowhooks.ledger.consistency_queries import CHECKS, NEWEST, PURGED_IDENTITIES
from flowhooks.ledger.row_checks import check_rows
from flowhooks.ledger.stats import totals
from flowhooks.ledger.tables import attempts, deliveries, events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

MOST_SHOWN: Final = 20
"""Ids of things that do not add up, shown at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the ledger holds, and where it does not add up.

    Attributes:
        accepted: events accepted, counted in the transactions that accepted them.
        stored: events stored now.
        purged: events purged, counted in the transactions that purged them.
        events: how many events are in each state.
        deliveries: how many deliveries are in each state.
        attempts: how many attempts have begun.
        trouble: one line for each thing that does not add up; empty when the books balance.
    """

    accepted: int
    stored: int
    purged: int
    events: dict[str, int]
    deliveries: dict[str, int]
    attempts: int
    trouble: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Whether everything adds up."""
        return not self.trouble


def _states(query: Select[str, int], connection: Connection) -> dict[str, int]:
    return dict(sorted(connection.execute(query).all()))


def balance(connection: Connection) -> Books:
    """Go over everything that is stored; one transaction, so that what is accepted meanwhile does not matter."""
    taken = totals(connection)
    by_event = _states(select(events.c.state, func.count()).group_by(events.c.state), connection)
    books = Books(
        accepted=taken.accepted,
        stored=taken.stored,
        purged=taken.purged,
        events=by_event,
        deliveries=_states(select(deliveries.c.state, func.count()).group_by(deliveries.c.state), connection),
        attempts=connection.execute(select(func.count()).select_from(attempts)).scalar_one(),
    )
    _add_up(connection, books)
    newest = max(time.time_ns() // 1000, *(connection.execute(query).scalar() or 0 for query in NEWEST))
    for query, sentence in CHECKS:
        found = connection.execute(query.limit(MOST_SHOWN + 1), {"newest": newest}).scalars().all()
        _report(books, sentence, found)
    by_sentence: dict[str, list[str]] = {}
    for sentence, key in check_rows(connection):
        keys = by_sentence.setdefault(sentence, [])
        if len(keys) <= MOST_SHOWN:
            keys.append(key)
    for sentence, keys in by_sentence.items():
        _report(books, sentence, keys)
    return books


def _add_up(connection: Connection, books: Books) -> None:
    if books.accepted != books.stored + books.purged:
        books.trouble.append(
            f"{books.accepted} events were accepted, but {books.stored} are stored and {books.purged} were purged"
        )
    identities = connection.execute(PURGED_IDENTITIES).scalar_one()
    if identities > books.purged:
        books.trouble.append(f"{books.purged} events were purged, but the identities of {identities} are kept")


def _report(books: Books, sentence: str, found: Sequence[str]) -> None:
    books.trouble.extend(sentence.format(one) for one in found[:MOST_SHOWN])
    if len(found) > MOST_SHOWN:
        books.trouble.append(f"… and more of the same: {sentence.format('…')}")
