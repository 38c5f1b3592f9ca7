"""A whole app without HTTP: known handlers, the lock, failing starts, and the end."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import stat
import sys
import threading
import traceback
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from flowhooks import OutcomeKind, Retry, State
from flowhooks.app import App
from flowhooks.errors import IdentityConflict, InvalidTransition, LedgerUnusable, SettingsError, Unavailable
from flowhooks.intake.callback import AnswerStatus, Callback
from flowhooks.ledger.deliveries import StateChange, apply_changes
from flowhooks.ledger.lock import Lock, publish_admin_address
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.operations.registration import register_new
from flowhooks.operations.reroute import reroute_parked
from flowhooks.operations.retire import retire
from flowhooks.settings import IdentitySettings, RoutingSettings, Settings
from support.run_bulk import replay
from support.waiting import WAIT_TIMEOUT, until


def nothing(event):
    """Do nothing."""


def names(logged):
    """The event names of the log records."""
    return [entry["event"] for entry in logged]


@pytest.mark.sqlite
def test_a_missing_handler_still_gets_its_deliveries(harness, listens, logged):
    """When a plugin is missing at a start, its events are still routed to it, and run when it is back."""
    runs = []
    listener = listens(lambda event: runs.append(event.flow_instance_id), name="h")
    harness.open(listener, start=False).close()
    without = harness.open()
    assert [entry["handler"] for entry in logged if entry["event"] == "handler_missing"] == ["p:h"]
    event_id = without.take().event_id
    assert without.only(event_id).state is State.WAITING
    assert without.app.ledger.event(event_id).route == {"p:h": "key leave"}
    without.close()
    back = harness.open(listener)
    back.settled(event_id, State.SUCCEEDED)
    assert runs == ["i1"]
    assert names(logged).count("handler_missing") == 1


@pytest.mark.sqlite
def test_handlers_of_a_denied_plugin_can_be_retired(harness, listens, make_plugin, logged):
    """Its handlers get deliveries, which wait, and the start says how to retire them; then they get none."""
    plugin = make_plugin(listens(nothing, name="h"))
    harness.open(plugins={"p": plugin}, start=False).close()
    denied = harness.open(plugins={"p": plugin}, plugins_deny=("p",))
    (warning,) = [entry for entry in logged if entry["event"] == "handler_missing"]
    assert warning["handler"] == "p:h"
    assert warning["why"] == "the settings exclude its plugin; its deliveries wait"
    assert "`flowhooks plugins uninstall p --handler h`" in warning["next"]
    assert denied.only(denied.take().event_id).state is State.WAITING
    assert retire(denied.app.operation_context, ["p:h"]).handlers == ("p:h",)
    denied.close()
    again = harness.open(plugins={"p": plugin}, plugins_deny=("p",))
    assert again.app.ledger.event(again.take("i2").event_id).route == {}
    assert names(logged).count("handler_missing") == 1


@pytest.mark.sqlite
def test_handlers_of_a_quarantined_plugin_still_get_deliveries(harness, listens, make_plugin, logged):
    """A plugin that fails to load counts as missing: its deliveries wait until it is fixed."""
    runs = []
    good = make_plugin(listens(lambda event: runs.append(1), name="h"))
    harness.open(plugins={"p": good}, start=False).close()

    def refuses(settings):
        raise RuntimeError("no such server")

    bad = make_plugin(listens(lambda event: runs.append(1), name="h"), configure=refuses)
    flow = harness.open(plugins={"p": bad, "other": make_plugin(listens(nothing, process_key="k"))})
    assert {"plugin_quarantined", "handler_missing"} <= set(names(logged))
    answer = flow.take()
    assert (answer.status, answer.delivery_statuses[0].handler) == ("pending", "p:h")
    assert flow.take("i2", key="k").status == "done"
    flow.close()
    repaired = harness.open(plugins={"p": good})
    repaired.settled(answer.event_id, State.SUCCEEDED)
    assert runs == [1]


@pytest.mark.sqlite
def test_a_replayed_delivery_of_a_missing_handler_waits(harness, listens):
    """A replayed delivery of a missing handler waits without a due time."""

    def fails(event):
        raise ValueError("x")

    first = harness.open(listens(fails, name="h"))
    event_id = first.take().event_id
    first.close()
    without = harness.open()
    assert replay(without.app.operation_context).released == 1
    assert (without.only(event_id).state, without.only(event_id).due_at) == (State.WAITING, None)
    without.close()
    again = harness.open(listens(nothing, name="h"))
    again.settled(event_id, State.SUCCEEDED, attempt=2)


@pytest.mark.sqlite
def test_a_delivery_of_an_unknown_handler_is_not_started(harness, listens):
    """A replayed delivery whose handler the ledger does not know is not left running."""

    def fails(event):
        raise ValueError("x")

    first = harness.open(listens(fails, name="h"))
    event_id = first.take().event_id
    first.close()
    first.sql("DELETE FROM handlers")
    flow = harness.open(listens(nothing, name="other", process_key="k"))
    assert flow.app.operation_context.missing_handlers == set()
    assert flow.take("i2").status == "parked"
    replay(flow.app.operation_context, EventFilter(ids=(event_id,)))
    delivery_status = flow.settled(event_id, State.WAITING, attempt=2)
    assert (delivery_status.due_at, delivery_status.outcome) == (None, OutcomeKind.FAILED)
    assert "no loaded plugin has this handler" in delivery_status.error


def test_a_command_registers_no_handler(harness, listens, make_plugin):
    """It may have other plugins than the servers. Only without any server on the ledger it routes to them."""
    before = harness.open(listens(nothing, name="h", process_key="other", retry=Retry()), start=False)
    event_id = before.take(wait=0).event_id
    retire(before.app.operation_context, ["p:h"])
    before.close()
    registered = before.sql("SELECT * FROM handlers")
    others = (listens(nothing, name="h", process_key="other"), listens(nothing, name="new"))
    settings, plugins = harness.settings(allow=("p",)), {"p": make_plugin(*others)}
    command = App(settings, clock=harness.clock, objects=plugins, entry_points=(), run=(), kind="command")
    with closing(command):
        assert reroute_parked(command.operation_context).delivered == (0 if harness.url else 1)
        register_new(command.ledger, command.plugins, command.registration, harness.clock.now())
    assert before.sql("SELECT * FROM handlers WHERE id = 'p:h'") == registered
    assert before.sql("SELECT id FROM handlers ORDER BY id") == [("p:h",), *([] if harness.url else [("p:new",)])]
    harness.open(*others).settled(event_id, State.SUCCEEDED)


@pytest.mark.sqlite
def test_a_second_process_on_a_database_is_refused(harness, listens):
    """A second process on the same file is refused with the first one's name, and does not disturb it."""
    flow = harness.open(listens(nothing))
    publish_admin_address(flow.app.lock, "http://127.0.0.1:8081", "secret")
    with pytest.raises(
        LedgerUnusable, match=r"in use by process \d+, whose administration is at http://127"
    ) as refusal:
        harness.open(listens(nothing))
    assert "secret" not in str(refusal.value)
    assert flow.take().status == "done"
    flow.close()
    assert harness.open(listens(nothing)).take("i2").status == "done"


