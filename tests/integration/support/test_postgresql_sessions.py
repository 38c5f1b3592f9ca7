"""Sessions that tests use again are as new, and closed connections are closed."""

from __future__ import annotations

import os
import resource
from contextlib import ExitStack

import psycopg
import pytest

from support import postgresql_sessions
from support.postgresql_sessions import ReusedConnection

pytestmark = pytest.mark.usefixtures("no_free_sessions")


@pytest.fixture
def no_free_sessions():
    postgresql_sessions.close_free()
    yield
    postgresql_sessions.close_free()


@pytest.fixture
def connect(postgresql_url):
    """A function that connects to the ledger of the tests."""
    return lambda: ReusedConnection.connect(postgresql_url, autocommit=True)


def pid_of(connection):
    return connection.info.backend_pid


def test_a_session_is_used_again_and_its_first_connection_is_closed(connect):
    first = connect()
    pid = pid_of(first)
    first.close()
    assert first.closed
    assert not first.broken
    with pytest.raises(psycopg.OperationalError):
        first.execute("SELECT 1")
    with connect() as second:
        assert pid_of(second) == pid
        first.close()
        assert second.execute("SELECT 1").fetchone() == (1,)


def test_two_open_connections_have_two_sessions(connect):
    with connect() as first, connect() as second:
        assert pid_of(first) != pid_of(second)


def test_nothing_of_the_last_user_is_left(connect):
    with connect() as first:
        pid = pid_of(first)
        first.execute("SET lock_timeout = '7s'")
        first.execute("LISTEN changes")
        first.execute("SELECT pg_advisory_lock(7)")
        first.execute("CREATE TEMPORARY TABLE notes (id int)")
        first.execute("SELECT 1", prepare=True)
        first.execute("NOTIFY changes")
        first.execute("BEGIN")
        first.execute("UPDATE counters SET value = value")
    with connect() as second:
        assert pid_of(second) == pid
        for query in (
            "SELECT 1 WHERE current_setting('lock_timeout') <> '0'",
            "SELECT pg_listening_channels()",
            f"SELECT 1 FROM pg_locks WHERE pid = {pid} AND (locktype = 'advisory' OR mode = 'RowExclusiveLock')",
            "SELECT 1 FROM pg_class WHERE relname = 'notes'",
            "SELECT 1 FROM pg_prepared_statements",
        ):
            assert second.execute(query).fetchall() == [], query
        assert list(second.notifies(timeout=0)) == []


def test_a_session_with_other_options_is_not_used(connect, postgresql_url):
    connect().close()
    with ReusedConnection.connect(postgresql_url, options="-c default_transaction_read_only=on") as other:
        assert other.execute("SHOW default_transaction_read_only").fetchone() == ("on",)


def test_a_session_that_the_server_has_ended_is_not_used(connect):
    first = connect()
    with connect() as second:
        pid = pid_of(first)
        first.close()
        second.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
        with connect() as third:
            assert pid_of(third) != pid


def test_a_broken_session_is_not_used(connect):
    first = connect()
    pid = pid_of(first)
    first.pgconn.finish()
    first.close()
    with connect() as second:
        assert pid_of(second) != pid


def test_few_sessions_are_kept(connect, monkeypatch):
    monkeypatch.setattr(postgresql_sessions, "MAX_FREE", 1)
    first, second = connect(), connect()
    pid = pid_of(first)
    first.close()
    second.close()
    with connect() as third, connect() as fourth:
        assert pid_of(third) == pid
        assert pid_of(fourth) not in {pid, pid_of(third)}


def test_sessions_of_a_process_with_many_open_files(connect):
    """A session is used again whatever the number of its socket is."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
        for _ in range(1_100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        first = connect()
        pid = pid_of(first)
        assert first.pgconn.socket > 1_023
        first.close()
        with connect() as second:
            assert pid_of(second) == pid
        postgresql_sessions.close_free()
