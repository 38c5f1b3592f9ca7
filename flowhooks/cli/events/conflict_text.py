"""Conflicting bodies of an event as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.cli import output
from flowhooks.operations.body_diff import diff_bodies
from flowhooks.text import command_line

if TYPE_CHECKING:
    from flowhooks.ledger.corrections import Conflict
    from flowhooks.ledger.queries import StoredEvent

SHOWN_DIGEST_CHARS: Final = 16
"""Number of characters of a digest in a command, enough to name a body of one event."""


def print_conflict(stored: StoredEvent, conflict: Conflict) -> None:
    """Print a conflicting body, its differences from the event's body, and what can be done."""
    received = output.format_time(conflict.received_at)
    answered = "rejected with 409" if stored.raw_body is None else "answered as a success and kept"
    output.print_line(f"  another body, {answered}, was received at {received}")
    output.print_lines(output.format_body(conflict.body), indent="    ")
    if differences := diff_bodies(stored.body, conflict.body):
        output.print_line("    differences: - only the first body, + only this body")
        for line in differences:
            left_out = output.pluralize(line.left_out, "equal line")
            output.print_line(f"      {line.mark} {left_out if line.left_out else line.text}")
    if conflict.corrected_by is not None:
        output.print_line(f"    It was accepted as a correction: event {conflict.corrected_by}")
    elif not conflict.damage:
        digest = conflict.digest[:SHOWN_DIGEST_CHARS]
        command = command_line("events", "correct", stored.event.id, "--conflict", digest, "--note", "why")
        output.print_line(f"    To run the handlers with this body: {command}")
