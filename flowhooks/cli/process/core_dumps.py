"""Disable core dumps: the memory of a process holds tokens, secrets and the data of callbacks."""

from __future__ import annotations

import resource


def disable_core_dumps() -> None:
    """Set the limit of core files to 0 for this process and its children, which cannot raise it again."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
