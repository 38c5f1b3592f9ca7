"""The working folder of a process, which its plugins may change, and which an operator may move or remove."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class WorkingFolder:
    """The working folder of the start, in which relative paths in settings and options start.

    Attributes:
        path: its path at the start; None if it was removed, or may not be entered.
        status: tells it from another folder at that path; None as well.
    """

    path: Path | None
    status: os.stat_result | None

    @classmethod
    def current(cls) -> Self:
        """Return the working folder of this process."""
        try:
            return cls(Path.cwd(), Path().stat())
        except OSError:
            return cls(None, None)

    def path_if_left(self) -> Path | None:
        """Return the path if this process is in another folder now; otherwise None.

        A process that is still there must not enter it again: it may have no permission, or the folder was removed.

        Raises:
            FileNotFoundError: this process has left the folder, which was moved or removed.
        """
        if self.path is None or self._is_at(Path()):
            return None
        if not self._is_at(self.path):
            raise FileNotFoundError(errno.ENOENT, f"the folder of the start, {self.path}, was moved or removed")
        return self.path

    def _is_at(self, path: Path) -> bool:
        try:
            return self.status is not None and os.path.samestat(path.stat(), self.status)
        except OSError:
            return False
