"""The lock of the process that works for all: one process has it, and not longer than it responds."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import leader_lock
from flowhooks.ledger.leader_lock import LeaderLock
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.postgresql
PROCESS = text("SELECT pg_backend_pid()")


def pid(connection):
    """The process of PostgreSQL that serves a connection."""
    return connection.execute(PROCESS).scalar_one()


@pytest.fixture
def new_lock(postgresql_url):
    """A function that makes a lock; all are released at the end."""
    locks = []

    def make(url=postgresql_url):
        locks.append(LeaderLock(url))
        return locks[-1]

    yield make
    for lock in locks:
        lock.release()
    held = "SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database AND datname = current_database()"
    with psycopg.connect(postgresql_url) as connection:  # a session ends a moment after its connection is closed
        until(lambda: not connection.execute(f"{held} WHERE locktype = 'advisory'").fetchall())


@pytest.fixture
def is_free(harness):
    """A function that tells whether no process has a lock."""
    ledger = harness.open(start=False).app.ledger

    def ask(lock):
        with ledger.connection() as connection:
            return lock.is_free(connection)

    return ask


def test_one_process_has_the_leader_lock_until_its_end(new_lock, is_free, postgresql_url, *, monkeypatch, eventually):
    """The lock is free when its process releases it, and when the session ends, as after `kill -9`."""
    monkeypatch.setattr(leader_lock, "IDLE_SESSION_TIMEOUT", WAIT_TIMEOUT)  # a busy machine may delay this test
    first, second = new_lock(), new_lock()
    assert is_free(second)
    assert first.take()
    assert not second.take()
    assert not is_free(second)
    assert (first.is_held, second.is_held) == (True, False)
    assert first.read(pid) == first.read(pid)
    assert second.read(pid) is None
    first.release()
    eventually(second.take)  # PostgreSQL ends the session a moment after its connection is closed
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 60000)", (second.read(pid),))
    eventually(first.take)
    assert second.read(pid) is None
    assert not second.is_held


def test_a_stopped_process_loses_the_leader_lock(new_lock, monkeypatch, eventually):
    """PostgreSQL takes the lock from a process that sends nothing, and the process notices that when it continues."""
    monkeypatch.setattr(leader_lock, "IDLE_SESSION_TIMEOUT", 0.2)
    stopped, other = new_lock(), new_lock()
    assert stopped.take()
    eventually(other.take)
    assert stopped.read(pid) is None
    assert not stopped.is_held


def test_ledgers_in_other_schemas_have_their_own_locks(new_lock, postgresql_url):
    """Two ledgers in one database each have a process that works for all of theirs."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA other")
        try:
            connection.execute("CREATE TABLE other.processes ()")
            other = new_lock(postgresql_url + ("&" if "?" in postgresql_url else "?") + "options=-csearch_path%3Dother")
            assert new_lock().take()
            assert other.take()
        finally:
            connection.execute("DROP SCHEMA other CASCADE")


def test_an_unreachable_database_is_reported(new_lock):
    """The lock is not held, and the reason is in the error."""
    lock = new_lock("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(LedgerUnusable, match="refused"):
        lock.take()
    assert not lock.is_held
