"""How steady the processors of this machine are: the processor time of the same work, measured repeatedly.

`python tests/benchmarks/steadiness.py` prints it. A virtual machine shares cores and caches with other guests of its
host. Then the same work costs more processor time for seconds or minutes, and figures of different minutes have several
levels. Each row of the benchmarks is printed with this figure from before and after it.
"""

from __future__ import annotations

import os
import time
from statistics import quantiles

import click

STEPS = 100_000
"""Steps of the measured loop: some milliseconds."""
SAMPLES = 100
"""How often the loop is measured before and after a row: for less than a second."""


def _work() -> float:
    """The processor time of the same work, in milliseconds."""
    began, total = time.thread_time(), 0
    for number in range(STEPS):
        total += number & 7
    return (time.thread_time() - began) * 1000


def measure(samples: int = SAMPLES) -> str:
    """The median, the tenth and the ninth tenth of the processor time of the same work, as text."""
    tenths = quantiles([_work() for _ in range(samples)], n=10)
    return f"{tenths[4]:.1f} ms ({tenths[0]:.1f} to {tenths[8]:.1f})"


@click.command()
@click.option("--samples", type=click.IntRange(min=10), default=5_000, show_default=True, help="Of each processor.")
def main(samples: int) -> None:
    """Print, for each processor, the median processor time of the same work, and the range without the extremes."""
    for core in sorted(os.sched_getaffinity(0)):
        os.sched_setaffinity(0, {core})
        click.echo(f"processor {core}: {measure(samples)}")


if __name__ == "__main__":
    main()
