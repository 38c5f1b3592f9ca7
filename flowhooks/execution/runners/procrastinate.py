"""The runner `procrastinate`: jobs in PostgreSQL, stored with the deliveries and run by any machine.

A job is only a hint. It names a delivery and an attempt, and the worker that takes the job claims that attempt first.
So a lost, duplicate or late job is harmless. The sweep creates missing jobs.

Procrastinate's retries, locks and results are not used. A job is deleted whatever its result; retries are stored in the
ledger.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import procrastinate
import psycopg_pool
import structlog
from procrastinate.exceptions import ConnectorException
from psycopg.conninfo import conninfo_to_dict

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError, Unavailable
from flowhooks.failpoints import hit
from flowhooks.ledger.database import postgresql_timeouts
from flowhooks.ledger.database.engines import IDLE_SECONDS
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime
    from flowhooks.execution.runners.runner import ExecuteFn
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

TASK: Final = "flowhooks:deliver"
# A channel name of PostgreSQL's NOTIFY has at most 63 bytes, of which Procrastinate uses 23.
MAX_QUEUE_NAME_BYTES: Final = 40
"""Maximum bytes of a queue name."""
NO_QUEUE: Final = "-"
"""A queue that is always empty, because an empty list means all queues to Procrastinate."""
POLL_INTERVAL: Final = 0.5
"""Seconds between polls for jobs that have become due, or whose notification was missed."""
STOP_POLL_INTERVAL: Final = 0.1
"""Seconds between checks whether the runner must stop."""
SWEEP_INTERVAL: Final = 5.0
"""Seconds between sweeps for deliveries that have no job."""
FAST_SWEEP_INTERVAL: Final = 0.5
"""Seconds until the next sweep after a full one."""
LOST_JOB_THRESHOLD_SECONDS: Final = 5.0
"""Seconds that a delivery must be overdue before the sweep assumes that its job was lost."""
SWEEP_BATCH_SIZE: Final = 1_000
"""Maximum jobs that one sweep creates for one handler."""
WORKER_DEAD_AFTER_SECONDS: Final = 30.0
"""Seconds without a heartbeat after which Procrastinate's record of a worker is removed."""
# The pool's own default is 30 s, of which up to 8 s pass between two tries.
POOL_OPEN_TIMEOUT: Final = 6.0
"""Seconds in which the pool must open its first connection."""
RETRY_DELAYS: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds until a failed worker is restarted. The last delay repeats."""

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
_SELECT_JOBS: Final = """
SELECT args ->> 'delivery_id', (args ->> 'attempt')::int, (args -> 'probe') IS NOT NULL FROM procrastinate_jobs
WHERE args ->> 'delivery_id' = ANY(%s) AND status = 'todo'
AND (scheduled_at IS NULL OR scheduled_at < now() + interval '1 second')
"""
"""Select the deliveries, out of those given, that have a job which is due within a second.

A job that a worker has taken does not count: an outage may have left it in that state forever, and a second job is
harmless.
"""
_DATABASE_TIME_IN: Final = "SELECT clock_timestamp() + %s * interval '1 microsecond'"

_ON_SWEEP_COMMITTED: Final = partial(hit, "sweep.committed")

log = structlog.get_logger(__name__)


def queue_of(handler: str) -> str:
    """Return a handler's queue name: its id, or a hash of the id if it is longer than `MAX_QUEUE_NAME_BYTES`."""
    return handler if len(handler.encode()) <= MAX_QUEUE_NAME_BYTES else sha256(handler.encode()).hexdigest()[:40]


class _ConnectionPool(psycopg_pool.AsyncConnectionPool[Any]):
    """A connection pool whose `open` waits at most `POOL_OPEN_TIMEOUT`."""

    async def open(self, wait: bool = False, timeout: float = POOL_OPEN_TIMEOUT) -> None:  # noqa: ASYNC109 (as the pool's own)
        """Open the pool; wait at most `POOL_OPEN_TIMEOUT`, because the caller retries."""
        await super().open(wait, min(timeout, POOL_OPEN_TIMEOUT))


