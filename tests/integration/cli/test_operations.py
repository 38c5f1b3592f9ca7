"""`flowhooks operations`, and the commands that plan operations: with a server, without one, and interrupted."""

from __future__ import annotations

import json
import re
import time
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from flowhooks.cli.operations import follow
from flowhooks.cli.operations.plan import to_rate
from flowhooks.cli.operations.text import progress_text
from flowhooks.ledger.reader import Reader
from flowhooks.model.bulk_operation import BulkAction, Operation, OperationState
from support.waiting import until

BOOK = ("--handler", "shop:book")
NEVER = 32503680000000000
"""The year 3000, in microseconds since 1970."""


@pytest.fixture
def shop(make_shop, stopped_server):
    """A running server whose ledger has four dead deliveries; their handler works once the file `open` exists."""
    stopped_server.start()
    yield stopped_server
    stopped_server.end()


def states(stopped_server):
    """The number of deliveries in each state."""
    with closing(Reader(f"sqlite:///{stopped_server.file}")) as reader:
        return reader.verify().deliveries


def test_a_plan_is_printed_and_its_operation_followed(shop, run, run_json):
    """The command prints the exact number, the span and each handler, and follows the operation to its end."""
    dry = run("events", "replay", "--all", "--dry-run", server=shop)
    assert dry.exit_code == 0
    assert dry.stdout.startswith("4 dead deliveries will run again. Received 20")
    assert re.search(r"shop:book +4\n", dry.stdout)
    assert "Nothing was changed" in dry.stdout
    assert run_json("operations", "list", server=shop)["operations"] == []
    (shop.folder / "open").touch()
    done = run("events", "replay", *BOOK, "--yes", "--note", "the ERP is up", server=shop)
    assert done.exit_code == 0, done.output
    assert re.search(r"Operation \S+ has finished: 4 succeeded, 0 failed again\.\n$", done.stdout)
    assert states(shop) == {"succeeded": 4}
    (operation,) = run_json("operations", "list", server=shop)["operations"]
    assert (operation["note"], operation["planned"], operation["remaining"]) == ("the ERP is up", 4, 0)
    assert run("events", "replay", *BOOK, "--yes", server=shop).stdout == "No matching delivery is dead.\n"
    assert len(run_json("operations", "list", server=shop)["operations"]) == 1  # a plan without deliveries is left out
    shown = run("operations", "show", operation["id"], server=shop).stdout
    for words in ("selection      --handler shop:book", "note           the ERP is up", "rate           no limit"):
        assert words in shown
    items = run_json("operations", "items", operation["id"], "--limit", "3", server=shop)
    assert [item["status"] for item in items["items"]] == ["released"] * 3
    rest = run_json("operations", "items", operation["id"], "--after", items["next"], server=shop)
    assert (len(rest["items"]), rest["next"]) == (1, "")
    assert "succeeded" in run("operations", "items", operation["id"], server=shop).stdout
    assert run("operations", "items", operation["id"], "--status", "changed", server=shop).stdout == (
        "No matching deliveries.\n"
    )
    assert "4 planned" in run("operations", "list", server=shop).stdout


def test_deliveries_that_fail_again_are_counted(shop, run):
    """Deliveries that fail again are counted; they can be closed together."""
    done = run("events", "replay", "--all", "--yes", server=shop)
    assert "0 succeeded, 4 failed again" in done.stdout
    closed = run("events", "close", "--state", "dead", "--yes", "--note", "by hand", server=shop)
    assert "4 dead deliveries will be closed" in closed.stdout
    assert "4 closed" in closed.stdout
    assert states(shop) == {"closed": 4}


