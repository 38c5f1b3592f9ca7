"""The mapping of a request to a callback, as [sources.NAME.ingress] defines it."""

from __future__ import annotations

import copy
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.errors import InvalidCallback
from flowhooks.intake.mapping import IgnoredRequest, MappedCallback, map_request
from flowhooks.messages import MESSAGES
from flowhooks.schema import parse
from flowhooks.schema.cloud_events import parse_structured
from flowhooks.schema.form import parse_form
from flowhooks.settings import IngressSettings, ValueTable

KINDS = ValueTable(pointer="/status", values={"1": "ignore", "2": "complete", "4": "cancel"})
RESULTS = ValueTable(pointer="/status", values={"2": "approved", "3": "rejected"})
MEMBERS = {
    "process_definition_key": "processDefinitionKey",
    "process_definition_id": "processDefinitionId",
    "process_definition_version": "processDefinitionVersion",
    "business_key": "businessKey",
    "call_back_process_class": "callBackProcessClass",
}
"""The settings of the mapped members, and the members that they write."""
TEXT_MEMBERS = {name: member for name, member in MEMBERS.items() if name != "process_definition_version"}


def ingress(**given):
    """A mapping in which the id is at /id."""
    return IngressSettings(**{"format": "json", "flow_instance_id": ("/id",), **given})


def mapped(members, **given):
    """The callback of a request."""
    result = map_request(ingress(**given), members)
    assert isinstance(result, MappedCallback)
    return result


def violations(members, **given):
    """The pointers and the reasons for which a request is refused."""
    with pytest.raises(InvalidCallback) as caught:
        map_request(ingress(**given), members)
    assert caught.value.key == "ingress_refused"
    assert all(key in MESSAGES and params == {} for _, key, params in caught.value.violations)
    return [(pointer, key.removeprefix("ingress.")) for pointer, key, _ in caught.value.violations]


def instance_id(members, *pointers):
    """The process instance id of a request."""
    return mapped(members, flow_instance_id=pointers).flow_instance_id


def version(value):
    """The version that is made of a value; None: it is left out."""
    return mapped({"id": "7", "v": value}, process_definition_version="/v").data.get("processDefinitionVersion")


def conclusion(members, table):
    """The conclusion of a request; None: there is none."""
    return mapped({"id": "7", **members}, conclusion=table).data.get("conclusion")


class TestWhole:
    """A whole request."""

    def test_the_smallest_mapping(self):
        """Without a table of kinds every request is a completion; the data is the object."""
        members = {"id": "7", "amount": 5, "nested": {"a": [1]}}
        assert mapped(members) == MappedCallback(kind="complete", flow_instance_id="7", data=members)

    def test_an_integer_business_key_becomes_text(self):
        """It is text, as in a callback, also if the settings do not map it."""
        members = {"id": "7", "businessKey": 4711}
        assert mapped(members).data == {"id": "7", "businessKey": "4711"}
        assert members["businessKey"] == 4711
        assert mapped({"id": "7", "businessKey": True}).data["businessKey"] is True

    def test_all_mappings_together(self):
        """The mapped members stand beside the members of the request."""
        members = {
            "id": "7",
            "status": 2,
            "def": {"key": "leave", "id": "leave:3:x", "version": "3"},
            "bk": 42,
            "c": "X",
        }
        result = mapped(
            members,
            kind=KINDS,
            conclusion=RESULTS,
            process_definition_key="/def/key",
            process_definition_id="/def/id",
            process_definition_version="/def/version",
            business_key="/bk",
            call_back_process_class="/c",
        )
        assert (result.kind, result.flow_instance_id) == ("complete", "7")
        assert result.data == members | {
            "processDefinitionKey": "leave",
            "processDefinitionId": "leave:3:x",
            "processDefinitionVersion": 3,
            "businessKey": "42",
            "callBackProcessClass": "X",
            "conclusion": "approved",
        }

    def test_a_yudao_form(self):
        """The form of yudao is a completion with a conclusion."""
        members = parse_form(
            b"id=4711&processDefinitionKey=oa_leave&status=3&reason=%E4%B8%8D%E5%90%8C%E6%84%8F&businessKey=9"
        )
        result = mapped(
            members,
            process_definition_key="/processDefinitionKey",
            business_key="/businessKey",
            kind=ValueTable(
                pointer="/status", values={"2": "complete", "3": "complete", "4": "cancel"}, other="ignore"
            ),
            conclusion=RESULTS,
        )
        assert (result.kind, result.flow_instance_id) == ("complete", "4711")
        assert result.data == {
            "id": "4711",
            "processDefinitionKey": "oa_leave",
            "status": "3",
            "reason": "不同意",
            "businessKey": "9",
            "conclusion": "rejected",
        }

    def test_a_kogito_cloudevent(self):
        """Attributes of a CloudEvent and members of its data are mapped alike."""
        event = (
            b'{"specversion": "1.0", "id": "e", "source": "/travels", "type": "ProcessInstanceEvent",'
            b' "kogitoprocinstanceid": "p-1", "kogitoprocid": "travels", "kogitoprocversion": "1.0",'
            b' "data": {"eventType": %d, "state": 2, "businessKey": "T-7"}}'
        )
        settings = {
            "flow_instance_id": ("/kogitoprocinstanceid",),
            "process_definition_key": "/kogitoprocid",
            "business_key": "/data/businessKey",
            "kind": ValueTable(pointer="/data/eventType", values={"2": "complete"}, other="ignore"),
        }
        ended = mapped(parse_structured(event % 2), **settings)
        assert (ended.flow_instance_id, ended.data["processDefinitionKey"]) == ("p-1", "travels")
        assert (ended.data["businessKey"], ended.data["kogitoprocversion"]) == ("T-7", "1.0")
        started = map_request(ingress(**settings), parse_structured(event % 1))
        assert started == IgnoredRequest(rule="/data/eventType = other")


