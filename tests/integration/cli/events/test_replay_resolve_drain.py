"""`flowhooks events replay`, `resolve` and `reroute --parked`, executed by a running server."""

from __future__ import annotations

import pytest

ORDER = {"processDefinitionKey": "order", "processDefinitionVersion": 2}


@pytest.fixture
def open_shop(server):
    """Let the handler `book` succeed until the test ends."""
    file = server.folder / "open"
    file.touch()
    yield
    file.unlink()


def test_replay_runs_dead_deliveries_again(server, run, run_json, wait_for_state, open_shop):
    """A replay by the event's id makes a second attempt, keeps the first one, and prints the counts."""
    (server.folder / "open").unlink()
    event_id = server.post("r1", **ORDER)
    (server.folder / "open").touch()
    dry = run("events", "replay", event_id, "--dry-run", server=server)
    assert dry.stdout.startswith("1 dead delivery will run again.")
    assert wait_for_state("r1", "dead")["attempts"][-1]["number"] == 1
    done = run("events", "replay", event_id, "--yes", server=server)
    assert done.exit_code == 0
    assert done.stdout.endswith("has finished: 1 succeeded, 0 failed again.\n")
    assert [attempt["outcome"] for attempt in wait_for_state("r1", "succeeded")["attempts"]] == ["failed", "succeeded"]
    again = run_json("events", "replay", event_id, "--yes", server=server)
    assert (again["planned"], again["state"], again["server"]) == (0, "planned", True)


def test_succeeded_deliveries_are_replayed_only_with_again(server, run, wait_for_state):
    """Only `--again` replays a succeeded delivery."""
    event_id = server.post("r2", processDefinitionKey="leave")
    said = run("events", "replay", event_id, "--yes", server=server).stdout
    assert said == "No matching delivery is dead.\n"
    assert len(wait_for_state("r2", "succeeded")["attempts"]) == 1
    run("events", "replay", "--flow", "r2", "--again", "--yes", server=server)
    assert len(wait_for_state("r2", "succeeded")["attempts"]) == 2


def test_replay_selects_by_the_version_that_ran_last(server, run, run_json, wait_for_state):
    """`--ran-by` selects by the version that ran last; the other filters are about one attempt, and exclude others."""
    event_id = server.post("versions", processDefinitionKey="leave")
    delivery_id = wait_for_state("versions", "succeeded")["id"]
    earlier = "UPDATE attempts SET plugin_version = '1.4', started_at = started_at - 7200000000 WHERE delivery_id = ?"
    server.sql(earlier, delivery_id)
    selection = ("--flow", "versions", "--again")
    dry = run("events", "replay", "--ran-by", "shop==2.0", *selection, "--dry-run", server=server)
    assert dry.stdout == "No matching delivery is dead or succeeded.\n"
    assert run_json("events", "list", "--flow", "versions", "--trigger", "replay", server=server)["events"] == []
    done = run("events", "replay", "--ran-by", "shop==1.4", *selection, "--yes", server=server)
    assert done.stdout.startswith("1 succeeded delivery will run again; ")
    assert done.stdout.endswith("has finished: 1 succeeded, 0 failed again.\n")
    assert wait_for_state("versions", "succeeded")["attempts"][-1]["trigger"] == "replay"
    for arguments, is_listed in (
        (("--trigger", "replay"), True),
        (("--trigger", "first"), True),
        (("--trigger", "retry"), False),
        (("--plugin", "shop"), True),
        (("--plugin", "shop==1.4"), True),
        (("--plugin", "shop==1.5"), False),
        (("--ran-by", "shop"), True),
        (("--ran-by", "shop==1.4"), False),
        (("--attempted-since", "1h"), True),
        (("--attempted-since", "1h", "--trigger", "first"), False),
        (("--attempted-since", "3h", "--trigger", "first", "--plugin", "shop==1.4"), True),
        (("--attempted-since", "2100-01-01"), False),
    ):
        listed = run_json("events", "list", "--flow", "versions", *arguments, server=server)["events"]
        assert [event["id"] for event in listed] == ([event_id] if is_listed else []), arguments
    wrong = run("events", "list", "--plugin", "a b", server=server)
    assert wrong.exit_code == 2
    assert "write a plugin as NAME or NAME==VERSION" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Select events: give IDs or a filter, or --all"),
        (("--all", "--flow", "dead"), "--all selects every event"),
        (("--flow", "dead"), "There is no terminal to ask for confirmation: give --yes"),
        (tuple(map(str, range(1001))), "Give at most 1,000 IDs"),
    ],
)
def test_replay_refuses_ambiguous_or_unconfirmed_selections(server, run, wait_for_state, arguments, said):
    """Without a filter, with conflicting filters, or without a terminal to confirm: exit code 2, and no change."""
    result = run("events", "replay", *arguments, server=server)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert len(wait_for_state("dead", "dead")["attempts"]) == 1


def test_replay_of_an_unknown_id_does_nothing(server, run, run_json, wait_for_state):
    """One unknown id, such as a flow instance's, refuses the whole command."""
    (event,) = run_json("events", "show", "dead", server=server)["events"]
    result = run("events", "replay", event["id"], "nothing", "--yes", server=server)
    assert (result.exit_code, result.output) == (1, "Error: there is no event nothing\n")
    assert len(wait_for_state("dead", "dead")["attempts"]) == 1


