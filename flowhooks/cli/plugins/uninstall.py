"""`flowhooks plugins uninstall`: uninstall a package with pip and retire its handlers."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_source_options, utf8
from flowhooks.cli.plugins import pip, text
from flowhooks.cli.plugins.inspection import inspect_in_subprocess, plugins_named, unknown_plugin
from flowhooks.cli.plugins.plans import UninstallPlan, plan_for_handlers, plan_for_plugin
from flowhooks.errors import FlowhooksError, LedgerUnusable
from flowhooks.operations.record_change import ChangeKind
from flowhooks.plugins.discovery import discover
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.cli.options import SettingsSource
    from flowhooks.settings import Settings


@click.command("uninstall", short_help="Uninstall a plugin and retire its handlers.")
@click.argument("name", type=utf8, metavar="NAME")
@click.option(
    "--handler",
    "handlers",
    type=utf8,
    multiple=True,
    metavar="HANDLER",
    help="Retire only this handler, which the plugin no longer has or whose plugin is denied; may be given more than "
    "once.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")
@json_option
@settings_source_options
def uninstall_command(
    settings_source: SettingsSource, *, name: str, handlers: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool
) -> None:
    r"""Uninstall a plugin's package with pip, and retire its handlers.

    NAME is the name of the plugin or of its package. The plugin may already be gone. With --handler the command retires
    single handlers that were renamed or removed, or whose plugin the settings exclude. A retired handler gets no more
    deliveries; events that match no other handler are parked. Data stored for it is kept, and its deliveries run if it
    is installed again. A running server keeps the plugin until it is restarted. The command asks for confirmation
    unless --yes is given.

    \b
    Examples:
      flowhooks plugins uninstall leave --dry-run
      flowhooks plugins uninstall acme-leave
      flowhooks plugins uninstall leave --handler grant_leave

    Exit codes: 0 done, 1 error, 2 wrong usage.
    """
    settings = settings_source.load()
    inspection = inspect_in_subprocess(settings_source)
    if why := inspection["ledger"]["why"]:
        raise LedgerUnusable(f"the ledger cannot be read, and nothing was changed: {why}")
    plan = _make_plan(name, handlers, inspection["plugins"], inspection["warnings"])
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError(
            "There is no terminal to ask for confirmation: give --yes, or --dry-run to see what would be done."
        )
    asks = not (dry_run or yes)
    if asks or not as_json:
        # The operator sees the plan before the question; with --json, standard output has only the document.
        for line in plan.lines(settings.routing.no_handler):
            output.print_line(line, err=as_json)
    if asks:
        click.confirm("Continue?", abort=True, err=True)
    if plan.package and not dry_run:
        _uninstall(plan.package)
        _record_uninstall(settings, plan, inspection["plugins"])
    # Without a ledger no handlers are registered.
    result: dict[str, Any] = {**_NOTHING_RETIRED, "dry_run": dry_run}
    if inspection["ledger"]["read"] and plan.unretired:
        result = _retire(settings, plan, dry_run=dry_run)
    if as_json:
        output.print_json({"package": plan.package, "plugins": list(plan.plugins), **result})
    elif not dry_run:
        _print_result(plan, result)


_NOTHING_RETIRED: Final = {"handlers": (), "skipped": (), "waiting": 0, "unknown": 0, "dead": 0, "server": False}
"""Result of the operation if there are no handlers to retire."""


def _make_plan(
    name: str, handlers: Sequence[str], plugins: Sequence[dict[str, Any]], warnings: Sequence[str]
) -> UninstallPlan:
    matching = plugins_named(name, plugins)
    if not matching:
        for warning in warnings:
            output.print_line(f"Note: {warning}", err=True)
        raise unknown_plugin(name, dict.fromkeys(plugin["name"] for plugin in plugins))
    if handlers:
        return plan_for_handlers(matching, handlers, plugins)
    plan = plan_for_plugin(name, matching, plugins)
    if plan.package:
        pip.check_available(())
    return plan


def _uninstall(name: str) -> None:
    code, pip_output = pip.uninstall(name)
    importlib.invalidate_caches()
    if code or any(plugin.distribution == name for plugin in discover(objects={}, entry_points=None, dirs=())[0]):
        # pip returns exit code 0 for a package that is outside its environment, or that it does not find.
        for line in pip_output.splitlines():
            output.print_line(line, err=True)
        raise click.ClickException(
            f"pip did not uninstall {name} (exit code {code}; its output is above); its handlers were not retired"
        )


def _record_uninstall(settings: Settings, plan: UninstallPlan, plugins: Sequence[Mapping[str, Any]]) -> None:
    versions = {plugin["name"]: plugin["version"] for plugin in plugins}
    changes = [f"{plugin} {versions.get(plugin) or '?'} -> -" for plugin in plan.plugins]
    try:
        operations_client.record_change(settings, ChangeKind.UNINSTALL, changes)
    except KeyboardInterrupt:
        output.print_line(_not_retired(plan, "interrupted"), err=True)
        raise


def _retire(settings: Settings, plan: UninstallPlan, *, dry_run: bool) -> dict[str, Any]:
    arguments = {"handlers": plan.unretired, "dry_run": dry_run}
    try:
        # Log errors only: warnings about missing handlers are expected during an uninstall.
        return operations_client.run_operation(settings, "retire", arguments, level="error")
    except FlowhooksError as error:
        if dry_run or not plan.package:
            raise
        raise click.ClickException(_not_retired(plan, str(error))) from None


def _not_retired(plan: UninstallPlan, why: str) -> str:
    text = f"{plan.package} is uninstalled, but its handlers were not retired: {why}"
    # Nothing tells any more that these plugins were in one package.
    plugins = dict.fromkeys(handler_id.partition(":")[0] for handler_id in plan.unretired)
    commands = [f"`{command_line('plugins', 'uninstall', plugin)}`" for plugin in plugins]
    return f"{text}; run {' and '.join(commands)} later" if commands else text


def _print_result(plan: UninstallPlan, done: Mapping[str, Any]) -> None:
    output.print_line()
    if plan.package:
        output.print_line(f"Uninstalled {plan.package}.", style="green")
    if done["handlers"]:
        output.print_line(f"Retired {', '.join(done['handlers'])}.", style="green")
    elif not plan.package:
        output.print_line("There are no handlers to retire.")
    if stored := text.backlog_text(
        text.add_backlogs([handler for handler in plan.handlers if handler["id"] in done["handlers"]])
    ):
        output.print_line(f"Still stored for them: {stored}; `flowhooks events list --handler ID` lists the events.")
    if done["server"] and plan.needs_restart:
        output.print_line("Restart the server: it still runs with the old plugins.")
