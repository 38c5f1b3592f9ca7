"""The comparison of two sets of plugins on one event, and the groups of its differences."""

from __future__ import annotations

import json

import pytest

from flowhooks import handler
from flowhooks.ledger.handlers import RegisteredHandler
from flowhooks.operations.backtest import (
    MAX_REASONS,
    MAX_SAMPLES,
    Comparison,
    Difference,
    EventOutcome,
    differences,
    evaluate,
    event_from_json,
    event_to_json,
)
from flowhooks.operations.lookup import build_lookup
from flowhooks.plugins.plugins import Plugins
from flowhooks.testing import make_event

ABSENT = "no registered handler with this id listens to its class or key"
SCHEMA = {"type": "object", "required": ["days"], "properties": {"days": {"type": "integer"}}}


@pytest.fixture
def outcome(make_plugin, tmp_path):
    """A function that evaluates an event with the plugin `leave` of these handlers and this data schema."""

    def evaluated(event, *handlers, registered=(), ignore=(), schema=None, plugin=None):
        hooks = {}
        if schema is not None:
            folder = tmp_path / "schemas"
            (folder / "data/key").mkdir(parents=True, exist_ok=True)
            (folder / "data/key/leave.schema.json").write_text(json.dumps(schema))
            hooks["schemas"] = lambda: [folder]
        objects = {"leave": plugin if plugin is not None else make_plugin(*handlers, **hooks)}
        plugins = Plugins.load(
            dirs=(), allow=(), deny=(), safe_mode=False, sections={}, entry_points=(), objects=objects
        )
        remembered = [
            RegisteredHandler(id=f"leave:{known.name}", selectors=known.selectors, last_seen_at=0)
            for known in registered
        ]
        result = evaluate(event, lookup=build_lookup(plugins, remembered, ignore), plugins=plugins)
        return EventOutcome.from_json(json.loads(json.dumps(result.to_json())))

    return evaluated


@pytest.fixture
def entered():
    """A list to which handlers add their event when they are entered; it must stay empty."""
    events = []
    yield events
    assert events == []


def grant(entered, **selectors):
    """A handler of the key `leave`."""
    return handler(process_key="leave", name="grant", **selectors)(entered.append)


def test_equal_plugins_have_no_difference(outcome, entered):
    """The outcomes of one event with the same plugins are equal, whatever they are."""
    event = make_event(process_key="leave", days=3)
    before, after = (outcome(event, grant(entered), schema=SCHEMA) for _ in range(2))
    assert before.handlers["leave:grant"][:2] == ("delivered", "key leave")
    assert before.state == "routed"
    assert list(differences(before, after)) == []
    assert list(differences(EventOutcome.from_json(before.to_json()), after)) == []


def test_a_handler_with_other_conditions_gets_other_events(outcome, entered):
    """Reported are the handler, the result of its conditions, and the reason."""
    event = make_event(process_key="leave", conclusion="rejected")
    before, after = outcome(event, grant(entered)), outcome(event, grant(entered, conclusion="approved"))
    assert after.state == "dismissed (condition)"
    why = "conclusion 'rejected' is not one of approved"
    assert list(differences(before, after)) == [Difference("route", "leave:grant", "delivered", "not delivered", why)]
    assert list(differences(after, before)) == [
        Difference("route", "leave:grant", "not delivered", "delivered", "key leave")
    ]


def test_an_undecided_condition_differs_from_a_false_condition(outcome, entered):
    """False and undecided are different, although the handler gets the event in neither case."""
    event = make_event(process_key="leave", days=3)
    before = outcome(event, grant(entered, when={"/days": {"minimum": 10}}))
    after = outcome(event, grant(entered, when={"/amount": {"minimum": 10}}))
    assert after.state == "parked (condition)"
    why = '/amount is absent, but the condition {"minimum": 10} needs it'
    assert list(differences(before, after)) == [Difference("route", "leave:grant", "not delivered", "undecided", why)]


def test_a_handler_removed_from_the_plugin(outcome, entered):
    """It is still registered, so its deliveries would wait; one that was never registered is not delivered."""
    event = make_event(process_key="leave")
    old, other = grant(entered), handler(process_key="leave", name="book")(entered.append)
    before = outcome(event, old, registered=[old])
    waits, gone = outcome(event, other, registered=[old]), outcome(event, other)
    assert [difference[:4] for difference in differences(before, waits)] == [
        ("route", "leave:grant", "delivered", "waits"),
        ("route", "leave:book", "not delivered", "delivered"),
    ]
    assert Difference("route", "leave:grant", "delivered", "not delivered", ABSENT) in differences(before, gone)


