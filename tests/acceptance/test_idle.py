"""A server and workers that have nothing to do hardly use the database, however many handlers there are."""

from __future__ import annotations

import time
from contextlib import closing

import psycopg
import pytest

from support.waiting import until

HANDLERS = 10_000
PLUGIN = f'''
from flowhooks import handler, hookimpl

def make(number):
    @handler(process_key=f"key-{{number}}", name=f"h{{number}}")
    def work(event):
        """Do nothing."""

    return work

@hookimpl
def handlers():
    return [make(number) for number in range({HANDLERS})]
'''
MAX_PER_SECOND = 5
WINDOW = 20.0
"""Seconds in which transactions are counted: longer than the interval of any poll."""
TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


class Counter:
    """Counts the transactions of other connections to a database.

    Args:
        connection: a connection without transactions of its own.
    """

    def __init__(self, connection):
        self._connection = connection
        self._last = None

    def per_second(self):
        """The transactions a second since the last call; endless at the first one."""
        now = time.monotonic()
        (count,) = self._connection.execute(TRANSACTIONS).fetchone()
        before, self._last = self._last, (count, now)
        return float("inf") if before is None else (count - before[0] - 1) / (now - before[1])


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sharing", ["procrastinate"], indirect=True)
def test_few_transactions_while_nothing_arrives(sharing):
    """A server and two workers with ten thousand handlers make at most five transactions a second together."""
    site, folder = sharing, sharing.folder / "many"
    folder.mkdir()
    (folder / "many.py").write_text(PLUGIN)
    processes = [site.start("--no-worker", **site.settings)]
    processes += [site.start_worker("--plugins-dir", folder, **site.settings) for _ in range(2)]
    processes[0].until_logged("routes_changed", others=HANDLERS)
    with closing(psycopg.connect(site.url, autocommit=True)) as connection:
        counter, seen = Counter(connection), []

        def is_idle():
            seen.append(counter.per_second())
            return seen[-1] <= MAX_PER_SECOND

        until(is_idle, seconds=300, poll=WINDOW, why=lambda: seen)
    print(f"transactions a second, window by window: {seen[1:]}")  # noqa: T201 (figures, with -s)
    answer = processes[0].post("last", {"processDefinitionKey": f"key-{HANDLERS - 1}"}, Prefer="wait=60")
    assert answer.status == 200
    for process in processes:
        process.stop()
        process.check_log()
