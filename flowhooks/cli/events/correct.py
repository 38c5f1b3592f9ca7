"""`flowhooks events correct`: accept a conflicting body of an event as its correction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.events import text
from flowhooks.cli.events.bulk import dry_run_option, note_option, print_result, require_terminal, yes_option
from flowhooks.cli.options import json_option, settings_options, utf8

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.command("correct", short_help="Accept a conflicting body as a correction.")
@click.argument("event_id", type=utf8, metavar="EVENT_ID")
@click.option(
    "--conflict",
    "digest",
    type=utf8,
    required=True,
    metavar="DIGEST",
    help="Digest of the body, or its beginning. flowhooks events show lists it.",
)
@note_option
@dry_run_option
@yes_option
@json_option
@settings_options
def correct_command(
    settings: Settings, *, event_id: str, digest: str, note: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    r"""Accept a conflicting body of an event as its correction, and run its handlers.

    A callback with the identity of a stored event and other data is rejected with 409, and its body is stored beside
    the event. `flowhooks events show` lists these bodies with their differences. This command makes such a body an
    event of its own, which is routed with the current handlers. The first event stays as it is, also its waiting
    deliveries: close them with `flowhooks events resolve` if their work is not needed.

    --note is required: it says why the body is right. The command asks for confirmation unless --yes is given, because
    a handler that has run with the first body does its work a second time, with other data.

    \b
    Examples:
      flowhooks events correct 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11 --conflict 3f5a9c01d2e4b687 --dry-run
      flowhooks events correct 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11 --conflict 3f5a9c01d2e4b687 --note "sum was wrong"

    Exit codes: 0 done, 1 the body was accepted before or cannot be accepted, 2 wrong usage.
    """
    if not (note.strip() or dry_run):
        raise click.UsageError("Say why the body is right: --note TEXT.")
    require_terminal(yes or dry_run)
    arguments = {"event_id": event_id, "digest": digest, "note": note}
    if not (dry_run or yes):
        preview = {**arguments, "dry_run": True}
        planned = operations_client.run_step(settings, "accept_correction", preview, "nothing was changed")
        output.confirm(f"{text.correction_text(planned)} {text.CANNOT_BE_UNDONE} Continue?")
    print_result(
        operations_client.run_operation(settings, "accept_correction", {**arguments, "dry_run": dry_run}),
        text.correction_text,
        as_json=as_json,
    )