def test_handlers_that_do_not_run_are_named(stopped_server, run, run_json, monkeypatch):
    """An operation that waits for an open circuit or a paused handler says so, once, and how to resume the handler."""
    stopped_server.env |= {"FLOWHOOKS_CIRCUIT_BREAKER_FAILURES": "1"}
    stopped_server.start()
    try:

        def circuit():
            return stopped_server.sql("SELECT id FROM handlers WHERE circuit_opened_at IS NOT NULL")

        naps = []

        def naps_until_open(_seconds):
            until(circuit)
            naps.append(1)
            if len(naps) == 3:
                raise KeyboardInterrupt  # no signal: the tests may run in the background, where SIGINT is ignored

        monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=time.monotonic, sleep=naps_until_open))
        result = run("events", "replay", *BOOK, "--yes", "--rate", "4/h", server=stopped_server)
        stopped = "shop:book is not run: its circuit is open, and the next trial is at 20"
        assert (result.exit_code, result.stderr.count(stopped)) == (130, 1), result.output
        assert "`flowhooks handlers resume shop:book`" in result.stderr
        (operation,) = run_json("operations", "list", server=stopped_server)["operations"]
        shown = run("operations", "show", operation["id"], server=stopped_server).stdout
        assert stopped in shown
        run("handlers", "pause", "shop:book", "--yes", server=stopped_server)
        shown = run("operations", "show", operation["id"], server=stopped_server).stdout
        assert "shop:book is not run: it is paused. To run its deliveries: `flowhooks handlers resume" in shown
        dry = run("events", "replay", "--all", "--dry-run", server=stopped_server).stdout
        assert re.search(r"shop:book +4 +paused\n", dry)
    finally:
        stopped_server.end()


def test_handlers_that_are_not_loaded_are_named(stopped_server, run, run_json, monkeypatch):
    """An operation that waits for a plugin says so when it is planned, followed and shown."""
    stopped_server.env |= {"FLOWHOOKS_SAFE_MODE": "true"}
    stopped_server.start()
    try:

        def interrupt(_seconds):
            raise KeyboardInterrupt

        monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupt))
        dry = run("events", "replay", "--all", "--dry-run", server=stopped_server).stdout
        assert re.search(r"shop:book +4 +not loaded\n", dry)
        result = run("events", "replay", *BOOK, "--yes", server=stopped_server)
        line = "shop:book is not run: no running process has loaded it."
        assert (result.exit_code, result.stderr.count(line)) == (130, 1), result.output
        assert re.search(r"shop:book +4 +not loaded\n", result.stdout)
        (operation,) = run_json("operations", "list", server=stopped_server)["operations"]
        assert line in run("operations", "show", operation["id"], server=stopped_server).stdout
        closed = run("events", "close", "--state", "suspended", *BOOK, "--yes", "--detach", server=stopped_server)
        assert (closed.exit_code, line in closed.output) == (0, False), closed.output
    finally:
        stopped_server.end()


def test_a_slow_operation_is_controlled(shop, run, run_json):
    """A detached operation is paused, resumed, given another rate, followed and cancelled by its id."""
    (shop.folder / "open").touch()
    started = run_json("events", "replay", *BOOK, "--yes", "--rate", "4/h", "--detach", server=shop)
    operation_id = started["id"]
    assert started["server"] is True
    assert started["state"] == "running"
    assert f"{operation_id} is paused" in run("operations", "pause", operation_id, server=shop).stdout
    refused = run("operations", "pause", operation_id, server=shop)
    assert refused.exit_code == 1
    assert "is paused: it cannot be paused" in refused.stderr
    assert run_json("operations", "list", "--active", server=shop)["operations"][0]["state"] == "paused"
    assert run_json("operations", "rate", operation_id, "100/s", server=shop)["rate"] == 100
    assert run_json("operations", "resume", operation_id, server=shop)["state"] in {"running", "finished"}
    followed = run("operations", "show", operation_id, "--follow", server=shop)
    assert "has finished: 4 succeeded" in followed.stdout
    again = run_json("events", "replay", "--all", "--again", "--yes", "--rate", "4/h", "--detach", server=shop)
    assert run_json("operations", "cancel", again["id"], server=shop)["state"] == "cancelled"
    assert "is cancelled" in run("operations", "show", again["id"], server=shop).stdout
    assert run("operations", "resume", again["id"], server=shop).exit_code == 1


