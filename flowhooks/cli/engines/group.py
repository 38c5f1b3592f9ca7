"""The command group `flowhooks engines`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.lazy_commands import LazyCommands


@click.group(
    "engines",
    commands=LazyCommands(
        {
            "list": "flowhooks.cli.engines.list:list_command",
            "reconcile": "flowhooks.cli.engines.reconcile:reconcile_command",
            "coverage": "flowhooks.cli.engines.coverage:coverage_command",
            "show": "flowhooks.cli.engines.show:show_command",
            "decline": "flowhooks.cli.engines.decline:decline_command",
            "close-gaps": "flowhooks.cli.engines.close_gaps:close_gaps_command",
        }
    ),
    short_help="List engines, reconcile with them, and find what no handler takes.",
)
def command() -> None:
    r"""Show the engines that flowhooks asks, reconcile with them, and find what no handler takes.

    A source with a section [sources.NAME.engine] has an engine. A server reads its history periodically, and takes in
    the instances that completed without a callback. The running server asks the engines. If none runs, the command
    does it.

    \b
    To find out                                  run
      whether the history of engines is read     engines list
      what became of a process instance          engines show INSTANCE
      which definitions no handler takes         engines coverage
      what a reconciliation would take in        engines reconcile --dry-run

    \b
    To decide                                    run
      that waiting instances are taken in        engines reconcile --source NAME --confirm
      that they are not                          engines decline --source NAME
      that a gap needs no attention any more     engines close-gaps --source NAME
    """
