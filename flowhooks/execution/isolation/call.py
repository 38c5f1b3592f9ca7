"""Has one delivery run in a process, watches the time, and makes of its end what dispatch understands.

It must not know where processes come from.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import structlog

from flowhooks.errors import HandlerLost, ProcessUnavailable
from flowhooks.execution.isolation import log_forwarding, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.execution.isolation.pool import Pool
    from flowhooks.execution.isolation.process import HandlerProcess
    from flowhooks.execution.run_options import RunTerms
    from flowhooks.model.delivery import Delivery
    from flowhooks.model.event import Event

TRIES: Final = 3
"""Processes that are tried for one delivery: one that rests may have been ended by the system."""

log = structlog.get_logger(__name__)


def call(pool: Pool, terms: RunTerms, event: Event, delivery: Delivery, *, probe: bool) -> Any:
    """Run a handler's function, or its probe, in its own process.

    Args:
        pool: has the processes.
        terms: on which the handler runs.
        event: what it is called with.
        delivery: what it is called with; marked as entered as soon as its function may have been.
        probe: whether it is the probe that is called.

    Raises:
        ProcessUnavailable: there is none, or it cannot be told what to run; nothing was run.
        HandlerLost: its process has ended.
        HandlerRaised: what it raised, besides `Reject` and `RetryAfter`.
    """
    for _ in range(TRIES):
        one = pool.take(delivery.handler)
        one.runs += 1
        one.output.forget()
        one.output.about.update(handler=delivery.handler, delivery=delivery.id, attempt=delivery.attempt)
        asked = {
            "run": one.runs,
            "probe": probe,
            "memory_mib": terms.memory_mib,
            "level": logging.getLogger().level,
            "event": protocol.from_event(event),
            "delivery": protocol.from_delivery(delivery),
        }
        until = time.monotonic() + terms.timeout
        entered = delivery._entered  # noqa: SLF001 (as the built-in does, where it calls the function itself)
        entered.append(True)
        try:
            one.ask(asked, until)
        except OSError:
            entered.clear()  # it has not had the whole of it, and so runs nothing
            pool.lost(one, "crashed", quiet=True)
            continue
        except (TypeError, ValueError, RecursionError) as error:  # of JSON, before anything was sent
            entered.clear()
            pool.lost(one, "crashed")
            raise ProcessUnavailable(
                f"its event cannot cross into its own process: a run_handler wrapper has changed its data ({error})"
            ) from None
        answer = _answer(pool, one, terms, until=until, delivery=delivery)
        if answer is None:
            entered.clear()
            continue
        return _made_of(answer, delivery)
    raise ProcessUnavailable(f"its own process could not be had: {TRIES} have ended before they began")


def _answer(
    pool: Pool, one: HandlerProcess, terms: RunTerms, *, until: float, delivery: Delivery
) -> Mapping[str, Any] | None:
    """What the process answers; None: it was never there.

    Raises:
        HandlerLost: nothing.
    """
    try:
        while "log" in (said := one.hear(until)):
            log_forwarding.relog(said["log"], handler=delivery.handler, delivery=delivery.id, attempt=delivery.attempt)
        grown = _checked(said, one.runs)
    except TimeoutError:
        pool.lost(one, "overdue", asking=True)
        why = f"killed after {terms.timeout:g} s: overdue"
    except protocol.Gone:
        stopped = one.leaving == "stopped"
        pool.lost(one, "crashed", quiet=True)
        if one.unmade:
            log.warning("process_not_made", handler=delivery.handler, why=one.unmade)
            return None
        why = "killed, for the server has stopped" if stopped else one.how(terms.memory_mib)
    except Exception as error:  # noqa: BLE001 (whatever it has said, it is not to run on with nobody watching it)
        pool.lost(one, "crashed")
        why = f"killed, for its process answered what makes no sense: {error}"
    else:
        pool.give_back(one, grown)
        return said
    raise HandlerLost(why, one.output.tail)


def _made_of(answer: Mapping[str, Any], delivery: Delivery) -> Any:
    """What the function returned, or raised."""
    if "raised" in answer:
        raise answer["raised"]
    if "dropped" in answer:
        log.warning("result_dropped", handler=delivery.handler, delivery=delivery.id, why=str(answer["dropped"]))
    return answer.get("verdict", answer.get("value"))


def _checked(said: dict[str, Any], run: int) -> int:
    """By how much the process has grown, out of an answer that makes sense; what it says was raised can be raised now.

    Raises:
        Nonsense: it does not.
    """
    if said.get("run") != run or not isinstance(grown := said.get("grown"), int):
        raise protocol.Nonsense("an answer to something else")
    if "raised" in said:
        said["raised"] = protocol.to_error(said["raised"])
    return grown
