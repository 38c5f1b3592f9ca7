"""Token buckets, by a clock that is moved by hand."""

from __future__ import annotations

from flowhooks.clock import SECOND
from flowhooks.testing import ManualClock
from flowhooks.web.callback.rate_limit import RateLimiter


def test_a_bucket():
    """As many at once as it holds, then as many as come in; and each source has its own."""
    clock = ManualClock()
    rates = RateLimiter(clock)
    assert [rates.acquire("erp", 2.0, 3) for _ in range(4)] == [0, 0, 0, 1]
    assert rates.acquire("crm", 2.0, 3) == 0
    clock.advance(0.5)
    assert [rates.acquire("erp", 2.0, 3) for _ in range(2)] == [0, 1]
    clock.advance(3600)
    assert [rates.acquire("erp", 2.0, 3) for _ in range(4)] == [0, 0, 0, 1]


def test_slow_rates_say_how_long():
    """Less than one a second: one at once, then one when its time has come; a refusal costs nothing."""
    clock = ManualClock()
    rates = RateLimiter(clock)
    assert [rates.acquire("erp", 0.1, 0) for _ in range(3)] == [0, 10, 10]
    clock.advance(9.5)
    assert rates.acquire("erp", 0.1, 0) == 1
    clock.advance(0.5)
    assert rates.acquire("erp", 0.1, 0) == 0


def test_what_is_set_may_change():
    """A smaller bucket holds no more than it does, and a rate of 1,000 is a burst of 1,000 by itself."""
    clock = ManualClock()
    rates = RateLimiter(clock)
    assert sum(rates.acquire("erp", 1000.0, 0) == 0 for _ in range(1500)) == 1000
    clock.advance(1)
    assert [rates.acquire("erp", 1.0, 1) for _ in range(2)] == [0, 1]


def test_a_clock_that_is_put_back():
    """It gives nothing and takes nothing."""
    times = iter([100, 50, 51])

    class Clock(ManualClock):
        def now(self):
            return next(times) * SECOND

    rates = RateLimiter(Clock())
    assert [rates.acquire("erp", 1.0, 1) for _ in range(3)] == [0, 1, 0]
