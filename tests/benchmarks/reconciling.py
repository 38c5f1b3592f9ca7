"""The row about accepting callbacks while a server reconciles with a long history."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import load
from bench import LATER, cost
from cluster import cluster
from figures import Figure
from servers import THREADS, Server, ServerError, run_server

from support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench import Bench
    from figures import Cost

CONNECTIONS = 8
PAIRS = 5
"""How often both are measured in turn; before each pair but the first, an equal part of the history is read."""
WARM_UP = 1.0
PAGE_TIMEOUT = 60.0
"""Seconds in which the server must request the next page."""
ACCEPTING_THREADS = ("listen-", "ledger-writer")
"""The prefixes of the names of threads that accept callbacks."""
RECONCILING_THREADS = ("reconcile-", "engine-")
"""The prefixes of the names of threads that run a round of the reconciliation."""
TICK = 1 / os.sysconf("SC_CLK_TCK")
TESTS = Path(__file__).parents[1]
PLUGIN = '''"""An engine with a long history, which waits while the file `paused` exists."""

import json, sys, threading, time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append({tests!r})
from support.large_engine import LargeEngine
from flowhooks import handler, hookimpl

FOLDER = Path({folder!r})

class Engine(LargeEngine):
    def finished(self, since, until, cursor=None):
        while (FOLDER / "paused").exists():
            time.sleep(0.01)
        page = super().finished(since, until, cursor)
        threads = {{thread.native_id: thread.name for thread in threading.enumerate()}}
        (FOLDER / "new").write_text(json.dumps([int(cursor or 0), threads]))
        (FOLDER / "new").replace(FOLDER / "last-page")
        return page

# All instances end within a second, after the first contact and before the second round.
ENGINE = Engine({count}, datetime.now(UTC) + timedelta(seconds=8), step=timedelta(microseconds=1))

@handler(callback_class="com.cnooc.test.CallbackHandler")
def nothing(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [nothing]

@hookimpl
def engine_clients():
    return {{"large": ENGINE.client}}
'''
CONFIG = """
plugins_allow = ["bench"]
[sources.oa.engine]
client = "large"
url = "http://large.invalid"
page_size = 1000
timeout = 300
reconcile_every = 10
grace = "24h"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedLoad:
    """One load, and the reconciliation during it.

    Attributes:
        load: the result of wrk.
        processor: microseconds of processor time of the accepting threads for each callback.
        round: seconds of processor time of the threads that run the round.
        instances: the number of instances of the history that were read during the load.
    """

    load: load.Load
    processor: float
    round: float
    instances: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The engine in the plugin of a server.

    Attributes:
        folder: the folder of the server.
        count: the number of instances in its history.
    """

    folder: Path
    count: int

    def pause(self) -> None:
        """Delay the responses to all requests for pages until `resume`."""
        (self.folder / "paused").touch()

    def resume(self) -> None:
        """Answer requests for pages again."""
        (self.folder / "paused").unlink(missing_ok=True)

    def last_page(self) -> tuple[int, dict[str, str]]:
        """The position of the last page in the history, and the names of the server's threads by their ids."""
        file = self.folder / "last-page"
        position, threads = json.loads(file.read_text()) if file.exists() else (0, {})
        return position, threads

    def read_until(self, position: int) -> None:
        """Wait until the history is read up to a position.

        Raises:
            ServerError: no page was requested for `PAGE_TIMEOUT`.
        """
        last_position, changed_at = -1, time.monotonic()
        while (position_now := self.last_page()[0]) < position:
            if position_now != last_position:
                last_position, changed_at = position_now, time.monotonic()
            if time.monotonic() - changed_at > PAGE_TIMEOUT:
                raise ServerError(f"the history is read up to instance {position_now:,} only")
            time.sleep(0.05)


