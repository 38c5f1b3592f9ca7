"""Each hook as plugins use it: one `test_hook_NAME` per hook, and the effect of an exception."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import structlog

from flowhooks import (
    Alert,
    AlertCause,
    Outcome,
    OutcomeKind,
    ReceivedCallback,
    ReceivedRequest,
    State,
    handler,
    hookimpl,
)
from flowhooks.plugins.plugins import Plugins


@handler(process_key="leave")
def grant(event):
    """Grant the leave."""
    return event.flow_instance_id


def plugin(**hooks):
    """A plugin with these hooks, each marked as an implementation."""
    return SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})


def with_grant(**hooks):
    """The same, with the handler `grant`."""
    return plugin(handlers=lambda: [grant], **hooks)


def test_hook_configure(load_sections):
    """Each plugin gets only its own section of the settings, once, before its handlers are requested."""
    seen = []
    plugins = load_sections(
        {"one": {"url": "x", "deep": {"list": [1]}}, "other": {"secret": "s"}},
        one=plugin(
            configure=lambda settings: seen.append(("one", settings)), handlers=lambda: seen.append("handlers") or []
        ),
        two=plugin(configure=lambda settings: seen.append(("two", settings))),
    )
    assert seen == [("one", {"url": "x", "deep": {"list": [1]}}), "handlers", ("two", {})]
    assert [info.state for info in plugins.infos] == ["loaded", "loaded"]


def test_a_plugin_cannot_change_the_settings(load_sections):
    """A plugin's changes to its section stay with the plugin."""
    sections = {"one": {"deep": {"list": [1]}}}
    load_sections(sections, one=plugin(configure=lambda settings: settings["deep"]["list"].append(2)))
    assert sections == {"one": {"deep": {"list": [1]}}}


def test_hook_engine_clients(load):
    """The factories of all plugins are known by name; the second plugin that offers a name is quarantined."""
    plugins = load(
        one=plugin(engine_clients=lambda: {"fake": dict, "other": list}),
        two=plugin(engine_clients=lambda: {"third": set, "fake": set}),
        three=plugin(engine_clients=lambda: {"third": tuple}),
    )
    assert plugins.engine_clients == {"fake": dict, "other": list, "third": tuple}
    assert [info.state for info in plugins.infos] == ["loaded", "quarantined", "loaded"]
    assert "plugin 'one' offers the engine client 'fake' already" in plugins.infos[1].error


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, "returned None, not a dict of factories by name"),
        ([dict], "not a dict of factories"),
        ({"a b": dict}, "returned 'a b', which is no client's name"),
        ({1: dict}, "returned 1, which is no client's name"),
        ({"fake": 3}, "returned 3 for 'fake', not a factory"),
    ],
)
def test_engine_clients_of_a_wrong_type(load, result, says):
    """A plugin that offers no dict of factories is quarantined with the reason."""
    (info,) = load(one=plugin(engine_clients=lambda: result)).infos
    assert info.state == "quarantined"
    assert says in info.error


def test_hook_receive_request(load):
    """The receiver that the settings name gets the source and the request, no other plugin does, and it answers."""
    seen = []

    def receive_request(source, request):
        seen.append((source, request.body))
        return ReceivedCallback(flow_instance_id="i1", data={"businessKey": "C-1"})

    plugins = load(one=plugin(receive_request=receive_request), two=plugin(receive_request=lambda request: seen[99]))
    request = ReceivedRequest(method="POST", query={}, headers={}, body=b"{}", received_at=datetime.now(UTC))
    assert plugins.receivers.names == {"one", "two"}
    callback = plugins.receivers.call("one", "feishu", request)
    assert (callback.flow_instance_id, callback.data, callback.kind) == ("i1", {"businessKey": "C-1"}, "complete")
    assert seen == [("feishu", b"{}")]


