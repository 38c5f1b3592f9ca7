"""The command group `flowhooks operations`."""

from __future__ import annotations

import click

from flowhooks.cli.lazy_commands import LazyCommands


@click.group(
    "operations",
    commands=LazyCommands(
        {
            "list": "flowhooks.cli.operations.show:list_command",
            "show": "flowhooks.cli.operations.show:show_command",
            "items": "flowhooks.cli.operations.show:items_command",
            "start": "flowhooks.cli.operations.change:start_command",
            "pause": "flowhooks.cli.operations.change:pause_command",
            "resume": "flowhooks.cli.operations.change:resume_command",
            "cancel": "flowhooks.cli.operations.change:cancel_command",
            "rate": "flowhooks.cli.operations.change:rate_command",
        }
    ),
    short_help="List, follow, pause and cancel bulk operations.",
)
def command() -> None:
    r"""List, follow, pause, resume and cancel the operations on many deliveries.

    An operation is planned by `flowhooks events replay`, `close`, `resolve` or `run-now`, in the console, or through
    the API. Its plan lists the deliveries that it acts on. The running server releases them, also after a restart.
    """