class TestKind:
    """The table of kinds."""

    @pytest.mark.parametrize(("status", "kind"), [(2, "complete"), ("2", "complete"), (4, "cancel"), ("4", "cancel")])
    def test_a_listed_value_has_its_kind(self, status, kind):
        """The kind is that of the value's text."""
        assert mapped({"id": "7", "status": status}, kind=KINDS).kind == kind

    @pytest.mark.parametrize("status", [9, "9", " 2", "02", 2.5, True, [2], {"2": 2}])
    def test_an_unlisted_value_has_the_kind_other(self, status):
        """A value that is not in the table has the kind `other`; without it, the request is refused."""
        members = {"id": "7", "status": status}
        assert violations(members, kind=KINDS) == [("/status", "kind")]
        other = ValueTable(pointer="/status", values={"2": "complete"}, other="terminate")
        assert mapped(members, kind=other).kind == "terminate"

    @pytest.mark.parametrize("members", [{}, {"status": ""}, {"status": {}, "statu": 2}])
    def test_a_missing_value_has_the_kind_other(self, members):
        """A value that is missing has the kind `other`; without it, the request is refused."""
        reason = "kind" if members.get("status") == {} else "absent"
        assert violations({"id": "7", **members}, kind=KINDS) == [("/status", reason)]
        other = ValueTable(pointer="/status", values={"2": "complete"}, other="error")
        assert mapped({"id": "7", **members}, kind=other).kind == "error"

    @pytest.mark.parametrize(("status", "rule"), [(1, "/status = 1"), ("1", "/status = 1")])
    def test_an_ignored_request_names_its_rule(self, status, rule):
        """The kind ignore names its rule."""
        assert map_request(ingress(kind=KINDS), {"id": "7", "status": status}) == IgnoredRequest(rule=rule)

    @pytest.mark.parametrize("members", [{}, {"status": 9}, {"status": None}, {"status": [1]}])
    def test_unlisted_and_missing_values_are_ignored_by_one_rule(self, members):
        """Every other value, and a missing one, is ignored by one rule."""
        table = ValueTable(pointer="/status", values={"2": "complete"}, other="ignore")
        assert map_request(ingress(kind=table), members) == IgnoredRequest(rule="/status = other")

    def test_ignore_rules_apply_before_validation(self):
        """A request that is ignored may lack everything else, or have it in a wrong type."""
        settings = ingress(kind=KINDS, business_key="/bk", process_definition_version="/v", conclusion=RESULTS)
        assert map_request(settings, {"status": 1}) == IgnoredRequest(rule="/status = 1")
        wrong = {"status": 1, "id": [], "bk": {}, "v": "x"}
        assert map_request(settings, wrong) == IgnoredRequest(rule="/status = 1")

    def test_an_ignore_rule_is_one_short_printable_line(self):
        """A rule is one printable line of at most 100 characters, whatever the settings have."""
        table = ValueTable(pointer="/a\n\x00", values={"2": "complete"}, other="ignore")
        assert map_request(ingress(kind=table), {}).rule == r"/a\n\u0000 = other"
        value = "x" * 200
        table = ValueTable(pointer="/status", values={value: "ignore"})
        rule = map_request(ingress(kind=table), {"status": value}).rule
        assert (len(rule), rule[:12], rule[-1]) == (100, "/status = xx", "…")

    def test_a_value_named_other(self):
        """A value of the text other is a value like any, not every other one."""
        table = ValueTable(pointer="/status", values={"other": "cancel"}, other="complete")
        assert mapped({"id": "7", "status": "other"}, kind=table).kind == "cancel"
        assert mapped({"id": "7", "status": "x"}, kind=table).kind == "complete"

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"2", "2"),
            (b'"2"', "2"),
            (b"2.0", "2"),
            (b"true", "true"),
            (b'"true"', "true"),
            (b"false", "false"),
            (b"0", "0"),
            (b"-0.0", "0"),
            (b"1.5", "1.5"),
            (b"1.50", "1.5"),
            (b"15e-1", "1.5"),
            (b'"1.50"', "1.50"),
            (b"12345678901234567890123", "12345678901234567890123"),
            (b"1e2", "100"),
            (b'"\xe9\x80\x9a\xe8\xbf\x87"', "通过"),
            (b'"a\\"b"', 'a"b'),
            (b'""', ""),
        ],
    )
    def test_values_are_compared_by_their_text(self, body, text):
        """A string is compared as it is, another scalar by its JSON text after the number was read."""
        members = parse(b'{"id": "7", "status": %s}' % body)
        table = ValueTable(pointer="/status", values={text: "cancel"})
        assert mapped(members, kind=table).kind == "cancel"

    def test_true_is_not_1(self):
        """Values of other types never have the text of a number."""
        table = ValueTable(
            pointer="/status", values={"1": "cancel", "null": "cancel", "None": "cancel", "True": "cancel"}
        )
        for status in (True, None, [1], {"1": 1}):
            assert violations({"id": "7", "status": status}, kind=table) in (
                [("/status", "kind")],
                [("/status", "absent")],
            )


