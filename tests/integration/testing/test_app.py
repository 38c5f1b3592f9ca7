"""A real flowhooks for a plugin's tests: its calls, its answers, and its errors for wrong tests."""

from __future__ import annotations

import logging
import sqlite3
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from types import SimpleNamespace

import flowhooks_contracts
import pytest

from flowhooks import FlowhooksError, OutcomeKind, Reject, Retry, State, handler, hookimpl
from flowhooks.app import App
from flowhooks.observability.logging import AttemptLogHandler
from flowhooks.testing import AppHarness, make_event
from support.waiting import WAIT_TIMEOUT


@pytest.fixture
def app_of(clock, tmp_path_factory):
    """Make an `AppHarness`; all are closed at the end."""
    made = []

    def make(*plugins, **given):
        made.append(AppHarness(*plugins, clock=clock_of(given), folder=tmp_path_factory.mktemp("app"), **given))
        return made[-1]

    def clock_of(given):
        return given.pop("clock", None)

    yield make
    for app in made:
        app.close()


def problems(logged):
    """The warnings and errors of a log, without the one of each new ledger."""
    return [
        entry for entry in logged if entry["log_level"] in {"warning", "error"} and entry["event"] != "ledger_created"
    ]


def test_installed_plugins_are_not_loaded(app_of, make_plugin, logged):
    """Only given plugins are loaded, even if the tested plugin is installed, too."""
    alerts = []

    def alert_raised(alert):
        alerts.append(alert)

    given = {entry_point.name: make_plugin() for entry_point in entry_points(group="flowhooks")}
    assert given
    app = app_of(names={**given, "listener": make_plugin(alert_raised=alert_raised)})
    assert {(plugin_info.name, plugin_info.origin, plugin_info.state) for plugin_info in app.app.plugins.infos} == {
        (name, "object", "loaded") for name in (*given, "listener")
    }
    app.app.alerts.poll()
    assert alerts == []
    assert problems(logged) == []


def test_an_app_without_plugins_parks_events_without_a_warning(app_of, logged):
    """An app without plugins parks events, and logs nothing to investigate."""
    app = app_of()
    assert app.post("17", processDefinitionKey="leave").status == 202
    assert problems(logged) == []


SILENT = OSError("payroll does not answer")


def failing(times, error=SILENT, **given):
    """A handler that fails a number of times, and counts its attempts in `attempts`."""
    attempts = []

    @handler(process_key="leave", name="grant", **given)
    def grant(event):
        """Grant it."""
        attempts.append(event.flow_instance_id)
        if len(attempts) <= times:
            raise error
        return {"granted": len(attempts)}

    return grant, attempts


def test_a_callback_is_answered_delivered_and_stored(app_of):
    """The answer is as for an engine; delivery, event and result are as in the ledger."""
    grant, attempts = failing(0)
    app = app_of(grant)
    answer = app.post("17", processDefinitionKey="leave", businessKey="L-1")
    assert (answer.status, answer.json, answer.message) == (200, {"success": True}, "")
    assert answer.headers["flowhooks-event"] == answer.event_id
    (delivery,) = app.deliveries(answer.event_id)
    assert delivery == app.delivery(answer.event_id, "grant") == app.delivery(answer.event_id, "handlers:grant")
    assert (delivery.handler, delivery.state, delivery.attempt) == ("handlers:grant", "succeeded", 1)
    assert (delivery.outcome, delivery.result, delivery.due_at) == (OutcomeKind.SUCCEEDED, {"granted": 1}, None)
    assert app.event(answer.event_id).business_key == "L-1"
    assert app.events() == (app.event(answer.event_id),)
    assert attempts == ["17"]


