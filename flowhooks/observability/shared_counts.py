"""The files in which the processes of one supervisor count together.

prometheus-client names the files of a process by its pid. They stay when the process exits, because their counts belong
to the sum, so each process that is replaced would add files to every scrape. Instead, files have a number, and a
process continues the counts of a process that has exited.

The files are in a folder for temporary files, which programs clean. Then another user can create a folder at the same
path, so a folder is used only if it is private.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that tells prometheus-client where several processes share their metrics."""
REMOVED: Final = "the folder of the counts was removed, so the counts of the other processes are missing"
COUNTS_ALONE: Final = "the folder of the counts cannot be used, so this process counts alone"


@contextmanager
def shared_folder() -> Iterator[str]:
    """Create a folder for the counts of several processes, and delete it at the end."""
    folder = tempfile.mkdtemp(prefix="flowhooks-counts-")
    file = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_SH)  # systemd-tmpfiles does not clean a locked folder
        yield folder
    finally:
        os.close(file)
        if is_private(Path(folder)):
            shutil.rmtree(folder, ignore_errors=True)


def is_private(folder: Path) -> bool:
    """Return whether a folder exists, and no other user can create files in it."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def continue_counts(number: int) -> str | None:
    """Continue the counts of the files with this number, which no other running process has.

    Call it before a metric is created. If the folder cannot be used, this process counts alone.

    Returns:
        Why the sum over all processes lacks counts; None if it lacks none.
    """
    from prometheus_client import values  # noqa: PLC0415 (the supervisor of a single process does not need it)

    folder, own_pid, why = Path(os.environ[SHARED_DIR_VARIABLE]), os.getpid(), None
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
            why = REMOVED
        if not is_private(folder):
            raise PermissionError
        (folder / f"{number}.pid").write_text(str(own_pid))
    except OSError:
        del os.environ[SHARED_DIR_VARIABLE]
        values.ValueClass = values.MutexValue
        return COUNTS_ALONE

    def identify() -> str:
        # A process that a plugin forks would overwrite the counts of this one, so it gets files of its own.
        return f"n{number}" if os.getpid() == own_pid else str(os.getpid())

    values.ValueClass = values.MultiProcessValue(identify)  # type: ignore[no-untyped-call]  # it has no types
    return why


def read_pids(shared_dir: Path) -> Iterator[int]:
    """Yield the pid of the last process with each number. It may have exited."""
    if not is_private(shared_dir):
        return
    for file in shared_dir.glob("*.pid"):
        if (text := file.read_text()).isdecimal():  # otherwise it is being written
            yield int(text)
