"""Masked bodies and filters: which values are hidden, and what happens to bodies that cannot be read."""

from __future__ import annotations

import json

import pytest

from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.masks import MASK, covers, filters_hidden, mask_body, mask_filter, mask_value


@pytest.mark.parametrize(
    ("body", "pointers", "masked"),
    [
        ({"salary": 1, "name": "n"}, ["/salary"], {"salary": MASK, "name": "n"}),
        ({"bank": {"account": "a", "bic": "b"}}, ["/bank/account"], {"bank": {"account": MASK, "bic": "b"}}),
        ({"bank": {"account": "a"}}, ["/bank", "/bank/account"], {"bank": MASK}),
        ({"rows": [{"pay": 1}, {"pay": 2, "x": 3}]}, ["/rows/pay"], {"rows": [{"pay": MASK}, {"pay": MASK, "x": 3}]}),
        ({"rows": [{"pay": 1}, {"pay": 2}]}, ["/rows/0/pay"], {"rows": [{"pay": MASK}, {"pay": MASK}]}),
        ({"rows": [[{"pay": 1}]]}, ["/rows/pay"], {"rows": [[{"pay": MASK}]]}),
        ({"rows": [1, 2]}, ["/rows/0"], {"rows": [MASK, MASK]}),
        ({"rows": [1, 2]}, ["/rows/-"], {"rows": [MASK, MASK]}),
        ({"a/b": 1, "c~d": 2}, ["/a~1b", "/c~0d"], {"a/b": MASK, "c~d": MASK}),
        ({"": 1, "x": {"": 2}}, ["/", "/x/"], {"": MASK, "x": {"": MASK}}),
        ({"salary": None}, ["/salary"], {"salary": MASK}),
        ({"salary": {"deep": [1]}}, ["/salary"], {"salary": MASK}),
        ({"0": {"x": 1}}, ["/0/x"], {"0": {"x": MASK}}),
        ({"x": "salary"}, ["/salary", "/x/y"], {"x": "salary"}),
    ],
)
def test_masked_values(body, pointers, masked):
    """A pointer hides its value whatever it is; in lists it applies to each item."""
    assert mask_value(body, pointers) == masked
    assert json.loads(mask_body(json.dumps(body), pointers)) == masked


def test_escaped_member_names_are_masked():
    """A member whose name is escaped in the text is the same member."""
    assert "42" not in mask_body('{"s\\u0061lary": 42}', ["/salary"])


@pytest.mark.parametrize("text", ["", "{", "[1]", '"secret"', "secret", "[" * 100_000, '{"a": '])
def test_unreadable_bodies_are_hidden(text):
    """A body that is no JSON object is hidden as a whole."""
    assert mask_body(text, ["/other"]) == MASK


def test_large_bodies_are_masked():
    """Nested lists and members are followed to the end."""
    body = {"rows": [{"id": number, "pay": "secret"} for number in range(5_000)]}
    assert "secret" not in mask_body(json.dumps(body), ["/rows/pay"])


@pytest.mark.parametrize(
    ("pointers", "pointer", "hidden"),
    [
        (["/salary"], "/salary", True),
        (["/salary"], "/salary/net", True),
        (["/bank/account"], "/bank", True),
        (["/rows/pay"], "/rows/0/pay", True),
        (["/rows/0/pay"], "/rows/pay", True),
        (["/salary"], "/salaries", False),
        (["/bank/account"], "/bank/bic", False),
        ([], "/salary", False),
    ],
)
def test_covered_members(pointers, pointer, hidden):
    """A member is covered if it, a part of it or the object around it is hidden."""
    assert covers(pointers, pointer) is hidden


@pytest.mark.parametrize(
    ("pointers", "given", "hidden"),
    [
        (["/businessKey"], {"business_key": "k"}, True),
        (["/conclusion"], {"conclusion": "c"}, True),
        (["/processDefinitionKey"], {"process_key": "k"}, True),
        (["/processDefinitionId"], {"process_key": "k"}, True),
        (["/callBackProcessClass"], {"callback_class": "c"}, True),
        (["/businessKey/x"], {"business_key": "k"}, False),
        (["/salary"], {"business_key": "k"}, False),
        (["/businessKey"], {"handler": "p:h", "state": "dead"}, False),
    ],
)
def test_filters_by_hidden_members(pointers, given, hidden):
    """A filter by a member that is hidden would reveal its value."""
    event_filter = EventFilter(**given)
    assert filters_hidden(event_filter, pointers) is hidden
    shown = mask_filter(event_filter.to_json(), pointers)
    assert (MASK in shown.values()) is hidden
