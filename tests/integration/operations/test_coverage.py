"""Coverage: which definitions, versions and conclusions no handler takes."""

from __future__ import annotations

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.model.engine import ProcessDefinition
from flowhooks.operations.coverage import coverage
from flowhooks.settings import Source
from flowhooks.settings.engine import EngineSettings
from support import engine_ledger
from support.engine_fakes import engine_plugin

pytestmark = pytest.mark.either

ENGINE = Source(engine=EngineSettings(client="fake", url="http://engine"))


@pytest.fixture
def opened(harness, listens):
    """A function that opens an app with handlers of these selectors, and stores the definitions of `oa`."""
    harness.check_at_end = False

    def opened(*selectors, definitions=(), routing=None, sources=("oa",)):
        handlers = [
            listens(lambda event: None, name=f"h{number}", **selector) for number, selector in enumerate(selectors)
        ]
        flow = harness.open(
            plugins={"p": engine_plugin(*handlers)},
            start=False,
            sources=dict.fromkeys(sources, ENGINE),
            **({"routing": routing} if routing else {}),
        )
        if definitions:
            engine_ledger.position(
                flow, "oa", definitions=engine_ledger.definitions(*definitions), definitions_at=flow.clock.now()
            )
        return flow

    return opened


def compared(flow, **given):
    """The coverage of a flow."""
    return coverage(flow.app.ledger, flow.app.router, flow.app.settings, flow.clock.now(), **given)


def only(flow, **given):
    """The only definition."""
    (definition,) = compared(flow, **given).definitions
    return definition


def test_a_handler_covers_a_definition(opened):
    """A handler of its key, for its latest version and its source, covers a definition."""
    flow = opened({"process_key": "leave", "versions": ">=3", "source": "oa"}, definitions=[("leave", 3, "Leave")])
    found = compared(flow)
    (definition,) = found.definitions
    assert (definition.is_covered, definition.handlers, definition.name) == (True, ("p:h0",), "Leave")
    assert (found.is_complete, found.uncovered, found.read_at) == (True, 0, {"oa": flow.clock.now()})


def test_a_definition_without_a_matching_handler_is_not_covered(opened):
    """Neither a handler of another source or kind, nor one for every event, covers a definition."""
    flow = opened(
        {"process_key": "leave", "source": "erp"},
        {"process_key": "leave", "kind": "cancel"},
        {"process_key": None, "every": True},
        definitions=[("leave", 1), ("order", 1)],
    )
    found = compared(flow)
    assert [
        (definition.key, definition.no_handler, definition.handlers, definition.versions)
        for definition in found.definitions
    ] == [("leave", True, (), ()), ("order", True, (), ())]
    assert (found.is_complete, found.uncovered) == (False, 2)


def test_a_handler_of_a_class_covers_definitions_with_the_class(opened):
    """A handler of a class covers a definition whose events had the class."""
    flow = opened({"process_key": None, "callback_class": "com.example.Leave"}, definitions=[("leave", 1)])
    assert only(flow).no_handler
    flow.take("1", source="oa", key="leave", callback_class="com.example.Leave", wait=0)
    assert only(flow).handlers == ("p:h0",)
    assert only(flow).is_covered


def test_a_version_without_a_handler_is_not_covered(opened):
    """The latest version, and versions that events had in the last 30 days, must be taken."""
    flow = opened({"process_key": "leave", "versions": ">=2,<4"}, definitions=[("leave", 4)])
    assert (only(flow).versions, only(flow).handlers) == ((4,), ())
    flow.take("1", source="oa", key="leave", processDefinitionVersion=1, wait=0)
    flow.take("2", source="oa", key="leave", processDefinitionVersion=2, wait=0)
    flow.take("3", source="other", key="leave", processDefinitionVersion=7, wait=0)
    assert only(flow).versions == (1, 4)
    flow.clock.advance(31 * DAY // SECOND)
    assert only(flow).versions == (4,)


def test_a_conclusion_without_a_handler_is_not_covered(opened):
    """A conclusion of events that no handler of the key names is not covered, with the number and newest event."""
    flow = opened(
        {"process_key": "leave", "conclusion": ("approved", "rejected")},
        definitions=[("leave", 1)],
        routing={"ignore_conclusions": ("withdrawn",)},
    )
    for instance, conclusion in (("1", "approved"), ("2", "aproved"), ("3", "aproved"), ("4", "withdrawn")):
        flow.take(instance, source="oa", key="leave", conclusion=conclusion, wait=0)
    definition = only(flow)
    assert [
        (uncovered_conclusion.conclusion, uncovered_conclusion.version, uncovered_conclusion.events)
        for uncovered_conclusion in definition.conclusions
    ] == [("aproved", None, 2)]
    assert definition.conclusions[0].event_id == flow.events(flow_instance_id="3")[0]
    assert not definition.is_covered


def test_a_condition_on_the_data_is_covered(opened):
    """A handler with a condition on the data takes the definition: only each event can tell."""
    flow = opened({"process_key": "leave", "when": {"/amount": {"minimum": 1}}}, definitions=[("leave", 1)])
    assert only(flow).is_covered


def test_an_ignored_key_needs_no_handler(opened):
    """A key in `routing.ignore_process_keys` needs no handler."""
    flow = opened(definitions=[("leave", 1)], routing={"ignore_process_keys": ("leave",)})
    assert (only(flow).ignored, only(flow).is_covered) == (True, True)


def test_the_comparison_is_incomplete_without_an_engine_answer(opened):
    """An engine that was never asked makes the comparison incomplete; a fresh answer is used instead, or its error."""
    flow = opened(sources=("oa", "erp"), definitions=[("leave", 1)])
    found = compared(flow)
    assert [(engine.source, engine.error) for engine in found.unread] == [("erp", "")]
    assert not found.is_complete
    assert compared(flow, source="oa").unread == ()
    fresh = compared(flow, fresh={"oa": [ProcessDefinition(key="order", version=9)]}, errors={"erp": "HTTP 500"})
    assert [(definition.key, definition.version) for definition in fresh.definitions] == [("order", 9)]
    assert [(engine.source, engine.error) for engine in fresh.unread] == [("erp", "HTTP 500")]


def test_uncovered_definitions_are_listed_first(opened):
    """Definitions that are not covered precede the others."""
    flow = opened({"process_key": "b"}, definitions=[("b", 1), ("c", 1), ("a", 1)])
    assert [definition.key for definition in compared(flow).definitions] == ["a", "c", "b"]
