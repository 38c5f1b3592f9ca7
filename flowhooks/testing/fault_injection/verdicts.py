"""The verdict on a scenario, with advice for the author of the handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.model.delivery import COMPLETED_STATES, State
from flowhooks.testing.fault_injection.report import Finding

if TYPE_CHECKING:
    from flowhooks.model.handler import Handler
    from flowhooks.testing.fault_injection.report import Scenario, ScenarioVerdict
    from flowhooks.testing.views import DeliveryView

TWICE: Final = (
    "To do it once: pass `delivery.id` on as the idempotency key of the system that does the work; or keep "
    "`delivery.id` beside the work under a unique constraint, and commit both in one transaction. What is only kept "
    "in memory is forgotten when the process is killed."
)
"""Advice about work that is done more than once."""


def judge(
    scenario: Scenario, place: str, *, times: int, seen: DeliveryView, handler: Handler, caught: bool = False
) -> Finding:
    """Return the finding of one scenario.

    Args:
        scenario: the scenario.
        place: its place; `""` if none.
        times: how many times the work was done.
        seen: the delivery in its final state.
        handler: the handler.
        caught: whether the handler caught the simulated kill and continued.
    """
    verdict, words = _verdict(scenario, times, seen, handler)
    if caught and verdict != "once":
        words += (
            " (The handler catches BaseException, so it went on after the simulated kill, which a real one does not "
            "let it do: catch Exception instead.)"
        )
    return Finding(scenario=scenario, place=place, times=times, state=seen.state, verdict=verdict, words=words)


def _verdict(scenario: Scenario, times: int, seen: DeliveryView, handler: Handler) -> tuple[ScenarioVerdict, str]:
    if times > 1:
        return "twice", _twice(times, handler, scenario)
    if seen.state is State.UNKNOWN:
        done = "was done, but nobody knows that" if times else "was not done"
        asked = "its probe= cannot tell" if handler.probe else "it has neither retry= nor probe="
        return "held", (
            f"The work {done}: the delivery is unknown, for {asked}, and an operator has to decide. If running it "
            "twice does no harm, say so with retry=; if it can be found out whether it did its work, give a probe=."
        )
    if seen.state is State.DEAD:
        done = "was done once, and an operator who replays it has it done again" if times else "was not done"
        return "held", f"The work {done}: the delivery is dead, and an operator is shown its error: {seen.error}"
    if times == 1:
        return "once", "The work was done once."
    if seen.state in COMPLETED_STATES:
        return "lost", _lost(scenario, seen.attempt, handler)
    return "held", f"The work was not done: the delivery is {seen.state}, and an operator is shown that."


def _twice(times: int, handler: Handler, scenario: Scenario) -> str:
    how = f"{times} times" if times > 2 else "twice"  # noqa: PLR2004 ("twice" has a word of its own)
    why = ""
    if scenario.startswith("crash") or scenario == "failure":
        if handler.retry is not None:
            why = " Its retry= says that running it twice is safe, and it is not."
        elif handler.probe is not None:
            why = " Its probe= said that the work had not been done, and it had."
    return f"The business work is done {how}.{why} {TWICE}"


def _lost(scenario: Scenario, attempts: int, handler: Handler) -> str:
    if scenario == "baseline":
        return (
            "The delivery has succeeded, and the work was not done: either the handler did nothing, or `done` does "
            "not count what it did. `done` is given the event, and counts the work of that event alone."
        )
    if scenario == "reordered":
        return _lost_beside_another(handler.order_by)
    if attempts > 1:
        return (
            "The work is lost, and nobody is told: when the handler ran again it took the work for done. It writes "
            "down that it did its work before it does it, or not in the same transaction: commit both together, or "
            "write that down last."
        )
    if scenario.startswith("crash"):
        return (
            "The work is lost, and nobody is told: its probe= said that the work had been done, and it had not. "
            "A probe answers True or False only when that is certain; else None."
        )
    if scenario == "failure":
        return (
            "The work is lost, and nobody is told: the handler catches an exception that it cannot know, and returns "
            "as if all were well. Let it pass: flowhooks makes it a failed attempt."
        )
    return (
        "The work is lost, and nobody is told: the handler returned without having done it, and does it when nothing "
        "happens. What it goes by is not the event alone: look for what it keeps from one event to the next."
    )


def _lost_beside_another(order_by: str | None) -> str:
    if order_by is not None:
        return (
            "The work is lost, and nobody is told: there was another event beside it, and the handler took it for done "
            "or out of date. Each event is work of its own, and order_by= orders only those with the same "
            f"{order_by}: others are delivered in any order."
        )
    return (
        "The work is lost, and nobody is told: a later event had been delivered before it, or an earlier one was "
        "still held, and the handler took it for out of date. Events are delivered in any order, and each is work "
        "of its own."
    )
