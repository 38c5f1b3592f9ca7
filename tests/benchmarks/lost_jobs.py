"""The time until a delivery starts whose job was lost, with the runner `procrastinate` on PostgreSQL.

`python tests/benchmarks/lost_jobs.py --output docs/explanation/performance.md` writes its table into that page. A
trigger deletes the job of a callback in the transaction that stores both, so no worker can take it. The workers receive
the notification of the job, and find none.

Each round has a new ledger, a server and two workers. One job is lost while both workers run, and another one just
before the worker that looks for lost jobs is killed with SIGKILL.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack, closing
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
from bench import LATER
from cluster import cluster
from load import LoadError
from profiling import replace_parts
from promptness import BODY

from flowhooks.execution.runners.job_sweeper import CHECK_INTERVAL
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cluster import Cluster, SharedLedger
    from servers import Server

RUNS, KILLED = "runs", "is killed"
"""The cases: what happens to the worker that looks for lost jobs."""
LOSE_JOBS = """
CREATE TABLE jobs_to_lose (number int NOT NULL);
INSERT INTO jobs_to_lose VALUES (0);
CREATE FUNCTION lose_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jobs_to_lose SET number = number - 1 WHERE number > 0;
    IF FOUND THEN
        DELETE FROM procrastinate_jobs WHERE id = NEW.id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER z_lose_job AFTER INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION lose_job();
"""
"""A trigger that deletes the next jobs, as many as the table `jobs_to_lose` says. PostgreSQL runs triggers in the order
of their names, so this trigger runs after those of Procrastinate."""
SWEEPING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted"
"""The session of the worker that looks for lost jobs."""
TIMES = """
SELECT created_at / 1000000.0, started_at / 1000000.0 FROM deliveries JOIN attempts ON delivery_id = deliveries.id
WHERE event_id = '{}'
"""
POLL_INTERVAL = 0.05
"""Seconds between two queries of the ledger. They do not change the measured times, which are stored in the ledger."""


def seconds(postgresql: Cluster, rounds: int) -> dict[str, list[float]]:
    """Seconds until each delivery started, by case; see `one_round`."""
    seconds_by_case = defaultdict(list)
    for number in range(1, rounds + 1):
        times = one_round(postgresql)
        shown = ", ".join(f"{case} {elapsed:.2f} s" for case, elapsed in times.items())
        click.echo(f"round {number} of {rounds}: {shown}", err=True)
        for case, elapsed in times.items():
            seconds_by_case[case].append(elapsed)
    return dict(seconds_by_case)


def one_round(postgresql: Cluster) -> dict[str, float]:
    """Seconds from the loss of a job, or from the kill if it is later, until its delivery started, by case."""
    with ExitStack() as stack:
        ledger = stack.enter_context(postgresql.ledger("procrastinate"))
        ledger.rows(LOSE_JOBS)
        server = stack.enter_context(ledger.serve())
        first = stack.enter_context(ledger.worker())
        session = until(lambda: ledger.rows(SWEEPING), poll=POLL_INTERVAL)
        second = stack.enter_context(ledger.worker())
        _times(ledger, _store(server))  # opens connections, and prepares statements
        _pause()
        stored, started = _times(ledger, _store_and_lose_job(ledger, server))
        seconds_by_case = {RUNS: started - stored}
        _pause()
        # A worker loses the lock if it gets no processor time for seconds.
        sweeping_worker = first if until(lambda: ledger.rows(SWEEPING), poll=POLL_INTERVAL) == session else second
        event_id = _store_and_lose_job(ledger, server)
        killed = time.time()
        sweeping_worker.kill()
        stored, started = _times(ledger, event_id)
        return seconds_by_case | {KILLED: started - max(stored, killed)}


def _pause() -> None:
    """Wait for a random time, so that losses do not coincide with the intervals of the workers."""
    time.sleep(random.uniform(0, CHECK_INTERVAL))


def _store_and_lose_job(ledger: SharedLedger, server: Server) -> str:
    """Store a callback whose job is lost; return the id of its event."""
    ledger.rows("UPDATE jobs_to_lose SET number = 1")
    event_id = _store(server)
    if ledger.query_value("SELECT number FROM jobs_to_lose"):
        raise LoadError("the server stored no job for a callback")
    return event_id


def _store(server: Server) -> str:
    """Store a callback; return the id of its event."""
    with closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=30)) as connection:
        headers = {"Content-Type": "application/json", "Prefer": LATER}
        connection.request("POST", f"/flow/{secrets.token_hex(6)}/call-back/complete", json.dumps(BODY), headers)
        response = connection.getresponse()
        response.read()
    if response.status != HTTPStatus.ACCEPTED:
        raise LoadError(f"a callback was answered {response.status}")
    return response.headers["Flowhooks-Event"]


def _times(ledger: SharedLedger, event_id: str) -> tuple[float, float]:
    """Wait until a delivery has started; return when it was stored and when its attempt started."""
    ((stored, started),) = until(lambda: ledger.rows(TIMES.format(event_id)), poll=POLL_INTERVAL)
    return float(stored), float(started)


def table(seconds_by_case: Mapping[str, Sequence[float]]) -> list[str]:
    """The figures as a table in Markdown."""
    lines = [
        "| the worker that looks for lost jobs | losses | shortest, s | median, s | longest, s |",
        "|---|---|---|---|---|",
    ]
    for case, times in seconds_by_case.items():
        lines.append(f"| {case} | {len(times)} | {min(times):.2f} | {median(times):.2f} | {max(times):.2f} |")
    return lines


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1), help="Lost jobs in each case.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
def main(rounds: int, output: Path | None) -> None:
    """Measure how soon a delivery starts whose job was lost."""
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder, cluster(Path(folder)) as postgresql:
        lines = table(seconds(postgresql, rounds))
    click.echo("\n".join(lines))
    if output:
        output.write_text(replace_parts(output.read_text(), {"lost-jobs": lines}))


if __name__ == "__main__":
    main()
