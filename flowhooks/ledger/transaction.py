"""One open write transaction, with the callbacks that run once it is durable."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from flowhooks.ledger.notifications import ChangeNotice
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from flowhooks.model.error_group import ErrorIdentity

log = get_logger(__name__)


class SharedRows(IntEnum):
    """Rows that all processes change, in the order in which each transaction locks them."""

    ERROR_GROUPS = 1
    TRENDS = 2
    IGNORED_REQUESTS = 3


class OrderGroup(NamedTuple):
    """The deliveries of one handler with one order key, which run one at a time.

    Attributes:
        handler: the handler's id.
        key: the order key.
    """

    handler: str
    key: str


class GroupChange(NamedTuple):
    """The change of an error group in one transaction.

    Attributes:
        identity: what its attempts have in common; None if none is added.
        added: number of attempts that are added.
        first_seen_at: when the first of these ended, in microseconds since 1970.
        last_seen_at: when the last of these ended.
        sample: the delivery and the number of the last of these.
        deleted: number of attempts that are deleted.
    """

    identity: ErrorIdentity | None = None
    added: int = 0
    first_seen_at: int = 0
    last_seen_at: int = 0
    sample: tuple[str, int] = ("", 0)
    deleted: int = 0


class AcceptedCounter(NamedTuple):
    """The stored number of events that a process has accepted.

    Attributes:
        process: the id of the process.
        value: the number.
    """

    process: str
    value: int


class WriteTransaction:
    """One open transaction, with the callbacks that run once it is durable or rolled back.

    Attributes:
        connection: the writing connection.
        accepted: the counter of events that this process has accepted, if the transaction changes it; otherwise None.
        notice: the changes that other processes are notified of once the transaction is durable.
        freed_groups: order groups that a delivery has left, so that the next one may start.
        blocked_groups: order groups in which a delivery was put behind another one.
        freed_handlers: ids of limited handlers of which an attempt has ended.
        deferred_jobs: handlers and times for which a runner has stored a job in this transaction.
        error_changes: changes of error groups, by the group's fingerprint.
    """

    __slots__ = (
        "_before_commit",
        "_on_commit",
        "_on_rollback",
        "accepted",
        "blocked_groups",
        "connection",
        "deferred_jobs",
        "error_changes",
        "freed_groups",
        "freed_handlers",
        "notice",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection: Any = connection
        self.accepted: AcceptedCounter | None = None
        self.notice = ChangeNotice()
        self.freed_groups: set[OrderGroup] = set()
        self.blocked_groups: set[OrderGroup] = set()
        self.freed_handlers: set[str] = set()
        self.deferred_jobs: set[tuple[str, int]] = set()
        self.error_changes: dict[str, GroupChange] = {}
        self._before_commit: list[tuple[SharedRows, Callable[[], None]]] = []
        self._on_commit: list[Callable[[], None]] = []
        self._on_rollback: list[Callable[[], None]] = []

    def before_commit(self, rows: SharedRows, callback: Callable[[], None]) -> None:
        """Call `callback` at the end of this transaction, because it changes rows that other processes wait for."""
        self._before_commit.append((rows, callback))

    def run_before_commit(self) -> None:
        """Run the callbacks of `before_commit`, in the order of the rows that they lock."""
        for _, callback in sorted(self._before_commit, key=lambda entry: entry[0]):
            callback()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the writer's thread once this transaction is durable. It must return quickly."""
        self._on_commit.append(callback)

    def notify_peers(self) -> None:
        """After the commit, notify other processes of deliveries that this process does not run itself."""
        self.notice.work = True

    def after_rollback(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the writer's thread if this transaction does not become durable."""
        self._on_rollback.append(callback)

    def run_callbacks(self, *, durable: bool) -> None:
        """Run the callbacks for a commit, or for a rollback."""
        for callback in self._on_commit if durable else self._on_rollback:
            try:
                callback()
            except Exception:
                # The ledger does not depend on the callback: the runner polls, and finds the deliveries that it was not
                # given.
                log.exception("post_commit_hook_failed", durable=durable)
