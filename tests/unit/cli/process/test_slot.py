"""When a process that has died is started again."""

from __future__ import annotations

import itertools

from flowhooks.cli.process.supervisor import MAX_RESTART_DELAY, MIN_RESTART_DELAY, STABLE_SECONDS, next_restart_delay


def test_the_delay_doubles_up_to_a_bound():
    """Each time that it dies soon; never more than the longest."""
    delays = [next_restart_delay(0.0, 0.0)]
    while delays[-1] < MAX_RESTART_DELAY:
        delays.append(next_restart_delay(delays[-1], STABLE_SECONDS - 1))
    assert delays[0] == MIN_RESTART_DELAY
    assert all(later == min(MAX_RESTART_DELAY, before * 2) for before, later in itertools.pairwise(delays))
    assert next_restart_delay(MAX_RESTART_DELAY, 0.0) == MAX_RESTART_DELAY


def test_one_that_has_lived_long_is_started_again_soon():
    """However often it had died before."""
    assert next_restart_delay(MAX_RESTART_DELAY, STABLE_SECONDS) == MIN_RESTART_DELAY
