"""`flowhooks db index`: its output, its exit codes, and its work beside a running server."""

from __future__ import annotations

import pytest

from flowhooks.cli import operations_client
from flowhooks.operations import index_fields


@pytest.fixture
def database(harness, listens):
    """A ledger with three events, none of them indexed."""
    flow = harness.open(listens(lambda event: None, name="h"))
    for number in range(3):
        flow.take(f"i{number}", amount=number)
    flow.close()
    return harness.url or str(harness.file)


def test_stored_events_are_indexed(run, asked, database):
    """A dry run counts, the command indexes, and a repeat changes nothing; --json has the sums."""
    options = ("--database", database)
    env = {"FLOWHOOKS_SEARCH_FIELDS": "/amount"}
    result = run("db", "index", "--dry-run", *options, **env)
    assert result.exit_code == 0, result.output
    assert "3 events would be indexed by /amount, 0 unchanged." in result.stdout
    assert asked("events", "list", "--field", "/amount>=1", *options, **env)["events"] == []
    result = run("db", "index", *options, **env)
    assert "3 events indexed by /amount, 0 unchanged." in result.stdout
    assert len(asked("events", "list", "--field", "/amount>=1", *options, **env)["events"]) == 2
    done = asked("db", "index", *options, **env)
    assert done == {
        "fields": ["/amount"],
        "events": 3,
        "indexed": 0,
        "damaged": 0,
        "next": "",
        "dry_run": False,
        "server": False,
    }
    assert "indexed 3 events by /amount" in run("audit", *options).stdout
    result = run("db", "index", *options)
    assert "3 events indexed by no field, 0 unchanged." in result.stdout
    assert run("verify", *options).exit_code == 0


def test_an_interrupted_command_is_continued(run, asked, database, monkeypatch):
    """Ctrl-C stops after a page, and --after continues behind it."""
    monkeypatch.setattr(index_fields, "PAGE_SIZE", 1)
    env = {"FLOWHOOKS_SEARCH_FIELDS": "/amount", "FLOWHOOKS_DATABASE": database}
    sleep = operations_client._InterruptHandler.sleep

    def stop(handler, seconds):
        handler.requested = True
        sleep(handler, 0)

    monkeypatch.setattr(operations_client._InterruptHandler, "sleep", stop)
    result = run("db", "index", **env)
    assert result.exit_code == operations_client.EXIT_INTERRUPTED
    assert "Done so far: 1 event indexed by /amount" in result.output
    after = result.output.partition("--after ")[2].split()[0]
    monkeypatch.undo()
    assert asked("db", "index", "--after", after, **env)["indexed"] == 2
    assert asked("db", "index", **env)["indexed"] == 0
