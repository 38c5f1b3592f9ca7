"""`make demo-cluster`: two servers behind one port and three workers on one PostgreSQL, and one worker is killed.

Everything is real, and is removed at the end: the database, the processes, the port. The logs and the output of the
example plugin stay in `demo/cluster/` for inspection.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

import psycopg
from rich.console import Console
from rich.table import Table

from support import demo, postgresql
from support.demo import EXAMPLE, STOP_SECONDS, Process, run, say, shown
from support.traffic import Balancer, CallbackSender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FOLDER = demo.FOLDER / "cluster"
CONFIG = "demo/cluster/flowhooks.toml"
SETTINGS = """\
plugins_allow = ["contracts"]
answer_wait = 2.0

[ledger]
# A worker or a commit may stand still for seconds on a busy machine.
heartbeat_timeout = 8.0
write_timeout = 20.0

[log]
format = "text"

[plugins.contracts]
database = "demo/cluster/contracts.db"
outbox = "demo/cluster/contracts-outbox.txt"
"""
ANNOUNCEMENT = {"businessKey": "1", "processDefinitionKey": "contract_announcement"}
A_SECOND = 25
"""Callbacks per second."""
BEFORE, AFTER = 3.0, 2.0
"""Seconds of callbacks before a worker is killed, and after its deliveries have been taken over."""
PATIENCE = 40.0
"""Timeout of each step in seconds."""


class Ledger:
    """Read-only queries on the ledger while it is in use."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, question: str, *given: object) -> Any:
        """Return one value."""
        return self._connection.execute(question.encode(), given).fetchone()[0]  # type: ignore[index]  # one row

    def running(self, pid: int) -> int:
        """Return how many attempts a process is running."""
        return int(self.ask(f"SELECT count(*) {_BY} WHERE pid = %s AND outcome IS NULL", pid))

    def lost(self, pid: int) -> int:
        """Return how many attempts a killed process was running."""
        return int(self.ask(f"SELECT count(*) {_BY} WHERE pid = %s AND outcome = 'lost'", pid))

    def unfinished(self, pid: int) -> int:
        """Return how many deliveries of these attempts have not succeeded yet."""
        lost = f"SELECT delivery_id {_BY} WHERE pid = %s AND outcome = 'lost'"
        return int(self.ask(f"SELECT count(*) FROM deliveries WHERE state <> 'succeeded' AND id IN ({lost})", pid))

    def taken_over(self, pid: int, heir: int) -> int:
        """Return how many of these deliveries another process has completed."""
        lost = f"SELECT delivery_id {_BY} WHERE pid = %s AND outcome = 'lost'"
        by_heir = f"SELECT count(*) {_BY} WHERE pid = %s AND outcome = 'succeeded'"
        return int(self.ask(f"{by_heir} AND delivery_id IN ({lost})", heir, pid))

    def succeeded(self, pid: int) -> int:
        """Return how many deliveries a process has completed."""
        return int(self.ask(f"SELECT count(*) {_BY} WHERE pid = %s AND outcome = 'succeeded'", pid))

    def is_dead(self, pid: int) -> bool:
        """Return whether a process has expired."""
        return bool(self.ask("SELECT count(*) FROM processes WHERE pid = %s AND stopped_at IS NOT NULL", pid))

    def open(self) -> int:
        """Return how many deliveries have not ended."""
        return int(self.ask("SELECT count(*) FROM deliveries WHERE state <> 'succeeded'"))

    def retried(self) -> int:
        """Return how many deliveries took more than one attempt."""
        return int(self.ask("SELECT count(*) FROM deliveries WHERE attempt > 1"))


_BY = "FROM attempts JOIN processes ON processes.id = attempts.process"


def until(condition: Callable[[], object], what: str) -> float:
    """Wait until a condition is true; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"Timed out after {PATIENCE:.0f} s: {what}. The logs are in demo/cluster/.")
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def archive_held() -> Iterator[None]:
    """Lock the archive of the example plugin, so that attempts which write to it wait."""
    with closing(sqlite3.connect(FOLDER / "contracts.db", timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def ended(processes: Sequence[Process]) -> list[int]:
    """Stop processes one after the other; return their exit codes."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    return [process.wait(STOP_SECONDS) for process in processes]


