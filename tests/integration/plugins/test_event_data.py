"""Deliveries whose data violates the plugin's schema, and secrets in the texts of attempts, in a whole app."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from flowhooks import Outcome, OutcomeKind, Reject, Retry, RetryAfter, State, handler, hookimpl
from flowhooks.web.callback.openapi import openapi
from support.run_bulk import replay

pytestmark = pytest.mark.either

SECRET = "hunter2-värde"
AMOUNT = {"properties": {"amount": {"type": "integer"}}, "required": ["amount"]}


@pytest.fixture
def with_schemas(tmp_path, make_plugin):
    """A function that makes a plugin of handlers with schema files, given by path."""

    def make(*handlers, name="p", **files):
        folder = tmp_path / f"{name}-schemas"
        folder.mkdir(exist_ok=True)
        for path, schema in files.items():
            file = folder / f"{path}.schema.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(schema))
        return make_plugin(*handlers, schemas=lambda: [folder])

    return make


def test_data_that_violates_the_schema_is_rejected(harness, listens, with_schemas):
    """The delivery is dead at once with the violations, even with `retry=`; neither function nor wrapper is entered."""
    entered = []

    @hookimpl(wrapper=True)
    def run_handler(handler):
        entered.append(f"wrapper of {handler.id}")
        return (yield)

    plugin = with_schemas(
        listens(lambda event: entered.append("p"), name="h", retry=Retry()), **{"data/key/leave": AMOUNT}
    )
    flow = harness.open(plugins={"p": plugin, "w": SimpleNamespace(run_handler=run_handler)})
    answer = flow.take(amount="a lot")
    (delivery_status,) = answer.delivery_statuses
    assert (delivery_status.state, delivery_status.outcome, delivery_status.attempt) == (
        State.DEAD,
        OutcomeKind.REJECTED,
        1,
    )
    assert delivery_status.error == (
        "the data does not match data/key/leave.schema.json: /amount: must be of type integer"
    )
    (attempt,) = flow.app.ledger.attempts(delivery_status.delivery_id)
    assert (attempt.error, attempt.traceback, attempt.result) == (delivery_status.error, "", None)
    assert entered == []
    assert flow.take("i2", amount=3).delivery_statuses[0].state is State.SUCCEEDED
    assert entered == ["wrapper of p:h", "p"]


def test_a_schema_applies_only_to_its_own_plugin(harness, listens, with_schemas, make_plugin, eventually):
    """A schema applies to all handlers of its own plugin and to no others."""
    ran = []
    own = [
        listens(lambda event: ran.append("own h"), name="h"),
        listens(lambda event: ran.append("own every"), name="e", every=True),
    ]
    strict = with_schemas(*own, **{"data/key/leave": AMOUNT})
    other = with_schemas(
        listens(lambda event: ran.append("other"), name="h"), name="o", **{"data/key/leave": {"required": ["other"]}}
    )
    third = make_plugin(listens(lambda event: ran.append("third"), name="h"))
    flow = harness.open(plugins={"strict": strict, "other": other, "third": third})
    answer = flow.take(other=1)
    states = eventually(
        lambda: (
            {
                delivery_status.handler: delivery_status.state
                for delivery_status in flow.delivery_statuses(answer.event_id)
            }
            if all(
                delivery_status.state in {State.DEAD, State.SUCCEEDED}
                for delivery_status in flow.delivery_statuses(answer.event_id)
            )
            else None
        )
    )
    assert states == {
        "strict:h": State.DEAD,
        "strict:e": State.DEAD,
        "other:h": State.SUCCEEDED,
        "third:h": State.SUCCEEDED,
    }
    assert sorted(ran) == ["other", "third"]


def test_a_schema_applies_to_the_class_or_key(harness, with_schemas):
    """A schema applies to the event's class or key, also a key taken from a definition id."""
    files = {"data/class/com.Leave": {"required": ["a"]}, "data/key/leave": {"required": ["b"]}}
    both = handler(callback_class="com.Leave", process_key="leave", name="h")(lambda event: None)
    flow = harness.open(plugins={"p": with_schemas(both, **files)})

    def refused(instance, **call):
        (delivery_status,) = flow.take(instance, **call).delivery_statuses
        return [name for name in ("com.Leave", "leave") if f"/{name}.schema.json" in delivery_status.error]

    assert refused("i1", callback_class="com.Leave") == ["com.Leave", "leave"]
    assert refused("i2", callback_class="com.Leave", a=1) == ["leave"]
    assert refused("i3", callback_class="com.Leave", a=1, b=1) == []
    assert refused("i4", key=None, processDefinitionId="leave:3:abc") == ["leave"]
    assert refused("i5", key=None, callback_class="com.Leave") == ["com.Leave"]


