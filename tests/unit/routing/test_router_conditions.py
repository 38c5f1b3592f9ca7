"""The router with conclusions and conditions: whether an event is routed, parked or dismissed, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flowhooks.errors import HandlerError, NewerSelectorsError
from flowhooks.model import conditions
from flowhooks.model.event import Event, NoMatch
from flowhooks.model.selectors import SELECTORS_FORMAT, Selectors
from flowhooks.routing.index import Candidate
from flowhooks.routing.router import MAX_REASONS, Router
from support.routing_table import APPROVED, LARGE, REJECTED, TABLE

EVERY = {"every": True}
EVERY_LARGE = {"every": True, "when": {"/amount": {"minimum": 1000}}}


def event_of(key="k", data=None, **given):
    """An event of the key k."""
    defaults = {"id": "e", "flow_instance_id": "i", "received_at": datetime(2026, 1, 2, tzinfo=UTC)}
    return Event(process_definition_key=key, data=data or {}, **(defaults | given))


def router_of(*candidates, **given):
    """A router of numbered handlers of the key k, with these selectors."""
    several = [
        {"process_keys": ("k",)} | candidate if "every" not in candidate else candidate for candidate in candidates
    ]
    return Router(
        [Candidate(f"p:{number}", Selectors(**candidate)) for number, candidate in enumerate(several)], **given
    )


def outcome(route):
    """The state, the reason, the missing member, and the numbers of the handlers."""
    reason = route.parked_by or route.dismissed_by
    return (
        route.state.value,
        reason and reason.value,
        route.undecided,
        [handler_id.partition(":")[2] for handler_id in route.handlers],
    )


@pytest.mark.parametrize(("candidates", "event", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("every", ["none", "unconditional", "true", "false", "undecided"])
def test_every_row_of_the_routing_table(candidates, event, expected, every):
    """Handlers that share class or key decide the state; an `every` handler only adds a delivery."""
    beside = {
        "none": [],
        "unconditional": [EVERY],
        "true": [EVERY | {"when": {"/flag": True}}],
        "false": [EVERY | {"when": {"/flag": False}}],
        "undecided": [EVERY | {"when": {"/flag": "yes"}}],
    }[every]
    kind = {"kind": event["kind"]} if "kind" in event else {}
    router = router_of(*candidates, *(candidate | kind for candidate in beside))
    given = event | {"data": {**event.get("data", {}), "flag": True}}
    state, reason, undecided, handlers = outcome(router.route(event_of(**given)))
    gets_it = [str(len(candidates))] if every in {"unconditional", "true"} else []
    undecided_every = "/flag" if every == "undecided" else ""
    assert (state, reason, handlers) == (expected[0], expected[1], expected[3] + gets_it)
    assert undecided == (expected[2] or undecided_every)


@pytest.mark.parametrize(
    ("conclusion", "unknown"),
    [("approved", False), ("rejected", False), ("Approved", True), ("withdrawn", True), (None, False)],
)
def test_unknown_conclusions(conclusion, unknown):
    """A conclusion is unknown if handlers of the key require conclusions and none names it."""
    router = router_of(APPROVED, {"conclusions": ("rejected",), "when": {"/amount": 1}})
    event = event_of(conclusion=conclusion, data={"amount": 2})
    assert router.route(event).unknown_conclusion is unknown
    assert router.is_unknown_conclusion(event) is unknown
    assert not router_of(LARGE).route(event_of(conclusion="x", data={"amount": 1})).unknown_conclusion


@pytest.mark.parametrize(
    ("conclusion", "hints"),
    [
        ("Approved", ("conclusion 'approved' differs only in case or white space",)),
        ("aproved", ("conclusion 'approved' is similar",)),
        ("refused", ()),
        ("approved", ()),
        (None, ()),
    ],
)
def test_hints_of_similar_conclusions(conclusion, hints):
    """Hints are the conclusions that handlers of the event's class or key name."""
    router = router_of(APPROVED, REJECTED)
    assert router.similar_conclusions(event_of(conclusion=conclusion)) == hints
    explained = router.explain(process_key="k", conclusion=conclusion)
    assert set(hints) <= set(explained.hints)


def test_reasons_of_a_route():
    """The route names the conclusion and the conditions that held."""
    router = router_of(APPROVED | LARGE | {"versions": ">1"})
    event = event_of(conclusion="approved", data={"amount": 2000}, process_definition_version=3)
    assert router.route(event).handlers == {"p:0": "key k, version 3 in >1, conclusion approved, conditions on /amount"}
    router = router_of({"when": {"/a": 1, "/b": 2}})
    assert router.route(event_of(data={"a": 1, "b": 2})).handlers == {"p:0": "key k, conditions on /a, /b"}


