"""Run operations for commands: on the server that holds the ledger, or in this process if no server runs."""

from __future__ import annotations

import getpass
import json
import os
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from flowhooks.cli import output
from flowhooks.cli.http_client import ResponseTimeout, ask_readiness, post
from flowhooks.cli.interruption import InterruptHandler, OperationStopped
from flowhooks.clock import Clock
from flowhooks.errors import FlowhooksError, LedgerError, LedgerUnusable, ServerUnreachable, Unavailable
from flowhooks.ledger import database
from flowhooks.ledger.lock import Lock, acquire_lock
from flowhooks.ledger.processes import handlers_run_by, live_processes, processes_with_pid
from flowhooks.ledger.reader import Reader
from flowhooks.operations import registry
from flowhooks.operations.context import Actor, OperationContext
from flowhooks.operations.lookup import build_lookup
from flowhooks.settings import database_url
from flowhooks.settings.secrets import settings_redactor
from flowhooks.text import escape_control, to_storable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.app import App
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.ledger.processes import LiveProcess
    from flowhooks.operations.record_change import ChangeKind
    from flowhooks.plugins.discovery import DiscoveredPlugin
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings

OperationCall: TypeAlias = "Callable[[str, Mapping[str, Any]], dict[str, Any]]"

SERVER_TIMEOUT: Final = 60.0
"""Maximum seconds for one page of an operation on the server, which stops waiting for its database much earlier."""
ENGINE_TIMEOUT: Final = 3600.0
"""Maximum seconds for an operation that asks engines: a history of millions of instances is read in many requests."""

WAITING: Final = "Waiting for plugin"
"""Start of the message about a plugin that loads slowly."""
MAX_USER_CHARS: Final = 100
"""Maximum length of the name of the user who runs a command."""


def lock_owner(settings: Settings) -> LockOwner | None:
    """Return the current owner of the ledger's lock, or None.

    Raises:
        LedgerUnusable: the lock is held, and its owner cannot be read.
    """
    file = database.database_file(database_url(settings))
    return Lock(file).owner() if file is not None else None


def is_serving(settings: Settings) -> bool:
    """Tell whether a server or worker is running, which uses the plugins loaded at its start.

    Raises:
        LedgerUnusable: the lock or the processes cannot be read.
    """
    url = database_url(settings)
    if not database.is_shared(url):
        holder = lock_owner(settings)
        return bool(holder and holder.admin)
    with closing(Reader(url)) as reader:
        return any(process.kind != "command" for process in reader.live_processes(settings.ledger.heartbeat_timeout))


def live_servers_and_workers(settings: Settings, connection: Connection, holder: LockOwner | None) -> list[LiveProcess]:
    """Return the servers and workers that run; `holder` is the owner of the ledger's lock."""
    if database.is_shared(database_url(settings)):
        found = live_processes(connection, heartbeat_timeout=settings.ledger.heartbeat_timeout)
    else:
        found = processes_with_pid(connection, holder.pid) if holder else []
    return [process for process in found if process.kind in {"server", "worker"}]


def executed_handlers(settings: Settings, connection: Connection) -> frozenset[str] | None:
    """Return the ids of the handlers that servers and workers run; None if no server or worker is known to run."""
    with suppress(LedgerUnusable):
        if processes := live_servers_and_workers(settings, connection, lock_owner(settings)):
            return handlers_run_by(processes)
    return None


def load_plugins(settings: Settings) -> tuple[Schemas, Plugins]:
    """Load schema files and plugins for a command, whose standard output the plugins cannot use.

    Raises:
        SettingsError: a folder or schema file that the settings name cannot be used.
    """
    # Import here: it brings jsonschema, which an operation on the server does not need.
    from flowhooks.plugins import from_settings  # noqa: PLC0415 (as the comment above says)

    output.reserve_stdout()
    return from_settings.load(settings, on_slow=_print_slow)


def _print_slow(plugin: DiscoveredPlugin, seconds: int) -> None:
    name, origin = escape_control(plugin.name), escape_control(plugin.origin_text)
    output.print_line(f"{WAITING} {name} ({origin}), which has been loading for {seconds} s.", err=True)


