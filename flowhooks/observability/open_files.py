"""The limit of open files of this process, and the number of connections that fit below it.

Each connection takes a file, and a large body that is arriving takes another. Without a cap below the limit, clients
that only connect would use up all files, and handlers could open none.
"""

from __future__ import annotations

import resource
import sys
from typing import Final, NamedTuple

MAX_OPEN_FILES: Final = 65536
"""Value to which the soft limit is raised, or the hard limit if that is lower. It is enough for the default
`http.max_connections`, and low enough for programs that close every possible file when they start."""
RESERVED_FILES: Final = 256
"""Number of files that connections leave to handlers, the database and logs."""
FILES_PER_CONNECTION: Final = 2
"""The socket, and the temporary file of a body that is too large for memory."""


class ConnectionLimits(NamedTuple):
    """The maximum number of open connections of each listener.

    Attributes:
        listen: the limit of the callback listener.
        admin: the limit of the administration listener.
    """

    listen: int
    admin: int


def raise_limit() -> int:
    """Raise this process's limit of open files as far as possible; return the limit that is then in force."""
    soft, hard = _limits()
    if (target := attainable_limit()) > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (ValueError, OSError):  # macOS has lower limits of its own although the hard limit is infinity
            return soft
        return target
    return soft


def attainable_limit() -> int:
    """Return the limit of open files that `raise_limit` would reach."""
    soft, hard = _limits()
    return max(soft, min(_number(hard), MAX_OPEN_FILES))


def connection_limits(max_connections: int, max_open_files: int) -> ConnectionLimits:
    """Divide the connections that fit below the limit of open files between the listeners.

    The administration listener has a share of its own, so that clients of the callback listener cannot lock it out.

    Args:
        max_connections: the maximum for each listener, from the settings.
        max_open_files: this process's limit of open files.
    """
    reserved = min(RESERVED_FILES, max_open_files // 2)
    fitting = max(2, (max_open_files - reserved) // FILES_PER_CONNECTION)
    admin = min(max_connections, max(1, fitting // 4))
    return ConnectionLimits(listen=min(max_connections, fitting - admin), admin=admin)


def _limits() -> tuple[int, int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _number(soft), hard


def _number(limit: int) -> int:
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit
