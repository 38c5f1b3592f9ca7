"""How an event is routed in the model: from the rules, not from the router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from model.listeners import HANDLERS, IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.listeners import Conditions


class Callback(NamedTuple):
    """The input of routing."""

    identity: tuple[str, str, str]
    body: Mapping[str, Any]


class Route(NamedTuple):
    """The route of an event.

    Attributes:
        state, parked_by, dismissed_by: as the ledger stores them.
        handlers: the matching handlers.
        not_matching: handlers that share its class or key and do not match.
        missing: the members that undecided conditions lack.
    """

    state: str
    parked_by: str | None
    dismissed_by: str | None
    handlers: frozenset[str]
    not_matching: frozenset[str]
    missing: frozenset[str]

    @property
    def no_match(self) -> frozenset[str] | None:
        """The handlers whose reason for not matching is stored; None: nothing is stored."""
        return (self.not_matching or None) if self.state != "routed" or self.missing else None


def route(callback: Callback, known: Mapping[str, Conditions]) -> Route:
    """The route of an event among the known handlers, each with its conditions."""
    _, callback_class, _ = callback.identity
    key = callback.body.get("processDefinitionKey")
    candidates = {
        handler for handler in known if key in HANDLERS[handler].keys or callback_class in HANDLERS[handler].classes
    }
    eligible = {
        handler
        for handler in known
        if (handler in candidates or HANDLERS[handler].every) and _has_kind_and_version(handler, callback)
    }
    missing = {
        handler: _undecided(known[handler], callback.body)
        for handler in eligible
        if decide(known[handler], callback) is None
    }
    matching = {handler for handler in eligible if decide(known[handler], callback) is True}
    state, parked_by, dismissed_by = "routed", None, None
    if not candidates & matching:
        state, parked_by, dismissed_by = "parked", None, None
        if candidates & missing.keys():
            parked_by = "condition"
        elif candidates & eligible:
            state, dismissed_by = "dismissed", "condition"
        elif key == IGNORED:
            state, dismissed_by = "dismissed", "setting"
        elif candidates and callback.identity[2] != "complete":
            state, dismissed_by = "dismissed", "kind"
        else:
            parked_by = "handler" if key or callback_class else "name"
    missing_members = frozenset().union(*missing.values())
    return Route(state, parked_by, dismissed_by, frozenset(matching), frozenset(candidates - matching), missing_members)


def decide(conditions: Conditions, callback: Callback) -> bool | None:
    """Whether all conditions hold; None: undecided."""
    body = callback.body
    conclusion = body.get("conclusion")
    decisions = [_meets(expected, body.get(pointer[1:])) for pointer, expected in conditions.when.items()]
    if conditions.conclusions:
        decisions.append(None if conclusion is None else conclusion in conditions.conclusions)
    if False in decisions:
        return False
    return None if None in decisions else True


def _has_kind_and_version(handler: str, callback: Callback) -> bool:
    least, version = HANDLERS[handler].least_version, callback.body.get("processDefinitionVersion")
    return callback.identity[2] == "complete" and (least is None or (version is not None and version >= least))


def _undecided(conditions: Conditions, body: Mapping[str, Any]) -> set[str]:
    pointers = {
        pointer for pointer, expected in conditions.when.items() if _meets(expected, body.get(pointer[1:])) is None
    }
    return pointers | ({"conclusion"} if conditions.conclusions and "conclusion" not in body else set())


def _meets(expected: Any, value: Any) -> bool | None:
    """Whether a value satisfies a minimum, a constant, or one of several values; None is absent."""
    if isinstance(expected, dict):
        return value >= expected["minimum"] if isinstance(value, int) else None
    constants = expected if isinstance(expected, list) else [expected]
    if value is None:
        return True if None in constants else None
    if type(value) not in {type(constant) for constant in constants}:
        return None
    return value in constants