class ProcrastinateRunner:
    """Runs the deliveries that jobs name; each handler has a queue.

    Args:
        url: the ledger's database.
        threads: number of threads. One handler uses at most half of them, but at least one.
        runtime: how this process runs each handler.
        clock: current time.
        handlers: ids of the handlers whose deliveries this process runs.
    """

    def __init__(
        self,
        url: str,
        *,
        threads: int,
        runtime: HandlerRuntime,
        clock: Clock,
        handlers: Collection[str],
    ) -> None:
        self._url = url
        self._threads = threads
        self._max_per_handler = max(1, threads // 2)
        self._clock = clock
        self._handlers = frozenset(handlers)
        limits = {handler: runtime.limit(handler) for handler in self._handlers}
        self._handler_limits = {
            handler: min(self._max_per_handler, limit_of_one)
            for handler, limit_of_one in limits.items()
            if limit_of_one is not None
        }
        # Never opened: jobs are stored through the ledger's own connection.
        self._enqueuing_app = procrastinate.App(connector=procrastinate.SyncPsycopgConnector())
        self._paused = runtime.paused
        self._paused_handlers: frozenset[str] = frozenset()
        self._running: Counter[str] = Counter()
        self._queues: list[str] = []
        self._has_more = False
        self._wakeup = threading.Event()
        self._has_failed = threading.Event()
        self._last_error: str | None = None

    def connect(self, ledger: Ledger) -> None:
        """Use this ledger, which was built after the runner."""
        self._ledger = ledger

    def reserve(self, _transaction: WriteTransaction, _deliveries: Sequence[ReadyDelivery]) -> list[ReadyDelivery]:
        """Reserve nothing, because any machine may run the deliveries that are stored now."""
        return []

    def enqueue(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Store a job for each delivery in the same transaction.

        Raises:
            Unavailable: the database did not accept the jobs.
        """
        due_at, wait = None, not_before - self._clock.now()
        if wait > 0:
            # Procrastinate compares due times with the database's clock, which may differ from this machine's.
            due_at = transaction.connection.exec_driver_sql(_DATABASE_TIME_IN, (wait,)).scalar_one()
        by_queue: dict[str, list[ReadyDelivery]] = {}
        for queued in deliveries:
            by_queue.setdefault(queue_of(queued.handler), []).append(queued)
        connection = transaction.connection.connection.driver_connection
        try:
            for queue, of_queue in sorted(by_queue.items()):
                task = self._enqueuing_app.configure_task(TASK, queue=queue, schedule_at=due_at, connection=connection)
                task.batch_defer(*(_arguments(queued) for queued in of_queue))
        except ConnectorException as error:
            raise Unavailable("ledger_down") from error

    def run(self, execute: ExecuteFn, stop: threading.Event) -> None:
        """Run the deliveries that jobs name until `stop` is set; return when no delivery is running any more."""
        # Procrastinate logs every job twice, and a traceback at each retry during an outage. Errors are logged below.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
        sweeping = threading.Thread(target=self._sweep_loop, args=(stop,), name="sweeper", daemon=True)
        sweeping.start()
        tries = 0
        with ThreadPoolExecutor(self._threads, thread_name_prefix="runner") as pool:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    asyncio.run(self._run_worker(execute, stop, pool))
                except Exception as error:  # noqa: BLE001 (the worker must be restarted after any error)
                    self._last_error = one_line(str(error.__cause__ or error)) or type(error).__name__
                    log.error("fetch_jobs_failed", why=self._last_error)  # noqa: TRY400 (one line for each try)
                if time.monotonic() - began > WORKER_DEAD_AFTER_SECONDS:
                    tries = 0
                stop.wait(RETRY_DELAYS[min(tries, len(RETRY_DELAYS) - 1)])
                tries += 1
        sweeping.join()

    def sweep(self, transaction: WriteTransaction) -> None:
        """Delete the jobs and records of expired workers; the ledger still has the deliveries.

        Rows that a worker which stopped responding has locked are skipped. Waiting for them would block all writers and
        fail in the end.
        """
        for statement in (_DELETE_DEAD_JOBS, _DELETE_DEAD_WORKERS):
            transaction.connection.exec_driver_sql(statement, (WORKER_DEAD_AFTER_SECONDS,))

    def health(self) -> str | None:
        """Return why the worker has failed, or None."""
        return self._last_error

    def wake(self) -> None:
        """Sweep at once, because `stop` was set or the ledger has changed."""
        self._wakeup.set()

    @property
    def running(self) -> int:
        """Number of running deliveries."""
        return self._running.total()

    async def _run_worker(self, execute: ExecuteFn, stop: threading.Event, pool: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore_connector_errors)
        connector = procrastinate.PsycopgConnector(
            conninfo=self._url,
            min_size=1,
            max_size=4,
            timeout=5.0,
            connection_class=postgresql_timeouts.connection_group(),
            pool_factory=_ConnectionPool,
            kwargs={
                "application_name": "flowhooks",
                "connect_timeout": 5,
                "options": _options(self._url),
                **postgresql_timeouts.keepalive_options(self._url),
            },
        )
        app = procrastinate.App(connector=connector)

        async def deliver(
            delivery_id: str, handler: str, attempt: int, *, probe: bool = False, ordered: bool = False
        ) -> None:
            queued = ReadyDelivery(delivery_id, handler, attempt, probe, ordered)
            hit("job.taken")
            self._on_started(handler)
            try:
                await loop.run_in_executor(pool, self._run, execute, queued)
            finally:
                self._on_finished(handler)
            hit("job.done")

        app.task(name=TASK)(deliver)
        self._running.clear()
        self._paused_handlers = frozenset(self._paused())
        self._queues = [NO_QUEUE, *sorted({queue_of(handler) for handler in self._handlers - self._paused_handlers})]
        async with app.open_async():
            worker = asyncio.create_task(
                app.run_worker_async(
                    queues=self._queues,
                    concurrency=self._threads,
                    fetch_job_polling_interval=POLL_INTERVAL,
                    delete_jobs="always",
                    install_signal_handlers=False,
                    stalled_worker_timeout=WORKER_DEAD_AFTER_SECONDS,
                )
            )
            while not worker.done() and not stop.is_set():
                await asyncio.wait([worker], timeout=STOP_POLL_INTERVAL)
                self._apply_pauses()
                if not worker.done():
                    self._last_error = None
            if not stop.is_set():
                await worker
                return
            # A cancelled worker takes no more jobs and waits for those that are running.
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    def _run(self, execute: ExecuteFn, queued: ReadyDelivery) -> None:
        try:
            execute(queued, None)
        except FlowhooksError as error:
            self._has_failed.set()
            log.warning("delivery_not_run", delivery=queued.delivery_id, handler=queued.handler, why=str(error))
        except BaseException:
            # A defect in flowhooks must not end the worker.
            self._has_failed.set()
            log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler)

    def _on_started(self, handler: str) -> None:
        # The worker reads its list of queues at each fetch.
        self._running[handler] += 1
        if self._running[handler] >= self._handler_limits.get(handler, self._max_per_handler):
            self._subscribe(handler)

    def _on_finished(self, handler: str) -> None:
        self._running[handler] -= 1
        self._subscribe(handler)

    def _apply_pauses(self) -> None:
        """Remove the queues of paused handlers, and add those of resumed ones."""
        paused = frozenset(self._paused())
        changed, self._paused_handlers = (self._paused_handlers ^ paused) & self._handlers, paused
        for handler in changed:
            self._subscribe(handler)

    def _subscribe(self, handler: str) -> None:
        queue, limit = queue_of(handler), self._handler_limits.get(handler, self._max_per_handler)
        has_capacity = self._running[handler] < limit and handler not in self._paused_handlers
        if has_capacity and queue not in self._queues:
            self._queues.append(queue)
        elif not has_capacity and queue in self._queues:
            self._queues.remove(queue)

    def _sweep_loop(self, stop: threading.Event) -> None:
        """Create jobs for due deliveries that have none, until `stop` is set."""
        ignore_lateness = True
        while not stop.is_set():
            self._has_failed.clear()
            try:
                self._sweep(0.0 if ignore_lateness else LOST_JOB_THRESHOLD_SECONDS)
            except FlowhooksError as error:
                self._has_failed.set()
                log.error("sweep_failed", why=str(error))  # noqa: TRY400 (one line says it)
            except Exception:
                # A defect in flowhooks must not end the sweeps: deliveries without a job would never run.
                self._has_failed.set()
                log.exception("sweep_failed")
            # A delivery that was taken and could not be run has lost its job, even if it became due only now.
            ignore_lateness = (
                self._wakeup.wait(FAST_SWEEP_INTERVAL if self._has_more else SWEEP_INTERVAL)
                or self._has_failed.is_set()
            )
            self._wakeup.clear()

    def _sweep(self, lateness: float) -> None:
        now = self._clock.now()
        handlers = self._handlers.difference(self._paused())
        due = self._ledger.due_deliveries(
            now - int(lateness * SECOND), lambda handler: SWEEP_BATCH_SIZE if handler in handlers else 0
        )

        def write(transaction: WriteTransaction) -> None:
            # Jobs may be missing until fewer deliveries are due than one sweep creates jobs for.
            full = len(due) >= SWEEP_BATCH_SIZE
            self._has_more = self._has_more and full
            self.sweep(transaction)
            if not due:
                return
            rows = transaction.connection.exec_driver_sql(_SELECT_JOBS, ([queued.delivery_id for queued in due],))
            existing = {tuple(row) for row in rows}
            if missing := [
                queued for queued in due if (queued.delivery_id, queued.attempt, queued.probe) not in existing
            ]:
                self._has_more = full
                self.enqueue(transaction, missing, now)
                hit("sweep.written")
                transaction.after_commit(_ON_SWEEP_COMMITTED)

        self._ledger.write(write)


def _options(url: str) -> str:
    """Return the options of connections that fetch and delete jobs.

    A power failure may bring deleted jobs back, which is harmless. The timeouts end the transaction of a worker that
    stopped responding: behind a proxy the database would never notice.
    """
    url_options = str(conninfo_to_dict(url).get("options") or "")
    own_options = f"-c synchronous_commit=off -c idle_in_transaction_session_timeout={IDLE_SECONDS}s"
    return f"{url_options} {own_options} {postgresql_timeouts.SERVER_KEEPALIVE_OPTIONS}".strip()


def _arguments(queued: ReadyDelivery) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "delivery_id": queued.delivery_id,
        "handler": queued.handler,
        "attempt": queued.attempt,
    }
    marks = {"probe": queued.probe, "ordered": queued.ordered}
    return arguments | {mark: True for mark, is_set in marks.items() if is_set}


def _ignore_connector_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # The sweep finds the deliveries of jobs whose end could not be recorded.
    if not isinstance(context.get("exception"), ConnectorException):
        loop.default_exception_handler(context)
