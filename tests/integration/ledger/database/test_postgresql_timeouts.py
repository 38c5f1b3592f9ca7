"""Connections to PostgreSQL that break while a reply is awaited."""

from __future__ import annotations

import logging

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy.exc import DBAPIError, OperationalError

from flowhooks.ledger.database import open_engine


def test_a_connection_that_breaks_before_the_reply_is_closed(postgresql_url, monkeypatch, caplog):
    """A broken connection is closed; a rollback on it would only log another error."""

    def wait(steps, *_args, **_kwargs):
        next(steps)  # the statement has been sent
        raise psycopg.OperationalError("connection socket closed")

    engine = open_engine(postgresql_url, writing=False, statement_timeout=5)
    try:
        with caplog.at_level(logging.WARNING), monkeypatch.context() as patched, engine.connect() as line:
            line.exec_driver_sql("SELECT 1").close()
            patched.setattr(psycopg.waiting, "wait", wait)
            with pytest.raises(OperationalError) as broken:
                line.exec_driver_sql("SELECT 2")
        assert broken.value.connection_invalidated
        assert caplog.records == []
        with engine.connect() as line:
            assert line.exec_driver_sql("SELECT 3").scalar_one() == 3
    finally:
        engine.dispose()


def test_a_statement_error_does_not_close_the_connection(postgresql_url):
    """A connection is closed only after a statement without a reply."""
    engine = open_engine(postgresql_url, writing=False, statement_timeout=5)
    try:
        with engine.connect() as line:
            before = line.connection.driver_connection
            for refused in ("SELECT 1 / 0", "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(5)"):
                with pytest.raises(DBAPIError) as error:
                    line.exec_driver_sql(refused)
                assert not error.value.connection_invalidated
                line.rollback()
            assert line.connection.driver_connection is before
    finally:
        engine.dispose()


def test_a_session_that_refuses_writes_is_replaced(postgresql_url):
    """A writer does not keep a session of a server that was a standby or read-only when the session began."""
    engine = open_engine(postgresql_url, writing=True)
    try:
        with engine.begin() as line:
            line.exec_driver_sql("SET default_transaction_read_only = on").close()
        with pytest.raises(DBAPIError, match="read-only") as refused, engine.begin() as line:
            line.exec_driver_sql("DELETE FROM handlers")
        assert refused.value.connection_invalidated
        with engine.begin() as line:
            line.exec_driver_sql("DELETE FROM handlers").close()
    finally:
        engine.dispose()


def test_a_connection_check_uses_no_separate_transaction(postgresql_url):
    """A pooled connection is checked by the statement that begins the transaction; a closed one is replaced."""
    engine = open_engine(postgresql_url, writing=False, statement_timeout=5)
    try:
        with engine.connect() as line:
            line.exec_driver_sql("SELECT 1").close()
        with engine.connect() as line:
            before = line.connection.driver_connection
            assert before.info.transaction_status == TransactionStatus.INTRANS
            assert line.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
        with psycopg.connect(postgresql_url) as other:
            other.execute("SELECT pg_terminate_backend(%s, 60000)", (before.info.backend_pid,))
        with engine.connect() as line:
            assert line.connection.driver_connection is not before
            assert line.exec_driver_sql("SELECT 1").scalar_one() == 1
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("kind", "ended_after"),
    [
        ({"writing": True}, "15s"),
        ({"writing": True, "handler_sessions": 2}, "1min"),
        ({"writing": False, "statement_timeout": 5}, "1min"),
        ({"writing": False}, "0"),
    ],
)
def test_the_server_ends_idle_transactions(postgresql_url, kind, ended_after):
    """PostgreSQL ends idle transactions, because behind a proxy it keeps the locks of a client that is gone."""
    engine = open_engine(postgresql_url, **kind)
    try:
        with engine.connect() as line:
            assert line.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar_one() == ended_after
    finally:
        engine.dispose()