def test_replay_asks_for_confirmation(server, wait_for_state, run_at_terminal, open_shop):
    """At a terminal it prints the count and the meaning of `--again`; "n" cancels, "y" confirms."""
    (server.folder / "open").unlink()
    server.post("r3", **ORDER, businessKey="asked")
    server.post("r3-done", processDefinitionKey="leave", businessKey="asked")
    (server.folder / "open").touch()
    said, code = run_at_terminal("events", "replay", "--business-key", "asked", "--again", typed="n\n")
    assert (
        "2 deliveries (1 dead, 1 succeeded) will run again; succeeded deliveries do their work a second time." in said
    )
    assert "The effects of a handler cannot be undone. Start it? [y/N]" in said
    assert code == 1
    assert len(wait_for_state("r3", "dead")["attempts"]) == 1
    said, code = run_at_terminal("events", "replay", "--business-key", "asked", typed="y\n")
    assert "1 dead delivery will run again." in said
    assert code == 0
    assert len(wait_for_state("r3", "succeeded")["attempts"]) == 2
    assert len(wait_for_state("r3-done", "succeeded")["attempts"]) == 1


def test_resolve_stores_the_outcome_of_an_unknown_delivery(server, run, run_json, wait_for_state):
    """A dry run shows the change, then it is made with its note; a repeat is refused."""
    delivery_id = wait_for_state("resolved", "unknown")["id"]
    for verdict, state in (("--did", "succeeded"), ("--did-not", "waiting"), ("--close", "closed")):
        dry = run("events", "resolve", delivery_id, verdict, "--dry-run", server=server)
        assert dry.stdout == f"Delivery {delivery_id} for shop:hang would change from unknown to {state}.\n"
    done = run_json("events", "resolve", delivery_id, "--did", "--note", "seen\x1b[31m it", "--yes", server=server)
    assert done == {
        "delivery_id": delivery_id,
        "handler": "shop:hang",
        "before": "unknown",
        "after": "succeeded",
        "dry_run": False,
        "server": True,
    }
    assert wait_for_state("resolved", "succeeded")["note"] == "seen\x1b[31m it"
    assert "note           seen\\u001b[31m it" in run("events", "show", "resolved", server=server).stdout
    again = run("events", "resolve", delivery_id, "--did", "--yes", server=server)
    assert again.exit_code == 1
    assert again.output == (
        f"Error: delivery {delivery_id} is succeeded: only an unknown delivery can be marked as done or not done\n"
    )


def test_resolve_refuses_incomplete_or_unconfirmed_commands(server, run):
    """Without an outcome, a terminal to confirm or such a delivery, `resolve` is refused."""
    for arguments, code, said in (
        (("x",), 2, "Give the outcome: --did, --did-not or --close for one delivery"),
        (("x", "--did"), 2, "There is no terminal to ask for confirmation"),
        (("x", "--did", "--yes"), 1, "Error: there is no delivery x"),
    ):
        result = run("events", "resolve", *arguments, server=server)
        assert (result.exit_code, result.stdout) == (code, "")
        assert said in " ".join(result.stderr.split())


def test_reroute_parked_without_a_matching_handler(server, run, run_json):
    """Parked events stay parked while no handler matches them."""
    assert run("events", "reroute", "--parked", server=server).stdout == "No parked event matches a handler now.\n"
    done = run_json("events", "reroute", "--parked", "--dry-run", server=server)
    assert (done["delivered"], done["dry_run"], done["server"]) == (0, True, True)


def test_reroute_parked_refuses_other_filters(server, run):
    """`--parked` means all parked events and all handlers; other filters are wrong usage."""
    events = "--parked selects all parked events; leave out IDs, filters, --all and --after."
    for arguments, said in (
        (("x",), events),
        (("--id", "x"), events),
        (("--key", "order"), events),
        (("--state", "parked"), events),
        (("--since", "2h"), events),
        (("--all",), events),
        (("--after", "x"), events),
        (("--handler", "shop:book"), "--parked applies to every handler; leave out --handler"),
    ):
        for more in ((), ("--dry-run",)):
            result = run("events", "reroute", "--parked", *arguments, *more, server=server)
            assert (result.exit_code, result.stdout) == (2, ""), arguments
            assert said in " ".join(result.stderr.split()), arguments


def test_db_upgrade_is_refused_while_a_server_runs(server, run):
    """`db upgrade` is refused while a server uses the database, and names the server."""
    result = run("db", "upgrade", server=server)
    assert result.exit_code == 1
    assert f"is in use by process {server.process.pid}, whose administration is at {server.admin}" in result.stderr


def test_concurrent_replays_run_a_delivery_once(server, spawn, open_shop, wait_for_state):
    """Concurrent replays run a delivery again once; all other commands report that its state has changed."""
    (server.folder / "open").unlink()
    event_id = server.post("r4", **ORDER)
    (server.folder / "open").touch()
    started = [spawn("events", "replay", event_id, "--yes", server=server) for _ in range(2)]
    assert [process.communicate(timeout=60) and process.returncode for process in started] == [0, 0]
    assert len(wait_for_state("r4", "succeeded")["attempts"]) == 2
