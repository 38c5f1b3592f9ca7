"""The files in which the processes of one supervisor count together.

prometheus-client names the files of a process by its pid. They stay when the process exits, because their counts belong
to the sum, so each process that is replaced would add files to every scrape. Instead, files have a number, and a
process continues the counts of a process that has exited.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that tells prometheus-client where several processes share their metrics."""


def continue_counts(number: int) -> None:
    """Continue the counts of the files with this number, which no other running process has.

    Call it before a metric is created.
    """
    from prometheus_client import values  # noqa: PLC0415 (the supervisor of a single process does not need it)

    own_pid = os.getpid()

    def identify() -> str:
        # A process that a plugin forks would overwrite the counts of this one, so it gets files of its own.
        return f"n{number}" if os.getpid() == own_pid else str(os.getpid())

    values.ValueClass = values.MultiProcessValue(identify)  # type: ignore[no-untyped-call]  # it has no types
    (Path(os.environ[SHARED_DIR_VARIABLE]) / f"{number}.pid").write_text(str(own_pid))


def read_pids(shared_dir: Path) -> Iterator[int]:
    """Yield the pid of the last process with each number. It may have exited."""
    for file in shared_dir.glob("*.pid"):
        if (text := file.read_text()).isdecimal():  # otherwise it is being written
            yield int(text)
