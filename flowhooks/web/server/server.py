"""waitress, hardened, for one application on one address.

Written against waitress 3.0.2. `tests/unit/test_private_names.py` lists what this uses of its internals.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog
from waitress import wasyncore  # type: ignore[import-untyped]  # waitress has no types
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]  # waitress has no types
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]  # waitress has no types
from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]  # waitress has no types

from flowhooks.web.server.channel import SEND_BUFFER_BYTES, Channel
from flowhooks.web.server.sockets import bind, bound_address
from flowhooks.web.server.trusted_proxy import TrustedProxy

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication

IDENT: Final = "flowhooks"
"""What the `Server` header says: no version, which would only help who looks for an old one."""
MAX_BODY_BYTES_IN_MEMORY: Final = 64 * 1024
"""Bytes of a body beyond which it is kept in a temporary file, so that many large ones do not fill the memory."""
STOP_TIMEOUT: Final = 1.0
"""How long `close` waits for threads that still run a request."""
RETIRING_IDLE_TIMEOUT: Final = 5.0
"""How long a connection may stay idle when another process is to take over: a client that calls oftener is told in an
answer that the connection closes, so that none sends a request into one that is being closed."""
ACCEPT_PAUSE: Final = 0.5
"""How long no connection is accepted after the process has run out of files."""
OUT_OF_FILES_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take.

    Attributes:
        max_body_bytes: the longest body that is accepted.
        max_header_bytes: the longest request line and headers together that are accepted.
        read_timeout: seconds in which a whole request must arrive, from its first byte.
        idle_timeout: seconds for which a connection may stay open without a request, or with an
            answer that the client does not read.
        max_connections: open connections; further ones wait to be accepted.
        trusted_proxy: the address of a proxy whose word is taken for who has called; `""`: nobody's is.
    """

    max_body_bytes: int = 1048576
    max_header_bytes: int = 16384
    read_timeout: float = 10.0
    idle_timeout: float = 60.0
    max_connections: int = 1000
    trusted_proxy: str = ""


