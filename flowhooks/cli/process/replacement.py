"""Replacement of a server that is the only process, by a successor that has loaded everything before.

The predecessor starts the successor, or its supervisor does. The successor loads the settings, schemas and plugins,
checks the ledger, and waits. Until then nothing changes in the predecessor, and an error of the successor leaves it as
it was. Then the predecessor starts no more attempts, stores callbacks, and waits for running handlers. At last it
stops accepting connections, which wait in the backlog of the socket, answers what has arrived, and releases the ledger.
The successor takes the ledger over and accepts the connections.

A predecessor without a supervisor executes one in its own place, so that the process id stays that of the service.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.cli.process import STATE_VARIABLE, serving
from flowhooks.cli.process.child import ChildProcess, own_command
from flowhooks.cli.process.restart_delay import START_TIMEOUT
from flowhooks.cli.process.signals import has_terminal, stop_timers
from flowhooks.cli.process.single_supervisor import NEXT, SUPERVISOR_SIGNALS, Inheritance
from flowhooks.errors import SettingsError
from flowhooks.execution.cpu_affinity import unpin
from flowhooks.failpoints import hit
from flowhooks.intake import required_credentials
from flowhooks.ledger import database
from flowhooks.ledger.reader import Reader
from flowhooks.settings import database_url
from flowhooks.web.server.server import RETIRING_IDLE_TIMEOUT

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Mapping

    from flowhooks.app import App
    from flowhooks.cli.process.context import ProcessContext
    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings
    from flowhooks.web.server.server import Server

POLL_INTERVAL: Final = 0.02
"""Seconds between two looks at a successor that loads, and at the handlers of a predecessor."""
SILENCE: Final = 0.2
"""Seconds for which a connection without a request may be open when the ledger is handed over. A client that has just
connected has sent its request by then."""
ANSWER_TIMEOUT: Final = 10.0
"""Maximum seconds in which requests that are already being received are answered before the ledger is released."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Replacement:
    """The replacement of this process, seen from this process.

    Args:
        context: the environment of this process.
        app: the application.
        servers: the listeners, by the name of their setting.
        cores: the cores that this process could use before it was pinned to one; empty if it was not pinned.

    Attributes:
        stopped_at: when this process stopped to accept connections, by `time.monotonic`; None before.
    """

    context: ProcessContext
    app: App
    servers: Mapping[str, Server]
    cores: frozenset[int]
    stopped_at: float | None = field(default=None, init=False)
    _successor: ChildProcess | None = field(default=None, init=False)
    _sockets: dict[str, socket.socket] = field(default_factory=dict, init=False)
    _deferred: set[int] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        if self.context.inherited is not None:
            self.context.inherited.on_refused = self._publish_refusal

    @property
    def is_due(self) -> bool:
        """Whether a successor has loaded, so that this process has to hand the ledger over."""
        inherited = self.context.inherited
        return self._successor is not None or (inherited is not None and inherited.hands_over)

    def request(self, shutdown_signal: ShutdownSignal, on_hangup: Callable[[], None]) -> bool:
        """Ask the supervisor for a replacement; without a supervisor, start a successor and wait until it has loaded.

        The successor may have read a file before it was changed, so no request is dropped meanwhile: the supervisor
        replaces the successor again, and lets it reload its settings.

        Returns:
            Whether to stop waiting for signals: a successor has loaded, or shutdown was requested meanwhile.
        """
        inherited = self.context.inherited
        if inherited is not None and not inherited.is_alone:
            inherited.request_replacement()
            return False
        log.info("process_replacing", processes=1)
        try:
            child = self._start()
        except OSError as error:
            self._refuse(f"a process could not be started: {error.strerror or error}", time.monotonic())
            return False

        def on_late_hangup() -> None:
            self._deferred.add(signal.SIGHUP)
            on_hangup()

        while not child.has_loaded:
            child.receive()
            if child.has_exited() or (child.kill_at and time.monotonic() > child.kill_at):
                child.receive_last()
                self._give_up(child)
                why = child.exit_reason() if child.has_exited() else "it does not start in time"
                self._refuse(why, child.started)
                if signal.SIGUSR2 in self._deferred:
                    shutdown_signal.write(signal.SIGUSR2)
                self._deferred.clear()
                return False
            if shutdown_signal.wait(POLL_INTERVAL, on_hangup=on_late_hangup, on_replace=self._defer_replacement):
                self._give_up(child)
                return True
        self._successor = child
        return True

    def _defer_replacement(self) -> bool:
        inherited = self.context.inherited
        if inherited is not None and not inherited.is_alone:
            inherited.request_replacement()
        else:
            self._deferred.add(signal.SIGUSR2)
        return False

    def _start(self) -> ChildProcess:
        inherited, context = self.context.inherited, self.context
        pinned = frozenset(os.sched_getaffinity(0)) if self.cores else frozenset()
        unpin(self.cores)  # the child has the cores of this thread
        self._sockets = {name: server.duplicate_socket() for name, server in self.servers.items()}
        try:
            child = ChildProcess(
                1 if inherited is None else inherited.number + 1,
                0,
                self._sockets,
                metrics_dir=None,
                start_timeout=START_TIMEOUT,
                environ=context.environ,
                folder=context.source.folder.path_if_left(),
                is_only=True,
                is_successor=True,
                parent_is_predecessor=True,
                configured=context.configured,
            )
        except OSError:
            self._close_sockets()
            raise
        finally:
            unpin(pinned)
        log.info("process_started", process=child.pid, number=child.number)
        return child

    def _give_up(self, child: ChildProcess) -> None:
        child.kill()
        child.close()
        self._close_sockets()

    def _close_sockets(self) -> None:
        for sock in self._sockets.values():
            sock.close()

    def _refuse(self, why: str, started: float) -> None:
        log.error("process_replace_failed", why=why, next=NEXT)
        self._publish_refusal(why, started)

    def _publish_refusal(self, why: str, started: float) -> None:
        if self.app.lock is not None:
            self.app.lock.write_refused_restart(why, started)

    def drain(self, shutdown_signal: ShutdownSignal) -> float:
        """Start no more attempts, wait for running ones, then stop accepting and answer what has arrived.

        Callbacks are stored and answered until the end. The wait ends early if shutdown is requested.

        Returns:
            The seconds that running handlers may still take.
        """
        app, servers = self.app, self.servers.values()
        running = app.runner.running
        for server in servers:
            server.announce_closing()
        app.stop_starting()
        log.info("ledger_handing_over", running=running)  # from now on no attempt starts
        hit("restart.draining")
        began = time.monotonic()
        deadline = began + app.settings.shutdown.timeout
        while not self._wait(shutdown_signal, POLL_INTERVAL):
            now = time.monotonic()
            runs = now < deadline and app.runner.running
            keeps = now < began + RETIRING_IDLE_TIMEOUT and any(server.has_kept_connections() for server in servers)
            if not runs and not keeps:
                break
        if self._successor is not None and _stops(shutdown_signal):
            self._give_up(self._successor)  # new connections are refused at once
        self.stopped_at = time.monotonic()
        for server in servers:
            server.retire()
        for server in servers:
            server.stop_accepting()  # returns when it has stopped
        hit("restart.stopped")
        app.waiters.cancel_all()
        answered_by = self.stopped_at + ANSWER_TIMEOUT
        while time.monotonic() < answered_by and not all(server.is_quiet(SILENCE) for server in servers):
            time.sleep(POLL_INTERVAL)
        for server in servers:
            server.drain(POLL_INTERVAL)
        return max(0.0, deadline - time.monotonic())

    def _read_signals(self, shutdown_signal: ShutdownSignal) -> None:
        while self._wait(shutdown_signal, 0):  # until none is left; the end of a listener counts as one
            pass

    def _wait(self, shutdown_signal: ShutdownSignal, timeout: float) -> bool:
        return shutdown_signal.wait(
            timeout, on_hangup=lambda: self._deferred.add(signal.SIGHUP), on_replace=self._defer_replacement
        )

    def finish(self, shutdown_signal: ShutdownSignal, *, ended: bool) -> None:
        """Let the successor take over, now that the ledger is released.

        A predecessor without a supervisor becomes one, and does not return.

        Args:
            shutdown_signal: whether shutdown was requested meanwhile.
            ended: whether all attempts have ended. If not, they end with this program, and the successor waits.
        """
        hit("restart.released")
        stopped_at = self.stopped_at or time.monotonic()
        if self._successor is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, SUPERVISOR_SIGNALS)  # pending signals outlive the execution
        self._read_signals(shutdown_signal)
        if self._successor is None:
            if self.context.inherited is not None:
                self.context.inherited.report_released(stopped_at, ended=ended)
            return
        if _stops(shutdown_signal):
            self._give_up(self._successor)
            return
        if ended:
            self._successor.take_over(stopped_at)
        serving.run_exit_functions()
        self._read_signals(shutdown_signal)  # of plugins' threads, which do not block them
        if shutdown_signal.was_received:
            self._deferred.add(signal.SIGTERM)
        for number in self._deferred:
            signal.pthread_kill(threading.get_ident(), number)
        self._become_supervisor(
            self._successor, stopped_at, has_command=ended, had_terminal=shutdown_signal.had_terminal
        )

    def _become_supervisor(
        self, successor: ChildProcess, stopped_at: float, *, has_command: bool, had_terminal: bool
    ) -> None:
        context, settings = self.context, self.app.settings
        inheritance = Inheritance(
            command=own_command(),
            sockets={name: sock.fileno() for name, sock in self._sockets.items()},
            configured=dict(context.configured),
            control=successor.control.fileno(),
            pid=successor.pid,
            number=successor.number,
            has_command=has_command,
            stopped_at=stopped_at,
            stop_timeout=settings.shutdown.timeout + settings.http.read_timeout,
            had_terminal=had_terminal,
            notify=context.service_manager.address,
            log_level=settings.log.level,
            log_format=settings.log.format,
        )
        environ = {**context.environ, STATE_VARIABLE: json.dumps(inheritance.to_json())}
        for file in (inheritance.control, *inheritance.sockets.values()):
            os.set_inheritable(file, True)
        unpin(self.cores)
        stop_timers()  # they would outlive the execution
        with suppress(Exception):  # a plugin may have closed or replaced it, or its disk is full
            sys.stdout.flush()
        with suppress(OSError):  # it was moved or removed after the successor was started there
            if folder := context.source.folder.path_if_left():
                os.chdir(folder)
        try:
            os.execve(inheritance.command[0], inheritance.command, environ)  # noqa: S606 (the own command line)
        except OSError as error:
            # The successor sees that this process ends, takes over, and continues without a supervisor.
            log.error("supervisor_start_failed", why=error.strerror or str(error))  # noqa: TRY400 (the message is enough)
            os._exit(1)


def _stops(shutdown_signal: ShutdownSignal) -> bool:
    return shutdown_signal.was_received or (shutdown_signal.had_terminal and not has_terminal())


def check_successor(settings: Settings, plugins: Plugins, credential_kinds: Collection[str]) -> None:
    """Check that a successor could take the ledger over, without the lock.

    Raises:
        SettingsError: credentials that the ledger requires are missing.
        LedgerUnusable: a plugin cannot be loaded, or the ledger cannot be opened without a migration.
    """
    broken = [f"{info.name}: {info.error}" for info in plugins.infos if info.state == "quarantined"]
    if broken:
        raise SettingsError(f"a plugin cannot be loaded: {'; '.join(broken)}")
    url = database_url(settings)
    file = database.database_file(url)
    if file is not None and not file.exists():
        return  # another database than that of the predecessor, which the start creates
    reader = Reader(url)
    try:
        required_credentials.check(reader, settings, credential_kinds)
    finally:
        reader.close()