def test_the_log_of_the_last_attempt(app_of, caplog):
    """It has the records at the level of the test's log; each app has its own."""

    @handler(process_key="leave", retry=Retry(attempts=2))
    def grant(event, delivery):
        logger = logging.getLogger("leave")
        logger.info("%s in attempt %d", event.flow_instance_id, delivery.attempt)
        logger.debug("not logged")
        if event.flow_instance_id == "1":
            raise ValueError("no")

    caplog.set_level("INFO")
    apps = [app_of(grant), app_of(grant)]
    first = apps[0].post("1", processDefinitionKey="leave")
    second = apps[1].post("2", processDefinitionKey="leave")
    assert apps[0].wait_for(first, "waiting", attempt=1).log.endswith("Z info leave: 1 in attempt 1")
    assert apps[1].wait_for(second).log.endswith("Z info leave: 2 in attempt 1")
    apps[0].settle()
    log = apps[0].delivery(first).log
    assert log.endswith("Z info leave: 1 in attempt 2")
    assert "\n" not in log
    for app in apps:
        app.close()
    assert not [
        log_handler for log_handler in logging.getLogger().handlers if isinstance(log_handler, AttemptLogHandler)
    ]


def test_a_body_rejected_by_the_schema_gets_the_engines_response(app_of):
    """A body that the schema refuses has no event, and gets the reason in the requested language."""
    app = app_of(failing(0)[0])
    answer = app.post("17", processDefinitionVersion="three", headers={"Accept-Language": "zh"})
    assert (answer.status, answer.event_id) == (422, "")
    assert "类型应为" in answer.message
    assert app.post("a\x07b").status == 422
    assert app.post("17", kind="cancelled").status == 404
    assert app.events() == ()


def test_methods_accept_a_callback_result_or_an_event_id(app_of):
    """Each method takes the result of `post` as well as an id, and says if nothing was stored."""
    grant, _ = failing(0)
    app = app_of(grant)
    answer = app.post("17", processDefinitionKey="leave")
    assert app.wait_for(answer) == app.wait_for(answer.event_id, "succeeded") == app.delivery(answer)
    assert app.deliveries(answer) == (app.delivery(answer),)
    assert app.event(answer) == app.event(answer.event_id)
    assert app.why_not(answer) == ""
    app.settle(answer)
    with pytest.raises(AssertionError, match=r"no event was stored for this callback: it was answered 422: .*integer"):
        app.wait_for(app.post("18", processDefinitionVersion="three"))


def test_a_retry_runs_when_the_clock_is_moved(app_of):
    """The answer does not wait for a future time; the retry runs once the clock is moved to it."""
    grant, attempts = failing(1, retry=Retry())
    app = app_of(grant)
    answer = app.post("17", processDefinitionKey="leave")
    assert answer.status == 202
    delivery = app.wait_for(answer.event_id, "waiting")
    assert (delivery.attempt, delivery.outcome, delivery.error) == (1, "failed", "OSError: payroll does not answer")
    assert "raise error" in delivery.traceback
    assert delivery.due_at == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
    app.advance(seconds=4.9)
    app.advance(seconds=0.1)
    assert app.wait_for(answer.event_id, "succeeded").attempt == 2
    assert len(attempts) == 2
    assert app.post("17", processDefinitionKey="leave").status == 200
    assert len(attempts) == 2


def test_settle_runs_all_attempts(app_of):
    """`settle` moves from one due time to the next, and runs all attempts of failing and other handlers."""
    never, attempts = failing(99, retry=Retry(attempts=4))
    app = app_of(never)
    answers = [app.post(str(number), processDefinitionKey="leave") for number in range(2)]
    app.settle(answers[0].event_id)
    assert app.delivery(answers[0].event_id).state is State.DEAD
    app.settle()
    assert {app.delivery(answer.event_id).state for answer in answers} == {State.DEAD}
    assert len(attempts) == 8


def test_settle_moves_the_clock_for_a_rate_limited_handler(app_of):
    """An answer does not wait for a time that a rate allows; the reason is named; `settle` moves the clock to it."""
    runs = []

    @handler(process_key="leave", rate="1/m")
    def grant(event):
        runs.append(event.flow_instance_id)

    app = app_of(grant)
    answers = [app.post(str(number), processDefinitionKey="leave") for number in range(2)]
    assert [answer.status for answer in answers] == [200, 202]
    with pytest.raises(AssertionError, match="the rate of its handler allows the next attempt in 60 seconds"):
        app.wait_for(answers[1], "succeeded")
    app.advance(minutes=1)
    app.wait_for(answers[1], "succeeded")
    # Not earlier: of two deliveries that are due, either may start.
    assert app.post("2", processDefinitionKey="leave").status == 202
    began = app.clock.now()
    app.settle()
    assert runs == ["0", "1", "2"]
    assert app.clock.now() == began + 60_000_000


