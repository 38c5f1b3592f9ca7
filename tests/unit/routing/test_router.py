"""The look-up of handlers for an event."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime

import pytest

from flowhooks.model.event import Event, EventState, ParkedBy
from flowhooks.model.selectors import Selectors
from flowhooks.routing.index import Candidate, Route
from flowhooks.routing.router import MAX_ORDER_KEY_CHARS, Router, Subscription


def make_event(**given):
    """An event with only the given attributes."""
    return Event(id="e", flow_instance_id="i", data={}, received_at=datetime(2026, 1, 1, tzinfo=UTC), **given)


def make_router(ignore_keys=(), **selectors):
    """A router with one candidate for each name."""
    candidates = [Candidate(f"p:{name}", Selectors(**given)) for name, given in selectors.items()]
    return Router(candidates, ignore_keys=ignore_keys)


@pytest.mark.parametrize(
    ("selectors", "event", "reason"),
    [
        ({"callback_classes": ("com.x.Y",)}, {"callback_class": "com.x.Y"}, "class com.x.Y"),
        ({"callback_classes": ("com.x.Y",)}, {"callback_class": "com.x.y"}, None),
        ({"callback_classes": ("com.x.Y",)}, {}, None),
        ({"process_keys": ("leave", "absence")}, {"process_definition_key": "absence"}, "key absence"),
        ({"process_keys": ("leave",)}, {"callback_class": "leave"}, None),
        (
            {"callback_classes": ("C",), "process_keys": ("k",)},
            {"callback_class": "C", "process_definition_key": "k"},
            "class C and key k",
        ),
        (
            {"callback_classes": ("C",), "process_keys": ("k",)},
            {"callback_class": "D", "process_definition_key": "k"},
            "key k",
        ),
        (
            {"process_keys": ("k",), "versions": ">=3,<5"},
            {"process_definition_key": "k", "process_definition_version": 3},
            "key k, version 3 in >=3,<5",
        ),
        (
            {"process_keys": ("k",), "versions": ">=3,<5"},
            {"process_definition_key": "k", "process_definition_version": 5},
            None,
        ),
        ({"process_keys": ("k",), "versions": ">=3"}, {"process_definition_key": "k"}, None),
        (
            {"callback_classes": ("C",), "sources": ("hr", "it")},
            {"callback_class": "C", "source": "it"},
            "class C, source it of hr, it",
        ),
        ({"callback_classes": ("C",), "sources": ("hr",)}, {"callback_class": "C"}, None),
        ({"callback_classes": ("C",), "kind": "cancel"}, {"callback_class": "C"}, None),
        ({"callback_classes": ("C",), "kind": "cancel"}, {"callback_class": "C", "kind": "cancel"}, "class C"),
        ({"every": True}, {"callback_class": "C"}, "every"),
        ({"every": True, "versions": "==1"}, {"process_definition_version": 1}, "every, version 1 in ==1"),
        ({"every": True, "kind": "cancel"}, {"callback_class": "C"}, None),
        ({"every": True, "callback_classes": ("C",)}, {"callback_class": "C"}, "class C"),
        ({"every": True, "callback_classes": ("C",)}, {"callback_class": "D"}, "every"),
    ],
)
def test_events_routed_to_a_handler_and_their_reasons(selectors, event, reason):
    """Class or key must match, and versions, source and kind; the reason names the match."""
    route = make_router(h=selectors).route(make_event(**event))
    assert route.handlers == ({"p:h": reason} if reason else {})


def test_matching_handlers_are_routed_once_in_the_given_order():
    """An event is routed once to each matching handler, in the given order."""
    router = make_router(
        a={"process_keys": ("k",)},
        b={"every": True},
        c={"callback_classes": ("B", "C"), "process_keys": ("k",)},
        d={"callback_classes": ("D",)},
        e={"callback_classes": ("C",)},
    )
    route = router.route(make_event(callback_class="C", process_definition_key="k"))
    assert list(route.handlers.items()) == [
        ("p:a", "key k"),
        ("p:b", "every"),
        ("p:c", "class C and key k"),
        ("p:e", "class C"),
    ]


@pytest.mark.parametrize(
    ("event", "handlers", "state", "reason"),
    [
        ({"callback_class": "C"}, ["p:one", "p:audit"], "routed", None),
        ({"callback_class": "other"}, ["p:audit"], "parked", "handler"),
        ({}, ["p:audit"], "parked", "name"),
        ({"process_definition_key": "noise"}, ["p:audit"], "dismissed", "setting"),
        ({"callback_class": "C", "process_definition_key": "noise"}, ["p:one", "p:audit"], "routed", None),
        ({"kind": "cancel", "callback_class": "C"}, [], "dismissed", "kind"),
    ],
)
def test_an_every_handler_does_not_change_the_state(event, handlers, state, reason):
    """`every` handlers get each event of their kind, and do not change its state."""
    router = make_router(["noise"], one={"callback_classes": ("C",)}, audit={"every": True})
    route = router.route(make_event(**event))
    assert (list(route.handlers), route.state, route.parked_by or route.dismissed_by) == (handlers, state, reason)


def test_an_every_handler_with_a_class_routes_only_its_class():
    """With `every=True` and a class, an event of that class is routed, and any other is parked."""
    router = make_router(h={"every": True, "callback_classes": ("C",)})
    assert not router.route(make_event(callback_class="C")).parked
    assert router.route(make_event(callback_class="D")).parked


def test_a_lookup_evaluates_only_handlers_that_share_class_or_key(monkeypatch):
    """A look-up among ten thousand handlers only evaluates those that share class or key."""
    asked = []
    refusal = Selectors.why_filtered_out
    monkeypatch.setattr(Selectors, "why_filtered_out", lambda self, event: asked.append(self) or refusal(self, event))
    for number in (1, 10_000):
        router = Router(
            Candidate(f"p:h{i}", Selectors(callback_classes=(f"C{i}",), process_keys=(f"k{i}",), versions=">0"))
            for i in range(number)
        )
        asked.clear()
        event = make_event(callback_class="C0", process_definition_key="k0", process_definition_version=1)
        assert list(router.route(event).handlers) == ["p:h0"]
        assert len(asked) == 1
        asked.clear()
        assert router.route(make_event(callback_class="unknown")).parked
        assert not asked


def test_two_candidates_with_the_same_id_are_rejected():
    """Two handlers with one id are refused."""
    with pytest.raises(ValueError, match="two candidates are called 'p:h'"):
        Router([Candidate("p:h", Selectors(every=True)), Candidate("p:h", Selectors(process_keys=("k",)))])


def test_handlers_of_a_router():
    """A router knows each candidate by its complete id."""
    router = make_router(a={"every": True}, b={"process_keys": ("k",)})
    assert [router.has_handler(handler) for handler in ("p:a", "p:b", "p:c", "a")] == [True, True, False, False]
    assert not Router([]).has_handler("p:a")


def test_a_router_without_handlers():
    """Without handlers every event is parked."""
    assert Router([]).route(make_event(callback_class="C")) == Route({}, EventState.PARKED, ParkedBy.HANDLER)
    assert Router([]).subscriptions() == ()


def test_subscriptions_are_listed_by_class_and_key():
    """The list has one line for each class and key with a handler."""
    router = make_router(
        a={"callback_classes": ("C", "D"), "process_keys": ("k",), "versions": " >=3", "sources": ("hr",)},
        b={"every": True, "kind": "cancel"},
    )
    common = {
        "kind": "complete",
        "versions": ">=3",
        "sources": ("hr",),
        "conclusions": (),
        "when": {},
        "handler_id": "p:a",
    }
    assert router.subscriptions() == (
        Subscription(by="class", value="C", **common),
        Subscription(by="class", value="D", **common),
        Subscription(by="key", value="k", **common),
        Subscription(
            by="every", value="", kind="cancel", versions="", sources=(), conclusions=(), when={}, handler_id="p:b"
        ),
    )


def test_each_candidate_is_explained():
    """A handler that shares class or key, or takes every event, is listed with the reason or the failed condition."""
    router = make_router(
        won={"callback_classes": ("C",)},
        version={"callback_classes": ("C",), "versions": ">=3,<5"},
        source={"process_keys": ("k",), "sources": ("hr",)},
        kind={"callback_classes": ("C",), "process_keys": ("k",), "kind": "cancel"},
        every={"every": True},
        other={"callback_classes": ("D",)},
    )
    explanation = router.explain(callback_class="C", process_key="k", version=5)
    assert [dataclasses.astuple(verdict) for verdict in explanation.verdicts] == [
        ("p:won", "class C", True, "class C", ()),
        ("p:version", "class C", False, "version 5 is not <5", ()),
        ("p:source", "key k", False, "source 'default' is not one of hr", ()),
        ("p:kind", "class C and key k", False, "kind is 'complete', not 'cancel'", ()),
        ("p:every", "every", True, "every", ()),
    ]
    assert explanation.route.handlers == {"p:won": "class C", "p:every": "every"}
    assert explanation.hints == ()


def test_each_condition_is_explained():
    """Each condition is true, false or undecided; a handler is undecided if none is false and one undecided."""
    router = make_router(
        true={"process_keys": ("k",), "conclusions": ("approved",), "when": {"/amount": 7}},
        false={"process_keys": ("k",), "conclusions": ("rejected",), "when": {"/cost": 7}},
        undecided={"process_keys": ("k",), "when": {"/amount": 7, "/cost": 7}},
        kind={"process_keys": ("k",), "kind": "cancel", "conclusions": ("rejected",)},
    )
    explanation = router.explain(process_key="k", conclusion="approved", data={"amount": 7})
    found = {verdict.handler_id: verdict for verdict in explanation.verdicts}
    values = {name: [(each.member, each.holds) for each in verdict.conditions] for name, verdict in found.items()}
    assert values == {
        "p:true": [("conclusion", True), ("/amount", True)],
        "p:false": [("conclusion", False), ("/cost", None)],
        "p:undecided": [("/amount", True), ("/cost", None)],
        "p:kind": [],
    }
    assert [name for name, verdict in found.items() if verdict.undecided] == ["p:undecided"]
    assert (
        found["p:false"].conditions[0].reason
        == found["p:false"].reason
        == "conclusion 'approved' is not one of rejected"
    )
    assert found["p:undecided"].reason == "/cost is absent, but the condition 7 needs it"
    assert found["p:true"].conditions[0].reason == ""


def test_an_explanation_counts_source_kind_and_a_missing_version():
    """Source, kind and a missing version count as they do for a callback."""
    router = make_router(h={"process_keys": ("k",), "sources": ("hr",), "kind": "cancel", "versions": "!=2"})
    assert router.explain(process_key="k", version=3, source="hr", kind="cancel").verdicts[0].matched
    (verdict,) = router.explain(process_key="k", source="hr", kind="cancel").verdicts
    assert verdict.reason == "no processDefinitionVersion, but versions '!=2' requires one"


@pytest.mark.parametrize(
    ("asked", "hints"),
    [
        (
            {"callback_class": "com.x.contractSigned "},
            ["class 'com.x.ContractSigned' differs only in case or white space"],
        ),
        ({"callback_class": "com.x.ContractSignd"}, ["class 'com.x.ContractSigned' is similar"]),
        ({"process_key": "contract_aproval"}, ["key 'contract_approval' is similar"]),
        ({"callback_class": "contract_approval"}, ["'contract_approval' is known, but not as a class"]),
        ({"process_key": "com.x.ContractSigned"}, ["'com.x.ContractSigned' is known, but not as a key"]),
        ({"process_key": "entirely different"}, []),
        ({"callback_class": "", "process_key": ""}, []),
        (
            {"process_key": "2251799813685249"},
            ["the key has only digits: send bpmnProcessId instead if the engine is Camunda 8"],
        ),
        ({"callback_class": "com.x.ContractSigned", "version": 1}, []),
    ],
)
def test_hints_of_similar_names(asked, hints):
    """Similar names are shown only if no handler has the event's name."""
    router = make_router(
        h={"callback_classes": ("com.x.ContractSigned",), "process_keys": ("contract_approval",), "versions": ">1"},
        audit={"every": True},
    )
    explanation = router.explain(**asked)
    assert explanation.route.parked
    assert list(explanation.hints) == hints