def test_a_repeat_of_a_rejected_body_gets_the_stored_error(harness, listens, with_schemas):
    """A repeat of the same body gets the stored refusal."""
    flow = harness.open(
        plugins={"p": with_schemas(listens(lambda event: None, name="h", retry=Retry()), **{"data/key/leave": AMOUNT})}
    )
    first = flow.take()
    flow.advance(3600)
    again = flow.take()
    assert again.event_id == first.event_id
    assert [(delivery_status.state, delivery_status.attempt) for delivery_status in again.delivery_statuses] == [
        (State.DEAD, 1)
    ]


def test_replay_after_the_schema_was_fixed(harness, listens, with_schemas):
    """After a fix of a wrong schema and a restart, the delivery can be replayed."""
    ran = []
    work = listens(lambda event: ran.append(event.data["amount"]), name="h")
    flow = harness.open(plugins={"p": with_schemas(work, **{"data/key/leave": AMOUNT})})
    event_id = flow.take(amount="1.5").event_id
    assert flow.only(event_id).state is State.DEAD
    flow.close()
    repaired = {"properties": {"amount": {"type": "string"}}}
    flow = harness.open(plugins={"p": with_schemas(work, **{"data/key/leave": repaired})})
    assert flow.only(event_id).state is State.DEAD
    replay(flow.app.operation_context)
    assert flow.settled(event_id, State.SUCCEEDED).attempt == 2
    assert ran == ["1.5"]


def test_the_published_contract_does_not_change(harness, listens, with_schemas):
    """One plugin's requirements for its own deliveries are not part of the contract for engines."""
    before = harness.open(listens(lambda event: None, name="h"))
    published = openapi(before.app.schemas)
    before.close()
    files = {"data/key/leave": AMOUNT, "data/money": {}, "settings": {}}
    after = harness.open(plugins={"p": with_schemas(listens(lambda event: None, name="h"), **files)})
    assert openapi(after.app.schemas) == published


@pytest.fixture
def secretive(harness, make_plugin, listens):
    """A function that opens an App whose plugin `p` has a secret, and a handler or hooks that use it."""

    def go(work, *, wrapper=None, **declared):
        kept = {}

        def configure(settings):
            kept.update(settings)

        plugin = make_plugin(listens(lambda event: work(kept["token"]), name="h", **declared), configure=configure)
        plugins = {"p": plugin} | ({"w": SimpleNamespace(run_handler=wrapper)} if wrapper else {})
        return harness.open(plugins=plugins, sections={"p": {"token": {"env": "TOKEN"}}}, environ={"TOKEN": SECRET})

    return go


@pytest.fixture
def nowhere(harness, eventually, logged):
    """A function that checks that the secret is not stored, answered or logged; returns the delivery's state."""

    def look(flow, answer):
        def failed():
            return next(
                (
                    delivery_status
                    for delivery_status in flow.delivery_statuses(answer.event_id)
                    if delivery_status.error
                ),
                None,
            )

        delivery_status = eventually(failed)
        assert "…" in delivery_status.error
        attempts = flow.app.ledger.attempts(delivery_status.delivery_id)
        assert "hunter2" not in repr((answer, delivery_status, attempts, logged))
        flow.close()
        for file in harness.folder.glob("flowhooks.db*"):
            assert SECRET.encode() not in file.read_bytes()
        return delivery_status

    return look


