"""Notifications between the processes that share a ledger, sent within its transactions.

PostgreSQL delivers them by NOTIFY after the COMMIT. They are hints: the receiver reads the ledger, so a lost, late or
repeated notification does no harm. On SQLite nothing is sent, because only one process uses the database.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import database
from flowhooks.logger import get_logger
from flowhooks.sockets import socket_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection

# PostgreSQL accepts less than 8,000 bytes.
MAX_MESSAGE_BYTES: Final = 7_900
"""Maximum size of one message."""
# A connection that was cut is silent, too.
PING_INTERVAL: Final = 10.0
"""Seconds without a notification after which the listening connection is tested."""
RETRY_INTERVAL: Final = 1.0
"""Seconds between attempts to reconnect."""
# Notifications in quick succession are handled together: at most 200 times a second.
BATCH_DELAY: Final = 0.005
"""Seconds of pause after a notification."""

log = get_logger(__name__)


class ChangeNotice:
    """The changes that are announced to other processes.

    Attributes:
        events: ids of events with deliveries that changed in a way that may end a wait.
        work: whether there are deliveries to run that the process which stored them does not run itself.
        handlers: whether the registered, retired or paused handlers changed, or the processes that run them.
        operations: whether a bulk operation was started or changed by an operator.
        missed: whether earlier notifications may have been lost.
    """

    __slots__ = ("events", "handlers", "missed", "operations", "work")

    def __init__(
        self,
        *,
        events: Iterable[str] = (),
        work: bool = False,
        handlers: bool = False,
        operations: bool = False,
        missed: bool = False,
    ) -> None:
        self.events = set(events)
        self.work = work
        self.handlers = handlers
        self.operations = operations
        self.missed = missed

    def __bool__(self) -> bool:
        return bool(self.events or self.work or self.handlers or self.operations or self.missed)

    def messages(self) -> list[str]:
        """Return the changes as messages that are short enough for a notification."""
        texts = list(_pack(sorted(self.events)))
        texts += ["work"] if self.work else []
        texts += ["operations"] if self.operations else []
        return texts + (["handlers"] if self.handlers else [])

    def add(self, message: str) -> None:
        """Add a message that `messages` made. Messages of an unknown kind, from a newer version, are ignored."""
        kind, *ids = message.split(" ")
        if kind == "events":
            self.events.update(ids)
        elif kind == "work":
            self.work = True
        elif kind == "handlers":
            self.handlers = True
        elif kind == "operations":
            self.operations = True

    def notify(self, connection: Connection) -> None:
        """Send the changes to all listeners once the transaction is committed. On SQLite there are no listeners."""
        if connection.dialect.name != "sqlite" and self:
            database.notify(connection, self.messages())


def _pack(ids: Iterable[str]) -> Iterator[str]:
    message, size = ["events"], len("events")
    for event_id in ids:
        more = 1 + len(event_id.encode())
        if size + more > MAX_MESSAGE_BYTES:
            yield " ".join(message)
            message, size = ["events"], len("events")
        message.append(event_id)
        size += more
    if len(message) > 1:
        yield " ".join(message)


class NotificationListener:
    """Receives the notifications of all processes, its own included, in a thread and on a connection of its own.

    If the connection is lost it reconnects as soon as it can, and then reports that notifications may have been missed.

    Args:
        url: the database, which must be a shared one.
        on_change: called in the listener's thread. If it raises a `FlowhooksError`, the listener reconnects and calls
            it with `missed` set.
    """

    def __init__(self, url: str, *, on_change: Callable[[ChangeNotice], None]) -> None:
        self._url = url
        self._on_change = on_change
        self._stopping = threading.Event()
        self._disconnected = False
        self._wakeup_r, self._wakeup_w = socket_pair()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Start the thread. It connects in the background."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop listening. Wait at most `timeout` seconds for the thread."""
        self._stopping.set()
        self._wakeup_w.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self._wakeup_r.close()

    def _run(self) -> None:
        with self._wakeup_r:  # `stop` may not wait for the end
            while not self._stopping.is_set():
                try:
                    self._listen()
                except SQLAlchemyError as error:
                    self._log_disconnected(database.error_text(error))
                except FlowhooksError as error:
                    self._log_disconnected(str(error))
                except Exception as error:
                    # A defect in our own code must not end the listener.
                    if not self._disconnected:
                        log.exception("notification_listener_fault")
                    self._log_disconnected(type(error).__name__)
                self._stopping.wait(RETRY_INTERVAL)

    def _log_disconnected(self, why: str) -> None:
        if not self._disconnected and not self._stopping.is_set():
            log.warning(
                "notifications_disconnected",
                why=why,
                next="it connects again; until then outcomes of other processes are noticed late",
            )
        self._disconnected = True

    def _listen(self) -> None:
        """Listen until closed or disconnected."""
        messages: list[str] = []
        with database.listen(self._url, messages.append) as (descriptor, take_in):
            self._on_change(ChangeNotice(missed=True))
            if self._disconnected:
                self._disconnected = False
                log.info("notifications_reconnected")
            waiting = select.poll()
            waiting.register(descriptor, select.POLLIN)
            waiting.register(self._wakeup_r, select.POLLIN)
            while not self._stopping.is_set():
                if not messages:
                    waiting.poll(PING_INTERVAL * 1000)
                if self._stopping.is_set():
                    return
                take_in()
                notice = ChangeNotice()
                for message in messages:
                    notice.add(message)
                messages.clear()
                if notice:
                    self._on_change(notice)
                    self._stopping.wait(BATCH_DELAY)