def test_reasons_of_handlers_that_do_not_match():
    """Each handler that shares class or key and does not match has its reason; others have none."""
    router = router_of(
        APPROVED,
        LARGE,
        {"kind": "cancel"},
        {"versions": ">3"},
        REJECTED,
        {"process_keys": ("other",)},
        EVERY_LARGE,
    )
    event = event_of(conclusion="rejected", data={"amount": 5})
    assert list(router.route(event).handlers) == ["p:4"]
    assert router.no_match(event) == NoMatch(
        {
            "p:0": "conclusion 'rejected' is not one of approved",
            "p:1": '/amount is 5, but the condition is {"minimum": 1000}',
            "p:2": "kind is 'complete', not 'cancel'",
            "p:3": "no processDefinitionVersion, but versions '>3' requires one",
        },
        4,
    )


def test_twenty_reasons_and_a_count_are_returned():
    """Twenty reasons are returned for any number of handlers, with a count of the rest."""
    found = router_of(*[APPROVED] * 50).no_match(event_of(conclusion="no"))
    assert (len(found.reasons), found.total) == (MAX_REASONS, 50)
    assert NoMatch.from_json(found.to_json()) == found


def test_explanations_have_the_failed_condition():
    """Each candidate has the condition that failed; the data counts if it is given."""
    router = router_of(APPROVED | LARGE)
    (verdict,) = router.explain(process_key="k", conclusion="approved").verdicts
    assert (verdict.matched, verdict.reason) == (
        False,
        '/amount is absent, but the condition {"minimum": 1000} needs it',
    )
    (verdict,) = router.explain(process_key="k").verdicts
    assert verdict.reason == "no conclusion, but the handler requires one of approved"
    (verdict,) = router.explain(process_key="k", data={"amount": 1}).verdicts
    assert verdict.reason == '/amount is 1, but the condition is {"minimum": 1000}'
    explained = router.explain(process_key="k", conclusion="approved", data={"amount": 1000})
    assert explained.verdicts[0].matched
    assert explained.route.state == "routed"


@pytest.mark.parametrize(
    ("most", "handlers", "left_out"),
    [
        (None, ["p:0", "p:1", "p:2", "p:3"], 0),
        (4, ["p:1", "p:3", "p:0", "p:2"], 0),
        (3, ["p:1", "p:3", "p:0"], 1),
        (1, ["p:1"], 3),
    ],
)
def test_number_of_explained_candidates_is_limited(most, handlers, left_out):
    """Matching handlers come first in a limited explanation, and the rest are counted."""
    router = router_of(APPROVED, REJECTED, LARGE, REJECTED, {"process_keys": ("other",)})
    explanation = router.explain_event(event_of(conclusion="rejected"), max_candidates=most)
    assert [verdict.handler_id for verdict in explanation.verdicts] == handlers
    assert explanation.left_out == left_out


def test_a_limited_explanation_has_no_hints():
    """A hint compares an event's names with all names, which takes too long for a page of the console."""
    router = router_of(APPROVED)
    event = event_of(conclusion="aproved")
    assert router.explain_event(event).hints == ("conclusion 'approved' is similar",)
    assert router.explain_event(event, max_candidates=5).hints == ()


def test_a_lookup_evaluates_only_handlers_with_the_conclusion(monkeypatch):
    """With a thousand handlers on one key, only those that name the conclusion are asked."""
    asked = []
    decide = Selectors.decide
    monkeypatch.setattr(Selectors, "decide", lambda self, event: asked.append(self) or decide(self, event))
    router = router_of(*({"conclusions": (f"c{number}",)} for number in range(1000)), {})
    assert outcome(router.route(event_of(conclusion="c7")))[3] == ["7", "1000"]
    assert len(asked) == 1
    asked.clear()
    assert outcome(router.route(event_of(conclusion="other")))[3] == ["1000"]
    assert asked == []
    assert router.route(event_of()).undecided == "conclusion"
    assert len(asked) == 1


def test_handlers_without_conditions_evaluate_no_conditions(monkeypatch):
    """Handlers without conditions are not slowed by conditions of others."""
    monkeypatch.setattr(Selectors, "decide", lambda self, event: pytest.fail("it was asked"))
    assert router_of({}, {"versions": ">0"}).route(event_of(process_definition_version=1)).handlers


def test_conditions_are_compiled_once(monkeypatch):
    """A second event is decided with the conditions that the first one was decided with."""
    router = router_of({"when": {"/x": {"minLength": 1}}}, {"when": {"/x": "a"}})
    for name in ("_parse_pointer", "_constants_check", "_schema_check"):
        monkeypatch.setattr(conditions, name, lambda *_: pytest.fail("a condition was compiled again"))
    for value in ("a", "b", "", None):
        router.route(event_of(data={"x": value}))


