"""Connections that nobody answers: given up in time, with those that go the same way; not those that listen."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

from flowhooks.ledger import lines


async def given_up(line):
    """Seconds until a question that nobody answers has cost the connection."""
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match="has not answered for"):
        await line.execute("SELECT 1")
    assert line.closed
    return time.monotonic() - began


def test_those_that_go_the_same_way_are_given_up_soon(broken):
    """One has to be waited for; another one that was made before it was given up is not, and a new one works."""

    class Company(lines.company()):
        answers_within = 4.0

    async def ask():
        first, second = [await Company.connect(broken.proxied, autocommit=True) for _ in range(2)]
        broken.proxy.swallow()
        assert await given_up(first) >= Company.answers_within
        assert await given_up(second) < Company.answers_within - 1
        broken.proxy.heal()
        new = await Company.connect(broken.proxied, autocommit=True)
        assert await (await new.execute("SELECT pg_sleep(1.5), 7")).fetchone() == ("", 7)
        await new.close()

    asyncio.run(ask())
    assert lines.company().silent_at < Company.silent_at  # other companies have heard nothing of it


def test_who_only_listens_is_not_given_up(broken):
    """Nothing was asked, so that no answer is late."""

    class Company(lines.company()):
        answers_within = 0.3

    async def listen():
        line = await Company.connect(broken.proxied, autocommit=True)
        await line.execute("LISTEN something")
        assert [one async for one in line.notifies(timeout=1)] == []
        assert await (await line.execute("SELECT 7")).fetchone() == (7,)
        await line.close()

    asyncio.run(listen())
