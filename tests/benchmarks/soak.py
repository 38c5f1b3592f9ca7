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
from servers import Server, ServerError, Site, running

from support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SAMPLES: Final = 200
"""The number of samples, evenly over the callbacks: twenty for each tenth."""
WARM: Final = 50_000
"""The number of callbacks after which all caches are full."""
OPERATES: Final = 20
"""How often operators replay dead deliveries and purge old finished events."""
OLD: Final = 5.0
"""The age in seconds of old events."""
MAX_WAL_MEBIBYTES: Final = 64.0
"""MiB of the write-ahead log, above which flowhooks itself warns."""
MAX_HANDLES: Final = 8
"""Permitted file handles above the early tenth: readers of the ledger are opened on demand and kept."""
MAX_THREADS: Final = 4
SETTLES_WITHIN: Final = 600.0
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
    """The median of each figure in one tenth of the callbacks, from 0 to 9; without a sample in it, the nearest one."""
    within = [sample for sample in samples if number * calls <= 10 * sample.done <= (number + 1) * calls]
    within = within or [min(samples, key=lambda sample: abs(10 * sample.done - (number + 0.5) * calls))]
    return lambda name: median(getattr(sample, name) for sample in within)


def early_tenth(calls: int) -> int:
    """The tenth of `calls` callbacks, from 0, with which the last tenth is compared."""
    return min(5, max(1, -(-10 * WARM // calls)))


def judged(samples: Sequence[Sample], calls: int, growth: float) -> list[Figure]:
    """The result of the samples: the last tenth compared with the first tenth after all caches were full."""
    beginning, last = tenth(samples, calls, early_tenth(calls)), tenth(samples, calls, 9)

    def figure(what: str, name: str, allowed: str, most: Callable[[float], float]) -> Figure:
        early, late, ever = beginning(name), last(name), max(getattr(one, name) for one in samples)
        holds = (ever if allowed.startswith("never") else late) <= most(early)
        return Figure(what=what, early=early, late=late, most=ever, allowed=allowed, holds=holds)

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
        self._place = server.admin.removeprefix("http://")
        self._token = token
        self._due = threading.Semaphore(0)
        self._over = False
        self.purged = 0
        self.replayed = 0
        self.problems: list[str] = []

    def wake(self) -> None:
        """Wake the thread."""
        self._due.release()

    def finish(self) -> None:
        """Finish the running work."""
        self._over = True
        self._due.release()
        self.join()

    def run(self) -> None:
        """Replay and purge each time the thread is woken."""
        since = 0
        try:
            while self._due.acquire() and not self._over:
                now = int(time.time() * 1e6)
                self.replayed += self._replay({"state": "dead", "since": since})
                since = now
                until = int((time.time() - OLD) * 1e6)
                for state in (None, "dead", "parked"):
                    wanted = {"until": until} | ({"state": state} if state else {})
                    self.purged += sum(one["purged"] for one in self._all("purge", wanted))
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a problem of this run)
            self.problems.append(f"an operator has given up: {error!r}")

    def _replay(self, wanted: dict[str, object]) -> int:
        """Start a bulk operation; return the number of its deliveries."""
        planned = self._operate("plan_operation", {"action": "replay", "event_filter": wanted})
        self._operate("start_operation", {"operation_id": planned["id"]})
        return int(planned["planned"])

    def _all(self, name: str, wanted: dict[str, object]) -> Iterator[dict[str, Any]]:
        after = ""
        while True:
            done = self._operate(name, {"event_filter": wanted, "after": after})
            yield done
            after = done["next"]
            if not after or self._over:
                return

    def _operate(self, name: str, arguments: dict[str, object]) -> dict[str, Any]:
        """Request an operation, again if its commit took too long; return the answer."""
        for tried in range(MAX_TRIES):
            status, said = self._ask(name, arguments)
            if status == http.HTTPStatus.OK:
                return json.loads(said)
            if status == http.HTTPStatus.CONFLICT and tried:
                return {}  # the earlier request has done it
            if status != http.HTTPStatus.SERVICE_UNAVAILABLE:
                break
        raise RuntimeError(f"{name} was answered {status}: {said[:300]!r}")

    def _ask(self, name: str, arguments: dict[str, object]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._place, timeout=120)
        try:
            headers = {"Authorization": f"Bearer {self._token}"}
            connection.request("POST", f"/api/operations/{name}", json.dumps(arguments), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """The result of a run; `problem` is empty if all checks passed, `samples` has every sample."""

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
    """Run a server with the handlers of the mixture; yield it and the address of its callback listener."""
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
    with running(command, folder=site.folder, port=listen, ready=(admin, "/readyz"), environ=environ) as server:
        yield server, ("127.0.0.1", listen)


def soak(folder: Path, *, calls: int, clients: int, growth: float, progress: Progress) -> Soaked:
    """Run the soak test."""
    site = Site(folder=folder)
    with serving(site) as (server, place):
        token = json.loads(site.database.with_name("flowhooks.db.lock").read_text())["token"]
        operators = Operators(server, token)
        callers = Callers(place, several=clients, calls=calls, name="soak")
        began = time.monotonic()
        operators.start()
        callers.start()
        samples = _watched(server, site, callers, operators, calls=calls, progress=progress)
        seconds = time.monotonic() - began
        operators.finish()
        left = unsettled(site, seconds=SETTLES_WITHIN)
    told = callers.told
    verified = subprocess.run(
        [FLOWHOOKS, "verify", "--json", "--database", str(site.database)], capture_output=True, text=True, check=False
    )
    books = json.loads(verified.stdout or "{}")
    figures = judged(samples, calls, growth)
    problems = [*told.problems, *operators.problems, *left]
    problems += [f"{one.what}: {one.allowed} does not hold" for one in figures if not one.holds]
    if verified.returncode:
        problems.append(f"the counts do not balance: {books.get('problems') or verified.stderr}")
    if books.get("accepted") != told.stored:
        problems.append(f"callers got {told.stored} events, and {books.get('accepted')} were accepted")
    answers = {f"{kind}: {status}": count for (kind, status), count in sorted(told.answers.items())}
    return Soaked(
        calls=told.done,
        seconds=seconds,
        answers=answers,
        again=dict(told.again),
        purged=operators.purged,
        replayed=operators.replayed,
        books={name: books.get(name) for name in ("accepted", "stored", "purged", "deliveries", "attempts")},
        figures=figures,
        samples=samples,
        problems=problems,
    )


def unsettled(site: Site, *, seconds: float) -> list[str]:
    """Wait until all deliveries have run; return the reason if they do not."""
    if held := site.ask("SELECT count(*) FROM handlers WHERE circuit_opened_at IS NOT NULL"):
        return [f"the circuits of {held} handlers are open, and their deliveries have piled up"]
    try:
        site.settle(seconds=seconds)
    except ServerError as error:
        return [str(error)]
    return []


def _watched(
    server: Server, site: Site, callers: Callers, operators: Operators, *, calls: int, progress: Progress
) -> list[Sample]:
    """Sample the server until all callbacks are sent, wake the operators periodically, and report each tenth."""
    bar = progress.add_task("call-backs", total=calls)
    samples: list[Sample] = []
    operated = told = 0
    began = time.monotonic()

    def look(done: int) -> None:
        nonlocal told
        samples.append(sample(server.pid, site.database, done))
        progress.update(bar, completed=done, description=f"callbacks, {samples[-1].memory:.0f} MiB")
        while done * 10 >= calls * (told + 1):
            progress.console.print(_line(samples, calls, told, time.monotonic() - began))
            told += 1

    while callers.busy:
        time.sleep(0.02)
        done = callers.told.done
        if done * SAMPLES >= calls * len(samples):
            look(done)
        if done * OPERATES >= calls * (operated + 1):
            operated += 1
            operators.wake()
    look(callers.told.done)
    return samples


def _line(samples: Sequence[Sample], calls: int, number: int, seconds: float) -> str:
    of = tenth(samples, calls, number)
    return (
        f"{number * 10 + 10:3} % after {seconds:,.0f} s: {of('memory'):.1f} MiB, {of('handles'):.0f} file handles,"
        f" {of('threads'):.0f} threads, log of {of('wal'):.0f} MiB"
    )


def shown(soaked: Soaked, console: Console) -> None:
    """Print the result."""
    table = Table("watched", f"tenth no. {early_tenth(soaked.calls) + 1}", "last tenth", "most", "allowed", "")
    for one in soaked.figures:
        table.add_row(
            one.what,
            f"{one.early:,.1f}",
            f"{one.late:,.1f}",
            f"{one.most:,.1f}",
            one.allowed,
            "holds" if one.holds else "does not hold",
        )
    console.print(f"{soaked.calls:,} callbacks in {soaked.seconds:,.0f} s, {soaked.calls / soaked.seconds:,.0f}/s")
    console.print(", ".join(f"{name}: {count:,} times" for name, count in soaked.answers.items()))
    console.print(f"sent again: {soaked.again or 'none'}; purged: {soaked.purged:,}; replayed: {soaked.replayed:,}")
    console.print(f"books: {soaked.books}")
    console.print(table)
    for line in soaked.problems:
        console.print(f"[red]{line}")
    console.print("[red]not as it should be" if soaked.problems else "[green]as it should be")


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
        soaked = soak(Path(folder), calls=call_backs, clients=clients, growth=growth, progress=progress)
    shown(soaked, console)
    if file is not None:
        file.write_text(json.dumps(asdict(soaked), indent=2, ensure_ascii=False) + "\n")
    sys.exit(1 if soaked.problems else 0)


if __name__ == "__main__":
    main()
