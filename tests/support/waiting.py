"""The only way in which tests wait for a later event."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_TIMEOUT = 60.0
"""Seconds until a wait fails: longer than a busy machine needs, because a wait ends as soon as its condition holds."""
POLL_INTERVAL = 0.005
"""Seconds between the first two checks of a condition."""
BACKOFF_FACTOR = 0.05
"""The delay of the next check as a share of the time waited so far, if that is longer than the first delay.

Each check takes processor time that the awaited event may need.
"""

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    *,
    seconds: float = WAIT_TIMEOUT,
    poll: float = POLL_INTERVAL,
    why: Callable[[], object] = str,
) -> T:
    """Wait until `condition` returns a true value.

    Args:
        condition: called repeatedly.
        seconds: the number of seconds after which the test fails.
        poll: seconds between the first two calls.
        why: called when the wait fails; its result is part of the message.

    Returns:
        The true value.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            pytest.fail(f"did not happen within {seconds:g} s: {condition} {why()}")
        time.sleep(max(poll, waited * BACKOFF_FACTOR))
    return value


def until_refused(address: tuple[str, int]) -> None:
    """Wait until no process listens at `address` (host, port): a stop is logged before the sockets are closed."""

    def refuses() -> bool:
        try:
            socket.create_connection(address, timeout=WAIT_TIMEOUT).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # the socket was closed while it accepted this connection
        return False

    until(refuses)