@pytest.fixture
def blocked(app_of):
    """Two events of one business key, the first of which failed and waits: the app, both answers, the attempts."""
    grant, attempts = failing(1, order_by="business_key", retry=Retry(jitter=0))
    app = app_of(grant)
    return app, *(app.post(name, processDefinitionKey="leave", businessKey="B") for name in ("1", "2")), attempts


@pytest.mark.parametrize("which", [(), (0,), (1,), (0, 1)], ids=["all", "first", "second", "both"])
def test_settle_runs_blocked_deliveries_of_an_ordered_handler(blocked, which):
    """The clock moves to the first delivery's retry, and the blocked one runs after it."""
    app, first, second, attempts = blocked
    assert app.delivery(second.event_id).blocked_by == first.event_id
    app.settle(*([first, second][number].event_id for number in which))
    app.wait_for(first.event_id, "succeeded")
    app.wait_for(second.event_id, "succeeded")
    assert attempts == ["1", "1", "2"]
    assert app.clock.time == datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC).timestamp() * 1_000_000
    assert app.delivery(second.event_id).blocked_by is None


def test_waiting_for_a_blocked_delivery_reports_the_blocking_event(blocked):
    """Waiting for a blocked delivery fails at once, with the blocking event and the time to move the clock."""
    app, first, second, attempts = blocked
    message = rf"in attempt 0: it is blocked by event {first.event_id}, which is waiting: .* in 5 seconds"
    with pytest.raises(AssertionError, match=message + r".*call advance\(5\)"):
        app.wait_for(second.event_id, "succeeded")
    app.advance(5)
    app.wait_for(second.event_id, "succeeded")
    assert attempts == ["1", "1", "2"]


def test_settle_ends_if_an_unknown_delivery_blocks_another(app_of):
    """A delivery blocked by one that needs an operator stays blocked, and the message says why."""
    entered, go_on = threading.Event(), threading.Event()

    @handler(process_key="leave", order_by="business_key")
    def announce(event):
        entered.set()
        assert go_on.wait(WAIT_TIMEOUT)

    app = app_of(announce)
    first = app.post("1", processDefinitionKey="leave", businessKey="B", wait=0)
    assert entered.wait(WAIT_TIMEOUT)
    second = app.post("2", processDefinitionKey="leave", businessKey="B", wait=0)
    app.crash()
    go_on.set()
    app.restart()
    app.settle()
    app.settle(second.event_id)
    assert app.delivery(first.event_id).state is State.UNKNOWN
    assert app.delivery(second.event_id).blocked_by == first.event_id
    message = f"blocked by event {first.event_id}, which is unknown: its handler has neither retry= nor probe="
    with pytest.raises(AssertionError, match=message):
        app.wait_for(second.event_id, "succeeded")


def test_settle_ends_if_a_probe_never_answers(app_of):
    """A delivery whose probe never answers stays unknown, and `settle` ends."""
    entered = threading.Event()
    go_on = threading.Event()
    asked = []

    @handler(process_key="leave", probe=lambda event, delivery: asked.append(delivery.id))
    def announce(event):
        entered.set()
        assert go_on.wait(WAIT_TIMEOUT)

    app = app_of(announce)
    answer = app.post("17", processDefinitionKey="leave", wait=0)
    assert entered.wait(WAIT_TIMEOUT)
    app.crash()
    go_on.set()
    app.restart()
    app.settle()
    assert app.delivery(answer.event_id).state is State.UNKNOWN
    assert asked
    with pytest.raises(AssertionError, match=r"its probe returned no answer.*call advance\(\d+\)"):
        app.wait_for(answer.event_id, "succeeded")


