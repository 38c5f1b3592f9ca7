"""Conservation: whether all that was accepted is still accounted for; it must not mend anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from sqlalchemy import ColumnElement, Select, and_, case, func, literal, or_, select

from flowhooks.delivery import OutcomeKind, State
from flowhooks.ledger.condition import totals
from flowhooks.ledger.tables import attempts, deliveries, events, in_lane

if TYPE_CHECKING:
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


_LAST: Final = (
    select(
        attempts.c.delivery_id,
        func.max(attempts.c.number).label("number"),
        func.count().label("made"),
    )
    .group_by(attempts.c.delivery_id)
    .subquery("last")
)
_UNFINISHED: Final = attempts.c.outcome.is_(None)


def _fits() -> ColumnElement[bool]:
    """Whether a delivery's state agrees with how its last attempt ended; `docs/explanation/states.md` has the table."""
    outcome = attempts.c.outcome
    none = attempts.c.number.is_(None)
    return case(
        (deliveries.c.state == State.RUNNING.value, and_(~none, _UNFINISHED)),
        (
            deliveries.c.state == State.SUCCEEDED.value,
            outcome.in_([OutcomeKind.SUCCEEDED.value, OutcomeKind.LOST.value]),
        ),
        (deliveries.c.state == State.UNKNOWN.value, outcome == OutcomeKind.LOST.value),
        # What succeeded leaves that state only by `replay --again`, which starts its retry schedule anew.
        else_=or_(
            none,
            and_(
                ~_UNFINISHED,
                or_(outcome != OutcomeKind.SUCCEEDED.value, deliveries.c.retries_from == deliveries.c.attempt),
            ),
        ),
    )


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
    if books.accepted != books.stored + books.purged:
        books.trouble.append(
            f"{books.accepted} events were accepted, but {books.stored} are stored and {books.purged} were purged"
        )
    made = select(deliveries.c.event_id, func.count().label("made")).group_by(deliveries.c.event_id).subquery("made")
    _report(
        connection,
        books,
        select(events.c.id)
        .outerjoin(made, made.c.event_id == events.c.id)
        .where(func.coalesce(made.c.made, 0) != events.c.route_size),
        "event {} does not have the deliveries of its recorded route",
    )
    _report(
        connection,
        books,
        select(events.c.id).where(events.c.state.not_in(["routed", "parked", "dismissed"])),
        "event {} is in no state that there is",
    )
    _report(
        connection,
        books,
        select(events.c.id).where(events.c.state == "routed", events.c.route_size == literal(0)),
        "event {} counts as routed, but goes nowhere",
    )
    _report(
        connection,
        books,
        select(deliveries.c.id)
        .outerjoin(_LAST, _LAST.c.delivery_id == deliveries.c.id)
        .where(
            or_(
                func.coalesce(_LAST.c.number, 0) != deliveries.c.attempt,
                func.coalesce(_LAST.c.made, 0) != deliveries.c.attempt,
            )
        ),
        "delivery {} does not have the attempts that it counts",
    )
    _report(
        connection,
        books,
        select(deliveries.c.id)
        .outerjoin(attempts, and_(attempts.c.delivery_id == deliveries.c.id, attempts.c.number == deliveries.c.attempt))
        .where(or_(~func.coalesce(_fits(), literal(False)), deliveries.c.state.not_in([*State]))),
        "delivery {} does not agree with its last attempt",
    )
    running = in_lane(deliveries) & (deliveries.c.state == State.RUNNING.value)
    _report(
        connection,
        books,
        select(func.max(deliveries.c.id))
        .where(running)
        .group_by(deliveries.c.handler, deliveries.c.lane)
        .having(func.count() > 1),
        "delivery {} runs beside another of the same handler and key, although they are ordered",
    )
    return books


def _report(connection: Connection, books: Books, query: Select[str], sentence: str) -> None:
    found = connection.execute(query.limit(MOST_SHOWN + 1)).scalars().all()
    books.trouble.extend(sentence.format(one) for one in found[:MOST_SHOWN])
    if len(found) > MOST_SHOWN:
        books.trouble.append(f"… and more of the same: {sentence.format('…')}")