def accepting(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate and processor time of accepting while a long history is read ÷ while the engine does not answer."""
    figures, notes = [], []
    with bench.scratch() as folder:
        pairs = _measure_pairs(bench, folder, f"sqlite:///{folder}/flowhooks.db", "SQLite")
        _report("SQLite", pairs, figures, notes)
    with bench.scratch() as folder, cluster(folder) as postgresql, postgresql.ledger("embedded") as ledger:
        pairs = _measure_pairs(bench, ledger.folder, ledger.url, "PostgreSQL")
        _report("PostgreSQL", pairs, figures, notes)
    return figures, notes


def _report(
    database: str, pairs: list[tuple[AcceptedLoad, AcceptedLoad]], figures: list[Figure], notes: list[str]
) -> None:
    alone, beside = zip(*pairs, strict=True)
    costs = {"ours": _cost(beside), "theirs": _cost(alone)}
    figures.append(
        Figure(
            case=f"{database}, rate",
            measured=f"{median(each.load.rate for each in beside):,.0f}/s beside a reconciliation",
            yardstick=f"{median(each.load.rate for each in alone):,.0f}/s without",
            judged=median(beside_load.load.rate / alone_load.load.rate for alone_load, beside_load in pairs),
            **costs,
        )
    )
    figures.append(
        Figure(
            case=f"{database}, 1 ÷ processor time of the accepting threads",
            measured=f"{median(each.processor for each in beside):,.0f} µs for each callback",
            yardstick=f"{median(each.processor for each in alone):,.0f} µs without",
            judged=median(alone_load.processor / beside_load.processor for alone_load, beside_load in pairs),
            **costs,
        )
    )
    read = median(each.instances / each.load.seconds for each in beside)
    p99 = [median(each.load.p99 for each in loads) for loads in (alone, beside)]
    ratios = ", ".join(f"{beside_load.load.rate / alone_load.load.rate:.2f}" for alone_load, beside_load in pairs)
    of_round = sum(each.round for each in beside)
    share = of_round / (of_round + sum(each.processor * each.load.counted for each in beside) / 1e6)
    notes.append(
        f"{database}: {read:,.0f} instances/s are read meanwhile, with {share:.1%} of the processor time; "
        f"p99 {p99[0]:.1f} ms without, {p99[1]:.1f} ms beside; "
        f"the ratios of the rates are {ratios}"
    )


def _cost(measured: Sequence[AcceptedLoad]) -> Cost:
    """The cost of accepting, without the processor time of the threads that run the round."""
    return cost([replace(each.load, processor=each.processor) for each in measured])


def _measure_pairs(bench: Bench, folder: Path, url: str, database: str) -> list[tuple[AcceptedLoad, AcceptedLoad]]:
    """Measure pairs of loads: without a reconciliation, and during one."""
    engine = Engine(folder=folder, count=bench.events)
    pairs = []
    with _serve(engine, url) as server:
        for number in range(PAIRS):
            bench.show_progress(f"{database}: reading the history up to the pair", number, PAIRS)
            engine.resume()
            engine.read_until(max(1, engine.count * number // PAIRS))
            engine.pause()
            load.run(server.url, connections=CONNECTIONS, seconds=WARM_UP, prefer=LATER)
            alone = _measure_load(bench, engine, server)
            engine.resume()
            load.run(server.url, connections=CONNECTIONS, seconds=WARM_UP, prefer=LATER)
            beside = _measure_load(bench, engine, server)
            if alone.instances:
                raise ServerError(f"{alone.instances} instances were read although the engine did not answer")
            pairs.append((alone, beside))
    if not any(beside.instances for _, beside in pairs):
        raise ServerError("no instances were read beside a load: give more --seconds")
    return pairs


def _measure_load(bench: Bench, engine: Engine, server: Server) -> AcceptedLoad:
    position_before, threads = engine.last_page()
    spent_before = [_processor_time(server, threads, names) for names in (ACCEPTING_THREADS, RECONCILING_THREADS)]
    measured = load.run(server.url, connections=CONNECTIONS, seconds=bench.seconds, prefer=LATER)
    spent, of_round = (
        _processor_time(server, threads, names) - before
        for names, before in zip((ACCEPTING_THREADS, RECONCILING_THREADS), spent_before, strict=True)
    )
    return AcceptedLoad(
        load=measured,
        processor=spent / measured.counted * 1e6,
        round=of_round,
        instances=engine.last_page()[0] - position_before,
    )


def _processor_time(server: Server, threads: dict[str, str], names: tuple[str, ...]) -> float:
    """The seconds of processor time of the threads whose names begin with one of `names`."""
    spent = 0
    for thread, name in threads.items():
        if name.startswith(names):
            fields = Path(f"/proc/{server.pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
    return spent * TICK


@contextmanager
def _serve(engine: Engine, url: str) -> Iterator[Server]:
    """Run a server whose plugin has the engine."""
    folder = engine.folder
    (folder / "plugins").mkdir(exist_ok=True)
    (folder / "plugins" / "bench.py").write_text(
        PLUGIN.format(tests=str(TESTS), folder=str(folder), count=engine.count)
    )
    (folder / "flowhooks.toml").write_text(CONFIG)
    listen, admin = free_ports(2)
    command = [
        *(str(Path(sys.executable).with_name("flowhooks")), "serve"),
        *("--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}"),
        *("--database", url, "--plugins-dir", str(folder / "plugins"), "--config", str(folder / "flowhooks.toml")),
    ]
    environ = {"FLOWHOOKS_HTTP_THREADS": str(THREADS), "FLOWHOOKS_RUNNER_THREADS": str(THREADS)}
    with run_server(command, folder=folder, port=listen, ready=(admin, "/readyz"), environ=environ) as server:
        yield server
