"""The command group `flowhooks events`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.events.list import list_command
from flowhooks.cli.events.replay import replay_command, resolve_command
from flowhooks.cli.events.reroute import dismiss_command, reroute_command
from flowhooks.cli.events.show import show_command


@click.group(
    "events",
    commands=[
        list_command,
        show_command,
        replay_command,
        resolve_command,
        reroute_command,
        dismiss_command,
    ],
    short_help="What came, what became of it, and what to do about it.",
)
def command() -> None:
    r"""Look at events and their deliveries, and say what is to become of those that are stuck.

    An event is a call-back that was stored; a delivery is that event for one handler. Reading needs no server.
    What changes something is done by the running server, or here where none runs.

    \b
    A delivery that is            look with                      then
      dead (failed for good)      events list --state dead       events replay ...
      unknown (killed mid-run)    events list --state unknown    events resolve ...
    An event that is
      parked (no handler)         events list --state parked     install a handler, or events dismiss
      parked, a handler is there  events list --state parked     events reroute --parked
      routed, a handler is new    events reroute --dry-run ...   events reroute --handler ...
      dismissed by mistake        events list --state dismissed  events reroute ...
    """
