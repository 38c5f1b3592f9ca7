"""Requests to a fixed URL: their media types and formats."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.errors import InvalidCallback, MalformedRequest, UnsupportedMedia
from flowhooks.intake.ingress_request import check_media_type, decode, is_batch
from flowhooks.settings import IngressSettings

FORMATS = {name: IngressSettings(format=name, flow_instance_id=("/id",)) for name in ("json", "form", "cloudevent")}
EVENT = {"specversion": "1.0", "id": "e-1", "source": "/k", "type": "t"}
BINARY = {f"HTTP_CE_{name.upper()}": value for name, value in EVENT.items()}
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


def decoded(name, body, content_type=None, headers=None):
    """The objects of a request to a source of this format."""
    check_media_type(FORMATS[name], content_type, headers or {})
    return decode(FORMATS[name], body=body, content_type=content_type, headers=headers or {})


@pytest.mark.parametrize(
    ("name", "content_type", "headers"),
    [
        ("json", None, {}),
        ("json", "", {}),
        ("json", "application/json", {}),
        ("json", "Application/JSON; charset=UTF-8", {}),
        ("json", 'application/vnd.oa+json;charset="utf-8"', {}),
        ("form", None, {}),
        ("form", "application/x-www-form-urlencoded", {}),
        ("form", "application/x-www-form-urlencoded;charset=utf-8", {}),
        ("cloudevent", STRUCTURED, {}),
        ("cloudevent", f"{STRUCTURED}; charset=UTF-8", {}),
        ("cloudevent", BATCH, {}),
        ("cloudevent", "application/json", BINARY),
        ("cloudevent", None, BINARY),
    ],
)
def test_media_types_of_each_format(name, content_type, headers):
    """Each format has its media types; a missing header is the format of the source."""
    check_media_type(FORMATS[name], content_type, headers)


@pytest.mark.parametrize(
    ("name", "content_type", "headers"),
    [
        ("json", "text/plain", {}),
        ("json", "application/x-www-form-urlencoded", {}),
        ("json", "application/json; charset=gbk", {}),
        ("json", "application/json, application/json", {}),
        ("form", "application/json", {}),
        ("form", "multipart/form-data; boundary=x", {}),
        ("form", "application/x-www-form-urlencoded; charset=GBK", {}),
        ("cloudevent", "application/json", {}),
        ("cloudevent", None, {}),
        ("cloudevent", "application/xml", BINARY),
        ("cloudevent", "application/cloudevents+avro", {}),
    ],
)
def test_an_unsupported_media_type_is_rejected(name, content_type, headers):
    """Any other media type or charset is refused before the body is read, and the message names what to send."""
    with pytest.raises(UnsupportedMedia) as caught:
        decoded(name, b"\xff", content_type, headers)
    assert (content_type or "(none)") in str(caught.value)


def test_parsed_data_of_each_format():
    """JSON and forms are objects; a CloudEvent has its attributes and its data under `data`."""
    assert decoded("json", b'{"id": "p-1", "no": null}') == [{"id": "p-1"}]
    assert decoded("form", b"id=p-1&a=1&a=2&e=") == [{"id": "p-1", "a": ["1", "2"], "e": ""}]
    event = EVENT | {"data": {"id": "p-1"}, "extension": "x"}
    assert decoded("cloudevent", json.dumps(event).encode(), STRUCTURED) == [event]
    binary = decoded(
        "cloudevent",
        b'{"id": "p-1"}',
        "application/json",
        BINARY | {"HTTP_CE_EXTENSION": "x", "CONTENT_TYPE": "application/json"},
    )
    assert binary == [event | {"datacontenttype": "application/json"}]
    several = [EVENT | {"id": str(number)} for number in range(3)]
    assert decoded("cloudevent", json.dumps(several).encode(), BATCH) == several


def test_only_an_array_of_cloudevents_is_a_batch():
    """Only an array of CloudEvents is a batch."""
    assert is_batch(FORMATS["cloudevent"], f"{BATCH}; charset=utf-8")
    assert not is_batch(FORMATS["cloudevent"], STRUCTURED)
    assert not is_batch(FORMATS["json"], BATCH)
    assert not is_batch(FORMATS["cloudevent"], None)


@given(st.binary(max_size=300), st.sampled_from(sorted(FORMATS)), st.sampled_from([None, STRUCTURED, BATCH]))
def test_any_bytes_become_objects_or_are_rejected(body, name, content_type):
    """Any bytes become objects with storable text, or are refused."""
    try:
        objects = decoded(name, body, content_type, BINARY if content_type is None else {})
    except (InvalidCallback, MalformedRequest, UnsupportedMedia):
        return
    assert all(isinstance(json_object, dict) for json_object in objects)
    assert "\\u0000" not in json.dumps(objects)