def run_operation(
    settings: Settings,
    name: str,
    arguments: Mapping[str, Any],
    *,
    progress: tuple[str, Callable[[], int]] | None = None,
    level: str = "warning",
    duty_cycle: float = 1.0,
    asks_engines: bool = False,
    more_steps: bool = False,
) -> dict[str, Any]:
    """Run an operation page by page, and add up the results of the pages.

    Args:
        settings: settings with the ledger's database.
        name: a key of `operations.registry.OPERATIONS`.
        arguments: arguments as JSON values.
        progress: title of the progress bar, and a function that counts the events to examine.
        level: minimum log level, if the operation runs in this process.
        duty_cycle: maximum share of time that the pages take; between them, callbacks have the rest.
        asks_engines: whether the operation asks engines, for which even a dry run needs the clients.
        more_steps: whether the command has further steps, before which Ctrl-C stops it.

    Returns:
        The result of the operation, with numbers added up, and `server`: whether a server ran it, or other processes
        that share the ledger run deliveries. Otherwise waiting deliveries run when a server starts.

    Raises:
        OperationStopped: Ctrl-C, or an error after some pages, stopped the operation.
        ServerUnreachable: the server that holds the ledger did not run the operation.
        FlowhooksError: the operation failed for another reason.
    """
    dry_run = bool(arguments.get("dry_run"))
    with (
        _open_client(settings, dry_run=dry_run, level=level, asks_engines=asks_engines) as (call, by_server),
        InterruptHandler() as interruptible,
    ):
        what, total = progress or (name, lambda: 0)
        with output.progress_bar(what, total) as advance:
            done = _run_pages(call, name, arguments, interruptible, advance, duty_cycle=duty_cycle)
        if more_steps and interruptible.requested:
            raise OperationStopped("interrupted", done=done, after="", interrupted=True)
        return done | {"server": by_server}


def run_step(
    settings: Settings, name: str, arguments: Mapping[str, Any], hint: str, *, asks_engines: bool = False
) -> dict[str, Any]:
    """Run an operation of a command that has further steps, before which Ctrl-C stops it.

    Raises:
        OperationStopped: Ctrl-C stopped the command; the message ends with `hint`.
        ServerUnreachable, FlowhooksError: as for `run_operation`.
    """
    try:
        return run_operation(settings, name, arguments, asks_engines=asks_engines, more_steps=True)
    except OperationStopped as stopped:
        why = f"{stopped}; {hint}"
        raise OperationStopped(why, done=stopped.done, after=stopped.after, interrupted=stopped.interrupted) from None


def _run_pages(
    call: OperationCall,
    name: str,
    arguments: Mapping[str, Any],
    interruptible: InterruptHandler,
    advance: Callable[[int], None],
    *,
    duty_cycle: float,
) -> dict[str, Any]:
    done: dict[str, Any] = {}
    after = str(arguments.get("after", ""))
    try:
        while not interruptible.requested:
            started_at = time.monotonic()
            page = call(name, {**arguments, "after": after} if after else arguments)
            done = {key: _add_up(done.get(key), value) for key, value in page.items()}
            after = str(page.get("next", ""))
            advance(int(page.get("events", 0)))
            if not after:
                return done
            interruptible.sleep((time.monotonic() - started_at) * (1 / duty_cycle - 1))
        why = "interrupted"
    except KeyboardInterrupt:
        why = "interrupted; the current step may have been completed"
    except FlowhooksError as error:
        if not done:
            raise
        raise OperationStopped(str(error), done=done, after=after, interrupted=False) from None
    raise OperationStopped(why, done=done, after=after, interrupted=True)


def _add_up(before: Any, value: Any) -> Any:
    return before + value if type(value) is int and type(before) is int else value