def test_the_rest_of_a_cancelled_operation():
    """Deliveries that were released still run, and the others do not."""
    operation = Operation(
        id="o",
        action=BulkAction.REPLAY,
        event_filter={},
        note="",
        rate=None,
        state=OperationState.CANCELLED,
        actor="ann",
        interface="cli",
        created_at=1,
        started_at=1,
        changed_at=1,
        finished_at=None,
        planned=10,
        released=6,
        changed=1,
        succeeded=2,
        failed=1,
        remaining=6,
    )
    assert progress_text(operation) == (
        "Operation o is cancelled: 2 succeeded, 1 failed again, 3 released and not executed yet, 3 not released, "
        "1 left alone because they had changed since the plan."
    )
    assert "6 remaining" in progress_text(replace(operation, state=OperationState.RUNNING))
    ended = replace(operation, released=3)
    assert "1 failed again, 6 not released, 1 left" in progress_text(ended)


def test_a_plan_is_started_later(shop, run, run_json, monkeypatch):
    """The answer "n" starts nothing, and prints the command that starts the plan.

    With `--json` the plan is shown on standard error, and standard output has only the document.
    """
    monkeypatch.setattr("flowhooks.cli.events.bulk.require_terminal", lambda unless: None)
    refused = run("events", "replay", "--all", "--json", given="n\n", server=shop)
    assert (refused.exit_code, refused.stdout) == (1, "")
    plan, _, _ = refused.stderr.partition("Start it?")
    assert "4 dead deliveries will run again" in plan
    assert re.search(r"^shop:book +4$", plan, re.MULTILINE)
    assert re.search(r"^ValueError: closed.* 4$", plan, re.MULTILINE)
    refused = run("events", "replay", "--all", given="n\n", server=shop)
    assert refused.exit_code == 1
    assert "The effects of a handler cannot be undone. Start it?" in refused.output
    command = re.search(r"flowhooks (operations start \S+)", refused.output)[1].split()
    assert states(shop) == {"dead": 4}
    assert "To start it" in run("operations", "show", command[-1], server=shop).stdout
    (shop.folder / "open").touch()
    assert "4 succeeded" in run(*command, server=shop).stdout
    started = run("events", "replay", "--all", "--again", "--detach", "--json", given="y\n", server=shop)
    assert json.loads(started.stdout)["planned"] == 4


def test_a_declined_plan_keeps_its_rate_and_note(shop, run, run_json, monkeypatch):
    """The command that is printed starts the plan as it was asked for, and the audit log has one entry of it."""
    monkeypatch.setattr("flowhooks.cli.events.bulk.require_terminal", lambda unless: None)
    options = ("--rate", "5/s", "--note", "the ERP is up")
    refused = run("events", "replay", "--all", *options, given="n\n", server=shop)
    (planned,) = run_json("operations", "list", server=shop)["operations"]
    assert (planned["state"], planned["rate"], planned["note"]) == ("planned", 5.0, "the ERP is up")
    assert run_json("audit", "--action", "operation", server=shop)["entries"] == []
    command = re.search(r"flowhooks (operations start \S+)", refused.output)[1].split()
    started = run_json(*command, "--detach", server=shop)
    assert (started["id"], started["rate"], started["note"]) == (planned["id"], 5.0, "the ERP is up")
    (entry,) = run_json("audit", "--action", "operation", server=shop)["entries"]
    assert (entry["detail"]["rate"], entry["detail"]["note"]) == (5.0, "the ERP is up")


@pytest.mark.parametrize(
    ("command", "states_of_action"),
    [
        (("replay", "--state", "suspended"), "replay acts on deliveries that are dead"),
        (("replay", "--state", "succeeded"), "replay acts on deliveries that are dead"),
        (("run-now", "--state", "dead"), "run-now acts on deliveries that are waiting"),
    ],
    ids=["replay suspended", "replay succeeded", "run-now dead"],
)
def test_a_dry_run_refuses_the_same_states(stopped_server, run, command, states_of_action):
    """A state that the action never changes is an error, with and without `--dry-run`."""
    says = f"Error: {states_of_action}; with the state {command[-1]} there is none"
    for how in ("--dry-run", "--yes"):
        result = run("events", *command, how, server=stopped_server)
        # Without a server, the command may load the plugin, which prints a line before.
        assert (result.exit_code, result.stdout, result.stderr.splitlines()[-1]) == (1, "", says)


