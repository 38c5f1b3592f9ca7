"""Engine clients: how they are created, and that no client can harm a round."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from flowhooks.background.reconciliation.clients import BoundedClient, CallCancelled, create_client, create_clients
from flowhooks.errors import EngineError, SettingsError
from flowhooks.model.engine import (
    EndState,
    EngineConfig,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)
from flowhooks.settings import EngineSettings, Secret
from support.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "s3cret-of-the-engine"
GOOD = {"id": "i1", "ended_at": NOW, "end_state": EndState.COMPLETED}


def instance(**fields):
    """A finished instance, with fields of any type."""
    return FinishedInstance(**(GOOD | fields))


def bounded(limit=60.0, secrets=None, **methods):
    """A client with these methods, each a function or the value that it returns."""
    functions = {
        name: value if callable(value) else lambda *_, value=value: value
        for name, value in ({"close": None} | methods).items()
    }
    return BoundedClient(SimpleNamespace(**functions), source="oa", limit=limit, secrets=secrets or {})


def raises(error):
    """A function that raises an exception."""

    def function(*_arguments):
        raise error

    return function


@pytest.fixture
def plugins():
    """Plugins that offer a client named `flowable`, which keeps its configuration."""
    return SimpleNamespace(engine_clients={"flowable": lambda config: SimpleNamespace(config=config)}, unloaded=[])


def engine(**given):
    """A section `engine`."""
    return EngineSettings(**({"client": "flowable", "url": "http://oa"} | given))


# Creation.


def offers(factory):
    """Plugins whose client `flowable` is made by a factory."""
    return SimpleNamespace(engine_clients={"flowable": factory}, unloaded=[])


def test_a_client_that_is_created_too_late_is_closed():
    """A factory that hangs keeps no server from starting or reloading; its client is closed once there is one."""
    released, closed = threading.Event(), threading.Event()

    def close():
        closed.set()
        raise SystemExit

    def factory(_config):
        released.wait(60)
        return SimpleNamespace(close=close)

    with pytest.raises(SettingsError, match=r"the client flowable was not created within 0\.05 seconds"):
        create_client("oa", engine(timeout=0.05), offers(factory), {})
    assert not closed.is_set()
    released.set()
    assert closed.wait(60)


def test_clients_are_created_at_the_same_time():
    """Factories that hang hold up their caller together, not one after the other, and no other client."""
    together, released = threading.Barrier(3), threading.Event()

    def factory(config):
        together.wait(5)
        if config.source != "good":
            released.wait(60)
        return SimpleNamespace(close=lambda: None)

    engines = {"a": engine(timeout=0.05), "good": engine(), "b": engine(timeout=0.05)}
    clients = create_clients(engines, offers(factory), {})
    released.set()
    assert {source: type(client) for source, client in clients.items()} == {
        "a": SettingsError,
        "good": BoundedClient,
        "b": SettingsError,
    }


class WithoutText(BaseException):
    """An exception whose text cannot be made."""

    def __str__(self):
        raise SystemExit(SECRET)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError(SECRET), "ValueError: …"),
        (SystemExit(f"{SECRET}\n"), "SystemExit: …\\n"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (WithoutText(), "WithoutText: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_factory_may_raise_anything(error, says):
    """Whatever it raises refuses the settings: the error names it on one line, without secrets."""
    section = engine(token=Secret(env="T"))
    with pytest.raises(SettingsError) as caught:
        create_client("oa", section, offers(raises(error)), {"T": SECRET})
    assert str(caught.value) == f"sources.oa.engine: the client flowable refuses it: {says}"


def test_client_factory_receives_its_section_and_secrets(plugins):
    """The factory is called with all values and the secrets, which no text of the configuration shows."""
    section = engine(username="rest", password=Secret(env="P"), variables=("a",), tenants=("t",), timeout=5.0)
    client = create_client("oa", section, plugins, {"P": SECRET})
    config = client._client.config
    assert config == EngineConfig(
        source="oa",
        url="http://oa",
        username="rest",
        password=SECRET,
        variables=("a",),
        tenants=("t",),
        timeout=5.0,
    )
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    ("client", "offered", "says"),
    [
        ("flowabel", True, "; did you mean flowable?; the loaded engine clients are: flowable; install the plugin"),
        ("camunda", True, "the loaded engine clients are: flowable; install the plugin that offers it, such as "),
        (
            "flowable",
            False,
            "engine client of this name; install the plugin that offers it, such as flowhooks-flowable",
        ),
    ],
)
def test_an_unknown_client(plugins, client, offered, says):
    """The error names the source, the clients that are loaded and the plugin to install."""
    if not offered:
        plugins.engine_clients = {}
    with pytest.raises(SettingsError) as caught:
        create_client("oa", engine(client=client), plugins, {})
    assert str(caught.value).startswith(f"sources.oa.engine.client is {client}, but no loaded plugin offers")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("unloaded", "ends"),
    [(["b", "a", "b"], "may offer it: a, b"), ([f"p{number}" for number in range(10, 22)], "p18, p19, …")],
)
def test_an_unknown_client_whose_plugin_may_be_denied(plugins, unloaded, ends):
    """The error names the plugins that are not loaded, instead of a plugin to install."""
    plugins.unloaded = unloaded
    with pytest.raises(SettingsError) as caught:
        create_client("oa", engine(client="camunda"), plugins, {})
    assert str(caught.value).endswith(ends)
    assert "install" not in str(caught.value)


def test_each_client_has_its_own_problem(plugins):
    """A source whose client cannot be created has its error: an unknown client, a missing secret, a refusal."""
    plugins.engine_clients["strict"] = raises(ValueError(f"no {SECRET}, please"))
    engines = {
        "a": engine(client="x"),
        "b": engine(password=Secret(env="MISSING")),
        "c": engine(client="strict", token=Secret(env="T")),
        "d": engine(),
    }
    a, b, c, d = create_clients(engines, plugins, {"T": SECRET}).values()
    assert [str(error).split(":")[0].split(".client")[0] for error in (a, b, c)] == [
        "sources.a.engine",
        "sources.b.engine.password",
        "sources.c.engine",
    ]
    assert "MISSING" in str(b)
    assert str(c).endswith("ValueError: no …, please")
    assert isinstance(d, BoundedClient)


# Calls.


def test_valid_results_are_returned_unchanged():
    """Valid results of all methods are returned as they are."""
    info, page = EngineInfo(product="x"), FinishedPage(instances=(instance(),), cursor="c", engine_time=NOW)
    definitions = (ProcessDefinition(key="k", version=1),)
    client = bounded(check=info, finished=page, instance=InstanceStatus.ABSENT, definitions=definitions)
    assert client.check() is info
    assert client.finished(NOW, NOW) is page
    assert client.instance("i1") is InstanceStatus.ABSENT
    assert client.definitions() is definitions
    assert bounded(instance=instance()).instance("i1") == instance()
    assert client.calls == 4


@pytest.mark.parametrize(
    "error",
    [ValueError(f"401 with {SECRET}"), SystemExit(SECRET), KeyboardInterrupt(SECRET), RecursionError(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_is_an_error_without_secrets(logged, error):
    """Whatever a client raises is an `EngineError` that says what was raised, and a traceback in the log."""
    client = bounded(check=raises(error), secrets={"token": SECRET})
    with pytest.raises(EngineError) as caught:
        client.check()
    assert caught.value.reason == "invalid"
    assert caught.value.why.startswith(f"check() raised {type(error).__name__}")
    assert SECRET not in str(caught.value)
    assert [record["event"] for record in logged] == ["engine_client_failed"]


@pytest.mark.parametrize("reason", ["unreachable", "refused", "invalid"])
def test_an_engine_error_has_the_reason_of_the_client(reason):
    """An `EngineError` passes on, on one line and without secrets."""
    client = bounded(check=raises(EngineError(reason, f"401\nof {SECRET}\x1b[1m")), secrets={"token": SECRET})
    with pytest.raises(EngineError) as caught:
        client.check()
    assert caught.value.reason == reason
    assert caught.value.why.isprintable()
    assert SECRET not in caught.value.why


def test_an_engine_error_with_an_unknown_reason_is_invalid(logged):
    """A reason that does not exist does not reach the ledger."""
    with pytest.raises(EngineError) as caught:
        bounded(check=raises(EngineError("tired", "x"))).check()
    assert caught.value.reason == "invalid"
    assert len(logged) == 1


@pytest.mark.parametrize(
    ("method", "arguments", "result", "says"),
    [
        ("check", (), None, "a NoneType, not an EngineInfo"),
        ("check", (), EngineInfo(product=3), "not an EngineInfo of texts"),
        ("finished", (NOW, NOW), [instance()], "a list, not a FinishedPage"),
        ("finished", (NOW, NOW), FinishedPage(instances=iter(())), "a FinishedPage, not"),
        ("finished", (NOW, NOW), FinishedPage(instances=(instance(),) * 10_000), "10,000 instances; at most 1,000"),
        ("finished", (NOW, NOW), FinishedPage(instances=(), cursor=1), "a int as cursor"),
        ("finished", (NOW, NOW), FinishedPage(instances=(), engine_time=NOW.replace(tzinfo=None)), "engine_time"),
        ("finished", (NOW, NOW), FinishedPage(instances=({"id": "i1"},)), "a dict, not a FinishedInstance"),
        ("instance", ("i1",), "running", "a str, not a FinishedInstance"),
        ("instance", ("i2",), instance(), "i1, which was not asked for"),
        ("definitions", (), None, "a NoneType"),
        ("definitions", (), [{"key": "k"}], "not a ProcessDefinition"),
        ("definitions", (), [ProcessDefinition(key="k", version="1")], "not a ProcessDefinition"),
        ("definitions", (), [ProcessDefinition(key="k", version=1)] * 100_001, "more than 100,000 definitions"),
        ("definitions", (), [ProcessDefinition(key="k" * 8000, version=1)] * 1001, "more than 8,000,000 characters"),
    ],
)
def test_a_result_of_a_wrong_type(method, arguments, result, says):
    """A result that is not what the interface says is an error of the client."""
    with pytest.raises(EngineError) as caught:
        getattr(bounded(**{method: result}), method)(*arguments)
    assert caught.value.reason == "invalid"
    assert f"{method}() of the engine client returned" in caught.value.why
    assert says in caught.value.why


@pytest.mark.parametrize(
    "fields",
    [
        {"id": 7},
        {"id": None},
        {"ended_at": NOW.replace(tzinfo=None)},
        {"ended_at": "2026-01-01T00:00:00Z"},
        {"ended_at": NOW.replace(year=1960)},
        {"started_at": NOW.replace(tzinfo=None)},
        {"end_state": "completed"},
        {"business_key": 7},
        {"conclusion": True},
        {"process_definition_version": "3"},
        {"process_definition_version": True},
        {"variables": ["amount"]},
        {"variables": None},
        {"parent_id": 0},
    ],
    ids=str,
)
def test_an_instance_with_a_wrong_member(fields):
    """One instance with a member of a wrong type makes the page invalid: its end time may be wrong, too."""
    with pytest.raises(EngineError) as caught:
        bounded(finished=FinishedPage(instances=(instance(), instance(**fields)))).finished(NOW, NOW)
    assert caught.value.reason == "invalid"
    assert next(iter(fields)) in caught.value.why or "id is a" in caught.value.why


def test_a_call_that_does_not_return():
    """A call that hangs is an error after its limit, and no other call is made before it has returned."""
    gate, entered = threading.Event(), []

    def hangs():
        entered.append(1)
        gate.wait(60)
        return EngineInfo(product="x")

    client = bounded(limit=0.01, check=hangs)
    for says in ("has not returned within 0.01 s", "has not returned for"):
        with pytest.raises(EngineError) as caught:
            client.check()
        assert caught.value.reason == "unreachable"
        assert says in caught.value.why
    until(lambda: entered)  # the thread may begin later than its limit
    assert len(entered) == 1
    gate.set()
    client._latest.returned.wait(60)
    client._limit = 60.0
    assert client.check().product == "x"


def test_a_stop_ends_the_wait_for_a_call():
    """A stop does not wait for a client, and closes it once it has returned."""
    gate, entered, closed = threading.Event(), threading.Event(), threading.Event()
    ended = []

    def hangs():
        entered.set()
        gate.wait(60)

    client = bounded(check=hangs, close=closed.set)

    def call():
        with pytest.raises(CallCancelled):
            client.check()
        ended.append(1)

    caller = threading.Thread(target=call)
    caller.start()
    assert entered.wait(60)
    client.close()
    caller.join(60)
    assert (ended, closed.is_set()) == ([1], False)
    with pytest.raises(CallCancelled):
        client.check()
    gate.set()
    assert closed.wait(60)


def test_calls_of_several_threads_never_overlap():
    """Calls of several threads never overlap."""
    running, most = [], []

    def check():
        running.append(1)
        most.append(len(running))
        running.pop()
        return EngineInfo(product="x")

    client = bounded(check=check)
    threads = [threading.Thread(target=client.check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 8
