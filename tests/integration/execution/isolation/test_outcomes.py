"""States of deliveries after the end of their handlers' processes, on a real ledger."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import pytest

from flowhooks import State, hookimpl
from flowhooks.errors import HandlerLost, HandlerRaised
from flowhooks.observability.logging import configure
from flowhooks.settings import HandlerSettings
from support.logging_state import restore_logging  # noqa: F401 (a fixture)
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either

FOLDER = str(Path(__file__).parent / "plugins")


@pytest.fixture
def flow(harness, monkeypatch):
    """An app with the unruly plugin, loaded as a server loads it."""
    monkeypatch.setenv("UNRULY_PASSWORD", "correct horse battery staple")
    return harness.open(
        allow=("unruly",),
        plugins_dirs=(FOLDER,),
        sections={"unruly": {"password": {"env": "UNRULY_PASSWORD"}}},
        runner={"threads": 4},
        handlers={"unruly:in_thread": HandlerSettings(isolation="process")},
    )


def test_outcomes_of_attempts_in_a_process(flow, logged):
    """Each outcome is as in a thread; a crash of the process is lost and follows the handler's options."""
    taken = {
        name: flow.take(name, key=name, wait=0).event_id
        for name in (
            "echo",
            "rejects",
            "asks_again",
            "asks_again_oddly",
            "fails",
            "sys_exits",
            "os_exits_well",
            "may_run_again",
            "has_no_more",
            "writes_to_the_ledger",
            "in_thread",
        )
    }
    wanted = {
        "echo": (State.SUCCEEDED, ""),
        "rejects": (State.DEAD, "not for me"),
        "asks_again": (State.WAITING, "the archive is closed"),
        "asks_again_oddly": (
            State.WAITING,
            (
                "Busy: (its text cannot be read: AttributeError) (its seconds are not a number from 0 to 2592000, so "
                "it counts as any other exception; a subclass of RetryAfter must call super().__init__(seconds, why))"
            ),
        ),
        "fails": (State.DEAD, "LookupError: the password … was refused"),
        "sys_exits": (State.DEAD, "SystemExit: 3"),
        "os_exits_well": (State.UNKNOWN, "its process exited with code 0 without an answer"),
        "may_run_again": (State.WAITING, "its process exited with code 1 without an answer"),
        "has_no_more": (State.DEAD, "its process exited with code 1 without an answer"),
        "in_thread": (State.SUCCEEDED, ""),
    }
    for name, (state, error) in wanted.items():
        delivery_status = flow.settled(taken[name], state, attempt=1)
        assert delivery_status.error == error, name
    assert flow.settled(taken["writes_to_the_ledger"], State.DEAD).error.startswith("TransactionError: ")
    (attempt,) = flow.app.ledger.attempts(flow.only(taken["fails"]).delivery_id)
    assert attempt.traceback.startswith("Traceback (most recent call last):\n  File ")
    assert attempt.traceback.endswith("LookupError: the password … was refused\n")
    (attempt,) = flow.app.ledger.attempts(flow.only(taken["in_thread"]).delivery_id)
    assert int(attempt.result) != os.getpid(), "the operator has the last word"
    outcomes = {record["handler"]: record["outcome"] for record in logged if record["event"] == "attempt_failed"}
    assert outcomes["unruly:os_exits_well"] == "lost"
    assert outcomes["unruly:rejects"] == "rejected"
    flow.advance(10)
    flow.settled(taken["may_run_again"], State.WAITING, attempt=2)


def test_the_reason_of_a_dropped_result_is_stored(flow, logged):
    """The process could not send the result: its attempt has the reason, and so has the log, once."""
    event_id = flow.take("1", key="returns_a_set").event_id
    (attempt,) = flow.app.ledger.attempts(flow.settled(event_id, State.SUCCEEDED).delivery_id)
    assert attempt.result is None
    assert attempt.result_dropped.startswith("handler returns_a_set of plugin unruly returned a value of type set, ")
    assert [record["why"] for record in logged if record["event"] == "result_dropped"] == [attempt.result_dropped]
    event_id = flow.take("2", key="returns_a_deep_list").event_id
    (attempt,) = flow.app.ledger.attempts(flow.settled(event_id, State.SUCCEEDED).delivery_id)
    assert "nested" in attempt.result_dropped


@pytest.mark.parametrize(
    ("how", "state"), [("returns", State.SUCCEEDED), ("raises", State.DEAD), ("exits", State.UNKNOWN)]
)
def test_the_records_of_an_isolated_handler_are_stored(flow, restore_logging, how, state):  # noqa: F811 (the fixture)
    """All that arrived before the result, those of its threads, too, however its process ends."""
    configure("info", "text", io.StringIO())
    event_id = flow.take("1", key="logs_and_ends", how=how).event_id
    (attempt,) = flow.app.ledger.attempts(flow.settled(event_id, state).delivery_id)
    lines = [line.partition(" ")[2] for line in attempt.log.split("\n")]
    assert lines == [
        "earlier records left out)",
        *(f"warning unruly: record {number}" for number in range(151, 200)),
        r"warning unruly: of a thread\u001b[2J, …",
    ]
    assert attempt.log.startswith("(151 ")


def test_responses_report_a_crash(flow):
    """After a crash the answer has the state *unknown*, or dead if `retry=` has no attempt left."""
    # The first one waits for the start of the fork server.
    assert flow.take("1", key="os_exits", wait=WAIT_TIMEOUT).delivery_statuses[0].state is State.UNKNOWN
    assert flow.take("2", key="has_no_more").delivery_statuses[0].state is State.DEAD


