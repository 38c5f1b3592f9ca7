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
from support.demo import EXAMPLE, STOP_TIMEOUT, Process, print_output, print_title, run
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
RATE = 25
"""Callbacks per second."""
BEFORE, AFTER = 3.0, 2.0
"""Seconds of callbacks before a worker is killed, and after its deliveries have been taken over."""
STEP_TIMEOUT = 40.0
"""Timeout of each step in seconds."""


class Ledger:
    """Read-only queries on the ledger while it is in use."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def query(self, statement: str, *values: object) -> Any:
        """Return one value."""
        return self._connection.execute(statement.encode(), values).fetchone()[0]  # type: ignore[index]  # one row

    def running(self, pid: int) -> int:
        """Return how many attempts a process is running."""
        return int(self.query(f"SELECT count(*) {_ATTEMPTS_BY_PROCESS} WHERE pid = %s AND outcome IS NULL", pid))

    def lost(self, pid: int) -> int:
        """Return how many attempts a killed process was running."""
        return int(self.query(f"SELECT count(*) {_ATTEMPTS_BY_PROCESS} WHERE pid = %s AND outcome = 'lost'", pid))

    def unfinished(self, pid: int) -> int:
        """Return how many deliveries of these attempts have not succeeded yet."""
        lost = f"SELECT delivery_id {_ATTEMPTS_BY_PROCESS} WHERE pid = %s AND outcome = 'lost'"
        return int(self.query(f"SELECT count(*) FROM deliveries WHERE state <> 'succeeded' AND id IN ({lost})", pid))

    def taken_over(self, pid: int, successor: int) -> int:
        """Return how many of these deliveries another process has completed."""
        lost = f"SELECT delivery_id {_ATTEMPTS_BY_PROCESS} WHERE pid = %s AND outcome = 'lost'"
        by_successor = f"SELECT count(*) {_ATTEMPTS_BY_PROCESS} WHERE pid = %s AND outcome = 'succeeded'"
        return int(self.query(f"{by_successor} AND delivery_id IN ({lost})", successor, pid))

    def succeeded(self, pid: int) -> int:
        """Return how many deliveries a process has completed."""
        return int(self.query(f"SELECT count(*) {_ATTEMPTS_BY_PROCESS} WHERE pid = %s AND outcome = 'succeeded'", pid))

    def is_dead(self, pid: int) -> bool:
        """Return whether a process has expired."""
        return bool(self.query("SELECT count(*) FROM processes WHERE pid = %s AND stopped_at IS NOT NULL", pid))

    def open(self) -> int:
        """Return how many deliveries have not ended."""
        return int(self.query("SELECT count(*) FROM deliveries WHERE state <> 'succeeded'"))

    def retried(self) -> int:
        """Return how many deliveries took more than one attempt."""
        return int(self.query("SELECT count(*) FROM deliveries WHERE attempt > 1"))


_ATTEMPTS_BY_PROCESS = "FROM attempts JOIN processes ON processes.id = attempts.process"


def until(condition: Callable[[], object], step: str) -> float:
    """Wait until a condition is true; return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > STEP_TIMEOUT:
            sys.exit(f"Timed out after {STEP_TIMEOUT:.0f} s: {step}. The logs are in demo/cluster/.")
        time.sleep(0.05)
    return time.monotonic() - began