@pytest.mark.parametrize(
    ("known", "asked", "hint"),
    [
        ("absence", "absence", None),
        ("leave request", "Leave  Request", "key 'leave request' differs only in case or white space"),
        ("leave request", "leaverequest", "key 'leave request' differs only in case or white space"),
        ("abcd", "abce", "key 'abcd' is similar"),
        ("abcd", "abxy", None),
        ("abcdefgh", "abcdexyz", None),  # 5 of 8 characters
    ],
)
def test_similarity_of_a_hint(known, asked, hint):
    """Names are similar if three quarters of the characters match; white space and case do not count."""
    router = make_router(h={"process_keys": (known,), "versions": ">1"})
    assert router.explain(process_key=asked).hints == ((hint,) if hint else ())


def test_the_route_of_a_class_is_precomputed():
    """If only the class counts, each look-up returns the same object."""
    router = make_router(h={"callback_classes": ("C",)}, n={"callback_classes": ("D",), "versions": ">1"})
    event = make_event(callback_class="C")
    assert router.route(event) is router.route(event)
    narrowed = make_event(callback_class="D", process_definition_version=2)
    assert router.route(narrowed) is not router.route(narrowed)
    assert router.route(narrowed) == router.route(narrowed)


def test_at_most_three_hints_are_given():
    """At most three hints are given, of names that differ in case or are similar."""
    router = make_router(h={"callback_classes": ("leave", "Leave", "lEave", "leAve"), "process_keys": ("k",)})
    assert len(router.explain(callback_class="LEAVE").hints) == 3
    router = make_router(h={"process_keys": ("absence1", "absence2", "absence3", "absence4")})
    assert len(router.explain(process_key="absence").hints) == 3


