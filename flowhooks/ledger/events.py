"""Taking events in: each with its deliveries, once for each identity; it must not know who routes or runs them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sqlalchemy import Integer, Text, delete, exists, func, select, update

from flowhooks import schema
from flowhooks.failpoints import reached
from flowhooks.ledger import checksums, database, purge, webhook_ids
from flowhooks.ledger.attempts import Claim, Hands, begin
from flowhooks.ledger.conclusions import UnknownConclusions
from flowhooks.ledger.counters import COUNT, count
from flowhooks.ledger.deliveries import NEXT, Lane, NewDelivery, store
from flowhooks.ledger.ordering import line_up
from flowhooks.ledger.pauses import ALL_PAUSED, Pauses
from flowhooks.ledger.queries import Standing, standings
from flowhooks.ledger.tables import conflicts, events, purged
from flowhooks.model.delivery import Queued

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.deliveries import Place
    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.ledger.purge import Identity
    from flowhooks.model.delivery import Runner
    from flowhooks.model.event import DismissedBy, Event, EventState, ParkedBy

    _Known = tuple[str, str, str]  # the id, the digest and the state of what was there before

_JSON: Final = json.JSONEncoder(ensure_ascii=False)
MOST_CONFLICTS: Final = 10
"""Differing bodies kept beside one event: enough to see what happens, too few to fill the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that is to be stored, already routed.

    Attributes:
        event: the event.
        body: its body as received.
        digest: its body's digest.
        state: routed, parked or dismissed.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        no_match: why handlers that share its class or key do not get it, as JSON; None where that is not kept.
        unknown_conclusion: whether no handler of its class or key names its conclusion.
        route: handler id to the reason why.
        deliveries: (delivery id, handler id) for each of the route's handlers.
        absent: those of the handlers that are not loaded here: their deliveries wait for them.
        order_keys: the event's order key, for each of the handlers that is ordered.
        message: the id under which its call-back was signed; None if it was not.
        read: whether somebody reads the event's data once it is stored, and be it a plugin that is told of it.
        now: microseconds since 1970.
        body_sha256: of its body's bytes.
    """

    event: Event
    body: str
    digest: str
    state: EventState
    parked_by: ParkedBy | None = None
    dismissed_by: DismissedBy | None = None
    no_match: str | None = None
    unknown_conclusion: bool = False
    route: Mapping[str, str]
    deliveries: Sequence[tuple[str, str]]
    absent: frozenset[str] = frozenset()
    order_keys: Mapping[str, str] = field(default_factory=dict)
    message: str | None = None
    read: bool = True
    now: int
    body_sha256: str = field(init=False)

    def __post_init__(self) -> None:
        # Here, and not in the writer's thread, for which all others wait.
        object.__setattr__(self, "body_sha256", checksums.body_sha256(self.body))

    def fresh(self) -> Event:
        """The event for one delivery; its data read anew, so that nobody shares it, unless nobody else would."""
        if not self.read and len(self.deliveries) == 1:
            return self.event
        return replace(self.event, data=schema.parse(self.body.encode()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What became of a `NewEvent`.

    Attributes:
        event_id: the stored event's id: its own, or that of the one that was there before; `""` if it was misused.
        new: whether it was stored now.
        conflict: whether the one that was there before had other data.
        state: the stored event's state; `"purged"` if only its identity is left.
        standings: how the deliveries stood at that moment; empty for a new event, a conflict, or one that was purged.
        misused: whether nothing was stored, as the id under which it was signed was used before for another.
    """

    event_id: str
    new: bool
    conflict: bool = False
    state: str
    standings: tuple[Standing, ...] = field(default=())
    misused: bool = False


_MISUSED: Final = Accepted(event_id="", new=False, state="", misused=True)
_IDENTITY = database.rows("identities", flow_instance_id=Text, callback_class=Text, kind=Text, source=Text)
_INSERT_EVENTS: Final = database.Insertion(events, ignore=True, beside=ALL_PAUSED)
_TAKE_BACK: Final = delete(events).where(events.c.id.in_(database.keys("ids")))
_FIND: Final = select(
    events.c.id,
    events.c.digest,
    events.c.state,
    events.c.flow_instance_id,
    events.c.callback_class,
    events.c.kind,
    events.c.source,
).join(
    _IDENTITY,
    (events.c.flow_instance_id == _IDENTITY.c.flow_instance_id)
    & (events.c.callback_class == _IDENTITY.c.callback_class)
    & (events.c.kind == _IDENTITY.c.kind)
    & (events.c.source == _IDENTITY.c.source),
)
_FIND_AND_KEEP: Final = _FIND.with_for_update(read=True, key_share=True, of=events)
"""The same, and nobody purges them before this transaction has ended."""
_REPEATED_ROWS = database.rows("repeated", id=Text, times=Integer)
_REPEAT: Final = (
    update(events).where(events.c.id == _REPEATED_ROWS.c.id).values(repeats=events.c.repeats + _REPEATED_ROWS.c.times)
)
_COMMITTED: Final = partial(reached, "accept.committed")
_ACCEPTED: Final = COUNT.returning(exists(select(purged.c.identity)))
"""Counts, and says whether anything was ever purged. It comes after the insert, and sees what others have committed
meanwhile: an insert that waited until an event was gone must know that it was there."""


