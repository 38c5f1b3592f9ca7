"""Group commit: one thread writes for the whole process and commits queued work together.

Theory of operation
-------------------
A commit waits for the disk, and that wait is the same for one row and for a hundred. So no caller commits for itself:

1. `submit` puts a `WriteRequest` (a work function and one item) into a queue and returns at once.
2. The writer thread takes up to `MAX_BATCH_SIZE` requests, groups them by work function, and calls each function once
   with all its items, in one transaction (see `run_last` and `call_alone` for the exceptions).
3. After the COMMIT it runs the transaction's callbacks, then gives each request its result, which wakes its caller.

While one COMMIT is under way the next batch queues up. The busier the process, the larger its batches and the cheaper
each row.

Rules that the rest of the package relies on:

- **One owner.** The writer starts a request's future, and a caller whose timeout has passed cancels it. Exactly one of
  them succeeds. So a withdrawn request is never executed, and an executed request is never reported as withdrawn.
- **One bad item fails alone.** If a batch fails, each of its items is executed again in a transaction of its own.
- **A lost COMMIT reply is not success.** Work may then have been done although its caller gets an error, and it may be
  executed again. Every work function therefore has to be repeatable: inserts are keyed by identity, updates by the
  state and attempt that they expect.
- **A connection that was lost before the COMMIT was sent** is replaced, and the batch is executed once more. So is the
  batch of a process that has expired (`ProcessExpired`): `on_begin` gives the process a new id.
- **Callbacks follow durability.** `after_commit` callbacks run only after the COMMIT has been confirmed,
  `after_rollback` callbacks only if it has not.
- **`on_begin`** is called first in every transaction, also when the items of a batch are executed one by one. It stores
  a heartbeat that is due, so that no work of the transaction runs under the id of an expired process.
- **`run_last`** names the work functions that take locks other processes wait for. They run at the end of a
  transaction, so that these locks are short. A transaction runs only one of them. Each takes its locks in one order,
  but two of them, one after the other, would not, and two processes could wait for each other.
- **`before_last`** is called before them: it changes deliveries, for which it may have to wait.
- **`call_alone`** is the work function for changes of rows that claims change as well, while they have other locks. It
  runs each function in a transaction of its own, which waits for these rows only before it has any lock.
- **`before_commit` callbacks** run after all work functions, because they change rows that all processes change. Every
  process locks these rows in the order of `SharedRows`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import chain
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from flowhooks.errors import ProcessExpired, Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.transaction import WriteTransaction
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from flowhooks.ledger.file_guard import FileGuard

T = TypeVar("T")
R = TypeVar("R")

# Beyond 64 requests a row hardly becomes cheaper (`make bench`).
MAX_BATCH_SIZE: Final = 256
"""Maximum number of requests in one transaction."""

# A commit costs the same for one request as for eight, and an early commit takes the interpreter lock from the threads
# that are about to submit. The writer waits only if the previous batch was larger, so a lone callback never waits.
BATCH_DELAY: Final = 0.0005
"""Seconds of one wait for a batch to become as large as the previous one."""
BATCH_DELAY_TRIES: Final = 3
"""Maximum number of these waits."""

FAST_FAILURE_THRESHOLD_SECONDS: Final = 1.0
"""A failure within this time does not count as a blocked writer."""

CALLBACKS_REFUSED_TEXT: Final = "callbacks are answered 503 until the database works again"

log = get_logger(__name__)


class WriteRequest(NamedTuple):
    """A piece of work handed to the writer.

    Attributes:
        work: the function that does it, together with the other items that are queued for the same function.
        item: what it is called with.
        future: gets the result once it is durable.
    """

    work: Callable[[WriteTransaction, list[Any]], Sequence[Any]]
    item: Any
    future: Future[Any]


class GroupCommitWriter:
    """Commits in groups the work that other threads submit.

    Args:
        engine: an engine whose transactions may write.
        max_queued: maximum number of queued requests; more are refused.
        on_commit: called after each commit with the number of requests and the seconds that it took.
        on_begin: called within each transaction, at its start.
        run_last: the work functions that take locks that others wait for. A transaction calls one of them, last.
        before_last: called within each transaction, before the function of `run_last` if there is one.
        before_commit: called within each transaction, after all work functions.
        guard: checks that the file being written is the one at its path; None for a database that is not a file.

    Attributes:
        written: number of committed requests.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queued: int = 10_000,
        on_commit: Callable[[int, float], None] = lambda _items, _seconds: None,
        on_begin: Callable[[WriteTransaction], None] = lambda _transaction: None,
        run_last: Collection[Callable[..., Any]] = (),
        before_last: Callable[[WriteTransaction], None] = lambda _transaction: None,
        before_commit: Callable[[WriteTransaction], None] = lambda _transaction: None,
        guard: FileGuard | None = None,
    ) -> None:
        self._engine = engine
        self._guard = guard
        self._on_commit = on_commit
        self._on_begin = on_begin
        self._run_last = frozenset(run_last)
        self._before_last = before_last
        self._before_commit = before_commit
        self._max_queued = max_queued
        self._queue: SimpleQueue[WriteRequest | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._connection: Connection | None = None
        self._submit_lock = threading.Lock()
        self._closed = False
        self._last_error: str | None = None
        self.written = 0
        self._blocked_since: float | None = None

    @property
    def queue_size(self) -> int:
        """Number of requests that wait."""
        return self._queue.qsize()

    @property
    def write_error(self) -> str | None:
        """The database's error text if the last write failed, or that the thread has ended; otherwise None."""
        if self._thread.ident is not None and not self._thread.is_alive() and not self._closed:
            return "the thread ledger-writer has ended; restart the server"
        return self._last_error

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Commit all submitted requests, then end the thread. Later requests are refused."""
        with self._submit_lock:
            self._closed = True
            self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    @property
    def blocked_seconds(self) -> float:
        """Seconds for which the database has blocked the writer, retries included; 0 if it does not."""
        since = self._blocked_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(
        self,
        work: Callable[[WriteTransaction, list[T]], Sequence[R]],
        item: T,
    ) -> Future[R]:
        """Queue one item for `work`. Items of the same work that are queued together are passed to one call.

        Args:
            work: takes the transaction and a list of items, and returns one result for each.
            item: this caller's item.

        Returns:
            Its result, once it is durable; `Ledger.wait_for` waits for it. A callback of the future is called in the
            writer's thread, so it must return quickly. Until the writer has started the work, `cancel` withdraws it.

        Raises:
            Unavailable: the queue is full, or the writer is closed.
        """
        future: Future[R] = Future()
        # The thread ends at the None that `close` puts into the queue, so no request may be put behind it.
        with self._submit_lock:
            if self._closed:
                raise Unavailable("draining")
            if self._queue.qsize() >= self._max_queued:
                raise Unavailable("ledger_full")
            self._queue.put(WriteRequest(work, item, future))
        return future

    def _run(self) -> None:
        closing = False
        batch: list[WriteRequest] = []
        while not closing:
            entry: WriteRequest | None = self._queue.get()
            for _ in range(BATCH_DELAY_TRIES):
                if self._queue.qsize() + 1 >= len(batch):
                    break
                time.sleep(BATCH_DELAY)
            batch = []
            while True:
                if entry is None:
                    closing = True
                elif entry.future.set_running_or_notify_cancel():
                    batch.append(entry)
                if len(batch) >= MAX_BATCH_SIZE:
                    break
                try:
                    entry = self._queue.get_nowait()
                except Empty:
                    break
            if batch:
                self._commit_each(self._split(batch))
        self._disconnect()

    def _split(self, batch: list[WriteRequest]) -> list[list[WriteRequest]]:
        """Return the requests of each transaction, in which those of a function of `run_last` come last."""
        others: list[WriteRequest] = []
        last: dict[Any, list[WriteRequest]] = {}
        alone: list[list[WriteRequest]] = []
        for request in batch:
            if request.work is call_alone:
                alone.append([request])
            else:
                (last.setdefault(request.work, []) if request.work in self._run_last else others).append(request)
        first, *rest = last.values() or [[]]
        return [requests for requests in (others + first, *rest, *alone) if requests]

    def _commit(self, batch: list[WriteRequest], *, retry: bool = True) -> bool:
        """Execute a batch and set its results; return whether the database was available.

        Args:
            batch: the requests.
            retry: whether to try once more if the connection was lost before the COMMIT was sent, as after a restart of
                the server, or if this process has expired.
        """
        began = time.monotonic()
        if self._blocked_since is None:
            self._blocked_since = began
        try:
            results = self._transact(batch)
        except BaseException as error:  # noqa: BLE001 (any error, SystemExit too, is for the waiting callers)
            if time.monotonic() - began < FAST_FAILURE_THRESHOLD_SECONDS:
                self._blocked_since = None
            cause = error.__cause__ if isinstance(error, _BeginFailed | _RolledBack) else error
            is_available = not isinstance(error, _BeginFailed)
            is_lost = isinstance(error, _RolledBack) and _is_lost(cause)
            if retry and (is_lost or isinstance(cause, ProcessExpired)):
                return self._commit(batch, retry=False)
            is_available = is_available and not is_lost
            if is_available and len(batch) > 1:
                # One bad item must not take the others with it.
                return self._commit_each([[request] for request in batch], cause)
            # Damaged text in one row is no failure of the database.
            if isinstance(cause, SQLAlchemyError) and not database.is_undecodable(cause):
                self._log_health(database.error_text(cause), damage=database.is_damage(cause))
            for request in batch:
                _fail(request, cause)
            return is_available
        self._blocked_since = None
        self._log_health(None)
        self.written += len(batch)
        for request, result in results:
            request.future.set_result(result)
        self._on_commit(len(batch), time.monotonic() - began)
        return True

    def _commit_each(self, batches: Sequence[list[WriteRequest]], cause: BaseException | None = None) -> bool:
        """Execute each batch in a transaction of its own; return whether the database stayed available."""
        for index, batch in enumerate(batches):
            if not self._commit(batch):
                for unprocessed in chain.from_iterable(batches[index + 1 :]):
                    _fail(unprocessed, cause if isinstance(cause, SQLAlchemyError) else Unavailable("ledger_down"))
                return False
        return True

    def _log_health(self, failing: str | None, *, damage: bool = False) -> None:
        """Log the first failure, and the recovery."""
        if failing and damage and self._guard is not None:
            self._guard.report_damage(failing)
        last_error, self._last_error = self._last_error, failing  # first, so that the log is true when it is read
        if failing and not last_error:
            log.error("ledger_write_failed", why=failing, next=database.remedy(failing) + CALLBACKS_REFUSED_TEXT)
        elif last_error and not failing:
            log.info("ledger_write_recovered")

    def _transact(self, batch: list[WriteRequest]) -> list[tuple[WriteRequest, Any]]:
        groups: dict[Any, list[WriteRequest]] = {}
        for request in batch:
            groups.setdefault(request.work, []).append(request)
        results: list[tuple[WriteRequest, Any]] = []
        transaction, complete = None, False
        if self._guard is not None and self._guard.find_problem_quickly():
            raise _BeginFailed from Unavailable("ledger_down")
        try:
            with self._begin() as connection:
                transaction = WriteTransaction(connection)
                self._on_begin(transaction)
                results += self._execute(transaction, groups, last=False)
                self._before_last(transaction)
                results += self._execute(transaction, groups, last=True)
                self._before_commit(transaction)
                transaction.run_before_commit()
                # Once for the whole batch, because PostgreSQL commits transactions that notify one at a time.
                transaction.notice.notify(connection)
                complete = True
        except BaseException as error:
            if transaction is not None:
                transaction.run_callbacks(durable=False)
            if transaction is None or complete:
                raise
            raise _RolledBack from error
        if self._guard is not None:
            if self._guard.find_problem(committed=True):
                # The data may be in a file that the next process does not open, so the work is reported as not done.
                self._guard.unconfirmed = True
                transaction.run_callbacks(durable=False)
                raise _BeginFailed from Unavailable("ledger_down")
            self._guard.accepted = transaction.accepted or self._guard.accepted
        transaction.run_callbacks(durable=True)
        return results

    def _execute(
        self, transaction: WriteTransaction, groups: dict[Any, list[WriteRequest]], *, last: bool
    ) -> Iterator[tuple[WriteRequest, Any]]:
        for work, requests in groups.items():
            if (work in self._run_last) is last:
                yield from zip(requests, work(transaction, [request.item for request in requests]), strict=True)

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        """Begin a transaction on the writer's connection; on a new connection after an error."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
                database.keep_temporary_data_in_memory(self._connection)
            opened = self._connection.begin()
        except SQLAlchemyError as error:
            self._disconnect()
            raise _BeginFailed from error
        try:
            with opened:
                yield self._connection
        except BaseException:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _fail(request: WriteRequest, error: BaseException | None) -> None:
    if isinstance(error, SQLAlchemyError):
        unavailable = database.to_unavailable(error)
        unavailable.__cause__ = error
        error = unavailable
    request.future.set_exception(error)


def _is_lost(error: BaseException | None) -> bool:
    """Tell a lost connection from a failed statement."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


class _BeginFailed(Exception):
    """The database is unavailable, or its file was replaced; no request is at fault."""


class _RolledBack(Exception):
    """A transaction failed before its COMMIT was sent, so nothing of it is stored."""


def call_each(transaction: WriteTransaction, functions: list[Callable[[WriteTransaction], Any]]) -> list[Any]:
    """Call functions with the transaction: the work function for work that has no batch form."""
    return [function(transaction) for function in functions]


def call_alone(transaction: WriteTransaction, functions: list[Callable[[WriteTransaction], Any]]) -> list[Any]:
    """Call one function with a transaction of its own."""
    return call_each(transaction, functions)
