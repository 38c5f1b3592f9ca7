"""Encode the explanation of a look-up as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.routing.router import Explanation


class ConditionJson(TypedDict):
    """One condition of a handler, evaluated for an event.

    Attributes:
        member: what the condition reads: `conclusion`, or a JSON Pointer into the event's data.
        holds: whether the condition is true; null: it is undecided.
        reason: why the condition is not true; empty if it is.
    """

    member: str
    holds: bool | None
    reason: str


class CandidateJson(TypedDict):
    """A handler that shares the event's class or key, or takes every event.

    Attributes:
        handler_id: id of the handler.
        state: `present`; `elsewhere` if only other processes may run the handler; or why it is unavailable, such as
            `missing`.
        matched_on: what the handler has in common with the event.
        matched: whether the event goes to the handler.
        undecided: whether none of the conditions is false, and at least one is undecided.
        reason: why the event goes to the handler, or why not.
        conditions: conditions; empty if the handler has none, or if kind, versions or source differ.
    """

    handler_id: str
    state: str
    matched_on: str
    matched: bool
    undecided: bool
    reason: str
    conditions: list[ConditionJson]


class ExplanationJson(TypedDict):
    """Where an event would go now, and why.

    Attributes:
        state: state that the event would have: routed, parked or dismissed.
        parked_by: why the event would be parked: `handler`, `condition` or `name`; null: it would not.
        dismissed_by: why the event would be dismissed: `condition`, `kind` or `setting`; null: it would not.
        undecided: member that an undecided condition needs: `conclusion` or a JSON Pointer; null: there is none.
        unknown_conclusion: whether handlers have the event's class or key, and none of them names its conclusion.
        handlers: why the event goes to each handler, by handler id.
        candidates: handlers that share the event's class or key, or take every event.
        left_out: number of further candidates.
    """

    state: str
    parked_by: str | None
    dismissed_by: str | None
    undecided: str | None
    unknown_conclusion: bool
    handlers: dict[str, str]
    candidates: list[CandidateJson]
    left_out: int


def explanation_to_json(explanation: Explanation, availability: Callable[[str], str]) -> ExplanationJson:
    """Return an explanation as JSON.

    Args:
        explanation: explanation made by the router.
        availability: returns the availability of a handler by its id.
    """
    route = explanation.route
    return {
        "state": route.state,
        "parked_by": route.parked_by,
        "dismissed_by": route.dismissed_by,
        "undecided": route.undecided or None,
        "unknown_conclusion": route.unknown_conclusion,
        "handlers": dict(route.handlers),
        "candidates": [
            {
                "handler_id": candidate.handler_id,
                "state": availability(candidate.handler_id),
                "matched_on": candidate.matched_on,
                "matched": candidate.matched,
                "undecided": candidate.undecided,
                "reason": candidate.reason,
                "conditions": [
                    {"member": condition.member, "holds": condition.holds, "reason": condition.reason}
                    for condition in candidate.conditions
                ],
            }
            for candidate in explanation.verdicts
        ],
        "left_out": explanation.left_out,
    }
