"""Free ports for servers whose port must be known before their start."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST, LAST = 20_000, 30_000
"""The range of ports. It is below the ports that the system assigns, so that no other program takes a port between the
choice and the start, or while the server is down."""


def _own_ports() -> Iterator[int]:
    """Return the ports of this test process, in random order and repeatedly; other test processes do not use them.

    Programs that a test starts choose from the same ports as the test's process, in another order.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = list(range(FIRST + number % processes, LAST, processes))
    random.SystemRandom().shuffle(ports)
    return cycle(ports)


_candidates = _own_ports()


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 on which nothing listens."""
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", next(_candidates)))
            except OSError:  # in use
                continue
            ports.append(probe.getsockname()[1])
    return ports
