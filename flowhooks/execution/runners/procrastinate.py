"""The runner `procrastinate`: workers on any machine take jobs from PostgreSQL that say which handler has work.

Theory of operation
-------------------
The queue is the table `deliveries`; a job is only a hint (`job_queue.py`). A process that takes a job of a handler
marks as many due deliveries as it has free slots for that handler, in one transaction that also deletes the job, and
stores the next job if more deliveries are due. So idle workers share the work of a handler, and at most as many
deliveries are marked as can run.

While more deliveries of the handler are due, the transaction that records the outcomes of its attempts also marks the
next deliveries for their slots. If no slot is free for other handlers, the handler lets them have a turn: it stores a
job instead, behind those of the others. A claim passes over ordered or limited deliveries that another transaction has
locked. It is then repeated once without them, for the slots that are left.

One process of those that share the ledger looks for due deliveries whose job is missing every `SWEEP_INTERVAL`
(`job_sweeper.py`). Retries are found in this way, too, so an idle process polls rarely for the jobs of retries, for
which PostgreSQL sends no notification.

Threads: `runner` takes jobs, `runner-N` run the deliveries, `sweeper` looks for missing jobs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import procrastinate
import structlog
from procrastinate.exceptions import ConnectorException

from flowhooks.errors import FlowhooksError
from flowhooks.execution.runners.job_connections import connector
from flowhooks.execution.runners.job_queue import WORKER_DEAD_AFTER_SECONDS, JobQueue, queue_of
from flowhooks.execution.runners.job_sweeper import JobSweeper
from flowhooks.execution.runners.next_poll import seconds_to_poll
from flowhooks.execution.runners.runner import FAULT_PAUSE_SECONDS
from flowhooks.failpoints import hit
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from procrastinate.manager import JobManager

    from flowhooks.clock import Clock
    from flowhooks.execution.handler_runtime import HandlerRuntime
    from flowhooks.execution.runners.handler_slots import HandlerSlots
    from flowhooks.execution.runners.runner import ExecuteFn
    from flowhooks.ledger.attempts import StartedDelivery
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.event import Event
    from flowhooks.model.ready_delivery import ReadyDelivery

POLL_INTERVAL: Final = 1.0
"""Seconds between polls for jobs that have become due, such as those of retries."""
IDLE_POLL_INTERVAL: Final = 10.0
"""Seconds between polls of an idle process. The sweep stores another job, with a notification, for overdue retries."""
ACTIVE_SECONDS: Final = 30.0
"""Seconds without a job and a delivery after which a process is idle."""
HEARTBEAT_INTERVAL: Final = 10.0
"""Seconds between heartbeats of Procrastinate's record of this worker."""
MAX_CHANNELS: Final = 100
"""With more handlers than these, a worker listens for the jobs of all handlers on one channel."""
CANCEL_INTERVAL: Final = 0.5
"""Seconds until a task that has not ended is cancelled again."""
SKIP_SECONDS: Final = 5.0
"""Seconds for which a delivery that was not marked as running, such as a damaged one, is left out."""
RETRY_DELAYS: Final = (0.2, 0.5, 1.0, 2.0)
"""Seconds until the fetching of jobs is restarted after an error. The last delay repeats."""

log = structlog.get_logger(__name__)


