"""Errors of a database that cannot be opened, and of a lock that another process only reads."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from flowhooks.clock import Clock
from flowhooks.errors import LedgerEmpty, LedgerSchemaTooOld, LedgerUnusable
from flowhooks.ledger.ledger import Ledger
from flowhooks.ledger.lock import Lock
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.upgrade import upgrade


@pytest.fixture
def file(tmp_path):
    """The path of the database."""
    return tmp_path / "ledger.db"


def open_ledger(url):
    """A ledger for writing."""
    return Ledger(url, runner=None, clock=Clock())


def said_of(file, opened):
    """The error of a database that cannot be opened."""
    with pytest.raises(LedgerUnusable) as refused:
        opened(f"sqlite:///{file}").close()
    return refused.value


@pytest.mark.parametrize("opened", [Reader, upgrade])
def test_the_error_names_the_database_and_the_reason(file, opened):
    """Text, a folder or another program's tables are refused with the file's name and the reason, once each."""
    file.write_text("this is not a database, and long enough to be seen as none\n" * 20)
    assert str(said_of(file, opened)) == (
        f"cannot use the database {file}: file is not a database: correct --database or the setting database, or "
        "restore a backup"
    )
    file.unlink()
    file.mkdir()
    assert str(said_of(file, opened)) == f"cannot use the database {file}: unable to open database file"
    file.rmdir()
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE orders (id)")
    other.close()
    expected = f"cannot use the database {file}: it is not a flowhooks ledger: it has other tables (orders)"
    assert str(said_of(file, opened)) == expected


def open_files(file):
    """The files of the database that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of the listing itself is closed by now
            found.append(str(descriptor.readlink()))
    return [name for name in found if name.startswith(str(file))]


@pytest.mark.parametrize(
    ("opened", "step"),
    [(Reader, "flowhooks.ledger.reader.runner.check"), (open_ledger, "flowhooks.ledger.ledger.file_guard.open_guard")],
)
@pytest.mark.parametrize("error", [LedgerUnusable("no"), KeyboardInterrupt()])
def test_a_failed_open_closes_its_connections(file, monkeypatch, opened, step, error):
    """If a later step of the opening fails or is interrupted, the connections that it made are closed."""
    upgrade(f"sqlite:///{file}")

    def fail(*_arguments):
        assert open_files(file)
        raise error

    monkeypatch.setattr(step, fail)
    # The error keeps the frames of the opening, and so what they have left open.
    with pytest.raises(type(error)) as failed:
        opened(f"sqlite:///{file}")
    assert failed.traceback
    assert open_files(file) == []


def test_an_empty_database_is_outdated_and_a_newer_one_is_not(file):
    """Only an error that an upgrade can fix is a LedgerSchemaTooOld; that of an empty file is a LedgerEmpty."""
    file.touch()
    assert type(said_of(file, Reader)) is LedgerEmpty
    assert issubclass(LedgerEmpty, LedgerSchemaTooOld)
    assert upgrade(f"sqlite:///{file}")[0] is None
    Reader(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as changed:
        changed.execute("UPDATE alembic_version SET version_num = '9999'")
    changed.close()
    assert type(said_of(file, Reader)) is LedgerUnusable
    assert "written by a newer flowhooks" in str(said_of(file, upgrade))


def test_a_start_waits_for_a_short_shared_lock(file, monkeypatch):
    """A start waits for a short shared lock, as `holder` takes it, but not for a lasting one."""
    lock = Lock(file)
    assert lock.acquire()
    lock.release()
    looking = os.open(lock.path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert not lock.acquire()
    monkeypatch.setattr("flowhooks.ledger.lock.READ_TIMEOUT", 10.0)  # a busy machine may run the timer late
    timer = threading.Timer(0.1, lambda: fcntl.flock(looking, fcntl.LOCK_UN))
    timer.start()
    assert lock.acquire()
    timer.join()
    lock.release()
    os.close(looking)
