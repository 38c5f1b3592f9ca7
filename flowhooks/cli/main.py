"""The command line. Each command is in a module of its own, which is imported when the command is called."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS: Final = (
    *("serve", "worker", "check", "plugins", "routes"),
    *("events", "handlers", "alerts", "audit", "verify", "db", "sources", "operators", "send"),
)
"""Command names in the order of the help text. Each command is `command` in the module `flowhooks.cli.NAME`."""

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


class _CommandFailed(click.ClickException):
    exit_code = EXIT_FAILURE


class _UsageError(click.ClickException):
    exit_code = EXIT_USAGE


class _LazyGroup(click.Group):
    """Imports the module of a command when it is called, and prints our errors as one line."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return _mark_help_blocks(import_module(f"flowhooks.cli.{name}").command)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _escape_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        with _escape_errors():
            return super().invoke(context)


@contextmanager
def _escape_errors() -> Iterator[None]:
    """Escape control characters in errors: they may repeat an argument or stored text."""
    try:
        yield
    except SettingsError as error:  # one problem per line
        raise _UsageError("\n".join(escape_control(line) for line in str(error).split("\n"))) from error
    except FlowhooksError as error:
        raise _CommandFailed(escape_control(str(error))) from error
    except click.ClickException as error:
        error.message = escape_control(error.message)  # type: ignore[misc]  # click declares it on the class and shows the instance's
        raise


def _mark_help_blocks(command: click.Command) -> click.Command:
    # click marks a preformatted block with `\b`, which is two characters in a raw docstring.
    command.help = (command.help or "").replace("\\b\n", "\b\n")
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        _mark_help_blocks(inner)
    return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="flowhooks", message="flowhooks %(version)s")
def main() -> None:
    r"""Run Python business code when a process of a workflow engine has completed.

    An engine posts to /flow/{flowInstanceId}/call-back/complete. flowhooks stores the callback, runs the matching
    handlers of the installed plugins, and shows the result of each.

    \b
    Start here:
      flowhooks serve                  accept callbacks on 127.0.0.1:8080
      flowhooks send 4711 --key leave  send a test callback
      flowhooks events list            list events and their deliveries

    Settings come from flowhooks.toml, then from FLOWHOOKS_... variables, then from options.
    Exit codes: 0 done, 1 trouble found, 2 wrong usage.
    """


_mark_help_blocks(main)
