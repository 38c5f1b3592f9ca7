"""`flowhooks serve`: both listeners, and an orderly end; it must not know how anything is stored or run."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import click
import structlog

from flowhooks.app import App
from flowhooks.cli import logs
from flowhooks.cli.options import settings_options
from flowhooks.settings import check_binds
from flowhooks.web import create_app
from flowhooks.web.admin import create_admin
from flowhooks.web.server import Limits, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.settings import Settings

SWITCH_INTERVAL: Final = 0.0002
"""Seconds between two threads' turns at the interpreter. Python's own 0.005 halves the rate at 32 connections,
for whoever has to answer waits behind whoever computes (measured by `make bench`)."""
ADMIN_THREADS: Final = 4
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
@settings_options
def command(settings: Settings) -> None:
    """Take call-backs and run their handlers, until SIGTERM or Ctrl-C.

    Then no more is taken in, those who wait are answered, what runs is waited for, and the exit code is 0.
    What has not started stays stored and is run at the next start.
    """
    check_binds(settings)
    logs.configure(settings.log.level, settings.log.format)
    sys.setswitchinterval(SWITCH_INTERVAL)
    stop = threading.Event()
    broken = threading.Event()
    with _Signals(stop):
        app = App(settings)
        try:
            limits = Limits(
                max_body_bytes=settings.http.max_body_bytes,
                max_header_bytes=settings.http.max_header_bytes,
                read_timeout=settings.http.read_timeout,
                idle_timeout=settings.http.idle_timeout,
                max_connections=settings.http.max_connections,
            )
            token = secrets.token_urlsafe(32)
            web = Server(
                create_app(app), listen=settings.listen, threads=settings.http.threads, limits=limits, name="http"
            )
            admin = Server(
                create_admin(app, token), listen=settings.admin, threads=ADMIN_THREADS, limits=limits, name="admin"
            )
        except BaseException:
            app.close()
            raise
        app.describe(f"http://{admin.address}", token)
        app.start()
        for server in (admin, web):
            threading.Thread(target=_serve, args=(server, stop, broken), daemon=True).start()
        log.info("serving", call_backs=f"http://{web.address}", admin=f"http://{admin.address}", **_facts(app))
        stop.wait()
        _end(app, web, admin)
    if broken.is_set():
        raise SystemExit(1)


def _serve(server: Server, stop: threading.Event, broken: threading.Event) -> None:
    try:
        server.serve()
    except Exception:
        log.exception("listener_failed", address=server.address)
        broken.set()
    finally:
        stop.set()


def _end(app: App, web: Server, admin: Server) -> None:
    log.info("stopping", running=app.runner.running)
    app.drain()
    web.drain(ANSWERS_GET)
    ended = app.close(app.settings.shutdown.timeout)
    web.close()
    admin.close()
    log.info("stopped", all_ended=ended)


def _facts(app: App) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "database": app.settings.database,
        "plugins": sum(info.state == "loaded" for info in app.plugins.infos),
        "quarantined": sum(info.state == "quarantined" for info in app.plugins.infos),
        "handlers": len(app.plugins.handlers),
    }


class _Signals:
    """SIGTERM and SIGINT ask for an orderly end; the second one of them ends the process at once."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._asked())

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _asked(self) -> Callable[[int, Any], None]:
        def asked(number: int, _frame: Any) -> None:
            if self._stop.is_set():
                os._exit(128 + number)
            self._stop.set()

        return asked
