"""The queue of the runner `procrastinate`: jobs in PostgreSQL, stored in the transactions that make deliveries due.

A job says that a handler has work; it names no delivery. The worker that takes it marks as many due deliveries as it
has free slots, so few jobs are enough for many deliveries, and a lost, duplicate or late job is harmless.

Procrastinate's retries, locks and results are not used. Retries are stored in the ledger.
"""

from __future__ import annotations

from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import procrastinate
from procrastinate.exceptions import ConnectorException

from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.ledger.attempts import StartedDelivery

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime
    from flowhooks.execution.runners.handler_slots import HandlerSlots
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.ready_delivery import ReadyDelivery

TASK: Final = "flowhooks:work"
"""Name of the jobs' task."""
# A channel name of PostgreSQL's NOTIFY has at most 63 bytes, of which Procrastinate uses 23.
MAX_QUEUE_NAME_BYTES: Final = 40
"""Maximum bytes of a queue name."""
MAX_WAITING_JOBS: Final = 8
"""Maximum number of jobs of one handler that wait for a worker: so many idle workers start at once."""
WORKER_DEAD_AFTER_SECONDS: Final = 30.0
"""Seconds without a heartbeat after which Procrastinate's record of a worker is removed."""

_WITH_FEW_JOBS: Final = """
SELECT new_jobs.handler FROM unnest(%s::text[], %s::text[]) AS new_jobs (handler, queue)
WHERE NOT EXISTS (SELECT FROM handlers WHERE handlers.id = new_jobs.handler AND handlers.paused_at IS NOT NULL)
AND (
    SELECT count(*) FROM (
        SELECT FROM procrastinate_jobs
        WHERE queue_name = new_jobs.queue AND status = 'todo' AND scheduled_at IS NULL LIMIT %s
    ) AS waiting
) < %s
"""
"""Select the handlers, out of those given, that are not paused and have fewer waiting jobs than a number."""
_SCHEDULED: Final = """
SELECT due.at, EXISTS (
    SELECT FROM procrastinate_jobs WHERE queue_name = %s AND status = 'todo' AND scheduled_at = due.at
)
FROM (
    SELECT date_trunc('second', clock_timestamp() + %s * interval '1 microsecond') + interval '1 second' AS at
) AS due
"""
"""Select the end of the second in which a retry is due, and whether the handler has a job for it. Procrastinate
compares due times with the database's clock, which may differ from this machine's."""
_DELETE_JOBS: Final = "DELETE FROM procrastinate_jobs WHERE id = ANY(%s)"
_DELETE_DEAD_JOBS: Final = """
DELETE FROM procrastinate_jobs WHERE id IN (
    SELECT job.id FROM procrastinate_jobs job LEFT JOIN procrastinate_workers worker ON worker.id = job.worker_id
    WHERE job.status = 'doing'
    AND (job.worker_id IS NULL OR worker.last_heartbeat < now() - %s * interval '1 second')
    FOR UPDATE OF job SKIP LOCKED
)
"""
_DELETE_DEAD_WORKERS: Final = """
DELETE FROM procrastinate_workers WHERE id IN (
    SELECT id FROM procrastinate_workers worker WHERE last_heartbeat < now() - %s * interval '1 second'
    AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE worker_id = worker.id AND status = 'doing')
    FOR UPDATE SKIP LOCKED
)
"""
"""Delete workers without a heartbeat, except those that still have jobs: deleting these would wait for row locks."""


def queue_of(handler: str) -> str:
    """Return a handler's queue name: its id, or a hash of the id if it is longer than `MAX_QUEUE_NAME_BYTES`."""
    return handler if len(handler.encode()) <= MAX_QUEUE_NAME_BYTES else sha256(handler.encode()).hexdigest()[:40]


