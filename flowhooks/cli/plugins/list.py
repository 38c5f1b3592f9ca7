"""`flowhooks plugins list`: print all plugins as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options
from flowhooks.cli.plugins.inspection import inspect_plugins
from flowhooks.operations.json.plugins import plugin_to_json

if TYPE_CHECKING:
    from flowhooks.operations.json.plugins import PluginJson
    from flowhooks.settings import Settings


@click.command("list", short_help="List plugins with their status.")
@json_option
@settings_options
def list_command(settings: Settings, *, as_json: bool) -> None:
    r"""List the plugins that a server would load now, and plugins that are registered but not loaded.

    The command loads the plugins, so their import and configuration code runs. A broken plugin is listed and does not
    change the exit code; `flowhooks check` fails in that case. --json prints each handler with the numbers of its
    deliveries that wait or need an operator.

    \b
    Examples:
      flowhooks plugins list
      flowhooks plugins list --plugins-dir handlers
      flowhooks plugins list --json | jq -r '.plugins[] | select(.state != "loaded") | .error'

    Exit codes: 0 done, 2 wrong usage.
    """
    inspection = inspect_plugins(settings)
    plugins = [plugin_to_json(status) for status in inspection.statuses]
    if as_json:
        output.print_json(
            {"plugins": plugins, "warnings": list(inspection.plugins.warnings), "ledger": inspection.ledger}
        )
        return
    if plugins:
        output.print_table(
            ("plugin, version", "package", "state", "handlers", "hooks"),
            [_row(plugin) for plugin in plugins],
        )
        output.print_line()
    output.print_line(_summary(plugins))
    for plugin in plugins:
        if plugin["state"] == "quarantined":
            output.print_line(f"Quarantined: {plugin['error']}", style="red")
    missing = [plugin["name"] for plugin in plugins if plugin["state"] == "missing"]
    if missing:
        output.print_line(
            f"Missing: {', '.join(missing)}. Deliveries for their handlers are stored and wait; `flowhooks plugins "
            "uninstall NAME` retires the handlers.",
            style="red",
        )
    for warning in inspection.plugins.warnings:
        output.print_line(f"Note: {warning}", style="yellow")
    if why := inspection.ledger["why"]:
        output.print_line(f"Without the registered handlers: {why}", err=True)


def _row(plugin: PluginJson) -> tuple[str, str, str, str, str]:
    not_loaded = sum(handler["availability"] != "present" for handler in plugin["handlers"])
    handlers = str(len(plugin["handlers"]))
    if not_loaded and plugin["state"] == "loaded":
        handlers += f"\n{not_loaded} not loaded"
    name = f"{plugin['name']}\n  {plugin['version']}" if plugin["version"] else plugin["name"]
    return name, plugin["package"] or "-", plugin["state"], handlers, "\n".join(plugin["hooks"]) or "-"


def _summary(plugins: list[PluginJson]) -> str:
    if not plugins:
        return (
            "No plugin is installed. Create a plugin with `flowhooks plugins new`, or give a folder of single-file "
            "plugins with --plugins-dir."
        )
    states = [plugin["state"] for plugin in plugins]
    counts = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(states))
    handlers = sum(handler["availability"] == "present" for plugin in plugins for handler in plugin["handlers"])
    return f"{output.pluralize(len(plugins), 'plugin')}: {counts}; {output.pluralize(handlers, 'handler')} loaded."