@pytest.mark.sqlite
def test_a_link_to_the_database_is_the_same_database(harness, listens, tmp_path):
    """The file is also locked under another name."""
    harness.open(listens(nothing))
    link = tmp_path / "link.db"
    link.symlink_to(harness.file)
    with pytest.raises(LedgerUnusable, match="in use"):
        App(Settings(database=str(link), plugins_allow=("none",)))


@pytest.mark.sqlite
def test_only_the_owner_can_read_the_lock_file(harness):
    """Only the owner can read the file with the administration token; others read the owner from it."""
    flow = harness.open()
    publish_admin_address(flow.app.lock, "http://127.0.0.1:1", "token")
    lock = Lock(harness.file)
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    assert lock.owner().admin == "http://127.0.0.1:1"


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda file: file.write_text("a text that is no database" * 100), "no SQLite database"),
        (lambda file: run(file, "UPDATE alembic_version SET version_num = '9999'"), "newer flowhooks"),
        (lambda file: (file.unlink(), run(file, "CREATE TABLE users (id)")), "not a flowhooks ledger"),
        (
            lambda file: run(
                file, "CREATE TRIGGER t BEFORE INSERT ON processes BEGIN SELECT RAISE(ABORT, 'no room'); END"
            ),
            "no room",
        ),
        (
            lambda file: run(
                file, "CREATE TRIGGER t BEFORE INSERT ON handlers BEGIN SELECT RAISE(ABORT, 'no room'); END"
            ),
            "no room",
        ),
    ],
    ids=["no database", "newer", "foreign", "cannot sign on", "cannot remember handlers"],
)
def test_a_failed_start_releases_lock_threads_and_connections(harness, listens, prepare, error):
    """An unusable part is reported in one line with its cause, and no lock, thread or connection stays."""
    harness.check_at_end = False
    prepare(harness.file)
    before = set(threading.enumerate())
    with pytest.raises(LedgerUnusable, match=error) as refusal:
        harness.open(listens(nothing))
    assert "\n" not in str(refusal.value)
    assert str(harness.file) in str(refusal.value)
    lock = Lock(harness.file)
    assert lock.acquire()
    lock.release()
    assert set(threading.enumerate()) <= before


