"""Commands show conclusions and conditions, filter by them, and act on them."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from flowhooks.app import App
from flowhooks.intake.callback import Callback
from flowhooks.ledger.queries import EventFilter
from flowhooks.settings import Settings
from support.waiting import until

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="expense", conclusion="approved")
def book(event):
    pass

@handler(process_key="expense", conclusion="approved", when={"/amount": {"minimum": 1000}})
def audit(event):
    pass

@hookimpl
def handlers():
    return [book, audit]
"""
CHANGED = """
from flowhooks import handler, hookimpl

@handler(process_key="expense", when={"/cost": {"minimum": 1}})
def book(event):
    pass

@hookimpl
def handlers():
    return [book]
"""
MANY = """
from flowhooks import handler, hookimpl

@hookimpl
def handlers():
    return [
        handler(process_key="expense", conclusion="approved", name=f"h{number}")(lambda event: None)
        for number in range(25)
    ]
"""
LATER = """
from flowhooks import handler, hookimpl

@handler(process_key="expense", conclusion="rejected")
def release(event):
    pass

@handler(process_key="expense", conclusion=["rejected", "withdrawn"])
def note(event):
    pass

@hookimpl
def handlers():
    return [release, note]
"""


@pytest.fixture
def expenses(tmp_path, new_database, make_shop):
    """The ledger of a stopped server, with events of several conclusions; `plugins` is the folder of its plugin."""
    file, folder = tmp_path / "left.db", tmp_path / "plugins"
    shutil.copy(new_database, file)
    folder.mkdir()
    stopped_server = make_shop(folder, file)
    stopped_server.env["FLOWHOOKS_PLUGINS_ALLOW"] = "expenses"

    def start(plugin):
        (folder / "expenses.py").write_text(plugin)
        app = App(Settings(database=str(file), plugins_dirs=(str(folder),), plugins_allow=("expenses",)))
        app.start()
        return app

    def take(plugin, **bodies):
        app = start(plugin)
        for instance, members in bodies.items():
            body = {"processDefinitionKey": "expense", **members}
            call_back = Callback(
                source="default", kind="complete", flow_instance_id=instance, body=body, text=json.dumps(body)
            )
            app.intake.accept(call_back, wait=20)
        app.close(20)

    stopped_server.app = start
    stopped_server.take = take
    return stopped_server


ENDS = {
    "approved": {"conclusion": "approved", "amount": 5},
    "rejected": {"conclusion": "rejected"},
    "silent": {},
}


def flows(listed):
    """The flow instances of a listing."""
    return {event["flow_instance_id"] for event in listed["events"]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--conclusion", "approved"), {"approved"}),
        (("--conclusion", "rejected"), {"rejected"}),
        (("--conclusion", "Approved"), set()),
        (("--dismissed-by", "condition"), {"rejected"}),
        (("--dismissed-by", "operator"), set()),
        (("--dismissed-by", "condition", "--conclusion", "approved"), set()),
    ],
)
def test_filters(expenses, run_json, options, expected):
    """Events are found by their conclusion and by the reason of their dismissal."""
    expenses.take(PLUGIN, **ENDS)
    assert flows(run_json("events", "list", *options, server=expenses)) == expected


def test_an_unknown_reason_is_refused(expenses, run):
    """An unknown reason is refused, not ignored."""
    result = run("events", "list", "--dismissed-by", "nobody", server=expenses)
    assert result.exit_code == 2
    assert "--dismissed-by" in result.stderr


def test_reasons_why_an_event_has_no_delivery(expenses, run, run_json):
    """A listing has the conclusion and the reason; `show` has the reason of each handler and the next step."""
    expenses.take(PLUGIN, **ENDS)
    text = run("events", "list", server=expenses, COLUMNS="160").stdout
    for part in ("dismissed: conditions are false", "parked: a condition cannot be decided", "approved"):
        assert part in text
    text = run("events", "show", "rejected", server=expenses).stdout
    assert ": dismissed: conditions are false\n" in text
    assert "  conclusion     rejected\n" in text
    assert "    expenses:audit: conclusion 'rejected' is not one of approved\n" in text
    assert "A reroute delivers it only after a handler has changed: flowhooks events reroute " in text
    text = run("events", "show", "silent", server=expenses).stdout
    assert ": parked: a condition cannot be decided\n" in text
    assert "    expenses:book: no conclusion, but the handler requires one of approved\n" in text
    assert "If it needs no handler: flowhooks events dismiss " in text
    (event,) = run_json("events", "show", "silent", server=expenses)["events"]
    assert (event["state"], event["parked_by"], event["conclusion"]) == ("parked", "condition", None)
    assert event["no_match"]["total"] == 2


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (
            "condition",
            "Correct what the engine sends, or the handler; once the handler is changed: flowhooks events reroute ",
        ),
        ("end_state", "Find out in the engine how the instance ended; if it completed: flowhooks events reroute "),
        ("reused_id", "Compare both events with the engine; if this is another instance: flowhooks events reroute "),
    ],
)
def test_the_next_step_of_a_parked_event(expenses, run, reason, step):
    """`show` states the step of the reason, and not that no handler has the class or key."""
    expenses.take(CHANGED, wrong={"cost": "12"})
    with closing(sqlite3.connect(expenses.env["FLOWHOOKS_DATABASE"])) as ledger, ledger:
        ledger.execute("UPDATE events SET parked_by = ? WHERE flow_instance_id = 'wrong'", (reason,))
    text = run("events", "show", "wrong", server=expenses).stdout
    assert f"  {step}" in text
    assert "No class or key handler matches" not in text
    assert "flowhooks routes" not in text


