"""`make bench`: measure each row of the benchmarks in turn and show the result; figures are not asserted."""

from __future__ import annotations

import shlex
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import accepting
import click
import conditions
import contending
import crowded
import dispatching
import growth
import indexing
import ingress
import isolating
import load
import operating
import planning
import plenty
import plots
import promptness
import reconciling
import report
import running
import servers
import sharing
import steadiness
import storing
import trending
import volume
import waiting
from bench import ROUNDS, Bench
from figures import Goal, Result, missing_columns
from plots import Plot
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from storing import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from figures import Figure
    from rich.progress import TaskID

PAGES = Path(__file__).parents[2] / "docs/explanation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: its name, its title with `{events}` in it, its goal, and its function."""

    name: str
    title: str
    goal: Goal
    measure: Callable[[Bench], tuple[list[Figure], list[str]]]


ROWS = (
    Row(
        name="accept-processor",
        title="processor time, durable accept ÷ bare",
        goal=Goal(least=1.3, aim=1.0, smaller=True),
        measure=accepting.accept_processor,
    ),
    Row(
        name="outcome-processor",
        title="processor time, answered with the handler's outcome ÷ bare",
        goal=Goal(least=1.8, aim=1.35, smaller=True),
        measure=accepting.outcome_processor,
    ),
    Row(
        name="accept-processor-busy",
        title="processor time, durable accept ÷ bare, beside a busy process on each core",
        goal=Goal(least=1.3, aim=1.0, smaller=True),
        measure=crowded.accept_processor,
    ),
    Row(
        name="outcome-processor-busy",
        title="processor time, answered with the handler's outcome ÷ bare, beside a busy process on each core",
        goal=Goal(least=1.8, aim=1.35, smaller=True),
        measure=crowded.outcome_processor,
    ),
    Row(
        name="accept",
        title="rate, durable accept ÷ bare",
        goal=Goal(least=0.65, aim=0.85),
        measure=accepting.accept_rate,
    ),
    Row(
        name="outcome",
        title="rate, answered with the handler's outcome ÷ bare",
        goal=Goal(least=0.45, aim=0.65),
        measure=accepting.outcome_rate,
    ),
    Row(
        name="outcome-p99",
        title="p99, answered with the handler's outcome ÷ bare",
        goal=Goal(least=3, aim=2, smaller=True),
        measure=accepting.outcome_p99,
    ),
    Row(
        name="ingress",
        title="processor time, JSON request to a fixed URL with a table of kinds ÷ callback on the contract's path",
        goal=Goal(least=1.3, aim=1.1, smaller=True),
        measure=ingress.ingress_processor,
    ),
    Row(
        name="search-fields",
        title="rate, durable accept with two members of each body indexed ÷ none indexed",
        goal=Goal(least=0.9, aim=1.0),
        measure=indexing.accept_rate,
    ),
    Row(
        name="trends",
        title="processor time of a callback, counted in trends ÷ not counted",
        goal=Goal(least=1.03, aim=1.01, smaller=True),
        measure=trending.trends,
    ),
    Row(
        name="waiting",
        title=f"rate, durable accept while {waiting.MANY} callbacks wait for their outcome ÷ while none waits",
        goal=Goal(least=0.9, aim=1.0),
        measure=waiting.beside,
    ),
    Row(
        name="deliveries",
        title="deliveries run per second ÷ Celery with two processes",
        goal=Goal(least=4, aim=8),
        measure=running.deliveries,
    ),
    Row(
        name="dispatch",
        title="dispatch cost, 10,000 handlers ÷ 1 handler",
        goal=Goal(least=1.2, aim=1.0, smaller=True),
        measure=dispatching.dispatch,
    ),
    Row(
        name="dispatch-conclusions",
        title="routing, 1,000 handlers on one key with a conclusion each ÷ 1 handler",
        goal=Goal(least=1.2, aim=1.0, smaller=True),
        measure=conditions.conclusions,
    ),
    Row(
        # Conditions on the data are evaluated in turn: each should cost no more than a handler alone.
        name="dispatch-conditions",
        title="routing, 1,000 handlers on one key with a condition each ÷ 1 handler",
        goal=Goal(least=1000, aim=500, smaller=True),
        measure=conditions.conditions,
    ),
    Row(
        name="isolation",
        title="time that process isolation adds to a delivery, median",
        goal=Goal(least=1.5, aim=0.5, smaller=True, unit="ms"),
        measure=isolating.isolation,
    ),
    Row(
        name="stored",
        title="accept rate with {events:,} events stored ÷ empty",
        goal=Goal(least=0.9, aim=1.0),
        measure=volume.stored,
    ),
    Row(
        name="memory",
        title="memory after {events:,} callbacks ÷ after 10,000",
        goal=Goal(least=1.2, aim=1.0, smaller=True),
        measure=volume.memory,
    ),
    Row(
        name="start",
        title="start to ready, 1 plugin",
        goal=Goal(least=0.6, aim=0.5, smaller=True, unit="s"),
        measure=running.start,
    ),
    Row(
        name="console-median",
        title="first byte of the console's slowest page, median, {events:,} events stored",
        goal=Goal(least=200, aim=100, smaller=True, unit="ms"),
        measure=operating.first_byte,
    ),
    Row(
        name="console-worst",
        title="first byte of the console, slowest request of any page, {events:,} events stored",
        goal=Goal(least=1000, aim=500, smaller=True, unit="ms"),
        measure=operating.first_byte_worst,
    ),
    Row(
        name="console-accept",
        title="accept rate while the overview is loaded each second ÷ without, {events:,} events stored",
        goal=Goal(least=0.9, aim=1.0),
        measure=operating.reloading,
    ),
    Row(
        name="reconciling",
        title="accepting beside a reconciliation with {events:,} instances ÷ without",
        goal=Goal(least=0.9, aim=1.0),
        measure=reconciling.accepting,
    ),
    Row(
        name="replay",
        title="replay of 10,000 deliveries by one command",
        goal=Goal(least=60, aim=20, smaller=True, unit="s"),
        measure=operating.replaying,
    ),
    Row(
        name="operation-plan",
        title="plan of an operation of 30,000 deliveries",
        goal=Goal(least=2, aim=1, smaller=True, unit="s"),
        measure=planning.planned,
    ),
    Row(
        name="operation-accept",
        title="accept rate while an operation releases deliveries ÷ without",
        goal=Goal(least=0.9, aim=1.0),
        measure=planning.accepting,
    ),
    Row(
        name="operation-pages",
        title="first byte of the console, slowest request of any page while an operation of 30,000 deliveries runs",
        goal=Goal(least=1, aim=0.2, smaller=True, unit="s"),
        measure=planning.looking,
    ),
    Row(
        name="postgresql-accept",
        title="durable accept on PostgreSQL ÷ FastAPI + Celery + Redis",
        goal=Goal(least=2, aim=3),
        measure=sharing.accept,
    ),
    Row(
        name="postgresql-deliveries",
        title="deliveries run per second, two workers on PostgreSQL ÷ two processes of Celery",
        goal=Goal(least=1.8, aim=2.5),
        measure=sharing.deliveries,
    ),
    Row(
        name="postgresql-started",
        title="accepted until a worker has started the delivery, one callback at a time",
        goal=Goal(least=20, aim=10, smaller=True, unit="ms"),
        measure=promptness.started,
    ),
    Row(
        name="postgresql-answered",
        title="end of the handler in a worker until the server has answered, one callback at a time",
        goal=Goal(least=50, aim=20, smaller=True, unit="ms"),
        measure=promptness.answered,
    ),
    Row(
        name="postgresql-stored",
        title="accept and claim on PostgreSQL with {events:,} events stored ÷ empty",
        goal=Goal(least=0.9, aim=1.0),
        measure=plenty.stored,
    ),
    Row(
        name="peers-answered",
        title="callbacks answered per second while handlers run: flowhooks ÷ alternative",
        goal=Goal(least=2.5, aim=5),
        measure=contending.answered,
    ),
    Row(
        name="peers-run",
        title="handlers run per second: flowhooks ÷ alternative",
        goal=Goal(least=1, aim=4),
        measure=contending.ran,
    ),
    Row(
        name="peers-processor",
        title="processor time until a callback is answered and run: flowhooks ÷ alternative",
        goal=Goal(least=0.5, aim=0.25, smaller=True),
        measure=contending.cheapest,
    ),
    Row(
        name="growth-handlers",
        title="processor time by number of handlers ÷ 1 handler",
        goal=Goal(least=1.2, aim=1.0, smaller=True),
        measure=growth.handlers,
    ),
    Row(
        name="growth-events",
        title="processor time by number of stored events ÷ none",
        goal=Goal(least=1.2, aim=1.0, smaller=True),
        measure=growth.events,
    ),
    Row(
        name="growth-connections",
        title="processor time by number of connections ÷ bare",
        goal=Goal(least=1.8, aim=1.35, smaller=True),
        measure=growth.connections,
    ),
    Row(
        name="growth-bodies",
        title="processor time by size of the body ÷ bare",
        goal=Goal(least=1.8, aim=1.35, smaller=True),
        measure=growth.bodies,
    ),
)
GROUPS = {"postgresql": report.PAGE_POSTGRESQL, "peers": report.PAGE_PEERS, "growth": report.PAGE_GROWTH}
"""The page of each group of rows, by the start of their names; `--rows GROUP` measures all rows of a group."""


