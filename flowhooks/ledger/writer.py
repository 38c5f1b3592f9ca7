"""The one thread that writes: it takes what has queued up and commits it together; it must not know what is written.

A request that commits for itself pays for a whole `fsync`. Here all that arrived while the last commit was
under way shares the next one, so the busier the server, the cheaper each call-back.
"""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import structlog

from flowhooks.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine

T = TypeVar("T")
R = TypeVar("R")

MOST_IN_A_BATCH: Final = 256
"""Rows in one transaction at the most: past 64 a batch is hardly cheaper by the row (`make bench`)."""

log = structlog.get_logger(__name__)


class Transaction:
    """One open transaction, and what is to happen once it is durable.

    Attributes:
        connection: the writing connection.
    """

    __slots__ = ("_callbacks", "connection")

    def __init__(self, connection: Connection) -> None:
        self.connection: Any = connection
        self._callbacks: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback`, in the writer's thread, once this is durable; never if it is not. It must be quick."""
        self._callbacks.append(callback)

    def committed(self) -> None:
        """Make the calls that were asked for."""
        for callback in self._callbacks:
            callback()


class Ticket(Generic[R]):
    """A piece of work handed to the writer, and later its result."""

    __slots__ = ("_done", "_error", "_item", "_result", "_taken", "_work")

    def __init__(self, work: Callable[[Transaction, list[Any]], Sequence[R]], item: Any) -> None:
        self._work = work
        self._item = item
        self._taken = threading.Lock()
        self._done = threading.Lock()
        self._done.acquire()
        self._result: R | None = None
        self._error: BaseException | None = None

    def take(self) -> bool:
        """Whether the caller of this, the writer or a waiter who gives up, is the first one and so owns the work."""
        return self._taken.acquire(blocking=False)

    def settle(self, result: R | None, error: BaseException | None = None) -> None:
        """Hand over the result and wake the waiter."""
        self._result, self._error = result, error
        self._done.release()

    def result(self, timeout: float, *, certain: bool = False) -> R:
        """Wait for the work to be durable.

        Args:
            timeout: seconds.
            certain: wait on for work that was begun in time, so that `Unavailable` means that it was not done.

        Returns:
            What the work returned.

        Raises:
            Unavailable: it was not done in time. Work that had not been begun is withdrawn; of work that
                had, nobody knows yet, and calling again is safe.
        """
        if not self._done.acquire(timeout=timeout):
            if self.take() or not certain:
                raise Unavailable("ledger_slow")
            self._done.acquire()
        if self._error is not None:
            raise self._error
        return cast("R", self._result)


class Writer:
    """Commits in groups what other threads submit.

    Args:
        engine: each of its transactions may write.
        limit: how many pieces of work may queue before new ones are refused.
    """

    def __init__(self, engine: Engine, *, limit: int = 10_000) -> None:
        self._engine = engine
        self._limit = limit
        self._queue: SimpleQueue[Ticket[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._closed = False
        self.failing: str | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Commit all that was submitted, then end the thread. What is submitted later is refused."""
        self._closed = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, work: Callable[[Transaction, list[T]], Sequence[R]], item: T) -> Ticket[R]:
        """Queue one item of `work`; items of the same work that queue up together are done by one call.

        Args:
            work: takes the transaction and a list of items, returns one result for each.
            item: this caller's item.

        Raises:
            Unavailable: too much is queued already, or the writer is closed.
        """
        if self._closed:
            raise Unavailable("draining")
        if self._queue.qsize() >= self._limit:
            raise Unavailable("ledger_full")
        ticket: Ticket[R] = Ticket(work, item)
        self._queue.put(ticket)
        return ticket

    def _loop(self) -> None:
        closing = False
        while not closing:
            batch = []
            entry: Ticket[Any] | None = self._queue.get()
            while True:
                if entry is None:
                    closing = True
                elif entry.take():
                    batch.append(entry)
                if len(batch) >= MOST_IN_A_BATCH:
                    break
                try:
                    entry = self._queue.get_nowait()
                except Empty:
                    break
            if batch:
                self._commit(batch)

    def _commit(self, batch: list[Ticket[Any]]) -> None:
        try:
            results = self._transact(batch)
        except Exception as error:  # noqa: BLE001 (whatever it is, it belongs to those who wait)
            if len(batch) > 1:
                # One bad item must not take the others with it.
                for ticket in batch:
                    self._commit([ticket])
                return
            self.failing = type(error).__name__
            batch[0].settle(None, error)
            return
        self.failing = None
        for ticket, result in results:
            ticket.settle(result)

    def _transact(self, batch: list[Ticket[Any]]) -> list[tuple[Ticket[Any], Any]]:
        groups: dict[Any, list[Ticket[Any]]] = {}
        for ticket in batch:
            groups.setdefault(ticket._work, []).append(ticket)  # noqa: SLF001 (one idea in two classes)
        results: list[tuple[Ticket[Any], Any]] = []
        with self._engine.begin() as connection:
            transaction = Transaction(connection)
            for work, tickets in groups.items():
                done = work(transaction, [ticket._item for ticket in tickets])  # noqa: SLF001 (as above)
                results.extend(zip(tickets, done, strict=True))
        try:
            transaction.committed()
        except Exception:
            # Durable all the same: the runner's sweep finds what a callback did not tell it.
            log.exception("after_commit_failed")
        return results


def run(transaction: Transaction, functions: list[Callable[[Transaction], Any]]) -> list[Any]:
    """Work whose items are functions of the transaction: for what has no batch form."""
    return [function(transaction) for function in functions]
