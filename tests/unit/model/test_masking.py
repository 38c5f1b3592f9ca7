"""Masked bodies: no original value is left, and handlers and schemas read them as they read the originals."""

from __future__ import annotations

import json
import uuid
from datetime import date, datetime

import pytest

from flowhooks.model.masking import KEPT_MEMBERS, EventMasker, mask_shape

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("Zhang Wei-2", "Aaaaa Aaa-1"),
        ("alice.smith@example.com", "aaaaa.aaaaa@aaaaaaa.aaa"),
        ("张伟", "字字"),
        ("Ümit ß ١٢", "Aaaa a 11"),
        ("", ""),
        ("a\tb\n\U0001f600", "a\ta\n字"),
        (0, 1),
        (907, 111),
        (-250.75, -111.11),
        (1e300, 1e111),
        (5e-07, 1e-11),
        (2**63, int("1" * 19)),
        (True, False),
        (False, False),
        (None, None),
        ([1, "b", [2.5]], [1, "a", [1.1]]),
        ({"amount": 12, "lines": [{"sku": "X9"}]}, {"amount": 11, "lines": [{"sku": "A1"}]}),
    ],
)
def test_a_masked_value_has_only_the_shape_of_the_original(value, masked):
    """The types, lengths and formats stay; letters, digits and truth values do not."""
    result = mask_shape(value)
    assert result == masked
    assert type(result) is type(masked)


@pytest.mark.parametrize(
    "text", ["2026-11-28", "2026-11-28T09:30", "2026-11-28T09:30:05.123Z", "2026-02-28 23:59:59+08:00"]
)
def test_a_masked_time_can_still_be_parsed(text):
    """A handler that parses it can do so."""
    masked = mask_shape(text)
    assert masked != text
    assert datetime.fromisoformat(masked).date() == date(1111, 11, 11)


def test_member_names_without_data_stay():
    """A name with an address or a long number is masked, and no member is lost by it."""
    value = {"amount": 1, "bob@b.c": 2, "amy@d.e": 3, "6222021234567890": 4, "aaa@a.a": 5, "v2": 6, "单价": 7}
    masked = mask_shape(value)
    assert list(masked.values()) == [1] * 7
    assert {"amount", "v2", "单价", "1111111111111111", "aaa@a.a"} < masked.keys()
    assert not {"bob@b.c", "amy@d.e", "6222021234567890"} & masked.keys()


def test_thousands_of_names_with_one_shape_stay_different():
    """Each of them stays different, and finding its number does not take longer for the later ones."""
    masked = mask_shape({str(number): number for number in range(100_000, 140_000)})
    assert len(masked) == 40_000


def test_the_original_is_not_changed():
    """The masked body is a new one, at all depths."""
    value = {"lines": [{"name": "Bob"}]}
    before = json.dumps(value)
    mask_shape(value)
    EventMasker(KEY).mask_body(value, flow_instance_id="7")
    assert json.dumps(value) == before


def test_the_members_that_select_handlers_stay():
    """A masked event is routed as the original is, as far as its class, key, version and conclusion decide."""
    body = {
        "callBackProcessClass": "com.example.Paid",
        "processDefinitionId": "leave:3:4af2",
        "processDefinitionKey": "leave",
        "processDefinitionVersion": 3,
        "conclusion": "approved",
    }
    assert body.keys() == KEPT_MEMBERS
    assert EventMasker(KEY).mask_body(body, flow_instance_id="7") == body


def test_ids_are_replaced_by_consistent_pseudonyms():
    """Equal ids of one export stay equal, wherever they occur, and another key gives other pseudonyms."""
    masker = EventMasker(KEY)
    flow = str(uuid.uuid4())
    body = {"businessKey": "PO-2026-0017", "order": {"number": "PO-2026-0017", "flow": flow}, "other": "PO-2026-0018"}
    masked = masker.mask_body(body, flow_instance_id=flow)
    pseudonym = masked["businessKey"]
    assert pseudonym != "PO-2026-0017"
    assert mask_shape(pseudonym) == mask_shape("PO-2026-0017")
    assert masked["order"] == {"number": pseudonym, "flow": masker.mask_id(flow)}
    assert masked["other"] == "AA-1111-1111"
    assert uuid.UUID(masked["order"]["flow"]) != uuid.UUID(flow)
    assert EventMasker(KEY).mask_body(body, flow_instance_id=flow) == masked
    assert EventMasker(KEY[::-1]).mask_id("PO-2026-0017") != pseudonym


def test_a_number_that_is_an_id_becomes_the_same_pseudonym():
    """A business key that the body also has as a number is masked as a number."""
    masked = EventMasker(KEY).mask_body({"businessKey": "4711", "order": 4711, "n": 4712}, flow_instance_id="7")
    assert masked["order"] == int(masked["businessKey"])
    assert masked["n"] == 1111


def test_no_pseudonym_is_the_id_itself():
    """A short id has few pseudonyms, but none of them shows it."""
    ids = [*map(str, range(1, 10)), "a", "A", "B-3", "\N{CJK UNIFIED IDEOGRAPH-5F20}"]
    for key in range(100):
        masker = EventMasker(bytes([key] * 32))
        assert not [value for value in ids if masker.mask_id(value) == value]


def test_different_ids_have_different_pseudonyms():
    """Short ids, of which there are more than pseudonyms of the same length, get longer ones."""
    masker = EventMasker(KEY)
    ids = [*map(str, range(2_000)), "", "-", "--", "a", "A", "\N{CJK UNIFIED IDEOGRAPH-5F20}"]
    assert len({masker.mask_id(value) for value in ids}) == len(ids)
    assert [masker.mask_id(value) for value in ids] == [masker.mask_id(value) for value in ids]


def test_a_short_key_is_rejected():
    """Otherwise the ids could be found by trying all keys."""
    with pytest.raises(ValueError, match="at least 16 bytes, not 15"):
        EventMasker(b"k" * 15)
