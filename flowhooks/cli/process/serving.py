"""Startup, reload and shutdown shared by `serve` and `worker`."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import structlog

from flowhooks import __version__
from flowhooks.cli.process import malloc
from flowhooks.cli.process.forced_exit import EXIT_TIMEOUT, force_exit_later
from flowhooks.errors import AddressInUse, SettingsError
from flowhooks.execution.cpu_affinity import has_cpu_quota, pin
from flowhooks.ledger import database
from flowhooks.model.plugin_version import PluginVersion
from flowhooks.observability import open_files
from flowhooks.operations import server_audit
from flowhooks.settings import database_url
from flowhooks.web.server.server import Limits, Server

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from wsgiref.types import WSGIApplication

    from flowhooks.app import App
    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.process.inherited import InheritedSockets
    from flowhooks.cli.process.signals import ShutdownSignal
    from flowhooks.settings import Settings
    from flowhooks.web.server.channel import Rejection

SWITCH_INTERVAL: Final = 0.0002
"""Seconds between thread switches of the interpreter. Python's default of 0.005 halves the rate at 32 connections,
because threads that respond wait behind threads that compute (measured by `make bench`).
"""
ADMIN_THREADS: Final = 4
"""Threads of the administration listener."""

log = structlog.get_logger(__name__)


def tune_process(settings: Settings, inherited: InheritedSockets | None = None) -> frozenset[int]:
    """Set the thread switch interval and the memory arenas, and pin the process to one core.

    Several processes are spread over the available cores. A process with a quota of processor time is not pinned: such
    containers share cores, and several of them would choose the same one.

    Returns:
        The cores that handlers may use; empty if the process is not pinned.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    malloc.limit_arenas()
    if not settings.cpu_affinity or has_cpu_quota():
        return frozenset()
    try:
        return pin(0 if inherited is None else inherited.number)
    except OSError as error:
        log.warning("cpu_affinity_failed", why=str(error))
        return frozenset()


def allow_connections(settings: Settings) -> open_files.ConnectionLimits:
    """Raise the limit of open files and divide it. Log if it allows fewer connections than the settings."""
    max_connections, files = settings.http.max_connections, open_files.raise_limit()
    limits = open_files.connection_limits(max_connections, files)
    if min(limits) < max_connections:
        log.warning(
            "connections_limited",
            **limits._asdict(),
            max_connections=max_connections,
            max_open_files=files,
            why="handlers, the database and logs need files too, so connections must not use up the limit of open "
            "files",
            next="raise the hard limit of open files (`ulimit -Hn`, LimitNOFILE of a systemd unit), or lower "
            "http.max_connections",
        )
    return limits


def create_listener(
    name: str,
    application: WSGIApplication,
    settings: Settings,
    *,
    source: SettingsSource,
    threads: int,
    max_connections: int,
    sockets: Mapping[str, socket.socket],
    on_rejected: Callable[[Rejection], None] = lambda _rejection: None,
) -> Server:
    """Create the server of one listener, bound to its address, or using the one of `sockets` that has its name.

    Raises:
        AddressInUse: another process listens on the address.
        SettingsError: the address cannot be used.
    """
    with explain_origin(source, name):
        return Server(
            application,
            listen=getattr(settings, name),
            threads=threads,
            limits=replace(client_limits(settings), max_connections=max_connections),
            name=name,
            on_rejected=on_rejected,
            inherited=sockets.get(name),
        )


@contextmanager
def explain_origin(source: SettingsSource, name: str) -> Iterator[None]:
    """Name the origin of a setting in errors about its address."""
    try:
        yield
    except (AddressInUse, SettingsError) as error:
        raise type(error)(f"{source.origin(name)}: {error}") from None


def client_limits(settings: Settings) -> Limits:
    """Return the limits of a client of either listener."""
    http = settings.http
    return Limits(
        max_body_bytes=http.max_body_bytes,
        max_header_bytes=http.max_header_bytes,
        read_timeout=http.read_timeout,
        idle_timeout=http.idle_timeout,
        max_connections=http.max_connections,
        max_connections_per_address=http.max_connections_per_address,
        trusted_proxy=http.trusted_proxy,
    )


def reconfigure(settings: Settings, app: App, *servers: Server) -> None:
    """Apply settings to a running process and its listeners; only live settings may differ.

    Raises:
        SettingsError: the loaded plugins do not allow the settings. Nothing is applied.
    """
    app.reload(settings)  # first, because it may refuse the settings
    for server in servers:
        server.reconfigure(client_limits(settings))


def start_serving(server: Server, shutdown_signal: ShutdownSignal, failed: threading.Event) -> None:
    """Serve in a thread. When it ends, request shutdown; if it ended by an error, also set `failed`."""
    threading.Thread(target=_serve, args=(server, shutdown_signal, failed), daemon=True).start()


def _serve(server: Server, shutdown_signal: ShutdownSignal, failed: threading.Event) -> None:
    try:
        server.serve()
    except Exception:
        # A process that no longer listens must exit, so that its service manager restarts it.
        log.exception("listener_failed", address=server.address)
        failed.set()
    finally:
        shutdown_signal.request()


def exit_process(*, failed: bool) -> NoReturn:
    """End the process, with exit code 1 if `failed`, otherwise 0."""
    code = 1 if failed else 0
    force_exit_later(code)
    raise SystemExit(code)


def run_exit_functions() -> None:
    """Run the exit functions of plugins, for `EXIT_TIMEOUT` at most, before this process executes another program."""
    thread = threading.Thread(target=atexit._run_exitfuncs, name="exit", daemon=True)  # noqa: SLF001 (there is no public name)
    thread.start()
    thread.join(EXIT_TIMEOUT)


def starting_fields(settings: Settings, source: SettingsSource) -> dict[str, Any]:
    """Return the log fields of the first message of a process."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "settings": None if source.config is None else str(source.config),
        "database": database.display_name(database_url(settings)),
    }


def report_start(app: App, kind: str) -> None:
    """Log each loaded plugin with its version, and record the start in the audit log.

    Args:
        app: the started application.
        kind: `"server"` or `"worker"`.
    """
    versions = plugin_versions(app)
    for info in app.plugins.infos:
        if info.state == "loaded":
            version, digest = versions[info.name]
            log.info(
                "plugin_loaded",
                plugin=info.name,
                version=version,
                digest=digest,
                origin=info.origin,
                handlers=len(info.handlers),
            )
    server_audit.record_start(app.ledger, app.clock, app.settings, versions, kind=kind)


def startup_fields(app: App) -> dict[str, Any]:
    """Return the log fields of the startup message."""
    return {
        "pid": os.getpid(),
        "database": database.display_name(database_url(app.settings)),
        "plugins": sum(info.state == "loaded" for info in app.plugins.infos),
        "quarantined": sum(info.state == "quarantined" for info in app.plugins.infos),
        "handlers": len(app.plugins.handlers),
    }


def plugin_versions(app: App) -> dict[str, PluginVersion]:
    """Return the versions of the loaded plugins, by name. The digest is of the file or package of their handlers."""
    versions = app.registration.versions
    return {
        info.name: PluginVersion(info.version, next((versions[handler.id].digest for handler in info.handlers), ""))
        for info in app.plugins.infos
        if info.state == "loaded"
    }
