"""When a crashed process is restarted."""

from __future__ import annotations

import itertools

from flowhooks.cli.process.restart_delay import MAX_RESTART_DELAY, MIN_RESTART_DELAY, STABLE_SECONDS, next_restart_delay


def test_the_restart_delay_doubles_up_to_the_maximum():
    """The delay doubles with each early crash, up to the maximum."""
    delays = [next_restart_delay(0.0, 0.0)]
    while delays[-1] < MAX_RESTART_DELAY:
        delays.append(next_restart_delay(delays[-1], STABLE_SECONDS - 1))
    assert delays[0] == MIN_RESTART_DELAY
    assert all(later == min(MAX_RESTART_DELAY, before * 2) for before, later in itertools.pairwise(delays))
    assert next_restart_delay(MAX_RESTART_DELAY, 0.0) == MAX_RESTART_DELAY


def test_a_process_that_ran_long_is_restarted_soon():
    """A process that ran for long is restarted soon, after any number of crashes."""
    assert next_restart_delay(MAX_RESTART_DELAY, STABLE_SECONDS) == MIN_RESTART_DELAY
