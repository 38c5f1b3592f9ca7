"""Count how often a thread wakes another thread for a callback that is answered with the outcome.

`python tests/benchmarks/handovers.py --output docs/explanation/performance.md` writes its table into that page. The
counts are of `wakeups.py`. The waits are of the system's account of the same load without counting: each time that a
thread of the server stopped, also to wait for the interpreter lock.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import click
import load
import wakeups
from bench import CONNECTIONS, Bench
from profiling import HTTP, LOOP, OTHERS, OURS, THEIRS, measure_usage, replace_parts
from servers import bare

COUNTS = (1, *CONNECTIONS)
"""The numbers of connections: a single callback at a time, and those of the benchmarks' rows."""
MIN_FIGURE = 0.005
"""Smaller figures are left out, because background work of a second causes them."""


def count_wake_ups(bench: Bench, kind: str, connections: int) -> dict[tuple[str, str], float]:
    """Count how often each kind of thread wakes each other kind, for each callback."""
    bench.show_progress(f"counting: {kind}, {connections} connections")
    with bench.scratch() as folder:
        file = folder / "wakeups.json"
        wrapper = [sys.executable, wakeups.__file__, str(file)]
        if kind == "bare":
            with bare(folder, wrapper=wrapper) as server:
                answered = load.run(server.url, connections=connections, seconds=bench.seconds).counted
        else:
            with bench.site() as site:
                with site.serve():  # registers its handler
                    pass
                with site.serve(wrapper=wrapper) as server:
                    answered = load.run(server.url, connections=connections, seconds=bench.seconds).counted
        wake_ups = json.loads(file.read_text())
    names = (THEIRS if kind == "bare" else OURS) | {wakeups.CLIENT: wakeups.CLIENT}
    totals: Counter[tuple[str, str]] = Counter()
    for waker, woken, times in wake_ups:
        totals[names.get(waker, OTHERS), names.get(woken, OTHERS)] += times
    return {pair: times / answered for pair, times in totals.items()}


def table(bench: Bench) -> list[str]:
    """A table of the wake-ups for each callback, with one column for each number of connections."""
    columns = {
        (kind, connections): count_wake_ups(bench, kind, connections)
        for kind in ("outcome", "bare")
        for connections in COUNTS
    }
    waits = {
        (kind, connections): measure_usage(bench, kind, connections, defaults=True).switches
        for kind in ("outcome", "bare")
        for connections in COUNTS
    }
    headings = [f"flowhooks, {n}" for n in COUNTS] + [f"the bare app, {n}" for n in COUNTS]
    lines = ["| wakes | is woken | " + " | ".join(headings) + " |", "|---|---|" + "---|" * len(headings)]
    order = [wakeups.CLIENT, LOOP, HTTP, *list(OURS.values())[2:], OTHERS]
    for waker in order:
        for woken in order:
            figures = [counts.get((waker, woken), 0.0) for counts in columns.values()]
            if max(figures) >= MIN_FIGURE and OTHERS not in {waker, woken}:
                cells = " | ".join(f"{figure:.2f}" if figure >= MIN_FIGURE else "" for figure in figures)
                lines.append(f"| {waker} | {woken} | {cells} |")
    sums = [
        sum(
            times
            for (waker, woken), times in counts.items()
            if OTHERS not in {waker, woken} and waker != wakeups.CLIENT
        )
        for counts in columns.values()
    ]
    lines.append(f"| all threads | | {' | '.join(f'{figure:.2f}' for figure in sums)} |")
    lines.append(f"| waits by the system's account | | {' | '.join(f'{figure:.1f}' for figure in waits.values())} |")
    return lines


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=3, show_default=True, help="For each load.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
def main(seconds: float, output: Path | None) -> None:
    """Print how often threads wake each other for a callback."""
    if not load.is_installed():
        click.echo(load.INSTALL_HINT, err=True)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:

        def show_progress(text: str, *_: object) -> None:
            click.echo(text, err=True)

        lines = table(Bench(seconds=seconds, events=0, folder=Path(folder), show_progress=show_progress))
    click.echo("\n".join(lines))
    if output:
        output.write_text(replace_parts(output.read_text(), {"handovers": lines}))


if __name__ == "__main__":
    main()
