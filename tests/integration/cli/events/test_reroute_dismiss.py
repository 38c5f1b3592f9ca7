"""`flowhooks events reroute` and `dismiss`, executed by a running server and without one."""

from __future__ import annotations

import pytest

TRIP = {"processDefinitionKey": "trip"}


@pytest.fixture
def trips(server):
    """A function that makes a server park events of this test's business key; returns their ids."""

    def park(name, count=1):
        return [server.post(f"{name}-{number}", **TRIP, businessKey=name) for number in range(count)]

    return park


def states(run_json, server, name):
    """The states of events of a business key."""
    return [event["state"] for event in run_json("events", "list", "--business-key", name, server=server)["events"]]


def test_dismiss_and_undo_by_reroute(server, run, run_json, trips, hostile):
    """The output of the dry run, the result and the way back; the note in `events show` without control characters."""
    (event_id, _) = trips("dr1", 2)
    words = ("--business-key", "dr1")
    dry = run("events", "dismiss", *words, "--dry-run", server=server)
    assert dry.stdout == "2 parked events would be dismissed; 2 events checked.\n"
    assert states(run_json, server, "dr1") == ["parked", "parked"]
    done = run("events", "dismiss", event_id, "--note", f"not ours {hostile}", "--yes", server=server)
    assert (done.exit_code, done.stdout) == (0, "1 parked event is dismissed; 1 event checked.\n")
    shown = run("events", "show", event_id, server=server).stdout
    assert f"To deliver it after all: flowhooks events reroute {event_id}" in shown
    assert "by a command: dismissed 1 parked event: not ours a\\u001b[31m\\u0007b\\nc\\u202ed" in shown
    rest = run("events", "dismiss", *words, "--yes", server=server).stdout
    assert rest == "1 parked event is dismissed; 1 event checked.\n"
    again = run("events", "dismiss", event_id, "--yes", server=server).stdout
    assert again == "0 parked events are dismissed; 1 event checked. 1 skipped: not parked.\n"
    back = run("events", "reroute", *words, "--yes", server=server)
    assert back.stdout == "2 events checked: 0 delivered (0 deliveries), 2 parked again.\n"
    assert states(run_json, server, "dr1") == ["parked", "parked"]
    (event,) = run_json("events", "show", event_id, server=server)["events"]
    assert [entry["action"] for entry in event["audit_entries"]] == ["dismiss"]
    assert event["audit_entries"][0]["detail"]["note"] == f"not ours {hostile}"


def test_dismiss_and_reroute_as_json(server, run_json, trips):
    """JSON has the operation's response and the members that the command adds."""
    (event_id,) = trips("dr2")
    assert run_json("events", "dismiss", event_id, "--yes", server=server) == {
        "events": 1,
        "dismissed": 1,
        "skipped": 0,
        "changed_meanwhile": 0,
        "next": "",
        "dry_run": False,
        "server": True,
    }
    assert run_json("events", "reroute", event_id, "--dry-run", server=server) == {
        "events": 1,
        "delivered": 0,
        "deliveries": 0,
        "parked": 1,
        "dismissed": 0,
        "skipped": 0,
        "changed_meanwhile": 0,
        "next": "",
        "dry_run": True,
        "server": True,
    }


@pytest.mark.parametrize("command", ["reroute", "dismiss"])
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "Select events: give IDs or a filter, or --all"),
        (("--all", "--flow", "dead"), 2, "--all selects every event"),
        (("--flow", "parked"), 2, "There is no terminal to ask for confirmation: give --yes"),
        (("--state", "prked", "--yes"), 2, "--state"),
        (tuple(map(str, range(1001))), 2, "Give at most 1,000 IDs"),
        (("nothing", "--yes"), 1, "Error: there is no event nothing\n"),
    ],
)
def test_ambiguous_or_unconfirmed_selections_are_refused(server, run, command, arguments, code, said):  # noqa: PLR0917 (a table)
    """Without a filter, with conflicting filters, or without a terminal to confirm, nothing changes."""
    result = run("events", command, *arguments, server=server)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_dismiss_and_reroute_ask_for_confirmation(server, run_json, run_at_terminal, trips):
    """The question has the count and whether it can be undone; "n" cancels; without a match there is no question.

    An event that arrives after the count is not changed.
    """
    trips("dr3", 3)
    words = ("--business-key", "dr3")
    said, code = run_at_terminal("events", "dismiss", *words, typed="n\n")
    assert "3 parked events will be dismissed; `events reroute` undoes it. Continue? [y/N]" in said
    assert code == 1
    assert states(run_json, server, "dr3") == ["parked"] * 3

    def arrive():
        server.post("dr3-late", **TRIP, businessKey="dr3")

    assert run_at_terminal("events", "dismiss", *words, typed="y\n", at_question=arrive)[1] == 0
    assert sorted(states(run_json, server, "dr3")) == ["dismissed"] * 3 + ["parked"]
    said, code = run_at_terminal("events", "reroute", *words, typed="y\n")
    assert "3 dismissed events are parked again. Continue? [y/N]" in said
    assert states(run_json, server, "dr3") == ["parked"] * 4
    said, code = run_at_terminal("events", "reroute", *words, typed="")
    assert "4 events checked: 0 delivered (0 deliveries), 4 unchanged: no further handler takes them now" in said
    assert code == 0


LATER = '''
from flowhooks import handler, hookimpl

@handler(process_key=["order", "trip"])
def later(event):
    """A handler that is installed after its callbacks have come."""

@hookimpl
def handlers():
    return [later]
'''


def test_reroute_to_a_plugin_that_was_installed_later(stopped_server, run, run_json):
    """Without a server the deliveries are created, wait for its start, and nothing else changes."""
    (stopped_server.folder / "later.py").write_text(LATER)
    env = {"FLOWHOOKS_PLUGINS_ALLOW": "shop,later"}
    dry = run("events", "reroute", "--all", "--dry-run", server=stopped_server, **env)
    assert dry.stdout == "4 events checked: 4 would be delivered (4 deliveries).\n"
    assert run("events", "reroute", "--all", "--yes", server=stopped_server, **env).stdout == (
        "4 events checked: 4 delivered (4 deliveries).\n"
        "No server is running: the deliveries run once a server starts.\n"
    )
    events = run_json("events", "list", server=stopped_server)["events"]
    assert [[(it["handler"], it["state"]) for it in event["deliveries"]] for event in events] == [
        [("shop:book", "dead"), ("later:later", "waiting")]
    ] * 4
    done = run_json("events", "reroute", "--all", "--yes", server=stopped_server, **env)
    assert (done["skipped"], done["deliveries"]) == (4, 0)
