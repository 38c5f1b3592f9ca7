"""Real workers with the runner `procrastinate`: idle ones share the work, and one takes over the sweep of another."""

from __future__ import annotations

import signal
from collections import Counter

import psycopg
import pytest

from support.process_trials import NOT_RETRYABLE, PLUGIN, entered

SLOW = 64
WITHIN = 25.0
"""Seconds in which a lost job is made again on a busy machine; a killed process would count as running for longer."""
SWEEPERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
JOBS = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"


@pytest.mark.parametrize("sharing", ["procrastinate"], indirect=True)
def test_idle_workers_share_the_work_and_the_sweep(sharing):
    """Slow deliveries start in all free slots of two workers; after a SIGSTOP or a kill, the other one sweeps."""
    # A commit may take seconds on a busy machine.
    site, settings = sharing, sharing.settings | {"runner__threads": 16, "ledger__write_timeout": 20}
    site.plugin("p", PLUGIN.replace('"shut-" + event.flow_instance_id', '"shut"'))
    gate = site.folder / "shut"
    gate.touch()

    def rows(statement):
        with psycopg.connect(site.url, autocommit=True) as connection:
            found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def lose_jobs():
        """Delete all jobs, and wait until a worker has made one again."""
        rows("DELETE FROM procrastinate_jobs")
        site.until(lambda _ledger: rows(JOBS) != [(0,)], within=WITHIN)

    server = site.start("--no-worker", **settings)
    first = site.start_worker("--plugins-dir", site.plugins, **settings)
    site.until(lambda _ledger: rows(SWEEPERS) == [(1,)])
    second = site.start_worker("--plugins-dir", site.plugins, **settings)
    for number in range(SLOW):
        assert server.post(f"i{number}", NOT_RETRYABLE, Prefer="respond-async").status == 202
    pids = {first.process.pid: 12, second.process.pid: 12}
    site.until(lambda _ledger: Counter(pid for _, _, pid in entered(site)) == pids)
    first.signal(signal.SIGSTOP)
    lose_jobs()
    first.signal(signal.SIGCONT)
    second.kill()
    lose_jobs()
    gate.unlink()
    site.until(lambda ledger: ledger.verify().deliveries.get("succeeded") == SLOW - 12)
    for process in (server, first):
        process.stop()
        process.check_log()
