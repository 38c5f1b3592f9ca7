"""Processes that evaluate events: their answers, and what is reported if they cannot answer."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing

import pytest

from flowhooks.cli.plugins.backtest.evaluation import Evaluation
from flowhooks.cli.plugins.inspection import InspectionFailed
from flowhooks.operations.backtest import event_to_json
from flowhooks.testing import make_event

PLUGIN = """
import os, sys
from flowhooks import handler, hookimpl

assert sys.stdin.read() == ""
os.write(1, b"written to standard output\\n")

@handler(process_key="leave")
def grant(event):
    raise AssertionError("it is never entered")

@hookimpl
def handlers():
    return [grant]
"""
EVENT = json.dumps(event_to_json(make_event(process_key="leave")))


@pytest.fixture
def database(tmp_path, new_database):
    """A ledger."""
    return shutil.copy(new_database, tmp_path / "flowhooks.db")


@pytest.fixture
def evaluation(tmp_path, database):
    """A process with the plugin `leave`, which reads and writes its standard streams."""
    handlers = tmp_path / "handlers"
    handlers.mkdir()
    (handlers / "leave.py").write_text(PLUGIN)
    arguments = [f"--database={database}", f"--plugins-dir={handlers}"]
    with Evaluation("the plugins", sys.executable, arguments) as evaluation:
        yield evaluation


def test_events_are_answered_until_the_process_ends(evaluation):
    """The plugin sees neither the events nor the answers. A killed process is an error, and not an answer."""
    plugins = {plugin["name"]: plugin["state"] for plugin in evaluation.plugins()}
    assert plugins["leave"] == "loaded"
    for _ in range(2):
        evaluation.request(EVENT)
        assert evaluation.outcome().handlers["leave:grant"].route == "delivered"
    evaluation.process.kill()
    evaluation.process.wait()
    with pytest.raises(InspectionFailed, match=r"the plugins cannot be evaluated: .* ended with exit code -9"):
        evaluation.request(EVENT)


def test_a_ledger_of_a_newer_version(database):
    """A registered handler that this version cannot read could take the event, so nothing is compared."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO handlers (id, selectors, has_probe, first_seen_at, last_seen_at) "
            "VALUES ('new:one', '{\"format\": 99}', 0, 0, 0)"
        )
    with Evaluation("the plugins", sys.executable, [f"--database={database}"]) as newer:
        newer.plugins()
        newer.request(EVENT)
        with pytest.raises(InspectionFailed, match="cannot be evaluated: a newer version of flowhooks has registered"):
            newer.outcome()