def test_a_simulated_crash_loses_running_attempts(app_of):
    """A running attempt is lost; with `retry=` it runs again, without it is unknown; settled deliveries stay."""
    go_on = threading.Event()
    entered = threading.Semaphore(0)

    @handler(process_key="leave", retry=Retry())
    def again(event, delivery):
        entered.release()
        assert delivery.attempt == 2 or go_on.wait(WAIT_TIMEOUT)

    @handler(process_key="leave")
    def once(event):
        entered.release()
        assert go_on.wait(WAIT_TIMEOUT)

    app = app_of(again, once)
    answer = app.post("17", processDefinitionKey="leave", wait=0)
    for _ in range(2):
        assert entered.acquire(timeout=WAIT_TIMEOUT)
    app.crash()
    with pytest.raises(AssertionError, match=r"crashed or closed: call restart\(\)"):
        app.post("18")
    app.restart()
    go_on.set()
    app.settle()
    assert app.wait_for(answer.event_id, "succeeded", "again").attempt == 2
    assert app.wait_for(answer.event_id, "unknown", "once").outcome == "lost"
    app.restart()
    assert app.delivery(answer.event_id, "once").state is State.UNKNOWN


def test_an_installed_plugin_has_its_entry_point_name_and_settings(app_of, tmp_path):
    """An installed plugin has its entry point's name, its settings and its kinds of callback."""
    app = app_of(
        flowhooks_contracts,
        settings={"contracts": {"database": str(tmp_path / "c.db"), "outbox": str(tmp_path / "o.txt")}},
    )
    made_of = {"callBackProcessClass": "com.cnooc.test.CallbackHandler", "businessKey": "HT-1"}
    answer = app.post("17", **made_of)
    assert app.delivery(answer.event_id).handler == "contracts:archive_contract"
    answer = app.post("17", kind="revoke", revokeReason="withdrawn", **made_of)
    assert answer.status == 200
    flowhooks_contracts.configure({})


def test_an_entry_point_may_name_a_nested_attribute(app_of, monkeypatch):
    """The entry point `leave = "acme_leave:parts.plugin"` names the plugin, as it does for a server."""
    plugin = SimpleNamespace(handlers=hookimpl(lambda: [failing(0)[0]]))
    monkeypatch.setitem(sys.modules, "acme_leave", SimpleNamespace(parts=SimpleNamespace(plugin=plugin)))
    installed = [
        EntryPoint(name, f"acme_leave:{attribute}", "flowhooks")
        for name, attribute in {"missing": "plugin", "broken": "parts.plugin.none", "leave": "parts.plugin"}.items()
    ]
    monkeypatch.setattr("flowhooks.testing.plugin_names.entry_points", lambda group: installed)
    assert [info.name for info in app_of(plugin).app.plugins.infos] == ["leave"]


def test_plugin_names(app_of, module):
    """A module has its own name, objects are numbered, handlers form one plugin; a name can be given."""
    leave = module(
        "leave",
        """
        from flowhooks import handler, hookimpl

        @handler(every=True)
        def grant(event): ...

        @hookimpl
        def handlers(): return [grant]
        """,
    )
    first, second = (SimpleNamespace(handlers=hookimpl(lambda: [failing(0)[0]])) for _ in range(2))
    app = app_of(leave, first, second, failing(0)[0], names={"chosen": failing(0)[0]})
    assert set(app.handlers) == {
        "acme_leave:grant",
        "plugin:grant",
        "plugin2:grant",
        "handlers:grant",
        "chosen:grant",
    }


def test_a_handler_gets_only_callbacks_of_its_engine(app_of):
    """A handler that listens to one engine gets only its callbacks."""

    @handler(every=True, source="hr")
    def grant(event): ...

    app = app_of(grant, sources=["hr", "erp"])
    assert app.event(app.post("1").event_id).source == "hr"
    other = app.post("1", source="erp")
    assert app.deliveries(other.event_id) == ()
    with pytest.raises(KeyError):
        app.post("1", source="crm")
    with pytest.raises(KeyError, match="give sources="):
        app_of(grant).post("1", source="hr")


def test_body_members_named_like_arguments(app_of):
    """A body may have members named kind, wait or source."""
    app = app_of(failing(0)[0])
    answer = app.post("1", processDefinitionKey="leave", data={"kind": "annual", "wait": 1}, days=3)
    assert app.event(answer.event_id).data == {
        "kind": "annual",
        "wait": 1,
        "days": 3,
        "processDefinitionKey": "leave",
    }


