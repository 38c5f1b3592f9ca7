"""Details of audit entries have a name and a readable value for everything that operations store."""

from __future__ import annotations

import pytest

from flowhooks.web.admin.console.audit_details import MAX_ITEMS, detail_rows


@pytest.mark.parametrize(
    ("detail", "rows"),
    [
        ({}, []),
        ({"note": "by hand", "settings": {"a": "1"}}, []),
        (
            {"change": "started", "operation": "mark-not-done", "rate": None, "deliveries": 1234},
            [
                ("audit.field.change", [("word", "change.started")]),
                ("audit.field.operation", [("action", "mark_not_done")]),
                ("audit.field.rate", [("word", "no_limit")]),
                ("audit.field.deliveries", [("number", 1234)]),
            ],
        ),
        (
            {"event_filter": {"flow_instance_id": "i1", "state": "dead", "trigger": "replay", "since": 5}},
            [
                ("flow", [("text", "i1")]),
                ("state", [("state", "dead")]),
                ("trigger", [("trigger", "replay")]),
                ("since", [("time", 5)]),
            ],
        ),
        (
            {"event_filter": {"ids": ["e1", "e2"], "delivery_ids": ["d1"]}},
            [("event.id", [("text", "e1"), ("text", "e2")]), ("do.delivery", [("text", "d1")])],
        ),
        ({"verdict": "did-not"}, [("audit.field.verdict", [("word", "verdict.did_not")])]),
        ({"handlers": []}, [("audit.field.handlers", [("none", "")])]),
        (
            {"errors": {"mail": "smtp down", "notice": ""}},
            [("audit.field.errors", [("text", "mail: smtp down"), ("text", "notice")])],
        ),
        ({"declined": True}, [("audit.field.declined", [("word", "yes")])]),
        (
            {"ids": ["x"] * (MAX_ITEMS + 3)},
            [("ids", [*[("text", "x")] * MAX_ITEMS, ("more", 3)])],
        ),
    ],
)
def test_names_and_values(detail, rows):
    """A known field has the key of its name; a known word, a time and a number are marked as such."""
    assert detail_rows(detail) == rows


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (10**30, ("number", 10**30)),
        ("none such", ("text", "none such")),
        ([{"a": 1}], ("text", '{"a": 1}')),
        ({"a": ["b"]}, ("text", 'a: ["b"]')),
        (False, ("word", "no")),
        (0.05, ("text", "0.05")),
    ],
)
@pytest.mark.parametrize("field", ["since", "verdict", "operation", "later_field"])
def test_details_of_another_version_are_shown(field, value, shown):
    """A value of an unknown type or word is shown as text, also in a filter."""
    assert [values for _, values in detail_rows({field: value})] == [[shown]]
    assert [values for _, values in detail_rows({"event_filter": {field: value}})] == [[shown]]


@pytest.mark.parametrize("value", ["all", None, ["x"]])
def test_a_filter_of_another_form(value):
    """A filter that is no object is shown as any other field."""
    assert [name for name, _ in detail_rows({"event_filter": value})] == ["event_filter"]
