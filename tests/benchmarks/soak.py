"""`make soak`: many callbacks on one server; memory and file handles must stay constant and the counts balance.

A real server and clients that send all kinds of callbacks, while operators purge and replay. Exit codes: 0 all checks
passed, 1 a check failed, 2 wrong usage.

Bounded memory no longer grows once all caches are full. These are SQLite's page caches (8 MiB of the writer, 2 MiB of
each reader), its readers, the threads, and the memory of a page of events. Filling most of that took some 50,000
callbacks. So the last tenth of the callbacks is compared with the second tenth. In a shorter run it is compared with
the first tenth that begins after 50,000 callbacks, the sixth at the latest. A million callbacks show a leak of 15
bytes for each callback; 100,000 show a leak of 250 bytes, and fewer callbacks only larger leaks.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import click
from mixture import CONFIG, KINDS, MAX_TRIES, PLUGIN, Callers
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from servers import Server, ServerError, Site, run_server

from support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SAMPLES: Final = 200
"""The number of samples, evenly over the callbacks: twenty for each tenth."""
WARM_UP_CALLBACKS: Final = 50_000
"""The number of callbacks after which all caches are full."""
OPERATOR_RUNS: Final = 20
"""How often operators replay dead deliveries and purge old finished events."""
PURGE_AGE: Final = 5.0
"""Events older than this many seconds are purged."""
MAX_WAL_MEBIBYTES: Final = 64.0
"""MiB of the write-ahead log, above which flowhooks itself warns."""
MAX_HANDLES: Final = 8
"""Permitted file handles above the early tenth: readers of the ledger are opened on demand and kept."""
MAX_THREADS: Final = 4
SETTLE_TIMEOUT: Final = 600.0
"""Seconds in which all deliveries must have run after the last callback."""
FLOWHOOKS: Final = str(Path(sys.executable).with_name("flowhooks"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A measurement of the server's process.

    Attributes:
        done: the number of answered callbacks.
        memory: resident MiB.
        handles: open files and sockets.
        threads: of the process.
        wal: MiB of the write-ahead log.
    """

    done: int
    memory: float
    handles: int
    threads: int
    wal: float


def sample(pid: int, database: Path, done: int) -> Sample:
    """Measure a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    wal = database.with_name(database.name + "-wal")
    return Sample(
        done=done,
        memory=int(status["VmRSS"].split()[0]) / 1024,
        handles=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
        wal=wal.stat().st_size / 2**20 if wal.exists() else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity.

    Attributes:
        what: its name.
        early: its median in an early tenth of the callbacks.
        late: its median in the last tenth.
        most: its maximum.
        allowed: the condition as text.
        holds: whether the condition holds.
    """

    what: str
    early: float
    late: float
    most: float
    allowed: str
    holds: bool


def tenth(samples: Sequence[Sample], calls: int, number: int) -> Callable[[str], float]:
    """The median of each figure in one tenth of the callbacks, from 0 to 9; without samples, the nearest sample."""
    selected = [sample for sample in samples if number * calls <= 10 * sample.done <= (number + 1) * calls]
    selected = selected or [min(samples, key=lambda sample: abs(10 * sample.done - (number + 0.5) * calls))]
    return lambda name: median(getattr(sample, name) for sample in selected)


