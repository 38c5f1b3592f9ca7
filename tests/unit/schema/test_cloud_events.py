"""CloudEvents 1.0 in the structured, the binary and the batch mode of the HTTP protocol binding."""

from __future__ import annotations

import base64
import contextlib
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.errors import CallbackRejected, InvalidCallback, MalformedRequest
from flowhooks.schema.cloud_events import MAX_BATCH, is_binary, parse_batch, parse_binary, parse_structured
from flowhooks.schema.strict_json import MAX_DEPTH

EVENT = {
    "specversion": "1.0",
    "type": "com.example.someevent",
    "source": "/mycontext",
    "subject": None,
    "id": "C234-1234-1234",
    "time": "2018-04-05T17:31:00Z",
    "comexampleextension1": "value",
    "comexampleothervalue": 5,
    "datacontenttype": "application/json",
    "data": {"appinfoA": "abc", "appinfoB": 123, "appinfoC": True},
}
"""The example of the JSON format, with an attribute that is not set."""
WITHOUT_NULL = {name: value for name, value in EVENT.items() if value is not None}
HEADERS = {
    "HTTP_CE_SPECVERSION": "1.0",
    "HTTP_CE_TYPE": "com.example.someevent",
    "HTTP_CE_SOURCE": "/mycontext",
    "HTTP_CE_ID": "C234-1234-1234",
    "HTTP_CE_TIME": "2018-04-05T17:31:00Z",
    "HTTP_CE_COMEXAMPLEEXTENSION1": "value",
    "HTTP_CE_COMEXAMPLEOTHERVALUE": "5",
    "CONTENT_TYPE": "application/json",
}
"""The same event in the binary mode, as WSGI names its headers."""
KOGITO = {
    "specversion": "1.0",
    "id": "21979449-298c-4e0b-b4c2-2ab5d6bb2c6e",
    "source": "http://localhost:8080/travels",
    "type": "ProcessInstanceStateDataEvent",
    "time": "2026-11-27T08:00:00.123456Z",
    "kogitoprocinstanceid": "4de3a5a7-8c8c-4b56-a4b7-b2d76ac32a64",
    "kogitoprocid": "travels",
    "kogitoprocversion": "1.0",
    "data": {
        "eventType": 2,
        "state": 2,
        "businessKey": "T-7",
        "processInstanceId": "4de3a5a7-8c8c-4b56-a4b7-b2d76ac32a64",
    },
}
"""The completion of a Kogito process instance."""


def sent(event):
    """An event as a body."""
    return json.dumps(event).encode()


def in_base64(data):
    """The event with this data in Base64."""
    event = {name: value for name, value in WITHOUT_NULL.items() if name != "data"}
    return parse_structured(sent({**event, "data_base64": base64.b64encode(data).decode()}))


def violations(call, *arguments):
    """The pointers and keys of the violations for which a call refuses an event."""
    with pytest.raises(InvalidCallback) as caught:
        call(*arguments)
    assert caught.value.key == "cloudevent_refused"
    assert caught.value.text("zh")
    return [(pointer, key) for pointer, key, _ in caught.value.violations]


@pytest.mark.parametrize("event", [WITHOUT_NULL, KOGITO], ids=["example", "Kogito"])
def test_structured_mode(event):
    """The attributes, extensions among them, are beside the data as they were sent."""
    assert parse_structured(sent(event)) == event


def test_an_attribute_that_is_null_is_not_set():
    """An attribute that is null counts as absent, also in the data."""
    assert parse_structured(sent(EVENT)) == WITHOUT_NULL
    assert "data" not in parse_structured(sent({**EVENT, "data": None}))


@pytest.mark.parametrize("data", [{"a": [None]}, [1, {"a": 1}], "I'm just a string", 1.5, True, ""])
def test_data_may_be_any_json(data):
    """The data of both modes may be any JSON value."""
    assert parse_structured(sent({**EVENT, "data": data}))["data"] == data
    assert parse_binary(HEADERS, sent(data))["data"] == data


def test_binary_mode():
    """The headers are the attributes, and the body is the data."""
    assert parse_binary(HEADERS, sent(EVENT["data"])) == {**WITHOUT_NULL, "comexampleothervalue": "5"}


@pytest.mark.parametrize("body", [b"", b" \r\n", b"null"])
def test_binary_without_data(body):
    """An event without a body, or with null, has no data."""
    assert "data" not in parse_binary(HEADERS, body)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ("%41%42", "AB"),
        ("a b", "a b"),
        ("a+b", "a+b"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%2541", "%41"),
        ('"a%20b"', "a b"),
        (r'"say \"hi\" \\ \%41"', r'say "hi" \ A'),
        ('""', ""),
        ('"open', '"open'),
        ('"a"b"', '"a"b"'),
        ('a"b"', 'a"b"'),
        ("你".encode().decode("latin-1"), "你"),
    ],
)
def test_values_of_headers(value, text):
    """A value is unquoted, then percent-decoded once, as UTF-8."""
    assert parse_binary({**HEADERS, "HTTP_CE_SUBJECT": value}, b"")["subject"] == text