class TestConclusion:
    """The pointer to the conclusion, or the table of conclusions."""

    @pytest.mark.parametrize("status", [2, "2"])
    def test_a_listed_value_has_its_conclusion(self, status):
        """The conclusion is that of the value's text."""
        assert conclusion({"status": status}, RESULTS) == "approved"

    @pytest.mark.parametrize("members", [{"status": 9}, {"status": ""}, {}, {"status": [2]}, {"status": {"a": 2}}])
    def test_an_unlisted_value_has_the_conclusion_other(self, members):
        """Another or no value has the conclusion `other`; without it, there is no conclusion."""
        assert conclusion(members, RESULTS) is None
        other = ValueTable(pointer="/status", values={"2": "approved"}, other="unknown")
        assert conclusion(members, other) == "unknown"

    @pytest.mark.parametrize(
        ("value", "text"),
        [("agree", "agree"), (3, "3"), (True, "true"), (1.5, "1.5"), ("", None), ("ignore", "ignore")],
    )
    def test_a_pointer_without_a_table_gives_the_text(self, value, text):
        """Without a table, the conclusion is the text of the value; an empty text is none."""
        assert conclusion({"result": value}, ValueTable(pointer="/result")) == text

    def test_a_pointer_without_a_match_gives_no_conclusion(self):
        """If the pointer finds nothing, there is no conclusion."""
        assert conclusion({}, ValueTable(pointer="/result")) is None

    @pytest.mark.parametrize("value", [[], ["agree", "refuse"], {}, {"a": "agree"}])
    def test_a_pointer_to_an_array_or_object_gives_no_conclusion(self, value):
        """An array or an object is no conclusion."""
        table = ValueTable(pointer="/result")
        assert violations({"id": "7", "result": value}, conclusion=table) == [("/result", "not_text")]

    def test_the_text_ignore_is_a_valid_conclusion(self):
        """Only kinds ignore requests."""
        table = ValueTable(pointer="/status", values={"2": "ignore"})
        assert conclusion({"status": 2}, table) == "ignore"

    @pytest.mark.parametrize("members", [{"conclusion": "x"}, {"conclusion": "x", "status": 9}])
    def test_a_conclusion_of_the_request_is_replaced(self, members):
        """A member conclusion of the request is removed if the mapping finds none."""
        assert "conclusion" not in mapped({"id": "7", **members}, conclusion=RESULTS).data

    def test_an_unmapped_conclusion_stays(self):
        """Without a mapping, a member conclusion of the request is the conclusion."""
        assert mapped({"id": "7", "conclusion": "x"}).data["conclusion"] == "x"


