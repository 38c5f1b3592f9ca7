"""Results of receivers are checked and copied before anybody uses them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from flowhooks import ReceivedCallback, ReceivedRequest, ReceiverResponse, hookimpl
from flowhooks.errors import MalformedRequest

REQUEST = ReceivedRequest(method="POST", query={}, headers={}, body=b"", received_at=datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def call(load):
    """A function that returns the checked result of a receiver that returns `result`."""

    def call(result):
        plugins = load(one=SimpleNamespace(receive_request=hookimpl(lambda request: result)))
        return plugins.receivers.call("one", "s", REQUEST)

    return call


def callback(**given):
    return ReceivedCallback(**({"flow_instance_id": "i1"} | given))


def test_plugins_without_the_hook_are_no_receivers(load):
    """Only plugins with the hook can be named as a receiver."""
    plugins = load(one=SimpleNamespace(event_accepted=hookimpl(lambda event: None)))
    assert plugins.receivers.names == frozenset()
    with pytest.raises(KeyError):
        plugins.receivers.call("one", "s", REQUEST)


@pytest.mark.parametrize("result", [None, ReceiverResponse(), ReceiverResponse(status=503, body=b"later", rule="busy")])
def test_none_and_valid_responses_are_returned(call, result):
    """None and a valid response are returned as they are."""
    assert call(result) == result


def test_receiver_exceptions_are_raised(load):
    """An exception of the plugin reaches the caller."""

    def receive_request(request):
        raise SystemExit(3)

    plugins = load(one=SimpleNamespace(receive_request=hookimpl(receive_request)))
    with pytest.raises(SystemExit):
        plugins.receivers.call("one", "s", REQUEST)


@pytest.mark.parametrize(
    ("result", "says"),
    [
        ({"flow_instance_id": "i1"}, "receive_request() returned a value of the type dict"),
        (True, "receive_request() returned a value of the type bool"),
        (callback(flow_instance_id=7), "flow_instance_id is of the type int, not a str"),
        (callback(kind=None), "kind is of the type NoneType"),
        (callback(data=[("a", 1)]), "data is of the type list, not a mapping"),
        (callback(data="ab"), "data is of the type str"),
        (callback(data=None), "data is of the type NoneType"),
        (callback(data={"at": datetime(2026, 1, 1, tzinfo=UTC)}), "datetime is not JSON serializable"),
        (callback(data={"raw": b"x"}), "bytes is not JSON serializable"),
        (callback(response={"code": 0}), "response is of the type dict"),
        (callback(response=ReceiverResponse(body="ok")), "body is of the type str, not bytes"),
        (ReceiverResponse(status="200"), "status is of the type str, not an int"),
        (ReceiverResponse(status=True), "status is of the type bool"),
        (ReceiverResponse(media_type=None), "media_type is of the type NoneType"),
        (ReceiverResponse(rule=3), "rule is of the type int"),
    ],
)
def test_results_of_a_wrong_type(call, result, says):
    """A value of a wrong type is a TypeError, which names the type and not the value."""
    with pytest.raises(TypeError) as raised:
        call(result)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    "result",
    [
        *(ReceiverResponse(status=status) for status in (0, 99, 101, 199, 300, 302, 404, 409, 500, 502, 600)),
        ReceiverResponse(status=204, body=b"{}"),
        ReceiverResponse(media_type=""),
        ReceiverResponse(media_type="text/plain\r\nSet-Cookie: a=b"),
        ReceiverResponse(media_type="text/plain; charset=ü"),
        callback(response=ReceiverResponse(status=503)),
    ],
)
def test_results_with_a_wrong_value(call, result):
    """A status or a media type that cannot be sent is a ValueError."""
    with pytest.raises(ValueError, match=r"status|media_type"):
        call(result)


def test_a_get_request_gives_no_callback(load):
    """A GET stores nothing, so a callback made of it is a ValueError; a response to a handshake is returned."""
    results = [callback(), ReceiverResponse()]
    plugins = load(one=SimpleNamespace(receive_request=hookimpl(lambda request: results.pop(0))))
    get = replace(REQUEST, method="GET")
    with pytest.raises(ValueError, match="GET"):
        plugins.receivers.call("one", "s", get)
    assert plugins.receivers.call("one", "s", get) == ReceiverResponse()


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "data",
    [
        {"a": "\0"},
        {"a": "\ud800"},
        {"\ud800": 1},
        {1: "a", "1": "b"},
        {"amount": float("nan")},
        {"amount": float("inf")},
    ],
    ids=["nul", "surrogate", "name", "duplicate", "nan", "infinity"],
)
def test_data_invalid_in_a_body(call, data):
    """Data that no database can store is an error of the request, as in the body of a callback."""
    with pytest.raises(MalformedRequest):
        call(callback(data=data))


@pytest.mark.parametrize("levels", [64, 2_000, 200_000])
def test_too_deeply_nested_data(call, levels):
    """Data that are nested too deeply are an error of the request, as in the body of a callback."""
    with pytest.raises(MalformedRequest):
        call(callback(data=nested(levels)))


def test_the_data_are_a_copy(call):
    """Changes that the plugin makes later do not reach the callback; members that are null are absent."""
    inner = {"items": [1, None], "none": None, "whole": 2.0}
    data = call(callback(data={"order": inner})).data
    inner["items"].append(2)
    assert data == {"order": {"items": [1, None], "whole": 2}}
    assert isinstance(data["order"]["whole"], int)


@pytest.mark.parametrize(
    ("rule", "stored"),
    [
        ("status PENDING", "status PENDING"),
        ("", "answered by the receiver"),
        (" \n ", "answered by the receiver"),
        ("a\0b\x1b[31m\ud800", "a\ufffdb\ufffd[31m\ufffd"),
        ("x" * 101, "x" * 99 + "…"),
    ],
)
def test_names_of_ignore_rules(call, rule, stored):
    """The name of an ignore rule is one short printable line."""
    assert call(ReceiverResponse(rule=rule)).rule == stored
