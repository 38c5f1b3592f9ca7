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
    short_help="What is installed; make, install and uninstall plugins.",
)
def command() -> None:
    r"""Look at the plugins, make one of your own, install and uninstall them.

    A plugin is a Python package with handlers, or a single file of them. It is loaded once, when a server starts: a
    running server takes what was installed since at its next start, and has what was uninstalled until then.

    \b
    A plugin that is   is                                 then
      loaded           in use
      elsewhere        run by other processes, not here
      quarantined      broken, and left out               plugins show NAME says why
      denied           kept out by the settings           plugins_allow, plugins_deny, safe_mode
      missing          registered, and not here           bring it back, or plugins uninstall NAME
    """
