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
SLOWER = 0.05
"""The part of the time waited so far after which a condition is checked again, if that is longer.

Each check takes processor time, for which the event may be waiting, too.
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
        seconds: fail the test after that many.
        poll: seconds between the first two calls.
        why: called when the wait fails; what it returns is shown.

    Returns:
        The true value.
    """
    began = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - began
        if waited > seconds:
            pytest.fail(f"did not happen within {seconds:g} s: {condition} {why()}")
        time.sleep(max(poll, waited * SLOWER))
    return found


def until_refused(place: tuple[str, int]) -> None:
    """Wait until no process listens at `place` (host, port): a stop is logged before the sockets are closed."""

    def refuses() -> bool:
        try:
            socket.create_connection(place, timeout=WAIT_TIMEOUT).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # the socket was closed while it accepted this connection
        return False

    until(refuses)
