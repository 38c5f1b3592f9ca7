"""Decide the instances of a page of an engine's history, and write them into the book."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.background.reconciliation import rules
from flowhooks.background.reconciliation.gaps import report_closed
from flowhooks.background.reconciliation.rules import Known, Rule
from flowhooks.failpoints import hit
from flowhooks.ledger import checksums, engine_book, history_gaps
from flowhooks.ledger.engine_book import Disposition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from sqlalchemy import Connection

    from flowhooks.background.reconciliation.context import Lease, RoundResult, SourceContext
    from flowhooks.background.reconciliation.rules import Again, Window
    from flowhooks.ledger.engine_book import BookRow
    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.engine import FinishedInstance

MAX_WRITTEN: Final = 200
"""Maximum number of instances that one transaction writes: callbacks wait for it."""


class PageWriter:
    """Decides and writes the instances of pages.

    Args:
        context: the source.
        result: counts them.
        lease: the lease of the round.
    """

    def __init__(self, context: SourceContext, result: RoundResult, lease: Lease) -> None:
        self._context = context
        self._result = result
        self._lease = lease

    def write(
        self,
        instances: Sequence[FinishedInstance],
        position: EnginePosition,
        *,
        again: Again,
        skew: int,
        read: Window | None = None,
    ) -> None:
        """Decide the instances of a page, and write what has changed.

        Args:
            instances: the instances.
            position: how far the history was read.
            again: which skipped instances are decided again.
            skew: the engine's clock minus ours, in microseconds.
            read: the interval of the history that is read with this page; None: not known.
        """
        with self._context.ledger.connection() as connection:
            undecided = self.undecided(connection, instances, again=again)
        if not undecided:
            self._lease.renew_if_old()
        for begin in range(0, len(undecided), MAX_WRITTEN):
            is_last = begin + MAX_WRITTEN >= len(undecided)
            rows = undecided[begin : begin + MAX_WRITTEN]
            self._write_rows(rows, position, skew=skew, read=read if is_last else None)
            hit("reconcile.page_committed")

    def _write_rows(
        self, undecided: Sequence[BookRow], position: EnginePosition, *, skew: int, read: Window | None
    ) -> None:
        """Decide instances and write their rows in one transaction."""
        context = self._context

        def write(transaction: WriteTransaction) -> tuple[list[BookRow], int]:
            closed = 0
            decided = self.decide(transaction.connection, undecided, position.since, skew=skew)
            engine_book.write(transaction, decided)
            if read is not None and read.until > position.read_until:
                engine_book.update_position(transaction, context.name, {"read_until": read.until})
                closed = history_gaps.trim(transaction, context.name, read, context.clock.now())
            hit("reconcile.page_written")
            return decided, closed

        decided, closed = self._lease.write(write)
        self.count(decided)
        report_closed(context.name, closed)

    def _to_rows(self, instances: Sequence[FinishedInstance]) -> list[BookRow]:
        now = self._context.clock.now()
        return [self._context.candidates.to_row(instance, now) for instance in instances]

    def undecided(
        self, connection: Connection, instances: Sequence[FinishedInstance], *, again: Again
    ) -> list[BookRow]:
        """Return the rows of the instances whose row must be written; count the others.

        Args:
            connection: any connection.
            instances: the instances.
            again: which skipped instances are decided again.
        """
        existing = self.known(connection, instances)
        # Most instances have an event. What else would become of one is not worth the time.
        with_event = {id_ for id_, known in existing.items() if known.disposition == Disposition.HAS_EVENT}
        unknown = []
        for instance in instances:
            if instance.id in with_event and rules.has_same_times(instance, existing[instance.id]):
                self.count([existing[instance.id]])
            else:
                unknown.append(instance)
        candidates = self._to_rows(unknown)
        renamed = {row.flow_instance_id for row in candidates} - {instance.id for instance in unknown}
        if renamed:
            existing |= self._rows(connection, renamed)
        undecided = []
        for row in candidates:
            known = existing.get(row.flow_instance_id)
            if known is not None and rules.is_decided(row, known, again=again):
                self.count([known])
            else:
                undecided.append(row)
        return undecided

    def known(self, connection: Connection, instances: Sequence[FinishedInstance]) -> dict[str, BookRow]:
        """Return the rows of instances by id. An id that no callback can have has another key in the book."""
        ids = [instance.id for instance in instances if rules.is_storable_id(instance.id)]
        return self._rows(connection, ids)

    def _rows(self, connection: Connection, ids: Collection[str]) -> dict[str, BookRow]:
        """Return the rows of instances by id. An instance that was declined last under a former name stays declined."""
        name, *former_names = self._context.names
        found = engine_book.rows(connection, name, ids)
        for former in former_names:
            for instance_id, row in engine_book.rows(connection, former, ids).items():
                own = found.get(instance_id)
                if row.rule == Rule.DECLINED and (own is None or own.changed_at < row.changed_at):
                    found[instance_id] = row
        return found

    def decide(self, connection: Connection, candidates: Sequence[BookRow], since: int, *, skew: int) -> list[BookRow]:
        """Return the rows of instances, by what the ledger knows of them now.

        Args:
            connection: any connection.
            candidates: the rows that they would have without events.
            since: the first contact, by the engine's clock.
            skew: the engine's clock minus ours, in microseconds.
        """
        context = self._context
        ids = [row.flow_instance_id for row in candidates]
        existing = self._rows(connection, ids)
        events = engine_book.events_of(connection, context.names, ids)
        digests = {
            checksums.instance_sha256(name, instance_id): instance_id for name in context.names for instance_id in ids
        }
        purged: dict[str, int] = {}
        for digest, received_at in engine_book.purged_at(connection, digests).items():
            purged[digests[digest]] = max(received_at, purged.get(digests[digest], 0))
        return [
            rules.decide(
                row,
                Known(
                    existing.get(row.flow_instance_id),
                    events.get(row.flow_instance_id, ()),
                    purged.get(row.flow_instance_id),
                ),
                since=since,
                skew=skew,
            )
            for row in candidates
        ]

    def count(self, rows: Iterable[BookRow]) -> None:
        """Count decided instances."""
        for row in rows:
            self._result.count(row)
