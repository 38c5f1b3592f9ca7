"""Commands that are printed for a shell: each value in them is one word, whatever characters it contains."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace

import pytest

from flowhooks.background.alerts.cause import MessageTemplate
from flowhooks.background.alerts.engine_causes import REUSED, _argument
from flowhooks.cli.plugins.new import _print_next_steps
from flowhooks.ledger.handlers import RegisteredHandler
from flowhooks.model.alert import AlertCause
from flowhooks.model.selectors import Selectors
from flowhooks.operations.check.run import _routes
from flowhooks.operations.deliverable_events import DismissedEvents, reroute_command
from flowhooks.operations.suggestions import replay_command, resume_command
from flowhooks.text import command_line, escape_control, printable_line
from flowhooks.web.admin.console.translation import CHINESE_MESSAGES

HOSTILE = [
    "a b  c",
    "'",
    "\"'\\",
    "$(touch pwned)",
    "`touch pwned`; touch pwned & #",
    "$HOME {x} * ~",
    "-h",
    "--yes",
    "a\nflowhooks db purge",
    "a.",
    "-a.",
    "合同-1",
]
"""Values that a shell, or a command, could take for more than one word."""
COMMANDS = sorted(
    {
        command
        for template, chinese in CHINESE_MESSAGES.items()
        for message in (template.text, chinese)
        for command in re.findall(r"`(flowhooks [^`]*\{quoted\}[^`]*)`", message)
    }
)
"""The commands in messages of alerts, in both languages."""


def filled(template, **given):
    """A message of an alert."""
    defaults = {"cause": AlertCause.DEAD, "subject": "s", "count": 1, "since": 0, "why": ""}
    return template.fill(**(defaults | given))


def between(text, start, end):
    """The words of the command that starts and ends with these texts."""
    return shlex.split(text[text.index(start) : text.rindex(end)])


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_alerts(command, value):
    """The subject of an alert is one word of the commands in its message."""
    template = MessageTemplate(command)
    expected = [value if word == "NAME" else word for word in shlex.split(filled(template, subject="NAME"))]
    assert expected.count(value) == 1
    assert shlex.split(filled(template, subject=value)) == expected


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("message", [REUSED.text, CHINESE_MESSAGES[REUSED]])
def test_the_id_of_an_instance_in_an_alert(message, value):
    """An id that an engine has chosen is no option and loses no character that can be printed."""
    text = filled(MessageTemplate(message), why=_argument(value))
    words = between(text, "flowhooks engines show", "`")
    shown = value if value.isprintable() else printable_line(value)
    assert words == ["flowhooks", "engines", "show", *(["--"] if value.startswith("-") else []), shown]


@pytest.mark.parametrize("value", HOSTILE)
def test_the_next_steps_of_a_new_plugin(capsys, value):
    """The folder, the class, the key and the conclusion are one word each."""
    answers = {"package": "flowhooks-p", "callback_class": value, "process_key": value, "conclusion": value}
    _print_next_steps(f"/tmp/{value}", answers)
    text = capsys.readouterr().out
    shown = escape_control(value)
    assert between(text, "cd ", "  pip install") == ["cd", f"/tmp/{shown}"]
    words = shlex.split(text[text.index("flowhooks send") :])
    assert words[5:] == ["--class", shown, "--key", shown, "--conclusion", shown]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("state", ["missing", "denied", "loaded"])
def test_the_check_of_handlers_that_are_not_loaded(state, value):
    """The plugin and the handler are one word each of the command that retires the handler."""
    database = SimpleNamespace(
        registered_handlers=[RegisteredHandler(id=f"{value}:{value}", selectors=Selectors(every=True), last_seen_at=0)],
        executed_handlers=frozenset(),
        live_processes=[],
        waiting_by_handler={},
    )
    infos = [SimpleNamespace(name=value, state=state)] if state != "missing" else []
    settings = SimpleNamespace(handlers={}, routing=SimpleNamespace(ignore_process_keys=()))
    finding = next(iter(_routes(SimpleNamespace(handlers={}, infos=infos), database, settings)))
    handler = [] if state == "missing" else ["--handler", value]
    words = between(finding.next, "flowhooks plugins uninstall", "`")
    assert words == ["flowhooks", "plugins", "uninstall", value, *handler]


@pytest.mark.parametrize("value", HOSTILE)
def test_other_commands(value):
    """Each word of a command is one word."""
    assert shlex.split(command_line("sources", "show", value, f"--body={value}")) == [
        *("flowhooks", "sources", "show", value, f"--body={value}"),
    ]
    assert shlex.split(replay_command("e1", value)) == ["flowhooks", "events", "replay", "e1", "--handler", value]
    assert shlex.split(resume_command(value)) == ["flowhooks", "handlers", "resume", value]
    assert f"--handler={value}" in shlex.split(reroute_command(value, DismissedEvents(1, 0)))
