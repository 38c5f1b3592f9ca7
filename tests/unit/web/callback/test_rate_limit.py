"""Token buckets, with a clock that is moved by hand."""

from __future__ import annotations

from flowhooks.clock import SECOND
from flowhooks.testing import ManualClock
from flowhooks.web.callback.rate_limit import RateLimiter


def test_a_bucket():
    """A bucket allows its size at once, then its rate; each source has its own."""
    clock = ManualClock()
    rates = RateLimiter(clock)
    assert [rates.acquire("erp", 2.0, 3) for _ in range(4)] == [0, 0, 0, 1]
    assert rates.acquire("crm", 2.0, 3) == 0
    clock.advance(0.5)
    assert [rates.acquire("erp", 2.0, 3) for _ in range(2)] == [0, 1]
    clock.advance(3600)
    assert [rates.acquire("erp", 2.0, 3) for _ in range(4)] == [0, 0, 0, 1]


def test_slow_rates_return_the_waiting_time():
    """Below one per second: one at once, then one when it is due; a refusal costs nothing."""
    clock = ManualClock()
    rates = RateLimiter(clock)
    assert [rates.acquire("erp", 0.1, 0) for _ in range(3)] == [0, 10, 10]
    clock.advance(9.5)
    assert rates.acquire("erp", 0.1, 0) == 1
    clock.advance(0.5)
    assert rates.acquire("erp", 0.1, 0) == 0
    assert [rates.acquire("slowest", 5e-324, 0) for _ in range(2)] == [0, 86_400]


def test_rate_and_burst_may_change():
    """A bucket made smaller has at most its new size; a rate of 1,000 has a burst of 1,000 by default."""
    clock = ManualClock()
    rates = RateLimiter(clock)
    assert sum(rates.acquire("erp", 1000.0, 0) == 0 for _ in range(1500)) == 1000
    clock.advance(1)
    assert [rates.acquire("erp", 1.0, 1) for _ in range(2)] == [0, 1]


def test_a_clock_that_is_set_back():
    """A clock that is set back neither adds nor removes tokens."""
    times = iter([100, 50, 51])

    class Clock(ManualClock):
        def now(self):
            return next(times) * SECOND

    rates = RateLimiter(Clock())
    assert [rates.acquire("erp", 1.0, 1) for _ in range(3)] == [0, 1, 0]
