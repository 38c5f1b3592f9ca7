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
IDLE_TIMEOUT = 120.0
"""Seconds in which the server must have become idle after the load."""
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
class ResourceUsage:
    """The resources that a server used for each callback.

    Attributes:
        count: the number of answered callbacks.
        microseconds: microseconds of processor time, by the system's id of the thread.
        switches: the number of times that a thread stopped to wait.
    """

    count: int
    microseconds: Mapping[int, float]
    switches: float

    @property
    def total(self) -> float:
        """Microseconds of all threads."""
        return sum(self.microseconds.values())


def _read_usage(server: Server) -> tuple[dict[int, float], int]:
    """Microseconds of processor time of each thread so far, and the number of waits of all threads."""
    spent, waited = {}, 0
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        try:
            spent[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e3
            waited += int((task / "status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has ended meanwhile
    return spent, waited


@contextmanager
def _serve(
    bench: Bench, kind: str, connections: int, stopwatch_file: Path | None = None, *, defaults: bool = False
) -> Iterator[tuple[Server, float]]:
    """Run a server; yield it and the seconds in which it must become idle after the load, 0 if none are needed."""
    wrapper = [] if stopwatch_file is None else [sys.executable, stopwatch.__file__, str(stopwatch_file)]
    if kind == "bare":
        with bench.scratch() as folder, bare(folder, wrapper=wrapper) as server:
            yield server, 0.0
        return
    threads = 2 * connections if kind == "outcome" and not defaults else THREADS
    with bench.site() as site:
        with site.serve():  # registers its handler
            pass
        with site.serve(plugin=kind != "waits", threads=max(THREADS, threads), wrapper=wrapper) as server:
            yield server, IDLE_TIMEOUT


def measure_usage(
    bench: Bench, kind: str, connections: int, stopwatch_file: Path | None = None, *, defaults: bool = False
) -> ResourceUsage:
    """Load a server and measure the resources that it uses.

    Args:
        bench: duration and folder.
        kind: one of `KINDS`.
        connections: the number of concurrent connections.
        stopwatch_file: the output file of the stopwatch; default: no stopwatch.
        defaults: whether the server has its default number of threads also for `outcome`.
    """
    bench.show_progress(f"{KINDS[kind]}, {connections} connections")
    prefer = "" if kind == "outcome" else LATER
    with _serve(bench, kind, connections, stopwatch_file, defaults=defaults) as (server, idle_timeout):
        count, before = 0, _read_usage(server)
        for seconds in (WARM_UP, bench.seconds):
            if stopwatch_file is None and count:
                count, before = 0, _read_usage(server)  # with a stopwatch, the warm-up counts too
            count += load.run(server.url, connections=connections, seconds=seconds, prefer=prefer).counted
        if idle_timeout:
            _wait_until_idle(server, idle_timeout)
        after = _read_usage(server)
    spent = {thread: (total - before[0].get(thread, 0.0)) / count for thread, total in after[0].items()}
    return ResourceUsage(count=count, microseconds=spent, switches=(after[1] - before[1]) / count)


def _wait_until_idle(server: Server, idle_timeout: float) -> None:
    """Wait until a server is almost idle."""
    end = time.monotonic() + idle_timeout
    last = sum(_read_usage(server)[0].values())
    while time.monotonic() < end:
        time.sleep(0.5)
        now = sum(_read_usage(server)[0].values())
        if now - last < 50_000:
            return
        last = now


def total_table(bench: Bench) -> list[str]:
    """A table of the total cost of a callback."""
    lines = ["| | connections | µs of processor time | ÷ bare | times a thread waits |", "|---|---|---|---|---|"]
    for connections in CONNECTIONS:
        rounds = [{kind: measure_usage(bench, kind, connections) for kind in KINDS} for _ in range(ROUNDS)]
        for kind, name in KINDS.items():
            ratio = median(usages[kind].total / usages["bare"].total for usages in rounds)
            cost = median(usages[kind].total for usages in rounds)
            waits = median(usages[kind].switches for usages in rounds)
            lines.append(f"| {name} | {connections} | {cost:.0f} | {ratio:.1f} | {waits:.1f} |")
    return lines


def station_times(bench: Bench, kind: str, connections: int) -> dict[tuple[str, str], float]:
    """Microseconds for each callback, by kind of thread and station, measured by the stopwatch."""
    with bench.scratch() as folder:
        file = folder / "spent.json"
        usage = measure_usage(bench, kind, connections, file)
        measurements = json.loads(file.read_text())
    names = THEIRS if kind == "bare" else OURS
    shares: dict[tuple[str, str], float] = defaultdict(float)
    for thread, microseconds in usage.microseconds.items():
        name = names.get(measurements["threads"].get(str(thread), ""), OTHERS)
        spent = measurements["spent"].get(str(thread), {})
        for station, (seconds, _times) in spent.items():
            shares[name, station if name != OTHERS else REST] += seconds * 1e6 / usage.count
        shares[name, REST] += microseconds - sum(seconds for seconds, _ in spent.values()) * 1e6 / usage.count
    return shares


def station_table(bench: Bench, connections: int) -> list[str]:
    """A table of the time of each station, compared with the bare app."""
    ours, theirs = station_times(bench, "runs", connections), station_times(bench, "bare", connections)
    total = sum(ours.values())
    lines = ["| thread | station | flowhooks µs | of all | the bare app µs |", "|---|---|---|---|---|"]
    order = [*OURS.values(), OTHERS]
    for thread in order:
        stations_of_thread = {station for name, station in (*ours, *theirs) if name == thread}
        for station in sorted(stations_of_thread, key=lambda key: (key == REST, -ours.get((thread, key), 0.0))):
            our_time, their_time = ours.get((thread, station), 0.0), theirs.get((thread, station), 0.0)
            if max(our_time, their_time) >= 0.5:
                their_text = f"{their_time:.0f}" if their_time >= 0.5 else ""
                lines.append(f"| {thread} | {station} | {our_time:.0f} | {our_time / total:.0%} | {their_text} |")
    lines.append(f"| all | | {total:.0f} | 100% | {sum(theirs.values()):.0f} |")
    return lines


def isolated_table(events: int) -> list[str]:
    """A table of each station, measured alone."""
    figures = [f"| {name} | {figure:.0f} |" for name, figure in stations.measure_stations(events)]
    return ["| station | µs |", "|---|---|", *figures]


def replace_parts(page: str, tables: Mapping[str, list[str]]) -> str:
    """Return a page with its measured parts replaced by `tables`, which have the names of the parts."""
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
    if not load.is_installed():
        click.echo(load.INSTALL_HINT, err=True)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:

        def show_progress(text: str, *_: object) -> None:
            click.echo(text, err=True)

        bench = Bench(seconds=seconds, events=0, folder=Path(folder), show_progress=show_progress)
        tables = {
            "whole": total_table(bench),
            **{f"parts-{connections}": station_table(bench, connections) for connections in CONNECTIONS},
            "alone": isolated_table(events),
            "machine": [f"- {name}: {value}" for name, value in report.machine().items()],
        }
    for name, lines in tables.items():
        click.echo("\n".join(("", f"## {name}", "", *lines)))
    if output:
        output.write_text(replace_parts(output.read_text(), tables))


if __name__ == "__main__":
    main()
