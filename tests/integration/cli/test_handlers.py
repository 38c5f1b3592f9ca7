"""`flowhooks handlers list`, `pause` and `resume`, executed by a running server and without one."""

from __future__ import annotations

import re

import pytest

from flowhooks.ledger.reader import Reader


@pytest.fixture
def resumed(server, run):
    """Resume at the end whatever handlers the test paused."""
    yield
    run("handlers", "resume", "*", "--yes", server=server)


def test_pause_and_resume(server, run, run_json, wait_for_state, resumed):
    """On a server, new deliveries of a paused handler wait with a reason, and run after the resume."""
    dry = run("handlers", "pause", "shop:grant", "--dry-run", server=server)
    assert dry.stdout == "Would be paused: shop:grant. 0 deliveries wait.\n"
    done = run("handlers", "pause", "shop:grant", "--note", "moving", "--yes", server=server)
    assert (done.exit_code, done.stdout) == (0, "Paused: shop:grant. 0 deliveries wait.\n")
    event_id = server.post("paused", processDefinitionKey="leave")
    assert wait_for_state("paused", "waiting")["handler_paused_at"]
    shown = run("events", "show", event_id, server=server).stdout
    assert "runs           when its handler is resumed (paused since 20" in shown
    assert "flowhooks handlers resume shop:grant" in shown
    assert re.search(r"paused     since 20\S+ by \S+: moving\n", run("plugins", "show", "shop", server=server).stdout)
    assert re.search(r" paused 20.* by \S+: moving\n", run("handlers", "show", "shop:grant", server=server).stdout)
    assert ": moving" in run("handlers", "list", server=server, COLUMNS="160").stdout
    of_handler = run_json("handlers", "show", "shop:grant", server=server)["handler"]
    assert (of_handler["pause_note"], bool(of_handler["paused_by"])) == ("moving", True)
    assert "present, paused" in run("routes", server=server, COLUMNS="140").stdout
    assert "shop:grant is paused since 20" in run("check", server=server).stdout
    again = run("handlers", "pause", "shop:grant", "--yes", server=server)
    assert (again.exit_code, again.stdout) == (
        0,
        "Nothing to do. Skipped because it is paused already: shop:grant.\n",
    )
    done = run("handlers", "resume", "shop:gr*", "--yes", server=server)
    assert done.stdout == "Resumed: shop:grant. 1 waiting delivery released.\n"
    assert wait_for_state("paused", "succeeded")["handler_paused_at"] is None


def test_list(server, run, run_json, run_at_terminal, resumed):
    """The list has each handler, the start of its pause, its deliveries and selectors, within the width."""
    run_json("handlers", "pause", "shop:book", "--yes", server=server)
    found = {handler["id"]: handler for handler in run_json("handlers", "list", server=server)["handlers"]}
    assert set(found) == {"shop:grant", "shop:book", "shop:copy", "shop:hang"}
    assert [name for name, handler in found.items() if handler["paused_at"]] == ["shop:book"]
    lines = run("handlers", "list", server=server).stdout.splitlines()
    assert lines[-1] == "4 handlers, 1 paused."
    (row,) = [line for line in lines if "shop:book" in line]
    assert "present, in a thread" in row
    assert "key order, versions >=2" in row
    shown, _ = run_at_terminal("handlers", "list", typed="", COLUMNS="100", NO_COLOR="1")
    assert max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in shown.splitlines()) <= 100


def test_as_json(server, run_json, resumed):
    """JSON has the operation's result and whether a server executed it."""
    assert run_json("handlers", "pause", "shop:copy", "shop:c*", "--yes", server=server) == {
        "handlers": ["shop:copy"],
        "skipped": [],
        "waiting": 0,
        "due_later": 0,
        "running": 0,
        "dry_run": False,
        "server": True,
    }


def test_an_unknown_handler(server, run):
    """An unknown handler changes nothing, even among known ones, and a similar name is suggested."""
    result = run("handlers", "pause", "shop:copy", "shop:grnt", "--yes", server=server)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: no handler shop:grnt is registered; did you mean shop:grant?\n"
    assert "0 paused" in run("handlers", "list", server=server).stdout


@pytest.mark.parametrize(
    ("command", "says_nothing"),
    [
        (("events", "list"), "No matching events.\n"),
        (("events", "replay", "--dry-run"), "No matching delivery is dead.\n"),
        (("events", "close", "--yes"), "No matching delivery is waiting, dead or unknown.\n"),
        (("events", "export"), ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_misspelt_handler_of_a_filter_is_named(server, run, command, says_nothing):
    """A filter that finds nothing because no handler has this id says so, and suggests one; the result is the same."""
    misspelt = run(*command, "--handler", "shop:bok", server=server)
    assert (misspelt.exit_code, misspelt.stdout) == (0, says_nothing)
    assert misspelt.stderr.startswith("No handler shop:bok is known; did you mean shop:book?\n")
    known = run(*command, "--handler", "shop:book", "--until", "2000-01-01", server=server)
    assert (known.exit_code, "is known" in known.stderr) == (0, False)


def test_a_misspelt_action_of_the_audit_log_is_refused(server, run, run_json):
    """An action that no entry has and this version does not know is wrong usage; a known one may have no entry."""
    misspelt = run("audit", "--action", "opration", server=server)
    assert (misspelt.exit_code, misspelt.stdout) == (2, "")
    assert "no entry has the action opration; did you mean operation?" in " ".join(misspelt.stderr.split())
    assert "the actions are accept_correction, " in run("audit", "--action", "xyzzy", server=server).stderr
    assert run_json("audit", "--action", "compact", server=server)["entries"] == []


def test_the_command_requires_a_confirmation(server, run, run_at_terminal, resumed):
    """At a terminal the command asks; without a terminal it needs an option."""
    refused = run("handlers", "pause", "shop:copy", server=server)
    assert (refused.exit_code, "There is no terminal to ask for confirmation" in refused.stderr) == (2, True)
    said, code = run_at_terminal("handlers", "pause", "shop:copy", typed="n\n")
    assert ("Would be paused: shop:copy." in said, code) == (True, 1)
    said, code = run_at_terminal("handlers", "pause", "shop:copy", typed="y\n")
    assert ("Paused: shop:copy. 0 deliveries wait." in said, code) == (True, 0)


def test_without_a_server(make_shop, tmp_path, run):
    """Without a server the command pauses and resumes; waiting deliveries run once a server starts."""
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = make_shop(folder, folder / "shop.db")
    shop.start()
    shop.end()
    assert run("handlers", "pause", "shop:grant", "--dry-run", server=shop).exit_code == 0
    run("handlers", "pause", "shop:grant", "--yes", server=shop)
    shop.start()
    event_id = shop.post("i", processDefinitionKey="leave")
    shop.end()
    done = run("handlers", "resume", "shop:grant", "--yes", server=shop)
    assert done.stdout == (
        "Resumed: shop:grant. 1 waiting delivery released.\n"
        "No server is running: the deliveries run once a server starts.\n"
    )
    reader = Reader(f"sqlite:///{folder / 'shop.db'}")
    assert [
        (delivery_status.state, delivery_status.attempt) for delivery_status in reader.delivery_statuses(event_id)
    ] == [("waiting", 0)]
    reader.close()
