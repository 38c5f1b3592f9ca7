"""What the processes that share a ledger tell one another, within its transactions.

On PostgreSQL it is told by NOTIFY once the transaction is durable. It says only where to look: what is true stands in
the ledger, so that news that are lost, late or doubled do no harm. Where one process has the database to itself there
is nobody to tell.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection

MAX_MESSAGE_BYTES: Final = 7_900
"""Of one message; PostgreSQL takes less than 8,000."""
PING_INTERVAL: Final = 10.0
"""How long it may be silent before the listening connection is tried: one that was cut says nothing either."""
RETRY_INTERVAL: Final = 1.0
"""Between tries to listen again."""
BATCH_DELAY: Final = 0.005
"""Rest after news, so that what comes in quick succession is looked after together: 200 looks a second at the most."""

log = structlog.get_logger(__name__)


class ChangeNotice:
    """What has changed.

    Attributes:
        events: ids of events with deliveries that have gone on in a way that may end a wait.
        work: whether there is something to run that the process that stored it does not run itself.
        handlers: whether handlers were registered, or retired.
        missed: whether there may have been more that was not heard.
    """

    __slots__ = ("events", "handlers", "missed", "work")

    def __init__(
        self, *, events: Iterable[str] = (), work: bool = False, handlers: bool = False, missed: bool = False
    ) -> None:
        self.events = set(events)
        self.work = work
        self.handlers = handlers
        self.missed = missed

    def __bool__(self) -> bool:
        return bool(self.events or self.work or self.handlers or self.missed)

    def messages(self) -> list[str]:
        """The same as texts, none of them too long for a notification."""
        texts = list(_pack(sorted(self.events)))
        texts += ["work"] if self.work else []
        return texts + (["handlers"] if self.handlers else [])

    def add(self, message: str) -> None:
        """Take in one of the texts that `messages` made. What a newer version says besides is passed over."""
        kind, *ids = message.split(" ")
        if kind == "events":
            self.events.update(ids)
        elif kind == "work":
            self.work = True
        elif kind == "handlers":
            self.handlers = True

    def notify(self, connection: Connection) -> None:
        """Have it told to all who listen, once the connection's transaction is durable."""
        if self:
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
    """Hears what other processes tell, and this one too, in a thread and on a connection of its own.

    Where the connection is lost it listens again as soon as that can be done, and then says that news were missed.

    Args:
        url: the database; it must be a shared one.
        on_change: called in the listener's thread. If it raises a `FlowhooksError`, it is called again later, for news
            that were missed.
    """

    def __init__(self, url: str, *, on_change: Callable[[ChangeNotice], None]) -> None:
        self._url = url
        self._on_change = on_change
        self._stopping = threading.Event()
        self._disconnected = False
        self._wakeup_r, self._wakeup_w = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="listener", daemon=True)

    def start(self) -> None:
        """Start listening, soon."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End it, waiting `timeout` seconds at the most."""
        self._stopping.set()
        self._wakeup_w.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self._wakeup_r.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except SQLAlchemyError as error:
                self._log_disconnected(database.error_text(error))
            except FlowhooksError as error:
                self._log_disconnected(str(error))
            except Exception as error:
                # A fault of ours must not end the listening for good.
                if not self._disconnected:
                    log.exception("notification_listener_fault")
                self._log_disconnected(type(error).__name__)
            self._stopping.wait(RETRY_INTERVAL)

    def _log_disconnected(self, why: str) -> None:
        if not self._disconnected and not self._stopping.is_set():
            log.warning(
                "notifications_disconnected", why=why, next="it tries again; until then others' outcomes are heard late"
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
                news = ChangeNotice()
                for message in messages:
                    news.add(message)
                messages.clear()
                if news:
                    self._on_change(news)
                    self._stopping.wait(BATCH_DELAY)
