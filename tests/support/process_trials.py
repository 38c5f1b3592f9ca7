"""Common parts of tests with database and network faults: a plugin, engines that repeat callbacks, and checks."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections import defaultdict
from typing import NamedTuple

import psycopg

from support.journal import whole_lines
from support.waiting import until

PLUGIN = '''
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

def enter(event, delivery):
    """Record that a handler was entered; wait as long as the gate is shut. Return the process and the attempt."""
    journal = pathlib.Path(os.environ["JOURNAL"])
    with open(journal, "a") as lines:
        print(event.flow_instance_id, delivery.attempt, os.getpid(), file=lines, flush=True)
    while journal.with_name("shut-" + event.flow_instance_id).exists():
        time.sleep(0.01)
    if event.data.get("fails", 0) >= delivery.attempt:
        raise ValueError("not yet")
    return {"pid": os.getpid(), "attempt": delivery.attempt}

@handler(process_key="again", retry=Retry(attempts=20, delays=[0.05], jitter=0))
def again(event, delivery):
    """May run twice."""
    return enter(event, delivery)

@handler(process_key="once")
def once(event, delivery):
    """May not."""
    return enter(event, delivery)

@hookimpl
def handlers():
    return [again, once]
'''
FAST_EXPIRY = {"ledger__heartbeat_timeout": 5.0}
"""Settings for tests that wait for the expiry of a killed or stopped process; others use the default.

A busy machine delays heartbeats by seconds, too: with less, processes that are alive would expire.
"""
RETRYABLE = {"processDefinitionKey": "again"}
NOT_RETRYABLE = {"processDefinitionKey": "once"}
STATES = {"waiting", "running", "succeeded", "dead", "unknown", "closed"}


class ClientResponse(NamedTuple):
    """The response to one request, or its absence.

    Attributes:
        instance: its flow instance.
        began: the time at which it was requested, by `time.monotonic`.
        status: its status; 0 without a response.
        seconds: its duration.
        event_id: the event that it names.
        retry_after: its Retry-After.
    """

    instance: str
    began: float
    status: int
    seconds: float
    event_id: str | None
    retry_after: str | None


class Engines:
    """Several engines that send callbacks in turn, each repeated until it is stored.

    Args:
        servers: the servers to call, in turn.
        count: the number of engines.
        pause: seconds between a response and the next call.

    Attributes:
        responses: every response so far.
    """

    def __init__(self, *servers, count=3, pause=0.05):
        self._servers = itertools.cycle([server.address for server in servers])
        self._pause = pause
        self._stopping = threading.Event()
        self.responses = []
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _call(self, engine):
        for number in itertools.count():
            body = RETRYABLE if number % 2 else NOT_RETRYABLE
            while not self._try_once(f"e{engine}-{number}", body):
                time.sleep(self._pause)
            if self._stopping.wait(self._pause):
                return

    def _try_once(self, instance, body):
        began = time.monotonic()
        connection = http.client.HTTPConnection(*next(self._servers), timeout=60)
        try:
            connection.request(
                "POST", f"/flow/{instance}/call-back/complete", json.dumps(body), {"Prefer": "respond-async"}
            )
            response = connection.getresponse()
            response.read()
            status, headers = response.status, response.headers
        except (OSError, http.client.HTTPException):
            status, headers = 0, {}
        finally:
            connection.close()
        self.responses.append(
            ClientResponse(
                instance,
                began,
                status,
                time.monotonic() - began,
                headers.get("Flowhooks-Event"),
                headers.get("Retry-After"),
            )
        )
        return 200 <= status < 300

    def since(self, index):
        """The responses from an index of `responses` on."""
        return self.responses[index:]

    def stop(self):
        """Let each engine finish its call; return the event of each instance."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "an engine never got the response that its callback is stored"
        return {response.instance: response.event_id for response in self.responses if 200 <= response.status < 300}


def rows(url, statement):
    """The result of a query of a database."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def entered(site):
    """(instance, attempt, process) of each run of a handler."""
    lines = whole_lines(site.journal)
    return [(instance, int(attempt), int(pid)) for instance, attempt, pid in map(str.split, lines)]


def until_worker_known(server):
    """Wait until a server knows that a worker runs the handlers: before that, the server waits for no outcome."""
    until(lambda: server.post(f"probe-{time.monotonic_ns()}", RETRYABLE, Prefer="wait=2").status == 200)


def shut(site, instance):
    """Make handlers wait for this instance; removing the returned file lets them continue."""
    gate = site.folder / f"shut-{instance}"
    gate.touch()
    return gate


def wait_until_finished(url):
    """Wait until no delivery is waiting or running."""
    unfinished = "SELECT id, state, attempt, due_at FROM deliveries WHERE state IN ('waiting', 'running')"
    until(lambda: not rows(url, unfinished), poll=0.05, why=lambda: rows(url, unfinished))


def check_invariants(site, url, event_ids, *, may_be_unknown=False):
    """Check the invariants when all work is finished.

    Args:
        site: the folder with the processes and the handlers' journal.
        url: the database, without the broken proxy or server.
        event_ids: the id of the event that the response named for each instance whose callback was stored.
        may_be_unknown: whether a process was killed while a handler ran.
    """
    wait_until_finished(url)
    # I1: each callback that a 2xx reported as stored is stored once.
    stored = defaultdict(list)
    for instance, event_id in rows(url, "SELECT flow_instance_id, id FROM events"):
        stored[instance].append(event_id)
    assert {instance: stored[instance] for instance in event_ids} == {
        instance: [event_id] for instance, event_id in event_ids.items()
    }
    # I2: every delivery is in a state of the table, and has ended.
    states = dict(rows(url, "SELECT state, count(*) FROM deliveries GROUP BY state"))
    assert states.keys() <= STATES
    assert states.keys() <= {"succeeded"} | ({"unknown"} if may_be_unknown else set()), states
    # I3: the outcome of an attempt was recorded by that attempt and its own process;
    # and each run has an attempt.
    attempts = rows(
        url,
        "SELECT events.flow_instance_id, attempts.number, attempts.outcome, attempts.result, processes.pid"
        " FROM attempts JOIN deliveries ON deliveries.id = attempts.delivery_id"
        " JOIN events ON events.id = deliveries.event_id JOIN processes ON processes.id = attempts.process",
    )
    for instance, number, outcome, result, pid in attempts:
        if outcome == "succeeded":
            assert json.loads(result) == {"pid": pid, "attempt": number}, (instance, number, result, pid)
    recorded = {(instance, number, pid) for instance, number, _, _, pid in attempts}
    runs = entered(site)
    assert len(set(runs)) == len(runs), "an attempt was entered twice"
    assert set(runs) <= recorded
    # Each entered attempt that is not lost has its outcome.
    assert all(outcome is not None for _, _, outcome, _, _ in attempts)
    done = site.run("verify", "--database", url)
    assert done.returncode == 0, done.stdout + done.stderr
