"""Suggested commands have every member that routing looks at, quoted for a shell."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

from flowhooks.model.event import Event
from flowhooks.operations import suggestions

HOSTILE = "$(touch /tmp/x) `id`; '\"--all"


def event(**members):
    """An event with these members."""
    return Event(id="e", flow_instance_id="i", data={}, received_at=datetime(2026, 1, 1, tzinfo=UTC), **members)


def test_the_explaining_command_describes_the_whole_event():
    """Source, kind, class, key, version and conclusion decide where an event goes, so the command has each."""
    left = event(
        source="erp",
        kind="error",
        callback_class="com.example.Leave",
        process_definition_key="leave",
        process_definition_version=9,
        conclusion="rejected",
    )
    assert suggestions.explain_command(left) == (
        "flowhooks routes --source=erp --kind=error --class=com.example.Leave --key=leave --version=9"
        " --conclusion=rejected"
    )


def test_event_values_are_quoted_for_the_shell():
    """A shell gets each value of an event as one word, and an option is no other option."""
    command = suggestions.explain_command(event(callback_class=HOSTILE, process_definition_key=HOSTILE))
    words = shlex.split(command)
    assert f"--class={HOSTILE}" in words
    assert f"--key={HOSTILE}" in words
    assert shlex.split(suggestions.replay_command("e1", HOSTILE))[-1] == HOSTILE
    assert shlex.split(suggestions.resume_command(HOSTILE))[-1] == HOSTILE