class Accepting:
    """The batch work of taking events in.

    Args:
        runner: is told, within the transaction, what may run.
        process: this process's id, under which it counts.
        hands: learns what has begun.
        limits: how many deliveries of a handler run at once, for those that are limited.
        shared: whether other processes write, too.
        pauses: which handlers are paused: all there is to know where no other process writes.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        process: str,
        hands: Hands,
        limits: Mapping[str, int] = MappingProxyType({}),
        shared: bool = False,
        pauses: Pauses | None = None,
    ) -> None:
        self._runner = runner
        self._hands = hands
        self.process = process
        self._limits = limits
        self._shared = shared
        self._pauses = pauses or Pauses()
        self._conclusions = UnknownConclusions()

    def __call__(self, transaction: Transaction, items: list[NewEvent]) -> list[Accepted]:
        """Store what is new, count what was there, keep what differs; one result for each item, in order."""
        reached("accept.begun")
        transaction.after_commit(_COMMITTED)
        if any(item.message is not None for item in items):
            misused = webhook_ids.remember(transaction, items)
            rest = iter(self._taken(transaction, [one for one, bad in zip(items, misused, strict=True) if not bad]))
            answers = [_MISUSED if bad else next(rest) for bad in misused]
        else:
            answers = self._taken(transaction, items)
        reached("accept.written")
        return answers

    def _taken(self, transaction: Transaction, items: list[NewEvent]) -> list[Accepted]:
        first: dict[Identity, NewEvent] = {}
        for item in items:
            first.setdefault(item.event.identity, item)
        stored: set[str] = set()
        known: dict[Identity, _Known] = {}
        left = first
        while left:
            # More than once where another process has purged one between two of these statements.
            fresh, gone = self._insert(transaction, list(left.values()))
            stored |= fresh
            known |= gone
            known |= {
                identity: (item.event.id, item.digest, item.state)
                for identity, item in left.items()
                if item.event.id in fresh
            }
            known |= _find(transaction.connection, [one for one in left if one not in known], keep=True)
            left = {identity: item for identity, item in left.items() if identity not in known}
            if left:
                known |= _gone(transaction.connection, list(left))
                left = {identity: item for identity, item in left.items() if identity not in known}
        answers = [self._answer(item, known[item.event.identity]) for item in items]
        if len(stored) < len(items):
            answers = self._repeated(transaction, items, answers)
        return answers

    def _insert(self, transaction: Transaction, items: Sequence[NewEvent]) -> tuple[set[str], dict[Identity, _Known]]:
        """Store what is new: the ids of that, and what would be new if it had not been there and purged."""
        connection = transaction.connection
        # Sorted, so that no two processes wait for each other.
        rows = [_event_row(item) for item in sorted(items, key=lambda item: item.event.identity)]
        ids, told = _INSERT_EVENTS.reading(connection, rows)
        stored = set(ids)
        if not stored:
            return stored, {}
        reached("accept.inserted")
        counted = {"name": "accepted", "process": self.process, "value": len(stored)}
        gone: dict[Identity, _Known] = {}
        if connection.execute(_ACCEPTED, counted).scalar_one():
            gone = _gone(connection, [item.event.identity for item in items if item.event.id in stored])
        if gone:
            back = {item.event.id for item in items if item.event.identity in gone}
            connection.execute(_TAKE_BACK, {"ids": json.dumps(sorted(back))})
            count(transaction, "accepted", self.process, -len(back))
            stored -= back
        if fresh := [item for item in items if item.event.id in stored]:
            # Others may have paused a handler just now: what is stored as running is begun by what the database says.
            self._store(transaction, fresh, frozenset(told or ()) if self._shared else self._pauses.handlers)
            if unknown := [item.event for item in fresh if item.unknown_conclusion]:
                self._conclusions.record(transaction, unknown, fresh[0].now)
        return stored, gone

    def _store(self, transaction: Transaction, items: Sequence[NewEvent], paused: Collection[str]) -> None:
        """Store the deliveries: as running those that the runner begins at once, the others as waiting."""
        places = _places(transaction, items)
        # What is held back is offered when its turn has come, and what is paused when it is resumed.
        queued = [
            Queued(delivery_id, handler, 0, ordered=delivery_id in places, fresh=item.fresh)
            for item in items
            for delivery_id, handler in item.deliveries
            if handler not in item.absent
            and handler not in paused
            and (delivery_id not in places or places[delivery_id].turn == NEXT)
        ]
        reserved = self._reserved(transaction, queued)
        store(
            transaction,
            [
                NewDelivery(
                    delivery_id,
                    item.event.id,
                    handler,
                    item.now,
                    absent=handler in item.absent,
                    begun=delivery_id in reserved,
                    place=places.get(delivery_id),
                )
                for item in items
                for delivery_id, handler in item.deliveries
            ],
        )
        begun = [one for one in queued if one.delivery_id in reserved]
        if begun:
            begin(transaction, [Claim(one, items[0].now) for one in begun], self._hands, process=self.process)
        if len(begun) < len(queued):
            rest = [one for one in queued if one.delivery_id not in reserved]
            self._runner.enqueue(transaction, rest, items[0].now)

    def _reserved(self, transaction: Transaction, queued: Sequence[Queued]) -> set[str]:
        """The ids of those that are stored as running."""
        # Whoever writes alone knows that nothing else is in a lane that it finds empty. How many run, nobody knows
        # before it is recorded how others have ended.
        may = [one for one in queued if not (one.ordered and self._shared) and one.handler not in self._limits]
        return {one.delivery_id for one in self._runner.reserve(transaction, may)} if may else set()

    @staticmethod
    def _answer(item: NewEvent, known: _Known) -> Accepted:
        event_id, digest, state = known
        # The id decides, not whether this transaction inserted it: an earlier COMMIT of the same batch may have
        # succeeded although its answer was lost.
        new = event_id == item.event.id and state != purge.PURGED
        return Accepted(event_id=event_id, new=new, conflict=digest != item.digest, state=state)

    def _repeated(self, transaction: Transaction, items: list[NewEvent], answers: list[Accepted]) -> list[Accepted]:
        connection = transaction.connection
        repeats: dict[str, int] = {}
        for item, answer in zip(items, answers, strict=True):
            if answer.state == purge.PURGED:
                continue  # there is nothing beside which anything could be kept
            if answer.conflict:
                _keep_conflict(transaction, answer.event_id, item)
            elif not answer.new:
                repeats[answer.event_id] = repeats.get(answer.event_id, 0) + 1
        if not repeats:
            return answers
        connection.execute(_REPEAT, {"repeated": json.dumps(sorted(repeats.items()))})
        standing = standings(connection, list(repeats))
        return [
            answer
            if answer.new or answer.conflict or answer.state == purge.PURGED
            else Accepted(
                event_id=answer.event_id,
                new=False,
                state=answer.state,
                standings=standing.get(answer.event_id, ()),
            )
            for answer in answers
        ]


def _places(transaction: Transaction, items: Sequence[NewEvent]) -> Mapping[str, Place]:
    """The places of the deliveries that are ordered, by id."""
    new = [
        (delivery_id, Lane(handler, item.order_keys[handler]))
        for item in items
        if item.order_keys
        for delivery_id, handler in item.deliveries
        if handler in item.order_keys
    ]
    return line_up(transaction, new) if new else {}


def is_stored(connection: Connection, identity: Identity) -> bool:
    """Whether there is an event of this identity, or was one that has been purged."""
    return bool(_find(connection, [identity]) or purge.gone(connection, [identity]))


def _find(connection: Connection, identities: list[Identity], *, keep: bool = False) -> dict[Identity, _Known]:
    if not identities:
        return {}
    wanted = json.dumps(
        [[instance, callback_class, kind, source] for source, kind, instance, callback_class in identities]
    )
    found = connection.execute(_FIND_AND_KEEP if keep else _FIND, {"identities": wanted})
    return {
        (row.source, row.kind, row.flow_instance_id, row.callback_class): (row.id, row.digest, row.state)
        for row in found
    }


def _gone(connection: Connection, identities: list[Identity]) -> dict[Identity, _Known]:
    return {
        identity: (one.event_id, one.digest, purge.PURGED)
        for identity, one in purge.gone(connection, identities).items()
    }


def _keep_conflict(transaction: Transaction, event_id: str, item: NewEvent) -> None:
    kept = transaction.connection.execute(
        select(func.count()).select_from(conflicts).where(conflicts.c.event_id == event_id)
    ).scalar_one()
    if kept < MOST_CONFLICTS:
        transaction.connection.execute(
            database.insert(conflicts)
            .values(
                event_id=event_id,
                digest=item.digest,
                body=item.body,
                received_at=item.now,
                body_sha256=item.body_sha256,
                row_sha256=checksums.row_sha256((event_id, item.digest, item.body_sha256, item.now)),
            )
            .on_conflict_do_nothing()
        )


def _event_row(item: NewEvent) -> dict[str, object]:
    event = item.event
    row: dict[str, object] = {
        "id": event.id,
        "source": event.source,
        "kind": event.kind,
        "flow_instance_id": event.flow_instance_id,
        "callback_class": event.callback_class or "",
        "business_key": event.business_key,
        "process_definition_id": event.process_definition_id,
        "process_definition_key": event.process_definition_key,
        "process_definition_version": event.process_definition_version,
        "body": item.body,
        "digest": item.digest,
        "state": item.state,
        "route": _JSON.encode(item.route),
        "route_size": len(item.route),
        "repeats": 0,
        "received_at": item.now,
        "conclusion": event.conclusion,
        "parked_by": item.parked_by,
        "dismissed_by": item.dismissed_by,
        "no_match": item.no_match,
        "body_sha256": item.body_sha256,
    }
    row["row_sha256"] = checksums.row_sha256(row[name] for name in checksums.EVENT_COLUMNS)
    return row
