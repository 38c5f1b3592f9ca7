"""`flowhooks worker`: runs deliveries that others have taken in; it must not know how anything is stored or run."""

from __future__ import annotations

import os
import secrets
import threading
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click
import structlog

from flowhooks.app import App
from flowhooks.cli import logs, process
from flowhooks.cli.options import Given, given_options
from flowhooks.errors import SettingsError
from flowhooks.ledger import dialects
from flowhooks.settings import check_binds, database_url
from flowhooks.settings.secrets import masking
from flowhooks.web.admin import create_admin

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.settings import Settings
    from flowhooks.web.server import Server

NOWHERE = "127.0.0.1:0"
"""What stands for an address at which a worker does not listen."""

log = structlog.get_logger(__name__)


@click.command("worker")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Run N deliveries at once at the most [default: the setting runner.threads]; one handler half of them.",
)
@click.option(
    "--handlers",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Run only these handlers of those that are loaded, such as 'contracts:*'; may be given several times.",
)
@click.option("--admin", metavar="HOST:PORT", help="Where /healthz and /readyz are answered [default: nowhere].")
@given_options
def command(given: Given, concurrency: int | None, patterns: tuple[str, ...]) -> None:
    r"""Run deliveries that servers have taken in, until SIGTERM or Ctrl-C. For a ledger on PostgreSQL.

    It takes no call-backs. It runs the deliveries of the handlers that it has loaded, and leaves all others to
    those that have theirs. Any number of workers and servers may run, on any machines, with the same plugins or
    with others. At the end what runs is waited for, and the exit code is 0; what has not started is left to others.

    \b
    Examples:
      flowhooks worker
      flowhooks worker --concurrency 32 --handlers contracts:*
      flowhooks worker --admin 127.0.0.1:8090
    """
    admin_at = given.options["admin"]
    settings = replace(given, options={**given.options, "runner.threads": concurrency}).load()
    if not dialects.is_shared(database_url(settings)):
        raise SettingsError(
            "a worker shares the ledger with the servers, and only one process writes a SQLite ledger: "
            "`flowhooks serve` runs the handlers itself there; for more processes use PostgreSQL"
        )
    if admin_at is not None:
        check_binds(replace(settings, listen=NOWHERE))
    logs.configure(settings.log.level, settings.log.format, conceal=masking(settings.plugins, os.environ))
    broken = threading.Event()
    with process.Ending() as ending:
        app = App(settings, cores=process.settle_in(settings), run=patterns or ("*",))
        try:
            _check(app.plugins.handlers, patterns)
            admin = None if admin_at is None else _admin(app, settings)
        except BaseException:
            app.close()
            raise
        app.start()
        if admin is not None:
            process.keep_serving(admin, ending, broken)
        log.info(
            "working",
            admin=f"http://{admin.address}" if admin else None,
            threads=settings.runner.threads,
            runs=len(app.runs),
            **process.facts(app),
        )
        ending.wait()
        log.info("stopping", running=app.runner.running)
        ended = app.close(settings.shutdown.timeout)
        if admin is not None:
            admin.close()
        log.info("stopped", all_ended=ended)
    process.leave(broken=broken.is_set())


def _admin(app: App, settings: Settings) -> Server:
    # Nobody is told the token: where the ledger is shared, commands do by themselves what they are to do.
    return process.listener(
        "admin", create_admin(app, secrets.token_urlsafe(32)), settings, threads=process.ADMIN_THREADS
    )


def _check(loaded: Collection[str], patterns: Sequence[str]) -> None:
    """See that there is something to run.

    Raises:
        SettingsError: no handler is loaded, or a pattern means none of them.
    """
    if not loaded:
        raise SettingsError("a worker runs handlers, and no plugin gives one; `flowhooks plugins list` says more")
    for pattern in patterns:
        if not any(fnmatchcase(one, pattern) for one in loaded):
            raise SettingsError(f"--handlers {pattern} means no handler that is loaded: {', '.join(sorted(loaded))}")
