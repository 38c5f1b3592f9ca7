"""`flowhooks engines` in each of its commands, on a ledger with an engine."""

from __future__ import annotations

import json
import re
import shlex
import signal
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click import Group

from flowhooks.background.alerts import engine_causes
from flowhooks.cli import operations_client
from flowhooks.cli.main import main
from flowhooks.clock import SECOND
from flowhooks.errors import ServerUnreachable
from flowhooks.model.engine import EndState, FinishedInstance, ProcessDefinition
from flowhooks.operations.context import Actor
from flowhooks.operations.registry import run_operation
from flowhooks.settings import Source
from flowhooks.settings.engine import EngineSettings
from support import engine_ledger
from support.engine_fakes import FakeReconciler, engine_plugin

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="leave", versions=">=2", conclusion="approved")
def grant(event):
    pass

@hookimpl
def handlers():
    return [grant]
"""
pytestmark = pytest.mark.sqlite

LONG_ID = "instance-" + "7" * 90


@pytest.fixture
def flow(harness, tmp_path, monkeypatch):
    """A ledger with an engine `oa`, whose settings are in a file; operations run in this process on a fake engine."""
    harness.check_at_end = False
    flow = harness.open(
        plugins={"p": engine_plugin()},
        start=False,
        sources={"oa": Source(token_sha256=("0" * 64,), engine=EngineSettings(client="fake", url="http://oa:8080"))},
    )
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "shop.py").write_text(PLUGIN)
    (tmp_path / "flowhooks.toml").write_text(
        f'database = "{flow.address.removeprefix("sqlite:///")}"\n'
        'plugins_dirs = ["plugins"]\nplugins_allow = ["shop"]\n'
        f'[sources.oa]\ntoken_sha256 = ["{"0" * 64}"]\n[sources.oa.engine]\nclient = "fake"\nurl = "http://oa:8080"\n'
    )
    flow.engines = FakeReconciler("oa")
    context = replace(flow.app.operation_context, reconciler=flow.engines, by=Actor("ann", "cli"))

    @contextmanager
    def opened(_settings, *, asks_engines, **_options):
        assert asks_engines
        yield (lambda name, arguments: json.loads(json.dumps(run_operation(context, name, arguments)))), True

    monkeypatch.setattr(operations_client, "_open_client", opened)
    return flow


@pytest.fixture
def engines(run, flow):
    """Runs `flowhooks engines`."""
    return lambda *words, **more: run("engines", *words, FLOWHOOKS_PLUGINS_ALLOW="shop", **more)


def test_list(flow, engines):
    """The list has state, product, position, counts, and the command for each problem; ids stay whole."""
    assert "not asked yet" in engines("list").stdout
    now = flow.clock.now()
    engine_ledger.position(
        flow, "oa", failed_since=now, failures=2, error="HTTP 500", skew=-2 * SECOND, to_confirm=1500, waiting=7,
        read_until=now,
    )  # fmt: skip
    engine_ledger.instance(flow, "oa", LONG_ID, disposition="skipped", rule="child")
    engine_ledger.gap(flow, "oa", now - 60 * SECOND, now, "refused")
    shown = engines("list", COLUMNS="80")
    assert shown.exit_code == 0
    for words in (
        "oa", "  failing", "  Flowable 8.0.0", "2026-01-01 00:00:00", "engine's clock -2.0 s", "1 skipped (child)",
        "2 failures since", "--confirm", "7 instances wait for",
        "gap 2025-12-31 23:59:00 to 2026-01-01 00:00:00: refused",
    ):  # fmt: skip
        assert words in shown.stdout
    (engine,) = json.loads(engines("list", "--json").stdout)["engines"]
    assert (engine["state"], engine["to_confirm"], engine["waiting"], engine["book"]) == (
        "failing", 1500, 7, [{"disposition": "skipped", "rule": "child", "instances": 1}],
    )  # fmt: skip


def test_no_engine(run, flow, tmp_path):
    """Without an engine in the settings, the list explains how to add one."""
    (tmp_path / "flowhooks.toml").write_text(f'database = "{flow.address.removeprefix("sqlite:///")}"\n')
    assert "[sources.NAME.engine]" in run("engines", "list").stdout
    assert run("engines", "coverage").stdout == "There is no definition to compare.\n"


def test_reconcile(flow, engines):
    """The result is one line for each engine, and the start time is passed on."""
    shown = engines("reconcile", "--source", "oa", "--since", "2026-01-01T00:00Z")
    assert shown.stdout == (
        "oa: 3 finished instances read, 1 has an event, 1 taken in, 1 in grace, 1 skipped (child).\n"
    )
    assert flow.engines.rounds == [("oa", 1_767_225_600_000_000, False)]
    assert "1 would be taken in" in engines("reconcile", "--dry-run").stdout
    assert flow.engines.rounds[-1] == ("oa", None, True)
    flow.engines.results = {"waiting": 2}
    assert "; 2 instances wait for the engine to call again." in engines("reconcile", "--source", "oa").stdout
    assert json.loads(engines("reconcile", "--json").stdout)["sources"][0]["taken_in"] == 1


def test_a_reconciliation_that_stops(flow, engines):
    """An error, or instances that wait for an operator, end the command with 1."""
    flow.engines.results = {"error": "HTTP 401 for /history", "reason": "refused"}
    shown = engines("reconcile")
    assert (shown.exit_code, shown.stdout.endswith("; stopped: HTTP 401 for /history\n")) == (1, True)
    flow.engines.results = {"to_confirm": 1500}
    shown = engines("reconcile")
    assert (shown.exit_code, "1,500 instances wait for --confirm" in shown.stdout) == (1, True)


def test_confirm(flow, engines):
    """--confirm confirms a source and reconciles; it needs a source and a terminal or --yes."""
    engine_ledger.position(flow, "oa", to_confirm=1500)
    for words in (("--confirm",), ("--confirm", "--source", "oa"), ("--confirm", "--source", "oa", "--dry-run")):
        assert engines("reconcile", *words).exit_code == 2
    assert flow.engines.confirmed == []
    shown = engines("reconcile", "--confirm", "--source", "oa", "--yes", "--json")
    assert (flow.engines.confirmed, json.loads(shown.stdout)["confirmed"]) == (["oa"], 1500)
    assert flow.sql("SELECT action FROM audit_log ORDER BY id") == [("confirm_reconciliation",), ("reconcile",)]


def test_the_audit(flow, engines, run):
    """`audit` describes both actions in words."""
    engine_ledger.position(flow, "oa", to_confirm=2)
    engines("reconcile", "--confirm", "--source", "oa", "--since", "2026-01-01", "--yes")
    shown = run("audit", COLUMNS="200").stdout
    assert "let 2 instances be taken in" in shown
    assert "reconciled with the engine, reading its history since 2026-01-01T00:00:00.000Z" in shown


def test_nothing_to_confirm(flow, engines):
    """Without waiting instances nothing is confirmed, and the reconciliation runs."""
    shown = engines("reconcile", "--confirm", "--source", "oa", "--yes")
    assert (shown.exit_code, shown.stderr) == (0, "No instance waits for a confirmation.\n")
    assert (flow.engines.confirmed, len(flow.engines.rounds)) == ([], 1)


def test_confirm_after_reading(flow, engines):
    """--since with --confirm reads the history first, so that what a dry run has shown can be confirmed."""
    flow.engines.when_called = lambda: engine_ledger.position(flow, "oa", to_confirm=10)
    since = 1_767_225_600_000_000
    shown = engines("reconcile", "--source", "oa", "--since", "2026-01-01T00:00Z", "--confirm", "--yes", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["confirmed"]) == (0, 10)
    assert (flow.engines.rounds, flow.engines.confirmed) == ([("oa", since, False), ("oa", None, False)], ["oa"])


def test_ctrl_c_before_a_confirmation(flow, engines):
    """Ctrl-C while the history is read lets the step finish, and nothing is confirmed, even with --yes."""
    engine_ledger.position(flow, "oa", to_confirm=10)
    flow.engines.when_called = lambda: signal.raise_signal(signal.SIGINT)
    shown = engines("reconcile", "--source", "oa", "--since", "2026-01-01T00:00Z", "--confirm", "--yes")
    assert (shown.exit_code, flow.engines.confirmed) == (130, [])
    assert shown.stderr.endswith("Error: interrupted; no instance was confirmed\n")


def test_confirm_with_an_unreadable_engine(flow, engines):
    """An engine that cannot be read is reported, and nothing is confirmed."""
    flow.engines.results = {"error": "HTTP 401 for /history", "reason": "refused"}
    shown = engines("reconcile", "--source", "oa", "--confirm", "--yes")
    assert (shown.exit_code, shown.stdout.endswith("; stopped: HTTP 401 for /history\n")) == (1, True)
    assert flow.engines.confirmed == []


def test_decline(flow, engines):
    """The waiting instances are declined with the note; without any, or in a dry run, nothing is changed."""
    shown = engines("decline", "--source", "oa", "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "No instance of oa waits for an operator.\n")
    engine_ledger.position(flow, "oa", to_confirm=1200)
    shown = engines("decline", "--source", "oa", "--dry-run")
    assert (shown.exit_code, shown.stdout) == (0, "oa: 1,200 instances would be declined.\n")
    assert engines("decline", "--source", "oa").exit_code == 2  # there is no terminal
    assert flow.engines.declined == []
    shown = engines("decline", "--source", "oa", "--note", "old", "--yes", "--json")
    assert (shown.exit_code, json.loads(shown.stdout)["instances"]) == (0, 1200)
    assert [(source, note) for source, _, note in flow.engines.declined] == [("oa", "old")]


def test_reconcile_declined(flow, engines):
    """--declined is passed on, and needs --since."""
    assert engines("reconcile", "--source", "oa", "--declined").exit_code == 2
    assert engines("reconcile", "--source", "oa", "--since", "2h", "--declined").exit_code == 0
    assert flow.engines.with_declined


def test_close_gaps(flow, engines):
    """The open gaps are closed; without any, or in a dry run, nothing is changed."""
    shown = engines("close-gaps", "--source", "oa", "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "No gap of oa is open.\n")
    now = flow.clock.now()
    engine_ledger.gap(flow, "oa", now - 2 * SECOND, now - SECOND, "deleted")
    assert engines("close-gaps", "--source", "oa", "--dry-run").stdout == "oa: 1 gap would be closed.\n"
    assert engines("close-gaps", "--source", "oa").exit_code == 2  # there is no terminal
    assert "gap " in engines("list").stdout
    shown = engines("close-gaps", "--source", "oa", "--note", "compared", "--yes")
    assert (shown.exit_code, shown.stdout) == (0, "oa: 1 gap closed.\n")
    assert "gap " not in engines("list").stdout


def test_coverage(flow, engines):
    """Uncovered definitions are listed, and the command ends with 1; with --all, everything is listed."""
    stored = engine_ledger.definitions(("leave", 3, "Leave request"), ("travel", 1))
    engine_ledger.position(flow, "oa", definitions=stored, definitions_at=flow.clock.now())
    shown = engines("coverage")
    assert shown.exit_code == 1
    assert "travel v1" in shown.stdout
    assert "no handler listens to it" in shown.stdout
    assert "leave v3" not in shown.stdout
    assert shown.stdout.endswith("2 definitions, 1 not covered.\n")
    assert "shop:grant" in engines("coverage", "--all").stdout
    document = json.loads(engines("coverage", "--json").stdout)
    assert [(definition["key"], definition["covered"]) for definition in document["definitions"]] == [
        ("travel", False),
        ("leave", True),
    ]


def test_fresh_coverage_queries_the_engine(flow, engines):
    """--fresh uses what the engine has now; an engine that does not answer, or was not asked, ends with 1."""
    flow.engines.deployed = [ProcessDefinition(key="leave", version=2)]
    assert engines("coverage").stdout == (
        "The definitions of oa are not known: the engine was not asked yet; --fresh asks it now\n"
    )
    shown = engines("coverage", "--fresh")
    assert (shown.exit_code, shown.stdout) == (0, "1 definition, 0 not covered.\n")
    flow.engines.error = "HTTP 500"
    shown = engines("coverage", "--fresh", "--source", "oa")
    assert (shown.exit_code, shown.stdout) == (1, "The definitions of oa are not known: HTTP 500\n")
    assert engines("coverage", "--source", "hr").exit_code == 2


def test_show(flow, engines):
    """An instance has its row of the book, its event, its late callbacks, and what the engine says."""
    event_id = engine_ledger.taken_in(flow, "oa", LONG_ID)
    engine_ledger.instance(flow, "oa", LONG_ID, event_id=event_id)
    engine_ledger.late_callback(flow, event_id, repeats=2)
    ended = datetime(2026, 1, 1, tzinfo=UTC)
    flow.engines.instances[LONG_ID] = FinishedInstance(id=LONG_ID, ended_at=ended, end_state=EndState.COMPLETED)
    shown = engines("show", LONG_ID, COLUMNS="80")
    assert shown.exit_code == 0
    for words in (
        f"read in the history of oa: has event {event_id}",
        "  ended          2025-12-31 23:55:00, completed", LONG_ID, "and 2 times more",
        "engine oa says: completed at 2026-01-01T00:00:00+00:00.",
    ):  # fmt: skip
        assert words in shown.stdout
    document = json.loads(engines("show", LONG_ID, "--json").stdout)
    assert (document["book"][0]["event_id"], document["events"][0]["id"]) == (event_id, event_id)
    assert document["late_callbacks"][event_id][0]["repeats"] == 2
    assert document["engines"][0]["status"] == "finished"


def test_events_by_origin(flow, run):
    """`events list --origin` limits the list."""
    pulled = engine_ledger.taken_in(flow, "oa", "pulled")
    called = flow.take("called", source="oa", wait=0).event_id
    for origin, event_id in (("reconciled", pulled), ("callback", called)):
        document = json.loads(run("events", "list", "--origin", origin, "--json").stdout)
        assert [(event["id"], event["origin"]) for event in document["events"]] == [(event_id, origin)]


def test_show_an_instance_skipped_or_in_grace(flow, engines):
    """A skipped instance has its rule, and an instance in grace says what it waits for."""
    engine_ledger.instance(flow, "oa", "1", disposition="skipped", rule="tenant")
    engine_ledger.instance(flow, "oa", "2", disposition="in_grace")
    assert "skipped, rule tenant" in engines("show", "1").stdout
    assert "waits for its callback" in engines("show", "2").stdout


def test_show_an_unknown_instance(flow, engines):
    """An unknown instance ends with 1, and the answer of the engine is shown."""
    shown = engines("show", "4711")
    assert (shown.exit_code, shown.stderr) == (1, "Nothing is known of the process instance 4711.\n")
    assert "engine oa says: it does not know the instance" in shown.stdout


def test_show_without_the_engine(flow, engines, monkeypatch):
    """If the engine cannot be asked, the stored data is shown with the reason."""

    def unreachable(*_words, **_more):
        raise ServerUnreachable("the server is stopping")

    engine_ledger.instance(flow, "oa", "1", disposition="skipped", rule="tenant")
    monkeypatch.setattr(operations_client, "run_operation", unreachable)
    shown = engines("show", "1")
    assert (shown.exit_code, shown.stderr) == (0, "The engines were not asked: the server is stopping\n")


def commands():
    """The commands that the messages of alerts about engines name."""
    templates = [value for value in vars(engine_causes).values() if isinstance(value, engine_causes.MessageTemplate)]
    return sorted({text for template in templates for text in re.findall(r"`flowhooks ([^`]+)`", template.text)})


@pytest.mark.parametrize("named", commands())
def test_each_command_of_an_alert_exists(named):
    """Each command that a message names exists, with its options."""
    command, words = main, shlex.split(named.format_map(dict.fromkeys(("quoted", "why", "since"), "x")))
    context = main.make_context("flowhooks", [], resilient_parsing=True)
    while isinstance(command, Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None, named
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