def test_a_reroute_says_why_an_event_is_unchanged(expenses, run):
    """The result of a reroute has the reason of the events that stay as they are."""
    expenses.take(PLUGIN, rejected=ENDS["rejected"])
    result = run("events", "reroute", "--key", "expense", "--yes", server=expenses)
    assert result.stdout.startswith(
        "1 event checked: 0 delivered (0 deliveries), 1 unchanged: no further handler takes it now, or only an "
        "operator decides it."
    )


def test_more_reasons_than_are_stored(expenses, run):
    """Twenty handlers are named, and the rest are counted."""
    expenses.take(MANY, rejected=ENDS["rejected"])
    text = run("events", "show", "rejected", server=expenses).stdout
    assert text.count("is not one of approved") == 20
    assert "    and 5 more\n" in text


def test_a_delivery_with_an_undecided_condition(expenses, run):
    """The output names the undecided condition, not a missing handler, and how to close the delivery."""
    expenses.take(PLUGIN)
    assert run("handlers", "pause", "expenses:book", "--yes", server=expenses).exit_code == 0
    expenses.take(PLUGIN, approved=ENDS["approved"])
    assert run("handlers", "resume", "expenses:book", "--yes", server=expenses).exit_code == 0
    with closing(expenses.app(CHANGED)) as app:
        until(lambda: app.ledger.find(EventFilter(handler="expenses:book"), limit=1)[0].delivery_statuses[0].comment)
    text = run("events", "show", "approved", server=expenses).stdout
    assert "note           not run: the handler's condition cannot be decided: /cost is absent" in text
    assert "runs           when a process starts whose handler can decide its condition (see the note)" in text
    assert "To close it: flowhooks events resolve " in text


def test_reroute_to_one_handler(expenses, run, run_json):
    """Only that handler gets deliveries; an unknown handler is refused."""
    expenses.take(PLUGIN, **ENDS)
    (expenses.folder / "later.py").write_text(LATER)
    env = {"FLOWHOOKS_PLUGINS_ALLOW": "expenses,later"}
    words = ("events", "reroute", "--state", "dismissed", "--since", "1d", "--handler")
    dry = run(*words, "later:release", "--dry-run", server=expenses, **env)
    assert dry.stdout == "1 event checked: 1 would be delivered (1 delivery).\n"
    done = run_json(*words, "later:release", "--yes", server=expenses, **env)
    assert (done["delivered"], done["deliveries"]) == (1, 1)
    (event,) = run_json("events", "show", "rejected", server=expenses)["events"]
    assert [delivery["handler"] for delivery in event["deliveries"]] == ["later:release"]
    assert event["state"] == "routed"
    assert (
        "routed 1 event again, only for later:release, with 1 new delivery"
        in run("events", "show", "rejected", server=expenses).stdout
    )
    result = run(*words, "later:relase", "--yes", server=expenses, **env)
    assert result.exit_code == 1
    assert "there is no handler later:relase" in result.stderr


def test_plugins_show_conditions(expenses, run, run_json):
    """The conditions of each handler, for people and as JSON."""
    expenses.take(PLUGIN)
    text = run("plugins", "show", "expenses", server=expenses, COLUMNS="160").stdout
    assert 'key expense, conclusion approved, /amount {"minimum": 1000}' in text
    (plugin,) = [
        listed for listed in run_json("plugins", "list", server=expenses)["plugins"] if listed["name"] == "expenses"
    ]
    assert [handler["selectors"]["conclusions"] for handler in plugin["handlers"]] == [["approved"], ["approved"]]
    assert plugin["handlers"][0]["selectors"]["when"] == {"/amount": {"minimum": 1000}}


def test_send_a_conclusion(server, run, run_json):
    """The conclusion is a member of the body and of the event."""
    result = run("send", "concluded", "--to", server.call_backs, "--key", "leave", "--conclusion", "approved")
    assert result.exit_code == 0
    (event,) = run_json("events", "show", "concluded", server=server)["events"]
    assert (event["conclusion"], json.loads(event["body"])["conclusion"]) == ("approved", "approved")


def test_handlers_of_a_newer_version(expenses, run, run_json):
    """A condition recorded by a newer flowhooks makes `check` fail, and no route is explained incompletely."""
    expenses.take(PLUGIN)
    with closing(sqlite3.connect(expenses.env["FLOWHOOKS_DATABASE"])) as connection, connection:
        connection.execute("UPDATE handlers SET selectors = '{\"format\": 99}' WHERE id = 'expenses:book'")
    env = {"FLOWHOOKS_PLUGINS_DENY": "expenses"}
    assert run_json("routes", server=expenses, **env)["unreadable"] == ["expenses:book"]
    assert "Unreadable: a newer version of flowhooks" in run("routes", server=expenses, **env).stdout
    result = run("routes", "--key", "expense", server=expenses, **env)
    assert result.exit_code == 1
    assert "a newer version of flowhooks has registered expenses:book" in result.stderr
    findings = run_json("check", server=expenses, code=1, **env)["findings"]
    (found,) = [finding for finding in findings if "newer version" in finding["what"]]
    assert (found["mark"], found["about"]) == ("problem", "handlers")
    assert "expenses:book" in found["what"]