def early_tenth(calls: int) -> int:
    """The tenth of `calls` callbacks, from 0, with which the last tenth is compared."""
    return min(5, max(1, -(-10 * WARM_UP_CALLBACKS // calls)))


def evaluate(samples: Sequence[Sample], calls: int, growth: float) -> list[Figure]:
    """Compare the last tenth of the samples with the first tenth after all caches were full."""
    early_median, late_median = tenth(samples, calls, early_tenth(calls)), tenth(samples, calls, 9)

    def figure(what: str, name: str, allowed: str, limit: Callable[[float], float]) -> Figure:
        early, late, maximum = early_median(name), late_median(name), max(getattr(sample, name) for sample in samples)
        holds = (maximum if allowed.startswith("never") else late) <= limit(early)
        return Figure(what=what, early=early, late=late, most=maximum, allowed=allowed, holds=holds)

    return [
        figure("memory, MiB", "memory", f"last ÷ early tenth ≤ {growth:g}", lambda early: early * growth),
        figure("file handles", "handles", f"at most {MAX_HANDLES} more", lambda early: early + MAX_HANDLES),
        figure("threads", "threads", f"at most {MAX_THREADS} more", lambda early: early + MAX_THREADS),
        figure("write-ahead log, MiB", "wal", f"never above {MAX_WAL_MEBIBYTES:g}", lambda _early: MAX_WAL_MEBIBYTES),
    ]


class Operators(threading.Thread):
    """A thread that replays new dead deliveries and purges old events each time it is woken.

    Deliveries that die again are purged the next time: so the amount of work stays constant, and any growth is a fault.
    """

    def __init__(self, server: Server, token: str) -> None:
        super().__init__(daemon=True)
        self._address = server.admin.removeprefix("http://")
        self._token = token
        self._wake_ups = threading.Semaphore(0)
        self._stopping = False
        self.purged = 0
        self.replayed = 0
        self.problems: list[str] = []

    def wake(self) -> None:
        """Wake the thread."""
        self._wake_ups.release()

    def finish(self) -> None:
        """Wait until the running work is finished, then stop the thread."""
        self._stopping = True
        self._wake_ups.release()
        self.join()

    def run(self) -> None:
        """Replay and purge each time the thread is woken."""
        since = 0
        try:
            while self._wake_ups.acquire() and not self._stopping:
                now = int(time.time() * 1e6)
                self.replayed += self._replay({"state": "dead", "since": since})
                since = now
                until = int((time.time() - PURGE_AGE) * 1e6)
                for state in (None, "dead", "parked"):
                    event_filter = {"until": until} | ({"state": state} if state else {})
                    self.purged += sum(page["purged"] for page in self._pages("purge", event_filter))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a problem of this run)
            self.problems.append(f"an operator has given up: {error!r}")

    def _replay(self, event_filter: dict[str, object]) -> int:
        """Start a bulk operation; return the number of its deliveries."""
        planned = self._run_operation("plan_operation", {"action": "replay", "event_filter": event_filter})
        self._run_operation("start_operation", {"operation_id": planned["id"]})
        return int(planned["planned"])

    def _pages(self, name: str, event_filter: dict[str, object]) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            page = self._run_operation(name, {"event_filter": event_filter, "after": after})
            yield page
            after = page["next"]
            if not after or self._stopping:
                return

    def _run_operation(self, name: str, arguments: dict[str, object]) -> dict[str, Any]:
        """Request an operation, and repeat the request if its commit took too long; return the response."""
        for attempt in range(MAX_TRIES):
            status, body = self._post(name, arguments)
            if status == http.HTTPStatus.OK:
                return json.loads(body)
            if status == http.HTTPStatus.CONFLICT and attempt:
                return {}  # the earlier request has done it
            if status != http.HTTPStatus.SERVICE_UNAVAILABLE:
                break
        raise RuntimeError(f"{name} was answered {status}: {body[:300]!r}")

    def _post(self, name: str, arguments: dict[str, object]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=120)
        try:
            headers = {"Authorization": f"Bearer {self._token}"}
            connection.request("POST", f"/api/operations/{name}", json.dumps(arguments), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResult:
    """The result of a run; `problems` is empty if all checks passed, `samples` has every sample."""

    calls: int
    seconds: float
    answers: dict[str, int]
    again: dict[str, int]
    purged: int
    replayed: int
    books: dict[str, object]
    figures: list[Figure]
    samples: list[Sample]
    problems: list[str]


@contextmanager
def serving(site: Site) -> Iterator[tuple[Server, tuple[str, int]]]:
    """Run a server with the handlers of `mixture`; yield the server and the address of its callback listener."""
    plugins = site.folder / "plugins"
    plugins.mkdir()
    (plugins / "mixture.py").write_text(PLUGIN)
    config = site.folder / "flowhooks.toml"
    config.write_text(CONFIG)
    listen, admin = free_ports(2)
    command = [
        *(FLOWHOOKS, "serve", "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}"),
        *("--database", str(site.database), "--plugins-dir", str(plugins), "--config", str(config)),
    ]
    environ = {"FLOWHOOKS_ANSWER_WAIT": "0.5", "FLOWHOOKS_LOG_LEVEL": "error"}
    with run_server(command, folder=site.folder, port=listen, ready=(admin, "/readyz"), environ=environ) as server:
        yield server, ("127.0.0.1", listen)


def soak(folder: Path, *, calls: int, clients: int, growth: float, progress: Progress) -> SoakResult:
    """Run the soak test."""
    site = Site(folder=folder)
    with serving(site) as (server, address):
        token = json.loads(site.database.with_name("flowhooks.db.lock").read_text())["token"]
        operators = Operators(server, token)
        callers = Callers(address, clients=clients, calls=calls, name="soak")
        began = time.monotonic()
        operators.start()
        callers.start()
        samples = _sample_until_done(server, site, callers, operators, calls=calls, progress=progress)
        seconds = time.monotonic() - began
        operators.finish()
        backlog = unsettled(site, seconds=SETTLE_TIMEOUT)
    results = callers.results
    verified = subprocess.run(
        [FLOWHOOKS, "verify", "--json", "--database", str(site.database)], capture_output=True, text=True, check=False
    )
    report = json.loads(verified.stdout or "{}")
    figures = evaluate(samples, calls, growth)
    problems = [*results.problems, *operators.problems, *backlog]
    problems += [f"{figure.what}: {figure.allowed} does not hold" for figure in figures if not figure.holds]
    if verified.returncode:
        problems.append(f"the counts do not balance: {report.get('problems') or verified.stderr}")
    if report.get("accepted") != results.stored:
        problems.append(f"callers got {results.stored} events, and {report.get('accepted')} were accepted")
    answers = {f"{kind}: {status}": count for (kind, status), count in sorted(results.responses.items())}
    return SoakResult(
        calls=results.done,
        seconds=seconds,
        answers=answers,
        again=dict(results.retries),
        purged=operators.purged,
        replayed=operators.replayed,
        books={name: report.get(name) for name in ("accepted", "stored", "purged", "deliveries", "attempts")},
        figures=figures,
        samples=samples,
        problems=problems,
    )


def unsettled(site: Site, *, seconds: float) -> list[str]:
    """Wait until all deliveries have run; return the problem if they have not after `seconds`."""
    if open_circuits := site.query_value("SELECT count(*) FROM handlers WHERE circuit_opened_at IS NOT NULL"):
        return [f"the circuits of {open_circuits} handlers are open, and their deliveries have piled up"]
    try:
        site.settle(seconds=seconds)
    except ServerError as error:
        return [str(error)]
    return []


def _sample_until_done(
    server: Server, site: Site, callers: Callers, operators: Operators, *, calls: int, progress: Progress
) -> list[Sample]:
    """Sample the server until all callbacks are sent, wake the operators periodically, and report each tenth."""
    bar = progress.add_task("call-backs", total=calls)
    samples: list[Sample] = []
    operator_runs = reported = 0
    began = time.monotonic()

    def take_sample(done: int) -> None:
        nonlocal reported
        samples.append(sample(server.pid, site.database, done))
        progress.update(bar, completed=done, description=f"callbacks, {samples[-1].memory:.0f} MiB")
        while done * 10 >= calls * (reported + 1):
            progress.console.print(_tenth_text(samples, calls, reported, time.monotonic() - began))
            reported += 1

    while callers.busy:
        time.sleep(0.02)
        done = callers.results.done
        if done * SAMPLES >= calls * len(samples):
            take_sample(done)
        if done * OPERATOR_RUNS >= calls * (operator_runs + 1):
            operator_runs += 1
            operators.wake()
    take_sample(callers.results.done)
    return samples


def _tenth_text(samples: Sequence[Sample], calls: int, number: int, seconds: float) -> str:
    value = tenth(samples, calls, number)
    return (
        f"{number * 10 + 10:3} % after {seconds:,.0f} s: {value('memory'):.1f} MiB, {value('handles'):.0f} file"
        f" handles, {value('threads'):.0f} threads, log of {value('wal'):.0f} MiB"
    )


def print_result(result: SoakResult, console: Console) -> None:
    """Print the result."""
    table = Table("watched", f"tenth no. {early_tenth(result.calls) + 1}", "last tenth", "most", "allowed", "")
    for figure in result.figures:
        table.add_row(
            figure.what,
            f"{figure.early:,.1f}",
            f"{figure.late:,.1f}",
            f"{figure.most:,.1f}",
            figure.allowed,
            "holds" if figure.holds else "does not hold",
        )
    console.print(f"{result.calls:,} callbacks in {result.seconds:,.0f} s, {result.calls / result.seconds:,.0f}/s")
    console.print(", ".join(f"{name}: {count:,} times" for name, count in result.answers.items()))
    console.print(f"sent again: {result.again or 'none'}; purged: {result.purged:,}; replayed: {result.replayed:,}")
    console.print(f"books: {result.books}")
    console.print(table)
    for line in result.problems:
        console.print(f"[red]{line}")
    console.print("[red]not as it should be" if result.problems else "[green]as it should be")


@click.command(help=__doc__)
@click.option(
    "--call-backs", default=1_000_000, show_default=True, type=click.IntRange(min=len(KINDS)), help="How many."
)
@click.option("--clients", default=16, show_default=True, type=click.IntRange(min=1), help="At the same time.")
@click.option("--growth", default=1.1, show_default=True, help="Memory in the last ÷ in an early tenth, at most.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there, too.")
def main(call_backs: int, clients: int, growth: float, file: Path | None) -> None:
    """Run the soak test, print the result and return the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory(prefix="flowhooks-soak-") as folder,
        Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress,
    ):
        result = soak(Path(folder), calls=call_backs, clients=clients, growth=growth, progress=progress)
    print_result(result, console)
    if file is not None:
        file.write_text(json.dumps(asdict(result), indent=2, ensure_ascii=False) + "\n")
    sys.exit(1 if result.problems else 0)


if __name__ == "__main__":
    main()
