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
    short_help="Name the engines that may call back.",
)
def command() -> None:
    """Name the engines that may call back: by a secret with which they sign, or by a bearer token.

    Sources stand in flowhooks.toml, and nowhere else. As soon as there is one, every call-back needs a credential.
    None of these commands writes settings: they print what is to stand there.
    """