def kill(process: Process) -> None:
    """Kill a process if it is still running."""
    if process.poll() is None:
        process.kill()
    process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The running processes, and the address for callbacks."""

    environ: dict[str, str]
    ledger: Ledger
    place: tuple[str, int]
    servers: list[Process]
    workers: list[Process]


def assemble(stack: ExitStack) -> Cluster:
    """Start everything; it stops when the stack is closed."""
    say("1. PostgreSQL starts, for this demonstration only, with an empty database")
    server = stack.enter_context(postgresql.server())
    database = f"flowhooks_demo_{time.time_ns()}"
    environ = {"FLOWHOOKS_DATABASE": server.make(database)}
    stack.callback(server.drop, database)
    run("db", "upgrade", "--config", CONFIG, environ=environ)

    def start(name: str, *words: str, sign: str) -> tuple[Process, str]:
        started = demo.start(*words, "--config", CONFIG, log=FOLDER / f"{name}.log", sign=sign, environ=environ)
        stack.callback(kill, started[0])
        return started

    say("2. Two servers behind one port take callbacks, and three workers run the plugin's handlers")
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    servers = [start(f"server-{one}", "serve", "--no-worker", *ports, sign="call_backs=") for one in (1, 2)]
    shown(f"$ flowhooks serve --no-worker --config {CONFIG}")
    for number, (process, url) in enumerate(servers, 1):
        shown(f"  server {number}: process {process.pid}, {url}")
    places = [urlsplit(url) for _, url in servers]
    balancer = Balancer([(str(one.hostname), int(one.port or 0)) for one in places])
    stack.callback(balancer.close)
    shown("  one port before both: http://{}:{}".format(*balancer.place))
    workers = [start(f"worker-{one}", "worker", sign="threads=")[0] for one in (1, 2, 3)]
    shown(f"$ flowhooks worker --config {CONFIG}")
    for number, process in enumerate(workers, 1):
        shown(f"  worker {number}: process {process.pid}")
    ledger = Ledger(environ["FLOWHOOKS_DATABASE"])
    stack.callback(ledger.close)
    return Cluster(
        environ=environ,
        ledger=ledger,
        place=balancer.place,
        servers=[process for process, _ in servers],
        workers=workers,
    )


def lose_a_worker(cluster: Cluster) -> None:
    """Kill a worker while it runs deliveries, and wait until other workers have completed them."""
    ledger, victim = cluster.ledger, cluster.workers[1]
    say("4. Another program locks the archive, so handlers wait for it; then a worker is killed (kill -9)")
    with archive_held():
        # Attempts that had left the archive before also count until they are recorded: there are fewer of them.
        until(lambda: ledger.running(victim.pid) > 3, "worker 2 runs deliveries")
        shown(f"worker 2 is running {ledger.running(victim.pid)} deliveries")
        kill(victim)
        shown(f"$ kill -9 {victim.pid}")
    seconds = until(lambda: ledger.is_dead(victim.pid), "the others notice that worker 2 has expired")
    until(lambda: ledger.lost(victim.pid) > 0, "what it ran is recorded as lost")
    lost = ledger.lost(victim.pid)
    shown(f"worker 2 has expired after {seconds:.1f} s (ledger.heartbeat_timeout = 8)")
    shown(f"its {lost} running attempts are lost; their handler declares `retry=`, so they are retried")

    say("5. The other workers retry its deliveries; callbacks continue all the time")
    until(lambda: not ledger.unfinished(victim.pid), "the others run what worker 2 ran")
    for number in (1, 3):
        shown(f"worker {number} has run {ledger.taken_over(victim.pid, cluster.workers[number - 1].pid)} of them")


def account(cluster: Cluster, flow: CallbackSender) -> bool:
    """Print the final counts; return whether nothing is missing."""
    say("7. The counts balance, and the plugin's own archive has each contract once")
    verified = run("verify", "--config", CONFIG, environ=cluster.environ)
    received = cluster.ledger.ask("SELECT count(*) FROM events")
    with closing(sqlite3.connect(FOLDER / "contracts.db")) as archive:
        (contracts,) = archive.execute("SELECT count(*) FROM contracts").fetchone()
    announced = len((FOLDER / "contracts-outbox.txt").read_text().splitlines())
    workers = {f"deliveries run by worker {number}": one for number, one in enumerate(cluster.workers, 1)}
    table = Table("what", "how many")
    for what, count in {
        "callbacks sent": flow.sent,
        "received and stored": received,
        "answered 200, handlers succeeded": flow.answered[200],
        "answered 202, stored, not finished yet": flow.answered[202],
        **{what: cluster.ledger.succeeded(worker.pid) for what, worker in workers.items()},
        "deliveries tried again": cluster.ledger.retried(),
        "contracts archived": contracts,
        "contracts announced": announced,
    }.items():
        table.add_row(what, f"{count:>8,}")
    Console().print(table)
    return verified == 0 and contracts + announced == received == flow.sent == flow.answered[200] + flow.answered[202]


def show(stack: ExitStack) -> bool:
    """Run all steps; return whether each had the expected result."""
    cluster = assemble(stack)
    say(f"3. A workflow engine calls back, {A_SECOND} times a second; each answer has the outcome of a worker's run")
    flow = CallbackSender(cluster.place, bodies=[ANNOUNCEMENT, EXAMPLE, EXAMPLE, EXAMPLE], a_second=A_SECOND)
    stack.callback(flow.stop)
    flow.start()
    time.sleep(BEFORE)
    shown(f"{flow.sent} callbacks sent, {flow.answered[200]} answered with status 200: their handlers have succeeded")
    lose_a_worker(cluster)
    time.sleep(AFTER)
    say("6. The engine has finished; all deliveries end, and all processes stop in order")
    flow.stop()
    until(lambda: cluster.ledger.open() == 0, "every delivery has succeeded")
    codes = ended([cluster.workers[0], cluster.workers[2], *cluster.servers])
    shown(f"exit codes {codes}")
    return account(cluster, flow) and codes == [0, 0, 0, 0]


def main() -> None:
    """Run all steps, and exit with 0 only if each had the expected result."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "flowhooks.toml").write_text(SETTINGS)
    try:
        with ExitStack() as stack:
            good = show(stack)
    except KeyboardInterrupt:
        say("Stopped. Nothing is left running.")
        sys.exit(130)
    if not good:
        sys.exit("A step above did not have the expected result.")
    say("Everything worked: the other workers ran the deliveries of the killed worker, and none is missing.")


if __name__ == "__main__":
    main()
