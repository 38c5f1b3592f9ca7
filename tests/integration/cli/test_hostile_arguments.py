"""Every command escapes the parts of arguments that it repeats, and quotes commands that it prints for pasting."""

from __future__ import annotations

import re
import subprocess

import click
import pytest

from flowhooks.cli.main import main

from .test_help import LEAVES
from .test_output import CONTROLS

HOSTILE = "a\x1b[31mRED\x1b]0;title\x07\r\r\nfaked: line\u202e\x9b"
SHELL = "--class=x $(touch pwned) `touch pwned` ; touch pwned #'\""
STARTS = {("serve",), ("worker",), ("dev",)}
"""Commands that would run forever with some values of their options."""


def parameters(words):
    """How to pass a value to each option and argument of a command that takes one."""
    context = click.Context(main)
    command = main
    for word in words:
        command = command.get_command(context, word)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            yield (HOSTILE,)
        elif not parameter.is_flag and not parameter.count:
            yield (f"{parameter.opts[-1]}={HOSTILE}",)


def inert(result):
    """Check that the output has no control sequence, and no line that a value began."""
    text = result.stdout + result.stderr
    return not CONTROLS.search(text) and not re.search(r"(?m)^\s*faked", text)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_unknown_options_and_surplus_arguments_are_escaped(run, words):
    """Unknown options and surplus arguments are escaped."""
    for arguments in ((f"--{HOSTILE}",), (HOSTILE,) * 9, (f"-{HOSTILE}",)):
        result = run(*words, *arguments)
        assert result.exit_code != 0
        assert inert(result), arguments


def test_unknown_commands_and_options_are_escaped(run):
    """Unknown commands and options are escaped, at the top and within a group."""
    for words in ((HOSTILE,), (f"--{HOSTILE}",), ("events", HOSTILE), ("events", f"--{HOSTILE}")):
        result = run(*words)
        assert result.exit_code == 2
        assert inert(result), words


NEEDS = {
    ("events", "replay"): ("--yes",), ("events", "reroute"): ("--yes",), ("events", "dismiss"): ("--yes",),
    ("events", "resolve"): ("--did", "--yes"), ("handlers", "pause"): ("--yes",), ("handlers", "resume"): ("--yes",),
    ("events", "run-now"): ("--yes",), ("events", "close"): ("--yes",),
    ("plugins", "uninstall"): ("--yes",), ("db", "purge"): ("--yes",),
    # A file has the values of events as they are.
    ("events", "export"): ("--flow=nobody",),
}  # fmt: skip


@pytest.mark.parametrize("words", [words for words in LEAVES if words not in STARTS], ids=" ".join)
def test_invalid_values_are_escaped(run, server, words):
    """Invalid values of each option and argument are escaped beside a server."""
    for given in parameters(words):
        result = run(*words, *NEEDS.get(words, ()), *given, server=server)
        assert inert(result), given


@pytest.mark.parametrize(
    "words",
    [
        ("events", "show"), ("events", "resolve", "--did", "--yes"), ("events", "replay", "--yes"),
        ("events", "reroute", "--yes"), ("handlers", "pause", "--yes"), ("handlers", "resume", "--yes"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_terminal_gets_no_control_sequence(run_at_terminal, words):
    """A terminal gets one line about the value and no control sequence."""
    said, code = run_at_terminal(*words, HOSTILE, typed="")
    assert code != 0
    text = said.replace("\r\n", "\n")
    assert not CONTROLS.search(text)
    assert not re.search(r"(?m)^\s*faked", text)
    assert "a\\u001b[31mRED" in text


def test_a_suggested_command_is_one_command(run, server, tmp_path):
    """Commands that `events show` suggests for a parked event are quoted, and have all values of the event."""
    server.post("shell", processDefinitionKey=SHELL, callBackProcessClass=SHELL, processDefinitionVersion=9)
    text = run("events", "show", "shell", server=server).stdout
    (command,) = re.findall(r"(flowhooks routes .*) explains", text)
    command = command.strip("`")
    shown = subprocess.run(
        ["sh", "-c", f'flowhooks() {{ printf "%s\\n" "$@"; }}\n{command}'],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.splitlines() == [
        "routes", "--source=default", "--kind=complete", f"--class={SHELL}", f"--key={SHELL}", "--version=9",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert run(*shown.stdout.splitlines(), server=server).exit_code == 1  # the event is parked
