"""A hardened waitress server for one application on one address.

Written against waitress 3.0.2. `tests/unit/test_private_names.py` lists the internals of waitress that this module
uses.
"""

from __future__ import annotations

import errno
import math
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog
from waitress import wasyncore  # type: ignore[import-untyped]  # waitress has no types
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]  # waitress has no types
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]  # waitress has no types

from flowhooks.forks import close_in_children
from flowhooks.settings import is_loopback
from flowhooks.web.client_network import client_network, plain_ipv4
from flowhooks.web.server.channel import SEND_BUFFER_BYTES, Channel, Rejection
from flowhooks.web.server.sockets import LISTEN_BACKLOG, bound_address, open_listener
from flowhooks.web.server.thread_pool import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication

IDENT: Final = "flowhooks"
"""Value of the `Server` header. It has no version, which would only help attackers."""
MAX_BODY_BYTES_IN_MEMORY: Final = 64 * 1024
"""Size in bytes above which a body is kept in a temporary file, so that many large bodies do not fill the memory."""
STOP_TIMEOUT: Final = 1.0
"""Seconds for which `close` waits for threads that still run a request."""
RETIRING_IDLE_TIMEOUT: Final = 5.0
"""Seconds for which a connection may stay idle while another process takes over. A client that calls more often learns
from a response that the connection closes, so it sends no request into a connection that is being closed."""
ACCEPT_PAUSE: Final = 0.5
"""Seconds for which no connection is accepted after the process has run out of files."""
FULL_PAUSE: Final = 0.1
"""Seconds for which no connection is accepted after no idle one could be closed for it."""
MIN_SILENCE: Final = 1.0
"""Seconds after which a new connection on which nothing has arrived may be closed for another one."""
LOG_INTERVAL: Final = 60.0
"""Minimum number of seconds between two log records about too many connections, of all clients or of one client."""
OUT_OF_FILES_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a client.

    Attributes:
        max_body_bytes: the maximum size of a body in bytes.
        max_header_bytes: the maximum size of the request line and the headers together in bytes.
        read_timeout: seconds in which a whole request must arrive, from its first byte, and in which the first byte of
            a new connection must arrive.
        idle_timeout: seconds for which a connection may stay open without a further request, or with a response that
            the client does not read.
        max_connections: the maximum number of open connections. For a further one the longest idle one is closed; if
            none is idle, it waits to be accepted.
        max_connections_per_address: the maximum number of connections of one address, or one /64 of IPv6; 0: a quarter
            of `max_connections`. It does not apply to loopback addresses and to the trusted proxy.
        trusted_proxy: the address of the proxy whose X-Forwarded-For is trusted; `""`: none.
    """

    max_body_bytes: int = 1048576
    max_header_bytes: int = 16384
    read_timeout: float = 10.0
    idle_timeout: float = 60.0
    max_connections: int = 1000
    max_connections_per_address: int = 0
    trusted_proxy: str = ""


class Server:
    """A server for one application on one address.

    The address is bound at once, unless the socket is inherited. Connections are served while `serve` runs, in a thread
    of the caller. All other methods may be called from any thread, and all of them except `drain` from a signal
    handler.

    Args:
        app: the WSGI application.
        listen: `host:port`; `[::1]:8080` for IPv6, `*:8080` for every address, port 0 for any free one.
        threads: the number of requests that run at once.
        limits: the limits of a client.
        name: the prefix of the threads' names.
        inherited: a socket to listen on, which other processes may share. Default: `listen` is bound.
        on_rejected: called with each request that is rejected before the application is called, in a listener thread.

    Raises:
        AddressInUse: another process listens on the address.
        SettingsError: the address cannot be used.
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
        on_rejected: Callable[[Rejection], None] = lambda _rejection: None,
    ) -> None:
        listening = open_listener(listen) if inherited is None else inherited
        self._map: dict[int, Any] = {}
        self._dispatcher = ThreadPool(name, threads)
        self._listener = _Listener(app, listening, self._map, self._dispatcher, limits)
        self._listener.on_rejected = on_rejected
        self._dispatcher.on_last_thread_exit = self._listener.close_trigger
        self._pause = min(1.0, limits.read_timeout / 4, limits.idle_timeout / 4)
        self._next_check = 0.0
        self._lock = threading.RLock()
        self._stopping = self._closing = self._disposed = self._answered = False
        self._stopped, self._drained, self._loop_ended = threading.Event(), threading.Event(), threading.Event()
        self.address: Final = bound_address(listening)
        """`host:port` as it was bound."""

    def serve(self) -> None:
        """Serve requests until `close` is called."""
        with self._lock:
            if self._disposed:
                return
            self._listener.loop_thread = threading.get_ident()
        try:
            while not self._closing:
                polled_at = time.monotonic()
                self._poll()
                # Reset before the state is read: a thread that changes the state later wakes the next iteration.
                self._listener.triggered = False
                self._maintain(polled_at)
        finally:
            with self._lock:
                self._listener.loop_thread = None
                self._dispose()
            self._loop_ended.set()

    def reconfigure(self, limits: Limits) -> None:
        """Apply new limits: of bodies to requests whose headers arrive from now on, all others to all clients at once.

        The maximum number of connections and the maximum size of headers do not change.
        """
        self._listener.limits = replace(limits, max_connections=self._listener.limits.max_connections)
        self._listener.adj.max_request_body_size = limits.max_body_bytes

    def stop_accepting(self) -> None:
        """Refuse new connections from now on. Connections that already wait in the backlog are still accepted."""
        self._stopping = True
        with self._lock:
            if not self._wake():
                self._listener.stop()
                self._stopped.set()
        if self._listener.loop_thread != threading.get_ident():
            self._stopped.wait()

    def retire(self) -> None:
        """Leave new connections, including those in the backlog, to other processes that share the socket.

        Requests are still answered, and each response announces that its connection closes. An idle connection is
        closed after `RETIRING_IDLE_TIMEOUT`, not sooner, because its client may be sending just now.
        """
        self._listener.retiring = True
        self._stopping = True
        self._wake()

    def announce_closing(self) -> None:
        """Let each response announce that its connection closes, while new connections are still accepted.

        A client then opens a new connection for its next request, so no request arrives on a connection that closes.
        """
        self._listener.announces_closing = True

    def has_kept_connections(self) -> bool:
        """Return whether a connection is open whose client was not told that it closes, and may send once more."""
        return any(channel.answered and not channel.linger for channel in list(self._listener.active_channels.values()))

    def is_quiet(self, silence: float) -> bool:
        """Return whether no request is arriving or being answered, and nothing has happened for `silence` seconds."""
        timestamp = time.monotonic() - silence
        return not any(channel.is_busy_since(timestamp) for channel in list(self._listener.active_channels.values()))

    def duplicate_socket(self) -> socket.socket:
        """Return a copy of the listening socket, which stays open when this server closes."""
        copy: socket.socket = self._listener.socket.dup()
        return close_in_children(copy, socket.socket.close)

    def wait_closed(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return whether a retiring or draining server has closed its last connection."""
        self._drained.wait(timeout)
        return self._answered

    def drain(self, timeout: float) -> bool:
        """Stop accepting, and wait until every request that has started to arrive is answered.

        Idle connections are closed at once, and busy ones after their last response.

        Args:
            timeout: the maximum wait in seconds.

        Returns:
            Whether all requests were answered in time.

        Raises:
            RuntimeError: called from the thread in which `serve` runs, which would wait for itself.
        """
        if self._listener.loop_thread == threading.get_ident():
            raise RuntimeError("drain() waits for the loop, so it cannot be called from within it")
        self._listener.draining = True
        self.stop_accepting()
        if not self._wake():
            return not self._listener.active_channels
        self._drained.wait(timeout)
        return self._answered

    def close(self) -> None:
        """Close all connections at once and release all resources. May be called again."""
        self._closing = True
        if not self._wake():
            with self._lock:
                self._dispose()
        elif self._listener.loop_thread != threading.get_ident():
            self._loop_ended.wait()

    def _wake(self) -> bool:
        """Wake the I/O loop; return whether it is running."""
        with self._lock:
            if self._listener.loop_thread is None:
                return False
            # Without a thunk, `pull_trigger` takes no lock, so a signal handler may call it whatever the loop is doing.
            self._listener.pull_trigger()
            return True

    def _poll(self) -> None:
        """Run one iteration of the I/O loop."""
        self._set_waiting_aside()
        # `wasyncore.loop` would wait the whole timeout in vain once the map is empty.
        wasyncore.poll2(self._pause, self._map)

    def _set_waiting_aside(self) -> None:
        """Poll no connection whose thread only waits, because waitress asks each polled connection in each iteration.

        Such a connection does not receive, and sends only if it still has output of an earlier response. The thread
        wakes the loop after its own response.
        """
        changes = self._dispatcher.wait_changes
        connection: Any  # waitress has no types
        while changes:
            connection, is_waiting = changes.popleft()
            number = connection._fileno  # noqa: SLF001 (waitress's number of the connection; None if it is closed)
            if self._listener.active_channels.get(number) is not connection:
                continue
            if not is_waiting:
                self._map[number] = connection
            elif not connection.total_outbufs_len:
                self._map.pop(number, None)

    def _maintain(self, polled_at: float) -> None:
        """Run the periodic work of the I/O loop.

        Args:
            polled_at: time at which the last poll began, by `time.monotonic`.
        """
        listener = self._listener
        if self._stopping and not self._stopped.is_set():
            listener.stop()
            self._stopped.set()
        now = time.monotonic()
        if listener.closing or now >= self._next_check:
            self._next_check = now + self._pause
            for channel in list(listener.active_channels.values()):
                # Data that had arrived by then has been read: if this loop stood still since, no client has been late.
                channel.check(polled_at)
        if listener.closing and not listener.active_channels:
            self._answered = True
            self._drained.set()

    def _dispose(self) -> None:
        if self._disposed:
            return
        self._disposed = True
        listener = self._listener
        listener.stop()
        self._dispatcher.shutdown(timeout=STOP_TIMEOUT)
        for channel in list(listener.active_channels.values()):
            channel.handle_close()
            # Not while a thread is still running, because it may be reading its body.
            for request in channel.requests if not self._dispatcher.threads else ():
                request.close()
        if not self._dispatcher.threads:
            listener.close_trigger()
        self._stopped.set()
        self._drained.set()


class _Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """The listening socket.

    Attributes:
        limits: limits of a client.
        draining: whether connections close after their last response, and idle ones at once.
        retiring: whether connections close after their last response while another process accepts.
        announces_closing: whether connections close after their last response although new ones are accepted.
        on_rejected: called with each request that is rejected before the application.
        triggered: whether the loop was woken since its last iteration.
        loop_thread: the identifier of the thread in which the loop runs; None while it does not run.
        connections_by_network: the numbers of open connections.
    """

    on_rejected: Callable[[Rejection], None]

    channel_class = Channel
    draining = False
    retiring = False
    announces_closing = False
    triggered = False
    loop_thread: int | None = None
    _paused_until = 0.0
    _full_logged_at = -math.inf
    _share_logged_at = -math.inf
    _n_accepted = 0

    def __init__(
        self, app: WSGIApplication, listening: socket.socket, channels: dict[int, Any], dispatcher: Any, limits: Limits
    ) -> None:
        self.limits = limits
        self._closing = threading.Lock()
        self.connections_by_network: Counter[str] = Counter()
        super().__init__(
            app,
            map=channels,
            _sock=listening,
            dispatcher=dispatcher,
            adj=Adjustments(
                ident=IDENT,
                max_request_body_size=limits.max_body_bytes,
                max_request_header_size=limits.max_header_bytes,
                inbuf_overflow=MAX_BODY_BYTES_IN_MEMORY,
                channel_request_lookahead=0,
                clear_untrusted_proxy_headers=False,  # `set_client_address` does that, with the current settings
                expose_tracebacks=False,
                log_socket_errors=False,
            ),
            sockinfo=(listening.family, listening.type, listening.proto, listening.getsockname()),
            bind_socket=False,
        )
        # Head and body are sent together, see `Channel.flush_output`. Set here, because the argument is deprecated.
        self.adj.send_bytes = SEND_BUFFER_BYTES

    @property
    def closing(self) -> bool:
        """Whether connections are closed after their last response."""
        return self.draining or self.retiring

    @property
    def idle_timeout(self) -> float:
        """Seconds for which a connection may stay open without a request."""
        timeout = self.limits.idle_timeout
        return min(timeout, RETIRING_IDLE_TIMEOUT) if self.retiring else timeout

    def readable(self) -> bool:
        """Return whether a connection may be accepted. If there are too many, `accept` closes an idle one.

        waitress would stop accepting instead, and log it.
        """
        return bool(self.accepting) and time.monotonic() >= self._paused_until

    def pull_trigger(self) -> None:
        """Wake the loop, unless it has been woken already: each iteration checks everything."""
        if not self.triggered:
            self.triggered = True
            super().pull_trigger()

    def maintenance(self, now: float) -> None:
        """Do nothing: waitress's own timeout restarts at every byte. `Channel.check` replaces it."""

    def accept(self) -> Any:
        """Accept a connection; return None if there is no place for it.

        If the process is out of files, or no place becomes free, pause, because otherwise the loop would spin.
        """
        if self._is_full():
            self._log_full()
            if self._idle_channel() is None:
                self._paused_until = time.monotonic() + FULL_PAUSE
                return None
        try:
            accepted = super().accept()
        except OSError as error:
            if error.errno in OUT_OF_FILES_ERRNOS:
                self._paused_until = time.monotonic() + ACCEPT_PAUSE
                _log.error("accept_failed", reason=error.strerror)
            raise
        if accepted is None:
            return None
        self._n_accepted += 1
        connection, (host, port, *_) = accepted
        address = plain_ipv4(host)  # of an IPv4 client, if a service manager opened the socket for IPv4 and IPv6
        if not self._make_place(address):
            connection.close()
            return None
        return connection, (address, port)

    def _is_full(self) -> bool:
        return len(self.active_channels) >= self.limits.max_connections

    def _log_full(self) -> None:
        if (now := time.monotonic()) - self._full_logged_at >= LOG_INTERVAL:
            self._full_logged_at = now
            _log.warning(
                "connections_exhausted",
                max_connections=self.limits.max_connections,
                why="as many connections are open as the listener may have; idle ones are closed for new ones",
                next="if the clients need so many connections, raise http.max_connections",
            )

    def _make_place(self, address: str) -> bool:
        """Return whether a client may have another connection; an idle one is closed if necessary.

        A client that has its share closes a connection of its own, and none of other clients.
        """
        network = client_network(address)
        if self._has_share(address, network):
            return self._close_idle(network)
        return not self._is_full() or self._close_idle()

    def _has_share(self, address: str, network: str) -> bool:
        """Return whether a client has as many connections as it may have; log it."""
        limits = self.limits
        most = limits.max_connections_per_address or max(1, limits.max_connections // 4)
        if self.connections_by_network[network] < most or address == limits.trusted_proxy or is_loopback(address):
            return False
        if (now := time.monotonic()) - self._share_logged_at >= LOG_INTERVAL:
            self._share_logged_at = now
            _log.warning(
                "address_limited",
                address=address,
                max_connections=most,
                why="this client has as many connections as one address may have",
                next="if many clients share the address, raise http.max_connections_per_address, or name the proxy in "
                "http.trusted_proxy",
            )
        return True

    def _close_idle(self, network: str | None = None) -> bool:
        """Close one idle connection, of one network or of any; return whether there was one."""
        channel = self._idle_channel(network)
        if channel is None:
            return False
        channel.handle_close()
        return True

    def _idle_channel(self, network: str | None = None) -> Channel | None:
        """Return the idle connection that should be closed first, of one network or of any.

        The longest silent one that has never been answered goes first. A connection that has been used is spared for
        some seconds, because its client may be sending just now.
        """
        now = time.monotonic()
        used_long_ago: list[Channel] = []
        channel: Channel
        for channel in self.active_channels.values():  # in the order in which they were accepted
            if network is not None and channel.network != network:
                continue
            if channel.answered:
                if now - channel.waiting_since >= RETIRING_IDLE_TIMEOUT:
                    used_long_ago.append(channel)
            elif channel.is_idle_since(now - MIN_SILENCE):
                return channel
        for channel in sorted(used_long_ago, key=lambda used: used.waiting_since):
            if channel.is_idle_since(now):  # reads from the socket
                return channel
        return None

    def stop(self) -> None:
        """Accept the backlog, unless the server retires, then close the listening socket, but not the connections."""
        for _ in range(LISTEN_BACKLOG + 1):  # Linux queues one more; later connections would prolong the stop
            if not self.accepting or self.retiring or self._is_full():
                break
            n_accepted = self._n_accepted
            self.handle_accept()
            if self._n_accepted == n_accepted:
                break
        wasyncore.dispatcher.close(self)  # the inherited `close` would close the trigger, too

    def close_trigger(self) -> None:
        """Close the trigger when no thread is left that could write to it: its file descriptor may then be reused."""
        with self._closing:
            self.trigger.close()
