"""The lock: one process writes, others can identify it, and it is released in any case."""

from __future__ import annotations

import fcntl
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing, contextmanager

import pytest

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger.lock import Lock, LockOwner, acquire_lock, reject_network_file_system, why_misplaced
from support.waiting import WAIT_TIMEOUT


@pytest.fixture
def locks(tmp_path):
    """A function that makes locks of one database; all are released at the end."""
    made = []

    def make(name="f.db"):
        made.append(Lock(tmp_path / name))
        return made[-1]

    yield make
    for lock in made:
        lock.release()


def test_only_one_process_has_the_lock(locks):
    """A second process gets the lock only after the first has released it."""
    first, second = locks(), locks()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()


def test_the_lock_names_its_owner(locks):
    """Others read the holder's process id, and later its administration address and token."""
    first, second = locks(), locks()
    assert second.owner() is None
    first.acquire()
    assert second.owner() == LockOwner(pid=os.getpid())
    first.write_owner(LockOwner(pid=1, admin="http://127.0.0.1:8081", token="t" * 43))
    assert second.owner() == LockOwner(pid=1, admin="http://127.0.0.1:8081", token="t" * 43)
    first.write_owner(LockOwner(pid=2))
    assert second.owner() == LockOwner(pid=2)
    first.release()
    assert second.owner() is None
    assert first.path.read_bytes() == b""


def test_the_lock_stores_why_a_restart_was_refused(locks):
    """The command that asked for a replacement reads when a process was started that failed, and why."""
    first, second = locks(), locks()
    first.acquire()
    first.write_owner(LockOwner(pid=1, admin="http://127.0.0.1:8081", started=3.0, waited=0.5))
    first.write_refused_restart("one", 4.0)
    first.write_refused_restart("two", 5.0)
    owner = second.owner()
    assert (owner.started, owner.waited, owner.refused_started, owner.why_refused) == (3.0, 0.5, 5.0, "two")
    assert owner.admin == "http://127.0.0.1:8081"


@contextmanager
def limited_files(size):
    """Let this process write no file beyond this size."""
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1])
def test_a_lock_on_a_full_disk(locks, size):
    """A lock is not taken if its file cannot be written. The file of a lock that is held is written later."""
    first, second = locks(), locks()
    with limited_files(size), pytest.raises(LedgerUnusable, match="cannot write the lock file"):
        first.acquire()
    assert second.acquire()
    second.release()
    first.acquire()
    first.write_owner(LockOwner(pid=1, admin="http://127.0.0.1:8081"))
    with limited_files(size):
        first.write_refused_restart("one", 4.0)
        assert second.owner() == LockOwner(pid=1, admin="http://127.0.0.1:8081")
        with pytest.raises(LedgerUnusable, match="cannot write the lock file"):
            first.restore()
        first.write_refused_restart("two", 5.0)
    first.restore()
    assert (second.owner().refused_started, second.owner().why_refused) == (5.0, "two")


def test_a_process_may_wait_for_the_lock(locks, tmp_path):
    """A successor tries again while a command has the lock."""
    first = locks()
    first.acquire()
    threading.Timer(0.05, first.release).start()
    lock = acquire_lock(f"sqlite:///{tmp_path}/f.db", WAIT_TIMEOUT)
    assert lock is not None
    lock.release()


def test_only_the_owner_can_read_the_lock_file(locks):
    """Only the owner can read the file, which has a token, whatever its earlier mode."""
    lock = locks()
    lock.path.touch(0o666)
    lock.path.chmod(0o666)
    lock.acquire()
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600


def test_the_repr_of_a_lock_owner_hides_the_token():
    """A holder that is logged or printed does not show its token."""
    assert "secret" not in repr(LockOwner(pid=1, token="secret")) + str(LockOwner(pid=1, token="secret"))


