"""Check whether a server with these settings would start and run well.

The check changes no data and needs no running server. It loads the plugins as a server would, so their code at import
and in `configure` runs.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_text
from flowhooks.errors import FlowhooksError, ServerUnreachable, SettingsError
from flowhooks.intake import required_credentials
from flowhooks.ledger import database
from flowhooks.observability import open_files
from flowhooks.operations.check import engines, sources
from flowhooks.operations.check.database import DatabaseCheck
from flowhooks.operations.check.finding import CheckFinding, Severity, note, ok, problem
from flowhooks.operations.lookup import build_lookup
from flowhooks.settings import (
    check_binds,
    check_operators,
    check_processes,
    database_url,
    host_and_port,
    is_loopback,
)
from flowhooks.settings.types import NAME, did_you_mean
from flowhooks.text import command_line, shell_quote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.plugins.loading import PluginInfo
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings

__all__ = ["CheckFinding", "Severity", "check", "from_settings_error"]

_UNAVAILABLE: Final = {
    "quarantined": ("the plugin cannot be used", "fix the problem that is listed under plugins above"),
    "denied": (
        "the plugin is disabled by the settings",
        (
            "remove it from plugins_deny, or add it to plugins_allow; "
            "to store no more deliveries for it, run `flowhooks plugins uninstall {plugin} --handler {handler}`"
        ),
    ),
    "missing": (
        "the plugin is not installed",
        (
            "install it again (for a single file, name its folder: --plugins-dir or plugins_dirs); "
            "if it is removed for good, run `flowhooks plugins uninstall {plugin}`"
        ),
    ),
}
"""Why a handler is unavailable and what to do, by its availability in the look-up."""
_REMOVED: Final = (
    "the plugin is loaded, but no longer has this handler",
    (
        "restore the handler; if it was renamed or removed for good, run "
        "`flowhooks plugins uninstall {plugin} --handler {handler}`"
    ),
)
"""Why a handler is unavailable and what to do if its plugin is loaded without it."""
_MAX_NAMED: Final = 5


def check(
    settings: Settings,
    load: Callable[[], tuple[Schemas, Plugins]],
    *,
    jobs: Callable[[], None],
    isolated: Callable[[Plugins], Mapping[str, str]] = lambda _plugins: {},
    readiness: Callable[[LockOwner], list[str]] = lambda _server: [],
    options: Sequence[str] = (),
) -> list[CheckFinding]:
    """Check everything that a server with these settings depends on.

    Args:
        settings: the settings.
        load: loads the schema files and the plugins.
        jobs: raises if the tables of jobs cannot be used; called if the settings' runner needs them.
        isolated: tries to start the isolated handlers in processes of their own; returns the reason of each failure by
            handler id, or `""`.
        readiness: asks the running server why it is not ready; returns the reasons, and raises `ServerUnreachable` if
            it does not answer.
        options: options with which another command reads the same settings.

    Returns:
        The findings, in the order in which a start reaches their subjects.
    """
    findings = [ok("settings", "the settings can be read"), *_processes(settings), *_binds(settings)]
    findings.append(_connections(settings))
    try:
        schemas, plugins = load()
    except SettingsError as error:
        schemas, plugins = None, None
        findings.append(problem("plugins", str(error)))
    if schemas is not None and plugins is not None:
        findings.append(ok("schemas", f"kinds of callback: {', '.join(schemas.kinds)}"))
        findings += _plugins(plugins, settings, options)
        findings += _isolation(isolated(plugins))
        findings += _roles(plugins, settings)
        findings += _alerts(plugins, settings)
        findings += sources.ingress_findings(settings, plugins)
        findings += engines.findings(settings, plugins, os.environ)
    database_check = DatabaseCheck(
        database_url(settings),
        heartbeat_timeout=settings.ledger.heartbeat_timeout,
        indexed_fields=settings.search.fields,
    )
    findings += database_check.findings()
    if database_check.server is not None:
        findings += _readiness(database_check.server, readiness)
    findings += [
        problem("binds", line)
        for line in required_credentials.explain_missing(
            settings, database_check.required_credentials, ("sources", "operators")
        )
    ]
    if settings.runner.kind == "procrastinate":
        findings.append(_jobs(jobs))
    if plugins is not None:
        findings += _routes(plugins, database_check, settings)
    return findings + database_check.counts


def from_settings_error(error: SettingsError) -> list[CheckFinding]:
    """Return one finding for each problem of settings that cannot be used."""
    return [problem("settings", line) for line in str(error).splitlines()]


def _processes(settings: Settings) -> Iterator[CheckFinding]:
    try:
        check_processes(settings)
    except SettingsError as error:
        yield problem("processes", str(error))


def _binds(settings: Settings) -> Iterator[CheckFinding]:
    try:
        check_binds(settings)
    except SettingsError as error:
        for line in str(error).splitlines():
            yield problem("binds", line)
        return
    yield from sources.findings(settings)
    yield from _operators(settings)
    where = f"callbacks at {settings.listen}, administration at {settings.admin}"
    if public := settings.public_without_credential():
        yield note("binds", where, f"other machines can use {' and '.join(public)} without a credential (insecure)")
    else:
        yield ok("binds", where)


def _connections(settings: Settings) -> CheckFinding:
    files = open_files.attainable_limit()
    limits = open_files.connection_limits(settings.http.max_connections, files)
    summary = f"at most {limits.listen:,} connections for callbacks, {limits.admin:,} for administration"
    if min(limits) == settings.http.max_connections:
        return ok("connections", summary)
    return note(
        "connections",
        f"{summary}, fewer than http.max_connections ({settings.http.max_connections:,})",
        f"a process may open {files} files here; handlers, the database and logs need some of them",
        "raise the hard limit of open files (`ulimit -Hn`, LimitNOFILE of a systemd unit), or lower "
        "http.max_connections",
    )


def _operators(settings: Settings) -> Iterator[CheckFinding]:
    if settings.login.proxy:
        yield _proxy_login(settings)
    if not settings.operators:
        return
    try:
        check_operators(settings)
    except SettingsError as error:
        for line in str(error).splitlines():
            yield problem("operators", line)
        return
    public = not is_loopback(host_and_port(settings.admin)[0])
    who = f"{_plural(len(settings.operators), 'operator')} can log in: {_names(sorted(settings.operators))}"
    if settings.public_url.startswith("http://") or (public and not settings.public_url):
        yield note(
            "operators",
            who,
            "passwords and tokens travel without TLS: anyone who can read the network traffic can use them",
            "put a proxy with TLS in front, and set public_url to its address, https://…",
        )
    else:
        yield ok("operators", who)


def _proxy_login(settings: Settings) -> CheckFinding:
    login = settings.login
    roles = _plural(len(login.groups), "group")
    what = f"the proxy {login.proxy} logs operators in by {login.user_header} and {login.groups_header}: {roles}"
    if is_loopback(login.proxy):
        return note(
            "operators",
            what,
            "every program on this machine can send these headers, and so log in as anyone",
            "run the proxy on a machine or in a container of its own, or let only its user run programs here",
        )
    return ok("operators", what)


def _roles(plugins: Plugins, settings: Settings) -> Iterator[CheckFinding]:
    found = {info.name for info in plugins.infos}
    for role, settings_of_role in sorted(settings.roles.items()):
        for name in settings_of_role.plugins:
            if name not in found:
                yield note(
                    "operators",
                    f"roles.{role}.plugins names {name}, but no plugin of this name is installed"
                    f"{did_you_mean(name, found)}",
                    "operators of the role see what is stored for handlers of this plugin only",
                    "correct the name, or install the plugin",
                )


def _plugins(plugins: Plugins, settings: Settings, options: Sequence[str]) -> Iterator[CheckFinding]:
    for info in plugins.infos:
        yield _plugin(info, options)
    for warning in plugins.warnings:
        yield note("plugins", warning)
    if settings.safe_mode:
        yield note("plugins", "safe mode: no plugin is loaded")
    elif not plugins.infos:
        yield note(
            "plugins",
            "no plugin is installed",
            "every callback will be parked"
            if settings.routing.no_handler == "park"
            else "every callback will be rejected",
            "install a plugin (`flowhooks plugins new` creates one), "
            "or name a folder of single-file plugins: --plugins-dir or plugins_dirs",
        )


def _plugin(info: PluginInfo, options: Sequence[str]) -> CheckFinding:
    name = f"{info.name} {info.version}".rstrip()
    if info.state == "loaded":
        return ok("plugins", f"{name} is loaded, with {_plural(len(info.handlers), 'handler')}")
    if info.state == "denied":
        return note("plugins", f"{name} is disabled by the settings", info.error)
    return problem(
        "plugins",
        f"{name} cannot be used and is quarantined; its handlers' deliveries wait",
        info.error,
        f"{_remedy(info)}; `{command_line('plugins', 'show', info.name, *options)}` has its traceback"
        if info.traceback
        else _remedy(info),
        traceback=info.traceback,
    )


def _remedy(info: PluginInfo) -> str:
    if f"[plugins.{info.name}]" in info.error:
        return f"correct the section [plugins.{info.name}] of the settings, and check again"
    if info.distribution:
        return f"correct the package {info.distribution} or install another version of it, and check again"
    verb = "correct" if NAME.fullmatch(info.name) else "rename"  # the name of a plugin file is that of the plugin
    install = " or install the module" if "ModuleNotFoundError" in info.error else ""
    return f"{verb} {info.origin.removeprefix('file ')}{install}, and check again"


def _isolation(errors: Mapping[str, str]) -> Iterator[CheckFinding]:
    handlers_by_error = {
        error: [handler for handler in sorted(errors) if errors[handler] == error] for error in errors.values()
    }
    for error, handlers in handlers_by_error.items():
        count_text = _plural(len(handlers), "handler")
        if error:
            yield problem(
                "isolation",
                f"{count_text} cannot be run in a process of {'its' if len(handlers) == 1 else 'their'} own: "
                f"{_names(handlers)}",
                error,
                "let the plugin load a second time while the server runs, or run the handler in a thread: "
                f'[handlers."{handlers[0]}"] isolation = "thread"',
            )
        else:
            yield ok(
                "isolation", f"{count_text} can be run in a process of {'its' if len(handlers) == 1 else 'their'} own"
            )


def _alerts(plugins: Plugins, settings: Settings) -> Iterator[CheckFinding]:
    routes = settings.alerts.routes
    if not settings.safe_mode:
        yield from (problem("alerts", what) for what in plugins.unknown_notifiers(routes))
    for name, route in routes.items():
        for pattern in route.handlers:
            if not any(fnmatchcase(handler, pattern) for handler in plugins.handlers):
                yield note(
                    "alerts",
                    f"{route.location}.handlers: no loaded handler matches {pattern}",
                    f"route {name} gets no alerts for it; the id may be misspelt, or the plugin may not be installed",
                    "`flowhooks handlers list` shows the ids",
                )
    if listeners := plugins.alert_listeners:
        yield ok("alerts", f"sent to {', '.join(listeners)}; `flowhooks alerts test` sends a test message")
        return
    yield ok("alerts", "no plugin listens, so alerts are only logged; flowhooks-notice sends mails and chat messages")


def _readiness(server: LockOwner, ask: Callable[[LockOwner], list[str]]) -> Iterator[CheckFinding]:
    try:
        for trouble in ask(server):
            to_do = database.remedy(trouble).removesuffix("; ")
            yield problem("server", f"process {server.pid} is not ready: {trouble}", "", to_do)
    except ServerUnreachable as error:
        yield problem(
            "server",
            f"process {server.pid} does not answer: {error}",
            "",
            "if it has just been started, stopped or restarted, check again; if it hangs, stop it and start it again",
        )


def _jobs(look: Callable[[], None]) -> CheckFinding:
    try:
        look()
    except FlowhooksError as error:
        return problem("jobs", str(error), "a process with these settings refuses to start")
    return ok("jobs", "the tables of jobs match the installed version of Procrastinate")


def _routes(plugins: Plugins, database_check: DatabaseCheck, settings: Settings) -> Iterator[CheckFinding]:
    lookup = build_lookup(
        plugins,
        database_check.registered_handlers,
        settings.routing.ignore_process_keys,
        executed_handlers=database_check.executed_handlers,
    )
    missing_by_plugin: dict[tuple[str, str], list[RegisteredHandler]] = {}
    for handler in database_check.registered_handlers:
        if lookup.availability(handler.id) not in {"present", "elsewhere"}:
            missing_by_plugin.setdefault(
                (handler.id.partition(":")[0], lookup.missing_handlers[handler.id]), []
            ).append(handler)
    loaded = {info.name for info in plugins.infos if info.state == "loaded"}
    for (plugin, why_not), missing in missing_by_plugin.items():
        why, to_do = _UNAVAILABLE[why_not]
        if plugin in loaded:
            why, to_do = _REMOVED
        nowhere = f", and no live process runs {_them(missing)}" if database_check.live_processes else ""
        yield problem(
            "handlers",
            f"{_plural(len(missing), 'registered handler')} of plugin {plugin} "
            f"{_are(missing)} not loaded{nowhere}: {_names([handler.id for handler in missing])}",
            f"{why}; last loaded at {to_text(max(handler.last_seen_at for handler in missing))}; "
            f"{_waiting_text(database_check, [handler.id for handler in missing])} for {_them(missing)}",
            to_do.format(plugin=shell_quote(plugin), handler=shell_quote(missing[0].id.partition(":")[2])),
        )
    if unknown := sorted(
        settings.handlers.keys()
        - plugins.handlers.keys()
        - {handler.id for handler in database_check.registered_handlers}
    ):
        yield note(
            "handlers",
            f"the settings configure {_names(unknown)}, but no such handler is registered",
            "these settings are ignored; the id may be misspelt, or the plugin may not be installed",
            "`flowhooks handlers list` shows the ids",
        )
    yield from _executed(plugins, lookup.missing_handlers, database_check)
    yield from _paused(database_check)
    if unreadable := lookup.router.unreadable_handlers:
        yield problem(
            "handlers",
            f"a newer version of flowhooks has registered {_names(unreadable)}",
            "this version cannot read the selectors and routes no events: it is not ready and answers callbacks with "
            "503",
            "run the newer version here too; if there is none, the row is damaged: run `flowhooks verify`",
        )
    handlers = len(plugins.handlers) + len(lookup.missing_handlers)
    yield ok("routes", f"{_plural(len(lookup.router.subscriptions()), 'route')} to {_plural(handlers, 'handler')}")


def _executed(
    plugins: Plugins, missing_handlers: Collection[str], database_check: DatabaseCheck
) -> Iterator[CheckFinding]:
    """Report handlers that no live process of a shared ledger runs, or that the server of a SQLite ledger lacks."""
    if database_check.server is not None and database_check.server_handlers is not None:
        if lacking := sorted(set(plugins.handlers) - database_check.server_handlers):
            yield (problem if any(map(database_check.waiting_by_handler.get, lacking)) else note)(
                "handlers",
                f"the running server (process {database_check.server.pid}) does not run "
                f"{_plural(len(lacking), 'handler')} loaded here: {_names(lacking)}",
                f"{_waiting_text(database_check, lacking)} for {_them(lacking)}",
                "restart the server: it loads plugins at its start, and runs no handler in safe mode",
            )
        return
    if not database_check.live_processes:
        return
    if others := sorted(database_check.executed_handlers.intersection(missing_handlers)):
        yield ok(
            "handlers",
            f"{_plural(len(others), 'handler')} not loaded here {_are(others)} run by other processes: "
            f"{_names(others)}",
        )
    if idle := sorted(set(plugins.handlers) - database_check.executed_handlers):
        yield (problem if any(database_check.waiting_by_handler.get(handler) for handler in idle) else note)(
            "handlers",
            f"no live process runs {_plural(len(idle), 'handler')} loaded here: {_names(idle)}",
            f"{_waiting_text(database_check, idle)} for {_them(idle)}",
            "start a process that runs handlers: `flowhooks worker`, or `flowhooks serve` without --no-worker; "
            "a running process loads new plugins at its next start",
        )


def _paused(database_check: DatabaseCheck) -> Iterator[CheckFinding]:
    # One finding per handler, because an operator may have forgotten to resume it.
    for handler in database_check.registered_handlers:
        if handler.circuit is not None:
            yield problem(
                "handlers",
                f"the circuit breaker of {handler.id} is open since {to_text(handler.circuit.opened_at)}",
                f"its last attempts failed ({handler.circuit.reason}); "
                f"{_waiting_text(database_check, [handler.id])} for it",
                "fix the cause: one delivery is tried periodically; "
                f"`{command_line('handlers', 'resume', handler.id)}` closes the circuit breaker at once",
            )
        elif handler.paused_at is not None:
            yield note(
                "handlers",
                f"{handler.id} is paused since {to_text(handler.paused_at)}",
                f"{_waiting_text(database_check, [handler.id])} for it",
                f"`{command_line('handlers', 'resume', handler.id)}` runs the waiting deliveries",
            )


def _waiting_text(database_check: DatabaseCheck, handlers: Collection[str]) -> str:
    waiting = sum(database_check.waiting_by_handler.get(handler, 0) for handler in handlers)
    if not waiting:
        return "no delivery waits"
    return "1 delivery waits" if waiting == 1 else f"{waiting:,} deliveries wait"


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_MAX_NAMED]) + (", …" if len(ids) > _MAX_NAMED else "")


def _are(items: Collection[object]) -> str:
    return "is" if len(items) == 1 else "are"


def _them(items: Collection[object]) -> str:
    return "it" if len(items) == 1 else "them"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