@contextmanager
def archive_locked() -> Iterator[None]:
    """Lock the archive of the example plugin, so that attempts which write to it wait."""
    with closing(sqlite3.connect(FOLDER / "contracts.db", timeout=10, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


def stop_all(processes: Sequence[Process]) -> list[int]:
    """Stop processes one after the other; return their exit codes."""
    for process in processes:
        process.send_signal(signal.SIGTERM)
    return [process.wait(STOP_TIMEOUT) for process in processes]


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
    address: tuple[str, int]
    servers: list[Process]
    workers: list[Process]


def start_cluster(stack: ExitStack) -> Cluster:
    """Start everything; it stops when the stack is closed."""
    print_title("1. PostgreSQL starts, for this demonstration only, with an empty database")
    server = stack.enter_context(postgresql.server())
    database = f"flowhooks_demo_{time.time_ns()}"
    environ = {"FLOWHOOKS_DATABASE": server.make(database)}
    stack.callback(server.drop, database)
    run("db", "upgrade", "--config", CONFIG, environ=environ)

    def start(name: str, *words: str, marker: str) -> tuple[Process, str]:
        started = demo.start(*words, "--config", CONFIG, log=FOLDER / f"{name}.log", marker=marker, environ=environ)
        stack.callback(kill, started[0])
        return started

    print_title("2. Two servers behind one port take callbacks, and three workers run the plugin's handlers")
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    servers = [start(f"server-{number}", "serve", "--no-worker", *ports, marker="call_backs=") for number in (1, 2)]
    print_output(f"$ flowhooks serve --no-worker --config {CONFIG}")
    for number, (process, url) in enumerate(servers, 1):
        print_output(f"  server {number}: process {process.pid}, {url}")
    urls = [urlsplit(url) for _, url in servers]
    balancer = Balancer([(str(url.hostname), int(url.port or 0)) for url in urls])
    stack.callback(balancer.close)
    print_output("  one port before both: http://{}:{}".format(*balancer.address))
    workers = [start(f"worker-{number}", "worker", marker="threads=")[0] for number in (1, 2, 3)]
    print_output(f"$ flowhooks worker --config {CONFIG}")
    for number, process in enumerate(workers, 1):
        print_output(f"  worker {number}: process {process.pid}")
    ledger = Ledger(environ["FLOWHOOKS_DATABASE"])
    stack.callback(ledger.close)
    return Cluster(
        environ=environ,
        ledger=ledger,
        address=balancer.address,
        servers=[process for process, _ in servers],
        workers=workers,
    )


def kill_worker(cluster: Cluster) -> None:
    """Kill a worker while it runs deliveries, and wait until other workers have completed them."""
    ledger, victim = cluster.ledger, cluster.workers[1]
    print_title("4. Another program locks the archive, so handlers wait for it; then a worker is killed (kill -9)")
    with archive_locked():
        # Attempts that had left the archive before also count until they are recorded: there are fewer of them.
        until(lambda: ledger.running(victim.pid) > 3, "worker 2 runs deliveries")
        print_output(f"worker 2 is running {ledger.running(victim.pid)} deliveries")
        kill(victim)
        print_output(f"$ kill -9 {victim.pid}")
    seconds = until(lambda: ledger.is_dead(victim.pid), "the others notice that worker 2 has expired")
    until(lambda: ledger.lost(victim.pid) > 0, "what it ran is recorded as lost")
    lost = ledger.lost(victim.pid)
    print_output(f"worker 2 has expired after {seconds:.1f} s (ledger.heartbeat_timeout = 8)")
    print_output(f"its {lost} running attempts are lost; their handler declares `retry=`, so they are retried")

    print_title("5. The other workers retry its deliveries; callbacks continue all the time")
    until(lambda: not ledger.unfinished(victim.pid), "the others run what worker 2 ran")
    for number in (1, 3):
        print_output(
            f"worker {number} has run {ledger.taken_over(victim.pid, cluster.workers[number - 1].pid)} of them"
        )


def print_counts(cluster: Cluster, flow: CallbackSender) -> bool:
    """Print the final counts; return whether nothing is missing."""
    print_title("7. The counts balance, and the plugin's own archive has each contract once")
    verified = run("verify", "--config", CONFIG, environ=cluster.environ)
    received = cluster.ledger.query("SELECT count(*) FROM events")
    with closing(sqlite3.connect(FOLDER / "contracts.db")) as archive:
        (contracts,) = archive.execute("SELECT count(*) FROM contracts").fetchone()
    announced = len((FOLDER / "contracts-outbox.txt").read_text().splitlines())
    workers = {f"deliveries run by worker {number}": worker for number, worker in enumerate(cluster.workers, 1)}
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


def run_steps(stack: ExitStack) -> bool:
    """Run all steps; return whether each had the expected result."""
    cluster = start_cluster(stack)
    print_title(
        f"3. A workflow engine calls back, {RATE} times a second; each answer has the outcome of a worker's run"
    )
    flow = CallbackSender(cluster.address, bodies=[ANNOUNCEMENT, EXAMPLE, EXAMPLE, EXAMPLE], rate=RATE)
    stack.callback(flow.stop)
    flow.start()
    time.sleep(BEFORE)
    print_output(
        f"{flow.sent} callbacks sent, {flow.answered[200]} answered with status 200: their handlers have succeeded"
    )
    kill_worker(cluster)
    time.sleep(AFTER)
    print_title("6. The engine has finished; all deliveries end, and all processes stop in order")
    flow.stop()
    until(lambda: cluster.ledger.open() == 0, "every delivery has succeeded")
    codes = stop_all([cluster.workers[0], cluster.workers[2], *cluster.servers])
    print_output(f"exit codes {codes}")
    return print_counts(cluster, flow) and codes == [0, 0, 0, 0]


def main() -> None:
    """Run all steps, and exit with 0 only if each had the expected result."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "flowhooks.toml").write_text(SETTINGS)
    try:
        with ExitStack() as stack:
            succeeded = run_steps(stack)
    except KeyboardInterrupt:
        print_title("Stopped. Nothing is left running.")
        sys.exit(130)
    if not succeeded:
        sys.exit("A step above did not have the expected result.")
    print_title("Everything worked: the other workers ran the deliveries of the killed worker, and none is missing.")


if __name__ == "__main__":
    main()
