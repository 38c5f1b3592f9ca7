"""The one thread that writes: it takes what has queued up and commits it together; it must not know what is written.

A request that commits for itself pays for a whole `fsync`. Here all that arrived while the last commit was
under way shares the next one, so the busier the server, the cheaper each call-back.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import structlog
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from flowhooks.errors import Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.notifications import News

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection, Engine

    from flowhooks.ledger.deliveries import Lane
    from flowhooks.ledger.file_guard import FileGuard

T = TypeVar("T")
R = TypeVar("R")

MOST_IN_A_BATCH: Final = 256
"""Rows in one transaction at the most: past 64 a batch is hardly cheaper by the row (`make bench`)."""

LINGER_SECONDS: Final = 0.0005
LINGER_TIMES: Final = 3
"""How long a batch waits for as many as came with the last one: a commit costs the same for one as for eight, and
whoever commits early takes the interpreter from those who are about to join. A lone call-back never waits."""

QUICK_SECONDS: Final = 1.0
"""Whoever fails within this time keeps nobody waiting."""

UNTIL_THEN: Final = "call-backs are answered 503 until it works again"

log = structlog.get_logger(__name__)


class Transaction:
    """One open transaction, and what is to happen once it is durable.

    Attributes:
        connection: the writing connection.
        news: what those who share the ledger are told once this is durable.
        freed: lanes that a delivery has left, so that another may have its turn.
        held: lanes in which a delivery was put behind another.
        ended_of: ids of limited handlers of which an attempt has ended.
    """

    __slots__ = ("_committed", "_undone", "connection", "ended_of", "freed", "held", "news")

    def __init__(self, connection: Connection) -> None:
        self.connection: Any = connection
        self.news = News()
        self.freed: set[Lane] = set()
        self.held: set[Lane] = set()
        self.ended_of: set[str] = set()
        self._committed: list[Callable[[], None]] = []
        self._undone: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback`, in the writer's thread, once this is durable; never if it is not. It must be quick."""
        self._committed.append(callback)

    def hand_over(self) -> None:
        """Tell the others, once this is durable, that there is something to run that is not run here."""
        self.news.work = True

    def after_rollback(self, callback: Callable[[], None]) -> None:
        """Call `callback`, in the writer's thread, if this comes to nothing."""
        self._undone.append(callback)

    def ended(self, *, durable: bool) -> None:
        """Make the calls that were asked for."""
        for callback in self._committed if durable else self._undone:
            try:
                callback()
            except Exception:
                # Nothing in the ledger depends on it: the runner's own looking finds what it was not told.
                log.exception("callback_failed", durable=durable)