class Server:
    """One application on one address.

    The address is bound at once, unless the socket is inherited. Connections are answered while `serve` runs, in a
    thread of the caller's. Every other method may be called from any thread, and from a signal handler all but `drain`.

    Args:
        app: the WSGI application.
        listen: `host:port`; `[::1]:8080` for IPv6, `*:8080` for every address, port 0 for any free one.
        threads: how many requests run at once.
        limits: what a client may take.
        name: what the threads are called.
        inherited: a socket to listen on, which other processes may have too; default: `listen` is bound.
        on_rejected: called with the status of each request that is refused before the application sees it.

    Raises:
        SettingsError: the address cannot be listened on.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        listen: str,
        threads: int,
        limits: Limits,
        name: str,
        inherited: socket.socket | None = None,
        on_rejected: Callable[[int], None] = lambda _status: None,
    ) -> None:
        listening = bind(listen) if inherited is None else inherited
        self._map: dict[int, Any] = {}
        self._dispatcher = _ThreadPool(name)
        self._dispatcher.set_thread_count(threads)
        self._listener = _Listener(app, listening, self._map, self._dispatcher, limits)
        self._listener.on_rejected = on_rejected
        self._dispatcher.on_last_thread_exit = self._listener.close_trigger
        self._pause = min(1.0, limits.read_timeout / 4, limits.idle_timeout / 4)
        self._next_check = 0.0
        self._lock = threading.RLock()
        self._loop: int | None = None
        self._stopping = self._closing = self._disposed = self._answered = False
        self._stopped, self._drained, self._loop_ended = threading.Event(), threading.Event(), threading.Event()
        self.address: Final = bound_address(listening)
        """`host:port` as it was bound."""

    def serve(self) -> None:
        """Answer requests, until `close` is called."""
        with self._lock:
            if self._disposed:
                return
            self._loop = threading.get_ident()
        try:
            while not self._closing:
                # One turn. `wasyncore.loop` would wait the whole timeout for nothing once the map is empty.
                wasyncore.poll2(self._pause, self._map)
                # Before anything is looked at: who wants to be seen and comes later wakes the next turn.
                self._listener.triggered = False
                self._maintain()
        finally:
            with self._lock:
                self._loop = None
                self._dispose()
            self._loop_ended.set()

    def reconfigure(self, limits: Limits) -> None:
        """Hold requests whose headers arrive from now on to other limits of their bodies, and all clients to the rest.

        How many connections there may be and how long headers may be is as it was at the start.
        """
        self._listener.limits = replace(limits, max_connections=self._listener.limits.max_connections)
        self._listener.adj.max_request_body_size = limits.max_body_bytes

    def stop_accepting(self) -> None:
        """Refuse new connections from now on. Those that were waiting to be accepted still are."""
        self._stopping = True
        with self._lock:
            if not self._wake():
                self._listener.stop()
                self._stopped.set()
        if self._loop != threading.get_ident():
            self._stopped.wait()

    def retire(self) -> None:
        """Leave new connections, also those that wait to be accepted, to other processes that have the same socket.

        Requests go on being answered; each answer says that its connection closes. A connection that stays idle for
        `RETIRING_IDLE_TIMEOUT` is closed, and not sooner: its client may be sending just now.
        """
        self._listener.retiring = True
        self._stopping = True
        self._wake()

    def wait_closed(self, timeout: float) -> bool:
        """Whether the last connection of a server that retires or drains has gone, within `timeout` seconds."""
        self._drained.wait(timeout)
        return self._answered

    def drain(self, timeout: float) -> bool:
        """Stop accepting, and wait until every request that has begun to arrive is answered.

        Idle connections are closed, and busy ones after their last answer.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether all were answered in time.

        Raises:
            RuntimeError: called from the thread that `serve` runs in, where it would wait for itself.
        """
        if self._loop == threading.get_ident():
            raise RuntimeError("drain() waits for the loop, so it cannot be called from within it")
        self._listener.draining = True
        self.stop_accepting()
        if not self._wake():
            return not self._listener.active_channels
        self._drained.wait(timeout)
        return self._answered

    def close(self) -> None:
        """Cut off whatever still runs, and give everything back. May be called again."""
        self._closing = True
        if not self._wake():
            with self._lock:
                self._dispose()
        elif self._loop != threading.get_ident():
            self._loop_ended.wait()

    def _wake(self) -> bool:
        """Wake the I/O loop; return whether it is running."""
        with self._lock:
            if self._loop is None:
                return False
            # Without a thunk it takes no lock, so a signal handler may call it whatever the loop is doing.
            self._listener.pull_trigger()
            return True

    def _maintain(self) -> None:
        """Run the periodic work of the I/O loop."""
        listener = self._listener
        if self._stopping and not self._stopped.is_set():
            listener.stop()
            self._stopped.set()
        now = time.monotonic()
        if listener.closing or now >= self._next_check:
            self._next_check = now + self._pause
            for channel in list(listener.active_channels.values()):
                channel.check(now)
        if listener.closing and not listener.active_channels:
            self._answered = True
            self._drained.set()

    def _dispose(self) -> None:
        if self._disposed:
            return
        self._disposed = True
        listener = self._listener
        listener.stop()
        self._dispatcher.shutdown(cancel_pending=True, timeout=STOP_TIMEOUT)
        for channel in list(listener.active_channels.values()):
            channel.handle_close()
            # Not of a thread that still runs, which may be reading its body.
            for request in channel.requests if not self._dispatcher.threads else ():
                request.close()
        if not self._dispatcher.threads:
            listener.close_trigger()
        self._stopped.set()
        self._drained.set()


class _ThreadPool(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """Waitress's thread pool with named threads, without its warning for each queued request."""

    # Under waitress's own, so that who wants the warnings can have them.
    queue_logger = logging.getLogger("waitress.queue.flowhooks")
    queue_logger.setLevel(logging.ERROR)

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self.on_last_thread_exit: Callable[[], None] = lambda: None

    def handler_thread(self, thread_no: int) -> None:
        """Run requests until the server closes; the last thread to end, if ever it does, says so."""
        super().handler_thread(thread_no)
        if not self.threads:
            self.on_last_thread_exit()

    def start_new_thread(self, target: Any, thread_no: int) -> None:
        threading.Thread(target=target, args=(thread_no,), name=f"{self._name}-{thread_no}", daemon=True).start()


