"""The command group `flowhooks plugins`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.lazy_commands import LazyCommands


@click.group(
    "plugins",
    commands=LazyCommands(
        {
            "list": "flowhooks.cli.plugins.list:list_command",
            "show": "flowhooks.cli.plugins.show:show_command",
            "new": "flowhooks.cli.plugins.new:new_command",
            "try": "flowhooks.cli.plugins.backtest.command:try_command",
            "install": "flowhooks.cli.plugins.install:install_command",
            "uninstall": "flowhooks.cli.plugins.uninstall:uninstall_command",
        }
    ),
    short_help="List, create, try, install and uninstall plugins.",
)
def command() -> None:
    r"""List, create, try, install and uninstall plugins.

    A plugin is a Python package with handlers, or a single file. A server loads plugins once, at its start. A plugin
    that is installed or uninstalled later takes effect at the next start.

    \b
    A plugin that is   is                                 then
      loaded           in use
      elsewhere        run by other processes only
      quarantined      broken, not loaded                 plugins show NAME says why
      denied           excluded by the settings           plugins_allow, plugins_deny, safe_mode
      missing          registered, not installed here     install it, or plugins uninstall NAME
    """
