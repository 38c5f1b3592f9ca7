"""A delivery that may run, and its first attempt."""

from __future__ import annotations

from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.testing import make_event


def test_a_delivery_being_stored_is_already_claimed():
    """A delivery that is just being stored has its first attempt and event; one read later must be claimed."""
    event = make_event()
    claimed = ReadyDelivery("d", "p:h", 1, load_event=lambda: event).to_claimed_attempt()
    assert (claimed.event, claimed.attempt, claimed.retry_base) == (event, 1, 0)
    assert ReadyDelivery("d", "p:h", 1).to_claimed_attempt() is None
