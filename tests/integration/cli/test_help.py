"""The help text of every command."""

from __future__ import annotations

import click
import pytest

from flowhooks.cli.main import COMMANDS, main


def commands():
    """Every command as the words that call it."""
    context = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(context, name)
        yield (name,), command
        if isinstance(command, click.Group):
            for inner in command.commands:
                yield (name, inner), command.commands[inner]


ALL = dict(commands())
LEAVES = [words for words, command in ALL.items() if not isinstance(command, click.Group)]
LISTINGS = [
    ("config", "show"),
    ("check",),
    ("overview",),
    ("plugins", "list"),
    ("plugins", "show"),
    ("routes",),
    ("events", "list"),
    ("events", "show"),
    ("rejected", "list"),
    ("alerts", "list"),
    ("audit",),
    ("handlers", "list"),
    ("sources", "list"),
    ("engines", "list"),
    ("operators", "list"),
    ("verify",),
]
READ_NO_SETTINGS = {
    ("serve",),
    ("dev",),
    ("send",),
    ("init",),
    ("plugins", "new"),
    ("sources", "new"),
    ("operators", "new"),
}
"""Commands without arguments, and the command that would not end."""


def test_commands_match_the_reference():
    """The commands are exactly those of the reference."""
    assert list(ALL) == [
        ("serve",),
        ("dev",),
        ("restart",),
        ("worker",),
        ("init",),
        ("config",),
        ("config", "show"),
        ("check",),
        ("overview",),
        ("plugins",),
        ("plugins", "list"),
        ("plugins", "show"),
        ("plugins", "new"),
        ("plugins", "try"),
        ("plugins", "install"),
        ("plugins", "uninstall"),
        ("routes",),
        ("events",),
        ("events", "list"),
        ("events", "show"),
        ("events", "export"),
        ("events", "replay"),
        ("events", "resolve"),
        ("events", "run-now"),
        ("events", "close"),
        ("events", "correct"),
        ("events", "reroute"),
        ("events", "dismiss"),
        ("errors",),
        ("errors", "list"),
        ("errors", "show"),
        ("operations",),
        ("operations", "list"),
        ("operations", "show"),
        ("operations", "items"),
        ("operations", "start"),
        ("operations", "pause"),
        ("operations", "resume"),
        ("operations", "cancel"),
        ("operations", "rate"),
        ("handlers",),
        ("handlers", "list"),
        ("handlers", "show"),
        ("handlers", "pause"),
        ("handlers", "resume"),
        ("rejected",),
        ("rejected", "list"),
        ("rejected", "show"),
        ("alerts",),
        ("alerts", "list"),
        ("alerts", "acknowledge"),
        ("alerts", "test"),
        ("audit",),
        ("verify",),
        ("db",),
        ("db", "upgrade"),
        ("db", "copy"),
        ("db", "backup"),
        ("db", "record-backup"),
        ("db", "purge"),
        ("db", "index"),
        ("db", "size"),
        ("db", "compact"),
        ("sources",),
        ("sources", "list"),
        ("sources", "show"),
        ("sources", "new"),
        ("sources", "rotate"),
        ("sources", "test"),
        ("engines",),
        ("engines", "list"),
        ("engines", "reconcile"),
        ("engines", "coverage"),
        ("engines", "show"),
        ("engines", "decline"),
        ("engines", "close-gaps"),
        ("operators",),
        ("operators", "new"),
        ("operators", "list"),
        ("send",),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_has_the_short_help_of_each_command(name):
    """`flowhooks --help` shows the short help of each command, although it imports none."""
    assert COMMANDS[name] == ALL[name,].get_short_help_str(limit=100)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_without_markup(run, words):
    """Every command's --help exits with 0 and shows no block mark or backslash of a docstring."""
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {' '.join(words)}" in result.stdout
    assert "\\" not in result.stdout
    assert "\b" not in result.stdout


@pytest.mark.parametrize("words", [words for words in LEAVES if words != ("serve",)], ids=" ".join)
def test_every_help_has_examples(run, words):
    """Each help has two to four examples, each on its own line with existing options."""
    lines = run(*words, "--help").stdout.splitlines()
    start = lines.index("  Examples:")
    examples = lines[start + 1 : lines.index("", start)]
    assert 2 <= len(examples) <= 4
    for example in examples:
        called = example.split("flowhooks ", 1)[1].split(" | ")[0]
        assert called.startswith(" ".join(words))
        known = {name for option in ALL[words].params for name in option.opts}
        assert {word for word in called.split() if word.startswith("--")} <= known


@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
def test_every_listing_has_json(run, words):
    """Every listing command can print JSON."""
    assert "--json" in run(*words, "--help").stdout


def test_wrong_usage_is_a_short_error(run):
    """An unknown command, option or value exits with 2 and an error that names it."""
    for arguments, named in (
        (("nonsense",), "nonsense"),
        (("events", "nonsense"), "nonsense"),
        (("events", "list", "--nonsense"), "--nonsense"),
        (("events", "list", "--state", "nonsense"), "--state"),
        (("events", "list", "--limit", "0"), "--limit"),
        (("events", "list", "--since", "nonsense"), "'nonsense' is not a time"),
        (("events", "list", "--since", "2h", "--until", "3h"), "--since must be before --until"),
        (("events", "list", "--flow", "\udcff"), "UTF-8"),
        (("events", "list", "--database", "mysql://user:secret@host/db"), "mysql://"),
    ):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert named in result.stderr
        assert "secret" not in result.stderr


@pytest.mark.parametrize("words", [words for words in LEAVES if words not in READ_NO_SETTINGS], ids=" ".join)
def test_an_unknown_setting_is_refused_everywhere(run, words):
    """A misspelt variable is an error of every command that reads settings: exit code 2, or a finding of `check`."""
    more = {("events", "show"): ("x",), ("events", "replay"): ("--all", "--yes")}
    more |= {("events", name): ("--all", "--yes") for name in ("run-now", "close")}
    more |= {("operations", name): ("x",) for name in ("show", "items", "start", "pause", "resume", "cancel")}
    more |= {("operations", "rate"): ("x", "5/s")}
    more |= {("events", "reroute"): ("--all", "--yes"), ("events", "dismiss"): ("--all", "--yes")}
    more |= {("events", "correct"): ("x", "--conflict", "3f5a9c01", "--note", "x", "--yes")}
    more |= {("alerts", "acknowledge"): ("x",), ("engines", "show"): ("x",), ("errors", "show"): ("x",)}
    more |= {("rejected", "show"): ("x",), ("handlers", "show"): ("x",)}
    more |= {("events", "resolve"): ("x", "--did", "--yes"), ("plugins", "show"): ("x",)}
    more |= {("handlers", name): ("x", "--yes") for name in ("pause", "resume")}
    more |= {
        ("plugins", "try"): ("x",),
        ("plugins", "install"): ("x",),
        ("plugins", "uninstall"): ("x", "--yes"),
        ("db", "copy"): ("x", "y"),
    }
    more |= {("sources", name): ("x",) for name in ("show", "rotate", "test")}
    more |= {("engines", name): ("--source", "x", "--yes") for name in ("decline", "close-gaps")}
    more |= {("events", "correct"): ("x", "--conflict", "d")}
    more |= {("db", "backup"): ("x",), ("db", "purge"): ("--older-than", "1d", "--yes")}
    result = run(*words, *more.get(words, ()), FLOWHOOKS_LISTN="127.0.0.1:1")
    assert "FLOWHOOKS_LISTN is not a setting; did you mean FLOWHOOKS_LISTEN?" in result.output
    assert result.exit_code == (1 if words == ("check",) else 2)
