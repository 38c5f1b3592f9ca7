"""When a process that has died is started again."""

from __future__ import annotations

import itertools

from flowhooks.cli.process.slot import FIRST_DELAY, LIVED_LONG, LONGEST_DELAY, next_restart_delay


def test_the_delay_doubles_up_to_a_bound():
    """Each time that it dies soon; never more than the longest."""
    delays = [next_restart_delay(0.0, 0.0)]
    while delays[-1] < LONGEST_DELAY:
        delays.append(next_restart_delay(delays[-1], LIVED_LONG - 1))
    assert delays[0] == FIRST_DELAY
    assert all(later == min(LONGEST_DELAY, before * 2) for before, later in itertools.pairwise(delays))
    assert next_restart_delay(LONGEST_DELAY, 0.0) == LONGEST_DELAY


def test_one_that_has_lived_long_is_started_again_soon():
    """However often it had died before."""
    assert next_restart_delay(LONGEST_DELAY, LIVED_LONG) == FIRST_DELAY
