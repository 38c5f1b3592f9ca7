"""The command line. Each command is in a module of its own, which is imported when the command is called."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks import __version__
from flowhooks.cli import output
from flowhooks.cli.interruption import EXIT_INTERRUPTED, OperationStopped
from flowhooks.cli.lazy_commands import LazyCommands, mark_help_blocks
from flowhooks.cli.process import STATE_VARIABLE
from flowhooks.cli.process.standard_files import reopen_closed_files
from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator

# The texts are repeated here, so that `flowhooks --help` imports no command.
COMMANDS: Final = {
    "serve": "Accept callbacks and run their handlers.",
    "dev": "Run a server that reloads plugins when a file is saved.",
    "restart": "Replace the running server without refusing callbacks.",
    "worker": "Run stored deliveries, on PostgreSQL.",
    "init": "Write a commented settings file.",
    "config": "Show the settings in force.",
    "check": "Check settings, plugins and database for problems.",
    "overview": "Show what fails now, and why deliveries wait.",
    "plugins": "List, create, try, install and uninstall plugins.",
    "routes": "List the routes, or explain where an event would go.",
    "events": "List, inspect, export, replay, reroute and resolve events.",
    "errors": "List failed attempts by their error.",
    "operations": "List, follow, pause and cancel bulk operations.",
    "handlers": "List, show, pause and resume handlers.",
    "rejected": "List rejected callbacks with their reasons.",
    "alerts": "List, acknowledge and test alerts.",
    "audit": "List what operators have done.",
    "verify": "Verify that every accepted callback is accounted for.",
    "db": "Upgrade, purge, index, back up, copy and compact the database.",
    "sources": "Show sources, and manage their credentials.",
    "engines": "List engines, reconcile with them, and find what no handler takes.",
    "operators": "Create and list operators.",
    "send": "Send a test callback to a server.",
}
"""Short help of each command, in the order of the help text. A command is `command` in `flowhooks.cli.NAME`."""

EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


class _CommandFailed(click.ClickException):
    exit_code = EXIT_FAILURE


class _CommandInterrupted(click.ClickException):
    exit_code = EXIT_INTERRUPTED


class _UsageError(click.ClickException):
    exit_code = EXIT_USAGE


class _MainGroup(click.Group):
    """Lists the commands without importing them, and prints our errors as one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        reopen_closed_files()
        if (inherited := os.environ.pop(STATE_VARIABLE, None)) is not None:
            # A server executes its own command line to become a supervisor, which needs none of the command's modules.
            from flowhooks.cli.process import single_supervisor  # noqa: PLC0415 (no other command needs it)

            raise SystemExit(single_supervisor.supervise(inherited))
        try:
            return super().main(*args, **kwargs)
        except SystemExit as ended:
            if output.close_reserved_stdout():  # plugins are loaded, and may have left threads running
                from flowhooks.cli.process.forced_exit import force_exit_later  # noqa: PLC0415 (for such commands only)

                force_exit_later(ended.code if isinstance(ended.code, int) else EXIT_FAILURE)
            raise

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _escape_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        try:
            with _escape_errors():
                return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("\nAborted!", err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _escape_errors() -> Iterator[None]:
    """Escape control characters in errors: they may repeat an argument or stored text."""
    try:
        yield
    except SettingsError as error:  # one problem per line
        raise _UsageError("\n".join(escape_control(line) for line in str(error).split("\n"))) from error
    except OperationStopped as error:
        failure = _CommandInterrupted if error.interrupted else _CommandFailed
        raise failure(escape_control(str(error))) from error
    except FlowhooksError as error:
        raise _CommandFailed(escape_control(str(error))) from error
    except click.ClickException as error:
        error.message = escape_control(error.message)  # type: ignore[misc]  # click declares it on the class and shows the instance's
        raise


@click.group(
    cls=_MainGroup,
    commands=LazyCommands({name: f"flowhooks.cli.{name}:command" for name in COMMANDS}),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="flowhooks %(version)s")
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
    Exit codes: 0 done, 1 error or problem found, 2 wrong usage.
    """


mark_help_blocks(main)
