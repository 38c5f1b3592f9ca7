"""Ports for servers whose port must be known before the start."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

FIRST, LAST = 20_000, 30_000
"""Below the ports that the system assigns, so that no other program takes one between the choice and the start, or
while the server is down."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(FIRST, LAST)))
            return probe.getsockname()[1]
