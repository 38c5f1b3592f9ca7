"""Check: whether a server with these settings would start and run well; it must not change anything or need one.

Plugins are loaded for it, as a server would, so their own code at import and in `configure` runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_text
from flowhooks.commands import command_line, shell_quote
from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.intake import required_credentials
from flowhooks.observability import open_files
from flowhooks.operations.check import sources
from flowhooks.operations.check.database import Database
from flowhooks.operations.check.finding import Finding, Mark, note, ok, trouble
from flowhooks.operations.lookup import lookup
from flowhooks.settings import (
    check_binds,
    check_operators,
    check_processes,
    database_url,
    host_and_port,
    is_loopback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.plugins.loading import PluginInfo
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.schema import Schemas
    from flowhooks.settings import Settings

__all__ = ["Finding", "Mark", "check", "from_settings_error"]

_ABSENT: Final = {
    "quarantined": ("the plugin cannot be used", "see to its own trouble, which is said of plugins above"),
    "denied": ("the settings keep the plugin out", "take it off plugins_deny, or put it on plugins_allow"),
    "missing": (
        "the plugin is not installed",
        (
            "bring it back (a single file: name its folder, --plugins-dir or plugins_dirs); "
            "if it is gone for good, `flowhooks plugins uninstall {plugin}`"
        ),
    ),
}
"""What keeps a handler away, and what to do, by its standing in the look-up."""
_REMOVED: Final = (
    "the plugin is loaded, and has no such handler any more",
    "bring it back; if it was renamed or removed for good, `flowhooks plugins uninstall {plugin} --handler {handler}`",
)
"""The same where the plugin is there without it."""
_MOST_NAMED: Final = 5


def check(
    settings: Settings,
    load: Callable[[], tuple[Schemas, Plugins]],
    *,
    jobs: Callable[[], None],
    isolated: Callable[[Plugins], Mapping[str, str]] = lambda _plugins: {},
) -> list[Finding]:
    """Look at everything that a server with these settings stands on.

    Args:
        settings: the settings.
        load: loads the schema files and the plugins.
        jobs: raises if the tables of jobs cannot be used; called where the settings' runner needs them.
        isolated: tries whether those handlers can be run in processes of their own that are to be; for each why not,
            or `""`.

    Returns:
        What was found, in the order in which a start goes through it.
    """
    found = [ok("settings", "the settings can be read"), *_processes(settings), *_binds(settings)]
    found.append(_connections(settings))
    try:
        schemas, plugins = load()
    except SettingsError as error:
        schemas, plugins = None, None
        found.append(trouble("plugins", str(error)))
    if schemas is not None and plugins is not None:
        found.append(ok("schemas", f"kinds of call-back: {', '.join(schemas.kinds)}"))
        found += _plugins(plugins, settings)
        found += _isolated(isolated(plugins))
        found.append(_alerts(plugins))
    state = Database(database_url(settings), stale_after=settings.ledger.stale_after)
    found += state.findings()
    found += [
        trouble("binds", line)
        for line in required_credentials.explain_missing(settings, state.required, ("sources", "operators"))
    ]
    if settings.runner.kind == "procrastinate":
        found.append(_jobs(jobs))
    if plugins is not None:
        found += _routes(plugins, state, settings)
    return found + state.counts


def from_settings_error(error: SettingsError) -> list[Finding]:
    """The findings where the settings themselves cannot be used: one for each problem."""
    return [trouble("settings", line) for line in str(error).splitlines()]


def _processes(settings: Settings) -> Iterator[Finding]:
    try:
        check_processes(settings)
    except SettingsError as error:
        yield trouble("processes", str(error))


def _binds(settings: Settings) -> Iterator[Finding]:
    try:
        check_binds(settings)
    except SettingsError as error:
        for line in str(error).splitlines():
            yield trouble("binds", line)
        return
    yield from sources.findings(settings)
    yield from _operators(settings)
    where = f"call-backs at {settings.listen}, administration at {settings.admin}"
    if public := settings.public_without_credential():
        yield note("binds", where, f"other machines reach {' and '.join(public)} without a credential (insecure)")
    else:
        yield ok("binds", where)


def _connections(settings: Settings) -> Finding:
    """How many connections a server that is started like this command could have open."""
    files = open_files.attainable_limit()
    found = open_files.connection_limits(settings.http.max_connections, files)
    what = f"at most {found.listen:,} connections for callbacks, {found.admin:,} for administration"
    if min(found) == settings.http.max_connections:
        return ok("connections", what)
    return note(
        "connections",
        f"{what}, fewer than http.max_connections ({settings.http.max_connections:,})",
        f"a process may open {files} files here, and handlers, the database and logs need some of them",
        "raise the hard limit of open files (`ulimit -Hn`, LimitNOFILE of a systemd unit), or lower "
        "http.max_connections",
    )


def _operators(settings: Settings) -> Iterator[Finding]:
    if not settings.operators:
        return
    try:
        check_operators(settings)
    except SettingsError as error:
        for line in str(error).splitlines():
            yield trouble("operators", line)
        return
    public = not is_loopback(host_and_port(settings.admin)[0])
    who = f"{_several(len(settings.operators), 'operator')} may come in: {_names(sorted(settings.operators))}"
    if settings.public_url.startswith("http://") or (public and not settings.public_url):
        yield note(
            "operators",
            who,
            "passwords and tokens travel without TLS: whoever reads them on the way can use them",
            "put a proxy with TLS in front, and set public_url to its address, https://…",
        )
    else:
        yield ok("operators", who)


def _plugins(plugins: Plugins, settings: Settings) -> Iterator[Finding]:
    for info in plugins.infos:
        yield _plugin(info)
    for warning in plugins.warnings:
        yield note("plugins", warning)
    if settings.safe_mode:
        yield note("plugins", "safe mode: no plugin is loaded")
    elif not plugins.infos:
        yield note(
            "plugins",
            "no plugin is installed",
            "every call-back will be parked"
            if settings.routing.no_handler == "park"
            else "every call-back will be refused",
            "install one (`flowhooks plugins new` makes one), "
            "or name a folder of single-file plugins: --plugins-dir or plugins_dirs",
        )


def _plugin(info: PluginInfo) -> Finding:
    name = f"{info.name} {info.version}".rstrip()
    if info.state == "loaded":
        return ok("plugins", f"{name} is loaded, with {_several(len(info.handlers), 'handler')}")
    if info.state == "denied":
        return note("plugins", f"{name} is kept out by the settings", info.error)
    return trouble(
        "plugins",
        f"{name} cannot be used and is quarantined; its handlers' deliveries wait",
        info.error,
        f"{_mending(info)}; `{command_line('plugins', 'show', info.name)}` has its traceback"
        if info.traceback
        else _mending(info),
        traceback=info.traceback,
    )


def _mending(info: PluginInfo) -> str:
    """What to do about a plugin in quarantine, whose error says already what is wrong."""
    if f"[plugins.{info.name}]" in info.error:
        return f"correct the section [plugins.{info.name}] of the settings, and check again"
    if info.distribution:
        return f"correct the package {info.distribution} or install another version of it, and check again"
    return f"correct {info.origin.removeprefix('file ')}, and check again"


def _isolated(tried: Mapping[str, str]) -> Iterator[Finding]:
    """Those handlers that are to run in processes of their own, which load the plugins once more."""
    whys = {why: [one for one in sorted(tried) if tried[one] == why] for why in tried.values()}
    for why, handlers in whys.items():
        many = _several(len(handlers), "handler")
        if why:
            yield trouble(
                "isolation",
                f"{many} cannot be run in a process of {'its' if len(handlers) == 1 else 'their'} own: "
                f"{_names(handlers)}",
                why,
                "the plugin must load a second time while the server runs; or have it run in a thread: "
                f'[handlers."{handlers[0]}"] isolation = "thread"',
            )
        else:
            yield ok("isolation", f"{many} can be run in a process of {'its' if len(handlers) == 1 else 'their'} own")


def _alerts(plugins: Plugins) -> Finding:
    if listeners := plugins.alert_listeners:
        return ok("alerts", f"told to {', '.join(listeners)}")
    return ok("alerts", "no plugin listens, so they are only logged; flowhooks-notice sends mail, or posts in a chat")


def _jobs(look: Callable[[], None]) -> Finding:
    try:
        look()
    except FlowhooksError as error:
        return trouble("jobs", str(error), "a process with these settings refuses to start")
    return ok("jobs", "the tables of jobs are those of the Procrastinate that is installed")


def _routes(plugins: Plugins, state: Database, settings: Settings) -> Iterator[Finding]:
    found = lookup(plugins, state.known, settings.ignore.process_key, run=state.run)
    plugins_of: dict[tuple[str, str], list[RegisteredHandler]] = {}
    for one in state.known:
        if found.standing(one.id) not in {"present", "elsewhere"}:
            plugins_of.setdefault((one.id.partition(":")[0], found.absent[one.id]), []).append(one)
    loaded = {info.name for info in plugins.infos if info.state == "loaded"}
    nowhere = ", and run by no process that lives" if state.living else ""
    for (plugin, why_not), missing in plugins_of.items():
        why, to_do = _ABSENT[why_not]
        if plugin in loaded:
            why, to_do = _REMOVED
        yield trouble(
            "handlers",
            f"of plugin {plugin}, {_several(len(missing), 'handler')} known to the ledger "
            f"{_are(missing)} not loaded{nowhere}: {_names([one.id for one in missing])}",
            f"{why}; last loaded at {to_text(max(one.last_seen_at for one in missing))}; "
            f"{_waiting(state, [one.id for one in missing])} for them",
            to_do.format(plugin=shell_quote(plugin), handler=shell_quote(missing[0].id.partition(":")[2])),
        )
    if unknown := sorted(settings.handlers.keys() - plugins.handlers.keys() - {one.id for one in state.known}):
        yield note(
            "handlers",
            f"the settings say how {_names(unknown)} {_runs(unknown)}, and nobody knows such a handler",
            "what they say there is passed over: the id may be misspelt, or its plugin not be installed",
            "`flowhooks handlers list` shows the ids",
        )
    yield from _run(plugins, found.absent, state)
    yield from _paused(state)
    if unreadable := found.router.unreadable_handlers:
        yield trouble(
            "handlers",
            f"a newer version of flowhooks has recorded what {_names(unreadable)} {_listens(unreadable)} to",
            "this version cannot read that, so it routes nothing: it is not ready, and call-backs are answered 503",
            "run the newer version here, too",
        )
    handlers = len(plugins.handlers) + len(found.absent)
    yield ok("routes", f"{_several(len(found.router.subscriptions()), 'route')} to {_several(handlers, 'handler')}")


def _run(plugins: Plugins, absent: Collection[str], state: Database) -> Iterator[Finding]:
    """Who runs what, where several processes share the ledger and some of them live."""
    if not state.living:
        return
    if others := sorted(state.run.intersection(absent)):
        yield ok(
            "handlers",
            f"{_several(len(others), 'handler')} not loaded here {_are(others)} run by other processes: "
            f"{_names(others)}",
        )
    if unrun := sorted(set(plugins.handlers) - state.run):
        yield (trouble if any(state.waiting.get(one) for one in unrun) else note)(
            "handlers",
            f"{_several(len(unrun), 'handler')} loaded here {_are(unrun)} run by no process that lives: "
            f"{_names(unrun)}",
            f"{_waiting(state, unrun)} for them",
            "start a process that has them: `flowhooks worker`, or `flowhooks serve` without --no-worker; "
            "one that runs loads what is new at its next start",
        )


def _paused(state: Database) -> Iterator[Finding]:
    """Each by itself, with the moment and what waits: somebody may have forgotten to resume it."""
    for one in state.known:
        if one.circuit is not None:
            yield trouble(
                "handlers",
                f"{one.id} is held since {to_text(one.circuit.since)}",
                f"it failed again and again ({one.circuit.why}); {_waiting(state, [one.id])} for it",
                "mend it: it is tried now and then, and "
                f"`{command_line('handlers', 'resume', one.id)}` runs what waits",
            )
        elif one.paused_at is not None:
            yield note(
                "handlers",
                f"{one.id} is paused since {to_text(one.paused_at)}",
                f"{_waiting(state, [one.id])} for it",
                f"`{command_line('handlers', 'resume', one.id)}` runs what waits",
            )


def _waiting(state: Database, handlers: Collection[str]) -> str:
    waiting = sum(state.waiting.get(one, 0) for one in handlers)
    if not waiting:
        return "no delivery waits"
    return "1 delivery waits" if waiting == 1 else f"{waiting:,} deliveries wait"


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_MOST_NAMED]) + (", …" if len(ids) > _MOST_NAMED else "")


def _are(several: Collection[object]) -> str:
    return "is" if len(several) == 1 else "are"


def _listens(several: Collection[object]) -> str:
    return "listens" if len(several) == 1 else "listen"


def _runs(several: Collection[object]) -> str:
    return "runs" if len(several) == 1 else "run"


def _several(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