class _Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """The listening socket.

    Attributes:
        limits: limits of a client.
        draining: whether connections close after their last response, and idle ones at once.
        retiring: whether connections close after their last response while another process accepts.
        on_rejected: called with each request that is rejected before the application.
        triggered: whether the loop was woken since its last iteration.
    """

    on_rejected: Callable[[int], None]

    channel_class = Channel
    draining = False
    retiring = False
    triggered = False
    _paused_until = 0.0

    def __init__(
        self, app: WSGIApplication, listening: socket.socket, channels: dict[int, Any], dispatcher: Any, limits: Limits
    ) -> None:
        self.limits = limits
        self._closing = threading.Lock()
        super().__init__(
            TrustedProxy(app, lambda: self.limits.trusted_proxy),
            map=channels,
            _sock=listening,
            dispatcher=dispatcher,
            adj=Adjustments(
                ident=IDENT,
                # waitress counts its listening socket and its trigger as connections
                connection_limit=limits.max_connections + 2,
                max_request_body_size=limits.max_body_bytes,
                max_request_header_size=limits.max_header_bytes,
                inbuf_overflow=MAX_BODY_BYTES_IN_MEMORY,
                channel_request_lookahead=0,
                clear_untrusted_proxy_headers=False,  # `TrustedProxy` does, and goes by the settings of the moment
                expose_tracebacks=False,
                log_socket_errors=False,
            ),
            sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
            bind_socket=False,
        )
        # Head and body go out together, see `Channel.flush_output`. Said here, for as an argument it is deprecated.
        self.adj.send_bytes = SEND_BUFFER_BYTES

    @property
    def closing(self) -> bool:
        """Whether connections are to be closed after their last answer."""
        return self.draining or self.retiring

    @property
    def idle_timeout(self) -> float:
        """Seconds for which a connection may stay open without a request."""
        timeout = self.limits.idle_timeout
        return min(timeout, RETIRING_IDLE_TIMEOUT) if self.retiring else timeout

    def readable(self) -> bool:
        """Whether a connection may be accepted."""
        return bool(super().readable()) and time.monotonic() >= self._paused_until

    def pull_trigger(self) -> None:
        """Wake the loop, unless somebody has done so already: it will look at everything anyway."""
        if not self.triggered:
            self.triggered = True
            super().pull_trigger()

    def maintenance(self, now: float) -> None:
        """Nothing: waitress's own clock starts again at every byte; `Channel.check` does better."""

    def accept(self) -> Any:
        """Accept a connection, or pause: without a file to spare, the loop would turn without end."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno in OUT_OF_FILES_ERRNOS:
                self._paused_until = time.monotonic() + ACCEPT_PAUSE
                _log.error("accept_failed", reason=error.strerror)
            raise

    def stop(self) -> None:
        """Accept what waits to be accepted, unless others do, then close the listening socket, not the connections."""
        while self.accepting and not self.retiring:
            n_channels = len(self.active_channels)
            if n_channels >= self.limits.max_connections:
                break
            self.handle_accept()
            if len(self.active_channels) == n_channels:
                break
        wasyncore.dispatcher.close(self)  # the inherited one closes the trigger too

    def close_trigger(self) -> None:
        """Close what threads wake the loop with, when none is left that could: the file may be another's soon."""
        with self._closing:
            self.trigger.close()
