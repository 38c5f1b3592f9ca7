"""Servers killed one after the other at named points, while engines call, back off and call again all the time.

Each server is killed at a point and started again at the same address, to be killed at the next point. The answers
to engines, the runs of handlers and the operations are checked when all of it is over: I1, I2 and I3.
"""

from __future__ import annotations

from itertools import product

import pytest

from flowhooks.failpoints import FAILPOINTS
from support.load import Shared, Siege, besieged

SHORT = (
    *(("migrate.applied", 1), ("replay.written", 1), ("recover.written", 1), ("purge.written", 1)),
    *(("reroute_parked.committed", 1), ("checkpoint", 1)),
)
"""Points at which servers are killed in this order, and at which time. A kill at the start of a server comes
after a server that runs for a while, in which that can be prepared. The crash points' short set has each of them."""
OPERATORS = (
    *(("migrate.committed", 1), ("replay.committed", 1), ("recover.committed", 1), ("dismiss.written", 1)),
    *(("reroute_parked.written", 1), ("purge.committed", 1), ("reroute.written", 1), ("resolve.committed", 1)),
    *(("dismiss.committed", 1), ("reroute.committed", 1), ("resolve.written", 1), ("checkpoint", 1)),
)
LOAD = (
    *product(("accept.begun", "accept.inserted", "accept.written", "accept.committed"), (1, 9)),
    *product(("answer.made", "claim.written", "attempt.marked", "handler", "attempt.ended"), (2, 15)),
    *product(("settle.written", "settle.committed"), (1, 11)),
)


def test_points_between_which_engines_never_rest(site):
    """Every kind of work is cut off once; engines call on all the time."""
    besieged(Siege(site), SHORT)


@pytest.mark.long
@pytest.mark.parametrize("number", range(3))
def test_every_point_again_and_again_under_load(site, number):
    """Every point, those of the load at several times, and all of it several times in another order."""
    chains = [[*SHORT, *OPERATORS[1:], *LOAD], [*OPERATORS, *LOAD, *SHORT[1:]], [*SHORT, *LOAD, *OPERATORS[1:]]]
    besieged(Siege(site), chains[number])


@pytest.mark.long
def test_every_point_under_load_on_postgresql(site, postgresql_url):
    """The automatic work of a server, and commands beside it; the tables are there, and its log is its own."""
    site.database = site.url = postgresql_url
    chain = [one for one in (*SHORT, *OPERATORS, *LOAD) if one[0].partition(".")[0] not in {"migrate", "checkpoint"}]
    besieged(Shared(site), chain)


def test_every_point_is_in_the_long_set():
    """But for those of the runner `procrastinate` and of copies, which no server of SQLite has."""
    others = {at for at in FAILPOINTS if at.partition(".")[0] in {"job", "sweep", "copy"}} | {"migrate.jobs"}
    assert {at for at, _ in (*SHORT, *OPERATORS, *LOAD)} == {*FAILPOINTS, "handler", "checkpoint"} - others
