"""Transactions of handlers: their writes and the outcome of the attempt are committed together, or not at all.

The handler leaves its block before the outcome of its attempt is known. So the transaction stays open until then, and
the code that records the outcome commits it, with the usual fencing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import FlowhooksError, TransactionError, Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.database.guarded_session import GuardedSession, SessionPool
from flowhooks.ledger.tables import attempts, deliveries
from flowhooks.ledger.transaction import WriteTransaction
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from flowhooks.ledger.attempts import AttemptResult, ResultRecorder

_CURRENT_ATTEMPT: Final = select(deliveries.c.state, deliveries.c.attempt).where(
    deliveries.c.id == bindparam("delivery")
)
_OUTCOME: Final = select(attempts.c.outcome).where(
    attempts.c.delivery_id == bindparam("delivery"), attempts.c.number == bindparam("number")
)
_FENCED_TEXT: Final = (
    "this attempt is no longer the current one: its process sent no heartbeat and expired, and other processes "
    "continued its delivery; nothing was written"
)


class HandlerTransaction:
    """The transaction of one attempt, for the thread that runs it. It is opened only when the handler asks for it.

    Its life cycle: `begin`, in which the handler writes; `end_block`, when the handler has returned; then
    `commit_with_result` if `is_open`, otherwise `close`.

    Args:
        sessions: the pool of its session.
        delivery_id: the delivery.
        attempt: the number of the attempt.
        result_recorder: records the outcome.
        before_commit: called with the transaction before its COMMIT, to promote the next deliveries of order groups.
    """

    def __init__(
        self,
        sessions: SessionPool,
        delivery_id: str,
        attempt: int,
        *,
        result_recorder: ResultRecorder,
        before_commit: Callable[[WriteTransaction], None],
    ) -> None:
        self._sessions = sessions
        self._delivery_id = delivery_id
        self._attempt = attempt
        self._result_recorder = result_recorder
        self._before_commit = before_commit
        self._thread = threading.get_ident()
        self._used = False
        self._ended = False
        self._in_block = False
        self._session: GuardedSession | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open the transaction that the handler writes in; an exception that leaves the block rolls it back.

        Raises:
            TransactionError: the transaction cannot be used in this way, or this attempt is no longer the current one.
        """
        if self._ended:
            raise TransactionError(
                "delivery.transaction() may be used only while the handler runs; this attempt has ended"
            )
        if threading.get_ident() != self._thread:
            raise TransactionError("delivery.transaction() may be used only in the thread of its handler")
        if self._used:
            raise TransactionError(
                "delivery.transaction() was called a second time: an attempt has one transaction, so put everything "
                "that is committed together into its block"
            )
        engine = self._sessions.engine()
        self._used = True
        try:
            self._session = GuardedSession(engine)
        except SQLAlchemyError as error:
            raise TransactionError(f"no transaction can be opened: {database.error_text(error)}") from error
        self._in_block = True
        try:
            with self._session.internal():
                self._check_fencing(self._session.connection)
            yield self._session.connection
            self._session.end_handler_block()
            with self._session.internal():
                self._check_fencing(self._session.connection)
        except BaseException:
            self._rollback()
            raise
        finally:
            self._in_block = False

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open and waits for the outcome of the attempt."""
        return self._session is not None

    def end_block(self) -> None:
        """Record that the handler has returned and can open no transaction any more.

        Raises:
            TransactionError: the handler has not left its block; its writes are rolled back.
        """
        self._ended = True
        if self._in_block:
            self._rollback()
            raise TransactionError(
                "the handler returned without leaving the block of delivery.transaction(): use it in a `with` "
                "statement; nothing was written"
            )

    def close(self) -> None:
        """End the transaction: roll back uncommitted writes, and allow no new transaction. Raises nothing."""
        self._ended = True
        self._rollback()

    def _rollback(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close(discard=self._sessions.closed)

    def commit_with_result(self, result: AttemptResult) -> bool:
        """Commit the handler's writes together with the result of its attempt.

        Returns:
            Whether they were committed; False if the attempt was no longer the current one, and nothing was written.

        Raises:
            TransactionError: nothing was written; the text gives the reason.
            CommitOutcomeUnknown: the connection was lost during the COMMIT.
        """
        assert self._session is not None  # noqa: S101 (the caller has checked `is_open`)
        if self._sessions.closed:
            raise TransactionError("its process has closed the ledger; nothing was written")
        session, connection = self._session, self._session.connection
        transaction = WriteTransaction(connection)
        ended = False
        try:
            with session.internal():
                session.limit_idle()
                (recorded,) = self._result_recorder(transaction, [result])
                if not recorded:
                    return False
                self._before_commit(transaction)
                transaction.run_before_commit()
                transaction.notice.notify(connection)
                try:
                    connection.commit()
                except SQLAlchemyError as error:
                    ended = True
                    raise CommitOutcomeUnknown(
                        self._sessions, transaction, result, database.error_text(error)
                    ) from error
            ended = True
            transaction.run_callbacks(durable=True)
        except CommitOutcomeUnknown:
            raise
        except SQLAlchemyError as error:
            raise TransactionError(f"nothing was written: {database.error_text(error)}") from error
        except FlowhooksError as error:
            raise TransactionError(f"nothing was written: {error}") from error
        finally:
            if not ended:
                transaction.run_callbacks(durable=False)
            self._rollback()
        return True

    def _check_fencing(self, connection: Connection) -> None:
        # An early check, so that the handler gets the error. The check at the commit decides.
        try:
            now = connection.execute(_CURRENT_ATTEMPT, {"delivery": self._delivery_id}).one_or_none()
        except SQLAlchemyError as error:
            raise TransactionError(f"the transaction cannot be used: {database.error_text(error)}") from error
        if now is None or (now.state, now.attempt) != (State.RUNNING, self._attempt):
            raise TransactionError(_FENCED_TEXT)


class CommitOutcomeUnknown(Exception):
    """The connection was lost during the COMMIT, so the transaction may or may not have been committed.

    Args:
        sessions: the pool of sessions with which the database can be asked.
        transaction: the transaction.
        attempt_result: the result that was to be committed.
        why: the driver's error text.
    """

    def __init__(
        self, sessions: SessionPool, transaction: WriteTransaction, attempt_result: AttemptResult, why: str
    ) -> None:
        super().__init__(why)
        self._sessions = sessions
        self._transaction = transaction
        self._attempt_result = attempt_result
        self.why = why

    def was_committed(self) -> bool:
        """Return whether the transaction was committed, and run its callbacks.

        Waits until the database has ended the transaction.

        Raises:
            Unavailable: the database cannot be asked now.
        """
        try:
            with self._sessions.engine().begin() as connection:
                # The row lock is granted only after the transaction in question, which holds it, has ended.
                connection.execute(
                    _CURRENT_ATTEMPT.with_for_update(), {"delivery": self._attempt_result.delivery_id}
                ).all()
                of_it = {"delivery": self._attempt_result.delivery_id, "number": self._attempt_result.attempt}
                committed = connection.execute(_OUTCOME, of_it).scalar() == OutcomeKind.SUCCEEDED
        except SQLAlchemyError as error:
            raise Unavailable("ledger_down") from error
        self._transaction.run_callbacks(durable=committed)
        return committed