class TestMembers:
    """The mapped members."""

    @pytest.mark.parametrize(("name", "member"), TEXT_MEMBERS.items())
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("a", "a"),
            (" ", " "),
            (42, "42"),
            (0, "0"),
            (-1, "-1"),
            (10**40, "1" + "0" * 40),
            ("你", "你"),
            ("1.0", "1.0"),
        ],
    )
    def test_a_member_becomes_text(self, name, member, value, text):
        """A text is kept; a whole number becomes its decimal text."""
        assert mapped({"id": "7", "x": value}, **{name: "/x"}).data == {"id": "7", "x": value, member: text}

    @pytest.mark.parametrize(("name", "member"), MEMBERS.items())
    def test_an_absent_or_empty_member_is_removed(self, name, member):
        """If the pointer finds nothing, null or an empty text, the member is removed from the data."""
        assert mapped({"id": "7", member: "of the request"}, **{name: "/x"}).data == {"id": "7"}
        assert mapped({"id": "7", member: "of the request", "x": ""}, **{name: "/x"}).data == {"id": "7", "x": ""}
        assert mapped({"id": "7", "x": [None]}, **{name: "/x/0"}).data == {"id": "7", "x": [None]}

    @pytest.mark.parametrize(("name", "member"), MEMBERS.items())
    def test_a_member_is_replaced(self, name, member):
        """The mapped value replaces a member of the request with that name."""
        assert mapped({"id": "7", member: "of the request", "x": 5}, **{name: "/x"}).data[member] in {"5", 5}

    @pytest.mark.parametrize(("name", "member"), MEMBERS.items())
    def test_an_unmapped_member_stays(self, name, member):
        """Without a mapping, a member of the request with that name stays as it is."""
        assert mapped({"id": "7", member: ["x"]}).data[member] == ["x"]
        assert name in MEMBERS

    @pytest.mark.parametrize("name", TEXT_MEMBERS)
    @pytest.mark.parametrize("value", [True, False, 1.5, [], ["a"], {}, {"a": "b"}])
    def test_a_member_of_a_wrong_type_is_rejected(self, name, value):
        """A member that is no text and no whole number is refused."""
        assert violations({"id": "7", "x": value}, **{name: "/x"}) == [("/x", "not_text")]

    @pytest.mark.parametrize("name", [*TEXT_MEMBERS, "flow_instance_id"])
    def test_a_repeated_form_field_is_rejected(self, name):
        """A repeated field is an array, so it is refused under a mapped name."""
        pointer = ("/x",) if name == "flow_instance_id" else "/x"
        assert violations(parse_form(b"id=7&x=1&x=1"), **{name: pointer}) == [("/x", "not_text")]

    @pytest.mark.parametrize(
        ("value", "whole"),
        [
            ("3", 3),
            (3, 3),
            (0, 0),
            ("0", 0),
            ("-1", -1),
            (-1, -1),
            ("007", 7),
            ("9" * 30, int("9" * 30)),
            (10**40, 10**40),
            ("", None),
            (None, None),
        ],
    )
    def test_a_version_is_an_integer_or_its_text(self, value, whole):
        """A version is a whole number, or a text of one; the schema checks the range."""
        found = version(value)
        assert (found, type(found)) == (whole, type(whole))

    @pytest.mark.parametrize(
        "value",
        ["1.0", "x", " 3", "3 ", "+3", "-", "1e3", "٣", "3\n", "9" * 31, 1.5, True, False, [], [3], {}, {"a": 3}],
    )
    def test_a_version_that_is_not_an_integer_is_rejected(self, value):
        """A version that is no whole number is refused, such as the text 1.0, which has no whole successor."""
        assert violations({"id": "7", "v": value}, process_definition_version="/v") == [("/v", "not_whole")]

    def test_an_integer_written_as_a_fraction(self):
        """The number 1.0 is the whole number 1 in JSON."""
        assert version(parse(b'{"v": 1.0}')["v"]) == 1


