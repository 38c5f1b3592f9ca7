"""One load on one subject: rate, latencies, and processor time until all of its work is done."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import load
import processor

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

WARM_UP = 1.0
"""Seconds of the same load before each measured load."""
DRAIN_TIMEOUT = 60.0
"""Seconds in which the work of the answered callbacks must be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running server that receives callbacks.

    Attributes:
        url: the root of the server.
        count_unfinished: takes the number of answered callbacks; returns how many of them have not been run.
        path: the parts of the path before and after the flowInstanceId; see `load.run`.
        token: the bearer token of its source; by default none.
    """

    url: str
    count_unfinished: Callable[[int], int] = lambda _answered: 0
    path: tuple[str, str] = load.PATH
    token: str = ""


def measure_load(
    target: Target,
    *,
    connections: int,
    seconds: float,
    prefer: str = "",
    classes: int = 1,
    only_200: bool = False,
    size: int = 0,
    values: bool = False,
    cores: Collection[int] = (),
) -> load.Load:
    """Load a target and measure the processor time of all watched processes; for the arguments see `load.run`.

    The processor time is 0, which means unknown, if work is left after `DRAIN_TIMEOUT`.

    Raises:
        LoadError: see `load.run`.
    """
    run = partial(
        load.run,
        target.url,
        connections=connections,
        prefer=prefer,
        classes=classes,
        only_200=only_200,
        path=target.path,
        token=target.token,
        size=size,
        values=values,
        cores=cores,
    )
    warm_up_answered = 0
    with suppress(load.NoResponses):  # no response during the warm-up: the measured load shows the rate
        warm_up = run(seconds=WARM_UP)
        warm_up_answered = warm_up.counted + warm_up.later
    wait_until_drained(target, warm_up_answered, DRAIN_TIMEOUT)
    spent_before = processor.spent()
    result = run(seconds=seconds)
    answered = result.counted + result.later
    is_drained = wait_until_drained(target, warm_up_answered + answered, DRAIN_TIMEOUT)
    # When wrk stops, each connection has one unanswered request, which the server processes too.
    cost = (processor.spent() - spent_before) / (answered + connections) * 1e6
    return replace(result, processor=cost if is_drained else 0.0)


def wait_until_drained(target: Target, answered: int, seconds: float) -> bool:
    """Wait until a target has run all answered callbacks; return False if it has not after `seconds`."""
    end = time.monotonic() + seconds
    while target.count_unfinished(answered) > 0:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