def test_a_killed_process_releases_the_lock(locks, tmp_path):
    """The lock of a process ends with it, however it ends."""
    code = f"""if True:
        import time
        from pathlib import Path
        from flowhooks.ledger.lock import Lock
        lock = Lock(Path({str(tmp_path / "f.db")!r}))
        assert lock.acquire()
        print("has it", flush=True)
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "has it\n"
        other = locks()
        assert not other.acquire()
        assert other.owner().pid == process.pid
        process.kill()
        process.wait()
    assert other.acquire()


def test_reading_the_owner_does_not_block_a_start(locks, monkeypatch):
    """Reading the holder repeatedly does not block a start."""
    monkeypatch.setattr("flowhooks.ledger.lock.READ_TIMEOUT", 10.0)  # a busy machine may interrupt either thread
    lock, looker = locks(), locks()
    stop = threading.Event()
    lock.acquire()
    lock.release()

    def look():
        while not stop.is_set():
            looker.owner()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            assert lock.acquire()
            lock.release()
    finally:
        stop.set()
        thread.join()


def test_a_link_to_a_database_has_the_same_lock(locks, tmp_path):
    """Two names of one file have one lock."""
    (tmp_path / "link.db").symlink_to(tmp_path / "f.db")
    (tmp_path / "folder").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "folder")
    assert locks().acquire()
    assert not locks("link.db").acquire()
    assert locks("folder/f.db").acquire()
    assert not locks("elsewhere/f.db").acquire()


def test_an_invalid_lock_file_is_reported(locks, monkeypatch):
    """If the lock is taken but the file is invalid, the message says so."""
    lock = locks()
    lock.acquire()
    monkeypatch.setattr("flowhooks.ledger.lock.READ_TIMEOUT", 0.01)
    for nonsense in (b"", b"{", b"[]", b'{"pid": "x"}', b"\xff"):
        lock.path.write_bytes(nonsense)
        with pytest.raises(LedgerUnusable, match="its id is not known"):
            locks().owner()


def test_a_missing_folder_is_an_error(tmp_path):
    """A missing folder is an error that names the file."""
    with pytest.raises(LedgerUnusable, match="cannot create the lock file"):
        Lock(tmp_path / "none" / "f.db").acquire()


def test_releasing_a_lock_that_is_not_acquired_is_harmless(locks):
    """Releasing a lock twice, or one that was not acquired, changes nothing; nor does describing it."""
    first, second = locks(), locks()
    first.acquire()
    second.write_owner(LockOwner(pid=9))
    second.release()
    assert locks().owner() == LockOwner(pid=os.getpid())
    first.release()
    first.release()


def test_a_network_file_system_is_rejected(tmp_path, monkeypatch):
    """A folder on a network file system is refused, because locks and syncs are not reliable; a local one is not."""
    from flowhooks.ledger import lock

    reject_network_file_system(tmp_path)
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda / ext4 rw 0 0\n"
        f"server:/x {tmp_path}/net\\040work nfs4 rw 0 0\n"
        f"/dev/sdb {tmp_path}/net\\040work/disk xfs rw 0 0\n"
        f"server:/y {tmp_path}/数据\\040é cifs rw 0 0\n"
    )
    inside = tmp_path / "net work" / "deep"
    (tmp_path / "net work" / "disk").mkdir(parents=True)
    inside.mkdir()
    assert lock._file_system(inside, mounts) == "nfs4"
    assert lock._file_system(tmp_path / "net work" / "disk", mounts) == "xfs"
    assert lock._file_system(tmp_path / "数据 é", mounts) == "cifs"
    assert lock._file_system(tmp_path, mounts) == "ext4"
    assert lock._file_system(tmp_path, tmp_path / "none") == ""
    monkeypatch.setattr(lock, "_file_system", lambda _folder: "nfs4")
    with pytest.raises(LedgerUnusable, match="network file system"):
        Lock(inside / "f.db").acquire()


def test_only_the_owner_can_read_a_new_database_file(locks, tmp_path):
    """Only the owner can read the new database file and SQLite's files, because they hold callbacks."""
    lock = locks()
    before = os.umask(0o022)
    try:
        assert lock.acquire()
        with closing(sqlite3.connect(tmp_path / "f.db")) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE words (word TEXT)")
            files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("f.db*")}
    finally:
        os.umask(before)
    assert files == dict.fromkeys(("f.db", "f.db-wal", "f.db-shm", "f.db.lock"), 0o600)


def test_a_removed_lock_file_is_created_again(locks):
    """A lock without its file still blocks others; the file is created again with its content."""
    first, second = locks(), locks()
    assert first.acquire()
    first.write_owner(LockOwner(pid=1, admin="http://127.0.0.1:8081"))
    first.path.unlink()
    assert not second.acquire()
    assert second.owner() is None
    first.restore()
    assert second.owner() == LockOwner(pid=1, admin="http://127.0.0.1:8081")
    first.restore()
    assert not second.acquire()
    first.release()
    first.restore()
    assert second.acquire()


def test_a_lock_file_locked_by_another_process_is_an_error(locks):
    """A lock file that another process locked meanwhile is an error with the reason; a later try succeeds."""
    first = locks()
    assert first.acquire()
    first.path.unlink()
    other = os.open(first.path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(LedgerUnusable, match="another process has locked it"):
        first.restore()
    os.close(other)
    first.restore()
    assert locks().owner().pid == os.getpid()


def test_a_missing_or_replaced_database_file_is_reported(locks, tmp_path):
    """A missing, replaced or empty file at the path is reported; the right file is not."""
    file = tmp_path / "f.db"
    lock = locks()
    assert lock.acquire()
    lock.write_owner(LockOwner(pid=1, admin="http://127.0.0.1:8081"))
    assert "it is empty" in why_misplaced(file)
    file.write_bytes(b"x")
    assert why_misplaced(file) is None
    file.rename(tmp_path / "away.db")
    assert "moved or deleted" in why_misplaced(file)
    file.write_bytes(b"x")
    assert "uses another file" in why_misplaced(file)
    (tmp_path / "away.db").rename(file)
    assert why_misplaced(file) is None
    lock.release()
    assert why_misplaced(file) is None
