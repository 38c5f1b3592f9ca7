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
PATIENCE = 60.0
"""Seconds in which the work of the answered callbacks must be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A running subject that takes callbacks.

    Attributes:
        url: root of its server.
        left: returns how many of a number of answered callbacks have not been run.
        path: the parts of the path before and after the flowInstanceId; see `load.run`.
        token: the bearer token of its source; by default none.
    """

    url: str
    left: Callable[[int], int] = lambda _answered: 0
    path: tuple[str, str] = load.PATH
    token: str = ""


def loaded(
    taken: Taken,
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
    """Load a subject with the processor time of all watched processes; for the arguments see `load.run`.

    Its processor time is 0, and so not known, if work is left after `PATIENCE`.

    Raises:
        LoadError: see `load.run`.
    """
    run = partial(
        load.run,
        taken.url,
        connections=connections,
        prefer=prefer,
        classes=classes,
        only_200=only_200,
        path=taken.path,
        token=taken.token,
        size=size,
        values=values,
        cores=cores,
    )
    warm = 0
    with suppress(load.NothingAnswered):  # too slow for one second: the measured load shows how slow
        first = run(seconds=WARM_UP)
        warm = first.counted + first.later
    drained(taken, warm, PATIENCE)
    began = processor.spent()
    last = run(seconds=seconds)
    answered = last.counted + last.later
    done = drained(taken, warm + answered, PATIENCE)
    # When wrk stops, one request of each connection is under way, and is served all the same.
    cost = (processor.spent() - began) / (answered + connections) * 1e6
    return replace(last, processor=cost if done else 0.0)


def drained(taken: Taken, answered: int, seconds: float) -> bool:
    """Wait until a subject has run all of a number of answered callbacks; return whether it has."""
    end = time.monotonic() + seconds
    while taken.left(answered) > 0:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
