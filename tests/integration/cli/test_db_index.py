"""`flowhooks db index`: its output, its exit codes, and its work beside a running server."""

from __future__ import annotations

import shutil

import pytest

from flowhooks.cli import interruption
from flowhooks.operations import index_fields


@pytest.fixture
def database(harness, listens):
    """A ledger with three events, none of them indexed."""
    flow = harness.open(listens(lambda event: None, name="h"))
    for number in range(3):
        flow.take(f"i{number}", amount=number)
    flow.close()
    return harness.url or str(harness.file)


def test_stored_events_are_indexed(run, run_json, database):
    """A dry run counts, the command indexes, and a repeat changes nothing; --json has the sums."""
    options = ("--database", database)
    env = {"FLOWHOOKS_SEARCH_FIELDS": "/amount"}
    result = run("db", "index", "--dry-run", *options, **env)
    assert result.exit_code == 0, result.output
    assert "3 events would be indexed by /amount, 0 unchanged." in result.stdout
    assert run_json("events", "list", "--field", "/amount>=1", *options, **env)["events"] == []
    result = run("db", "index", *options, **env)
    assert "3 events indexed by /amount, 0 unchanged." in result.stdout
    assert len(run_json("events", "list", "--field", "/amount>=1", *options, **env)["events"]) == 2
    done = run_json("db", "index", *options, **env)
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


def test_an_interrupted_command_is_continued(run, run_json, database, monkeypatch):
    """Ctrl-C stops after a page, and --after continues behind it."""
    monkeypatch.setattr(index_fields, "PAGE_SIZE", 1)
    env = {"FLOWHOOKS_SEARCH_FIELDS": "/amount", "FLOWHOOKS_DATABASE": database}
    sleep = interruption.InterruptHandler.sleep

    def stop(handler, seconds):
        handler.requested = True
        sleep(handler, 0)

    monkeypatch.setattr(interruption.InterruptHandler, "sleep", stop)
    result = run("db", "index", **env)
    assert result.exit_code == interruption.EXIT_INTERRUPTED
    assert "Done so far: 1 event indexed by /amount" in result.output
    after = result.output.partition("--after ")[2].split()[0]
    monkeypatch.undo()
    assert run_json("db", "index", "--after", after, **env)["indexed"] == 2
    assert run_json("db", "index", **env)["indexed"] == 0


@pytest.fixture
def shop(tmp_path, new_database, make_shop):
    """A running server that indexes no field, with two events."""
    shutil.copy(new_database, tmp_path / "shop.db")
    shop = make_shop(tmp_path, tmp_path / "shop.db")
    shop.start()
    for number in (500, 1500):
        shop.post(f"i{number}", processDefinitionKey="leave", amount=number)
    yield shop
    shop.end()


def test_a_running_server_indexes_by_its_own_settings(shop, run, run_json):
    """The server indexes by its own settings: before its reload nothing, after it the new field."""
    settings = {"FLOWHOOKS_SEARCH_FIELDS": "/amount"}
    done = run_json("db", "index", server=shop, **settings)
    assert (done["server"], done["fields"], done["events"], done["indexed"]) == (True, [], 2, 0)
    shop.end()
    shop.env |= settings
    shop.start()
    shop.post("i2500", processDefinitionKey="leave", amount=2500)
    done = run_json("db", "index", server=shop)
    assert (done["server"], done["fields"], done["events"], done["indexed"]) == (True, ["/amount"], 3, 2)
    found = run_json("events", "list", "--field", "/amount>=1000", server=shop)["events"]
    assert [event["flow_instance_id"] for event in found] == ["i2500", "i1500"]
    assert run("verify", server=shop).exit_code == 0
