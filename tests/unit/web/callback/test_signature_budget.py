"""The work that invalid signatures of one client may cause."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowhooks.clock import SECOND
from flowhooks.errors import RateLimited
from flowhooks.web.callback.signature_budget import (
    BUDGET_BYTES,
    MAX_CLIENTS,
    MIN_COST_BYTES,
    REFILL_BYTES_PER_SECOND,
    SignatureBudget,
)

NAMES = ("crm", "erp", "hr")
FAR, NEAR = "192.0.2.1", "127.0.0.1"
MEBIBYTE = 1024**2


@pytest.fixture
def budget():
    """Budgets with a clock that is moved by hand."""
    clock = SimpleNamespace(at=1_782_000_000 * SECOND, now=lambda: clock.at)
    budget = SignatureBudget(clock)
    budget.clock = clock
    return budget


def spend(budget, address=FAR):
    """Send invalid signatures until the budget is used up; return their number."""
    for number in range(1000):
        try:
            budget.select(address, NAMES)
        except RateLimited:
            return number
        budget.record_failure(address, signatures=28, body_bytes=MEBIBYTE)
    return 1000


def test_the_work_is_bounded(budget):
    """A client causes the work of its budget at once, and then that of the refill, whatever it sends."""
    assert spend(budget) == 3
    computed = 0
    for _ in range(600):
        budget.clock.at += SECOND
        computed += 28 * MEBIBYTE * spend(budget)
    assert computed <= 600 * REFILL_BYTES_PER_SECOND + 28 * MEBIBYTE


def test_short_bodies_cost_too(budget):
    """An HMAC over an empty body is not free."""
    budget.record_failure(FAR, signatures=BUDGET_BYTES // MIN_COST_BYTES, body_bytes=0)
    with pytest.raises(RateLimited):
        budget.select(FAR, NAMES)


def test_a_source_with_an_earlier_valid_signature_is_tried_first(budget):
    """It is tried first, and is the only one left when the budget is used up; no other address is affected."""
    assert budget.select(FAR, NAMES) == NAMES
    budget.record_success(FAR, "hr")
    assert budget.select(FAR, NAMES) == ("hr", "crm", "erp")
    assert spend(budget) == 1000
    assert budget.select(FAR, NAMES) == ("hr",)
    with pytest.raises(RateLimited):
        budget.select(FAR, ("crm", "erp"))
    assert budget.select("192.0.2.2", NAMES) == NAMES


def test_the_client_gets_the_time_to_retry(budget):
    """After that time its signatures are computed again."""
    spend(budget)
    with pytest.raises(RateLimited) as caught:
        budget.select(FAR, NAMES)
    assert 1 <= caught.value.retry_after <= BUDGET_BYTES // REFILL_BYTES_PER_SECOND
    budget.clock.at += (caught.value.retry_after + 1) * SECOND
    assert budget.select(FAR, NAMES) == NAMES
    spend(budget)
    budget.clock.at -= 3600 * SECOND  # a clock that is set back refuses nobody for longer
    with pytest.raises(RateLimited) as caught:
        budget.select(FAR, NAMES)
    budget.clock.at += (caught.value.retry_after + 1) * SECOND
    assert budget.select(FAR, NAMES) == NAMES


def test_the_budget_is_per_network(budget):
    """A /64 of IPv6 has one budget; loopback and an address that is not known have none."""
    spend(budget, "2001:db8:1:1::1")
    with pytest.raises(RateLimited):
        budget.select("2001:db8:1:1:ffff::1", NAMES)
    assert budget.select("2001:db8:1:2::1", NAMES) == NAMES
    assert spend(budget, NEAR) == spend(budget, None) == 1000


def test_the_number_of_stored_addresses_is_bounded(budget):
    """With ever new addresses the oldest are forgotten."""
    for number in range(MAX_CLIENTS + 10):
        budget.record_failure(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", signatures=1, body_bytes=1)
    assert len(budget._clients) == MAX_CLIENTS
