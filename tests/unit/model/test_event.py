"""Events made from bodies, and the equality of two bodies."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.model.event import FIELDS, Event, digest, from_body
from flowhooks.schema import parse

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def make(body, **given_):
    """An event with `body`."""
    defaults = {"id": "e", "source": "default", "kind": "complete", "flow_instance_id": "i", "received_at": NOW}
    return from_body(body, **(defaults | given_))


def test_a_full_body():
    """Each of the six members has its attribute, and the whole body is kept."""
    body = {
        "businessKey": "b",
        "callBackProcessClass": "com.x.Y",
        "processDefinitionId": "other:7:uuid",
        "processDefinitionKey": "leave",
        "processDefinitionVersion": 3,
        "conclusion": "approved",
        "extra": [1],
    }
    event = make(body, id="e1", source="hr", kind="cancel", flow_instance_id="i1")
    assert event == Event(
        id="e1",
        source="hr",
        kind="cancel",
        flow_instance_id="i1",
        business_key="b",
        callback_class="com.x.Y",
        process_definition_id="other:7:uuid",
        process_definition_key="leave",
        process_definition_version=3,
        conclusion="approved",
        data=body,
        received_at=NOW,
    )
    assert {FIELDS[name]: getattr(event, FIELDS[name]) for name in FIELDS} == {
        FIELDS[name]: body[name] for name in FIELDS
    }


def test_an_empty_body():
    """An absent member is None."""
    event = make({})
    assert [getattr(event, attribute) for attribute in FIELDS.values()] == [None] * 6
    assert event.data == {}


def test_empty_strings_count_as_absent():
    """An empty string, which engines send for unconfigured members, counts as absent."""
    event = make({"callBackProcessClass": "", "processDefinitionKey": "", "businessKey": ""})
    assert (event.callback_class, event.process_definition_key, event.business_key) == (None, None, "")


@pytest.mark.parametrize(
    ("body", "key", "version"),
    [
        ({"processDefinitionId": "leave:3:0b2c-11"}, "leave", 3),
        ({"processDefinitionId": "leave:3:0b2c-11", "processDefinitionKey": ""}, "leave", 3),
        ({"processDefinitionId": "leave:3:0b2c-11", "processDefinitionKey": "other"}, "other", 3),
        ({"processDefinitionId": "leave:3:0b2c-11", "processDefinitionVersion": 4}, "leave", 4),
        ({"processDefinitionId": "leave:3:0b2c-11", "processDefinitionVersion": 0}, "leave", 0),
        ({"processDefinitionId": "leave:2147483647:0b2c-11"}, "leave", 2**31 - 1),
        ({"processDefinitionId": "leave:2147483648:0b2c-11"}, "leave", None),
        ({"processDefinitionId": f"leave:{'9' * 5000}:0b2c-11"}, "leave", None),
        ({"processDefinitionId": "leave:\u0663:0b2c-11"}, None, None),
        ({"processDefinitionId": "0b2c-11"}, None, None),
        ({"processDefinitionId": "leave:three:0b2c-11"}, None, None),
        ({"processDefinitionId": "leave:3:"}, None, None),
        ({"processDefinitionId": ":3:0b2c-11"}, None, None),
        ({"processDefinitionId": "a:b:3:0b2c-11"}, None, None),
        ({"processDefinitionId": ""}, None, None),
    ],
)
def test_key_and_version_default_to_the_definition_id(body, key, version):
    """An absent key or version is read only from `key:version:uuid`."""
    event = make(body)
    assert (event.process_definition_key, event.process_definition_version) == (key, version)


@pytest.mark.parametrize(
    ("sent", "conclusion"),
    [({"conclusion": "agree"}, "approved"), ({"conclusion": "other"}, "other"), ({"conclusion": ""}, None), ({}, None)],
)
def test_conclusions_are_mapped_by_the_table_of_the_source(sent, conclusion):
    """A source's table maps its conclusions; others do not change, and the data keeps the original."""
    event = make(sent, conclusions={"agree": "approved", "": "never"})
    assert event.conclusion == conclusion
    assert event.data == sent


def test_named_members_count_even_if_ignored_by_a_setting():
    """Business key, conclusion and version always count, even if a setting ignores them."""
    base = {"businessKey": "b", "conclusion": "approved", "processDefinitionVersion": 1, "time": 1}
    ignore = ("/businessKey", "/conclusion", "/processDefinitionVersion", "/time")
    same = digest(base, ignore)
    assert digest(base | {"time": 2}, ignore) == same
    for changed in ({"businessKey": "c"}, {"conclusion": "rejected"}, {"processDefinitionVersion": 2}):
        assert digest(base | changed, ignore) != same
    assert digest({name: base[name] for name in base if name != "conclusion"}, ignore) != same


