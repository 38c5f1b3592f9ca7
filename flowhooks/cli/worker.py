"""`flowhooks worker`: run deliveries of callbacks that servers have accepted."""

from __future__ import annotations

import secrets
import threading
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

import click
import structlog

from flowhooks.app import App
from flowhooks.cli.options import SettingsSource, settings_source_options
from flowhooks.cli.process import launcher, serving, signals
from flowhooks.errors import SettingsError
from flowhooks.ledger import database
from flowhooks.observability import open_files
from flowhooks.settings import check_binds, check_operators, database_url
from flowhooks.web.admin.app import create_admin

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.cli.process.context import ProcessContext
    from flowhooks.settings import Settings
    from flowhooks.web.server.server import Server

UNUSED_ADDRESS = "127.0.0.1:0"
"""Placeholder for an address on which a worker does not listen."""

log = structlog.get_logger(__name__)


@click.command("worker", short_help="Run stored deliveries, on PostgreSQL.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Maximum number of deliveries that run at a time [default: the setting runner.threads]. One handler uses at "
    "most three quarters of them.",
)
@click.option(
    "--handlers",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Run only these of the loaded handlers, such as 'contracts:*'; may be given more than once.",
)
@click.option("--processes", metavar="N", help="Number of processes, each with its own concurrency [default: 1].")
@click.option(
    "--admin",
    metavar="HOST:PORT",
    help="Address of the console, the API, the metrics and the health checks, as of a server [default: none].",
)
@settings_source_options
def command(settings_source: SettingsSource, concurrency: int | None, patterns: tuple[str, ...]) -> None:
    r"""Run deliveries that servers have stored, until SIGTERM or Ctrl-C. Needs a ledger on PostgreSQL.

    A worker accepts no callbacks. It runs the deliveries of the handlers that it has loaded. Any number of workers and
    servers may run, on any machines, with the same or different plugins. On shutdown a worker lets running handlers
    finish and exits with 0. Deliveries that have not started are left to other processes.

    \b
    Examples:
      flowhooks worker
      flowhooks worker --concurrency 32 --handlers contracts:*
      flowhooks worker --admin 127.0.0.1:8090
    """
    admin_at = settings_source.options["admin"]
    launcher.run(
        replace(settings_source.pin(), options={**settings_source.options, "runner.threads": concurrency}),
        lambda settings, context: _work(settings, context, patterns=patterns, has_admin=admin_at is not None),
        check=lambda settings: _check(settings if admin_at is not None else replace(settings, admin=UNUSED_ADDRESS)),
        listeners=() if admin_at is None else ("admin",),
    )


def _check(settings: Settings) -> None:
    """Check that a worker may start.

    Raises:
        SettingsError: the database is not shared, or the worker would listen where a server does.
    """
    if not database.is_shared(database_url(settings)):
        raise SettingsError(
            "a worker shares the ledger with servers, but only one process may write a SQLite ledger: use `flowhooks "
            "serve`, which runs handlers itself, or PostgreSQL"
        )
    check_binds(replace(settings, listen=UNUSED_ADDRESS))
    check_operators(settings)


def _work(settings: Settings, context: ProcessContext, *, patterns: Sequence[str], has_admin: bool) -> None:
    failed = threading.Event()
    with signals.ShutdownSignal() as shutdown_signal:
        log.info("worker_starting", **serving.starting_fields(settings, context.source))
        context.watch_supervisor(shutdown_signal)
        connections = serving.allow_connections(settings) if has_admin else None
        open_files.raise_limit()
        app = App(
            settings,
            cores=serving.tune_process(settings, context.inherited),
            run=patterns or ("*",),
            kind="worker",
            credential_kinds=("operators",) if has_admin else (),
            on_loaded=partial(context.finish_loading, shutdown_signal),
        )
        try:
            _check_handlers(app.plugins.handlers, patterns)
            admin = None if connections is None else _admin(app, settings, context, max_connections=connections.admin)
        except BaseException:
            app.close()
            raise
        app.start()
        if admin is not None:
            serving.start_serving(admin, shutdown_signal, failed)
        context.report_ready(settings)
        log.info(
            "worker_started",
            admin=f"http://{admin.address}" if admin else None,
            threads=settings.runner.threads,
            runs=len(app.runs),
            **serving.startup_fields(app),
        )
        serving.report_start(app, "worker")
        context.run_main_loop(shutdown_signal, app, *([] if admin is None else [admin]))
        running = app.runner.running
        app.begin_shutdown()
        log.info("shutdown_started", running=running)
        if admin is not None and context.is_replaced:
            admin.retire()
        ended = app.close(settings.shutdown.timeout)
        if admin is not None:
            admin.close()
        log.info("shutdown_finished", all_ended=ended)
    serving.exit_process(failed=failed.is_set())


def _admin(app: App, settings: Settings, context: ProcessContext, *, max_connections: int) -> Server:
    # The token is given to no client: with a shared ledger, commands run operations in their own process.
    return serving.create_listener(
        "admin",
        create_admin(app, secrets.token_urlsafe(32)),
        settings,
        source=context.source,
        sockets=context.sockets,
        threads=serving.ADMIN_THREADS,
        max_connections=max_connections,
    )


def _check_handlers(loaded: Collection[str], patterns: Sequence[str]) -> None:
    """Check that the worker has handlers to run.

    Raises:
        SettingsError: no handler is loaded, or a pattern matches none.
    """
    if not loaded:
        raise SettingsError("a worker runs handlers, but no plugin has a handler; see `flowhooks plugins list`")
    for pattern in patterns:
        if not any(fnmatchcase(handler_id, pattern) for handler_id in loaded):
            raise SettingsError(f"--handlers {pattern} matches no loaded handler: {', '.join(sorted(loaded))}")
