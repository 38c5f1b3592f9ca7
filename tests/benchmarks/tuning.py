"""The effect of other numbers of threads, other batches and another switch interval.

`python tests/benchmarks/tuning.py --output docs/explanation/performance.md` writes its table into that page. Each
variant is loaded in turn with the defaults: the ratio of their rates counts.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click
import load
import tuned
from bench import CONNECTIONS, LATER, Bench
from profiling import replace_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

WARM_UP = 1.0
SWITCH = "flowhooks.cli.process.serving:SWITCH_INTERVAL"
BATCH = "flowhooks.ledger.group_commit:MAX_BATCH_SIZE"
LINGER = "flowhooks.ledger.group_commit:BATCH_DELAY_TRIES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A change of the defaults.

    Attributes:
        name: the name in the table.
        constants: changed constants of flowhooks, in the form of `tuned`.
        settings: settings by the names of their environment variables.
    """

    name: str
    constants: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


DEFAULTS = Variant(name="the defaults")
VARIANTS = (
    Variant(name="the defaults again: measurement noise"),
    Variant(name="switch interval 0.05 ms instead of 0.2", constants=f"{SWITCH}=0.00005"),
    Variant(name="switch interval 1 ms", constants=f"{SWITCH}=0.001"),
    Variant(name="switch interval 5 ms, Python's own", constants=f"{SWITCH}=0.005"),
    Variant(name="4 HTTP threads instead of 16", settings={"FLOWHOOKS_HTTP_THREADS": "4"}),
    Variant(name="8 HTTP threads", settings={"FLOWHOOKS_HTTP_THREADS": "8"}),
    Variant(name="64 HTTP threads", settings={"FLOWHOOKS_HTTP_THREADS": "64"}),
    Variant(name="4 threads of the runner instead of 32", settings={"FLOWHOOKS_RUNNER_THREADS": "4"}),
    Variant(name="64 threads of the runner", settings={"FLOWHOOKS_RUNNER_THREADS": "64"}),
    Variant(name="batches of 8 at most instead of 256", constants=f"{BATCH}=8"),
    Variant(name="batches of 32 at most", constants=f"{BATCH}=32"),
    Variant(name="batches that do not wait, instead of at most 1.5 ms", constants=f"{LINGER}=0"),
    Variant(name="batches that wait at most 5 ms", constants=f"{LINGER}=10"),
    Variant(name="threads on both cores", settings={"FLOWHOOKS_CPU_AFFINITY": "false"}),
)


def rate(bench: Bench, variant: Variant, connections: int) -> float:
    """Callbacks answered per second, while an empty handler runs for each."""
    wrapper = [sys.executable, tuned.__file__, variant.constants or ","]
    with bench.site() as site, site.serve(wrapper=wrapper, settings=variant.settings) as server:
        load.run(server.url, connections=connections, seconds=WARM_UP, prefer=LATER)
        return load.run(server.url, connections=connections, seconds=bench.seconds, prefer=LATER).rate


def table(bench: Bench, rounds: int) -> list[str]:
    """A table of the effect of each variant."""
    lines = [
        "| change | " + " | ".join(f"{connections} connections, ÷ the defaults" for connections in CONNECTIONS) + " |",
        "|---|" + "---|" * len(CONNECTIONS),
    ]
    for number, variant in enumerate(VARIANTS):
        cells = []
        for connections in CONNECTIONS:
            bench.show_progress(f"{number + 1} of {len(VARIANTS)}: {variant.name}, {connections} connections")
            pairs = [
                [rate(bench, measured_variant, connections) for measured_variant in (DEFAULTS, variant)]
                for _ in range(rounds)
            ]
            ratios = sorted(variant_rate / default_rate for default_rate, variant_rate in pairs)
            cells.append(f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    return lines


@click.command()
@click.option("--seconds", type=click.FloatRange(min=1), default=2, show_default=True, help="For each load.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Pairs for each variant.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
def main(seconds: float, rounds: int, output: Path | None) -> None:
    """Print the effect of each variant."""
    if not load.is_installed():
        click.echo(load.INSTALL_HINT, err=True)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:

        def show_progress(text: str, *_: object) -> None:
            click.echo(text, err=True)

        lines = table(Bench(seconds=seconds, events=0, folder=Path(folder), show_progress=show_progress), rounds)
    click.echo("\n".join(lines))
    if output:
        output.write_text(replace_parts(output.read_text(), {"tuning": lines}))


if __name__ == "__main__":
    main()
