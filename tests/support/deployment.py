"""Commands, settings and shutdown times, with which tests compare the files in `docs/deploy`."""

from __future__ import annotations

import click

from flowhooks.app import STOP_TIMEOUT
from flowhooks.cli.main import main
from flowhooks.cli.process.forced_exit import EXIT_TIMEOUT
from flowhooks.cli.serve import ANSWER_TIMEOUT
from flowhooks.settings import Settings
from flowhooks.settings.definitions import iter_settings, variable
from support.code_blocks import DOCS

DEPLOY = DOCS / "deploy"
SHUTDOWN_MARGIN = ANSWER_TIMEOUT + 3 * STOP_TIMEOUT + EXIT_TIMEOUT
"""The maximum seconds of a graceful shutdown beyond `shutdown.timeout`."""
MAX_SHUTDOWN_SECONDS = Settings().shutdown.timeout + SHUTDOWN_MARGIN
"""The maximum seconds of a graceful shutdown with the default settings."""
VARIABLES = {variable(name) for name, _ in iter_settings()} | {"FLOWHOOKS_CONFIG"}
"""The environment variables of settings, and of the settings file."""


def check_command(words):
    """Check that these words are a flowhooks command with existing options and valid values."""
    command, context = main, click.Context(main)
    words = list(words)
    while isinstance(command, click.Group):
        command = command.get_command(context, words[0])
        assert command is not None, words
        context = click.Context(command, info_name=words.pop(0), parent=context)
    command.parse_args(context, words)
    return context.params
