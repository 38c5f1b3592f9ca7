"""Whether the processors of this machine share cores: how much longer the same work takes while the others are busy.

`python tests/benchmarks/sharing_cores.py` prints it for each processor. A virtual machine does not say what its
processors share. If two of them are threads of one core, the same work costs more processor time while the other one is
busy. Then the processor time of a callback has two levels, which depend on what else runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import click
import crowded

STEPS = 400_000
"""Steps of the measured loop: about 20 ms."""


def _work() -> float:
    """The processor time of the same work, in seconds."""
    began, total = time.thread_time(), 0
    for number in range(STEPS):
        total += number & 7
    return time.thread_time() - began


def slower(core: int, others: list[int], rounds: int) -> tuple[float, float, float]:
    """Return the lowest, the median and the highest ratio of the processor time beside busy processors ÷ alone."""
    os.sched_setaffinity(0, {core})
    ratios = []
    for _ in range(rounds):
        alone = median(_work() for _ in range(5))
        loops = [subprocess.Popen([sys.executable, "-c", crowded.ENDLESS, str(other)]) for other in others]
        try:
            time.sleep(0.2)
            beside = median(_work() for _ in range(5))
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        ratios.append(beside / alone)
    return min(ratios), median(ratios), max(ratios)


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True, help="Of each processor.")
def main(rounds: int) -> None:
    """Print, for each processor, the processor time of the same work while all others are busy ÷ while they are not."""
    cores = sorted(os.sched_getaffinity(0))
    click.echo("| processor | median | lowest | highest |\n|---|---|---|---|")
    for core in cores:
        lowest, middle, highest = slower(core, [other for other in cores if other != core], rounds)
        click.echo(f"| {core} | {middle:.2f} | {lowest:.2f} | {highest:.2f} |")


if __name__ == "__main__":
    main()
