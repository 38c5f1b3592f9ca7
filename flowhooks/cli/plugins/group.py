"""The command group `flowhooks plugins`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.plugins.install import install_command
from flowhooks.cli.plugins.list import list_command
from flowhooks.cli.plugins.new import new_command
from flowhooks.cli.plugins.show import show_command
from flowhooks.cli.plugins.uninstall import uninstall_command


@click.group(
    "plugins",
    commands=[list_command, show_command, new_command, install_command, uninstall_command],
    short_help="List, create, install and uninstall plugins.",
)
def command() -> None:
    r"""List, create, install and uninstall plugins.

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
