"""How long new connections wait while a server on SQLite is replaced.

`python tests/benchmarks/replacing.py --output docs/explanation/performance.md` writes its table into that page. The
figures are of `flowhooks restart`, which prints for how long no process accepted connections. Meanwhile clients send 50
callbacks a second, each at its time, whether or not earlier ones were answered. The figures depend on the load of the
machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import click
from profiling import put
from servers import Site

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

from support.steady_clients import Clients

COMMAND = str(Path(sys.executable).with_name("flowhooks"))
BODY = {"businessKey": "HT-1", "callBackProcessClass": "com.cnooc.test.CallbackHandler"}


def waits(folder: Path, runs: int) -> list[float]:
    """Seconds for which connections waited in each replacement."""
    site, seconds = Site(folder=folder), []
    command = [COMMAND, "restart", "--json", "--database", str(site.database)]
    with site.serve() as server:
        place = urlsplit(server.url)
        with Clients((place.hostname, place.port), BODY) as clients:
            clients.until_more()
            for _ in range(runs):
                done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise click.ClickException(done.stderr)
                seconds.append(json.loads(done.stdout)["waited_seconds"])
                clients.until_more()
    if clients.failures or clients.statuses.keys() - {200, 202}:
        raise click.ClickException(f"{clients.failures[:3]} {clients.statuses}")
    return seconds


def table(seconds: list[float]) -> list[str]:
    """The figures as a table in Markdown."""
    cells = f"| {len(seconds)} | {median(seconds):.2f} | {max(seconds):.2f} |"
    return ["| replacements | median, s | longest, s |", "|---|---|---|", cells]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", default=20, show_default=True, type=click.IntRange(1), help="Replacements.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table into this page, too.")
def main(runs: int, output: Path | None) -> None:
    """Measure for how long connections wait while a server is replaced."""
    with tempfile.TemporaryDirectory(prefix="flowhooks-bench-") as folder:
        lines = table(waits(Path(folder), runs))
    click.echo("\n".join(lines))
    if output:
        output.write_text(put(output.read_text(), {"replacing": lines}))


if __name__ == "__main__":
    main()
