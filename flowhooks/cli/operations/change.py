"""`flowhooks operations start`, `pause`, `resume`, `cancel` and `rate`: control an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import operations_client
from flowhooks.cli.operations.plan import (
    detach_option,
    note_option,
    print_after_change,
    rate_option,
    release_here,
    run_to_the_end,
    to_rate,
)
from flowhooks.cli.options import json_option, settings_options, utf8

if TYPE_CHECKING:
    from flowhooks.settings import Settings

_id_argument = click.argument("operation_id", type=utf8, metavar="ID")


@click.command("start", short_help="Start a planned operation.")
@_id_argument
@note_option
@rate_option
@detach_option
@json_option
@settings_options
def start_command(
    settings: Settings, *, operation_id: str, note: str, rate: float | None, detach: bool, as_json: bool
) -> None:
    r"""Start an operation that was planned and not started, and follow it until its deliveries have been executed.

    The effects of a handler cannot be undone. `flowhooks operations show` has the plan. Without --rate and --note, the
    operation has those of the plan.

    \b
    Examples:
      flowhooks operations start 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --rate 5/s
      flowhooks operations start 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --note "the ERP is up again" --detach

    Exit codes: 0 done, 1 its state does not allow it, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    run_to_the_end(settings, operation_id, note=note, rate=rate, detach=detach, as_json=as_json)


@click.command("pause", short_help="Pause a running operation.")
@_id_argument
@json_option
@settings_options
def pause_command(settings: Settings, *, operation_id: str, as_json: bool) -> None:
    r"""Pause a running operation: it releases no further delivery until it is resumed. Released deliveries run.

    \b
    Examples:
      flowhooks operations pause 019ab2c4-5d21-7000-8000-1b2c3d4e5f60
      flowhooks operations pause 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --json

    Exit codes: 0 done, 1 its state does not allow it, 2 wrong usage.
    """
    _change(settings, "pause_operation", {"operation_id": operation_id}, as_json=as_json)


@click.command("resume", short_help="Resume a paused operation.")
@_id_argument
@json_option
@settings_options
def resume_command(settings: Settings, *, operation_id: str, as_json: bool) -> None:
    r"""Resume a paused operation: it releases the rest of its deliveries.

    \b
    Examples:
      flowhooks operations resume 019ab2c4-5d21-7000-8000-1b2c3d4e5f60
      flowhooks operations resume 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --json

    Exit codes: 0 done, 1 its state does not allow it, 2 wrong usage.
    """
    server = bool(
        operations_client.run_operation(settings, "resume_operation", {"operation_id": operation_id})["server"]
    )
    if not server:
        release_here(settings, operation_id)
    print_after_change(settings, operation_id, server=server, as_json=as_json)


@click.command("cancel", short_help="Cancel the rest of an operation.")
@_id_argument
@json_option
@settings_options
def cancel_command(settings: Settings, *, operation_id: str, as_json: bool) -> None:
    r"""Cancel an operation: deliveries that it has not released stay as they are. Released deliveries run.

    A cancelled operation cannot be resumed.

    \b
    Examples:
      flowhooks operations cancel 019ab2c4-5d21-7000-8000-1b2c3d4e5f60
      flowhooks operations cancel 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --json

    Exit codes: 0 done, 1 its state does not allow it, 2 wrong usage.
    """
    _change(settings, "cancel_operation", {"operation_id": operation_id}, as_json=as_json)


@click.command("rate", short_help="Change the rate of an operation.")
@_id_argument
@click.argument("rate", type=to_rate, required=False, metavar="RATE")
@click.option("--unlimited", is_flag=True, help="Remove the limit.")
@json_option
@settings_options
def rate_command(settings: Settings, *, operation_id: str, rate: float | None, unlimited: bool, as_json: bool) -> None:
    r"""Change how many deliveries an operation releases, such as 5/s, 30/min or 100/h.

    \b
    Examples:
      flowhooks operations rate 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 20/s
      flowhooks operations rate 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --unlimited

    Exit codes: 0 done, 1 its state does not allow it, 2 wrong usage.
    """
    if (rate is None) is not unlimited:
        raise click.UsageError("Give a rate, such as 5/s, or --unlimited.")
    arguments: dict[str, Any] = {"operation_id": operation_id}
    _change(settings, "set_operation_rate", arguments | ({} if rate is None else {"rate": rate}), as_json=as_json)


def _change(settings: Settings, name: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    server = operations_client.run_operation(settings, name, arguments)["server"]
    print_after_change(settings, str(arguments["operation_id"]), server=bool(server), as_json=as_json)
