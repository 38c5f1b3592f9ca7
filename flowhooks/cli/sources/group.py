"""The command group `flowhooks sources`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.lazy_commands import LazyCommands


@click.group(
    "sources",
    commands=LazyCommands(
        {
            "list": "flowhooks.cli.sources.list:list_command",
            "show": "flowhooks.cli.sources.show:show_command",
            "new": "flowhooks.cli.sources.new:new_command",
            "rotate": "flowhooks.cli.sources.rotate:rotate_command",
            "test": "flowhooks.cli.sources.test:test_command",
        }
    ),
    short_help="Show sources, and manage their credentials.",
)
def command() -> None:
    """Show the sources of callbacks, and manage their credentials: secrets with which they sign, or bearer tokens.

    Sources are configured only in flowhooks.toml. As soon as the settings have a source, every callback needs a
    credential. These commands do not change the settings: they print what to write into them.
    """
