"""Lock of a SQLite database: one process writes, and a lock file beside the database names it and its address.

SQLite up to 3.51.2 can lose data if connections of two processes write or checkpoint at the same time. So a second
process must not open the file at all.

Anybody can remove the lock file. So on Linux the owner locks the database file as well, by `flock`, which does not
interact with the `fcntl` locks of SQLite. On other systems the two kinds of lock may interact, so that SQLite could not
lock its own file; there only the lock file is locked.

A process that closes any descriptor of the database file loses the `fcntl` locks that SQLite holds on it. So the
descriptor stays open until SQLite has closed the file, and nothing else here opens the file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from flowhooks.errors import LedgerUnusable
from flowhooks.forks import close_in_children
from flowhooks.ledger import database
from flowhooks.logger import get_logger

log = get_logger(__name__)

_PRIVATE: Final = 0o600
_MAX_BYTES: Final = 65536
READ_TIMEOUT: Final = 0.2
"""Seconds for which a process that only reads the owner may hold the lock, with a wide margin."""
READ_INTERVAL: Final = 0.02
"""Seconds between two tries within that time."""
_NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "lustre"}
)

HAND_OVER_TIMEOUT: Final = 10.0
"""Seconds for which a successor tries to take the lock that its predecessor has released: a command may hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOwner:
    """The process that holds the lock.

    Attributes:
        pid: its process id.
        admin: the address of its administration listener, such as `http://127.0.0.1:8081`; `""` for a command.
        token: the token that the administration API requires for changes. Only a user who can read the database's
            folder as its owner can read it.
        file: device and inode of the database file that the owner has open.
        started: when the owner began to load settings and plugins, by `time.monotonic`.
        waited: seconds for which callbacks waited when the owner replaced its predecessor; None if it replaced none.
        refused_started: when the process was started that could not replace the owner; 0 if none has failed.
        why_refused: why the last of them failed; `""` if none has.
    """

    pid: int
    admin: str = ""
    token: str = ""
    file: str = field(default="", compare=False)
    started: float = 0.0
    waited: float | None = None
    refused_started: float = 0.0
    why_refused: str = ""

    def __repr__(self) -> str:
        return f"LockOwner(pid={self.pid}, admin={self.admin!r})"


class Lock:
    """The lock of one database file. It is held until `release`, or until the process ends in any way.

    Args:
        database: the database's file.
    """

    def __init__(self, database: Path) -> None:
        self._database = database = database.resolve()  # a link to it is the same database
        self.path: Path = database.with_name(database.name + ".lock")
        self._file: int | None = None
        self._database_file: int | None = None
        self._owner = LockOwner(pid=os.getpid())
        self._is_written = False
        self._changing = threading.Lock()

    def acquire(self) -> bool:
        """Take the lock unless another process holds it.

        If there is no database file, create an empty one that only its owner can access.

        Returns:
            Whether this process holds the lock now.

        Raises:
            LedgerUnusable: a file cannot be created, locked or written, or the folder is on a network file system.
        """
        reject_network_file_system(self.path.parent)
        if (file := _open_locked(self.path, "lock file")) is None:
            return False
        try:
            database_file = _open_locked(self._database, "database file", lock=sys.platform == "linux")
        except LedgerUnusable:
            os.close(file)
            raise
        if database_file is None:
            os.close(file)
            return False
        self._file, self._database_file = file, database_file
        close_in_children(self, Lock._close)
        self._owner = LockOwner(pid=os.getpid(), file=_identity(os.fstat(database_file)))
        try:
            self._write(file)
        except LedgerUnusable:
            self.release()
            raise
        return True

    def write_owner(self, holder: LockOwner) -> None:
        """Write the owner into the lock file, for commands to read; if that fails, `restore` tries again."""
        with self._changing:
            if self._file is None or self._database_file is None:
                return
            self._owner = replace(holder, file=_identity(os.fstat(self._database_file)))
            with suppress(LedgerUnusable):
                self._write(self._file)

    def write_refused_restart(self, why: str, started: float) -> None:
        """Write into the lock file that a replacement of the owner has failed, for the command that waits for it.

        Args:
            why: the reason.
            started: when the process was started that has failed, by `time.monotonic`.
        """
        self.write_owner(replace(self._owner, refused_started=started, why_refused=why))

    def restore(self) -> None:
        """Create the lock file again if it was removed or replaced, and write it if the last write failed.

        This is safe, because the database file is still locked.

        Raises:
            LedgerUnusable: the lock file cannot be created or written now, or another process has locked it.
        """
        with self._changing:
            if self._file is None:
                return
            if _is_at(self.path, self._file):
                if not self._is_written:
                    self._write(self._file)
                return
            if (file := _open_locked(self.path, "lock file")) is None:
                raise LedgerUnusable(f"the lock file {self.path} was replaced, and another process has locked it")
            os.close(self._file)
            self._file = file
            self._write(file)
        log.error(
            "lock_file_lost",
            path=str(self.path),
            why="the lock file was removed or replaced; it was created again",
            next="do not delete the lock file: it does no harm when no server runs",
        )

    def _write(self, file: int) -> None:
        self._is_written = False
        try:
            os.fchmod(file, _PRIVATE)
            _overwrite(file, json.dumps(asdict(self._owner)).encode())
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise LedgerUnusable(f"cannot write the lock file {self.path}: {why}") from None
        self._is_written = True

    def owner(self) -> LockOwner | None:
        """Return the process that holds the lock; None if no process does.

        Raises:
            LedgerUnusable: a process holds the lock, but the lock file does not say which one.
        """
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LedgerUnusable(f"cannot read the lock file {self.path}: {os.strerror(error.errno or 0)}") from None
        try:
            return _owner_of(file, self.path)
        finally:
            os.close(file)

    def release(self) -> None:
        """Release the lock, only after SQLite has closed the database (see the module).

        The lock file is not removed: otherwise two processes could hold two locks.
        """
        with self._changing:
            if self._file is not None:
                with suppress(OSError):
                    os.ftruncate(self._file, 0)
            for file in (self._file, self._database_file):
                if file is not None:
                    fcntl.flock(file, fcntl.LOCK_UN)  # also of a copy that another process has by a fork
            self._close()

    def _close(self) -> None:
        for file in (self._file, self._database_file):
            if file is not None:
                os.close(file)
        self._file = self._database_file = None