def test_a_probe_runs_in_a_process_after_a_crash(flow, logged, eventually):
    """The probe runs in a process after the crash of its handler; if it crashes too, the delivery stays *unknown*."""
    done = flow.take("1", key="can_tell", done=True).event_id
    flow.settled(done, State.SUCCEEDED)
    asked = flow.take("2", key="cannot_be_asked", wait=0).event_id
    eventually(lambda: [record for record in logged if record["event"] == "probe_failed"])
    assert flow.only(asked).state is State.UNKNOWN


def test_a_crash_uses_no_attempt_of_another_delivery(flow):
    """Among deliveries of crashing and normal handlers, each has its own outcome, once."""
    taken = [flow.take(str(number), key=("nothing", "os_exits")[number % 2], wait=0).event_id for number in range(20)]
    for number, event_id in enumerate(taken):
        flow.settled(event_id, (State.SUCCEEDED, State.UNKNOWN)[number % 2], attempt=1)


def test_an_attempt_killed_at_shutdown_is_recorded_as_lost(harness, flow, tmp_path, eventually, monkeypatch):
    """After the shutdown timeout the process is killed, and the attempt is recorded as lost before the next start."""
    mark = tmp_path / "mark"
    event_id = flow.take("1", key="waits_for", wait=0, mark=str(mark), go_on=str(tmp_path / "never")).event_id
    eventually(mark.exists)
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", WAIT_TIMEOUT)  # the end of the process takes time to be recorded
    assert flow.close(0) is False
    again = harness.open(start=False)
    delivery_status = again.only(event_id)
    assert delivery_status.state is State.UNKNOWN
    assert delivery_status.error == "killed because the server has stopped"


def test_shutdown_waits_for_an_isolated_handler(harness, flow, tmp_path, eventually):
    """Shutdown waits for an isolated handler as for a handler in a thread."""
    mark, go_on = tmp_path / "mark", tmp_path / "go_on"
    event_id = flow.take("1", key="waits_for", wait=0, mark=str(mark), go_on=str(go_on)).event_id
    pid = int(eventually(lambda: mark.exists() and mark.read_text()))
    os.kill(pid, signal.SIGTERM)
    go_on.touch()
    assert flow.close() is True
    again = harness.open(start=False)
    assert again.only(event_id).state is State.SUCCEEDED
    (attempt,) = again.app.ledger.attempts(again.only(event_id).delivery_id)
    assert json.loads(attempt.result) == "went on"


def test_metrics_of_processes(flow, eventually):
    """Metrics have the number of processes and the reasons for their ends."""
    flow.take("1", key="os_exits")
    flow.take("2", key="nothing")

    def counted():
        text = flow.app.metrics.text().decode()
        ended = 'flowhooks_handler_processes_ended_total{reason="crashed"} 1.0' in text
        return ended and 'flowhooks_attempts_total{handler="unruly:os_exits",outcome="lost"} 1.0' in text and text

    text = eventually(counted)
    (alive,) = [line for line in text.splitlines() if line.startswith("flowhooks_handler_processes ")]
    assert 1 <= float(alive.split()[1]) <= 4


def test_handlers_given_as_objects_run_in_threads(harness, listens):
    """Plugins passed as objects run in this process, because no other process can load them."""
    flow = harness.open(listens(lambda event: os.getpid(), name="mine", isolation="process"))
    event_id = flow.take("1").event_id
    (attempt,) = flow.app.ledger.attempts(flow.settled(event_id, State.SUCCEEDED).delivery_id)
    assert int(attempt.result) == os.getpid()


def test_wrappers_stay_in_the_server(harness, make_plugin):
    """Wrappers run in the server around the process; a lost attempt stays lost, whatever exception they raise."""
    seen = []

    @hookimpl(wrapper=True)
    def run_handler(handler, event, delivery):
        seen.append((handler.id, os.getpid()))
        try:
            return (yield)
        except HandlerRaised as error:
            seen.append(error.name)
            raise
        except HandlerLost as error:
            raise ValueError("in other words") from error

    flow = harness.open(
        plugins={"wraps": make_plugin(run_handler=run_handler)}, allow=("unruly",), plugins_dirs=(FOLDER,)
    )
    failed = flow.take("1", key="fails").event_id
    lost = flow.take("2", key="os_exits").event_id
    assert flow.settled(failed, State.DEAD).error.startswith("LookupError: ")
    assert flow.settled(lost, State.UNKNOWN).error == "its process exited with code 3 without an answer"
    assert seen == [("unruly:fails", os.getpid()), "LookupError", ("unruly:os_exits", os.getpid())]


def test_deliveries_of_a_plugin_that_only_the_server_loads_wait(harness, tmp_path):
    """Deliveries of a plugin that only the server can load wait, with or without `retry=`, and use no attempt."""
    (tmp_path / "half.py").write_text(
        f"""
import os
from flowhooks import handler, hookimpl

@handler(process_key="half", isolation="process")
def half(event):
    return 1

@hookimpl
def handlers():
    return [half]

if os.getpid() != {os.getpid()}:
    raise OSError("only one may have it")
"""
    )
    flow = harness.open(allow=("half",), plugins_dirs=(str(tmp_path),))
    delivery_status = flow.settled(flow.take("1", key="half", wait=0).event_id, State.WAITING, attempt=1)
    assert delivery_status.error.startswith("no process could be started for the handler: plugin 'half'")
    assert "only one may have it" in delivery_status.error