class JobQueue:
    """The part of the runner that the ledger uses: it knows neither the ledger nor the workers.

    Args:
        slots: the slots of this process.
        runtime: how this process runs each handler. For a handler that no process runs, no job is stored.
        clock: current time.
    """

    def __init__(self, slots: HandlerSlots, runtime: HandlerRuntime, clock: Clock) -> None:
        self.slots = slots
        self._clock = clock
        self._runtime = runtime
        # Never opened: jobs are stored through the ledger's own connection.
        self._app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
        self.is_running = False

    def reserve(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        """Reserve a slot for each of these deliveries while there are any; return the deliveries that got one."""
        if not self.is_running:
            return []
        now = self._clock.now()
        reserved = [
            queued
            for queued in deliveries
            if not queued.probe and self._runtime.may_start(queued.handler, now) and self.slots.take_one(queued.handler)
        ]
        if reserved:
            transaction.after_commit(partial(self.slots.start, [StartedDelivery(queued, None) for queued in reserved]))
            transaction.after_rollback(partial(self._cancel, reserved))
        return reserved

    def _cancel(self, reserved: Iterable[ReadyDelivery]) -> None:
        for queued in reserved:
            self.slots.release(queued.handler, 1)

    def enqueue(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Store a job in the same transaction for each handler of these deliveries.

        Raises:
            Unavailable: the database did not accept the jobs.
        """
        self.defer(
            transaction,
            {queued.handler for queued in deliveries if self._runtime.runs_somewhere(queued.handler)},
            not_before,
        )

    def defer(
        self,
        transaction: WriteTransaction,
        handlers: Collection[str],
        not_before: int,
        *,
        most: int = MAX_WAITING_JOBS,
    ) -> None:
        """Store a job for each handler that is not paused and has fewer than `most` waiting ones.

        Raises:
            Unavailable: the database did not accept the jobs.
        """
        wait = not_before - self._clock.now()
        second = not_before // SECOND if wait > 0 else 0
        new_jobs = {(handler, second) for handler in handlers} - transaction.deferred_jobs
        if not new_jobs:
            return
        transaction.deferred_jobs |= new_jobs
        names = sorted(handler for handler, _ in new_jobs)
        try:
            if wait > 0:
                self._schedule(transaction, names, wait)
            else:
                self._defer_now(transaction, names, most)
        except ConnectorException as error:
            raise Unavailable("ledger_down") from error

    def _defer_now(self, transaction: WriteTransaction, handlers: list[str], most: int) -> None:
        parameters = (handlers, [queue_of(handler) for handler in handlers], most, most)
        connection = transaction.connection.connection.driver_connection
        for (handler,) in transaction.connection.exec_driver_sql(_WITH_FEW_JOBS, parameters).all():
            task = self._app.configure_task(TASK, queue=queue_of(handler), connection=connection)
            task.defer(handler=handler)

    def _schedule(self, transaction: WriteTransaction, handlers: list[str], wait: int) -> None:
        connection = transaction.connection.connection.driver_connection
        for handler in handlers:
            queue = queue_of(handler)
            due_at, exists = transaction.connection.exec_driver_sql(_SCHEDULED, (queue, wait)).one()
            if not exists:
                task = self._app.configure_task(TASK, queue=queue, schedule_at=due_at, connection=connection)
                task.defer(handler=handler)

    @staticmethod
    def delete(transaction: WriteTransaction, job_ids: Collection[int]) -> None:
        """Delete jobs whose work is done in the same transaction."""
        if job_ids:
            transaction.connection.exec_driver_sql(_DELETE_JOBS, (list(job_ids),))

    def sweep(self, transaction: WriteTransaction) -> None:
        """Delete the jobs and records of expired workers; the ledger still has the deliveries.

        Rows that a worker which stopped responding has locked are skipped. Waiting for them would block all writers and
        fail in the end.
        """
        for statement in (_DELETE_DEAD_JOBS, _DELETE_DEAD_WORKERS):
            transaction.connection.exec_driver_sql(statement, (WORKER_DEAD_AFTER_SECONDS,))
