"""`flowhooks errors`, and the option `--error-group` of the commands for events."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import flowhooks

CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_errors_are_listed_and_shown(stopped_server, run, run_json):
    """The list has each group with its numbers; one group has its traceback, without the frames of flowhooks."""
    (error,) = run_json("errors", "list", server=stopped_server)["errors"]
    assert (error["handler"], error["type"], error["count"]) == ("shop:book", "ValueError", 4)
    assert error["frame"] == "shop.py:book"
    assert (error["open"], error["complete"]) == ({"dead": 4, "waiting": 0, "unknown": 0}, True)
    assert error["hours"] == [0] * 23 + [4]
    assert run_json("errors", "list", "--handler", "shop:copy", server=stopped_server) == {"errors": [], "next": ""}
    assert run_json("errors", "list", "--since", "2999-01-01", server=stopped_server)["errors"] == []
    listed = run("errors", "list", server=stopped_server)
    assert (listed.exit_code, CONTROLS.findall(listed.stdout)) == (0, [])
    assert error["id"][:12] in listed.stdout
    assert "4 dead" in listed.stdout
    assert "█" in listed.stdout
    shown = run("errors", "show", error["id"][:8], server=stopped_server)
    assert (shown.exit_code, CONTROLS.findall(shown.stdout)) == (0, [])
    assert 'raise ValueError("closed' in shown.stdout
    assert f"flowhooks events replay --error-group={error['id'][:12]}" in shown.stdout
    whole = run_json("errors", "show", error["id"], server=stopped_server)
    assert whole["newest"]["attempt"]["traceback"].startswith("Traceback")
    assert {name: whole[name] for name in error} == error
    assert run("errors", "show", "0" * 12, server=stopped_server).exit_code == 1
    assert "No failed attempt matches" in run("errors", "list", "--handler", "x:y", server=stopped_server).stdout


def test_frames_of_flowhooks_are_folded(stopped_server, run, run_json):
    """The number of the frames of flowhooks is shown instead of them, unless they are asked for."""
    own_frame = f'  File "{Path(flowhooks.__file__).parent}/plugins/default_hooks.py", line 1, in run_handler'
    lines = (
        "Traceback (most recent call last):",
        '  File "/srv/shop.py", line 1, in book',
        "    raise ValueError",
        own_frame,
    )
    with closing(sqlite3.connect(stopped_server.file)) as connection, connection:
        connection.execute("UPDATE attempts SET traceback = ?", ["\n".join((*lines, "ValueError: closed"))])
    (error,) = run_json("errors", "list", server=stopped_server)["errors"]
    shown = run("errors", "show", error["id"], server=stopped_server).stdout
    assert "… 1 frame of flowhooks" in shown
    assert (own_frame in shown, lines[1] in shown) == (False, True)
    assert own_frame in run("errors", "show", error["id"], "--full", server=stopped_server).stdout


def test_the_list_has_the_versions_of_each_group(stopped_server, run, run_json):
    """Up to three versions are listed; of more, the first and the last one with their number."""
    for versions, words in (
        (["1.0", "1.1", "1.2"], "versions 1.0, 1.1, 1.2"),
        (["1.0", "1.1", "1.2", "2.0"], "versions 1.0 … 2.0 (4)"),
    ):
        with closing(sqlite3.connect(stopped_server.file)) as connection, connection:
            connection.execute("UPDATE error_groups SET versions = ?, first_seen_at = 0", [json.dumps(versions)])
        listed = run("errors", "list", server=stopped_server).stdout
        assert words in listed
        assert "1970-01-01 00:00:00" in listed
        (error,) = run_json("errors", "list", server=stopped_server)["errors"]
        assert (error["versions"], error["first_seen_at"]) == (versions, "1970-01-01T00:00:00.000Z")


def test_events_of_one_error_are_listed_and_replayed(stopped_server, run, run_json):
    """`--error-group` takes the beginning of an id; a wrong one selects nothing."""
    error = run_json("errors", "list", server=stopped_server)["errors"][0]["id"]
    events = run_json("events", "list", "--error-group", error[:8], server=stopped_server)["events"]
    assert len(events) == 4
    assert {delivery["error_group"] for event in events for delivery in event["deliveries"]} == {error}
    assert "ValueError: closed" in run("events", "list", server=stopped_server).stdout
    (stopped_server.folder / "open").touch()
    assert run_json("events", "replay", "--error-group", error[:12], "--dry-run", server=stopped_server)["planned"] == 4
    assert run_json("events", "replay", "--error-group", error[:12], "--yes", server=stopped_server)["planned"] == 4
    for wrong, code in (("0" * 8, 1), (error[:7], 2), ("X" * 8, 2)):
        for command in (("list",), ("replay", "--yes"), ("replay", "--dry-run")):
            refused = run("events", *command, "--error-group", wrong, server=stopped_server)
            assert (refused.exit_code, refused.stdout) == (code, ""), refused.stderr