@contextmanager
def _open_client(
    settings: Settings, *, dry_run: bool, level: str, asks_engines: bool
) -> Iterator[tuple[OperationCall, bool]]:
    """Open a client of the running server, or of the ledger if none runs; and tell whether a server runs."""
    holder = lock_owner(settings)
    if holder is not None:
        if not holder.admin:
            raise LedgerUnusable(
                f"process {holder.pid} uses the database exclusively: a command, or a server that is starting; try "
                "again in a moment"
            )
        timeout = ENGINE_TIMEOUT if asks_engines else SERVER_TIMEOUT
        yield (lambda name, arguments: _run_on_server(holder, name, arguments, timeout)), True
        return
    # Open a reader first: it refuses a missing or old database, which would otherwise be created or upgraded, for
    # example because of a typing error in a path.
    reader = Reader(database_url(settings))
    try:
        _log_to_text(settings, level)
        others = any(process.handlers for process in reader.live_processes(settings.ledger.heartbeat_timeout))
        if dry_run and not asks_engines:
            context = _read_only_context(settings, reader)
            yield (lambda name, arguments: registry.run_operation(context, name, arguments)), others
            return
        with _open_app(settings) as opened, _with_engines(opened, asks_engines=asks_engines) as context:
            yield (lambda name, arguments: _run_locally(context, name, arguments)), others
    finally:
        reader.close()


def _log_to_text(settings: Settings, level: str) -> None:
    # Import here: an operation on the server does not need structlog.
    from flowhooks.observability import logging  # noqa: PLC0415 (as above)

    logging.configure(level, "text", redact=settings_redactor(settings, os.environ))


@contextmanager
def _open_app(settings: Settings) -> Iterator[App]:
    """Open the ledger in this process, which then holds its lock, without starting anything."""
    # Import here: an operation on the server does not need the server's modules.
    from flowhooks.app import App  # noqa: PLC0415 (as above)
    from flowhooks.operations.registration import register_new  # noqa: PLC0415 (as above)

    output.reserve_stdout()
    opened = App(settings, run=(), kind="command")
    with closing(opened):
        try:
            yield opened
        finally:
            with suppress(Unavailable):  # the next start registers them
                register_new(opened.ledger, opened.plugins, opened.registration, opened.clock.now())


def record_change(settings: Settings, kind: ChangeKind, plugins: Sequence[str] = ()) -> None:
    """Record a change of the installation in the audit log, if there is a ledger. A failure is only reported.

    Without a server this process opens the ledger without plugins: it registers no handler of a new plugin.

    Args:
        settings: settings with the ledger's database.
        kind: what the operator did.
        plugins: the plugins concerned, with their versions before and after.
    """
    url = database_url(settings)
    file = database.database_file(url)
    if file is not None and not file.exists():
        return
    arguments = {"kind": kind.value, "plugins": list(plugins)}
    try:
        holder = lock_owner(settings)
        if holder is not None and holder.admin:
            _run_on_server(holder, "record_change", arguments, SERVER_TIMEOUT)
            return
        Reader(url).close()  # it refuses an old database, which the ledger would upgrade
        with _open_ledger(settings) as context:
            _run_locally(context, "record_change", arguments)
    except FlowhooksError as error:
        output.print_line(f"The audit log has no entry of this {kind.value}: {error}", err=True)


@contextmanager
def _open_ledger(settings: Settings) -> Iterator[OperationContext]:
    """Open the ledger in this process without plugins, and hold its lock."""
    # Import here: most commands do not need the server's modules.
    from flowhooks import composition  # noqa: PLC0415 (as above)

    without_plugins = replace(settings, safe_mode=True)
    lock, clock = acquire_lock(database_url(settings)), Clock()
    try:
        _, plugins = load_plugins(without_plugins)
        base = composition.open_base(
            without_plugins, plugins, clock, kind="command", runs=frozenset(), cores=frozenset(), environ=os.environ
        )
        with closing(base.ledger) as ledger:
            router = build_lookup(plugins, (), ()).router
            yield OperationContext(
                reader=ledger, router=router, missing_handlers=frozenset(), clock=clock, settings=settings
            )
    finally:
        if lock is not None:
            lock.release()


