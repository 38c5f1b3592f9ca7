"""The schedule of retries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks import Retry
from flowhooks.model.retry import DEFAULT_DELAYS

delays = st.lists(st.floats(0, 30 * 86400), min_size=1, max_size=10)
retries = st.builds(Retry, attempts=st.integers(1, 1000), delays=delays, jitter=st.floats(0, 1))


def test_the_default_schedule():
    """The default is eight attempts over a little more than a day."""
    retry = Retry()
    assert retry.attempts == 8
    assert [retry.delay(made, 0.0) for made in range(1, 9)] == [*DEFAULT_DELAYS, None]
    assert sum(DEFAULT_DELAYS) / 3600 == pytest.approx(27.6, abs=0.05)


def test_default_number_of_attempts_follows_the_delays():
    """By default there is one attempt more than delays."""
    assert Retry(delays=(1, 2)).attempts == 3
    assert Retry(delays=(1, 2), attempts=2).attempts == 2
    assert Retry(delays=(1, 2), attempts=None).attempts == 3


@given(retry=retries, chance=st.floats(0, 1))
def test_number_of_attempts_is_as_declared(retry, chance):
    """After each attempt except the last there is a delay."""
    given_delays = [retry.delay(made, chance) for made in range(1, retry.attempts + 3)]
    assert [delay is None for delay in given_delays] == [False] * (retry.attempts - 1) + [True] * 3


@given(retry=retries, made=st.integers(1, 999), chance=st.floats(0, 1))
def test_jitter_only_lengthens_delays(retry, made, chance):
    """A delay is at least the declared one, and longer by at most the declared part."""
    delay = retry.delay(made, chance)
    if made >= retry.attempts:
        assert delay is None
    else:
        declared = retry.delays[min(made, len(retry.delays)) - 1]
        assert declared <= delay <= declared * (1 + retry.jitter)
        assert delay >= retry.delay(made, 0.0)


def test_the_last_delay_is_repeated():
    """If there are more attempts than delays, the last delay is repeated."""
    retry = Retry(attempts=5, delays=(1, 10), jitter=0)
    assert [retry.delay(made, 0.5) for made in (1, 2, 3, 4, 5)] == [1, 10, 10, 10, None]


def test_one_attempt_means_no_retry():
    """`Retry(attempts=1)` declares that running twice is safe, but requests no second attempt."""
    assert Retry(attempts=1).delay(1, 0.0) is None


def test_the_limits_of_each_range_are_valid():
    """The limits are valid: delays of 0 and thirty days, 1 and 1,000 attempts, jitter of 0 and 1."""
    assert Retry(delays=(0, 30 * 86400), attempts=1000, jitter=1).delay(999, 1.0) == 60 * 86400
    assert Retry(delays=(0,), attempts=1, jitter=0).delay(1, 1.0) is None


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"attempts": 0}, "attempts must be a whole number of 1 to 1000, not 0"),
        ({"attempts": False}, "attempts must be a whole number"),
        ({"attempts": -1}, "attempts must be"),
        ({"attempts": 1001}, "attempts must be"),
        ({"attempts": 2.5}, "attempts must be a whole number"),
        ({"attempts": True}, "attempts must be a whole number"),
        ({"attempts": "3"}, "attempts must be a whole number"),
        ({"delays": ()}, "delays must be"),
        ({"delays": (1, "2")}, r"delays must be one or more numbers of 0 to 2592000 seconds, not \(1, '2'\)"),
        ({"delays": "12"}, "delays must be one or more numbers"),
        ({"delays": (True,)}, "delays must be"),
        ({"delays": (None,)}, "delays must be"),
        ({"delays": 5}, "delays must be one or more numbers of 0 to 2592000 seconds, not 5"),
        ({"delays": (1, -1)}, "delays must be"),
        ({"delays": (30 * 86400 + 1,)}, "delays must be"),
        ({"delays": (math.nan,)}, "delays must be"),
        ({"delays": (math.inf,)}, "delays must be"),
        ({"delays": (0, 30 * 86400.5)}, r"delays must be one or more numbers of 0 to 2592000 seconds, not \(0, "),
        ({"jitter": "0.1"}, "jitter must be 0 to 1, not '0.1'"),
        ({"jitter": -0.1}, "jitter must be"),
        ({"jitter": 1.1}, "jitter must be"),
        ({"jitter": math.nan}, "jitter must be"),
    ],
)
def test_values_out_of_range_are_rejected(declared, message):
    """A value out of range is refused when it is declared."""
    with pytest.raises(ValueError, match=message):
        Retry(**declared)


def test_retry_cannot_be_subclassed():
    """Code of a plugin that computes a delay could raise an exception when the result of an attempt is recorded."""
    with pytest.raises(TypeError, match="Retry cannot be subclassed"):
        type("Slower", (Retry,), {})
