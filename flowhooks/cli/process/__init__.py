"""Start, signals, supervision and shutdown of long-running processes."""

from typing import Final

STATE_VARIABLE: Final = "FLOWHOOKS_SUPERVISOR_STATE"
"""Environment variable in which a server passes its sockets and its successor to the supervisor that it executes."""
