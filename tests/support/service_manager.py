"""The socket of a service manager, to which a server reports its state."""

from __future__ import annotations


def next_state(manager):
    """The next notification of another state. How often a start is extended depends on its duration."""
    while (notification := manager.recv(1000)).startswith(b"EXTEND_TIMEOUT_USEC="):
        pass
    return notification