@pytest.mark.parametrize("value", ["%C0%A0", "%FF", "%E4%BD", "%ED%A0%80", "\xff", "a%00", "\x00", "\u20ac"])
def test_headers_that_are_not_utf8(value):
    """A value that is not UTF-8, or that no database can store, is refused."""
    with pytest.raises(MalformedRequest) as caught:
        parse_binary({**HEADERS, "HTTP_CE_SUBJECT": value}, b"")
    assert caught.value.key == "cloudevent_header"


def test_headers_with_names_of_attributes():
    """Only headers whose names can be those of attributes are taken; the body alone is the data."""
    headers = {
        **HEADERS,
        "HTTP_CE_DATA": "x",
        "HTTP_CE_DATA_BASE64": "x",
        "HTTP_CE_MY_EXTENSION": "x",
        "HTTP_CE_": "x",
        "HTTP_X_CE_ID": "x",
        "CE_ID": "x",
        "HTTP_ACE_ID": "x",
        "HTTP_CE_TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "HTTP_CE_DATACONTENTTYPE": "text/plain",
        "REQUEST_METHOD": "POST",
    }
    assert parse_binary(headers, b"") == {
        **{name: value for name, value in WITHOUT_NULL.items() if name != "data"},
        "comexampleothervalue": "5",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }


def test_without_a_content_type():
    """Without a Content-Type, the data is read as JSON all the same."""
    headers = {name: value for name, value in HEADERS.items() if name != "CONTENT_TYPE"}
    event = parse_binary(headers, b'{"xyz": 123}')
    assert event["data"] == {"xyz": 123}
    assert "datacontenttype" not in event


def test_detection_of_the_binary_mode():
    """An event is in the binary mode if its version is a header."""
    assert is_binary(HEADERS)
    assert not is_binary({"CONTENT_TYPE": "application/cloudevents+json"})


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
@pytest.mark.parametrize("value", ["absent", None, "", 1, True, [], {}])
def test_required_attributes(name, value):
    """Each required attribute must be a text that is not empty, in each mode."""
    event = {key: item for key, item in EVENT.items() if key != name} | ({} if value == "absent" else {name: value})
    assert violations(parse_structured, sent(event)) == [(f"/{name}", "cloudevent.no_text")]
    assert violations(parse_batch, sent([EVENT, event])) == [(f"/1/{name}", "cloudevent.no_text")]
    headers = {key: item for key, item in HEADERS.items() if key != f"HTTP_CE_{name.upper()}"}
    assert violations(parse_binary, headers, b"") == [(f"/{name}", "cloudevent.no_text")]
    assert violations(parse_binary, {**headers, f"HTTP_CE_{name.upper()}": ""}, b"") == [
        (f"/{name}", "cloudevent.no_text")
    ]


def test_all_violations_are_named():
    """Everything that is wrong with an event is named at once."""
    assert violations(parse_structured, b'{"specversion": "0.3", "data": 1, "data_base64": ""}') == [
        ("/specversion", "cloudevent.version"),
        ("/id", "cloudevent.no_text"),
        ("/source", "cloudevent.no_text"),
        ("/type", "cloudevent.no_text"),
        ("/data_base64", "cloudevent.two_data"),
    ]


@pytest.mark.parametrize("version", ["0.3", "1", "1.", "1.1", "2.0", "1.0 ", "01.0"])
def test_other_versions(version):
    """Only the version 1.0 exists; another one is refused."""
    assert violations(parse_structured, sent({**EVENT, "specversion": version})) == [
        ("/specversion", "cloudevent.version")
    ]


@pytest.mark.parametrize("time", ["2018-04-05T17:31:00.123456789+08:00", "yesterday"])
def test_the_time_is_stored_unchanged(time):
    """The time is kept as it was sent."""
    assert parse_structured(sent({**EVENT, "time": time}))["time"] == time


WITHOUT_DATA = {name: value for name, value in WITHOUT_NULL.items() if name != "data"}
ENCODED = base64.b64encode(b'{"businessKey": "B-7", "none": null}').decode()


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", "text/json", "Application/Vnd.Oa+JSON ; a=b", "a/x.y+json"],
)
def test_json_in_base64_is_decoded(media_type):
    """Data in Base64 that is declared as JSON is decoded, so that pointers reach into it."""
    event = parse_structured(sent({**WITHOUT_DATA, "datacontenttype": media_type, "data_base64": ENCODED}))
    assert event == {**WITHOUT_DATA, "datacontenttype": media_type, "data": {"businessKey": "B-7"}}


@pytest.mark.parametrize("encoded", ["", "IA==", "bnVsbA=="])
def test_no_data_in_base64(encoded):
    """Nothing, white space or null in Base64 is no data."""
    assert parse_structured(sent({**WITHOUT_DATA, "data_base64": encoded})) == WITHOUT_DATA


