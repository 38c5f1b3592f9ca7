"""The command group `flowhooks sources`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.sources.list import list_command
from flowhooks.cli.sources.new import new_command
from flowhooks.cli.sources.rotate import rotate_command
from flowhooks.cli.sources.test import test_command


@click.group(
    "sources",
    commands=[list_command, new_command, rotate_command, test_command],
    short_help="Manage the credentials of engines.",
)
def command() -> None:
    """Manage the credentials of engines: secrets with which they sign, or bearer tokens.

    Sources are configured only in flowhooks.toml. As soon as the settings have a source, every callback needs a
    credential. These commands do not change the settings: they print what to write into them.
    """