@pytest.mark.parametrize("part", ["01", "\u0661", "-", "2", "x"])
def test_a_pointer_without_an_element_ignores_nothing(part):
    """An index of an array has no leading zero, and digits of ASCII only."""
    body = {"a": [1, 2]}
    assert digest(body, (f"/a/{part}",)) == digest(body) != digest(body, ("/a/1",))


def test_identity_of_an_event():
    """Source, kind, instance and class make an identity; an absent class is `""`."""
    assert make({}, source="hr", kind="k", flow_instance_id="i").identity == ("hr", "k", "i", "")
    assert make({"callBackProcessClass": "C", "businessKey": "b"}).identity == ("default", "complete", "i", "C")


def test_an_event_cannot_be_changed():
    """Events are immutable."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        make({}).source = "other"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def reordered(value):
    """The same JSON value with every object's members in reverse order."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), json_values, max_size=4))
def test_order_of_keys_does_not_change_the_digest(body):
    """The same values in another order are the same body."""
    assert digest(body) == digest(reordered(body))


@pytest.mark.parametrize(
    ("body", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"b": 1}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": {}}, {"a": []}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1}, {"a": 1.5}),
        ({"a": "é"}, {"a": "e\u0301"}),
    ],
)
def test_different_values_change_the_digest(body, other):
    """Any difference in JSON gives another digest."""
    assert digest(body) != digest(other)


def test_a_digest_is_stable():
    """A body has the same digest in every version, because the ledger keeps digests forever."""
    body = {"名": "合同", "a": [1, {"c": True, "b": None}], "f": 0.5}
    canonical = '{"a":[1,{"b":null,"c":true}],"f":0.5,"名":"合同"}'
    assert digest(body) == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("body", "other"),
    [
        (b'{"a": 1.0, "b": 2}', b'{"b":2,"a":1}'),
        (b'{"a": 1e2}', b'{"a": 100}'),
        (b'{"a": [-0.0]}', b'{"a": [0]}'),
        (b'{"a": "\\u00e9", "b": null}', '{"a": "é"}'.encode()),
    ],
)
def test_equal_json_values_in_different_text_have_one_digest(body, other):
    """Bodies are compared as JSON values, not as text."""
    assert digest(parse(body)) == digest(parse(other))


@pytest.mark.parametrize(
    ("pointer", "body", "other"),
    [
        ("/sentAt", {"a": 1, "sentAt": 1}, {"a": 1, "sentAt": 2}),
        ("/sentAt", {"a": 1, "sentAt": 1}, {"a": 1}),
        ("/meta/sentAt", {"meta": {"sentAt": 1, "x": 1}}, {"meta": {"sentAt": 2, "x": 1}}),
        ("/items/1/at", {"items": [{"at": 1}, {"at": 2}]}, {"items": [{"at": 1}, {"at": 3}]}),
        ("/items/1", {"items": [1, 2, 3]}, {"items": [1, 9, 3]}),
        ("/a~1b", {"a/b": 1}, {"a/b": 2}),
        ("/a~0b", {"a~b": 1}, {"a~b": 2}),
        ("/a~01b", {"a~1b": 1}, {"a~1b": 2}),
        ("/", {"": 1}, {"": 2}),
        ("", {"a": 1}, {"b": 2}),
    ],
)
def test_ignored_members_do_not_change_the_digest(pointer, body, other):
    """Two bodies that differ only at an ignored JSON Pointer are equal."""
    assert digest(body) != digest(other)
    assert digest(body, [pointer]) == digest(other, [pointer])


@pytest.mark.parametrize("pointer", ["/b", "/a/b/c", "/list/7", "/list/x", "/list/-", "/text/0", "/list/7/x"])
def test_a_pointer_without_a_match_does_not_change_the_digest(pointer):
    """A body without the ignored member has its normal digest."""
    body = {"a": {"x": 1}, "list": [1], "text": "t"}
    assert digest(body, [pointer]) == digest(body)


def test_ignored_indexes_do_not_shift_other_indexes():
    """Ignoring one index of a list does not shift the others."""
    assert digest({"a": [1, 2, 3]}, ["/a/0", "/a/1"]) == digest({"a": [8, 9, 3]}, ["/a/0", "/a/1"])
    assert digest({"a": [1, 2, 3]}, ["/a/0", "/a/1"]) != digest({"a": [8, 9, 4]}, ["/a/0", "/a/1"])


def test_ignored_members_stay_in_the_stored_body():
    """The stored body keeps the members that the digest ignores."""
    body = {"a": {"at": 1}, "list": [1]}
    before = copy.deepcopy(body)
    digest(body, ["/a/at", "/list/0", ""])
    assert body == before
