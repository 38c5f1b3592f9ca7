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
TO_THE_HANDLER = ("--class", "com.cnooc.test.CallbackHandler")
ISOLATED = {"FLOWHOOKS_RUNNER_ISOLATION": "process"}


def of_command(*words: str, folder: Path) -> float:
    """Milliseconds of a command that ends by itself."""
    process = subprocess.Popen([COMMAND, *words], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"flowhooks {' '.join(words)} failed with {process.returncode}")
    return (used.ru_utime + used.ru_stime) * 1000


def of_process(pid: int) -> float:
    """Milliseconds of a running process until now, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def of_commands(folder: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds of commands that end by themselves, without a server and beside one."""
    site = Site(folder=folder)
    config = ("--config", str(folder / "flowhooks.toml"))

    def measure(*words: str) -> list[float]:
        return [of_command(*words, folder=folder) for _ in range(runs)]

    with site.serve() as server:
        found = {
            "`flowhooks --version`": measure("--version"),
            "`flowhooks --help`": measure("--help"),
            "`flowhooks send`": measure("send", "4711", *TO_THE_HANDLER, "--to", server.url),
            "`flowhooks events list`, beside a server": measure("events", "list", *config),
        }
    return found | {
        "`flowhooks events list`, without a server": measure("events", "list", *config),
        "`flowhooks check`": measure("check", *config, "--plugins-dir", str(site.plugins())),
    }


def of_servers(folder: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds of `flowhooks serve` on SQLite until it is ready, and of its handler processes."""
    site = Site(folder=folder)
    servers, fork_servers, handlers = [], [], []
    for number in range(runs):
        with site.serve() as server:
            servers.append(of_process(server.pid))
        with site.serve(settings=ISOLATED) as server:
            of_command("send", str(number), *TO_THE_HANDLER, "--to", server.url, "--wait", "30", folder=folder)
            (fork_server,) = children(server.pid)
            fork_servers.append(of_process(fork_server))
            handlers.append(max(map(of_process, children(fork_server))))  # the others are spare processes
    return {
        "`flowhooks serve`, until it is ready": servers,
        "fork server, after one callback": fork_servers,
        "handler process, after one callback": handlers,
    }


def of_workers(folder: Path, runs: int) -> dict[str, list[float]]:
    """Milliseconds of `flowhooks worker` until it is ready, on PostgreSQL."""
    used = []
    with cluster(folder) as postgresql, postgresql.ledger("embedded") as shared:
        for _ in range(runs):
            with shared.worker() as worker:
                used.append(of_process(worker.pid))
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
    for part in (of_commands, of_servers, of_workers):
        with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:
            figures |= part(Path(folder), runs + 1)
    click.echo("\n".join(table(figures)))
    if output:
        output.write_text(replace_parts(output.read_text(), {"starting": table(figures)}))


if __name__ == "__main__":
    main()
