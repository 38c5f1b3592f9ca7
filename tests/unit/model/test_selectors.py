"""Selectors alone: refusals, stored form, and texts about a condition."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flowhooks.errors import HandlerError
from flowhooks.model.event import Event
from flowhooks.model.selectors import ConditionResult, Selectors, check_satisfiable


def selectors_of(**given):
    """Selectors of the key k."""
    return Selectors(process_keys=("k",), **given)


def event_of(conclusion=None, **data):
    """An event with this conclusion and this data."""
    return Event(
        id="e", flow_instance_id="i", conclusion=conclusion, data=data, received_at=datetime(2026, 1, 2, tzinfo=UTC)
    )


def test_selectors_that_select_nothing():
    """The error names the possible selectors."""
    with pytest.raises(
        HandlerError, match=r"^it listens to nothing: give callback_class=, process_key= or every=True$"
    ):
        Selectors()


def test_the_order_of_conditions_makes_no_difference():
    """Conditions in another order are equal."""
    assert selectors_of(when={"/a": 1, "/b": 2}) == selectors_of(when={"/b": 2, "/a": 1})
    assert selectors_of(when={"/a": 1, "/b": 2}) != selectors_of(when={"/a": 2, "/b": 1})


@pytest.mark.parametrize(
    ("given", "event", "undecided"),
    [
        ({"conclusions": ("a",)}, event_of(), "conclusion"),
        ({"conclusions": ("a",), "when": {"/x": 1}}, event_of(x=1), "conclusion"),
        ({"conclusions": ("a",), "when": {"/x": 1}}, event_of("a"), "/x"),
        ({"when": {"/x": 1, "/y": 2, "/z": 3}}, event_of(x=1), "/y"),
        ({"when": {"/x": 1}}, event_of(x=1), ""),
        ({"when": {"/x": 1}}, event_of(x=2), ""),
        ({"conclusions": ("a",)}, event_of("b"), ""),
        ({}, event_of(), ""),
    ],
)
def test_the_member_that_an_undecided_condition_lacks(given, event, undecided):
    """The conclusion comes before the data, and in the data the first undecided condition."""
    assert selectors_of(**given).first_undecided(event) == undecided


@pytest.mark.parametrize(
    ("given", "event", "why"),
    [
        ({"conclusions": ("a", "b")}, event_of("c"), "conclusion 'c' is not one of a, b"),
        ({"conclusions": ("a", "b")}, event_of(), "no conclusion, but the handler requires one of a, b"),
        ({"conclusions": ("a",)}, event_of("a"), None),
        ({"when": {"/x": 1, "/y": 2}}, event_of(x=1, y=3), "/y is 3, but the condition is 2"),
        ({"when": {"/x": 1, "/y": 2}}, event_of(y=3), "/y is 3, but the condition is 2"),
        ({"when": {"/x": 1, "/y": 2}}, event_of(x=3), "/x is 3, but the condition is 1"),
        ({"when": {"/x": 1, "/y": 2}}, event_of(x=1), "/y is absent, but the condition 2 needs it"),
        ({"when": {"/x": 1, "/y": 2}}, event_of(x=1, y=2), None),
    ],
)
def test_reason_of_failed_conditions(given, event, why):
    """A false condition is named before an undecided one; none if all hold."""
    assert selectors_of(**given).why_not(event) == why


def test_conditions_that_are_true_have_no_reason():
    """Each condition is listed for explanations, with an empty reason if it holds."""
    results = selectors_of(conclusions=("a",), when={"/x": 1, "/y": 2}).evaluate(event_of("a", x=1, y=3))
    assert results == (
        ConditionResult(member="conclusion", holds=True, reason=""),
        ConditionResult(member="/x", holds=True, reason=""),
        ConditionResult(member="/y", holds=False, reason="/y is 3, but the condition is 2"),
    )


def test_every_selector_is_restored_from_json():
    """`from_json` reads back every selector."""
    every = Selectors(
        callback_classes=("C", "D"),
        process_keys=("k",),
        versions=">1",
        sources=("hr",),
        kind="cancel",
        every=True,
        conclusions=("a",),
        when={"/x": None},
    )
    assert Selectors.from_json(every.to_json()) == every
    assert Selectors.from_json(Selectors(every=True).to_json()).every is True


def test_selectors_of_the_first_format_have_no_conditions():
    """Formats before 2 wrote neither conclusions nor conditions, and no format."""
    written = selectors_of().to_json()
    old = Selectors.from_json(
        {name: written[name] for name in written if name not in {"format", "conclusions", "when"}}
    )
    assert (old.conclusions, old.when, old.has_conditions) == ((), {}, False)


@pytest.mark.parametrize(
    "versions",
    ["", " ", ">=3,<5", ">3,<5", "==3", "==3,!=4", ">=3,<=3", "<=2147483647,>=2147483647", "!=1,!=2", ">0,<3,!=1"],
)
def test_satisfiable_versions(versions):
    """Satisfiable versions are accepted unchanged."""
    assert check_satisfiable(versions) == versions


@pytest.mark.parametrize(
    "versions",
    [
        ">3,<4",
        ">=4,<4",
        ">4,<=4",
        ">=5,<=4",
        "==3,==4",
        "==3,<3",
        "==3,>3",
        "==3,!=3",
        ">=3,<=4,!=3,!=4",
        ">2147483647",
    ],
)
def test_contradictory_versions(versions):
    """Contradictory versions are refused, because their handler would never run."""
    with pytest.raises(
        HandlerError, match=f"^versions= '{versions}' contradicts itself: no version satisfies all of it$"
    ):
        check_satisfiable(versions)


def test_a_version_beyond_int32():
    """A version beyond 32 bits is refused, because no event can have it."""
    why = r"^versions= has 2147483648, but a processDefinitionVersion is an int32, at most 2147483647$"
    with pytest.raises(HandlerError, match=why):
        check_satisfiable("<2147483648")


@pytest.mark.parametrize("versions", [3, None])
def test_versions_that_are_not_a_string(versions):
    """`Selectors` refuses other types with its own error."""
    assert check_satisfiable(versions) == versions
    with pytest.raises(HandlerError, match="versions= must be a string"):
        selectors_of(versions=versions)
