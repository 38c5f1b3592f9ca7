"""`flowhooks plugins show`: print everything known about one plugin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.plugins import settings_schema, text
from flowhooks.cli.plugins.inspection import inspect_plugins, plugins_named, unknown_plugin
from flowhooks.operations.json.plugins import plugin_to_json
from flowhooks.plugins.metadata import find_package

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.operations.plugin_status import PluginStatus
    from flowhooks.settings import Settings


@click.command("show", short_help="Show a plugin with its handlers and settings.")
@click.argument("name", type=utf8, metavar="NAME")
@json_option
@settings_options
def show_command(settings: Settings, *, name: str, as_json: bool) -> None:
    r"""Show a plugin's handlers and what they listen to, its hooks, its settings, and its errors.

    NAME is the name of the plugin or of its package. The command lists the names of settings and whether they are set,
    never their values. Plugins are loaded for it as in a server.

    \b
    Examples:
      flowhooks plugins show contracts
      flowhooks plugins show flowhooks-contracts
      flowhooks plugins show contracts --json | jq -r '.plugins[].traceback'

    Exit codes: 0 done, also for a broken plugin; 2 there is no such plugin, or other wrong usage.
    """
    inspection = inspect_plugins(settings)
    summaries = [plugin_to_json(status) for status in inspection.statuses]
    chosen = [
        status
        for status, summary in zip(inspection.statuses, summaries, strict=True)
        if summary in plugins_named(name, summaries)
    ]
    if not chosen:
        raise unknown_plugin(name, dict.fromkeys(status.name for status in inspection.statuses))
    details = [_plugin_to_json(status, settings) for status in chosen]
    if as_json:
        output.print_json({"plugins": details, "ledger": inspection.ledger})
        return
    for number, plugin in enumerate(details):
        if number:
            output.print_line()
        _print_plugin(plugin)
    if why := inspection.ledger["why"]:
        output.print_line(f"Without the registered handlers: {why}", err=True)


def _plugin_to_json(status: PluginStatus, settings: Settings) -> dict[str, Any]:
    info = status.info
    folders = info.schema_folders if info else ()
    section = settings.plugins.get(status.name, {})
    installed = find_package(info.distribution) if info and info.distribution else None
    return plugin_to_json(status) | {
        "documentation": info.documentation if info else "",
        "summary": installed.summary if installed else "",
        "home_page": installed.home_page if installed else "",
        "settings": settings_schema.describe_settings(folders, section),
        "kinds": settings_schema.kind_schemas(folders),
        "data": settings_schema.data_schemas(folders),
        "receives_from": [
            name
            for name, source in settings.sources.items()
            if source.ingress is not None and source.ingress.receiver == status.name
        ],
        "traceback": info.traceback if info else "",
    }


def _print_plugin(plugin: dict[str, Any]) -> None:
    output.print_line(f"plugin {text.plugin_title(plugin)}: {plugin['state']}", style=text.STYLES[plugin["state"]])
    for word, value in (
        # The package's summary is written for users, a docstring for readers of the code.
        ("", plugin["summary"] or plugin["documentation"]),
        ("home page", plugin["home_page"]),
        ("from", plugin["origin"]),
        ("hooks", ", ".join(plugin["hooks"])),
        ("receives", _receives_text(plugin)),
    ):
        if value:
            output.print_line(f"  {word:<10} {value}" if word else f"  {value}")
    if plugin["state"] in _STATE_TEXTS:
        output.print_line(f"  {_STATE_TEXTS[plugin['state']]}", style="yellow")
    if plugin["error"]:
        output.print_line(f"  {plugin['error']}", style="red")
    if plugin["traceback"]:
        output.print_lines(plugin["traceback"].rstrip("\n"), indent="    ")
    for handler in plugin["handlers"]:
        output.print_line()
        _print_handler(handler)
    if plugin["state"] == "loaded" and not plugin["handlers"]:
        output.print_line("  It has no handlers.")
    _print_settings(plugin)
    for kind in plugin["kinds"]:
        output.print_line()
        output.print_line(f"kind of callback {kind['kind']}: POST /flow/{{flowInstanceId}}/call-back/{kind['kind']}")
        output.print_line(f"  {'schema':<10} {kind['file']}")
    for schema in plugin["data"]:
        output.print_line()
        output.print_line(f"data of {schema['by']} {schema['value']}, for the handlers of this plugin")
        output.print_line(f"  {'schema':<10} {schema['file']}")


def _receives_text(plugin: dict[str, Any]) -> str:
    if plugin["receives_from"]:
        return ", ".join(f"/in/{source}" for source in plugin["receives_from"])
    if "receive_request" in plugin["hooks"]:
        return f'nothing: no source has [sources.NAME.ingress] receiver = "{plugin["name"]}"'
    return ""


_STATE_TEXTS = {
    "missing": "Its handlers are registered, but it is not installed here: their deliveries are stored and wait.",
    "elsewhere": "It is not installed here; other processes that share the ledger run its handlers.",
    "retired": "Its handlers are retired; the data stored for them is kept.",
}


def _print_handler(handler: dict[str, Any]) -> None:
    availability = "" if handler["availability"] == "present" else f": {handler['availability']}"
    output.print_line(
        f"handler {handler['id']}{availability}", style=None if handler["availability"] == "present" else "yellow"
    )
    if handler["damaged"]:
        output.print_line(f"  {handler['damaged']}", style="red")
    if handler["summary"]:
        output.print_line(f"  {handler['summary']}")
    if handler["paused_at"]:
        output.print_line(f"  {'paused':<10} since {handler['paused_at']}{text.pause_text(handler)}", style="yellow")
    if handler["circuit_reason"]:
        output.print_line(
            f"  {'circuit':<10} open, its last attempts failed: {handler['circuit_reason']}", style="yellow"
        )
    output.print_line(f"  {'listens to':<10} {text.selectors_text(handler['selectors'])}")
    if handler["availability"] == "present":
        output.print_line(f"  {'retry':<10} {text.retry_text(handler['retry'])}")
        output.print_line(f"  {'probe':<10} {'yes' if handler['has_probe'] else 'none'}")
        output.print_line(f"  {'runs in':<10} {text.isolation_text(handler)}")
        if ordered := text.ordering_text(handler["order_by"], handler["concurrency"], handler["rate"]):
            output.print_line(f"  {'runs':<10} {ordered}")
        output.print_line(f"  {'where':<10} {handler['source_location']}")
    if stored := text.backlog_text(handler["backlog"]):
        output.print_line(f"  {'stored':<10} {stored}")


def _print_settings(plugin: dict[str, Any]) -> None:
    settings: Sequence[dict[str, Any]] = plugin["settings"]
    if not settings:
        return
    output.print_line()
    output.print_line(f"settings, in [plugins.{plugin['name']}]")
    for setting in settings:
        if not setting["described"]:
            output.print_line(f"  {setting['name']}: set; the plugin does not describe it")
            continue
        facts = [setting["type"]]
        if setting["required"]:
            facts.append("required")
        if setting["default"] is not None:
            facts.append(f"default {json.dumps(setting['default'], ensure_ascii=False)}")
        facts.append("set" if setting["set"] else "not set")
        output.print_line(f"  {setting['name']}: {', '.join(facts)}")
        if setting["description"]:
            output.print_line(f"    {setting['description']}")
