"""Processor time of a callback under load, by function, compared with the bare app.

`python tests/benchmarks/profiling.py --output docs/explanation/performance.md` writes its tables into that page. All
figures are processor time divided by the number of answered callbacks, so other load of the machine and the speed of
its disk have little influence.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
import load
import report
import stations
import stopwatch
from bench import CONNECTIONS, LATER, ROUNDS, Bench
from servers import THREADS, Server, bare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WARM_UP = 1.0
PATIENCE = 120.0
"""Seconds in which deliveries of the answered callbacks may finish."""
KINDS = {
    "bare": "the bare app",
    "waits": "flowhooks, deliveries wait",
    "runs": "flowhooks, deliveries run",
    "outcome": "flowhooks, answered with the outcome",
}
LOOP = "the loop that reads requests"
HTTP = "HTTP threads"
OURS = {"Thread": LOOP, "listen": HTTP, "ledger-writer": "the writer", "runner": "the runner's threads"}
"""The names of flowhooks' threads, and their roles."""
THEIRS = {"MainThread": LOOP, "waitress": HTTP}
"""The names of the bare app's threads, and their roles."""
OTHERS = "other threads"
REST = "wake-ups and waits (locks, GIL)"
PART = "(<!-- measured: {name} -->\n).*?(<!-- end -->)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """The resources that a server used for each callback.

    Attributes:
        count: the number of answered callbacks.
        microseconds: processor time, by the system's id of the thread.
        switches: how often a thread stopped to wait.
    """

    count: int
    microseconds: Mapping[int, float]
    switches: float

    @property
    def whole(self) -> float:
        """Microseconds of all threads."""
        return sum(self.microseconds.values())


def _so_far(server: Server) -> tuple[dict[int, float], int]:
    """Microseconds of each thread so far, and the number of waits of all threads."""
    spent, waited = {}, 0
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        try:
            spent[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e3
            waited += int((task / "status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended meanwhile
    return spent, waited


@contextmanager
def _serving(
    bench: Bench, kind: str, connections: int, under: Path | None = None, *, defaults: bool = False
) -> Iterator[tuple[Server, float]]:
    """A server, and the seconds for which it may continue after the load."""
    wrapper = [] if under is None else [sys.executable, stopwatch.__file__, str(under)]
    if kind == "bare":
        with bench.scratch() as folder, bare(folder, wrapper=wrapper) as server:
            yield server, 0.0
        return
    threads = 2 * connections if kind == "outcome" and not defaults else THREADS
    with bench.site() as site:
        with site.serve():  # registers its handler
            pass
        with site.serve(plugin=kind != "waits", threads=max(THREADS, threads), wrapper=wrapper) as server:
            yield server, PATIENCE


def used(bench: Bench, kind: str, connections: int, under: Path | None = None, *, defaults: bool = False) -> Used:
    """Load a server, and measure what it uses.

    Args:
        bench: duration and folder.
        kind: one of `KINDS`.
        connections: the number of concurrent connections.
        under: the stopwatch's output file; default: no stopwatch.
        defaults: whether the server has its default numbers of threads for `outcome`, too.
    """
    bench.show_progress(f"{KINDS[kind]}, {connections} connections")
    prefer = "" if kind == "outcome" else LATER
    with _serving(bench, kind, connections, under, defaults=defaults) as (server, patience):
        count, before = 0, _so_far(server)
        for seconds in (WARM_UP, bench.seconds):
            if under is None and count:
                count, before = 0, _so_far(server)  # the stopwatch runs from the start: so do these
            count += load.run(server.url, connections=connections, seconds=seconds, prefer=prefer).counted
        if patience:
            _rest(server, patience)
        after = _so_far(server)
    spent = {thread: (total - before[0].get(thread, 0.0)) / count for thread, total in after[0].items()}
    return Used(count=count, microseconds=spent, switches=(after[1] - before[1]) / count)


def _rest(server: Server, patience: float) -> None:
    """Wait until a server is almost idle."""
    end = time.monotonic() + patience
    last = sum(_so_far(server)[0].values())
    while time.monotonic() < end:
        time.sleep(0.5)
        now = sum(_so_far(server)[0].values())
        if now - last < 50_000:
            return
        last = now


def whole(bench: Bench) -> list[str]:
    """A table of the total cost of a callback."""
    lines = ["| | connections | µs of processor time | ÷ bare | times a thread waits |", "|---|---|---|---|---|"]
    for connections in CONNECTIONS:
        rounds = [{kind: used(bench, kind, connections) for kind in KINDS} for _ in range(ROUNDS)]
        for kind, name in KINDS.items():
            ratio = median(one[kind].whole / one["bare"].whole for one in rounds)
            cost, waits = median(one[kind].whole for one in rounds), median(one[kind].switches for one in rounds)
            lines.append(f"| {name} | {connections} | {cost:.0f} | {ratio:.1f} | {waits:.1f} |")
    return lines


def parts(bench: Bench, kind: str, connections: int) -> dict[tuple[str, str], float]:
    """Microseconds for each callback, by kind of thread and station, measured by the stopwatch."""
    with bench.scratch() as folder:
        file = folder / "spent.json"
        found = used(bench, kind, connections, file)
        said = json.loads(file.read_text())
    names = THEIRS if kind == "bare" else OURS
    shares: dict[tuple[str, str], float] = defaultdict(float)
    for thread, microseconds in found.microseconds.items():
        name = names.get(said["threads"].get(str(thread), ""), OTHERS)
        spent = said["spent"].get(str(thread), {})
        for station, (seconds, _times) in spent.items():
            shares[name, station if name != OTHERS else REST] += seconds * 1e6 / found.count
        shares[name, REST] += microseconds - sum(seconds for seconds, _ in spent.values()) * 1e6 / found.count
    return shares


def under_load(bench: Bench, connections: int) -> list[str]:
    """A table of the time of each station, compared with the bare app."""
    ours, theirs = parts(bench, "runs", connections), parts(bench, "bare", connections)
    total = sum(ours.values())
    lines = ["| thread | station | flowhooks µs | of all | the bare app µs |", "|---|---|---|---|---|"]
    order = [*OURS.values(), OTHERS]
    for thread in order:
        of = {station for name, station in (*ours, *theirs) if name == thread}
        for station in sorted(of, key=lambda one: (one == REST, -ours.get((thread, one), 0.0))):
            mine, other = ours.get((thread, station), 0.0), theirs.get((thread, station), 0.0)
            if max(mine, other) >= 0.5:
                beside = f"{other:.0f}" if other >= 0.5 else ""
                lines.append(f"| {thread} | {station} | {mine:.0f} | {mine / total:.0%} | {beside} |")
    lines.append(f"| all | | {total:.0f} | 100% | {sum(theirs.values()):.0f} |")
    return lines


def alone(events: int) -> list[str]:
    """A table of each station by itself."""
    figures = [f"| {name} | {figure:.0f} |" for name, figure in stations.measured(events)]
    return ["| station | µs |", "|---|---|", *figures]


def put(page: str, tables: Mapping[str, list[str]]) -> str:
    """A page with its measured parts replaced."""
    for name, lines in tables.items():
        text = "\n".join(lines)
        page = re.sub(
            PART.format(name=name), lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page, flags=re.DOTALL
        )
    return page


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=3, show_default=True, help="For each load.")
@click.option("--events", type=int, default=4_000, show_default=True, help="For each station by itself.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables into this page, too.")
def main(seconds: float, events: int, output: Path | None) -> None:
    """Print the processor time of a callback by station."""
    if not load.found():
        click.echo(load.INSTALL, err=True)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:

        def show_progress(text: str, *_: object) -> None:
            click.echo(text, err=True)

        bench = Bench(seconds=seconds, events=0, folder=Path(folder), show_progress=show_progress)
        tables = {
            "whole": whole(bench),
            **{f"parts-{connections}": under_load(bench, connections) for connections in CONNECTIONS},
            "alone": alone(events),
            "machine": [f"- {name}: {value}" for name, value in report.machine().items()],
        }
    for name, lines in tables.items():
        click.echo("\n".join(("", f"## {name}", "", *lines)))
    if output:
        output.write_text(put(output.read_text(), tables))


if __name__ == "__main__":
    main()
