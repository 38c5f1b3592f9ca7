"""Ordered deliveries on workers with one PostgreSQL: in each group one at a time and in order, despite kills."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import pytest

from support.journal import whole_lines
from support.process_trials import FAST_EXPIRY

PLUGIN = '''
import json, os, pathlib, time
from flowhooks import Retry, handler, hookimpl

def write(event, delivery, what):
    """One line of the journal, whole, even where several processes write it."""
    line = [event.business_key, event.flow_instance_id, delivery.attempt, os.getpid(), time.monotonic_ns(), what]
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, json.dumps(line).encode() + b"\\n")
    os.close(file)

@handler(process_key="change", order_by="business_key", retry=Retry(attempts=9, delays=[0.05], jitter=0))
def change(event, delivery):
    """Write down when it begins, and when it ends: not while its process's gate is shut. Some fail at first."""
    write(event, delivery, "begins")
    time.sleep(0.01)
    gate = pathlib.Path(f"shut-{os.getpid()}")
    if gate.exists():
        write(event, delivery, "waits")
    while gate.exists():
        time.sleep(0.01)
    write(event, delivery, "ends")
    if event.data["number"] % 7 == 3 and delivery.attempt == 1:
        raise OSError("not yet")
    write(event, delivery, "done")

@hookimpl
def handlers():
    return [change]
'''
KEYS = 6
EACH = 30
"""Minimum of callbacks of each key."""
FEW = 8
"""The same in the short set, with the second runner."""
MOST = 999


class Line(NamedTuple):
    """A line of the journal; `at` is the monotonic clock of the machine, which all processes share."""

    key: str
    instance: str
    attempt: int
    pid: int
    at: int
    what: str


@pytest.fixture
def shared(sharing):
    """A site whose processes share a ledger on PostgreSQL."""
    site = sharing
    site.settings |= FAST_EXPIRY | {"ledger__write_timeout": 20}  # a commit may take seconds on a busy machine
    (site.folder / "orders").mkdir()
    (site.folder / "orders/orders.py").write_text(PLUGIN)
    return site


def journal(site):
    """The lines that the handler has written."""
    return [Line(*json.loads(line)) for line in whole_lines(site.journal)]


class Sender(threading.Thread):
    """Sends the callbacks of one key, each after the response to the previous one, and stores their ids.

    It continues until there are enough, so that there is always a delivery to run.
    """

    def __init__(self, server, key, each, enough):
        super().__init__(daemon=True)
        self.server, self.key, self.each, self.enough = server, key, each, enough
        self.instances, self.ids, self.statuses = [], [], set()

    def run(self):
        """Send all callbacks."""
        for number in range(MOST):
            if number >= self.each and self.enough.is_set():
                return
            # The ids sort in reverse, so that an order by ids instead of by responses fails.
            instance = f"{self.key}-{MOST - number:03}"
            body = {"processDefinitionKey": "change", "businessKey": self.key, "number": number}
            answer = self.server.post(instance, body, Prefer="respond-async")
            self.statuses.add(answer.status)
            self.instances.append(instance)
            self.ids.append(answer.event_id)


def spans(lines):
    """(start, end, process) of each run of one key by start; a killed run has no end."""
    ends = {(line.instance, line.attempt): line.at for line in lines if line.what == "ends"}
    begun = sorted((line for line in lines if line.what == "begins"), key=lambda line: line.at)
    return [(line.at, ends.get((line.instance, line.attempt)), line.pid) for line in begun]


@pytest.mark.parametrize(
    ("sharing", "each"),
    [("embedded", EACH), ("procrastinate", FEW), pytest.param("procrastinate", EACH, marks=pytest.mark.long)],
    indirect=["sharing"],
)
def test_each_key_continues_in_order_after_a_worker_is_killed(shared, each):
    """After `kill -9` of a busy worker, runs of one key neither overlap nor change their order."""
    server = shared.start("--no-worker", **shared.settings)
    workers = [shared.start_worker("--plugins-dir", shared.folder / "orders", **shared.settings) for _ in range(2)]
    server.until_logged("routes_changed", others=1)
    enough = threading.Event()
    senders = [Sender(server, f"k{number}", each, enough) for number in range(KEYS)]
    for sender in senders:
        sender.start()
    shared.until(lambda _ledger: sum(entry.what == "done" for entry in journal(shared)) > KEYS * each // 4)
    # One worker may run all keys, so the victim is the worker that began the last run.
    busy = [line.pid for line in journal(shared) if line.what == "begins"][-1]
    victim, heir = sorted(workers, key=lambda worker: worker.process.pid != busy)
    (shared.folder / f"shut-{victim.process.pid}").touch()
    # A run that had begun before may wait, too: if the victim runs a delivery of each key, no further one begins.
    shared.until(lambda _ledger: any(line.what == "waits" for line in journal(shared)))
    victim.kill()
    enough.set()
    for sender in senders:
        sender.join(60)
    sent = sum(len(sender.instances) for sender in senders)
    assert {status for sender in senders for status in sender.statuses} == {202}
    shared.until(_all_succeeded(sent))

    keys = defaultdict(list)
    for line in journal(shared):
        keys[line.key].append(line)
    cut_off = []
    for sender in senders:
        done = sorted((line for line in keys[sender.key] if line.what == "done"), key=lambda line: line.at)
        assert list(dict.fromkeys(line.instance for line in done)) == sender.instances, sender.key
        runs = spans(keys[sender.key])
        cut_off += [pid for _, end, pid in runs if end is None]
        for (_, end, pid), (begins, _, _) in pairwise(runs):
            assert pid == victim.process.pid if end is None else end < begins, sender.key
    assert set(cut_off) == {victim.process.pid}, "nothing was cut off: the test did not try what it says"
    assert {line.pid for line in journal(shared)} == {worker.process.pid for worker in workers}
    server.stop()
    heir.stop()
    assert shared.balance().accepted == sent


def _all_succeeded(count):
    """Whether `count` deliveries have succeeded."""
    return lambda ledger: ledger.verify().deliveries.get("succeeded", 0) == count
