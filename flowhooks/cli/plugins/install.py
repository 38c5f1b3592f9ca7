"""`flowhooks plugins install`: run pip, then inspect what a server started now would load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.operations_client import is_serving, record_change
from flowhooks.cli.options import json_option, settings_source_options, utf8
from flowhooks.cli.plugins import pip, text
from flowhooks.cli.plugins.inspection import inspect_in_subprocess, query_subprocess
from flowhooks.cli.restart import SIGNALS, replace_server
from flowhooks.errors import FlowhooksError
from flowhooks.hookspecs import PROJECT
from flowhooks.ledger import database
from flowhooks.operations.record_change import ChangeKind
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.restart import Replaced
    from flowhooks.settings import Settings

UNKNOWN: Final = "It is not known whether a server is running"
_COMPARED_MEMBERS = ("version", "package", "origin", "state", "error", "hooks")


@click.command("install", short_help="Install plugins with pip and show the effects.")
@click.argument("requirements", type=utf8, nargs=-1, metavar="[REQUIREMENT]...")
@click.option(
    "-e",
    "--editable",
    "editables",
    type=utf8,
    multiple=True,
    metavar="PATH",
    help="Install this folder so that changes to it take effect at once; may be given more than once.",
)
@click.option("--upgrade", is_flag=True, help="Upgrade installed packages to their newest version.")
@click.option(
    "--restart",
    is_flag=True,
    help="Then replace the running server without refusing callbacks, unless the check found a problem.",
)
@json_option
@settings_source_options
def install_command(
    settings_source: SettingsSource,
    *,
    requirements: tuple[str, ...],
    editables: tuple[str, ...],
    upgrade: bool,
    restart: bool,
    as_json: bool,
) -> None:
    r"""Install plugins with pip into the environment of flowhooks, and show what changes at the next start of a server.

    REQUIREMENT is any requirement of pip: a name, a name with a version, a folder, a wheel or a URL. Options after --
    are passed to pip, such as --no-deps. Only pip's warnings and errors are shown. A new process then checks the result
    as a server would: which plugins are new or changed, which parked events match their handlers, and how many
    deliveries wait for them. A running server loads new plugins at its next start; on SQLite at once with --restart.

    \b
    Examples:
      flowhooks plugins install acme-leave
      flowhooks plugins install --upgrade 'acme-leave>=2'
      flowhooks plugins install -e ./acme-leave
      flowhooks plugins install --upgrade ./acme-leave --restart

    Exit codes: 0 installed, and the check found no problem; 1 pip failed, the check found a problem, or the server was
    not replaced; 2 wrong usage.
    """
    if not (requirements or editables):
        raise click.UsageError("Nothing to install: give a requirement, or --editable with a folder.")
    settings = settings_source.load()
    is_shared = database.is_shared(database_url(settings))
    _check_restart(restart=restart, is_shared=is_shared)
    pip.check_available(requirements)
    before = inspect_in_subprocess(settings_source)["plugins"]
    options = [*(["--upgrade"] if upgrade else []), *(word for path in editables for word in ("--editable", path))]
    if not as_json:
        # Do not repeat the requirements: a URL may contain a password.
        output.print_line("Installing with pip. Append `-- --verbose` for the full output.")
    code = pip.run("install", "--quiet", *options, *requirements, to_stderr=as_json)
    if code:
        raise click.ClickException(f"pip failed with exit code {code}; its output is above")
    inspection, check_result = _inspect_result(settings, settings_source)
    result = diff_plugins(before, inspection["plugins"])
    result["problems"] = [finding for finding in check_result["findings"] if finding["mark"] == "problem"]
    result["server"] = _find_server(settings)
    result["ledger"] = inspection["ledger"]
    if changes := _version_changes(result):
        record_change(settings, ChangeKind.INSTALL, changes)
    replaces = restart and result["server"] and not result["problems"]
    if not as_json:
        unusable = [plugin["name"] for plugin in inspection["plugins"] if plugin["state"] == "quarantined"]
        _print_result(result, replaces=replaces, is_shared=is_shared, unusable=unusable)
    why_not = UNKNOWN if restart and result["server"] is None else ""
    replaced, result["why_not_replaced"] = _replace_server(settings) if replaces else (None, why_not)
    result["replaced"] = replaced and replaced.to_json()
    if as_json:
        output.print_json(result)
    elif replaced is not None:
        output.print_line(replaced.to_text())
    elif result["why_not_replaced"]:
        raise click.ClickException(result["why_not_replaced"])
    if result["problems"] or result["why_not_replaced"]:
        raise SystemExit(1)


def _inspect_result(settings: Settings, settings_source: SettingsSource) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the output of `plugins list` and `check`. If there is none, tell that the packages are installed."""
    try:
        inspection = inspect_in_subprocess(settings_source)
        return inspection, query_subprocess("check", settings_source=settings_source)
    except (FlowhooksError, KeyboardInterrupt):
        output.print_line(
            "pip has installed the packages, and the next server that starts loads them, but the result could not be "
            "checked. To undo it, run `pip uninstall`. With FLOWHOOKS_SAFE_MODE=true a server loads no plugins.",
            err=True,
        )
        record_change(settings, ChangeKind.INSTALL)
        raise


def _check_restart(*, restart: bool, is_shared: bool) -> None:
    if restart and is_shared:
        raise click.UsageError(f"--restart cannot find a server on PostgreSQL: install without it, then {SIGNALS}.")


def _find_server(settings: Settings) -> bool | None:
    """Tell whether a server is running; print the reason and return None if that is not known."""
    try:
        return is_serving(settings)
    except FlowhooksError as error:
        output.print_line(f"{UNKNOWN}: {error}", err=True)
        return None