def run(file, statement):
    """Run a statement on a database file."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_start_with_unusable_settings_releases_the_lock(harness, tmp_path):
    """After a start with a missing folder in the settings, the database can be opened."""
    with pytest.raises(SettingsError):
        harness.open(plugins_dirs=(str(tmp_path / "none"),))
    harness.open()


@pytest.mark.parametrize("where", ["none/f.db", "f.db/f.db"])
def test_the_error_names_a_missing_folder(tmp_path, where):
    """A database in a missing folder is refused before any file is created."""
    (tmp_path / "f.db").write_text("")
    with pytest.raises(LedgerUnusable, match="does not exist"):
        App(Settings(database=str(tmp_path / where), plugins_allow=("none",)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.db"]


def test_a_file_name_with_special_characters(tmp_path):
    """Blanks, percent signs and Chinese belong to the file's name."""
    file = tmp_path / "流程 50%20#?.db"
    app = App(Settings(database=str(file), plugins_allow=("none",)))
    app.close()
    assert file.exists()
    assert {Path(path).suffix for path in map(str, tmp_path.iterdir())} == {".db", ".lock"}


def test_a_second_close_does_nothing(harness, listens):
    """A second close does nothing."""
    flow = harness.open(listens(nothing))
    flow.take()
    assert flow.close() is True
    assert flow.close() is True


@pytest.mark.sqlite
def test_a_close_releases_the_lock_despite_a_write_error(harness, listens):
    """The lock is released even if the database cannot be written at the end."""
    flow = harness.open(listens(nothing))
    flow.take()
    flow.sql("CREATE TRIGGER t BEFORE UPDATE ON processes BEGIN SELECT RAISE(ABORT, 'no'); END")
    flow.close()
    lock = Lock(harness.file)
    assert lock.acquire()
    lock.release()
    flow.sql("DROP TRIGGER t")


def test_a_failing_step_of_the_close_does_not_skip_later_steps(harness, listens, monkeypatch):
    """If a step of the close fails, each later step is executed, up to the ledger and its lock."""
    flow = harness.open(listens(nothing))
    app, done = flow.app, []
    steps = {"isolation": "close", "file_watch": "stop", "cluster": "stop", "notifier": "stop", "alerts": "stop"}
    steps |= {"rejected_requests": "stop", "retention": "stop", "ledger": "close"}
    present = [name for name in steps if getattr(app, name) is not None]

    def failing(name, stop):
        def stops_and_fails(*given):
            stop(*given)
            done.append(name)
            raise RuntimeError(f"{name} failed")

        return stops_and_fails

    for name in present:
        service = getattr(app, name)
        monkeypatch.setattr(service, steps[name], failing(name, getattr(service, steps[name])))
    with pytest.raises(RuntimeError, match="ledger failed"):
        flow.close()
    assert done == present
    assert flow.sql("SELECT count(*) FROM processes WHERE stopped_at IS NULL") == [(0,)]
    if app.lock is not None:
        lock = Lock(harness.file)
        assert lock.acquire()
        lock.release()


def test_an_app_does_not_store_ended_reload_threads(harness, listens, eventually, monkeypatch):
    """An app does not keep the ended threads of its reloads."""
    flow = harness.open(listens(nothing), start=False)
    monkeypatch.setattr(flow.app._parked_rerouter, "_repeat_delay", 0.0)
    for number in range(10):
        eventually(
            lambda: (
                not [
                    thread
                    for thread in flow.app._threads._threads
                    if thread.name == "reroute-parked" and thread.is_alive()
                ]
            )
        )
        ignored = RoutingSettings(ignore_process_keys=(f"none{number}",))
        flow.app.reload(replace(flow.app.settings, routing=ignored))
    assert len([thread for thread in flow.app._threads._threads if thread.name == "reroute-parked"]) == 1