def why_misplaced(database: Path) -> str | None:
    """Return why the file at a path is not the one that its lock's owner has open; None if it is, or is not locked.

    Such a file must not be opened: SQLite would use the write-ahead log beside it, which belongs to the other file, and
    it removes the log beside an empty file.
    """
    try:
        holder = Lock(database).owner()
    except LedgerUnusable:
        return None  # its owner is just starting or ending
    if holder is None or not holder.file:
        return None
    try:
        stat = database.stat()
    except FileNotFoundError:
        return f"process {holder.pid} uses a database file that is not at {database} any more: it was moved or deleted"
    if holder.admin and not stat.st_size:
        return f"the database file {database}, which process {holder.pid} uses, was truncated: it is empty"
    if _identity(stat) == holder.file:
        return None
    return f"process {holder.pid} uses another file than the one at {database} now: the file was replaced"


def is_held(database: Path) -> bool:
    """Return whether a process holds the lock of a database."""
    try:
        return Lock(database).owner() is not None
    except LedgerUnusable:
        return True  # its owner is just starting or ending


def _identity(stat: os.stat_result) -> str:
    return f"{stat.st_dev}:{stat.st_ino}"


def _is_at(path: Path, file: int) -> bool:
    """Tell whether an open file is the one at a path."""
    try:
        return _identity(path.stat()) == _identity(os.fstat(file))
    except OSError:
        return False


def _open_locked(path: Path, kind: str, *, lock: bool = True) -> int | None:
    """Open and lock a file, creating it if necessary; None if it is locked by another process.

    Raises:
        LedgerUnusable: it cannot be created or locked.
    """
    flags = os.O_RDWR if path.suffix == ".lock" else os.O_RDONLY  # SQLite has the best error if it cannot be written
    try:
        file = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    except OSError as error:
        raise LedgerUnusable(f"cannot create the {kind} {path}: {os.strerror(error.errno or 0)}") from None
    try:
        locked = not lock or _try_lock(file)
    except OSError as error:
        os.close(file)
        raise LedgerUnusable(f"cannot lock {path}: {os.strerror(error.errno or 0)}") from None
    if not locked:
        os.close(file)
        return None
    return file