def release_operation(settings: Settings, operation_id: str, on_progress: Callable[[int], object]) -> None:
    """Release the deliveries of a running operation in this process, because no server does.

    Args:
        settings: settings with the ledger's database.
        operation_id: the operation.
        on_progress: called with the number of deliveries that it has acted on since the last call.

    Raises:
        LedgerError: the ledger could not be written; the operation continues once a server starts.
    """
    from flowhooks.operations.bulk import release_all  # noqa: PLC0415 (it needs the server's modules)

    _log_to_text(settings, "warning")
    try:
        with _open_app(settings) as opened:
            release_all(opened.operation_context, operation_id, on_progress)
    except Unavailable:  # its message is meant for engines
        raise LedgerError("the database could not be written; the operation continues once a server starts") from None


@contextmanager
def _with_engines(opened: App, *, asks_engines: bool) -> Iterator[OperationContext]:
    """Return the context of an app, with the engines if an operation asks them."""
    if not asks_engines:
        yield opened.operation_context
        return
    from flowhooks.background.threads import STOP_TIMEOUT  # noqa: PLC0415 (as above)

    reconciliation = opened.open_reconciliation()
    try:
        yield replace(opened.operation_context, reconciler=reconciliation)
    finally:
        reconciliation.stop(STOP_TIMEOUT)


def _read_only_context(settings: Settings, reader: Reader) -> OperationContext:
    """Return a context for a dry run without a server: it needs no lock and cannot write."""
    # On a shared ledger, the handlers that servers and workers have registered count, not the plugins of this machine.
    _, plugins = load_plugins(replace(settings, safe_mode=settings.safe_mode or reader.shared))
    lookup_result = build_lookup(plugins, reader.registered_handlers(), settings.routing.ignore_process_keys)
    return OperationContext(
        reader=reader,
        router=lookup_result.router,
        missing_handlers=frozenset(lookup_result.missing_handlers),
        clock=Clock(),
        settings=settings,
    )


def _run_locally(context: OperationContext, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return registry.run_operation(replace(context, by=Actor(_user_name(), "cli")), name, arguments)
    except Unavailable:  # its message is meant for engines
        raise LedgerError(_NOT_WRITTEN) from None


_NOT_WRITTEN: Final = "the database could not be written; this step changed nothing and can be repeated"


def _user_name() -> str:
    try:
        return to_storable(getpass.getuser(), MAX_USER_CHARS)  # it may be any bytes of a variable
    except (OSError, KeyError):  # the user id has no name, as in many containers
        return f"user {os.getuid()}"


def _why_not_ready(holder: LockOwner) -> str:
    with suppress(ServerUnreachable):
        if reasons := ask_readiness(holder.admin):
            return f"not ready ({'; '.join(reasons)})"
    return "stopping or busy"


def _run_on_server(holder: LockOwner, name: str, arguments: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    server = f"the server (process {holder.pid}) at {holder.admin}"
    headers = {"Authorization": f"Bearer {holder.token}", "Content-Type": "application/json", "Accept-Language": "en"}
    try:
        answer = post(
            holder.admin,
            f"/api/operations/{name}",
            body=json.dumps({**arguments, "by": _user_name()}).encode(),
            headers=headers,
            timeout=timeout,
        )
    except ResponseTimeout:
        raise ServerUnreachable(
            f"{server} has not answered within {timeout:g} seconds, and may still do what was asked: see `flowhooks "
            "audit` before you repeat it"
        ) from None
    except ServerUnreachable as error:
        raise ServerUnreachable(
            f"{server} uses the database, but did not accept this request: {error}. If it has just been stopped or "
            "restarted, try again; if it hangs, stop it and try again"
        ) from None
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ServerUnreachable(
            f"the answer of {holder.admin} is not from the server (process {holder.pid}): try again"
        )
    if answer.status == 200:  # noqa: PLR2004 (HTTP's)
        return value
    message = str(value.get("message", f"HTTP status {answer.status}"))
    match answer.status:
        case 404 | 409 | 422:
            raise LedgerError(message)
        case 401:
            raise ServerUnreachable(f"{server} has just been restarted; try again")
        case 503:
            raise ServerUnreachable(f"{server} is {_why_not_ready(holder)}: {_NOT_WRITTEN}")
    raise ServerUnreachable(f"{server} answered {answer.status}: {message}")
