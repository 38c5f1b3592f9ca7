"""Processor time of each kind of process at its start.

`python tests/benchmarks/starting.py --output docs/explanation/performance.md` writes its table into that page. The
figures are user and system time of one process, the median of several runs: other load has little influence. The runs
compile the modules of flowhooks if necessary, and the first run of each process is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
from cluster import cluster
from profiling import replace_parts
from servers import Site

COMMAND = str(Path(sys.executable).with_name("flowhooks"))
HANDLER_CLASS_OPTION = ("--class", "com.cnooc.test.CallbackHandler")
ISOLATED = {"FLOWHOOKS_RUNNER_ISOLATION": "process"}


def time_of_command(*arguments: str, folder: Path) -> float:
    """The milliseconds of processor time of a command that ends by itself."""
    process = subprocess.Popen([COMMAND, *arguments], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"flowhooks {' '.join(arguments)} failed with {process.returncode}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def time_of_process(pid: int) -> float:
    """The milliseconds of processor time of a running process so far, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def times_of_commands(folder: Path, runs: int) -> dict[str, list[float]]:
    """The milliseconds of commands that end by themselves, without and with a running server."""
    site = Site(folder=folder)
    config = ("--config", str(folder / "flowhooks.toml"))

    def measure(*arguments: str) -> list[float]:
        return [time_of_command(*arguments, folder=folder) for _ in range(runs)]

    with site.serve() as server:
        milliseconds = {
            "`flowhooks --version`": measure("--version"),
            "`flowhooks --help`": measure("--help"),
            "`flowhooks send`": measure("send", "4711", *HANDLER_CLASS_OPTION, "--to", server.url),
            "`flowhooks events list`, beside a server": measure("events", "list", *config),
        }
    return milliseconds | {
        "`flowhooks events list`, without a server": measure("events", "list", *config),
        "`flowhooks check`": measure("check", *config, "--plugins-dir", str(site.plugins())),
    }


def times_of_servers(folder: Path, runs: int) -> dict[str, list[float]]:
    """The milliseconds of `flowhooks serve` on SQLite until it is ready, and of its handler processes."""
    site = Site(folder=folder)
    servers, fork_servers, handlers = [], [], []
    for number in range(runs):
        with site.serve() as server:
            servers.append(time_of_process(server.pid))
        with site.serve(settings=ISOLATED) as server:
            time_of_command(
                "send", str(number), *HANDLER_CLASS_OPTION, "--to", server.url, "--wait", "30", folder=folder
            )
            (fork_server,) = children(server.pid)
            fork_servers.append(time_of_process(fork_server))
            handlers.append(max(map(time_of_process, children(fork_server))))  # the others are spare processes
    return {
        "`flowhooks serve`, until it is ready": servers,
        "fork server, after one callback": fork_servers,
        "handler process, after one callback": handlers,
    }


def times_of_workers(folder: Path, runs: int) -> dict[str, list[float]]:
    """The milliseconds of `flowhooks worker` on PostgreSQL until it is ready."""
    used = []
    with cluster(folder) as postgresql, postgresql.ledger("embedded") as shared:
        for _ in range(runs):
            with shared.worker() as worker:
                used.append(time_of_process(worker.pid))
    return {"`flowhooks worker`, until it is ready": used}


def table(figures: dict[str, list[float]]) -> list[str]:
    """The figures as a table in Markdown."""
    rows = [f"| {name} | {median(milliseconds[1:]):.0f} |" for name, milliseconds in figures.items()]
    return ["| process | ms of processor time |", "|---|---|", *rows]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", default=10, show_default=True, type=click.IntRange(1), help="Counted runs of each process.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
def main(runs: int, output: Path | None) -> None:
    """Measure the processor time that each kind of process needs at its start."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise each process would compile flowhooks
    figures: dict[str, list[float]] = {}
    for measure in (times_of_commands, times_of_servers, times_of_workers):
        with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:
            figures |= measure(Path(folder), runs + 1)
    click.echo("\n".join(table(figures)))
    if output:
        output.write_text(replace_parts(output.read_text(), {"starting": table(figures)}))


if __name__ == "__main__":
    main()
