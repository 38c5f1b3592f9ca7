"""Suggest commands for an event and its deliveries, the same in the console and on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.text import command_line

if TYPE_CHECKING:
    from flowhooks.model.event import Event


def explain_command(event: Event) -> str:
    """Return the command that explains the routing of such an event; `""` if it has neither class nor key."""
    if not (event.callback_class or event.process_definition_key):
        return ""
    named = {
        "source": event.source,
        "kind": event.kind,
        "class": event.callback_class,
        "key": event.process_definition_key,
        "version": event.process_definition_version,
        "conclusion": event.conclusion,
    }
    return command_line("routes", *(f"--{name}={value}" for name, value in named.items() if value not in {None, ""}))


def replay_command(event_id: str, handler: str) -> str:
    """Return the command that runs a dead delivery again."""
    return command_line("events", "replay", event_id, "--handler", handler)


def resolve_command(delivery_id: str) -> str:
    """Return the command that resolves an unknown delivery, without the verdict."""
    return command_line("events", "resolve", delivery_id)


def resume_command(handler: str) -> str:
    """Return the command that resumes a handler."""
    return command_line("handlers", "resume", handler)