def raising(kind, *, text="no answer from https://me:{}@example.com"):
    """A handler function that raises an error with its secret in the text."""

    def work(secret):
        raise kind(text.format(secret)) from LookupError(secret)

    return work


@pytest.mark.parametrize(
    "kind",
    [ValueError, Reject, KeyError, SystemExit, lambda text: RetryAfter(5, text)],
    ids=["ValueError", "Reject", "KeyError", "SystemExit", "RetryAfter"],
)
def test_a_handler_error_contains_no_secret(kind, secretive, nowhere, request):
    """Ledger, answer and log have `…` where the exception had the plugin's secret."""
    flow = secretive(raising(kind))
    answer = flow.take(wait=0 if "RetryAfter" in request.node.name else 20)
    delivery_status = nowhere(flow, answer)
    assert "no answer from https://me:…@example.com" in delivery_status.error


def test_a_long_error_is_masked_before_truncation(secretive, nowhere):
    """A secret is masked before the text is cut, because half of it would not be found later."""
    text = "x" * 980 + "{}" + "y" * 3000
    flow = secretive(raising(ValueError, text=text))
    nowhere(flow, flow.take())


@pytest.mark.parametrize("before", [True, False])
def test_a_wrapper_error_contains_no_secret(before, secretive, nowhere):
    """A secret in an error of another plugin's wrapper is masked, before or after the function."""

    @hookimpl(wrapper=True)
    def run_handler(handler):
        if before:
            raise ConnectionError(f"refused {SECRET}")
        yield
        raise ConnectionError(f"refused {SECRET}")

    flow = secretive(lambda secret: None, wrapper=run_handler)
    answer = flow.take(wait=0 if before else 20)
    assert "ConnectionError: refused …" in nowhere(flow, answer).error


def test_a_wrapper_outcome_contains_no_secret(secretive, nowhere):
    """An outcome that a plugin created is masked too."""

    @hookimpl(wrapper=True)
    def run_handler(handler):
        yield
        return Outcome(kind=OutcomeKind.FAILED, error=f"refused {SECRET}", traceback=f"at {SECRET}")

    flow = secretive(lambda secret: None, wrapper=run_handler)
    nowhere(flow, flow.take())


def test_a_handler_result_contains_no_secret(secretive, harness):
    """A handler's result is stored and shown with `…` in place of a secret, and is still JSON."""
    flow = secretive(lambda secret: {"sent": [f"as {secret}", 3], secret: "已归档 \0\ud800"})
    (delivery_status,) = flow.take().delivery_statuses
    (attempt,) = flow.app.ledger.attempts(delivery_status.delivery_id)
    assert attempt.result == '{"sent": ["as …", 3], "…": "已归档 \\u0000\\ud800"}'
    flow.close()
    for file in harness.folder.glob("flowhooks.db*"):
        assert b"hunter2" not in file.read_bytes()


def test_numbers_in_a_result_are_not_masked(harness, make_plugin, listens):
    """A secret of digits is masked in strings, but not in numbers, so that results stay readable."""
    plugin = make_plugin(
        listens(lambda event: {"pin": "4711", "number": 47110}, name="h"), configure=lambda settings: None
    )
    flow = harness.open(plugins={"p": plugin}, sections={"p": {"pin": {"env": "PIN"}}}, environ={"PIN": "4711"})
    (delivery_status,) = flow.take().delivery_statuses
    (attempt,) = flow.app.ledger.attempts(delivery_status.delivery_id)
    assert json.loads(attempt.result) == {"pin": "…", "number": 47110}