def test_an_unusable_plugin(outcome, entered):
    """The deliveries of its registered handlers would wait."""
    event = make_event(process_key="leave")
    before = outcome(event, grant(entered), registered=[grant(entered)])
    after = outcome(event, registered=[grant(entered)], plugin=object())
    assert list(differences(before, after)) == [
        Difference("route", "leave:grant", "delivered", "waits", "its plugin is quarantined: its deliveries wait")
    ]


def test_data_that_violates_the_schema_of_the_plugin(outcome, entered):
    """It is a difference if the data was valid or not delivered before, and if it is valid now."""
    event = make_event(process_key="leave", days="three")
    without, with_schema = outcome(event, grant(entered)), outcome(event, grant(entered), schema=SCHEMA)
    nothing = outcome(event, handler(process_key="other", name="grant")(entered.append))
    ((*difference, why),) = differences(without, with_schema)
    assert difference == ["data", "leave:grant", "valid", "invalid"]
    assert why.startswith("the data does not match data/key/leave.schema.json: /days: ")
    assert "three" not in why
    assert [found[:4] for found in differences(with_schema, without)] == [("data", "leave:grant", "invalid", "valid")]
    assert [found[:4] for found in differences(nothing, with_schema)] == [
        ("route", "leave:grant", "not delivered", "delivered"),
        ("data", "leave:grant", "not delivered", "invalid"),
    ]
    assert [found[:4] for found in differences(nothing, without)] == [
        ("route", "leave:grant", "not delivered", "delivered")
    ]


def test_a_removed_kind_of_callback(outcome, entered):
    """A body that would be rejected is a difference of its own."""
    event = make_event(process_key="leave", kind="suspended")
    after = outcome(event, grant(entered))
    assert after.violation == "there is no kind of callback 'suspended'"
    before = EventOutcome(state=after.state, handlers=after.handlers)
    assert list(differences(before, after)) == [Difference("body", "", "valid", "invalid", after.violation)]


def test_a_state_difference_without_a_handler_difference(outcome, entered):
    """Only then is the state of the event a difference of its own."""
    event = make_event(process_key="leave")
    other = handler(process_key="other", name="grant")(entered.append)
    before, after = outcome(event, other), outcome(event, other, ignore=["leave"])
    assert list(differences(before, after)) == [Difference("state", "", "parked (handler)", "dismissed (setting)", "")]


def test_an_event_is_unchanged_in_another_process():
    """Everything that routes or schemas can depend on arrives unchanged."""
    event = make_event(callback_class="a.B", process_key="leave", business_key="😀", version=3, n=[1, 2.5, "字"])
    assert event_from_json(json.loads(json.dumps(event_to_json(event)))) == event


def test_differences_are_grouped(outcome, entered):
    """Groups are by class, key, conclusion and difference; the number of samples and reasons is limited."""
    comparison = Comparison()
    ids = []
    for number in range(10):
        event = make_event(process_key="leave", conclusion="approved" if number else None, days=number)
        ids.append(event.id)
        before = outcome(event, grant(entered))
        comparison.add(event, before, outcome(event, grant(entered, when={"/days": {"minimum": 100}})))
    same = make_event(process_key="other")
    comparison.add(same, *(outcome(same, grant(entered)) for _ in range(2)))
    assert (comparison.compared, comparison.different) == (11, 10)
    (large, group), (small, _) = comparison.sorted_groups()
    assert (large.conclusion, small.conclusion) == ("approved", None)
    assert (large.process_key, large.subject, large.handler) == ("leave", "route", "leave:grant")
    assert (large.before, large.after) == ("delivered", "not delivered")
    assert (large.state_before, large.state_after) == ("routed", "dismissed (condition)")
    assert group.events == 9
    assert group.samples == ids[1 : MAX_SAMPLES + 1]
    assert (len(group.reasons), group.more_reasons) == (MAX_REASONS, True)
    assert group.reasons[0] == '/days is 1, but the condition is {"minimum": 100}'