def _replace_server(settings: Settings) -> tuple[Replaced | None, str]:
    """Replace the running server; return the replacement, or None and why there was none."""
    try:
        return replace_server(settings), ""
    except FlowhooksError as error:
        return None, str(error)


def diff_plugins(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the plugins that are `new`, `changed` (each with its state `before`) and `gone`.

    Args:
        before: plugins from an earlier `flowhooks plugins list --json`.
        after: current plugins. A plugin that was only registered before counts as new.
    """
    before_by_key = {_key(plugin): plugin for plugin in before if plugin["origin"]}
    after_by_key = {_key(plugin): plugin for plugin in after if plugin["origin"]}
    return {
        "new": [plugin for key, plugin in after_by_key.items() if key not in before_by_key],
        "changed": [
            plugin | {"before": before_by_key[key]}
            for key, plugin in after_by_key.items()
            if key in before_by_key and _is_changed(before_by_key[key], plugin)
        ],
        "gone": [plugin for key, plugin in before_by_key.items() if key not in after_by_key],
    }


def _version_changes(result: Mapping[str, Any]) -> list[str]:
    """Return the plugins with their versions before and after, for the audit log."""
    return [
        *(f"{plugin['name']} - -> {plugin['version'] or '?'}" for plugin in result["new"]),
        *(
            f"{plugin['name']} {plugin['before']['version'] or '?'} -> {plugin['version'] or '?'}"
            for plugin in result["changed"]
        ),
        *(f"{plugin['name']} {plugin['version'] or '?'} -> -" for plugin in result["gone"]),
    ]


def _key(plugin: dict[str, Any]) -> tuple[str, str]:
    # Two packages may have plugins with the same name.
    return plugin["name"], plugin["package"] or plugin["origin"]


def _is_changed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return any(before[name] != after[name] for name in _COMPARED_MEMBERS) or _declarations(before) != _declarations(
        after
    )


def _declarations(plugin: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what a plugin's handlers declare, without the stored part, which changes while a server runs."""
    names = ("id", "availability", "selectors", "retry", "has_probe")
    return [tuple(handler[name] for name in names) for handler in plugin["handlers"]]


def _print_result(result: dict[str, Any], *, replaces: bool, is_shared: bool, unusable: Sequence[str]) -> None:
    output.print_line()
    changed = any(result[word] for word in ("new", "changed", "gone"))
    if changed:
        _print_changes(result)
    else:
        output.print_line("No plugin is new or changed.")
        output.print_line(
            "A package whose plugin is missing in `flowhooks plugins list` has no entry point of the group "
            f"`{PROJECT}`."
        )
    if why := result["ledger"]["why"]:
        output.print_line(f"The waiting deliveries cannot be counted: {why}", err=True)
    for finding in result["problems"]:
        _print_finding(finding)
    if not changed:
        return
    output.print_line()
    if replaces:
        output.print_line("Replacing the running server.")
    elif result["server"] is None:
        output.print_line("If a server is running, restart it to load the changes.")
    elif result["server"]:
        way = f"To refuse no callback, {SIGNALS}." if is_shared else "`flowhooks restart` refuses no callback."
        if unusable:
            what = "A replacement" if is_shared else "`flowhooks restart`"
            way = f"{what} is refused until {' and '.join(unusable)} can be loaded."
        output.print_line(f"Restart the server to load the changes: it still runs with its old plugins. {way}")
    else:
        output.print_line("No server is running: the next server that starts loads the changes.")


def _print_changes(result: dict[str, Any]) -> None:
    for word in ("new", "changed"):
        for plugin in result[word]:
            _print_plugin(word, plugin)
    for plugin in result["gone"]:
        output.print_line(f"gone: {text.plugin_title(plugin)}", style="yellow")
    effects = list(_startup_effects([*result["new"], *result["changed"]]))
    if effects:
        output.print_line()
        output.print_line("At the next start:")
    for line in effects:
        output.print_line(f"  {line}")


def _print_finding(finding: dict[str, str]) -> None:
    output.print_line()
    output.print_line(f"problem: {finding['what']}", style="red")
    for word in ("why", "next"):
        if finding[word]:
            output.print_line(f"  {word}: {finding[word]}")


def _print_plugin(word: str, plugin: dict[str, Any]) -> None:
    present = [handler for handler in plugin["handlers"] if handler["availability"] == "present"]
    came_from = ""
    if word == "changed" and plugin["before"]["version"] != plugin["version"]:
        came_from = f", before {plugin['before']['version']}"
    output.print_line(
        f"{word}: {text.plugin_title(plugin)}{came_from}: {plugin['state']}", style=text.STYLES[plugin["state"]]
    )
    if plugin["state"] == "denied":
        output.print_line(f"  {plugin['error']}")
    for handler in present:
        output.print_line(f"  {handler['id']} listens to {text.selectors_text(handler['selectors'])}")
    if plugin["state"] == "loaded" and not present:
        output.print_line("  It has no handlers.")


def _startup_effects(plugins: Sequence[dict[str, Any]]) -> Iterator[str]:
    for handler in (handler for plugin in plugins for handler in plugin["handlers"]):
        backlog = handler["backlog"]
        if handler["availability"] != "present":
            continue
        if count := backlog["parked"]:
            yield f"{output.pluralize(count, 'parked event')} will be delivered to {handler['id']}"
        if count := handler["dismissed_events"]:
            events = output.pluralize(count, "dismissed event")
            yield f"{events} will not be delivered to {handler['id']} unless you run: {handler['reroute_command']}"
        if count := backlog["waiting"]:
            deliveries = output.pluralize(count, "delivery", "deliveries")
            yield f"{deliveries} for {handler['id']} will run"