def test_ctrl_c_leaves_the_operation_running(shop, run, run_json, monkeypatch):
    """Ctrl-C ends the command with exit code 130 and hints; an operation that a colleague cancels, with 1."""
    (shop.folder / "open").touch()

    def interrupted(_seconds):
        raise KeyboardInterrupt  # no signal: the tests may run in the background, where SIGINT is ignored

    # Of this module only: other threads of the tests sleep, too.
    monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupted))
    result = run("events", "replay", *BOOK, "--again", "--yes", "--rate", "4/h", server=shop)
    assert result.exit_code == 130
    (operation,) = run_json("operations", "list", server=shop)["operations"]
    assert f"Operation {operation['id']} continues without this command." in result.stderr
    assert f"flowhooks operations show {operation['id']} --follow" in result.stderr
    assert f"flowhooks operations cancel {operation['id']}" in result.stderr
    assert operation["state"] == "running"
    monkeypatch.undo()
    run_json("operations", "rate", operation["id"], "--unlimited", server=shop)
    until(lambda: states(shop) == {"succeeded": 4})
    events = run_json("events", "list", server=shop)["events"]
    assert [delivery["attempts"] for event in events for delivery in event["deliveries"]] == [2] * 4
    until(lambda: run_json("operations", "list", "--active", server=shop)["operations"] == [])

    def cancels(_seconds):
        (operation,) = run_json("operations", "list", "--active", server=shop)["operations"]
        run_json("operations", "cancel", operation["id"], server=shop)

    monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=time.monotonic, sleep=cancels))
    result = run("events", "replay", *BOOK, "--again", "--yes", "--rate", "4/h", server=shop)
    assert (result.exit_code, "is cancelled" in result.stdout) == (1, True), result.output


def test_without_a_server_the_command_releases_deliveries(stopped_server, run, run_json):
    """Without a server, the command releases the deliveries itself and says that they run when one starts."""
    result = run("events", "replay", "--all", "--yes", server=stopped_server)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("No server is running: the deliveries run once a server starts.\n")
    assert "4 remaining" in result.stdout
    assert states(stopped_server) == {"waiting": 4}
    (operation,) = run_json("operations", "list", server=stopped_server)["operations"]
    (stopped_server.folder / "open").touch()
    stopped_server.start()
    try:
        until(lambda: states(stopped_server) == {"succeeded": 4})
        followed = run("operations", "show", operation["id"], "--follow", server=stopped_server)
        assert "has finished: 4 succeeded" in followed.stdout
    finally:
        stopped_server.end()


def test_a_stopped_server_is_noticed(stopped_server, run, run_json, monkeypatch):
    """The command does not wait forever for a server that was stopped."""
    stopped_server.start()
    try:
        started = run_json("events", "replay", *BOOK, "--yes", "--rate", "4/h", "--detach", server=stopped_server)
    finally:
        stopped_server.end()
    monkeypatch.setattr(follow, "SERVER_GRACE", -1.0)
    result = run("operations", "show", started["id"], "--follow", server=stopped_server)
    assert result.exit_code == 0
    assert "No server is running any more" in result.stderr


def test_unknown_deliveries_are_resolved_by_a_filter(server, run, wait_for_state):
    """`resolve --verdict` resolves the unknown deliveries of a selection, and no other."""
    delivery = wait_for_state("killed", "unknown")["id"]
    dry = run("events", "resolve", "--verdict", "done", "--delivery", delivery, "--dry-run", server=server)
    assert dry.stdout.startswith("1 unknown delivery will be marked as done.")
    done = run("events", "resolve", "--verdict", "done", "--flow", "leave", "--yes", server=server)
    assert done.stdout == "No matching delivery is unknown.\n"
    assert wait_for_state("killed", "unknown")["id"] == delivery