def test_an_unmatched_event_is_parked_and_explained(app_of):
    """A parked event is listed; requesting its delivery reports the sent members and the handlers' selectors."""
    app = app_of(failing(0)[0])
    answer = app.post("1", processDefinitionKey="leaf")
    assert answer.status == 202
    assert app.parked() == (app.event(answer.event_id),)
    with pytest.raises(AssertionError) as raised:
        app.wait_for(answer.event_id, "succeeded")
    assert "is parked because no handler matches it" in str(raised.value)
    assert "processDefinitionKey 'leaf'" in str(raised.value)
    assert "handlers:grant listens to process_keys=['leave'], kind='complete'" in str(raised.value)


# Mistakes are reported at once


@pytest.fixture
def approvals(app_of):
    """An app with handlers that have conditions."""

    @handler(process_key="leave", conclusion="approved")
    def grant(event):
        return event.conclusion

    @handler(process_key="leave", conclusion="approved", when={"/days": {"minimum": 10}})
    def announce(event):
        pass

    return app_of(grant, announce)


def test_handler_runs_only_for_its_conclusion(approvals):
    """The conclusion is a member of the body; other conclusions are dismissed with the reason."""
    answer = approvals.post("1", processDefinitionKey="leave", conclusion="approved", days=3)
    assert approvals.delivery(answer.event_id).result == "approved"
    assert approvals.why_not(answer.event_id) == ""
    answer = approvals.post("2", processDefinitionKey="leave", conclusion="rejected", days=3)
    assert (answer.status, answer.json) == (200, {"success": True})
    assert [event.flow_instance_id for event in approvals.dismissed()] == ["2"]
    assert approvals.why_not(answer.event_id).splitlines() == [
        "it is dismissed because the conditions of each handler of its class or key are false",
        "handlers:grant does not match: conclusion 'rejected' is not one of approved",
        "handlers:announce does not match: conclusion 'rejected' is not one of approved",
    ]
    with pytest.raises(AssertionError, match=r"conclusion 'rejected', source 'default'[\s\S]*grant does not match"):
        approvals.delivery(answer.event_id)


def test_why_an_event_is_parked(approvals):
    """An event is parked because a condition is undecided or no handler matches."""
    answer = approvals.post("3", processDefinitionKey="leave")
    assert answer.status == 202
    assert "because a handler's condition cannot be decided\n" in approvals.why_not(answer.event_id)
    assert "no conclusion, but the handler requires one of approved" in approvals.why_not(answer.event_id)
    answer = approvals.post("4", processDefinitionKey="travel")
    assert approvals.why_not(answer.event_id) == (
        "it is parked because no handler has its class or key, or none of these handlers accepts its version or source"
    )
    assert [event.flow_instance_id for event in approvals.parked()] == ["3", "4"]


def test_a_quarantined_plugin_is_reported_at_once(module):
    """The error has the reason and the plugin's own traceback."""
    broken = module(
        "broken",
        """
        from flowhooks import hookimpl

        @hookimpl
        def handlers():
            return what_is_not_there
        """,
    )
    with pytest.raises(FlowhooksError) as raised:
        AppHarness(broken)
    said = str(raised.value)
    assert said.startswith("plugin 'acme_broken' (object): NameError: name 'what_is_not_there' is not defined")
    assert "return what_is_not_there" in said


@pytest.mark.parametrize("thing", [None, "contracts", dict, lambda event: None])
def test_objects_that_are_no_plugin_are_rejected(thing):
    """A name, a class or a function without @handler is no plugin."""
    with pytest.raises(FlowhooksError, match="handlers made by @handler, not"):
        AppHarness(thing)


