"""A clock that is ahead or has jumped is not trusted until the monotonic clock has run for an hour."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowhooks.background.clock_trust import DOUBT_SECONDS, MAX_AHEAD, MIN_JUMP, ClockTrust
from flowhooks.clock import SECOND

NOW = 1_767_225_600 * SECOND


class Times:
    """A clock and a monotonic one, moved together by `pass_by`, and apart by `set_clock`."""

    def __init__(self):
        self.wall, self.steady = NOW, 100.0
        self.clock = SimpleNamespace(now=lambda: self.wall)

    def pass_by(self, seconds):
        """Move both clocks."""
        self.wall += round(seconds * SECOND)
        self.steady += seconds

    def set_clock(self, microseconds):
        """Set the clock by some seconds."""
        self.wall += microseconds

    def trust(self, newest):
        """Check these clocks from now on."""
        return ClockTrust(self.clock, newest, monotonic=lambda: self.steady)


@pytest.fixture
def times():
    """The two clocks."""
    return Times()


@pytest.mark.parametrize("newest", [None, NOW, NOW - MAX_AHEAD, NOW + MAX_AHEAD])
def test_a_clock_not_ahead_of_the_stored_times_is_trusted(times, newest):
    """A clock at or behind the stored times is trusted, also with an empty ledger."""
    assert times.trust(newest).trusted_now() == times.wall


def test_a_clock_ahead_at_start_is_untrusted_for_an_hour(times):
    """A clock that is ahead for an hour is trusted, because the server was down."""
    trust = times.trust(NOW - MAX_AHEAD - 1)
    assert trust.trusted_now() is None
    times.pass_by(DOUBT_SECONDS - 1)
    assert trust.trusted_now() is None
    times.pass_by(1)
    assert trust.trusted_now() == times.wall


def test_a_clock_that_jumps_ahead_is_untrusted_for_an_hour(times):
    """Each jump restarts the hour, even if it is corrected meanwhile."""
    trust = times.trust(NOW)
    times.pass_by(10 * 86_400)
    assert trust.trusted_now() == times.wall
    times.set_clock(2 * MAX_AHEAD)
    assert trust.trusted_now() is None
    times.pass_by(DOUBT_SECONDS - 1)
    times.set_clock(2 * MAX_AHEAD)
    assert trust.trusted_now() is None
    times.set_clock(-4 * MAX_AHEAD)
    times.pass_by(DOUBT_SECONDS - 1)
    assert trust.trusted_now() is None
    times.pass_by(1)
    assert trust.trusted_now() == times.wall


def test_a_backward_or_small_clock_jump_is_trusted(times):
    """A jump back or a small one makes no data too old."""
    trust = times.trust(NOW)
    for jump in (-10 * MAX_AHEAD, 3600 * SECOND, -1):
        times.set_clock(jump)
        assert trust.trusted_now() == times.wall


def test_each_clock_jump_is_reported_once(times):
    """Each jump is reported once; corrections by NTP and passing time are no jumps."""
    trust = times.trust(NOW)
    times.pass_by(7 * 86_400)
    assert trust.check_jump() == 0
    times.set_clock(MIN_JUMP - 1)
    assert trust.check_jump() == 0
    times.set_clock(MIN_JUMP)
    assert trust.check_jump() == MIN_JUMP
    assert trust.check_jump() == 0
    times.set_clock(-MAX_AHEAD)
    assert trust.check_jump() == -MAX_AHEAD


def test_a_jump_first_detected_by_a_deletion_is_reported(times):
    """The clock watch logs a jump that a deletion noticed first."""
    trust = times.trust(NOW)
    times.set_clock(2 * MAX_AHEAD)
    assert trust.trusted_now() is None
    assert trust.check_jump() == 2 * MAX_AHEAD
    assert trust.check_jump() == 0
