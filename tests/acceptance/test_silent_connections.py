"""Connections without replies are closed in time, with others to the same server, but not listening connections."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from flowhooks.ledger.database import postgresql_timeouts
from support.waiting import WAIT_TIMEOUT


async def given_up(line):
    """Send a statement without a reply, until the connection is closed for it."""
    async with asyncio.timeout(WAIT_TIMEOUT):
        with pytest.raises(psycopg.OperationalError, match="has not answered for"):
            await line.execute("SELECT 1")
    assert line.closed


def test_connections_to_the_same_server_close_soon_after_a_timeout(broken):
    """After one timeout, an older connection to the same server is closed soon, and a new one works."""

    class Company(postgresql_timeouts.connection_group()):
        answers_within = WAIT_TIMEOUT

    async def ask():
        first, second = [await Company.connect(broken.proxied, autocommit=True) for _ in range(2)]
        broken.proxy.discard()
        Company.statement_timeout = 0.5
        await given_up(first)
        Company.statement_timeout = 10 * WAIT_TIMEOUT  # the second connection is closed without a wait of its own
        await given_up(second)
        broken.proxy.restore()
        new = await Company.connect(broken.proxied, autocommit=True)
        assert await (await new.execute("SELECT pg_sleep(1.5), 7")).fetchone() == ("", 7)
        await new.close()

    asyncio.run(ask())
    assert (
        postgresql_timeouts.connection_group().timed_out_at < Company.timed_out_at
    )  # connections to other servers are not affected


def test_a_listening_connection_is_not_closed(broken):
    """A listening connection is not closed, because no reply to it is late."""

    class Company(postgresql_timeouts.connection_group()):
        answers_within = WAIT_TIMEOUT

    async def listen():
        line = await Company.connect(broken.proxied, autocommit=True)
        await line.execute("LISTEN something")
        Company.statement_timeout = 0.3
        assert [notification async for notification in line.notifies(timeout=1)] == []
        Company.statement_timeout = WAIT_TIMEOUT
        assert await (await line.execute("SELECT 7")).fetchone() == (7,)
        await line.close()

    asyncio.run(listen())
