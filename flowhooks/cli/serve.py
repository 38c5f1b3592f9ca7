"""`flowhooks serve`: run both listeners until an orderly shutdown."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import click
import structlog

from flowhooks.app import App
from flowhooks.cli import output
from flowhooks.cli.options import settings_source_options
from flowhooks.cli.process import launcher, serving, signals
from flowhooks.cli.process.replacement import Replacement, check_successor
from flowhooks.errors import SettingsError
from flowhooks.ledger import database
from flowhooks.ledger.lock import publish_admin_address
from flowhooks.settings import check_binds, check_operators, check_sources, database_url
from flowhooks.web.admin.app import create_admin
from flowhooks.web.admin.origin_check import CONSOLE_ROOT
from flowhooks.web.callback.app import create_app
from flowhooks.web.callback.early_rejections import EarlyRejectionLog
from flowhooks.web.negotiation import MAX_WAIT_SECONDS

if TYPE_CHECKING:
    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.process.context import ProcessContext
    from flowhooks.settings import Settings
    from flowhooks.web.server.server import Server

ANSWER_TIMEOUT: Final = 10.0
"""Seconds in which requests that are already being received are answered during shutdown."""
CREDENTIAL_KINDS: Final = ("sources", "operators")
"""Kinds of credentials that the listeners of a server require."""

log = structlog.get_logger(__name__)


@click.command("serve", short_help="Accept callbacks and run their handlers.")
@click.option(
    "--listen", metavar="HOST:PORT", help="Address on which callbacks are accepted [default: 127.0.0.1:8080]."
)
@click.option(
    "--admin", metavar="HOST:PORT", help="Address of the console, the API and the metrics [default: 127.0.0.1:8081]."
)
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Let other machines reach a listener that requires no credential. Also allow a start or reload that removes "
    "all sources or all operators. By default both are refused.",
)
@click.option(
    "--no-worker",
    is_flag=True,
    help="Accept callbacks, but run no handlers: workers and other servers run them. Needs a ledger on PostgreSQL.",
)
@click.option(
    "--processes",
    metavar="N",
    help="Accept callbacks in N processes that share the address [default: 1]. Needs a ledger on PostgreSQL.",
)
@settings_source_options
def command(settings_source: SettingsSource, *, no_worker: bool) -> None:
    """Accept callbacks and run their handlers until SIGTERM or Ctrl-C.

    The server then stops accepting callbacks, answers the requests that wait, lets running handlers finish and exits
    with 0. Deliveries that have not started stay stored and run at the next start.

    SIGHUP reads the settings again. Credentials, limits and the log level change without a restart; the log names the
    settings that need a restart. SIGUSR2, or `flowhooks restart`, replaces the process without refusing a callback:
    plugins and all settings are loaded again.

    With more than one process, SIGHUP or SIGUSR2 replaces the processes one at a time. Plugins and all settings are
    loaded again, and no callback is rejected meanwhile. A process that dies is restarted.
    """
    launcher.run(
        settings_source.pin(),
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
            "--no-worker leaves handlers to other processes, but only one process may write a SQLite ledger, so no "
            "handler would ever run; leave the option out, or use PostgreSQL"
        )


def _serve(settings: Settings, context: ProcessContext, *, no_worker: bool) -> None:
    failed = threading.Event()
    with signals.ShutdownSignal() as shutdown_signal:
        log.info("server_starting", **serving.starting_fields(settings, context.source))
        context.watch_supervisor(shutdown_signal)
        connections = serving.allow_connections(settings)
        cores = serving.tune_process(settings, context.inherited)
        app = App(
            settings,
            cores=cores,
            run=() if no_worker else ("*",),
            credential_kinds=CREDENTIAL_KINDS,
            on_loaded=partial(context.finish_loading, shutdown_signal),
            before_lock=context.before_lock(partial(check_successor, settings, credential_kinds=CREDENTIAL_KINDS)),
        )
        try:
            token = secrets.token_urlsafe(32)
            web = serving.create_listener(
                "listen",
                create_app(app),
                settings,
                source=context.source,
                sockets=context.sockets,
                threads=settings.http.threads,
                max_connections=connections.listen,
                on_rejected=EarlyRejectionLog(app).record,
            )
            admin = serving.create_listener(
                "admin",
                create_admin(app, token),
                settings,
                source=context.source,
                sockets=context.sockets,
                threads=serving.ADMIN_THREADS,
                max_connections=connections.admin,
            )
        except BaseException:
            app.close()
            raise
        app.start()
        serving.start_serving(web, shutdown_signal, failed)
        waited = context.seconds_refusing()
        # Before the listener with /readyz: who sees the server ready can run a command on it.
        publish_admin_address(app.lock, f"http://{admin.address}", token, started=context.started, waited=waited)
        serving.start_serving(admin, shutdown_signal, failed)
        context.report_ready(settings)
        if waited is not None:
            log.info("ledger_taken_over", waited=round(waited, 3))
        listeners = {"call_backs": f"http://{web.address}", "admin": f"http://{admin.address}"}
        log.info("server_started", **listeners, **serving.startup_fields(app))
        serving.report_start(app, "server")
        if not app.plugins.handlers and not no_worker:
            log.warning("no_handlers", why="no loaded plugin has a handler, so this process runs none")
        if unmatched := app.settings.unmatched_sources:
            log.warning(
                "callbacks_not_matched",
                sources=unmatched,
                why="callbacks without a credential have the source default, so an instance that is also taken in from "
                "the history of its engine runs twice",
                next='if an engine of these sources calls, give it a credential, or former_names = ["default"]',
            )
        _print_addresses(**listeners)
        replacement = Replacement(context=context, app=app, servers={"listen": web, "admin": admin}, cores=cores)
        context.run_main_loop(shutdown_signal, app, web, admin, replacement=replacement)
        timeout = app.settings.shutdown.timeout
        if context.is_replaced:
            _retire(app, shutdown_signal, web, admin)
        elif replacement.is_due:
            timeout = replacement.drain(shutdown_signal)
        ended = _shut_down(app, web, admin, timeout=timeout)
        if replacement.is_due:
            replacement.finish(shutdown_signal, ended=ended)
    serving.exit_process(failed=failed.is_set())


def _print_addresses(call_backs: str, admin: str) -> None:
    if not sys.stdout.isatty():
        return
    with suppress(OSError, click.ClickException):  # the terminal was closed, which SIGHUP reports
        output.print_line()
        output.print_line(f"  Callbacks   {call_backs}/flow/ID/call-back/complete")
        output.print_line(f"  Console     {admin}{CONSOLE_ROOT}/", style="green")
        output.print_line("  Press Ctrl-C to stop gracefully.")
        output.print_line()


def _retire(app: App, shutdown_signal: signals.ShutdownSignal, web: Server, admin: Server) -> None:
    """Stop accepting connections, and serve the open ones until they close or the process stops."""
    running = app.runner.running
    admin.retire()
    web.retire()
    log.info("process_retiring", running=running)  # from now on each response announces that its connection closes
    deadline = time.monotonic() + app.settings.http.read_timeout + MAX_WAIT_SECONDS + ANSWER_TIMEOUT
    while not web.wait_closed(0.05) and time.monotonic() < deadline and not shutdown_signal.wait(0):
        pass


def _shut_down(app: App, web: Server, admin: Server, *, timeout: float) -> bool:
    running = app.runner.running
    app.begin_shutdown()
    log.info("shutdown_started", running=running)  # from now on no attempt starts
    web.drain(ANSWER_TIMEOUT)
    ended = app.close(timeout)
    web.close()
    admin.close()
    log.info("shutdown_finished", all_ended=ended)
    return ended
