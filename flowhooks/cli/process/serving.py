"""What all commands have in common that go on until they are told to end: signals, listeners, a last word."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from flowhooks.cli.process import malloc
from flowhooks.errors import SettingsError
from flowhooks.execution.cpu_affinity import pin
from flowhooks.ledger import database
from flowhooks.observability import open_files
from flowhooks.settings import database_url
from flowhooks.web.server.server import Limits, Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import WSGIApplication

    from flowhooks.app import App
    from flowhooks.cli.process.inherited import InheritedSockets
    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.settings import Settings

SWITCH_INTERVAL: Final = 0.0002
"""Seconds between two threads' turns at the interpreter. Python's own 0.005 halves the rate at 32 connections,
for whoever has to answer waits behind whoever computes (measured by `make bench`)."""
ADMIN_THREADS: Final = 4
"""Threads of the listener for administration."""
EXIT_TIMEOUT: Final = 3.0
"""Seconds that the interpreter gets to end, and what plugins have it do then."""

log = structlog.get_logger(__name__)


def tune_process(settings: Settings, inherited: InheritedSockets | None = None) -> frozenset[int]:
    """Have threads take turns quickly and share free memory, and all that this one starts keep to one core.

    Several processes spread over the cores that there are.

    Returns:
        The cores that handlers may use.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    malloc.limit_arenas()
    try:
        return pin(0 if inherited is None else inherited.number) if settings.cpu_affinity else frozenset()
    except OSError as error:
        log.warning("cpu_affinity_failed", why=str(error))
        return frozenset()


def allow_connections(settings: Settings) -> open_files.ConnectionLimits:
    """Raise the limit of open files, and divide it; log if it leaves fewer connections than the settings say."""
    max_connections, files = settings.http.max_connections, open_files.raise_limit()
    limits = open_files.connection_limits(max_connections, files)
    if min(limits) < max_connections:
        log.warning(
            "connections_limited",
            **limits._asdict(),
            max_connections=max_connections,
            max_open_files=files,
            why="handlers, the database and logs need files too, so connections may not use up the limit of open files",
            next="raise the hard limit of open files (`ulimit -Hn`, LimitNOFILE of a systemd unit), or lower "
            "http.max_connections",
        )
    return limits


def create_listener(
    name: str,
    application: WSGIApplication,
    settings: Settings,
    *,
    threads: int,
    max_connections: int,
    inherited: InheritedSockets | None = None,
    refused: Callable[[int], None] = lambda _status: None,
) -> Server:
    """The server of one listener, bound to its address, or on the socket that was inherited.

    Raises:
        SettingsError: the address cannot be listened on; says which option named it.
    """
    try:
        return Server(
            application,
            listen=getattr(settings, name),
            threads=threads,
            limits=replace(client_limits(settings), max_connections=max_connections),
            name=name,
            on_rejected=refused,
            inherited=None if inherited is None else inherited.sockets[name],
        )
    except SettingsError as error:
        raise SettingsError(f"--{name}: {error}") from None


def client_limits(settings: Settings) -> Limits:
    """What a client of either listener may take."""
    http = settings.http
    return Limits(
        max_body_bytes=http.max_body_bytes,
        max_header_bytes=http.max_header_bytes,
        read_timeout=http.read_timeout,
        idle_timeout=http.idle_timeout,
        max_connections=http.max_connections,
        trusted_proxy=http.trusted_proxy,
    )


def reconfigure(settings: Settings, app: App, *servers: Server) -> None:
    """Have a process and its listeners go by settings of which only live ones have changed."""
    for server in servers:
        server.reconfigure(client_limits(settings))
    app.reload(settings)


def start_serving(server: Server, shutdown_signal: ShutdownSignal, failed: threading.Event) -> None:
    """Serve in a thread of its own; when that ends, so does the process, and if it should not have, `failed` is set."""
    threading.Thread(target=_serve, args=(server, shutdown_signal, failed), daemon=True).start()


def _serve(server: Server, shutdown_signal: ShutdownSignal, failed: threading.Event) -> None:
    try:
        server.serve()
    except Exception:
        # Whatever it was, a process that no longer listens must end, so that whoever watches it starts it anew.
        log.exception("listener_failed", address=server.address)
        failed.set()
    finally:
        shutdown_signal.request()


def exit_process(*, failed: bool) -> NoReturn:
    """End the process: with 1 if it had to, else with 0."""
    code = 1 if failed else 0
    threading.Thread(target=_force_exit, args=(code,), name="exit", daemon=True).start()
    raise SystemExit(code)


def _force_exit(code: int) -> None:
    # The interpreter would wait for threads that plugins have left running.
    time.sleep(EXIT_TIMEOUT)
    log.warning("abandoned_threads", threads=sorted(thread.name for thread in threading.enumerate()))
    os._exit(code)


def startup_fields(app: App) -> dict[str, Any]:
    """What a process says of itself when it is ready."""
    return {
        "pid": os.getpid(),
        "database": database.display_name(database_url(app.settings)),
        "plugins": sum(info.state == "loaded" for info in app.plugins.infos),
        "quarantined": sum(info.state == "quarantined" for info in app.plugins.infos),
        "handlers": len(app.plugins.handlers),
    }