class TestInstanceId:
    """The process instance id."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [("7", "7"), (7, "7"), (0, "0"), (10**30, "1" + "0" * 30), ("a/b%2F c", "a/b%2F c"), (" ", " ")],
    )
    def test_an_id_from_one_pointer(self, value, text):
        """One value is the id as it is; a whole number becomes its decimal text."""
        assert instance_id({"x": value}, "/x") == text

    @pytest.mark.parametrize("members", [{}, {"id": ""}, {"id": None}, {"ID": "7"}])
    def test_a_missing_id_is_rejected(self, members):
        """A request without an id is refused."""
        assert violations(members) == [("/id", "absent")]

    @pytest.mark.parametrize("value", [True, 1.5, [], ["7"], {}, {"id": "7"}])
    def test_an_id_of_a_wrong_type(self, value):
        """An id that is no text and no whole number is refused."""
        assert violations({"id": value}) == [("/id", "not_text")]

    @pytest.mark.parametrize(
        ("parts", "text"),
        [
            (["dag", "run"], "dag/run"),
            (["a/b", "c"], "a%2Fb/c"),
            (["a", "b/c"], "a/b%2Fc"),
            (["a%2Fb", "c"], "a%252Fb/c"),
            (["%", "/"], "%25/%2F"),
            (["a", 7, "你"], "a/7/你"),
            (list("abcdefgh"), "a/b/c/d/e/f/g/h"),
        ],
    )
    def test_an_id_joined_from_several_pointers(self, parts, text):
        """The values of a list of pointers are joined, and the separator is escaped in each."""
        assert instance_id({"p": parts}, *(f"/p/{index}" for index in range(len(parts)))) == text

    def test_every_part_of_an_id_is_required(self):
        """All missing and wrong parts of an id are named."""
        assert violations({"a": "x", "c": []}, flow_instance_id=("/a", "/b", "/c")) == [
            ("/b", "absent"),
            ("/c", "not_text"),
        ]


PARTS = st.lists(st.text(st.sampled_from("a/%2F5"), min_size=1, max_size=4), min_size=2, max_size=3)


@given(st.lists(PARTS, min_size=2, max_size=6, unique_by=tuple))
def test_joined_ids_are_injective(several):
    """Different parts never make the same id: the parts can be read from the id."""
    ids = [instance_id({"p": parts}, *(f"/p/{index}" for index in range(len(parts)))) for parts in several]
    assert len(set(ids)) == len(ids)
    for parts, joined in zip(several, ids, strict=True):
        assert [unquote(part) for part in joined.split("/")] == parts


DEEP = {
    "a": {"b": [10, {"c/d": "x", "e~f": "y", "": "z", "~1": "t", "0": "zero"}, [["deep"]]]},
    "": {"": "empty"},
    "n": [None, "after null"],
    "s": "text",
    "0": "a member",
    "-": "a dash",
    " ": "a blank",
    "你": "好",
}
"""Objects and arrays for pointers."""


class TestPointers:
    """JSON Pointers (RFC 6901)."""

    @pytest.mark.parametrize(
        ("pointer", "found"),
        [
            ("/s", "text"),
            ("/a/b/0", "10"),
            ("/a/b/1/c~1d", "x"),
            ("/a/b/1/e~0f", "y"),
            ("/a/b/1/", "z"),
            ("/a/b/1/~01", "t"),
            ("/a/b/1/0", "zero"),
            ("/a/b/2/0/0", "deep"),
            ("/", None),
            ("//", "empty"),
            ("/n/1", "after null"),
            ("/0", "a member"),
            ("/-", "a dash"),
            ("/ ", "a blank"),
            ("/你", "好"),
            ("/n/0", None),
            ("/n/2", None),
            ("/a/b/3", None),
            ("/a/b/-1", None),
            ("/a/b/-", None),
            ("/a/b/00", None),
            ("/a/b/01/", None),
            ("/a/b/+1", None),
            ("/a/b/1 /", None),
            ("/a/b/1\n/", None),
            ("/a/b/\u0661/", None),
            ("/a/b/x", None),
            ("/a/b/999999999", None),
            ("/a/b/1000000000", None),
            ("/a/b/99999999999999999999999", None),
            ("/a/x/y", None),
            ("/s/0", None),
            ("/s/text", None),
            ("/S", None),
            ("/a/b/1/c/d", None),
        ],
    )
    def test_values_selected_by_pointers(self, pointer, found):
        """A pointer selects a value in objects and arrays; null counts as absent."""
        if pointer == "/":
            assert violations(DEEP, flow_instance_id=("/",)) == [("/", "not_text")]
            return
        assert mapped({"id": "7", **DEEP}, business_key=pointer).data.get("businessKey") == found

    def test_a_pointer_reads_the_request(self):
        """A pointer reads the request, never what another setting wrote."""
        data = mapped(
            {"id": "7", "a": "x", "businessKey": "y"}, business_key="/a", call_back_process_class="/businessKey"
        ).data
        assert (data["businessKey"], data["callBackProcessClass"]) == ("x", "y")

    def test_a_deep_pointer(self):
        """A pointer may be as deep as a body."""
        value = "x"
        for _ in range(64):
            value = {"a": value}
        assert mapped({"id": "7", **value}, business_key="/a" * 64).data["businessKey"] == "x"


def test_all_violations_are_reported_together():
    """Everything that is wrong with a request is named at once, in the order of the settings, and no value."""
    members = {"status": "s3cret", "bk": ["s3cret"], "v": "s3cret", "r": {"s3cret": 1}}
    settings = {
        "kind": KINDS,
        "process_definition_version": "/v",
        "business_key": "/bk",
        "conclusion": ValueTable(pointer="/r"),
    }
    assert violations(members, **settings) == [
        ("/status", "kind"),
        ("/id", "absent"),
        ("/v", "not_whole"),
        ("/bk", "not_text"),
        ("/r", "not_text"),
    ]
    with pytest.raises(InvalidCallback) as caught:
        map_request(ingress(**settings), members)
    assert "s3cret" not in caught.value.text("en") + caught.value.text("zh")
    assert caught.value.text("en").endswith(
        "/status: has a value that the table of kinds does not contain; /id: is missing or empty; /v: must be a whole "
        "number; /bk: must be a text or a whole number; /r: must be a text or a whole number"
    )


def test_the_data_is_a_copy():
    """The object of the request is not changed."""
    members = {"id": "7", "businessKey": "x", "conclusion": "y"}
    before = copy.deepcopy(members)
    mapped(members, business_key="/id", conclusion=RESULTS, process_definition_key="/id")
    assert members == before


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "1", "2", "a"])
    | st.text(max_size=5),
    lambda items: (
        st.lists(items, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", ""]), items, max_size=3)
    ),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "id", *MEMBERS.values()]), JSON, max_size=8)
POINTERS = st.lists(st.sampled_from(["a", "b", "id", "0", "1", "", "~0", "~1", "-"]), min_size=1, max_size=3).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
KIND_TABLES = st.builds(
    ValueTable,
    pointer=POINTERS,
    values=st.dictionaries(
        st.sampled_from(["1", "2", "a", "", "true"]), st.sampled_from(["complete", "ignore"]), min_size=1
    ),
    other=st.sampled_from([None, "cancel", "ignore"]),
)
CONCLUSIONS = st.builds(ValueTable, pointer=POINTERS) | KIND_TABLES
MAPPINGS = st.builds(
    IngressSettings,
    format=st.just("json"),
    flow_instance_id=st.lists(POINTERS, min_size=1, max_size=3).map(tuple),
    kind=st.none() | KIND_TABLES,
    conclusion=st.none() | CONCLUSIONS,
    **{name: st.just("") | POINTERS for name in MEMBERS},
)


@given(MAPPINGS, OBJECTS)
def test_any_mapping_of_any_object(settings, members):
    """Any object is mapped, ignored or refused, and is not changed."""
    before = copy.deepcopy(members)
    try:
        result = map_request(settings, members)
    except InvalidCallback as error:
        result = error
    assert members == before
    if isinstance(result, MappedCallback):
        assert result.kind in {"complete", "cancel"}
        assert result.flow_instance_id
        unmapped = {"conclusion"} if settings.conclusion else set()
        unmapped |= set(settings.members)
        assert {name: value for name, value in result.data.items() if name not in unmapped} == {
            name: value for name, value in members.items() if name not in unmapped
        }