def _overwrite(file: int, text: bytes) -> None:
    """Replace the content of a file; on a full disk it keeps the earlier content, so that commands can still read it.

    Raises:
        OSError: it cannot be written.
    """
    before = os.pread(file, _MAX_BYTES, 0)
    try:
        _write_at_start(file, text.ljust(len(before)))  # no reader finds the end of the earlier content after the new
        os.ftruncate(file, len(text))
    except OSError:
        with suppress(OSError):
            os.pwrite(file, before, 0)
            os.ftruncate(file, len(before))
        raise


def _write_at_start(file: int, text: bytes) -> None:
    if os.pwrite(file, text, 0) < len(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _try_lock(file: int) -> bool:
    # `owner` locks the file for a moment while it reads: try again.
    until = time.monotonic() + READ_TIMEOUT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise
            if time.monotonic() > until:
                return False
            time.sleep(READ_INTERVAL)
        else:
            return True


def _owner_of(file: int, path: Path) -> LockOwner | None:
    # A process that just took the lock may not have written its id yet: read again.
    until = time.monotonic() + READ_TIMEOUT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            if (holder := _read(file)) is not None:
                return holder
        else:
            return None
        if time.monotonic() > until:
            raise LedgerUnusable(f"another process has locked {path}, but its id is not known; try again in a moment")
        time.sleep(READ_INTERVAL)


def _read(file: int) -> LockOwner | None:
    try:
        value: dict[str, Any] = json.loads(os.pread(file, _MAX_BYTES, 0))
        pid, waited = int(value["pid"]), value.get("waited")
        return LockOwner(
            pid=pid,
            admin=str(value["admin"]),
            token=str(value["token"]),
            file=str(value.get("file", "")),
            started=float(value.get("started", 0)),
            waited=None if waited is None else float(waited),
            refused_started=float(value.get("refused_started", 0)),
            why_refused=str(value.get("why_refused", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None


def reject_network_file_system(folder: Path) -> None:
    """Refuse a folder on a network file system, because locks and fsync are not reliable there.

    A file system that cannot be determined is accepted.

    Raises:
        LedgerUnusable: the folder is on a network file system.
    """
    kind = _file_system(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise LedgerUnusable(
            f"{folder} is on a network file system ({kind}), which can lose data that SQLite has written; use a "
            "local disk"
        )


def _file_system(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return ""
    resolved = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        _device, point, file_system, *_ = line.split(b" ")
        # White space in a path is written as `\040`; all other bytes are those of the path.
        mounted = Path(os.fsdecode(point.decode("unicode_escape").encode("latin-1")))
        if resolved.is_relative_to(mounted) and len(mounted.parts) >= best:
            best, kind = len(mounted.parts), file_system.decode()
    return kind


def acquire_lock(url: str, timeout: float = 0.0) -> Lock | None:
    """Take the lock of a database; return None on PostgreSQL, where any number of processes may write.

    Args:
        url: the database.
        timeout: seconds for which to try again while another process has the lock.

    Raises:
        LedgerUnusable: the folder is missing or cannot be used, or another process has the lock.
    """
    file = database.database_file(url)
    if file is None:
        return None
    if not file.parent.is_dir():
        raise LedgerUnusable(f"cannot use the database {file}: the folder {file.parent} does not exist")
    lock = Lock(file)
    until = time.monotonic() + timeout
    while not lock.acquire():
        if time.monotonic() >= until:
            break
    else:
        return lock
    holder = lock.owner()
    if holder is None:
        raise LedgerUnusable(
            f"the database {file} is in use by another process: it has just ended, or its lock file was removed; "
            "try again in a moment"
        )
    at = f", whose administration is at {holder.admin}" if holder.admin else ""
    raise LedgerUnusable(
        f"the database {file} is in use by process {holder.pid}{at}; only one process may write a SQLite "
        "ledger; stop that process, or name another file with --database"
    )


def publish_admin_address(
    lock: Lock | None, admin: str, token: str, *, started: float = 0.0, waited: float | None = None
) -> None:
    """Write the address of the administration API and its token into the lock file.

    Args:
        lock: the lock of this process; None on PostgreSQL, where nothing is written.
        admin: the address.
        token: the token.
        started: when this process began to load settings and plugins, by `time.monotonic`.
        waited: seconds for which callbacks waited while this process took over; None if it replaced no other.
    """
    if lock is not None:
        lock.write_owner(LockOwner(pid=os.getpid(), admin=admin, token=token, started=started, waited=waited))
