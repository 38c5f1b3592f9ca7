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

MAX_SHOWN: Final = 20
"""Ids of things that do not add up, shown at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyReport:
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
    def is_consistent(self) -> bool:
        """Whether everything adds up."""
        return not self.trouble


def _states(query: Select[str, int], connection: Connection) -> dict[str, int]:
    return dict(sorted(connection.execute(query).all()))


def verify(connection: Connection) -> ConsistencyReport:
    """Go over everything that is stored; one transaction, so that what is accepted meanwhile does not matter."""
    counted = totals(connection)
    by_event = _states(select(events.c.state, func.count()).group_by(events.c.state), connection)
    report = ConsistencyReport(
        accepted=counted.accepted,
        stored=counted.stored,
        purged=counted.purged,
        events=by_event,
        deliveries=_states(select(deliveries.c.state, func.count()).group_by(deliveries.c.state), connection),
        attempts=connection.execute(select(func.count()).select_from(attempts)).scalar_one(),
    )
    _check_totals(connection, report)
    newest = max(time.time_ns() // 1000, *(connection.execute(query).scalar() or 0 for query in NEWEST))
    for query, sentence in CHECKS:
        ids = connection.execute(query.limit(MAX_SHOWN + 1), {"newest": newest}).scalars().all()
        _report(report, sentence, ids)
    by_sentence: dict[str, list[str]] = {}
    for sentence, key in check_rows(connection):
        keys = by_sentence.setdefault(sentence, [])
        if len(keys) <= MAX_SHOWN:
            keys.append(key)
    for sentence, keys in by_sentence.items():
        _report(report, sentence, keys)
    return report


def _check_totals(connection: Connection, report: ConsistencyReport) -> None:
    if report.accepted != report.stored + report.purged:
        report.trouble.append(
            f"{report.accepted} events were accepted, but {report.stored} are stored and {report.purged} were purged"
        )
    identities = connection.execute(PURGED_IDENTITIES).scalar_one()
    if identities > report.purged:
        report.trouble.append(f"{report.purged} events were purged, but the identities of {identities} are kept")


def _report(report: ConsistencyReport, sentence: str, ids: Sequence[str]) -> None:
    report.trouble.extend(sentence.format(key) for key in ids[:MAX_SHOWN])
    if len(ids) > MAX_SHOWN:
        report.trouble.append(f"… and more of the same: {sentence.format('…')}")
