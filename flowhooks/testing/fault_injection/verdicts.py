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
    "To do the work once: pass `delivery.id` as the idempotency key to the system that does the work; or store "
    "`delivery.id` with the work under a unique constraint, and commit both in one transaction. Data that is only in "
    "memory is lost when the process is killed."
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
            " (The handler catches BaseException, so it continued after the simulated kill. A real kill would have "
            "ended it: catch Exception instead.)"
        )
    return Finding(scenario=scenario, place=place, times=times, state=seen.state, verdict=verdict, words=words)


def _verdict(scenario: Scenario, times: int, seen: DeliveryView, handler: Handler) -> tuple[ScenarioVerdict, str]:
    if times > 1:
        return "twice", _twice(times, handler, scenario)
    if seen.state is State.UNKNOWN:
        done = "was done, but this is not known" if times else "was not done"
        asked = "its probe= cannot tell" if handler.probe else "it has neither retry= nor probe="
        return "held", (
            f"The work {done}: the delivery is unknown because {asked}, and an operator must decide. If running it "
            "twice does no harm, declare retry=; if the handler can find out whether its work was done, give a "
            "probe=."
        )
    if seen.state is State.DEAD:
        done = "was done once, and is done again if an operator replays it" if times else "was not done"
        return "held", f"The work {done}: the delivery is dead, and its error is shown to operators: {seen.error}"
    if times == 1:
        return "once", "The work was done once."
    if seen.state in COMPLETED_STATES:
        return "lost", _lost(scenario, seen.attempt, handler)
    return "held", f"The work was not done: the delivery is {seen.state}, which is shown to operators."


def _twice(times: int, handler: Handler, scenario: Scenario) -> str:
    how = f"{times} times" if times > 2 else "twice"  # noqa: PLR2004 ("twice" has a word of its own)
    why = ""
    if scenario.startswith("crash") or scenario == "failure":
        if handler.retry is not None:
            why = " Its retry= declares that running it twice is safe, but it is not."
        elif handler.probe is not None:
            why = " Its probe= returned False, although the work had been done."
    return f"The business work is done {how}.{why} {TWICE}"


def _lost(scenario: Scenario, attempts: int, handler: Handler) -> str:
    if scenario == "baseline":
        return (
            "The delivery has succeeded, but the work was not done: either the handler did nothing, or `done` does "
            "not count its work. `done` is called with the event, and must count the work of that event only."
        )
    if scenario == "reordered":
        return _lost_beside_another(handler.order_by)
    if attempts > 1:
        return (
            "The work is lost unnoticed: when the handler ran again, it assumed that the work was done. It records "
            "that its work is done before it does it, or in another transaction: commit both together, or record it "
            "last."
        )
    if scenario.startswith("crash"):
        return (
            "The work is lost unnoticed: its probe= returned that the work had been done, but it had not. A probe "
            "must return True or False only if that is certain, and None otherwise."
        )
    if scenario == "failure":
        return (
            "The work is lost unnoticed: the handler catches an exception of an unknown cause and returns as if it "
            "had succeeded. Do not catch it: flowhooks then records a failed attempt."
        )
    return (
        "The work is lost unnoticed: the handler returned without doing the work, but does it when no fault occurs. "
        "It depends on more than the event: look for state that it keeps between events."
    )


def _lost_beside_another(order_by: str | None) -> str:
    if order_by is not None:
        return (
            "The work is lost unnoticed: there was another event beside it, and the handler treated its own event as "
            "done or out of date. Each event is separate work, and order_by= orders only events with the same "
            f"{order_by}: other events are delivered in any order."
        )
    return (
        "The work is lost unnoticed: a later event had been delivered before it, or an earlier event was still "
        "blocked, and the handler treated its event as out of date. Events are delivered in any order, and each "
        "event is separate work."
    )
