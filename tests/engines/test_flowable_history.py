"""flowhooks-flowable with a real Flowable that has no code of flowhooks.

Needs Java, Maven and Maven's downloads; without them the tests are skipped with the reason.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from flowhooks_flowable.client import FlowableClient

from flowhooks import EndState, FinishedInstance
from flowhooks.testing import EngineClientContract
from support.flowable_rest import FlowableDriver, FlowableServer, class_path

pytestmark = [pytest.mark.java, pytest.mark.timeout(900)]  # the first build downloads


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A driver of a running Flowable."""
    class_path()  # first, because it may skip
    with closing(FlowableServer(tmp_path_factory.mktemp("flowable"))) as server:
        yield FlowableDriver(server.start())


@pytest.fixture
def server(engine):
    """The running Flowable."""
    return engine.server


def ask(engine, instance, **settings):
    """The instance, as a client with these settings reads it."""
    with closing(FlowableClient(replace(engine.config(), **settings))) as client:
        found = client.instance(instance)
    assert isinstance(found, FinishedInstance)
    return found


class TestContract(EngineClientContract):
    """The suite of flowhooks, against the real engine."""


def test_approved_and_rejected_ends_are_completed(engine, server):
    """Both complete; the end event tells them apart."""
    for way in ("approved", "rejected"):
        instance = server.start_instance("waiting")
        server.complete(instance, way=way)
        found = ask(engine, instance, conclusion_from="end_event")
        assert (found.end_state, found.conclusion) == (EndState.COMPLETED, way)


def test_a_deleted_instance_is_cancelled(engine, server):
    """Deleting an instance cancels it, whatever reason is given, even the words of a terminate end event."""
    for reason in ("不再需要", "terminate end event (stopped)", "ERROR_EVENT fraud"):
        instance = server.start_instance("waiting")
        server.cancel(instance, reason)
        assert ask(engine, instance).end_state is EndState.CANCELLED


@pytest.mark.parametrize(
    ("way", "state", "callers_end"),
    [
        ("approved", EndState.COMPLETED, "called"),
        ("error", EndState.ERROR, "failed"),
        ("terminate", EndState.TERMINATED, "called"),
    ],
)
def test_a_called_instance_has_its_own_end(engine, server, way, state, callers_end):
    """The end of a called instance is its own; its caller completes."""
    caller = server.start_instance("caller")
    child = server.called(caller)
    server.complete(child, way=way)
    assert (ask(engine, child).end_state, ask(engine, child).parent_id) == (state, caller)
    found = ask(engine, caller, conclusion_from="end_event")
    assert (found.end_state, found.conclusion) == (EndState.COMPLETED, callers_end)


def test_a_called_instance_that_its_caller_ends(engine, server):
    """A terminate end event of the caller cancels the called instance."""
    caller = server.start_instance("stopping_caller")
    child = server.called(caller)
    server.complete(caller)
    assert ask(engine, caller).end_state is EndState.TERMINATED
    assert ask(engine, child).end_state is EndState.CANCELLED


def test_a_called_instance_that_is_deleted_with_its_caller(engine, server):
    """Both are cancelled."""
    caller = server.start_instance("caller")
    child = server.called(caller)
    server.cancel(caller)
    assert {ask(engine, instance).end_state for instance in (caller, child)} == {EndState.CANCELLED}


def test_a_called_instance_uses_no_variables_of_its_caller(engine, server):
    """The class of a called instance is that of its own diagram, and it has no conclusion of its caller."""
    given = {"ownClass": "com.example.OfTheCaller", "conclusion": "approved"}
    caller = server.start_instance("giving_caller", variables=given)
    child = server.called(caller)
    server.complete(child, way="rejected")
    found = ask(engine, child, class_variable="ownClass")
    assert (found.callback_class, found.conclusion) == ("com.example.Waiting", None)
    found = ask(engine, caller, class_variable="ownClass")
    assert (found.callback_class, found.conclusion) == ("com.example.OfTheCaller", "approved")


def test_a_data_object_is_a_variable(engine, server):
    """A data object of the diagram is the class, as in the listeners of the pages."""
    instance = server.start_instance("waiting")
    server.complete(instance, way="approved")
    assert ask(engine, instance, class_variable="ownClass").callback_class == "com.example.Waiting"


def test_the_business_status_is_the_conclusion(engine, server):
    """The business status can be the conclusion."""
    instance = server.start_instance("waiting")
    server.command("status", instance, "GRANTED")
    server.complete(instance, way="approved")
    assert ask(engine, instance, conclusion_from="business_status").conclusion == "GRANTED"


def test_a_page_larger_than_the_response_limit_is_read_in_parts(engine, server, monkeypatch):
    """Answers that would be too large are asked for in parts; nothing is missing."""
    monkeypatch.setattr("flowhooks_flowable.rest_api.MAX_RESPONSE_BYTES", 50_000)
    expected = set()
    before = datetime.now(UTC) - timedelta(seconds=1)
    for number in range(6):
        instance = server.start_instance("waiting", variables={"text": str(number) * 3900, "other": "x" * 3900})
        server.complete(instance, way="approved")
        expected.add(instance)
    with closing(FlowableClient(replace(engine.config(), variables=("text",)))) as client:
        found, cursor = {}, None
        while True:
            page = client.finished(before, datetime.now(UTC) + timedelta(seconds=1), cursor)
            found |= {instance.id: instance for instance in page.instances}
            cursor = page.cursor
            if cursor is None:
                break
    assert expected <= found.keys()
    assert {len(found[instance].variables["text"]) for instance in expected} == {3900}


@pytest.mark.parametrize(("level", "words"), [("none", "history of its instances")])
def test_a_history_level_that_is_too_low(tmp_path, level, words):
    """`check` tells what to set if the engine does not keep what is needed."""
    class_path()
    with closing(FlowableServer(tmp_path, f"--flowable.history-level={level}")) as server:
        driver = FlowableDriver(server.start())
        with closing(driver.client(driver.config())) as client:
            assert client.check().problem == ""  # nothing runs yet
            server.start_instance("waiting", variables={"text": "a"})
            assert words in client.check().problem