def test_hook_schemas(load, tmp_path):
    """Folders of schema files are kept with their plugin's name, given as paths or text."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    plugins = load(one=plugin(schemas=lambda: [first]), two=plugin(schemas=lambda: (str(second), first)))
    assert plugins.schema_folders == (("one", first), ("two", second), ("two", first))


def test_unusable_schemas_quarantine_their_plugin(load, tmp_path):
    """All folders are used or none, and earlier schemas stay in force."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, schema in ((good, "{}"), (bad, "{")):
        (folder / "call-back").mkdir(parents=True)
        (folder / f"call-back/{folder.name}.schema.json").write_text(schema)
    plugins = load(one=with_grant(schemas=lambda: [good, bad]), two=with_grant(schemas=list_nothing))
    one, two = plugins.infos
    assert (one.state, two.state) == ("quarantined", "loaded")
    assert f"schema file {bad}/call-back/bad.schema.json: not JSON: " in one.error
    assert list(plugins.handlers) == ["two:grant"]
    assert plugins.schema_folders == ()
    assert plugins.schemas.kinds == ("cancel", "complete", "error", "terminate")


def test_schemas_hook_runs_before_configure(load_sections, tmp_path):
    """`schemas` runs before `configure`, because its result checks the section."""
    seen = []
    load_sections(
        {"one": {}},
        one=plugin(
            configure=lambda settings: seen.append("configure"),
            schemas=lambda: seen.append("schemas") or [tmp_path],
            handlers=lambda: seen.append("handlers") or [],
        ),
    )
    assert seen == ["schemas", "configure", "handlers"]


def test_hook_handlers(load):
    """Handlers are found by id in an immutable mapping."""
    plugins = load(one=with_grant(), two=with_grant())
    assert list(plugins.handlers) == ["one:grant", "two:grant"]
    with pytest.raises(TypeError):
        plugins.handlers["three:grant"] = grant


def test_hook_run_handler(load, event, delivery):
    """Wrappers run around each call, the last registered outermost, and get its result."""
    seen = []

    def wrapper(name):
        def run_handler(handler, event, delivery):
            seen.append((name, handler.id, event.id, delivery.attempt))
            outcome = yield
            seen.append((name, outcome.value))
            return outcome

        return SimpleNamespace(run_handler=hookimpl(wrapper=True)(run_handler))

    plugins = load(one=with_grant(), inner=wrapper("inner"), outer=wrapper("outer"))
    outcome = plugins.run_handler(plugins.handlers["one:grant"], event, delivery)
    assert outcome == Outcome(kind=OutcomeKind.SUCCEEDED, value="i1")
    assert seen == [
        ("outer", "one:grant", "e1", 1),
        ("inner", "one:grant", "e1", 1),
        ("inner", "i1"),
        ("outer", "i1"),
    ]


def test_a_handler_exception_is_raised_unchanged(load, event, delivery):
    """`run_handler` raises a handler's exception unchanged, also SystemExit."""

    def fail(error):
        def work(event):
            raise error

        return handler(every=True, name=type(error).__name__)(work)

    errors = [ValueError("no"), SystemExit(2)]
    plugins = load(p=plugin(handlers=lambda: map(fail, errors)))
    for error in errors:
        with pytest.raises(type(error)) as raised:
            plugins.run_handler(plugins.handlers[f"p:{type(error).__name__}"], event, delivery)
        assert raised.value is error


def test_a_handler_that_returns_a_coroutine_has_failed(load, event, delivery):
    """A coroutine or generator returned by a decorated function was never run, so it is a failure."""

    async def work():
        raise AssertionError

    plugins = load(
        p=plugin(
            handlers=lambda: [
                handler(every=True, name="coroutine")(lambda event: work()),
                handler(every=True, name="generator")(lambda event: (x for x in ())),
            ]
        )
    )
    for name in ("coroutine", "generator"):
        with pytest.raises(Exception, match=f"it returned a {name}, whose code has not run"):
            plugins.run_handler(plugins.handlers[f"p:{name}"], event, delivery)


def test_a_plugin_may_run_handlers_itself(load, event, delivery):
    """An implementation that is no wrapper replaces the built-in."""
    mine = Outcome(kind=OutcomeKind.SUCCEEDED, value="elsewhere")
    plugins = load(one=with_grant(), runner=plugin(run_handler=lambda handler: mine))
    assert plugins.run_handler(plugins.handlers["one:grant"], event, delivery) is mine


def test_hook_event_accepted(load, event):
    """Each plugin is notified of an event and its handlers; it may declare only some of the arguments."""
    seen = []
    plugins = load(
        one=plugin(event_accepted=lambda event, handlers: seen.append((event.id, handlers))),
        two=plugin(event_accepted=lambda handlers: seen.append(handlers[0])),
    )
    plugins.event_accepted(event, ("one:grant",))
    assert seen == [("e1", ("one:grant",)), "one:grant"]


def test_hook_delivery_settled(load, event, delivery):
    """Each plugin is notified of an attempt's outcome and of its delivery's new state."""
    seen = []
    plugins = load(one=plugin(delivery_settled=lambda event, delivery, outcome, state: seen.append((outcome, state))))
    outcome = Outcome(kind=OutcomeKind.FAILED, error="no")
    plugins.delivery_settled(event, delivery, outcome, State.DEAD)
    assert seen == [(outcome, State.DEAD)]


def test_hook_alert_raised(load):
    """A listening plugin is notified of an alert; the result is the error if it did not accept it."""
    seen = []

    def fail(alert):
        seen.append(("bad", alert.id))
        raise ValueError("oops")

    plugins = load(
        deaf=with_grant(),
        bad=plugin(alert_raised=fail),
        mail=plugin(alert_raised=lambda alert: seen.append(("mail", alert.id))),
        chat=plugin(alert_raised=lambda: seen.append("chat")),
    )
    alert = Alert(
        id="a1",
        cause=AlertCause.DEAD,
        subject="one:grant",
        message="1 delivery is dead.",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        count=1,
    )
    assert plugins.alert_listeners == ("bad", "mail", "chat")
    with structlog.testing.capture_logs() as logs:
        errors = [plugins.alert_raised(alert, name) for name in ("deaf", "bad", "mail")]
    assert errors == [None, "oops", None]
    assert seen == [("bad", "a1"), ("mail", "a1")]
    assert [(log["event"], log["plugin"], log["hook"]) for log in logs] == [("hook_failed", "bad", "alert_raised")]


def test_hook_alert_resolved(load):
    """A plugin that listens to the end of alerts is notified of it, and no other."""
    seen = []

    def fail():
        raise OSError("the mail server\nis down")

    plugins = load(
        deaf=plugin(alert_raised=lambda alert: seen.append("deaf")),
        bad=plugin(alert_resolved=fail),
        mail=plugin(alert_resolved=lambda alert: seen.append((alert.id, alert.resolved_at))),
    )
    ended = datetime(2026, 1, 2, tzinfo=UTC)
    alert = Alert(
        id="a1",
        cause=AlertCause.DEAD,
        subject="one:grant",
        message="Resolved.",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        count=1,
        resolved_at=ended,
    )
    assert plugins.resolution_listeners == ("bad", "mail")
    with structlog.testing.capture_logs() as logs:
        errors = [plugins.alert_resolved(alert, name) for name in ("deaf", "bad", "mail")]
    assert errors == [None, "the mail server is down", None]
    assert seen == [("a1", ended)]
    assert [(log["event"], log["plugin"], log["hook"]) for log in logs] == [("hook_failed", "bad", "alert_resolved")]


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit(1), GeneratorExit(), KeyboardInterrupt()])
def test_a_failing_listener_does_not_stop_other_plugins(error, load, event, delivery):
    """A raising listener is logged with its plugin's name, and the others are notified."""
    seen = []

    def fail():
        raise error

    plugins = load(
        before=plugin(event_accepted=lambda: seen.append("before"), delivery_settled=lambda: seen.append("before")),
        bad=plugin(event_accepted=fail, delivery_settled=fail),
        after=plugin(event_accepted=lambda: seen.append("after"), delivery_settled=lambda: seen.append("after")),
    )
    with structlog.testing.capture_logs() as logs:
        plugins.event_accepted(event, ())
        plugins.delivery_settled(event, delivery, Outcome(kind=OutcomeKind.SUCCEEDED), State.SUCCEEDED)
    assert seen == ["before", "after", "before", "after"]
    assert error.__traceback__ is None, "it would grow with each raise"
    assert [(log["event"], log["plugin"], log["hook"], log["log_level"]) for log in logs] == [
        ("hook_failed", "bad", "event_accepted", "error"),
        ("hook_failed", "bad", "delivery_settled", "error"),
    ]


@pytest.mark.parametrize(
    ("hooks", "expected"),
    [({}, False), ({"event_accepted": lambda: None}, True), ({"delivery_settled": lambda: None}, True)],
)
def test_plugins_with_and_without_subscribers(hooks, expected, load):
    """Without a listener nothing needs to be queued."""
    assert load(one=with_grant(**hooks)).has_subscribers is expected


def test_a_quarantined_plugin_is_not_notified(load, event):
    """Hooks of a plugin that was refused after registration are removed."""

    def fail():
        raise AssertionError

    plugins = load(bad=plugin(event_accepted=fail, handlers=lambda: 3), good=with_grant())
    assert not plugins.has_subscribers
    plugins.event_accepted(event, ())


def list_nothing():
    """Return no handlers."""
    return []


@pytest.fixture
def load_sections():
    """A function that loads plugins given directly, with sections of settings."""

    def load(sections, **objects):
        return Plugins.load(
            dirs=(), allow=(), deny=(), safe_mode=False, sections=sections, entry_points=(), objects=objects
        )

    return load
