"""One process writes: a lock file beside the database says which one, and how to reach it.

It must not know what is written. SQLite up to 3.51.2 can lose data when two connections of two
processes write or checkpoint at once, so a second process is kept away from the file altogether.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import dialects

_PRIVATE: Final = 0o600
LOOKS_TAKE: Final = 0.2
"""Seconds for which somebody who only looks who holds the lock may keep it, with much to spare."""
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "lustre"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the lock.

    Attributes:
        pid: its process id.
        admin: where its administration listener is, such as `http://127.0.0.1:8081`; `""` for a command.
        token: what the administration API asks of those who change something. Only who may read the
            database's folder as its owner can read it.
    """

    pid: int
    admin: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Holder(pid={self.pid}, admin={self.admin!r})"


class Lock:
    """The lock of one database file; held until `release`, or until the process ends, however it does.

    Args:
        database: the database's file.
    """

    def __init__(self, database: Path) -> None:
        database = database.resolve()  # a link to it is the same database
        self.path: Path = database.with_name(database.name + ".lock")
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock, if nobody holds it.

        Raises:
            LedgerUnusable: the lock file cannot be made, or the folder is on a network file system.
        """
        refuse_network(self.path.parent)
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        except OSError as error:
            raise LedgerUnusable(f"cannot make the lock file {self.path}: {os.strerror(error.errno or 0)}") from None
        try:
            taken = _taken(file)
        except OSError as error:
            os.close(file)
            raise LedgerUnusable(f"cannot lock {self.path}: {os.strerror(error.errno or 0)}") from None
        if not taken:
            os.close(file)
            return False
        self._file = file
        self.describe(Holder(pid=os.getpid()))
        return True

    def describe(self, holder: Holder) -> None:
        """Write down who holds the lock, for commands to read."""
        if self._file is None:
            return
        text = json.dumps(asdict(holder)).encode()
        os.fchmod(self._file, _PRIVATE)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def holder(self) -> Holder | None:
        """Who holds the lock just now; None if nobody does.

        Raises:
            LedgerUnusable: somebody does, but it cannot be read who.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerUnusable(f"cannot read the lock file {self.path}: {os.strerror(error.errno or 0)}") from None
        try:
            return _held_by(file, self.path)
        finally:
            os.close(file)

    def release(self) -> None:
        """Let go of the lock. The file stays: removing it would let two processes hold two locks."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def _taken(file: int) -> bool:
    """Whether an open lock file could be locked; for `holder`, which holds it while it looks, one comes again."""
    until = time.monotonic() + LOOKS_TAKE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            if time.monotonic() > until:
                return False
            time.sleep(LOOKS_TAKE / 10)
        else:
            return True


def _held_by(file: int, path: Path) -> Holder | None:
    """Who holds an open lock file; one who has just taken it, or is about to let go, is looked at again."""
    until = time.monotonic() + LOOKS_TAKE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            if (holder := _read(file)) is not None:
                return holder
        else:
            return None
        if time.monotonic() > until:
            raise LedgerUnusable(f"another process holds {path}, but does not say who it is; try again in a moment")
        time.sleep(LOOKS_TAKE / 10)


def _read(file: int) -> Holder | None:
    try:
        value: dict[str, Any] = json.loads(os.pread(file, 65536, 0))
        return Holder(pid=int(value["pid"]), admin=str(value["admin"]), token=str(value["token"]))
    except (ValueError, KeyError, TypeError):
        return None


def refuse_network(folder: Path) -> None:
    """Refuse a folder whose file system cannot be trusted to lock and sync, where the machine tells.

    Raises:
        LedgerUnusable: it is a network file system.
    """
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise LedgerUnusable(
            f"{folder} is on a network file system ({kind}), which can lose what SQLite has written; use a local disk"
        )


def _file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    here = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        _device, point, found, *_ = line.split(" ")
        mounted = Path(point.encode().decode("unicode_escape"))
        if here.is_relative_to(mounted) and len(mounted.parts) >= best:
            best, kind = len(mounted.parts), found
    return kind


def locked(url: str) -> Lock | None:
    """Take the lock of a database; None for PostgreSQL, where any number of processes may write.

    Args:
        url: the database.

    Raises:
        LedgerUnusable: its folder is missing or cannot be used, or another process has the lock.
    """
    file = dialects.database_file(url)
    if file is None:
        return None
    if not file.parent.is_dir():
        raise LedgerUnusable(f"cannot use the database {file}: there is no folder {file.parent}")
    lock = Lock(file)
    if lock.acquire():
        return lock
    holder = lock.holder()
    by = f"process {holder.pid}" if holder else "another process"
    at = f", whose administration is at {holder.admin}" if holder and holder.admin else ""
    raise LedgerUnusable(f"the database {file} is in use by {by}{at}; only one process writes a SQLite ledger")
