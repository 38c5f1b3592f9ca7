"""`flowhooks serve`: both listeners, and an orderly end; it must not know how anything is stored or run."""

from __future__ import annotations

import os
import secrets
import threading
from typing import TYPE_CHECKING, Final

import click
import structlog

from flowhooks.app import App
from flowhooks.cli import logs, process
from flowhooks.cli.options import settings_options
from flowhooks.errors import SettingsError
from flowhooks.ledger import dialects
from flowhooks.settings import check_binds, database_url
from flowhooks.settings.secrets import masking
from flowhooks.web import create_app
from flowhooks.web.admin import create_admin

if TYPE_CHECKING:
    from flowhooks.settings import Settings
    from flowhooks.web.server import Server

ANSWERS_GET: Final = 10.0
"""Seconds in which requests that have begun to arrive are answered when the server stops."""

log = structlog.get_logger(__name__)


@click.command("serve")
@click.option("--listen", metavar="HOST:PORT", help="Where engines call back [default: 127.0.0.1:8080].")
@click.option("--admin", metavar="HOST:PORT", help="Where the server is administered [default: 127.0.0.1:8081].")
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Let other machines reach a listener that asks for no credential. Without this, that is refused.",
)
@click.option(
    "--no-worker",
    is_flag=True,
    help="Take call-backs, and leave handlers to workers and to other servers. For a ledger on PostgreSQL.",
)
@settings_options
def command(settings: Settings, *, no_worker: bool) -> None:
    """Take call-backs and run their handlers, until SIGTERM or Ctrl-C.

    Then no more is taken in, those who wait are answered, what runs is waited for, and the exit code is 0.
    What has not started stays stored and is run at the next start.
    """
    check_binds(settings)
    if no_worker and not dialects.is_shared(database_url(settings)):
        raise SettingsError(
            "--no-worker leaves handlers to other processes, and only one process writes a SQLite ledger: "
            "nothing would ever be run; leave it out, or use PostgreSQL"
        )
    logs.configure(settings.log.level, settings.log.format, conceal=masking(settings.plugins, os.environ))
    broken = threading.Event()
    with process.Ending() as ending:
        app = App(settings, cores=process.settle_in(settings), run=() if no_worker else ("*",))
        try:
            token = secrets.token_urlsafe(32)
            web = process.listener(
                "listen",
                create_app(app),
                settings,
                threads=settings.http.threads,
                refused=app.metrics.refused,
            )
            admin = process.listener("admin", create_admin(app, token), settings, threads=process.ADMIN_THREADS)
        except BaseException:
            app.close()
            raise
        app.describe(f"http://{admin.address}", token)
        app.start()
        for server in (admin, web):
            process.keep_serving(server, ending, broken)
        listeners = {"call_backs": f"http://{web.address}", "admin": f"http://{admin.address}"}
        log.info("serving", **listeners, **process.facts(app))
        if not app.plugins.handlers and not no_worker:
            log.warning("no_handlers", why="no plugin gives a handler: every call-back will be stored and parked")
        ending.wait()
        _end(app, web, admin)
    process.leave(broken=broken.is_set())


def _end(app: App, web: Server, admin: Server) -> None:
    log.info("stopping", running=app.runner.running)
    app.drain()
    web.drain(ANSWERS_GET)
    ended = app.close(app.settings.shutdown.timeout)
    web.close()
    admin.close()
    log.info("stopped", all_ended=ended)
