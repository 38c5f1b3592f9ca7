"""`flowhooks events export`."""

from __future__ import annotations

import csv
import json
import stat

import pytest


def test_json_lines_are_the_default(run, run_json, server):
    """Without options every event is written to standard output, one on each line, as `events list` prints it."""
    result = run("events", "export", server=server)
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events == run_json("events", "list", server=server)["events"]
    assert result.stderr == f"{len(events)} events written.\n"


def test_csv_file(run, server, tmp_path):
    """The end of the file's name chooses CSV, and only the owner can read the file. A link to it stays a link."""
    target, link = tmp_path / "linked" / "dead.csv", tmp_path / "dead.csv"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    result = run("events", "export", "--state", "dead", "--flow", "dead", "--output", "dead.csv", server=server)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 event written to dead.csv.\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert link.is_symlink()
    with target.open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["flow_instance_id"], row["handler"], row["delivery_state"]) == ("dead", "shop:book", "dead")
    assert list(target.parent.iterdir()) == [target]


def test_text_selects_a_flow_an_id_or_a_business_key(run, server):
    """TEXT is a flow, an id or a business key, as of `events list`."""
    result = run("events", "export", "dead", server=server)
    assert [json.loads(line)["flow_instance_id"] for line in result.stdout.splitlines()] == ["dead"]


def test_format_option_overrides_the_file_name(run, server):
    """`--format` is stronger than the name of the file."""
    result = run("events", "export", "--flow", "dead", "--format", "csv", "--output", "events.jsonl", server=server)
    assert result.exit_code == 0
    assert run("events", "export", "--flow", "dead", "--format", "csv", server=server).stdout.startswith(
        '\ufeff"event_id"'
    )


def test_bodies_and_limit_options(run, server):
    """`--bodies` adds the bodies; `--limit` writes the newest events, and says how to continue."""
    result = run("events", "export", "--limit", "1", "--bodies", server=server)
    (event,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert event["body"].get("callBackProcessClass") == event["callback_class"]
    assert f"add --after {event['id']}" in result.stderr
    older = run("events", "export", "--after", event["id"], server=server)
    assert event["id"] not in [json.loads(line)["id"] for line in older.stdout.splitlines()]


def test_masked_bodies(run, server):
    """`--masked` writes bodies without their values."""
    result = run("events", "export", "--flow", "parked", "--masked", server=server)
    (event,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert event["body"] == {"processDefinitionKey": "ordre", "note": "\u5b57\u5b57"}
    assert event["flow_instance_id"] != "parked"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--masked", "--bodies"), "leave out --bodies"),
        (("dead", "--query", "dead"), "Give one text"),
        (("--format", "xlsx"), "'xlsx' is not one of 'csv', 'jsonl'"),
        (("--limit", "0"), "0 is not in the range"),
        (("--output", "no/such/folder/x.csv"), "cannot write no/such/folder/x.csv: No such file or directory"),
        (("--error-group", "0123456789ab"), "there is no error group"),
    ],
)
def test_wrong_usage_names_the_option(run, server, options, message):
    """A wrong option is refused with its name, and no file is left."""
    result = run("events", "export", *options, server=server)
    assert result.exit_code in {1, 2}
    assert message in result.stderr
    assert result.stdout == ""


def test_nothing_is_written_to_a_terminal(run_at_terminal, server):
    """Stored text could control a terminal, so a file or a pipe is required."""
    printed, code = run_at_terminal("events", "export", typed="")
    assert code == 2
    assert "--output FILE" in printed