class ProcrastinateRunner:
    """Takes jobs, and runs the deliveries of their handlers.

    Args:
        url: the ledger's database.
        queue: stores the jobs.
        ledger: marks and finds deliveries.
        runtime: how this process runs each handler.
        clock: current time.
        handlers: ids of the handlers whose deliveries this process runs.

    Attributes:
        sweeper: stores missing jobs.
    """

    def __init__(
        self,
        url: str,
        *,
        queue: JobQueue,
        ledger: Ledger,
        runtime: HandlerRuntime,
        clock: Clock,
        handlers: Collection[str],
    ) -> None:
        self._url = url
        self._queue = queue
        self._slots = queue.slots
        self._ledger = ledger
        self._runtime = runtime
        self._clock = clock
        self._queues = {handler: queue_of(handler) for handler in sorted(handlers)}
        self.sweeper = JobSweeper(url, queue=queue, ledger=ledger, clock=clock, handlers=self._queues.keys())
        self._claiming: dict[str, bool] = {}
        self._to_claim_again: dict[str, Collection[str]] = {}
        self._waits_for_claims = False
        self._claiming_changed = threading.Lock()
        self._claimed_jobs: set[int] = set()
        self._skipped: dict[tuple[str, bool], dict[str, float]] = {}
        self._probing: dict[str, str] = {}
        self._probing_changed = threading.Lock()
        self._wake_fetching: Callable[[], None] = lambda: None
        self._active_until = 0.0
        self._last_error: str | None = None

    def run(self, execute: ExecuteFn, stop: threading.Event) -> None:
        """Run the deliveries that jobs announce until `stop` is set; return when no delivery is running any more."""
        # Procrastinate logs every job, and a traceback at each error. Errors are logged below.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
        self._slots.on_freed = self._on_slot_freed
        threads = [
            threading.Thread(target=self._run_thread, args=(execute, stop), name=f"runner-{number}", daemon=True)
            for number in range(self._slots.threads)
        ]
        threads.append(threading.Thread(target=self.sweeper.run, args=(stop,), name="sweeper", daemon=True))
        for thread in threads:
            thread.start()
        self._queue.is_running = True
        tries = 0
        while not stop.is_set():
            began = time.monotonic()
            try:
                asyncio.run(self._fetch_jobs(stop))
            except Exception as error:  # noqa: BLE001 (fetching must be restarted after any error)
                self._last_error = one_line(str(error.__cause__ or error)) or type(error).__name__
                log.error("fetch_jobs_failed", why=self._last_error)  # noqa: TRY400 (one line for each try)
            if time.monotonic() - began > WORKER_DEAD_AFTER_SECONDS:
                tries = 0
            stop.wait(RETRY_DELAYS[min(tries, len(RETRY_DELAYS) - 1)])
            tries += 1
        self._queue.is_running = False
        self._slots.stop()
        for thread in threads:
            thread.join()

    def health(self) -> str | None:
        """Return why jobs cannot be fetched, or None."""
        return self._last_error

    def wake(self) -> None:
        """Look for due deliveries at once, because `stop` was set or the ledger has changed."""
        self.sweeper.wake()
        self._wake_fetching()

    def _on_slot_freed(self) -> None:
        self._wake_fetching()

    @property
    def running(self) -> int:
        """Number of running deliveries."""
        return self._slots.taken

    async def _fetch_jobs(self, stop: threading.Event) -> None:
        """Take jobs until `stop` is set."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore_connector_errors)
        notified = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(notified.set)

        async def on_notification(**_: object) -> None:
            notified.set()

        async with procrastinate.App(connector=connector(self._url)).open_async() as app:
            manager = app.job_manager
            worker_id = await manager.register_worker()
            self._wake_fetching = wake
            # A job may be stored before this process receives notifications.
            self._active_until = time.monotonic() + ACTIVE_SECONDS
            queues = None if len(self._queues) > MAX_CHANNELS else list(self._queues.values())
            side_tasks = [
                asyncio.create_task(manager.listen_for_jobs(on_notification=on_notification, queues=queues)),
                asyncio.create_task(_send_heartbeats(manager, worker_id)),
            ]
            try:
                while not stop.is_set():
                    notified.clear()
                    await self._take_jobs(manager, worker_id, stop)
                    self._last_error = None
                    waiting = asyncio.create_task(notified.wait())
                    timeout = seconds_to_poll(self._runtime, self._clock, self._poll_interval())
                    await asyncio.wait([waiting, *side_tasks], timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    for task in side_tasks:
                        if task.done():
                            task.result()
            finally:
                self._wake_fetching = lambda: None
                await _cancel(side_tasks)
            await manager.unregister_worker(worker_id)

    async def _take_jobs(self, manager: JobManager, worker_id: int, stop: threading.Event) -> None:
        """Take jobs of handlers with free slots while there are any."""
        with self._claiming_changed:
            again, self._to_claim_again = self._to_claim_again, {}
        for handler in {*again, *self._slots.to_refill()}:
            self._claim(handler, passed_over=again.get(handler, ()))
        while not stop.is_set() and (queues := self._open_queues()):
            job = await manager.fetch_job(queues=queues, worker_id=worker_id)
            if job is None:
                return
            hit("job.taken")
            self._active_until = time.monotonic() + ACTIVE_SECONDS
            self._claim(str(job.task_kwargs.get("handler", "")), job.id)

    def _poll_interval(self) -> float:
        """Return the seconds until the next poll, if no handler is at its rate."""
        now = time.monotonic()
        if self._slots.taken:
            self._active_until = now + ACTIVE_SECONDS
        return POLL_INTERVAL if now < self._active_until else IDLE_POLL_INTERVAL

    def _open_queues(self) -> list[str]:
        """Return the queues of the handlers for which a job can start deliveries."""
        with self._claiming_changed:
            claiming = frozenset(self._claiming)
            self._waits_for_claims = bool(claiming)
        closed = self._slots.closed(len(claiming))
        if closed is None:
            return []
        self._waits_for_claims = False
        closed, now = claiming.union(closed), self._clock.now()
        return [
            queue
            for handler, queue in self._queues.items()
            if handler not in closed and self._runtime.next_start_of(handler, now) is None
        ]

    def _claim(self, handler: str, job_id: int | None = None, *, passed_over: Collection[str] = ()) -> None:
        """Fill the free slots of a handler with its next due deliveries, in the background.

        Those in `passed_over` are left out, because the previous claim could not start them.
        """
        with self._claiming_changed:
            if job_id is not None:
                self._claimed_jobs.add(job_id)
            if handler in self._claiming:
                self._claiming[handler] = True  # again, because the claim may have read the deliveries already
                return
            self._claiming[handler] = False
        claim = _Claim(
            handler,
            slots=self._slots,
            queue=self._queue,
            runtime=self._runtime,
            skipped=self._skipped_of(handler, probe=False).union(passed_over),
            probing=self._probing_of(handler) | self._skipped_of(handler, probe=True),
            jobs=self._claimed_jobs,
            is_job=job_id is not None,
            is_repeat=bool(passed_over),
        )
        try:
            future = self._ledger.claim_next(claim)
        except FlowhooksError as error:
            log.warning("claim_failed", handler=handler, why=str(error))
            self._on_claim_done(claim)
        else:
            future.add_done_callback(lambda _future: self._on_claim_done(claim))

    def _on_claim_done(self, claim: _Claim) -> None:
        # In the ledger's writer thread, so the thread `runner` makes the next claim.
        with self._claiming_changed:
            again = self._claiming.pop(claim.handler)
            if again or claim.passed_over:
                self._to_claim_again[claim.handler] = claim.passed_over
            # It may have left a slot that was kept for it.
            again = again or self._waits_for_claims
        if not claim.is_committed:
            # The next sweep stores a job for the deliveries that are still due.
            self._slots.set_backlog(claim.handler, has_more=False)
            self.sweeper.on_failed()
        if again or not claim.has_more:
            self._wake_fetching()

    def _run_thread(self, execute: ExecuteFn, stop: threading.Event) -> None:
        while (started := self._slots.next()) is not None:
            queued, began = started.queued, time.monotonic()
            try:
                claimed = started.claimed or queued.to_claimed_attempt()
                if claimed is not None:
                    execute(queued, claimed)
                elif not stop.is_set():
                    self._run_unclaimed(queued, execute)
            except FlowhooksError as error:
                self.sweeper.on_failed()
                log.warning("delivery_not_run", delivery=queued.delivery_id, handler=queued.handler, why=str(error))
                stop.wait(FAULT_PAUSE_SECONDS)
            except BaseException:
                # A defect in flowhooks must not cost a thread.
                self.sweeper.on_failed()
                log.exception("runner_fault", delivery=queued.delivery_id, handler=queued.handler)
                stop.wait(FAULT_PAUSE_SECONDS)
            finally:
                self._slots.on_ended(queued.handler, time.monotonic() - began)
                if not stop.is_set() and self._slots.should_refill(queued.handler):
                    self._claim(queued.handler)

    def _run_unclaimed(self, queued: ReadyDelivery, execute: ExecuteFn) -> None:
        """Run a delivery that is not marked as running: only this process knows that it is run."""
        if queued.probe and not self._begin_probe(queued):
            return
        try:
            execute(queued, None)
            self._skip(queued)
        finally:
            if queued.probe:
                self._end_probe(queued)

    def _begin_probe(self, queued: ReadyDelivery) -> bool:
        """Return whether no other thread calls this probe. While a call hangs, the delivery is due each minute."""
        with self._probing_changed:
            is_first = queued.delivery_id not in self._probing
            self._probing[queued.delivery_id] = queued.handler
            return is_first

    def _end_probe(self, queued: ReadyDelivery) -> None:
        with self._probing_changed:
            del self._probing[queued.delivery_id]

    def _probing_of(self, handler: str) -> frozenset[str]:
        with self._probing_changed:
            return frozenset(key for key, its_handler in self._probing.items() if its_handler == handler)

    def _skip(self, queued: ReadyDelivery) -> None:
        now, key = time.monotonic(), (queued.handler, queued.probe)
        still = {skipped: until for skipped, until in self._skipped.get(key, {}).items() if until > now}
        self._skipped[key] = still | {queued.delivery_id: now + SKIP_SECONDS}

    def _skipped_of(self, handler: str, *, probe: bool) -> frozenset[str]:
        now = time.monotonic()
        return frozenset(skipped for skipped, until in self._skipped.get((handler, probe), {}).items() if until > now)


class _Claim:
    """A claim for the free slots of a handler, which are counted when the ledger makes it."""

    def __init__(
        self,
        handler: str,
        *,
        slots: HandlerSlots,
        queue: JobQueue,
        runtime: HandlerRuntime,
        skipped: Collection[str],
        probing: Collection[str],
        jobs: set[int],
        is_job: bool,
        is_repeat: bool,
    ) -> None:
        self.handler = handler
        self.skipped = skipped
        self.probing = probing
        self.with_probes = not runtime.is_paused(handler)
        self.is_committed = self.has_more = False
        self.passed_over: Collection[str] = ()
        self._slots = slots
        self._queue = queue
        self._runtime = runtime
        self._jobs = jobs
        self._stores_job = is_job or is_repeat
        self._is_repeat = is_repeat
        self._lets_others_run = not is_job and slots.is_turn_over(handler)
        self._taken = 0

    def take(self, transaction: WriteTransaction) -> int:
        # This process may stop between the request of the claim and now.
        is_closed = self._lets_others_run or not self._runtime.runs_here(self.handler)
        self._taken = 0 if is_closed else self._slots.take(self.handler)
        transaction.after_rollback(partial(self._slots.release, self.handler, self._taken))
        return self._taken

    def passes(self, event: Event) -> bool:
        return self._runtime.passes(self.handler, event)

    def on_claimed(
        self,
        transaction: WriteTransaction,
        started: Sequence[StartedDelivery],
        *,
        has_more: bool,
        waits_for_rate: bool = False,
        passed_over: Collection[str] = (),
    ) -> None:
        jobs = frozenset(self._jobs)
        self._queue.delete(transaction, jobs)
        if waits_for_rate:
            # It stays in its queue until a process may start an attempt, without any process taking it before.
            self._queue.defer(transaction, [self.handler], 0, most=1)
        elif has_more and (self._stores_job or not started):
            self._queue.defer(transaction, [self.handler], 0)
        if jobs:
            hit("job.done")
        # Only once, because the others may still be changing deliveries.
        passed_over = () if self._is_repeat else passed_over
        transaction.after_commit(partial(self._on_committed, started, jobs, has_more=has_more, passed_over=passed_over))

    def _on_committed(
        self,
        started: Sequence[StartedDelivery],
        jobs: Collection[int],
        *,
        has_more: bool,
        passed_over: Collection[str],
    ) -> None:
        self.is_committed, self.has_more, self.passed_over = True, has_more and bool(started), passed_over
        self._slots.set_backlog(self.handler, has_more=self.has_more)
        self._slots.start(started)
        self._slots.release(self.handler, self._taken - len(started))
        self._jobs.difference_update(jobs)


async def _cancel(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their end. Python 3.11 loses a cancellation at the moment of a notification."""
    remaining = set(tasks)
    while remaining:
        for task in remaining:
            task.cancel()
        _, remaining = await asyncio.wait(remaining, timeout=CANCEL_INTERVAL)
    await asyncio.gather(*tasks, return_exceptions=True)


async def _send_heartbeats(manager: JobManager, worker_id: int) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL)
        await manager.update_heartbeat(worker_id)


def _ignore_connector_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Fetching is restarted after these.
    if not isinstance(context.get("exception"), ConnectorException):
        loop.default_exception_handler(context)
