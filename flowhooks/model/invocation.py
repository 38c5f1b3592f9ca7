"""The private state of one call of a handler, so that the `Delivery` which the handler gets is plain data."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from flowhooks.errors import TransactionError
from flowhooks.model.attempt_log import AttemptLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from flowhooks.model.event import Event

# A wrapper of a plugin calls the built-in `run_handler`, and a handler calls `delivery.transaction()`. Neither passes
# the invocation on, so both find it here. Another thread has another context, and finds nothing.
_current: Final[ContextVar[Invocation | None]] = ContextVar("flowhooks_invocation", default=None)


def _refuse() -> NoReturn:
    raise TransactionError(
        "delivery.transaction() may be used only while the handler runs as an attempt, in the thread of its handler: "
        "this attempt has ended or was never started, or this is another thread"
    )


@dataclass(slots=True, eq=False)
class Invocation:
    """One call of a handler: what the dispatcher prepares for it, and what it learns of it.

    As a context manager, which is not nested, it is the current invocation of this thread.

    Attributes:
        delivery_id: the delivery's id.
        attempt: the attempt's number, from 1.
        begin_transaction: opens the transaction of `Delivery.transaction()`.
        isolated_call: calls the handler's function in a process of its own; None: the function runs in this thread.
        entered: whether the handler's function was entered, or may have been entered in its process.
        result_dropped: why the handler's process could not send the return value; `""` if it sent it.
        log_fields: returns the fields that name the delivery and its event in log records of the handler.
        log: the log records of the handler.
    """

    delivery_id: str
    attempt: int
    begin_transaction: Callable[[], AbstractContextManager[Connection]] = _refuse
    isolated_call: Callable[[Event], Any] | None = None
    entered: bool = False
    result_dropped: str = ""
    log_fields: Callable[[], Mapping[str, Any]] = dict
    log: AttemptLog = field(default_factory=AttemptLog)
    _token: Token[Invocation | None] = field(init=False, repr=False)

    def __enter__(self) -> None:
        self._token = _current.set(self)

    def __exit__(self, *_exc_info: object) -> None:
        _current.reset(self._token)


@contextmanager
def outside_of_invocation() -> Iterator[None]:
    """Run the block in no invocation."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def current_invocation() -> Invocation | None:
    """Return the invocation in which this code runs; None outside of a call of a handler, and in a probe."""
    return _current.get()


def begin_transaction(delivery_id: str, attempt: int) -> AbstractContextManager[Connection]:
    """Open the transaction of an attempt.

    Raises:
        TransactionError: this code runs in no invocation, or in that of another attempt.
    """
    invocation = _current.get()
    if invocation is None:
        _refuse()
    if (invocation.delivery_id, invocation.attempt) != (delivery_id, attempt):
        raise TransactionError(
            "delivery.transaction() may be used only while the handler runs as an attempt, in the thread of its "
            "handler: the attempt that runs in this thread is another one"
        )
    return invocation.begin_transaction()
