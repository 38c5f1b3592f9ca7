"""Output of commands: no control sequences, readable text, and the same JSON everywhere."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from flowhooks.cli import output

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""All control characters except the printed line ends."""


@pytest.mark.parametrize(
    "arguments", [("events", "list"), ("events", "show", "hostile"), ("events", "list", "--json"), ("routes",)]
)
def test_hostile_values_are_inert(server, run, arguments):
    """Escape sequences, bells, line ends and direction marks are shown, not executed."""
    result = run(*arguments, server=server)
    assert result.exit_code == 0
    assert not CONTROLS.search(result.stdout)


def test_hostile_values_are_shown_whole(server, run, run_json):
    """Values are escaped, not dropped; markup and emoji names stay unchanged; JSON has the value itself."""
    text = run("events", "show", "hostile", server=server).stdout
    assert "business key   a\\u001b[31m\\u0007b\\nc\\u202ed[red]e[/red]\\u009b\\u007f:smile:\n" in text
    (event,) = run_json("events", "show", "hostile", server=server)["events"]
    assert event["business_key"] == "a\x1b[31m\x07b\nc\u202ed[red]e[/red]\x9b\x7f:smile:"


def test_hostile_values_in_a_table(capsys):
    """In a table cell, only the table's own line ends begin a line."""
    output.print_table(("[bold]a", "b"), [("x\x1b[2Jy [red]z[/red] :smile:", "one\ntwo"), ("合同\u202e", "")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "─" not in line] == [
        ["[bold]a", "b"],
        ["x\\u001b[2Jy", "[red]z[/red]", ":smile:", "one"],
        ["two"],
        ["合同\\u202e"],
    ]


ROWS = [
    ("purchasing:create_purchase_order_of_a_subsidiary", "-", "OSError: [Errno 111] Connection refused"),
    ("a:b", "", "class com.example.procurement.PurchaseOrderApprovedOrNot or key \u5408\u540c \u5ba1\u6279"),
]


def lines_at_a_terminal(monkeypatch, columns, **options):
    """The lines of a table of `ROWS`, printed at a terminal of so many columns."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", Terminal())
    output.print_table(("handler", "note", "message"), ROWS, **options)
    return re.sub("\x1b\\[[0-9;]*m", "", sys.stdout.getvalue()).splitlines()


def test_nothing_is_folded_without_a_terminal(monkeypatch, capsys):
    """A pipe gets each line of a cell whole, whatever width the environment states: `grep` finds every value."""
    monkeypatch.setenv("COLUMNS", "20")
    output.print_table(("handler", "note", "message"), ROWS, free_text=("message",))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ", 1)[0] for line in lines[2:]] == [row[0] for row in ROWS]
    assert [line.endswith(row[2]) for line, row in zip(lines[2:], ROWS, strict=True)] == [True, True]


def test_a_terminal_wraps_free_text_between_words(monkeypatch):
    """The free text is narrowed to the terminal; ids and long words stay whole."""
    lines = lines_at_a_terminal(monkeypatch, 106, free_text=("message",))
    assert max(map(len, lines)) <= 106
    text = "\n".join(lines)
    for value in (
        "purchasing:create_purchase_order_of_a_subsidiary",
        "com.example.procurement.PurchaseOrderApprovedOrNot",
    ):
        assert value in text
    assert [line.split()[-1] for line in lines[-3:-1]] == [
        "class",
        "com.example.procurement.PurchaseOrderApprovedOrNot",
    ]


def test_a_narrow_terminal_breaks_no_value(monkeypatch):
    """A table that cannot fit is wider than the terminal."""
    text = "\n".join(lines_at_a_terminal(monkeypatch, 20))
    for row in ROWS:
        assert row[2] in text


def test_an_empty_column_is_left_out(monkeypatch, capsys):
    """An optional column is there only if a row has a value in it."""
    output.print_table(("handler", "note", "message"), ROWS, optional=("note", "message"))
    assert capsys.readouterr().out.splitlines()[0].split() == ["handler", "message"]


def test_values_add_no_colour_at_a_terminal(server, run_at_terminal):
    """Only flowhooks sets colours, and no value adds any."""
    said, code = run_at_terminal("events", "show", "hostile", typed="")
    assert code == 0
    assert set(re.findall("\x1b\\[[0-9;]*m", said)) == {"\x1b[32m", "\x1b[0m"}
    assert not CONTROLS.search(re.sub("\x1b\\[(32|0)m|\r", "", said))


@pytest.mark.parametrize(
    ("redirection", "code", "error"),
    [("2>&-", 0, ""), ("<&- >&-", 0, ""), (">/dev/full", 1, "Error: the result cannot be written to the standard out")],
)
def test_a_standard_file_that_cannot_be_used(new_database, tmp_path, redirection, code, error):
    """A command does what was asked although a standard file is closed; a full disk is one line."""
    shutil.copy(new_database, tmp_path / "flowhooks.db")
    command = [sys.executable, "-m", "flowhooks", "db", "purge", "--older-than", "1d", "--yes"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        cwd=tmp_path,
        env=os.environ | {"FLOWHOOKS_SAFE_MODE": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert (done.stderr.startswith(error), done.stderr.count("\n")) == (True, bool(error)), done.stderr


def test_json_is_one_document_in_any_encoding(server, spawn):
    """If standard output cannot encode Chinese, JSON escapes it and text does not fail."""
    started = [
        spawn("events", "show", "parked", *more, server=server, PYTHONIOENCODING="latin-1")
        for more in ((), ("--json",))
    ]
    (text, _), (document, _) = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert "\\u5408" in text
    assert json.loads(document)["events"][0]["data"]["note"] == "合同"


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0 ms"),
        (12_345, "12 ms"),
        (3_400_000, "3.4 s"),
        (125_000_000, "2 min 5 s"),
        (10_920_000_000, "3 h 2 min"),
    ],
)
def test_durations(microseconds, text):
    """Durations are printed in the largest fitting unit."""
    assert output.format_duration(microseconds) == text


def test_no_progress_bar_without_a_terminal(capsys):
    """Without a terminal there is no progress bar, and no count for it."""
    with output.progress_bar("work", lambda: pytest.fail("counted")) as advance:
        advance(1)
    assert capsys.readouterr() == ("", "")


def test_a_progress_bar_for_a_slow_operation(monkeypatch):
    """At a terminal a slow operation shows its progress, and removes the bar at the end."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(output, "PROGRESS_DELAY", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with output.progress_bar("work", lambda: 40) as advance:
        advance(30)
    assert "work" in sys.stderr.getvalue()
    assert "30/40" in sys.stderr.getvalue()


def test_a_value_that_is_very_long(capsys):
    """A long value is cut in a cell, but not in a line."""
    output.print_table(("a",), [("x" * 100_000,)])
    assert capsys.readouterr().out.count("x") < output.MAX_CELL_CHARS
    output.print_line("y" * 100_000)
    assert capsys.readouterr().out == "y" * 100_000 + "\n"