def test_events_routed_by_their_own_data():
    """Events are routed by data if a handler of their kind and class or key has a condition on the data."""
    router = router_of(APPROVED, LARGE, {"process_keys": ("c",)} | APPROVED, EVERY_LARGE)
    assert router.reads_data(event_of())
    assert not router.reads_data(event_of("c"))
    assert not router.reads_data(event_of("unknown"))
    assert not router.reads_data(event_of(kind="cancel"))


def test_a_class_with_conditions_has_no_precomputed_route():
    """If only the class counts, the route is precomputed; conditions are evaluated each time."""
    candidates = [Candidate("p:h", Selectors(callback_classes=("C",), **APPROVED))]
    router = Router(candidates)
    for conclusion, state in (("approved", "routed"), ("rejected", "dismissed"), (None, "parked")):
        assert router.route(event_of(None, callback_class="C", conclusion=conclusion)).state == state


def test_a_handler_matched_by_class_and_key_gets_the_event_once():
    """A handler with the event's class and key gets the event once."""
    router = Router([Candidate("p:h", Selectors(callback_classes=("C",), process_keys=("k",), **APPROVED))])
    event = event_of(callback_class="C", conclusion="approved")
    assert router.route(event).handlers == {"p:h": "class C and key k, conclusion approved"}
    assert router.route(event_of(callback_class="C")).undecided == "conclusion"
    beside = Router([Candidate("p:h", Selectors(callback_classes=("C",), process_keys=("k",), when={"/a": 1}))])
    assert beside.route(event_of(callback_class="C", data={"a": 1})).handlers == {
        "p:h": "class C and key k, conditions on /a"
    }
    assert router.no_match(event_of(callback_class="C")).total == 1


def test_an_ignored_key_with_handlers():
    """`routing.ignore_process_keys` applies to events without undecided conditions; others are parked."""
    router = router_of(APPROVED | {"versions": ">1"}, ignore_keys=["k"])
    assert outcome(router.route(event_of(conclusion="approved")))[:2] == ("dismissed", "setting")
    known = event_of(process_definition_version=2)
    assert outcome(router.route(known))[:2] == ("parked", "condition")


def test_an_ignored_key_with_an_undecided_every_handler():
    """The event is dismissed by the setting, and its route names the member that the condition lacks."""
    route = router_of(EVERY_LARGE, ignore_keys=["k"]).route(event_of())
    assert outcome(route) == ("dismissed", "setting", "/amount", [])
    assert outcome(router_of(EVERY, ignore_keys=["k"]).route(event_of())) == ("dismissed", "setting", "", ["0"])


def test_a_router_with_an_unreadable_handler_routes_nothing():
    """Nothing is routed, because the handler might match; the error names the first three and the remedy."""
    router = Router(
        [Candidate("p:h", Selectors(process_keys=("k",)))], unreadable_handlers=["q:a", "q:b", "q:c", "q:d"]
    )
    why = "^a newer version of flowhooks has registered q:a, q:b, q:c, and this version cannot read the selectors: "
    why += "run the newer version here too; if there is none, the row is damaged: run `flowhooks verify`$"
    with pytest.raises(NewerSelectorsError, match=why):
        router.route(event_of())


def test_selectors_restore_conclusions_and_conditions():
    """Selectors keep conclusions and conditions; those of the first format have none."""
    selectors = Selectors(process_keys=("k",), conclusions=("a", "b"), when={"/x": [1, None]})
    written = selectors.to_json()
    assert written["format"] == SELECTORS_FORMAT == 2
    assert Selectors.from_json(written) == selectors
    old = {name: value for name, value in written.items() if name not in {"format", "conclusions", "when"}}
    assert Selectors.from_json(old) == Selectors(process_keys=("k",))
    with pytest.raises(NewerSelectorsError, match="format 3, but this version reads formats up to 2"):
        Selectors.from_json(written | {"format": 3})


def test_conditions_that_differ_only_in_type_are_different():
    """1 and True are different, although Python treats them as equal, so that a cluster notices the change."""
    one, true = (Selectors(process_keys=("k",), when={"/x": value}) for value in (1, True))
    assert one != true
    assert one == Selectors(process_keys=("k",), when={"/x": 1})


@pytest.mark.parametrize("conclusion", ["", "x" * 129, 1, None])
def test_invalid_conclusions(conclusion):
    """A conclusion must be a string that an event can have."""
    with pytest.raises(HandlerError, match="conclusion= is a string of 1 to 128 characters"):
        Selectors(process_keys=("k",), conclusions=(conclusion,))
    assert Selectors(process_keys=("k",), conclusions=("x" * 128,)).has_conditions
