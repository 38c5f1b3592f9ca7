"""`flowhooks serve`: run both listeners until an orderly shutdown."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click
import structlog

from flowhooks.app import App
from flowhooks.cli import output
from flowhooks.cli.options import settings_source_options
from flowhooks.cli.process import launcher, serving, signals
from flowhooks.errors import SettingsError
from flowhooks.ledger import database
from flowhooks.settings import check_binds, check_operators, check_sources, database_url
from flowhooks.web.admin.app import create_admin
from flowhooks.web.admin.origin_check import CONSOLE_ROOT
from flowhooks.web.callback.app import create_app
from flowhooks.web.negotiation import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.process.context import ProcessContext
    from flowhooks.settings import Settings
    from flowhooks.web.server.server import Server

ANSWER_TIMEOUT: Final = 10.0
"""Seconds in which requests that are already being received are answered during shutdown."""

log = structlog.get_logger(__name__)


@click.command("serve")
@click.option("--listen", metavar="HOST:PORT", help="Where engines call back [default: 127.0.0.1:8080].")
@click.option("--admin", metavar="HOST:PORT", help="Where the server is administered [default: 127.0.0.1:8081].")
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Let other machines reach a listener that asks for no credential, and start or reload without sources or "
    "operators that there were before. Without this, both are refused.",
)
@click.option(
    "--no-worker",
    is_flag=True,
    help="Take call-backs, and leave handlers to workers and to other servers. For a ledger on PostgreSQL.",
)
@click.option(
    "--processes",
    metavar="N",
    help="Take call-backs in N processes, which share the address [default: 1]. For a ledger on PostgreSQL.",
)
@settings_source_options
def command(settings_source: SettingsSource, *, no_worker: bool) -> None:
    """Take call-backs and run their handlers, until SIGTERM or Ctrl-C.

    Then no more is taken in, those who wait are answered, what runs is waited for, and the exit code is 0.
    What has not started stays stored and is run at the next start.

    SIGHUP reads the settings again: credentials, limits and levels are changed without a restart, and the log names
    what needs one.

    With several processes, SIGHUP replaces them one at a time, so that plugins and settings are loaded anew, and no
    call-back is rejected meanwhile. One that dies is started again.
    """
    launcher.run(
        settings_source.pin().load,
        lambda settings, context: _serve(settings, context, no_worker=no_worker),
        check=lambda settings: _check(settings, no_worker=no_worker),
        listeners=("listen", "admin"),
    )


def _check(settings: Settings, *, no_worker: bool) -> None:
    check_binds(settings)
    check_operators(settings)
    check_sources(settings, os.environ)
    if no_worker and not database.is_shared(database_url(settings)):
        raise SettingsError(
            "--no-worker leaves handlers to other processes, and only one process may write a SQLite ledger: "
            "nothing would ever be run; leave it out, or use PostgreSQL"
        )


def _serve(settings: Settings, context: ProcessContext, *, no_worker: bool) -> None:
    failed, inherited = threading.Event(), context.inherited
    with signals.ShutdownSignal() as shutdown_signal:
        context.watch_supervisor(shutdown_signal)
        connections = serving.allow_connections(settings)
        app = App(
            settings,
            cores=serving.tune_process(settings, inherited),
            run=() if no_worker else ("*",),
            credential_kinds=("sources", "operators"),
        )
        try:
            token = secrets.token_urlsafe(32)
            web = serving.create_listener(
                "listen",
                create_app(app),
                settings,
                threads=settings.http.threads,
                max_connections=connections.listen,
                inherited=inherited,
                refused=app.metrics.refused,
            )
            admin = serving.create_listener(
                "admin",
                create_admin(app, token),
                settings,
                threads=serving.ADMIN_THREADS,
                max_connections=connections.admin,
                inherited=inherited,
            )
        except BaseException:
            app.close()
            raise
        app.publish_admin_address(f"http://{admin.address}", token)
        app.start()
        for server in (admin, web):
            serving.start_serving(server, shutdown_signal, failed)
        context.report_ready()
        listeners = {"call_backs": f"http://{web.address}", "admin": f"http://{admin.address}"}
        log.info("server_started", **listeners, **serving.startup_fields(app))
        if not app.plugins.handlers and not no_worker:
            log.warning("no_handlers", why="no plugin gives a handler: every call-back will be stored and parked")
        _print_addresses(**listeners)
        context.run_main_loop(shutdown_signal, app, web, admin)
        if context.is_replaced:
            _retire(app, shutdown_signal, web, admin)
        _shut_down(app, web, admin)
    serving.exit_process(failed=failed.is_set())


def _print_addresses(call_backs: str, admin: str) -> None:
    if not sys.stdout.isatty():
        return
    with suppress(OSError):  # the terminal was closed, which SIGHUP reports
        output.print_line()
        output.print_line(f"  Call-backs  {call_backs}/flow/ID/call-back/complete")
        output.print_line(f"  Console     {admin}{CONSOLE_ROOT}/", style="green")
        output.print_line("  Ctrl-C ends it in order.")
        output.print_line()


def _retire(app: App, shutdown_signal: signals.ShutdownSignal, web: Server, admin: Server) -> None:
    """Stop accepting connections, and serve the open ones until they close or the process stops."""
    log.info("process_retiring", running=app.runner.running)
    admin.retire()
    web.retire()
    deadline = time.monotonic() + app.settings.http.read_timeout + MAX_WAIT_SECONDS + ANSWER_TIMEOUT
    while not web.wait_closed(0.05) and time.monotonic() < deadline and not shutdown_signal.wait(0):
        pass


def _shut_down(app: App, web: Server, admin: Server) -> None:
    log.info("shutdown_started", running=app.runner.running)
    app.begin_shutdown()
    web.drain(ANSWER_TIMEOUT)
    ended = app.close(app.settings.shutdown.timeout)
    web.close()
    admin.close()
    log.info("shutdown_finished", all_ended=ended)
