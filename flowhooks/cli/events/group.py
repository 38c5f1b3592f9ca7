"""The command group `flowhooks events`, one command per file."""

from __future__ import annotations

import click

from flowhooks.cli.lazy_commands import LazyCommands


@click.group(
    "events",
    commands=LazyCommands(
        {
            "list": "flowhooks.cli.events.list:list_command",
            "show": "flowhooks.cli.events.show:show_command",
            "export": "flowhooks.cli.events.export:export_command",
            "replay": "flowhooks.cli.events.replay:replay_command",
            "resolve": "flowhooks.cli.events.replay:resolve_command",
            "run-now": "flowhooks.cli.events.replay:run_now_command",
            "close": "flowhooks.cli.events.replay:close_command",
            "correct": "flowhooks.cli.events.correct:correct_command",
            "reroute": "flowhooks.cli.events.reroute:reroute_command",
            "dismiss": "flowhooks.cli.events.reroute:dismiss_command",
        }
    ),
    short_help="List, inspect, export, replay, reroute and resolve events.",
)
def command() -> None:
    r"""Show events and their deliveries, and decide about those that are stuck.

    An event is a stored callback; a delivery is that event for one handler. Reading needs no server. The running server
    makes the changes. If none runs, the command makes them.

    \b
    A delivery that is            list with                      then
      dead (failed for good)      events list --state dead       events replay ...
      unknown (killed mid-run)    events list --state unknown    events resolve ...
      waiting for a retry         events list --state waiting    events run-now ...
      suspended (handler gone)    events list --state suspended  events close --state suspended ...
    An event that is
      parked (no handler)         events list --state parked     install a handler, or events dismiss
      parked, a handler is there  events list --state parked     events reroute --parked
      routed, a handler is new    events reroute --dry-run ...   events reroute --handler ...
      dismissed by mistake        events list --state dismissed  events reroute ...
      in conflict (two bodies)    events show ...                events correct ...
    """