def test_no_hint_for_an_event_with_a_handler():
    """An event that matches a handler has no hints."""
    router = make_router(a={"process_keys": ("leave",)}, b={"callback_classes": ("com.x.Leave",)})
    assert router.explain(process_key="leave", callback_class="com.x.leave").hints == ()


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"k": {"process_keys": ("k",)}},
        {"e": {"every": True}},
        {"n": {"callback_classes": ("C",), "versions": ">1"}},
        {"n": {"process_keys": ("k",), "versions": ">1"}},
        {"n": {"process_keys": ("k",), "conclusions": ("approved",)}},
        {"b": {"callback_classes": ("C",), "process_keys": ("k",)}},
        {"c": {"callback_classes": ("C", "D")}, "other": {"process_keys": ("k",), "kind": "cancel"}},
    ],
)
@pytest.mark.parametrize("name", [None, "C", "unknown"])
@pytest.mark.parametrize("key", [None, "k", "unknown"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("own", [{"callback_classes": ("C",)}, {"process_keys": ("k",)}])
def test_a_precomputed_route_equals_the_route_of_a_full_lookup(own, others, name, key, version):
    """The precomputed route of a class or a key equals the route of a full look-up."""
    router, full = make_router(a=own, **others), make_router(a=own, **others)
    for index in full._kinds.values():
        for bucket in (*index.classes.values(), *index.keys.values()):
            bucket.route = None
    event = make_event(callback_class=name, process_definition_key=key, process_definition_version=version)
    assert router.route(event) == full.route(event)
    assert list(router.route(event).handlers) == list(full.route(event).handlers)


@pytest.mark.parametrize(
    "event",
    [
        {"callback_class": "C"},
        {"callback_class": "C", "process_definition_key": "unknown"},
        {"process_definition_key": "k"},
        {"callback_class": "unknown", "process_definition_key": "k"},
    ],
)
def test_the_route_of_a_class_or_a_key_without_conditions_is_precomputed(event):
    """Such events share one route; an event with handlers of its class and of its key has its own."""
    router = make_router(a={"callback_classes": ("C",)}, b={"process_keys": ("k",)})
    assert router.route(make_event(**event)) is router.route(make_event(**event))
    both = make_event(callback_class="C", process_definition_key="k")
    assert router.route(both).handlers == {"p:a": "class C", "p:b": "key k"}


def test_order_key_of_an_ordered_handler():
    """The order key is the business key or the process key, if the event has one; other handlers have none."""
    candidates = [
        Candidate("p:business", Selectors(every=True), "business_key"),
        Candidate("p:process", Selectors(every=True), "process_key"),
        Candidate("p:none", Selectors(every=True)),
    ]
    router = Router(candidates)
    every = [candidate.handler_id for candidate in candidates]
    assert [router.order_by(handler_id) for handler_id in (*every, "p:unknown")] == [
        "business_key",
        "process_key",
        None,
        None,
    ]
    both = make_event(business_key="b", process_definition_key="k")
    assert router.order_keys(both, every) == {"p:business": "b", "p:process": "k"}
    assert router.order_keys(both, ["p:process", "p:unknown"]) == {"p:process": "k"}
    assert router.order_keys(make_event(process_definition_key="k"), every) == {"p:process": "k"}
    assert router.order_keys(make_event(business_key=""), every) == {}
    assert Router(candidates[2:]).order_keys(both, every) == {}


def test_the_length_of_an_order_key_is_limited():
    """A name too long for an index is compared by its digest, a shorter one by itself."""
    router = Router([Candidate("p:h", Selectors(every=True), "business_key")])
    longest = "中" * MAX_ORDER_KEY_CHARS
    assert router.order_keys(make_event(business_key=longest), ["p:h"]) == {"p:h": longest}
    longer = router.order_keys(make_event(business_key=longest + "x"), ["p:h"])["p:h"]
    assert longer == hashlib.sha256(f"{longest}x".encode()).hexdigest()
    assert longer != router.order_keys(make_event(business_key=longest + "y"), ["p:h"])["p:h"]
