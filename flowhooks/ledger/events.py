"""Acceptance of events: store each event once for its identity, together with its deliveries."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, Text, delete, exists, func, select, type_coerce, update

from flowhooks.failpoints import hit
from flowhooks.ledger import (
    checksums,
    corrections,
    database,
    engine_locks,
    event_fields,
    identities,
    ignored_requests,
    instance_events,
    late_callbacks,
    purge,
    webhook_ids,
)
from flowhooks.ledger.accept_results import (
    WEBHOOK_ID_REUSED,
    AcceptResult,
    EventBatch,
    events_of,
    read_repeated,
    reject_whole_batches,
    results_of,
)
from flowhooks.ledger.attempt_starts import AttemptStart, first_trigger, start_attempts
from flowhooks.ledger.conclusions import UnknownConclusions
from flowhooks.ledger.counters import INCREMENT, increment
from flowhooks.ledger.deliveries import NEXT, NewDelivery, store
from flowhooks.ledger.new_event import event_row, without_route
from flowhooks.ledger.ordering import assign_positions
from flowhooks.ledger.pauses import ALL_PAUSED, PausedHandlers
from flowhooks.ledger.tables import conflicts, counters, events, purged_identities
from flowhooks.ledger.transaction import AcceptedCounter, OrderGroup
from flowhooks.model.event import Origin
from flowhooks.model.ready_delivery import ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.attempt_starts import InFlightAttempts
    from flowhooks.ledger.deliveries import Position
    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.identities import Existing
    from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
    from flowhooks.ledger.new_event import NewEvent
    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.ledger.transaction import WriteTransaction

# Enough to see what happens, too few to fill the disk.
MAX_CONFLICTS: Final = 10
"""Maximum number of conflicting bodies stored for one event."""
_INSERT_EVENTS: Final = database.BulkInsert(events, ignore_conflicts=True, also_read=ALL_PAUSED)
_DELETE_REINSERTED: Final = delete(events).where(events.c.id.in_(database.string_array("ids")))
_REPEATED_ROWS = database.row_array("repeated", id=Text, times=Integer)
_REPEAT: Final = (
    update(events)
    .where(events.c.id == _REPEATED_ROWS.c.id)
    .values(repeats=events.c.repeats + _REPEATED_ROWS.c.times)
    .returning(events.c.id, events.c.state, events.c.route_size)
)
_STATE_OF: Final = select(events.c.id, events.c.state, events.c.route_size)
_COMMITTED: Final = partial(hit, "accept.committed")
# Executed after the insert, so that it sees commits of others: an insert that waited for the purge of an event must
# know that this event existed.
_COUNT_ACCEPTED: Final = database.DriverStatement(
    INCREMENT.returning(type_coerce(exists(select(purged_identities.c.identity_sha256)), Integer), counters.c.value),
    columns=("name", "process", "value"),
)
"""Increment the counter, and return whether any event was ever purged, and the counter."""


class EventInserter:
    """The batch work function that accepts events.

    Args:
        runner: receives, within the transaction, the deliveries that may run.
        process: this process's id, for the counters.
        in_flight: gets the started attempts.
        limits: the limits of each limited handler, by its id.
        shared: whether other processes write as well.
        pauses: the paused handlers; used only if no other process writes.
    """

    def __init__(
        self,
        *,
        runner: DeliveryQueue,
        process: str,
        in_flight: InFlightAttempts,
        limits: Mapping[str, StartLimits] = MappingProxyType({}),
        shared: bool = False,
        pauses: PausedHandlers | None = None,
    ) -> None:
        self._runner = runner
        self._in_flight = in_flight
        self.process = process
        self._limits = limits
        self._shared = shared
        self._pauses = pauses or PausedHandlers()
        self._conclusions = UnknownConclusions()

    def __call__(self, transaction: WriteTransaction, items: list[NewEvent | EventBatch]) -> list[Any]:
        """Store new events, count repeated ones, store conflicting bodies.

        Returns:
            One `AcceptResult` for each event, in order; for a batch, a list of them.

        Raises:
            BatchRolledBack: an event of a batch repeats an event that cannot be read.
        """
        hit("accept.begun")
        transaction.after_commit(_COMMITTED)
        accepted = events_of(items)
        rejected = [False] * len(accepted)
        accept = self._accept
        if any(item.locks_instance for item in accepted):
            locked = [
                instance for item in accepted if item.locks_instance for instance in instance_events.instances_of(item)
            ]
            engine_locks.lock(transaction.connection, locked)
            hit("accept.locked")
            accept = self._accept_with_instances
        if any(item.webhook_id is not None for item in accepted):
            rejected = reject_whole_batches(items, webhook_ids.record_ids(transaction, accepted))
            accepted = [item for item, is_rejected in zip(accepted, rejected, strict=True) if not is_rejected]
        new_results = iter(accept(transaction, accepted) if accepted else ())
        by_event = [WEBHOOK_ID_REUSED if is_rejected else next(new_results) for is_rejected in rejected]
        results = list(results_of(items, by_event))
        ignored_requests.record(transaction, _ignored(items, results))
        hit("accept.written")
        return results

    def _accept(self, transaction: WriteTransaction, items: list[NewEvent]) -> list[AcceptResult]:
        results, n_stored = self._insert_new(transaction, items)
        return self._record_repeats(transaction, items, results) if n_stored < len(items) else results

    def _accept_with_instances(self, transaction: WriteTransaction, items: list[NewEvent]) -> list[AcceptResult]:
        """Store items of which some have a locked instance.

        Callbacks come first: an instance that is taken in at the same time finds the event of its callback.
        """
        results: dict[str, AcceptResult] = {}  # by the event id of the item
        callbacks = [item for item in items if item.event.origin != Origin.RECONCILED]
        if locked := [item for item in callbacks if item.locks_instance]:
            results |= self._accept_late(transaction, locked)
        if renamed := [item for item in callbacks if item.former_names and item.event.id not in results]:
            results |= self._repeat_former(transaction, renamed)
        if others := [item for item in callbacks if item.event.id not in results]:
            accepted = self._accept(transaction, others)
            results |= {item.event.id: result for item, result in zip(others, accepted, strict=True)}
        if finished := [item for item in items if item.event.origin == Origin.RECONCILED]:
            results |= self._take_in(transaction, finished)
        linked = [
            (item, results[item.event.id].event_id)
            for item in items
            if item.locks_instance and results[item.event.id].state != purge.PURGED
        ]
        instance_events.link(transaction.connection, linked, items[0].now)
        return [results[item.event.id] for item in items]

    def _accept_late(self, transaction: WriteTransaction, items: list[NewEvent]) -> dict[str, AcceptResult]:
        """Accept the late callbacks among the items; return their results by the event ids of the items."""
        connection = transaction.connection
        reconciled = instance_events.find(connection, items, reconciled=True)
        late = [item for item in items if item.event.id in reconciled]
        if not late:
            return {}
        # A repeat of another event of the instance, such as one of an earlier instance with this id, is not late.
        keys = {item.event.id: [item.identity_sha256, *_former_identities(item)] for item in late}
        known = identities.find_all(connection, {key for of_item in keys.values() for key in of_item})
        results = {}
        # The events are locked in the order of their ids, as by all other writers, so that none of them deadlock.
        for item in sorted(late, key=lambda item: reconciled[item.event.id].event_id):
            found = reconciled[item.event.id]
            same = next((known[key] for key in keys[item.event.id] if key in known), None)
            if same is not None and (
                found.state is None or (same[0] != found.event_id and _is_repeat(connection, same, item))
            ):
                continue
            row = None if found.state is None else late_callbacks.lock_event(connection, found.event_id)
            if row is None:
                conflict = AcceptResult(event_id=found.event_id, new=False, conflict=True, state=purge.PURGED)
                results[item.event.id] = self._record_repeats(transaction, [item], [conflict])[0]
            elif late_callbacks.contradicts(row, item):
                conflict = AcceptResult(event_id=row.id, new=False, conflict=True, state=row.state)
                results[item.event.id] = self._record_repeats(transaction, [item], [conflict])[0]
            else:
                results[item.event.id] = self._add_late(transaction, row, item)
        return results

    def _repeat_former(self, transaction: WriteTransaction, items: list[NewEvent]) -> dict[str, AcceptResult]:
        """Return the results of items that repeat an event under a former name of their source, by event id."""
        keys = {item.event.id: _former_identities(item) for item in items}
        digests = {key for of_item in keys.values() for key in of_item}
        existing = identities.find(transaction.connection, digests, lock=True)
        # In this order, because an event may be purged until it is locked.
        existing = identities.find_purged(transaction.connection, digests) | existing
        repeats, results = [], []
        for item in items:
            found = next((existing[key] for key in keys[item.event.id] if key in existing), None)
            if found is not None:
                repeats.append(item)
                results.append(self._to_result(item, found))
        results = self._record_repeats(transaction, repeats, results)
        return {item.event.id: result for item, result in zip(repeats, results, strict=True)}

    def _add_late(self, transaction: WriteTransaction, row: Any, item: NewEvent) -> AcceptResult:
        connection = transaction.connection
        identity = checksums.identity_sha256(late_callbacks.replaced_identity(row, item), row.instance_started_at)
        same = identities.find_all(connection, {identity}).get(identity)
        is_replaced = late_callbacks.add(
            transaction, row, item, may_replace=same is None or same[0] == row.id, runner=self._runner
        )
        if is_replaced and item.unknown_conclusion:
            self._conclusions.record(transaction, [replace(item.event, id=row.id)], item.now)
        changed = connection.execute(_STATE_OF.where(events.c.id == row.id)).all()
        return read_repeated(connection, changed)[row.id]

    def _take_in(self, transaction: WriteTransaction, items: list[NewEvent]) -> dict[str, AcceptResult]:
        """Store finished instances that have no event; return the results by the event ids of the items."""
        found = instance_events.find(transaction.connection, items, reconciled=False)
        results, missing = {}, []
        for item in items:
            event = found.get(item.event.id)
            if event is None:
                missing.append(item)
            elif instance_events.is_older(item, event):
                reused = replace(item, instance_started_at=item.started_at)
                missing.append(reused if instance_events.is_certainly_older(item, event) else without_route(reused))
            else:
                new = event.event_id == item.event.id  # as in `_to_result`
                results[item.event.id] = AcceptResult(
                    event_id=event.event_id,
                    new=new,
                    state=event.state or purge.PURGED,
                    instance_id_reused=new and event.has_reused_id,
                )
        if missing:
            stored, _ = self._insert_new(transaction, missing)
            for item, result in zip(missing, stored, strict=True):
                is_reused = result.new and item.instance_started_at is not None
                results[item.event.id] = result._replace(conflict=False, instance_id_reused=is_reused)
            hit("take_in.written")
        return results

    def _insert_new(self, transaction: WriteTransaction, items: list[NewEvent]) -> tuple[list[AcceptResult], int]:
        """Store the new ones of the items; return the result of each item, and the number of stored events."""
        first: dict[str, NewEvent] = {}  # by the digest of the identity
        for item in items:
            first.setdefault(item.identity_sha256, item)
        stored: set[str] = set()
        existing: dict[str, Existing] = {}
        remaining = first
        while remaining:
            # Repeated if another process purges one of the events between two of these statements.
            new_ids, purged_before = self._insert(transaction, list(remaining.values()))
            stored |= new_ids
            existing |= purged_before
            existing |= {
                identity: (item.event.id, item.digest, item.state)
                for identity, item in remaining.items()
                if item.event.id in new_ids
            }
            remaining = {identity: item for identity, item in remaining.items() if identity not in existing}
            if remaining:
                existing |= identities.find(transaction.connection, remaining, lock=True)
                remaining = {identity: item for identity, item in remaining.items() if identity not in existing}
            if remaining:
                existing |= identities.find_purged(transaction.connection, remaining)
                remaining = {identity: item for identity, item in remaining.items() if identity not in existing}
        return [self._to_result(item, existing[item.identity_sha256]) for item in items], len(stored)

    def _insert(self, transaction: WriteTransaction, items: Sequence[NewEvent]) -> tuple[set[str], dict[str, Existing]]:
        """Insert new events; return the ids of those, and the purged ones among them."""
        connection = transaction.connection
        # Sorted, so that two processes do not deadlock.
        rows = [event_row(item) for item in sorted(items, key=attrgetter("identity_sha256"))]
        ids, paused = _INSERT_EVENTS.insert_and_read(connection, rows)
        stored = set(ids)
        if not stored:
            return stored, {}
        hit("accept.inserted")
        counted = {"name": "accepted", "process": self.process, "value": len(stored)}
        purged_before: dict[str, Existing] = {}
        ((purged_any, total),) = _COUNT_ACCEPTED(connection, counted)
        transaction.accepted = AcceptedCounter(self.process, total)
        if purged_any:
            new_digests = [item.identity_sha256 for item in items if item.event.id in stored]
            purged_before = identities.find_purged(connection, new_digests)
        if purged_before:
            deleted = {item.event.id for item in items if item.identity_sha256 in purged_before}
            connection.execute(_DELETE_REINSERTED, {"ids": json.dumps(sorted(deleted))})
            increment(transaction, "accepted", self.process, -len(deleted))
            transaction.accepted = AcceptedCounter(self.process, total - len(deleted))
            stored -= deleted
        if new_items := [item for item in items if item.event.id in stored]:
            # Another process may have paused a handler just now, so on a shared ledger the database decides which
            # attempts start.
            self._store(transaction, new_items, frozenset(paused or ()) if self._shared else self._pauses.handlers)
            if indexed := [(item.event.id, item.indexed_values) for item in new_items if item.indexed_values]:
                event_fields.store(transaction, indexed)
            if unknown := [item.event for item in new_items if item.unknown_conclusion]:
                self._conclusions.record(transaction, unknown, new_items[0].now)
        return stored, purged_before

    def _store(self, transaction: WriteTransaction, items: Sequence[NewEvent], paused: Collection[str]) -> None:
        """Store the deliveries: *running* if the runner reserved a thread, otherwise *waiting*."""
        positions = _assign_positions(transaction, items)
        # A blocked delivery is enqueued when it becomes first of its order group, a paused one when its handler is
        # resumed.
        queued = [
            ReadyDelivery(delivery_id, handler, 0, ordered=delivery_id in positions, load_event=item.load)
            for item in items
            for delivery_id, handler in item.deliveries
            if handler not in item.missing_handlers
            and handler not in paused
            and (delivery_id not in positions or positions[delivery_id].number == NEXT)
        ]
        claimed_ids = self._claim_immediately(transaction, queued)
        store(
            transaction,
            [
                NewDelivery(
                    delivery_id,
                    item.event.id,
                    handler,
                    item.now,
                    handler_missing=handler in item.missing_handlers,
                    started=delivery_id in claimed_ids,
                    position=positions.get(delivery_id),
                )
                for item in items
                for delivery_id, handler in item.deliveries
            ],
        )
        if claimed_ids:
            starts = [
                AttemptStart(delivery_id, handler, 1, items[0].now, first_trigger(item.event.origin))
                for item in items
                for delivery_id, handler in item.deliveries
                if delivery_id in claimed_ids
            ]
            start_attempts(transaction, starts, self._in_flight, process=self.process)
        if len(claimed_ids) < len(queued):
            unclaimed = [ready for ready in queued if ready.delivery_id not in claimed_ids]
            self._runner.enqueue(transaction, unclaimed, items[0].now)

    def _claim_immediately(self, transaction: WriteTransaction, queued: Sequence[ReadyDelivery]) -> set[str]:
        """Return the ids of the deliveries that are stored as *running*."""
        # Ordered deliveries start at once only if no other process writes, because another one could add to the same
        # order group. Deliveries of limited handlers never do: the number of running ones is not known before the
        # results of others are recorded, and a rate is counted when a delivery is claimed.
        eligible = [
            ready for ready in queued if not (ready.ordered and self._shared) and ready.handler not in self._limits
        ]
        return {ready.delivery_id for ready in self._runner.reserve(transaction, eligible)} if eligible else set()

    @staticmethod
    def _to_result(item: NewEvent, existing: Existing) -> AcceptResult:
        event_id, digest, state = existing
        # The id decides, not whether this transaction inserted the event: an earlier COMMIT of the same batch may have
        # succeeded although its reply was lost.
        new = event_id == item.event.id and state != purge.PURGED
        return AcceptResult(event_id=event_id, new=new, conflict=digest != item.digest, state=state)

    def _record_repeats(
        self, transaction: WriteTransaction, items: list[NewEvent], results: list[AcceptResult]
    ) -> list[AcceptResult]:
        connection = transaction.connection
        results = _find_corrections(connection, items, results)
        repeats: dict[str, int] = {}
        for item, result in zip(items, results, strict=True):
            if result.state == purge.PURGED:
                continue  # no event is left to which anything could be added
            if result.conflict:
                _store_conflict(transaction, result.event_id, item)
            elif not result.new:
                repeats[result.event_id] = repeats.get(result.event_id, 0) + 1
        if not repeats:
            return results
        rows = connection.execute(_REPEAT, {"repeated": json.dumps(sorted(repeats.items()))}).all()
        existing = read_repeated(connection, rows)
        return [
            result
            if result.new or result.conflict or result.state == purge.PURGED
            else existing.get(result.event_id, result._replace(damage="it cannot be found by its id"))
            for result in results
        ]


def _ignored(items: Sequence[NewEvent | EventBatch], results: Sequence[Any]) -> list[IgnoredRequestRecord]:
    """Return the ignored requests of the batches of which anything is stored."""
    return [
        record
        for item, result in zip(items, results, strict=True)
        if isinstance(item, EventBatch) and WEBHOOK_ID_REUSED not in result
        for record in item.ignored
    ]


def _is_repeat(connection: Connection, existing: Existing, item: NewEvent) -> bool:
    """Return whether a callback repeats an event with its identity, or a correction of that event."""
    event_id, digest, _ = existing
    key = checksums.correction_sha256(event_id, item.digest)
    return digest == item.digest or bool(corrections.find(connection, {key}))


def _find_corrections(
    connection: Connection, items: Sequence[NewEvent], results: list[AcceptResult]
) -> list[AcceptResult]:
    """Replace conflicts whose body an operator has accepted by repeats of its correction."""
    if not any(result.conflict for result in results):
        return results
    keys = [
        checksums.correction_sha256(result.event_id, item.digest) if result.conflict else ""
        for item, result in zip(items, results, strict=True)
    ]
    found = corrections.find(connection, {key for key in keys if key})
    return [
        AcceptResult(event_id=found[key][0], new=False, state=found[key][2]) if key in found else result
        for key, result in zip(keys, results, strict=True)
    ]


def _assign_positions(transaction: WriteTransaction, items: Sequence[NewEvent]) -> Mapping[str, Position]:
    new = [
        (delivery_id, OrderGroup(handler, item.order_keys[handler]))
        for item in items
        if item.order_keys
        for delivery_id, handler in item.deliveries
        if handler in item.order_keys
    ]
    return assign_positions(transaction, new) if new else {}


def _former_identities(item: NewEvent) -> list[str]:
    _, *others = item.event.identity
    return [checksums.texts_sha256((name, *others)) for name in item.former_names]


def _store_conflict(transaction: WriteTransaction, event_id: str, item: NewEvent) -> None:
    n_conflicts = transaction.connection.execute(
        select(func.count()).select_from(conflicts).where(conflicts.c.event_id == event_id)
    ).scalar_one()
    if n_conflicts < MAX_CONFLICTS:
        transaction.connection.execute(
            database.insert(conflicts)
            .values(
                event_id=event_id,
                digest=item.digest,
                body=item.body,
                received_at=item.now,
                body_sha256=item.body_sha256,
                row_sha256=checksums.row_sha256((event_id, item.digest, item.body_sha256, item.now, item.event.kind)),
                kind=item.event.kind,
            )
            .on_conflict_do_nothing()
        )
