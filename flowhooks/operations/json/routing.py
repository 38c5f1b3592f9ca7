"""One look-up explained, as JSON has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.routing.router import Explanation


class ConditionJson(TypedDict):
    """One condition of a handler, evaluated for an event.

    Attributes:
        member: what it reads: `conclusion`, or a JSON Pointer into the event's data.
        holds: whether it holds; null: it cannot be decided.
        reason: why it does not hold; empty if it holds.
    """

    member: str
    holds: bool | None
    reason: str


class CandidateJson(TypedDict):
    """A handler that shares the event's class or key, or takes every event.

    Attributes:
        handler_id: its id.
        state: `present`; `elsewhere` if only other processes may run it; or why it is not there, such as `missing`.
        matched_on: what it has in common with the event.
        matched: whether the event goes to it.
        undecidable: whether none of its conditions is false, and at least one cannot be decided.
        reason: the reason why the event goes to it, or why not.
        conditions: its conditions; empty if it has none, or if kind, versions or source differ.
    """

    handler_id: str
    state: str
    matched_on: str
    matched: bool
    undecidable: bool
    reason: str
    conditions: list[ConditionJson]


class ExplanationJson(TypedDict):
    """Where an event would go now, and why.

    Attributes:
        state: what the event would be: routed, parked or dismissed.
        parked_by: why it would be parked: `handler`, `condition` or `name`; null: it would not.
        dismissed_by: why it would be dismissed: `condition`, `kind` or `setting`; null: it would not.
        undecided: the member that an undecidable condition needs: `conclusion` or a JSON Pointer; null: there is none.
        unknown_conclusion: whether handlers have the event's class or key, and none of them names its conclusion.
        handlers: why the event goes to each handler, by the handler's id.
        candidates: the handlers that share its class or key, or take every event.
        left_out: how many further candidates there are.
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
    """An explanation as JSON.

    Args:
        explanation: of the router.
        availability: whether a handler of this id is there, or what is the matter with it.
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
                "undecidable": candidate.undecidable,
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