class Ticket(Generic[R]):
    """A piece of work handed to the writer, and later its result."""

    __slots__ = ("_done", "_error", "_item", "_result", "_taken", "_then", "_work")

    def __init__(
        self, work: Callable[[Transaction, list[Any]], Sequence[R]], item: Any, then: Callable[[Ticket[R]], None] | None
    ) -> None:
        self._work = work
        self._item = item
        self._then = then
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
        if self._then is not None:
            try:
                self._then(self)
            except Exception:
                # It is done all the same; the writer is everybody's, and must go on.
                log.exception("callback_failed")

    def peek(self) -> R | None:
        """The result, for `then`; None if the work failed."""
        return self._result

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
        committed: called after each commit, with how many pieces it had and the seconds that it took.
        last: the work that comes after all other of a transaction, as it takes locks that others wait for.
        finish: called at the end of each transaction, within it.
        guard: says whether the file that is written is the one at its path; None for a database that is no file.

    Attributes:
        failing: why the last write failed, as the database says it; None if it did not.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        limit: int = 10_000,
        committed: Callable[[int, float], None] = lambda _items, _seconds: None,
        last: Callable[..., Any] | None = None,
        finish: Callable[[Transaction], None] = lambda _transaction: None,
        guard: FileGuard | None = None,
    ) -> None:
        self._engine = engine
        self._guard = guard
        self._committed = committed
        self._last = last
        self._finish = finish
        self._limit = limit
        self._queue: SimpleQueue[Ticket[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="ledger-writer", daemon=True)
        self._connection: Connection | None = None
        self._closed = False
        self.failing: str | None = None
        self._waits_since: float | None = None

    @property
    def queued(self) -> int:
        """How many pieces of work wait."""
        return self._queue.qsize()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Commit all that was submitted, then end the thread. What is submitted later is refused."""
        self._closed = True
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    @property
    def waits(self) -> float:
        """For how many seconds the database has kept this waiting, one try after the other; 0 if it does not."""
        since = self._waits_since
        return 0.0 if since is None else time.monotonic() - since

    def submit(
        self,
        work: Callable[[Transaction, list[T]], Sequence[R]],
        item: T,
        then: Callable[[Ticket[R]], None] | None = None,
    ) -> Ticket[R]:
        """Queue one item of `work`; items of the same work that queue up together are done by one call.

        Args:
            work: takes the transaction and a list of items, returns one result for each.
            item: this caller's item.
            then: called in the writer's thread when the ticket has its result; must be quick and raise nothing.

        Raises:
            Unavailable: too much is queued already, or the writer is closed.
        """
        if self._closed:
            raise Unavailable("draining")
        if self._queue.qsize() >= self._limit:
            raise Unavailable("ledger_full")
        ticket: Ticket[R] = Ticket(work, item, then)
        self._queue.put(ticket)
        return ticket

    def _loop(self) -> None:
        closing = False
        batch: list[Ticket[Any]] = []
        while not closing:
            entry: Ticket[Any] | None = self._queue.get()
            for _ in range(LINGER_TIMES):
                if self._queue.qsize() + 1 >= len(batch):
                    break
                time.sleep(LINGER_SECONDS)
            batch = []
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
        self._drop()

    def _commit(self, batch: list[Ticket[Any]], *, again: bool = True) -> bool:
        """Do a batch and hand over its results; whether there was a database to do it.

        Args:
            batch: what is to be done.
            again: whether to try once more if the connection turns out to be lost before anything was committed, as
                it is after the server was restarted.
        """
        began = time.monotonic()
        if self._waits_since is None:
            self._waits_since = began
        try:
            results = self._transact(batch)
        except BaseException as error:  # noqa: BLE001 (whatever it is, SystemExit too, it belongs to those who wait)
            if time.monotonic() - began < QUICK_SECONDS:
                self._waits_since = None
            cause = error.__cause__ if isinstance(error, _CannotBegin | _Undone) else error
            there = not isinstance(error, _CannotBegin)
            if isinstance(error, _Undone) and _is_lost(cause):
                if again:
                    return self._commit(batch, again=False)
                there = False
            if there and len(batch) > 1:
                # One bad item must not take the others with it.
                return self._singly(batch, cause)
            if isinstance(cause, SQLAlchemyError):
                self._note(database.plain(cause), damage=database.is_damage(cause))
            for ticket in batch:
                ticket.settle(None, cause)
            return there
        self._waits_since = None
        self._note(None)
        for ticket, result in results:
            ticket.settle(result)
        self._committed(len(batch), time.monotonic() - began)
        return True

    def _singly(self, batch: list[Ticket[Any]], cause: BaseException | None) -> bool:
        """Do each item of a batch by itself, as long as there is a database; whether there was to the end."""
        for place, ticket in enumerate(batch):
            if not self._commit([ticket]):
                for rest in batch[place + 1 :]:
                    rest.settle(None, cause if isinstance(cause, SQLAlchemyError) else Unavailable("ledger_down"))
                return False
        return True

    def _note(self, failing: str | None, *, damage: bool = False) -> None:
        """Log once that writing fails, and once that it works again, however many wait for it."""
        if failing and damage and self._guard is not None:
            self._guard.damaged(failing)
        if failing and not self.failing:
            log.error("ledger_write_failed", why=failing, next=database.cure(failing) + UNTIL_THEN)
        elif self.failing and not failing:
            log.info("ledger_writes_again")
        self.failing = failing

    def _transact(self, batch: list[Ticket[Any]]) -> list[tuple[Ticket[Any], Any]]:
        groups: dict[Any, list[Ticket[Any]]] = {}
        for ticket in batch:
            groups.setdefault(ticket._work, []).append(ticket)  # noqa: SLF001 (one idea in two classes)
        if self._last in groups:
            groups[self._last] = groups.pop(self._last)
        results: list[tuple[Ticket[Any], Any]] = []
        transaction, complete = None, False
        if self._guard is not None and self._guard.look_before():
            raise _CannotBegin from Unavailable("ledger_down")
        try:
            with self._begun() as connection:
                transaction = Transaction(connection)
                for work, tickets in groups.items():
                    done = work(transaction, [ticket._item for ticket in tickets])  # noqa: SLF001 (as above)
                    results.extend(zip(tickets, done, strict=True))
                self._finish(transaction)
                # Once for the whole batch: whoever tells something commits alone.
                transaction.news.tell(connection)
                complete = True
        except BaseException as error:
            if transaction is not None:
                transaction.ended(durable=False)
            if transaction is None or complete:
                raise
            raise _Undone from error
        if self._guard is not None and self._guard.look():
            # It may be in a file that the next process will not find: as far as anybody is told, it was not done.
            self._guard.unconfirmed = True
            transaction.ended(durable=False)
            raise _CannotBegin from Unavailable("ledger_down")
        transaction.ended(durable=True)
        return results

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """A transaction on the one connection that this thread keeps; on a new one after any trouble."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            opened = self._connection.begin()
        except SQLAlchemyError as error:
            self._drop()
            raise _CannotBegin from error
        try:
            with opened:
                yield self._connection
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _is_lost(error: BaseException | None) -> bool:
    """Whether an error says that there is no connection any more, rather than what is wrong with a statement."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


class _CannotBegin(Exception):
    """There is no database to write to, or not the one at its path: no item is to blame, and none is tried singly."""


class _Undone(Exception):
    """A transaction failed before its COMMIT was sent, so that nothing of it was done."""


def run(transaction: Transaction, functions: list[Callable[[Transaction], Any]]) -> list[Any]:
    """Work whose items are functions of the transaction: for what has no batch form."""
    return [function(transaction) for function in functions]
