"""Ports for servers whose port must be known before the start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

FIRST, LAST = 20_000, 30_000
"""Below the ports that the system assigns, so that no other program takes one between the choice and the start, or
while the server is down."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 on which nothing listens."""
    found: list[int] = []
    with ExitStack() as stack:
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", random.SystemRandom().randrange(FIRST, LAST)))
            except OSError:  # in use
                continue
            found.append(probe.getsockname()[1])
    return found
