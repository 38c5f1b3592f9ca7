"""When a process that has died is started again."""

from __future__ import annotations

import itertools

from flowhooks.cli.process.slot import FIRST_DELAY, LIVED_LONG, LONGEST_DELAY, delay_after


def test_the_delay_doubles_up_to_a_bound():
    """Each time that it dies soon; never more than the longest."""
    delays = [delay_after(0.0, 0.0)]
    while delays[-1] < LONGEST_DELAY:
        delays.append(delay_after(delays[-1], LIVED_LONG - 1))
    assert delays[0] == FIRST_DELAY
    assert all(later == min(LONGEST_DELAY, before * 2) for before, later in itertools.pairwise(delays))
    assert delay_after(LONGEST_DELAY, 0.0) == LONGEST_DELAY


def test_one_that_has_lived_long_is_started_again_soon():
    """However often it had died before."""
    assert delay_after(LONGEST_DELAY, LIVED_LONG) == FIRST_DELAY