def test_settings_for_a_missing_plugin_are_rejected(monkeypatch, tmp_path):
    """Settings for a missing plugin, and two plugins or sources of one name, are refused; nothing is left behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(FlowhooksError, match=r"there is no plugin 'leave'; the plugins are handlers"):
        AppHarness(failing(0)[0], settings={"leave": {}})
    with pytest.raises(FlowhooksError, match="two plugins would have the name 'handlers'"):
        AppHarness(failing(0)[0], names={"handlers": failing(0)[0]})
    with pytest.raises(FlowhooksError, match="sources and receivers both have erp: give each source its own name"):
        AppHarness(failing(0)[0], sources=("erp",), receivers={"erp": "handlers"})
    with pytest.raises(TypeError, match="not iterable"):
        AppHarness(failing(0)[0], settings={"handlers": 5})
    assert list(tmp_path.iterdir()) == []


def test_unmarked_hooks_and_unused_settings_are_warnings(module):
    """An unmarked hook and unused settings are warnings that pytest shows."""
    leave = module(
        "forgetful",
        """
        from flowhooks import hookimpl

        def configure(settings): ...

        @hookimpl
        def handlers(): return []
        """,
    )
    with pytest.warns(UserWarning, match="function 'configure' .* without @hookimpl"):
        AppHarness(leave).close()


def test_a_failed_wait_reports_the_expected_and_the_present_state(app_of):
    """The error has the expected and the present state, the traceback and the next step, at once."""
    grant, _ = failing(1, retry=Retry())
    app = app_of(grant)
    event_id = app.post("1", processDefinitionKey="leave").event_id
    with pytest.raises(AssertionError) as raised:
        app.wait_for(event_id, "succeeded")
    said = str(raised.value)
    assert said.startswith(
        "waited for the delivery of handlers:grant to be 'succeeded', but it is 'waiting' in attempt 1: "
        "it is due again in 5 seconds, but the clock does not move by itself: call advance(5)\n"
        "its error: OSError: payroll does not answer\n"
        "Traceback"
    )
    app.advance(5)
    app.wait_for(event_id, "succeeded", attempt=2)
    with pytest.raises(AssertionError, match="to be 'succeeded' in attempt 3, but it is 'succeeded' in attempt 2"):
        app.wait_for(event_id, "succeeded", attempt=3)
    with pytest.raises(ValueError, match="'done' is not a valid State"):
        app.wait_for(event_id, "done")


def test_waiting_for_a_running_handler_times_out(app_of):
    """A wait for a handler that does not end has the given timeout."""
    go_on = threading.Event()

    @handler(process_key="leave")
    def grant(event):
        assert go_on.wait(WAIT_TIMEOUT)

    app = app_of(grant)
    event_id = app.post("1", processDefinitionKey="leave", wait=0).event_id
    with pytest.raises(AssertionError, match=r"it is '(running|waiting)' in attempt [01]: 0.05 seconds have passed"):
        app.wait_for(event_id, "succeeded", timeout=0.05)
    go_on.set()
    app.wait_for(event_id, "succeeded")


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (Reject("there is no such leave"), "dead", "it is dead, and does not change by itself"),
        (None, "succeeded", "succeeded"),
    ],
)
def test_a_final_state_ends_the_wait_at_once(app_of, error, state, said):
    """A final state ends the waiting at once."""
    app = app_of(failing(1 if error else 0, error)[0])
    event_id = app.post("1", processDefinitionKey="leave").event_id
    with pytest.raises(AssertionError, match=said):
        app.wait_for(event_id, "waiting")
    app.wait_for(event_id, state)


def test_an_event_with_two_deliveries_needs_the_handler_name(app_of):
    """A delivery of an event with two needs the handler's name; a wrong name is reported."""
    grant = failing(0)[0]

    @handler(process_key="leave")
    def tell(event): ...

    app = app_of(grant, tell)
    event_id = app.post("1", processDefinitionKey="leave").event_id
    with pytest.raises(AssertionError, match="has deliveries of handlers:grant, handlers:tell: choose one"):
        app.delivery(event_id)
    with pytest.raises(AssertionError, match="has no delivery of 'told', only of"):
        app.delivery(event_id, "told")
    assert [delivery.handler for delivery in app.deliveries(event_id, "tell")] == ["handlers:tell"]


def test_a_ledger_changed_from_outside_is_reported_at_close():
    """A ledger that was changed from outside is reported when the app is closed."""
    app = AppHarness(failing(0)[0])
    app.post("1", processDefinitionKey="leave")
    with closing(sqlite3.connect(app.folder / "flowhooks.db", timeout=20)) as connection, connection:
        connection.execute("UPDATE deliveries SET state = 'dead'")
    with pytest.raises(AssertionError, match=r"counts of the ledger .* do not balance.*does not agree with its last"):
        app.close()
    assert not app.folder.exists()
    app.close()


def test_a_removed_ledger_fails_the_test():
    """A ledger that the test removed is the test's failure, like counts that do not balance."""
    app = AppHarness(failing(0)[0])
    (app.folder / "flowhooks.db").unlink()
    with pytest.raises(AssertionError, match=r"counts of the ledger .* do not balance.*there is no database"):
        app.close()
    assert not app.folder.exists()


