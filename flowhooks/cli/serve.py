"""`flowhooks serve`: both listeners, and an orderly end; it must not know how anything is stored or run."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

import click
import structlog

from flowhooks.app import App
from flowhooks.cli import logs
from flowhooks.cli.options import settings_options
from flowhooks.cores import gather
from flowhooks.errors import SettingsError
from flowhooks.ledger import dialects
from flowhooks.settings import check_binds, database_url
from flowhooks.settings.secrets import masking
from flowhooks.web import create_app
from flowhooks.web.admin import create_admin
from flowhooks.web.server import Limits, Server

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from flowhooks.settings import Settings

SWITCH_INTERVAL: Final = 0.0002
"""Seconds between two threads' turns at the interpreter. Python's own 0.005 halves the rate at 32 connections,
for whoever has to answer waits behind whoever computes (measured by `make bench`)."""
ENDS: Final = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask for the end."""
ADMIN_THREADS: Final = 4
ANSWERS_GET: Final = 10.0
"""Seconds in which requests that have begun to arrive are answered when the server stops."""
LEAVING_GETS: Final = 3.0
"""Seconds that the interpreter gets to end, and what plugins have it do then."""

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
    logs.configure(settings.log.level, settings.log.format, conceal=masking(settings.plugins, os.environ))
    sys.setswitchinterval(SWITCH_INTERVAL)
    broken = threading.Event()
    with _Ending() as ending:
        app = App(settings, cores=_gather(settings))
        try:
            token = secrets.token_urlsafe(32)
            web = _listener("listen", create_app(app), settings, threads=settings.http.threads)
            admin = _listener("admin", create_admin(app, token), settings, threads=ADMIN_THREADS)
        except BaseException:
            app.close()
            raise
        app.describe(f"http://{admin.address}", token)
        app.start()
        for server in (admin, web):
            threading.Thread(target=_serve, args=(server, ending, broken), daemon=True).start()
        log.info("serving", call_backs=f"http://{web.address}", admin=f"http://{admin.address}", **_facts(app))
        if not app.plugins.handlers:
            log.warning("no_handlers", why="no plugin gives a handler: every call-back will be stored and parked")
        ending.wait()
        _end(app, web, admin)
    code = 1 if broken.is_set() else 0
    threading.Thread(target=_leave, args=(code,), name="leave", daemon=True).start()
    raise SystemExit(code)


def _gather(settings: Settings) -> frozenset[int]:
    """Keep this thread, and so all that it starts, on one core; the cores that handlers may use."""
    try:
        return gather() if settings.one_core else frozenset()
    except OSError as error:
        log.warning("not_on_one_core", why=str(error))
        return frozenset()


def _listener(name: str, application: WSGIApplication, settings: Settings, *, threads: int) -> Server:
    """The server of one listener, bound to its address.

    Raises:
        SettingsError: the address cannot be listened on; says which option named it.
    """
    http = settings.http
    limits = Limits(
        max_body_bytes=http.max_body_bytes,
        max_header_bytes=http.max_header_bytes,
        read_timeout=http.read_timeout,
        idle_timeout=http.idle_timeout,
        max_connections=http.max_connections,
    )
    try:
        return Server(application, listen=getattr(settings, name), threads=threads, limits=limits, name=name)
    except SettingsError as error:
        raise SettingsError(f"--{name}: {error}") from None


def _serve(server: Server, ending: _Ending, broken: threading.Event) -> None:
    try:
        server.serve()
    except Exception:
        log.exception("listener_failed", address=server.address)
        broken.set()
    finally:
        ending.ask()


def _end(app: App, web: Server, admin: Server) -> None:
    log.info("stopping", running=app.runner.running)
    app.drain()
    web.drain(ANSWERS_GET)
    ended = app.close(app.settings.shutdown.timeout)
    web.close()
    admin.close()
    log.info("stopped", all_ended=ended)


def _leave(code: int) -> None:
    """End the process if it does not end by itself: the interpreter waits for threads that plugins have left behind."""
    time.sleep(LEAVING_GETS)
    log.warning("threads_left_behind", threads=sorted(thread.name for thread in threading.enumerate()))
    os._exit(code)


def _facts(app: App) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "database": dialects.shown(database_url(app.settings)),
        "plugins": sum(info.state == "loaded" for info in app.plugins.infos),
        "quarantined": sum(info.state == "quarantined" for info in app.plugins.infos),
        "handlers": len(app.plugins.handlers),
    }


class _Ending:
    """Waits until the end is asked for: by SIGTERM or SIGINT, or by `ask`. A second signal ends the process at once.

    What Python does about a signal it does between two steps of the main thread, so a main thread that waits for a
    lock may never hear of one that another thread was given, or that came just before it began to wait. Here it
    waits for a pipe, into which the interpreter writes each signal's number as it comes.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    def __enter__(self) -> Self:
        self._pipe_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in ENDS:
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._pipe_before)

    def ask(self) -> None:
        """Ask for the end; from any thread, and as often as one likes."""
        with contextlib.suppress(BlockingIOError):  # full: it has been asked for often enough
            os.write(self._writer, bytes([signal.SIGTERM]))

    def wait(self) -> None:
        """Wait until the end is asked for; other signals, of which plugins may make use, do not count."""
        while os.read(self._reader, 1)[0] not in ENDS:
            pass

    def _signalled(self, number: int, _frame: object) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True
