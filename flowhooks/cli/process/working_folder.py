"""The working folder of a process, which its plugins may change, and which an operator may remove."""

from __future__ import annotations

from pathlib import Path


def working_folder() -> Path | None:
    """Return the working folder of this process; None if it was removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


def left_folder(folder: Path | None) -> Path | None:
    """Return a folder if this process was started in it and is in another one now; otherwise None.

    A process that is still there must not enter it again: it may have no permission, or the folder was removed.

    Args:
        folder: the working folder of the start; None if it was removed.
    """
    present = working_folder()
    return None if present is None or present == folder else folder