def test_an_app_that_was_not_started_can_be_closed(harness):
    """An app that was opened and not started leaves nothing after its close."""
    assert harness.open(start=False).close() is True


def test_the_ledger_stores_starts_and_ends_of_processes(harness):
    """The ledger stores which processes started and which ended in order."""
    harness.open().close()
    harness.clock.advance(5)
    harness.open()
    rows = harness.opened[-1].sql("SELECT started_at, stopped_at FROM processes ORDER BY id DESC LIMIT 2")
    assert rows[0] == (harness.clock.now(), None)
    assert rows[1][1] == harness.clock.now() - 5_000_000


def test_a_working_server_reports_no_trouble(harness, listens):
    """A server that can accept and run callbacks reports no problem; a stopping one does."""
    flow = harness.open(listens(nothing))
    flow.take()
    assert flow.app.readiness_problems() == []
    flow.app.begin_shutdown()
    assert flow.app.readiness_problems() == ["the server is stopping"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_runner_ended_by_an_exception_is_trouble(harness, listens, monkeypatch, eventually):
    """A server whose runner was ended by an exception is not ready."""
    flow = harness.open(listens(nothing), start=False)
    monkeypatch.setattr(flow.app.runner, "run", lambda execute, stop: 1 / 0)
    flow.app.start()
    (problem,) = eventually(flow.app.readiness_problems)
    assert problem == "deliveries cannot be run: ZeroDivisionError has ended the thread runner; restart the server"


def test_trouble_ends_once_the_database_can_be_written(harness, listens, monkeypatch, eventually):
    """The problem of a failed write ends once the database can be written, without any callback."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    # Not started: on PostgreSQL, its services could write to tables that are not locked, which would end the problem.
    flow = harness.open(listens(nothing), start=False)
    with flow.locked():
        with pytest.raises(Unavailable):
            flow.take()
        assert flow.app.readiness_problems()
        assert flow.app.readiness_problems()
    eventually(lambda: flow.app.readiness_problems() == [])


@pytest.mark.sqlite
def test_too_little_disk_space_for_a_callback_is_trouble(harness, listens):
    """Too little disk space for a callback is a problem, even if small writes succeed."""
    flow = harness.open(listens(nothing), http={"max_body_bytes": 1 << 60})
    flow.take()
    (found,) = flow.app.readiness_problems()
    assert re.fullmatch(r"the disk of the database has \d+ KiB left; free some space", found)


def test_a_refused_operation_is_no_trouble(harness, listens):
    """A refused operation is no problem of the database."""
    flow = harness.open(listens(nothing))
    answer = flow.take()
    delivery_id = answer.delivery_statuses[0].delivery_id
    with pytest.raises(InvalidTransition):
        flow.app.ledger.write(
            lambda transaction: apply_changes(
                transaction, [StateChange(delivery_id, State.CLOSED, State.RUNNING, 1, 1)]
            )
        )
    assert flow.app.readiness_problems() == []


def test_acknowledged_callbacks_are_stored_after_a_crash(harness, listens):
    """Acknowledged callbacks are stored after a crash, and run at the next start."""
    runs = []
    listener = listens(lambda event: runs.append(event.flow_instance_id), name="h", retry=Retry())
    flow = harness.open(listener, start=False)
    taken = [flow.take(f"i{number}", wait=0).event_id for number in range(20)]
    harness.crash(flow)
    second = harness.open(listener)
    for event_id in taken:
        second.settled(event_id, State.SUCCEEDED)
    assert sorted(runs) == sorted(f"i{number}" for number in range(20))


def test_a_read_only_app_needs_no_lock(harness, listens):
    """A read-only app needs no lock."""
    flow = harness.open(listens(nothing))
    flow.take()
    reader = Reader(harness.address)
    try:
        assert reader.verify().is_consistent
    finally:
        reader.close()


@pytest.mark.postgresql
def test_a_process_routes_to_handlers_loaded_by_other_processes(harness, listens, logged, eventually):
    """A process learns of new handlers without a restart, delivers their parked events, and forgets retired ones."""
    quick = {"ledger": {"heartbeat_timeout": 3.0}}
    taking = harness.open(**quick)
    early = taking.take(wait=0)
    assert early.status is AnswerStatus.PARKED
    working = harness.open(listens(nothing, name="h"), start=False, **quick)
    eventually(lambda: taking.delivery_statuses(early.event_id))
    assert taking.take("i2", wait=0).status is AnswerStatus.PENDING
    working.app.start()
    taking.settled(early.event_id, State.SUCCEEDED)
    assert working.close()
    retire(taking.app.operation_context, ["p:h"])
    changes = eventually(
        lambda: len(found := [record for record in logged if record["event"] == "routes_changed"]) > 1 and found
    )
    assert [change["others"] for change in changes] == [1, 0]
    assert taking.take("i3", wait=0).status is AnswerStatus.PARKED


@pytest.mark.postgresql
def test_a_process_runs_only_handlers_that_match_its_patterns(harness, listens, make_plugin, eventually):
    """A process runs only the loaded handlers that match its patterns; with none there is no thread."""
    both = [listens(nothing, name=name) for name in ("one", "other")]
    objects = {"p": make_plugin(*both)}
    settings = harness.settings(allow=("p",))
    apps = [App(settings, clock=harness.clock, objects=objects, run=run) for run in ((), ("p:o*r",))]
    try:
        assert [set(app.runs) for app in apps] == [set(), {"p:other"}]
        for app in apps:
            app.start()
        assert [any(thread.name == "runner" for thread in app._threads._threads) for app in apps] == [False, True]
        call_back = Callback(
            source="default",
            kind="complete",
            flow_instance_id="i",
            body={"processDefinitionKey": "leave"},
            text='{"processDefinitionKey": "leave"}',
        )
        event_id = apps[0].intake.accept(call_back, wait=0).event_id
        eventually(
            lambda: (
                {
                    delivery_status.handler: delivery_status.state
                    for delivery_status in apps[0].ledger.delivery_statuses(event_id)
                }
                == {"p:one": State.WAITING, "p:other": State.SUCCEEDED}
            )
        )
    finally:
        for app in apps:
            assert app.close(20)


def test_a_callback_uses_the_settings_that_accepted_the_request(harness, listens):
    """A request accepted before the change uses the old settings, a later one the new settings."""
    flow = harness.open(listens(nothing))
    intake, before = flow.app.intake, flow.app.intake.config
    changed = replace(
        flow.app.settings,
        identity=IdentitySettings(ignore_pointers=("/at",)),
        routing=RoutingSettings(ignore_process_keys=("none",)),
    )
    flow.app.reload(changed)

    def taken(instance, rules, **body):
        body = {"processDefinitionKey": "none"} | body
        call_back = Callback(
            source="default", kind="complete", flow_instance_id=instance, body=body, text=json.dumps(body)
        )
        return intake.accept(call_back, wait=0, config=rules).status

    assert taken("i1", before, at=1) is AnswerStatus.PARKED
    assert taken("i2", None, at=1) is AnswerStatus.DONE
    assert taken("i2", None, at=2) is AnswerStatus.DONE
    with pytest.raises(IdentityConflict):
        taken("i2", before, at=2)
    assert flow.app.intake.config.settings is flow.app.settings is changed


@pytest.mark.sqlite
def test_a_signal_is_handled_during_the_wait_for_running_handlers(harness, listens):
    """A signal that another thread receives during the wait is handled at once, as a second Ctrl-C must be."""
    entered, go = threading.Event(), threading.Event()

    def waits(event):
        entered.set()
        go.wait(WAIT_TIMEOUT)

    flow = harness.open(listens(waits))
    flow.take(wait=0)
    assert entered.wait(WAIT_TIMEOUT)
    main, frames = threading.main_thread().ident, sys._current_frames

    def kill():
        until(lambda: any(frame.f_code.co_name == "join" for frame, _ in traceback.walk_stack(frames()[main])))
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: go.set())
    killing = threading.Thread(target=kill)
    killing.start()
    try:
        assert flow.close(WAIT_TIMEOUT / 2), "the handler of the signal did not run during the wait"
    finally:
        go.set()
        killing.join()
        signal.signal(signal.SIGUSR1, before)
