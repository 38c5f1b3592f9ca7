"""What a handler writes into the ledger's own database and the outcome of its attempt: together, or not at all.

It must not know how a handler is run. The block that a handler writes in is left before its outcome is known, so the
transaction stays open until then, and is committed by whoever records the outcome, with the usual fencing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import FlowhooksError, TransactionError, Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.database.guarded_session import Lent, open_lending
from flowhooks.ledger.group_commit import Transaction
from flowhooks.ledger.tables import attempts, deliveries
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from flowhooks.ledger.attempts import Settlement, Settling

_NOW: Final = select(deliveries.c.state, deliveries.c.attempt).where(deliveries.c.id == bindparam("delivery"))
_OUTCOME: Final = select(attempts.c.outcome).where(
    attempts.c.delivery_id == bindparam("delivery"), attempts.c.number == bindparam("number")
)
_STALE: Final = (
    "this attempt is no longer the current one: its process was silent for so long that the others took it for dead, "
    "and its delivery has gone on without it; nothing was written"
)


class Joints:
    """Where attempts' own transactions are opened: beside the writer's connection, and only once one is asked for.

    Args:
        url: the ledger's database.
        settling: records outcomes.
        finish: is given each transaction before its commit, to see what has its turn by it.
        most: how many may be open at once.

    Attributes:
        settling: as given.
        finish: as given.
        closed: whether nothing is committed any more.
    """

    def __init__(self, url: str, *, settling: Settling, finish: Callable[[Transaction], None], most: int) -> None:
        self._url = url
        self._most = most
        self._opening = threading.Lock()
        self._opened: Engine | None = None
        self.settling = settling
        self.finish = finish
        self.closed = False

    def of(self, delivery_id: str, attempt: int) -> Joint:
        """The transaction that this attempt may open."""
        return Joint(self, delivery_id, attempt)

    def engine(self) -> Engine:
        """Where sessions are lent from.

        Raises:
            TransactionError: the ledger is on another database than PostgreSQL.
        """
        if not database.is_shared(self._url):
            raise TransactionError(
                "delivery.transaction() needs the ledger on PostgreSQL, and this one is on SQLite: move it there "
                "(`flowhooks db copy`), or write with delivery.id as an idempotency key instead"
            )
        with self._opening:
            if self._opened is None:
                self._opened = open_lending(self._url, self._most)
        return self._opened

    def close(self) -> None:
        """Let go of the database. What is still open comes to nothing."""
        self.closed = True
        with self._opening:
            if self._opened is not None:
                database.let_go(self._opened)


class Joint:
    """The transaction of one attempt, for the thread that runs it. Nothing is opened before its handler asks."""

    def __init__(self, joints: Joints, delivery_id: str, attempt: int) -> None:
        self._joints = joints
        self._delivery_id = delivery_id
        self._attempt = attempt
        self._thread = threading.get_ident()
        self._used = False
        self._over = False
        self._inside = False
        self._lent: Lent | None = None

    @contextmanager
    def block(self) -> Iterator[Connection]:
        """What a handler writes in; an exception that leaves it undoes everything.

        Raises:
            TransactionError: it cannot be used so, or this attempt is not the current one any more.
        """
        if self._over:
            raise TransactionError("delivery.transaction() is for the handler, while it runs; this attempt has ended")
        if threading.get_ident() != self._thread:
            raise TransactionError("delivery.transaction() is for the thread that its handler runs in")
        if self._used:
            raise TransactionError(
                "delivery.transaction() was used a second time: an attempt has one, and all that is to be committed "
                "together belongs into its block"
            )
        engine = self._joints.engine()
        self._used = True
        try:
            self._lent = Lent(engine)
        except SQLAlchemyError as error:
            raise TransactionError(f"no transaction can be had: {database.plain(error)}") from error
        self._inside = True
        try:
            with self._lent.ours():
                self._see_that_it_is_current(self._lent.connection)
            yield self._lent.connection
            self._lent.take_back()
            with self._lent.ours():
                self._see_that_it_is_current(self._lent.connection)
        except BaseException:
            self._undo()
            raise
        finally:
            self._inside = False

    @property
    def pending(self) -> bool:
        """Whether there is something that waits for the attempt's outcome."""
        return self._lent is not None

    def over(self) -> None:
        """The handler has returned: it opens nothing more.

        Raises:
            TransactionError: it has not left its block; what it wrote is undone.
        """
        self._over = True
        if self._inside:
            self._undo()
            raise TransactionError(
                "the handler returned from within the block of delivery.transaction(), without leaving it: "
                "use it by `with`; nothing was written"
            )

    def close(self) -> None:
        """End it: nothing more is opened, and what is not committed is undone. Raises nothing."""
        self._over = True
        self._undo()

    def _undo(self) -> None:
        lent, self._lent = self._lent, None
        if lent is not None:
            lent.close(for_good=self._joints.closed)

    def settle(self, settlement: Settlement) -> bool:
        """Commit what the handler wrote, and how its attempt ended.

        Returns:
            Whether that is so; False if the attempt was no longer the current one, which then wrote nothing.

        Raises:
            TransactionError: nothing was written; says why.
            CommitUnanswered: the database did not say whether it has committed.
        """
        assert self._lent is not None  # noqa: S101 (whoever asks has seen that it is pending)
        if self._joints.closed:
            raise TransactionError("its process has let go of the ledger; nothing was written")
        lent, connection = self._lent, self._lent.connection
        transaction = Transaction(connection)
        ended = False
        try:
            with lent.ours():
                lent.hurry()
                (settled,) = self._joints.settling(transaction, [settlement])
                if not settled:
                    return False
                self._joints.finish(transaction)
                transaction.news.tell(connection)
                try:
                    connection.commit()
                except SQLAlchemyError as error:
                    ended = True
                    raise CommitUnanswered(self._joints, transaction, settlement, database.plain(error)) from error
            ended = True
            transaction.ended(durable=True)
        except CommitUnanswered:
            raise
        except SQLAlchemyError as error:
            raise TransactionError(f"nothing was written: {database.plain(error)}") from error
        except FlowhooksError as error:
            raise TransactionError(f"nothing was written: {error}") from error
        finally:
            if not ended:
                transaction.ended(durable=False)
            self._undo()
        return True

    def _see_that_it_is_current(self, connection: Connection) -> None:
        """Tell the handler as early as can be; what counts is that it is so at the commit."""
        try:
            now = connection.execute(_NOW, {"delivery": self._delivery_id}).one_or_none()
        except SQLAlchemyError as error:
            raise TransactionError(f"the transaction cannot be used: {database.plain(error)}") from error
        if now is None or (now.state, now.attempt) != (State.RUNNING, self._attempt):
            raise TransactionError(_STALE)


class CommitUnanswered(Exception):
    """The connection broke while it committed: it may or may not have come through. The ledger knows.

    Args:
        joints: where to ask.
        transaction: what was to be committed.
        settlement: of which attempt.
        why: what the driver says.
    """

    def __init__(self, joints: Joints, transaction: Transaction, settlement: Settlement, why: str) -> None:
        super().__init__(why)
        self._joints = joints
        self._transaction = transaction
        self._settlement = settlement
        self.why = why

    def came_through(self) -> bool:
        """Whether it has committed. Waits for the database to have done with it one way or the other.

        Raises:
            Unavailable: that cannot be learnt just now.
        """
        try:
            with self._joints.engine().begin() as connection:
                # The lock is had only when the transaction in question, which holds it, has ended.
                connection.execute(_NOW.with_for_update(), {"delivery": self._settlement.delivery_id}).all()
                of_it = {"delivery": self._settlement.delivery_id, "number": self._settlement.attempt}
                done = connection.execute(_OUTCOME, of_it).scalar() == OutcomeKind.SUCCEEDED
        except SQLAlchemyError as error:
            raise Unavailable("ledger_down") from error
        self._transaction.ended(durable=done)
        return done
