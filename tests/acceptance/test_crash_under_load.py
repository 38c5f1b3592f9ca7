"""Servers are killed in turn at failpoints, while engines send callbacks, back off and repeat all the time.

An operator plans, starts, pauses, resumes and cancels bulk operations and accepts corrections meanwhile. Each server is
killed at a point and restarted at the same address, to be killed at the next point. At the end the responses to
engines, the runs of handlers, the operations and the corrections are checked: I1, I2, I3 and I8.
"""

from __future__ import annotations

from itertools import product

import pytest

from flowhooks.failpoints import FAILPOINTS
from support.load import LoadUnderCrashes, SharedLoadUnderCrashes, kill_in_turn

SHORT = (
    *(("migrate.applied", 1), ("operation.release_written", 1), ("checkpoint", 1), ("recover.written", 1)),
    *(("purge.written", 1), ("reroute_parked.committed", 1), ("correction.committed", 1)),
)
"""The points at which servers are killed in order, and the number of visits before the kill. A kill at the start of a
server follows a server that runs for a while and prepares it. The short set of the failpoints has each of them."""
OPERATORS = (
    *(("migrate.committed", 1), ("operation.release_committed", 1), ("checkpoint", 1), ("recover.committed", 1)),
    *(("dismiss.written", 1), ("reroute_parked.written", 1), ("purge.committed", 1), ("reroute.written", 1)),
    *(("resolve.committed", 1), ("dismiss.committed", 1), ("reroute.committed", 1), ("resolve.written", 1)),
)
LOAD = (
    *product(("accept.begun", "accept.inserted", "accept.written", "accept.committed"), (1, 9)),
    *product(("answer.made", "claim.written", "attempt.marked", "handler", "attempt.ended"), (2, 15)),
    *product(("settle.written", "settle.committed"), (1, 11)),
    *product(("operation.plan_written", "operation.plan_committed"), (1, 4)),
    *product(("operation.release_written", "operation.release_committed"), (2, 5)),
    *product(("operation.finish_written", "operation.finish_committed"), (1, 3)),
    *product(("correction.written", "correction.committed"), (1, 2)),
)


def test_every_kind_of_work_is_interrupted_under_load(site):
    """Every kind of work is interrupted once while engines send callbacks."""
    kill_in_turn(LoadUnderCrashes(site), SHORT)


@pytest.mark.long
@pytest.mark.timeout(1200)  # fifty kills
@pytest.mark.parametrize("number", range(3))
def test_every_point_repeatedly_under_load(site, number):
    """Every point is used, those of callbacks several times, in two orders."""
    chains = [[*SHORT, *OPERATORS[1:], *LOAD], [*OPERATORS, *LOAD, *SHORT[1:]], [*SHORT, *LOAD, *OPERATORS[1:]]]
    kill_in_turn(LoadUnderCrashes(site), chains[number])


@pytest.mark.long
@pytest.mark.timeout(1200)  # fifty kills
def test_every_point_under_load_on_postgresql(site, postgresql_url):
    """On PostgreSQL all points are used except those of migrations and SQLite's checkpoints."""
    site.database = site.url = postgresql_url
    chain = [
        point for point in (*SHORT, *OPERATORS, *LOAD) if point[0].partition(".")[0] not in {"migrate", "checkpoint"}
    ]
    kill_in_turn(SharedLoadUnderCrashes(site), chain)


def test_every_point_is_in_the_long_set():
    """The long set has every point except those of work that other tests interrupt."""
    elsewhere = {"job", "sweep", "copy", "reconcile", "restart", "take_in", "late_callback"}
    others = {at for at in FAILPOINTS if at.partition(".")[0] in elsewhere} | {"migrate.jobs", "accept.locked"}
    assert {at for at, _ in (*SHORT, *OPERATORS, *LOAD)} == {*FAILPOINTS, "handler", "checkpoint"} - others