def _select_rows(_context: click.Context, _option: click.Parameter, text: str) -> tuple[Row, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = {row.name: row for row in ROWS}
    if unknown := [name for name in names if name not in {*known, *GROUPS}]:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(row for row in ROWS if not names or row.name in names or _group(row) in names)


def _group(row: Row | Result) -> str:
    """The group of a row; `""` for none."""
    return next((group for group in GROUPS if row.name.startswith(f"{group}-")), "")


def _measure_row(row: Row, bench: Bench) -> Result:
    result = Result(name=row.name, title=row.title.format(events=bench.events), goal=row.goal)
    started = time.monotonic()
    try:
        figures, notes = row.measure(bench)
    except (load.LoadError, servers.ServerError) as error:
        return replace(result, broke=str(error))
    except Exception as error:  # noqa: BLE001 (the other rows are measured all the same)
        traceback.print_exc()
        return replace(result, broke=f"{type(error).__name__}: {error}")
    columns = ", ".join(missing_columns(row.name, figures))
    return replace(
        result,
        figures=tuple(figures),
        notes=tuple(notes),
        broke=f"not measured: {columns}" if columns else "",
        took=time.monotonic() - started,
    )


def _measure_rows(rows: Sequence[Row], bench: Bench, command: str) -> list[Stored]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    measured = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        overall = progress.add_task("rows", total=len(rows))
        for row in rows:
            step = progress.add_task(row.name, total=None)

            def show_progress(
                text: str, done: int = 0, total: int | None = None, *, row: Row = row, step: TaskID = step
            ) -> None:
                progress.update(step, description=f"{row.name}: {text}", completed=done, total=total)

            machine, busy = report.machine() | {"loop before": steadiness.measure()}, report.too_busy()
            result = _measure_row(row, replace(bench, show_progress=show_progress))
            result = replace(result, busy=busy or report.too_busy())
            plot, plans = bench.cache.pop("plot", None), bench.cache.pop("plans", "")
            assert plot is None or isinstance(plot, Plot)
            machine |= {"busy after": report.busy(), "loop after": steadiness.measure()}
            measured.append(Stored(result=result, command=command, machine=machine, plot=plot, plans=str(plans)))
            progress.remove_task(step)
            progress.advance(overall)
    return measured


def write_pages(folder: Path) -> list[Path]:
    """Write the pages and plots of all stored rows into a folder; return the files."""
    rows = [storing.load(row.name, row.goal) for row in ROWS]
    stored = [stored_row for stored_row in rows if stored_row]
    files = []
    for group, template in {"": report.PAGE, **GROUPS}.items():
        if group_rows := [stored_row for stored_row in stored if _group(stored_row.result) == group]:
            file = folder / (f"benchmarks-{group}.md" if group else "benchmarks.md")
            file.write_text(report.page(group_rows, template=template))
            files.append(file)
    for stored_row in stored:
        if stored_row.plot:
            file = folder / report.picture(stored_row.result.name)
            file.write_text(plots.svg(stored_row.plot))
            files.append(file)
    return files


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=3, show_default=True, help="For each load.")
@click.option("--events", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="For the big rows.")
@click.option(
    "--rows",
    default="",
    callback=_select_rows,
    help=f"Of {','.join(row.name for row in ROWS)}, or {' or '.join(GROUPS)}; default: all.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True, help="Of each pair of loads.")
@click.option("--store", is_flag=True, help="Store the figures, and write the pages of the documentation.")
@click.option("--draw", is_flag=True, help="Measure nothing, and write the pages of the figures that are stored.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def main(
    seconds: float, events: int, rows: tuple[Row, ...], rounds: int, *, store: bool, draw: bool, as_json: bool
) -> None:
    """Measure flowhooks in comparison with a bare Falcon + waitress app, and with alternatives."""
    if draw:
        for file in write_pages(PAGES):
            click.echo(f"written: {file}", err=True)
        return
    if not load.is_installed():
        click.echo(load.INSTALL_HINT, err=True)
        sys.exit(2)
    command = shlex.join(["python", "tests/benchmarks/run.py", *sys.argv[1:]])
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:
        measured = _measure_rows(
            rows, Bench(seconds=seconds, events=events, folder=Path(folder), rounds=rounds), command
        )
    if as_json:
        print(report.as_json(measured))
    else:
        results = [stored_row.result for stored_row in measured]
        console = Console(width=None if sys.stdout.isatty() else 260)  # lines of a file need no wrapping
        console.print(report.table(results))
        for line in (*report.notes(results), *report.runs(measured)):
            console.print(f"- {line}", markup=False, highlight=False)
    if store:
        for stored_row in measured:
            if not stored_row.result.broke:
                storing.store(stored_row)
        for file in write_pages(PAGES):
            click.echo(f"written: {file}", err=True)
    sys.exit(1 if any(stored_row.result.broke for stored_row in measured) else 0)


if __name__ == "__main__":
    main()