@pytest.mark.parametrize(
    "media_type", [None, "application/octet-stream", "application/jsonx", "json", "/json", "a/b/json", "a;/json", 5]
)
@pytest.mark.parametrize("encoded", [ENCODED, "no Base64", 5])
def test_other_data_in_base64_is_unchanged(media_type, encoded):
    """Data in Base64 of which nothing says that it is JSON stays as it was sent."""
    event = {**WITHOUT_DATA, "datacontenttype": media_type, "data_base64": encoded}
    assert parse_structured(sent(event)) == {name: value for name, value in event.items() if value is not None}


@pytest.mark.parametrize("encoded", ["no Base64", "e30", "e30=\n", "你好", 5, ["e30="], {"a": 1}, True])
def test_invalid_base64(encoded):
    """Data that is declared as JSON in Base64, but is no Base64, is refused."""
    event = {**WITHOUT_DATA, "data_base64": encoded}
    assert violations(parse_structured, sent(event)) == [("/data_base64", "cloudevent.not_base64")]
    assert violations(parse_batch, sent([event])) == [("/0/data_base64", "cloudevent.not_base64")]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"", "body_empty"),
        (b"[]", "body_not_object"),
        (b"{", "body_not_json"),
        (b'{"id": "\\u0000"}', "string_nul"),
        (sent({**WITHOUT_DATA, "data_base64": base64.b64encode(b'"\\u0000"').decode()}), "string_nul"),
        (sent({**WITHOUT_DATA, "data_base64": base64.b64encode(b"{'a'}").decode()}), "body_not_json"),
    ],
)
def test_bodies_that_are_not_json(body, key):
    """A body or data that is not strict JSON is refused."""
    with pytest.raises(MalformedRequest) as caught:
        parse_structured(body)
    assert caught.value.key == key


@pytest.mark.parametrize("body", [b"<xml/>", b"a=1", b"X", b"\x0b", b'"\\u0000"'])
def test_binary_data_that_is_not_json(body):
    """The data of the binary mode must be strict JSON."""
    with pytest.raises(MalformedRequest):
        parse_binary(HEADERS, body)


@pytest.mark.parametrize("encode", [lambda data: parse_binary(HEADERS, data), in_base64], ids=["binary", "Base64"])
def test_nested_data(encode):
    """The event is a level around its data, so that an event that is stored can be parsed again."""

    def nested(depth):
        return b'{"a": ' * depth + b"1" + b"}" * depth

    event = encode(nested(MAX_DEPTH - 1))
    assert parse_structured(sent(event)) == event
    with pytest.raises(MalformedRequest) as caught:
        encode(nested(MAX_DEPTH))
    assert (caught.value.key, caught.value.params) == ("body_too_deep", {"limit": MAX_DEPTH - 1})


@pytest.mark.parametrize("size", [1, MAX_BATCH])
def test_batch(size):
    """A batch of 1 to 100 events is a list of events, each as in the structured mode."""
    assert parse_batch(sent([EVENT] * size)) == [WITHOUT_NULL] * size


def test_the_example_of_a_batch():
    """Data in Base64 may stand beside JSON data."""
    binary = {**WITHOUT_DATA, "datacontenttype": "application/vnd.apache.thrift.binary", "data_base64": "AAE="}
    encoded = {**WITHOUT_DATA, "data_base64": "eyJhIjogMX0="}
    assert parse_batch(sent([binary, KOGITO, encoded])) == [binary, KOGITO, {**WITHOUT_DATA, "data": {"a": 1}}]


@pytest.mark.parametrize("size", [0, MAX_BATCH + 1])
def test_the_size_of_a_batch(size):
    """An empty batch, and one of more than 100 events, is refused."""
    with pytest.raises(InvalidCallback) as caught:
        parse_batch(sent([EVENT] * size))
    assert (caught.value.key, caught.value.params) == ("batch_size", {"count": size, "limit": 100})


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"", "body_empty"),
        (sent(EVENT), "body_not_array"),
        (b'"a"', "body_not_array"),
        (b"null", "body_not_array"),
        (sent([EVENT, None]), "batch_not_objects"),
        (sent([EVENT, [EVENT]]), "batch_not_objects"),
        (sent([EVENT, "a"]), "batch_not_objects"),
    ],
)
def test_invalid_batches(body, key):
    """A batch is an array of objects."""
    with pytest.raises(MalformedRequest) as caught:
        parse_batch(body)
    assert caught.value.key == key


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(TEXTS)
def test_every_text_of_an_attribute(text):
    """Any text that a sender encodes as the binding says is decoded to the same text."""
    headers = {**HEADERS, "HTTP_CE_SUBJECT": quote(text, safe="!#$&'()*+,/:;=?@[]^`{|}~")}
    assert parse_binary(headers, b"")["subject"] == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=5), items, max_size=3),
)


@given(
    st.dictionaries(
        st.sampled_from([*EVENT, "data_base64", "extension"]), JSON | st.sampled_from([ENCODED, "1.0"]), max_size=12
    )
)
def test_any_object(event):
    """Any object is an event or is refused, never an error."""
    for call, value in ((parse_structured, event), (parse_batch, [event])):
        with contextlib.suppress(CallbackRejected):
            call(sent(value))