@pytest.mark.parametrize(
    ("command", "state", "triggers"),
    [
        ("run-now", "waiting", ["first", "run-now"]),
        ("resolve --verdict done", "unknown", ["first"]),
        ("resolve --verdict not-done", "unknown", ["first", "resolved"]),
    ],
)
def test_many_deliveries_run_now_or_are_resolved(  # noqa: PLR0917 (fixtures and parameters)
    server, run, run_json, wait_for_state, command, state, triggers
):
    """Scheduled retries run now; unknown deliveries are marked as done, or run again; the operation is audited once."""
    instances = [f"{command} {number}" for number in range(2)]
    for instance in instances:
        server.post(quote(instance), processDefinitionKey="order", processDefinitionVersion=2, businessKey=command)
        wait_for_state(instance, "dead")
    ours = "(SELECT id FROM events WHERE business_key = ?)"
    due_at = NEVER if state == "waiting" else None
    server.sql(f"UPDATE deliveries SET state = ?, due_at = ? WHERE event_id IN {ours}", state, due_at, command)
    if state == "unknown":
        of_ours = f"delivery_id IN (SELECT id FROM deliveries WHERE event_id IN {ours})"
        server.sql(f"UPDATE attempts SET outcome = 'lost' WHERE {of_ours}", command)
    (server.folder / "open").touch()
    try:
        words = (*command.split(), "--business-key", command, "--note", "together", "--yes")
        done = run("events", *words, server=server)
    finally:
        (server.folder / "open").unlink()
    assert done.exit_code == 0, done.output
    for instance in instances:
        attempts = wait_for_state(instance, "succeeded")["attempts"]
        assert [attempt["trigger"] for attempt in attempts] == triggers
    operation_id = re.search(r"Operation (\S+) has finished", done.stdout)[1]
    (entry,) = run_json("audit", "--target", operation_id, server=server)["entries"]
    assert entry["detail"].items() >= {"change": "started", "deliveries": 2, "note": "together"}.items()
    assert run("events", *words, server=server).stdout.startswith("No matching delivery ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resolve", "x"), "Give the outcome"),
        (("resolve", "x", "--did", "--verdict", "done"), "Give the outcome"),
        (("resolve", "--did", "--state", "unknown", "--yes"), "--did is for one delivery"),
        (("resolve", "x", "--close", "--rate", "5/s", "--yes"), "--close is for one delivery"),
        (("resolve", "--verdict", "done", "--yes"), "Select events"),
        (("close", "--state", "succeeded", "--yes"), "Only waiting, suspended, dead and unknown deliveries"),
        (("run-now", "--all"), "There is no terminal"),
        (("replay", "--all", "--rate", "fast", "--yes"), "'fast' is not a rate"),
        (("replay", "--all", "--rate", "20000/s", "--dry-run"), "from 0.0001 to 10,000 per second, not 20000/s"),
        (("resolve", "--verdict", "done", "--all", "--rate", "0.3/h", "--dry-run"), "not 0.3/h"),
    ],
)
def test_an_ambiguous_selection_or_outcome_is_refused(server, run, arguments, said):
    """An ambiguous selection or outcome is wrong usage, and plans nothing."""
    result = run("events", *arguments, server=server)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


def test_an_unknown_operation_or_delivery(server, run):
    """An unknown operation or delivery is one line and exit code 1."""
    for arguments in (
        ("operations", "show", "nothing"),
        ("operations", "show", "nothing", "--follow"),
        ("operations", "items", "nothing"),
        ("operations", "start", "nothing"),
        ("operations", "rate", "nothing", "5/s"),
    ):
        result = run(*arguments, server=server)
        assert (result.exit_code, result.output) == (1, "Error: there is no operation nothing\n"), arguments
    result = run("events", "replay", "--delivery", "nothing", "--yes", server=server)
    assert (result.exit_code, result.output) == (1, "Error: there is no delivery nothing\n")
    assert run("operations", "rate", "nothing", server=server).exit_code == 2


@pytest.mark.parametrize(("text", "rate"), [("5/s", 5), ("30/min", 0.5), ("36/h", 0.01), ("2", 2), ("0.5/s", 0.5)])
def test_rates_are_read(text, rate):
    """A rate is a number per second, minute or hour."""
    assert to_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "0/s", "-1", "5/d", "5 /s", "1e3", "nan", "5/s/s"])
def test_other_rates_are_refused(text):
    """Anything else is an error that shows the forms."""
    from click import BadParameter

    with pytest.raises(BadParameter, match="such as 5/s"):
        to_rate(text)
