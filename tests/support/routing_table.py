"""The table of states of an event by the conditions of its handlers, for the router alone and for each database."""

from __future__ import annotations

from typing import Any, Final

Selected = dict[str, Any]
Expected = tuple[str, str | None, str, list[str]]

APPROVED: Final[Selected] = {"conclusions": ("approved",)}
REJECTED: Final[Selected] = {"conclusions": ("rejected",)}
LARGE: Final[Selected] = {"when": {"/amount": {"minimum": 1000}}}

TABLE: Final[list[tuple[str, list[Selected], dict[str, Any], Expected]]] = [
    # At least one handler matches: the event is routed to the matching ones.
    ("true", [APPROVED], {"conclusion": "approved"}, ("routed", None, "", ["0"])),
    ("true and false", [APPROVED, REJECTED], {"conclusion": "approved"}, ("routed", None, "", ["0"])),
    (
        "both true",
        [APPROVED, LARGE],
        {"conclusion": "approved", "data": {"amount": 1000}},
        ("routed", None, "", ["0", "1"]),
    ),
    ("without a condition", [{}, REJECTED], {"conclusion": "approved"}, ("routed", None, "", ["0"])),
    # One undecided beside a matching one: routed, and an alert names the undecided one.
    ("true and undecided", [APPROVED, LARGE], {"conclusion": "approved"}, ("routed", None, "/amount", ["0"])),
    ("unconditional and undecided", [{}, APPROVED], {}, ("routed", None, "conclusion", ["0"])),
    # None matches, at least one is undecided: parked.
    ("no conclusion", [APPROVED], {}, ("parked", "condition", "conclusion", [])),
    ("no conclusion for two", [APPROVED, REJECTED], {}, ("parked", "condition", "conclusion", [])),
    ("false and undecided", [APPROVED, LARGE], {"conclusion": "rejected"}, ("parked", "condition", "/amount", [])),
    ("wrong type", [LARGE], {"data": {"amount": "1000"}}, ("parked", "condition", "/amount", [])),
    (
        "conclusion right, data absent",
        [APPROVED | LARGE],
        {"conclusion": "approved"},
        ("parked", "condition", "/amount", []),
    ),
    # All conditions are false, at least one exists: dismissed.
    ("another conclusion", [APPROVED], {"conclusion": "rejected"}, ("dismissed", "condition", "", [])),
    ("another case", [APPROVED], {"conclusion": "Approved"}, ("dismissed", "condition", "", [])),
    ("all false", [APPROVED, LARGE], {"conclusion": "no", "data": {"amount": 1}}, ("dismissed", "condition", "", [])),
    (
        "false decides over no conclusion",
        [APPROVED | LARGE],
        {"data": {"amount": 1}},
        ("dismissed", "condition", "", []),
    ),
    ("false decides over absent data", [APPROVED | LARGE], {"conclusion": "no"}, ("dismissed", "condition", "", [])),
    # None matches, because the class or the key is known and the kind is not: dismissed.
    ("another kind", [APPROVED], {"kind": "cancel", "conclusion": "approved"}, ("dismissed", "kind", "", [])),
    ("another kind without conditions", [{}], {"kind": "cancel"}, ("dismissed", "kind", "", [])),
    # None matches, because versions or source differ: parked.
    ("another version", [APPROVED | {"versions": ">1"}], {"conclusion": "approved"}, ("parked", "handler", "", [])),
    ("another source", [APPROVED | {"sources": ("hr",)}], {"conclusion": "approved"}, ("parked", "handler", "", [])),
    (
        "another version, false too",
        [APPROVED | {"versions": ">1"}],
        {"conclusion": "no"},
        ("parked", "handler", "", []),
    ),
    (
        "another version beside another kind",
        [{"versions": ">1"}, {"kind": "cancel"}],
        {},
        ("parked", "handler", "", []),
    ),
    # No handler shares class or key: parked.
    ("unknown key", [APPROVED], {"key": "other", "conclusion": "approved"}, ("parked", "handler", "", [])),
    ("neither class nor key", [APPROVED], {"key": None, "conclusion": "approved"}, ("parked", "name", "", [])),
]
"""A name; the selectors of the handlers of one key; the event; and its state, the reason, the member that an undecided
condition lacks, and the numbers of the handlers that get it.
"""