def test_a_failed_start_cleans_up(monkeypatch, eventually, tmp_path):
    """If the start fails, the app is stopped; a schema that cannot be dropped does not keep its folder."""
    start, folder = App.start, tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))

    def fail_late(app):
        start(app)
        raise LookupError("not today")

    def drop():
        raise OSError("the database is gone")

    schema = SimpleNamespace(url=str(tmp_path / "ledger.db"), drop=drop)
    monkeypatch.setattr(App, "start", fail_late)
    monkeypatch.setattr("flowhooks.testing.app.TemporarySchema", lambda _: schema)
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="the database is gone") as raised:
        AppHarness(failing(0)[0], database="postgresql://")
    assert isinstance(raised.value.__context__, LookupError)
    eventually(lambda: set(threading.enumerate()) <= before)
    assert list(folder.iterdir()) == []


def test_a_handler_that_does_not_end_is_reported(monkeypatch, eventually):
    """A running handler is named by `settle`, at the end, and also if its app crashed."""
    go_on = threading.Event()

    @handler(process_key="leave")
    def grant(event):
        assert go_on.wait(WAIT_TIMEOUT)

    said = r"1 run\(s\) of handlers did not end within 0.2 seconds \(the handlers are handlers:grant\)"
    apps = []
    for crashed in (False, True):
        app = AppHarness(grant)
        apps.append(app.app)
        event_id = app.post("1", wait=0, processDefinitionKey="leave").event_id
        eventually(lambda app=app, event_id=event_id: app.delivery(event_id).state is State.RUNNING)
        with monkeypatch.context() as patched:  # not earlier: the ledger may take this long for a write
            patched.setattr("flowhooks.testing.waiting.WAIT_TIMEOUT", 0.2)
            patched.setattr("flowhooks.testing.app.WAIT_TIMEOUT", 0.2)
            with pytest.raises(AssertionError, match=rf"delivery of handlers:grant for event {event_id} is running"):
                app.settle()
            if crashed:
                app.crash()
            with pytest.raises(AssertionError, match=said):
                app.close()
    go_on.set()
    eventually(lambda: all(app.runner.running == 0 for app in apps))


def test_the_app_is_a_context_manager():
    """The app is closed at the end, and an exception inside is raised."""
    with AppHarness(failing(0)[0]) as app:
        assert app.post("1", processDefinitionKey="leave").status == 200
    assert not app.folder.exists()
    with pytest.raises(AssertionError, match="was closed"):
        app.restart()
    with pytest.raises(ZeroDivisionError), AppHarness() as app:
        raise ZeroDivisionError
    assert not app.folder.exists()


def test_a_reused_folder_continues_its_clock(app_of):
    """A new version of a plugin finds the events of the earlier one; a new clock would make their ids again."""
    earlier = app_of(failing(0)[0])
    event_id = earlier.post("1", wait=0, processDefinitionKey="leave").event_id
    earlier.close()
    with pytest.raises(FlowhooksError, match=r"has the ledger of an earlier app: give its clock, clock=earlier\.clock"):
        AppHarness(failing(0)[0], folder=earlier.folder)
    with AppHarness(failing(0)[0], folder=earlier.folder, clock=earlier.clock) as app:
        app.wait_for(event_id)


def test_a_stored_event_is_replayed_unchanged(app_of, make_plugin, listens):
    """The handlers see what they saw before: kind, data and conclusion, and the source if the app has it."""
    seen = []
    app = app_of(make_plugin(listens(seen.append, name="seen")), sources=("first", "erp"))
    event = make_event(
        process_key="leave",
        conclusion="AGREE",
        flow_instance_id="4711",
        source="erp",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        days=3,
    )
    assert app.post_event(replace(event, conclusion="approved")).json == {"success": True}
    assert app.post_event(replace(event, flow_instance_id="2", source="gone")).status == 200
    first, second = seen
    assert (first.flow_instance_id, first.source, first.conclusion) == ("4711", "erp", "approved")
    assert first.data == {**event.data, "conclusion": "approved"}
    assert first.traceparent == event.traceparent
    assert first.id != event.id
    assert (second.source, second.conclusion) == ("first", "AGREE")
