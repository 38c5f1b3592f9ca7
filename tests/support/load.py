"""Servers at one address that are killed in turn at failpoints, and the checks afterwards.

It has no tests of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest

from flowhooks.ledger import audit
from flowhooks.ledger.bulk_release import open_operations
from flowhooks.ledger.queries import EventFilter
from support.client_history import ClientHistory
from support.clients import send_callbacks, until_more
from support.load_operator import Operator, check_corrections, check_operations, check_untouched, operating
from support.ports import free_port
from support.waiting import WAIT_TIMEOUT, until

PLUGIN = '''
import itertools, os, random, signal, time
from pathlib import Path
from flowhooks import Retry, handler, hookimpl

FOLDER = Path(os.environ["JOURNAL"]).parent
LAST = int(os.environ.get("FLOWHOOKS_TEST_IN_HANDLER", 0))
ENTERED = itertools.count(1)
AGAIN = Retry(attempts=50, delays=[0.05], jitter=0)

def enter(name, event, delivery):
    """Record that a handler was entered; wait as long as the gate of this instance is shut."""
    line = f"{name} {delivery.id} {delivery.attempt}\\n".encode()
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)
    if next(ENTERED) == LAST:
        os.kill(os.getpid(), signal.SIGKILL)
    while (FOLDER / f"shut-{event.flow_instance_id}").exists():
        time.sleep(0.01)

@handler(process_key=["crash", "old", "corrected"])
def plain(event, delivery):
    """Not safe to run twice."""
    enter("plain", event, delivery)

@handler(process_key=["crash", "corrected"], retry=AGAIN)
def again(event, delivery):
    """Safe to run twice; fails sometimes."""
    enter("again", event, delivery)
    time.sleep(random.choice([0, 0, 0.01]))
    if random.random() < 0.05:
        raise OSError("sometimes")

@handler(process_key="operated")
def once(event, delivery):
    """Fails at first, and is not retried automatically."""
    enter("once", event, delivery)
    if delivery.attempt == 1 or random.random() < 0.3:
        raise OSError("not yet")

@handler(process_key="operated", retry=Retry(attempts=50, delays=[3600], jitter=0))
def scheduled(event, delivery):
    """Fails at first, and waits for its schedule."""
    enter("scheduled", event, delivery)
    if delivery.attempt == 1 or random.random() < 0.3:
        raise OSError("not yet")

@handler(process_key="held")
def held(event, delivery):
    """Runs until the server is killed."""
    enter("held", event, delivery)

@hookimpl
def handlers():
    return [plain, again, once, scheduled, held]
'''
LATE_PLUGIN = '''
import os
from flowhooks import handler, hookimpl

@handler(SELECTOR, name="late")
def late(event, delivery):
    """A handler that is installed after its callbacks have arrived."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print("late", delivery.id, delivery.attempt, file=journal)

@hookimpl
def handlers():
    return [late]
'''
CLIENTS = 5
SETTINGS = {
    "answer_wait": 0.3,
    "ledger__write_timeout": 2,
    "runner__threads": 6,
    "runner__kind": "embedded",
    "ledger__heartbeat_timeout": 1.5,
    # The handlers fail on purpose. After ten failures in a row their deliveries would wait for a minute.
    "circuit_breaker__failures": 0,
}
PREPARED_EARLY = {"recover", "reroute_parked", "reroute"}
"""Points whose data must be prepared before the start of the server that is killed there."""
START_POINTS = {"migrate", "recover", "reroute_parked"}
"""Points that the start of a server reaches."""
LOAD_POINTS = {"accept", "answer", "claim", "attempt", "handler", "settle", "operation", "correction"}
"""Points that engines and the operator reach continuously."""
SERVER_POINTS = {*START_POINTS, *LOAD_POINTS}
"""Points that a server reaches on a shared ledger, too; a command reaches the others there."""
END_TIMEOUT = 2 * WAIT_TIMEOUT
"""Seconds until a wait for the end of an operation fails: if a busy machine delays a look at its results, the server
looks again only after twenty times as long."""


class LoadUnderCrashes:
    """One address under load, with its prepared data and requested operations."""

    def __init__(self, site):
        self.site = site
        self.address = ("127.0.0.1", free_port())
        self.server = None
        self.event_ids = {}
        self.history = ClientHistory(site.folder / "answers.jsonl")
        self.purged = {}
        self.dismissed = set()
        self.resolved = set()
        self.prepared = {}
        self.interrupted = []
        self.rerouted = set()
        self.operator = Operator(self)
        site.plugin("demo", PLUGIN)

    def start(self, point="", times=1):
        """Start a server that is killed at a point; without a point it is not killed."""
        options = {"test_in_handler": times} if point == "handler" else {"failpoint": f"{point}:{times}"}
        listen = f"{self.address[0]}:{self.address[1]}"
        self.server = self.site.start(
            config=self.operator.config,
            ready=False,
            listen=listen,
            **SETTINGS,
            **(options if point not in {"", "checkpoint"} else {}),
        )

    def until_killed(self, point, times):
        """Wait for its end, and check that it was killed at the intended point."""
        try:
            self.server.process.wait(END_TIMEOUT)  # the operator may have to finish a round of operations first
        except subprocess.TimeoutExpired:
            pytest.fail(f"{point} was not reached {times} times:\n" + "\n".join(self.server.lines[-10:]))
        assert self.server.wait() == -signal.SIGKILL, "\n".join(self.server.lines[-20:])
        if point not in {"handler", "checkpoint"}:
            assert f"killed at {point}:{times}, as FLOWHOOKS_FAILPOINT says" in self.server.lines
        self.open_gates()

    def open_gates(self):
        """Release the waiting handlers."""
        for gate in self.site.folder.glob("shut-*"):
            gate.unlink()

    def post(self, instance, key, **members):
        """Send one callback, repeated until it is accepted; return the event's id."""
        deadline = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                response = self.call(instance, {"processDefinitionKey": key} | members)
                assert response.status in {200, 202, 500, 503}, response
                if response.status != 503:
                    self.event_ids[instance] = response.event_id
                    return response.event_id
            time.sleep(0.05)
        raise AssertionError(f"{instance} was not taken")

    def call(self, instance, body, server=None):
        """Send one callback, and add its response to the history."""
        response = None
        try:
            response = (server or self.server).post(instance, body, Prefer="respond-async")
        finally:
            self.history.add(
                instance, json.dumps(body), response and response.status, (response and response.event_id) or None
            )
        return response

    def operate(self, name, *, may_be_done=False, **arguments):
        """Request an operation, which may kill the server."""
        if name == "operation":
            self._replay(**arguments)
            return
        page_arguments = {}
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                response, was_unavailable = operate_until_available(
                    self.server, self.site.token(), name, **arguments, **page_arguments
                )
                may_be_done |= was_unavailable
                assert response.status == 200 or (may_be_done and response.status == 409), response
                if not response.json.get("next"):
                    break
                page_arguments = {"after": response.json["next"]}

    def _replay(self, event_filter):
        """Run dead deliveries again by a bulk operation, whose release may kill the server."""
        token = self.site.token()
        planned, _ = operate_until_available(
            self.server, token, "plan_operation", action="replay", event_filter=event_filter
        )
        assert planned.status == 200, planned
        with contextlib.suppress(OSError, http.client.HTTPException):
            started, was_unavailable = operate_until_available(
                self.server, token, "start_operation", operation_id=planned.json["id"]
            )
            assert started.status == 200 or (was_unavailable and started.status == 409), started

    def prepare(self, point, name):
        """Prepare the data that a point needs."""
        kind = point.partition(".")[0]
        if kind in self.prepared:
            return
        match kind:
            case "recover":
                (self.site.folder / f"shut-{name}").touch()
                self.post(name, "crash")
                self.site.until(lambda ledger: running(ledger, self.event_ids[name]) == 2)
                self.prepared[kind] = name
            case "reroute_parked":
                self.prepared[kind] = [self.post(f"{name}-{number}", name) for number in range(3)]
                self.site.plugin(name.replace("-", "_"), LATE_PLUGIN.replace("SELECTOR", f'process_key="{name}"'))
            case "reroute":
                self.prepared[kind] = [
                    self.post(f"{name}-{number}", "crash", callBackProcessClass=name) for number in range(3)
                ]
                self.site.plugin(name.replace("-", "_"), LATE_PLUGIN.replace("SELECTOR", f'callback_class="{name}"'))
            case "purge" | "dismiss":
                key = {"purge": "old"}.get(kind, name)
                ids = [self.post(f"{name}-{number}", key) for number in range(3)]
                self.site.until(lambda ledger: not any(running(ledger, event_id, waiting=True) for event_id in ids))
                self.prepared[kind] = ids

    def interrupt_operation(self, point, kind):
        """Reach a point by an operation, which is repeated later."""
        ids = self.prepared.pop(kind, [])
        match kind:
            case "reroute":
                arguments = {"event_filter": {"ids": ids}}
            case "dismiss":
                self.dismissed |= set(ids)
                arguments = {"event_filter": {"ids": ids}, "note": "needs no handler"}
            case "purge":
                settled_ids = self.settled(ids)
                self.purged |= {
                    instance: event for instance, event in list(self.event_ids.items()) if event in settled_ids
                }
                arguments = {"event_filter": {"ids": list(settled_ids), "until": time.time_ns() // 1000}}
            case "resolve":
                # The operator resolves the deliveries of other handlers.
                event_filter = EventFilter(state="unknown", handler="demo:plain")
                (unknown,) = self.site.until(lambda ledger: ledger.page(event_filter, limit=1))
                delivery_id = next(
                    status.delivery_id for status in unknown.delivery_statuses if status.handler == "demo:plain"
                )
                self.resolved.add(delivery_id)
                arguments = {"delivery_id": delivery_id, "verdict": "did", "note": "looked"}
        if kind == "reroute":
            self.rerouted |= set(ids)
        self.kill_during(point, kind, arguments)
        self.interrupted.append((kind, arguments))

    def kill_during(self, point, kind, arguments):
        """Request an operation during which the server is killed."""
        self.operate(kind, **arguments)
        self.until_killed(point, 1)

    def repeat_interrupted(self):
        """Repeat interrupted operations; operations that were complete are rejected or change nothing."""
        for kind, arguments in self.interrupted:
            self.operate(kind, may_be_done=True, **arguments)
        self.interrupted = []

    def settled(self, ids):
        """The events whose deliveries have all succeeded."""
        with self.site.ledger() as ledger:
            return {
                event_id
                for event_id in ids
                if {status.state for status in ledger.delivery_statuses(event_id)} <= {"succeeded"}
            }

    def kill_at(self, point, times, number, following):
        """Start a server, prepare the next one's data, and kill it at a point."""
        kind = point.partition(".")[0]
        self.start(point, times)
        if kind not in START_POINTS | LOAD_POINTS:
            self.server.until_logged("server_started")
            self.prepare(point, f"{kind}-{number}")
            next_kind = following.partition(".")[0]
            if next_kind in PREPARED_EARLY:
                self.prepare(following, f"{next_kind}-{number + 1}")
            self.repeat_interrupted()
            until_more(self.accepted, 2 * CLIENTS)
            if kind != "checkpoint":
                self.interrupt_operation(point, kind)
                return
            self.checkpoint(number)
        self.until_killed(point, times)
        if kind in START_POINTS:
            self.prepared.pop(kind, None)
        if kind in START_POINTS | LOAD_POINTS and (next_kind := following.partition(".")[0]) in PREPARED_EARLY:
            self.prepare_ahead(following, f"{next_kind}-{number + 1}")

    def prepare_ahead(self, point, name):
        """Prepare the data of the next point by a server that is killed as soon as they are stored."""
        self.start()
        self.server.until_logged("server_started")
        self.prepare(point, name)
        self.server.kill()
        self.open_gates()

    def checkpoint(self, number):
        """Grow the log until SQLite copies it into its file, which nothing else writes, and kill the server then."""
        before = self.site.database.stat().st_mtime_ns
        filling = threading.Thread(target=self.fill, args=(number,), daemon=True)
        filling.start()
        while self.site.database.stat().st_mtime_ns == before:
            assert filling.is_alive(), "all was sent, and there was no checkpoint"
        self.server.process.kill()
        filling.join(WAIT_TIMEOUT)

    def fill(self, number):
        """Send large callbacks until the server has exited."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            for count in range(400):
                instance = f"large-{number}-{count}"
                body = {"processDefinitionKey": "crash", "padding": "x" * 200_000}
                response = self.call(instance, body)
                if response.status in {200, 202}:
                    self.event_ids[instance] = response.event_id

    def run_last_server(self):
        """Start a server that is not killed, after a kill in the middle of a handler that the operator resolves."""
        self.start()
        self.server.until_logged("server_started")
        self.operator.hold("held-last")
        self.server.kill()
        self.open_gates()
        self.start()
        self.server.until_logged("server_started")
        self.repeat_interrupted()


class SharedLoadUnderCrashes(LoadUnderCrashes):
    """Load on a shared ledger: operations are commands, which are killed themselves, unless a server runs them."""

    def start(self, point="", times=1):
        """Start the server; only points of the load or the start kill it."""
        super().start(point if point.partition(".")[0] in SERVER_POINTS else "", times)

    def operate(self, name, *, may_be_done=False, failpoint=None, **arguments):
        """Run a command, which may be killed at a point."""
        words = [f"--id={event_id}" for event_id in arguments.get("event_filter", {}).get("ids", ())]
        words += ["--note", arguments["note"]] if name == "dismiss" else []
        words = [arguments["delivery_id"], "--did"] if name == "resolve" else words
        words = ["--older-than", "0s", "--key", "old"] if name == "purge" else words
        words = [*(words or ["--state", "dead"]), "--detach"] if name == "operation" else words
        group = "db" if name == "purge" else "events"
        name = "replay" if name == "operation" else name
        options = {"failpoint": f"{failpoint}:1"} if failpoint else {}
        completed = self.site.run(group, name, *words, "--yes", "--database", self.site.database, **SETTINGS, **options)
        assert (completed.returncode == -signal.SIGKILL) == bool(failpoint), completed
        assert completed.returncode <= may_be_done, completed

    def kill_during(self, point, kind, arguments):
        """Kill the command and the server too, so that the next one has attempts to recover."""
        if kind in SERVER_POINTS:
            super().kill_during(point, kind, arguments)
            return
        self.operate(kind, failpoint=point, **arguments)
        self.server.kill()
        self.open_gates()


def running(ledger, event_id, *, waiting=False):
    """The number of an event's running or waiting deliveries."""
    return sum(
        status.state == "running" or (waiting and status.state == "waiting")
        for status in ledger.delivery_statuses(event_id)
    )


def unfinished(ledger):
    """The number of waiting or running deliveries."""
    counts = ledger.count_by_state()
    return counts["waiting"] + counts["running"] + counts["handler_missing"]


def operate_until_available(server, token, name, **arguments):
    """Request an operation until the status is not 503, which means that its commit took too long.

    Returns:
        The response, and whether an earlier request may have completed the operation.
    """
    responses = []

    def is_available():
        responses.append(server.operate(token, name, **arguments))
        return responses[-1].status != 503

    until(is_available)
    return responses[-1], len(responses) > 1


def running_operations(ledger):
    """The bulk operations whose deliveries are not all released and executed."""
    with ledger.connection() as connection:
        return open_operations(connection)


def kill_in_turn(under_load, chain):
    """Kill servers in turn at (point, time) of `chain`, and check the result."""
    with send_callbacks(
        [under_load.address], clients=CLIENTS, key="crash", pause=0.02, max_backoff=0.4, history=under_load.history
    ) as (
        accepted,
        problems,
    ):
        under_load.accepted = accepted
        with operating(under_load):
            for number, (point, times) in enumerate(chain):
                under_load.kill_at(point, times, number, chain[number + 1][0] if number + 1 < len(chain) else "")
            under_load.run_last_server()
            until_more(accepted, 4 * CLIENTS)
    assert problems == []
    check(under_load)


def history(under_load, deliveries):
    """All facts about deliveries: states, attempts, entered attempts, and requested operations."""
    site, facts = under_load.site, []
    with site.ledger() as ledger:
        for delivery_id in sorted(deliveries):
            facts += ["", repr(ledger.delivery(delivery_id)[1]), *map(repr, ledger.attempts(delivery_id))]
            facts += [line for line in site.journal.read_text().splitlines() if delivery_id in line]
            facts += [
                f"{server.process.pid}: {line}"
                for server in site._servers
                for line in server.lines
                if delivery_id in line
            ]
        with ledger.connection() as connection:
            facts += ["", *map(repr, audit.entries(connection, limit=100))]
    for server in site._servers:
        for event in (
            "deliveries_recovered",
            "process_expired",
            "stale_attempt",
            "runner_fault",
            "ledger_write_failed",
        ):
            facts += [f"{server.process.pid}: {record}" for record in server.logged(event)]
    return "\n".join(facts)


def check(under_load):
    """Check I1, I2 and I3 when all work is finished."""
    site = under_load.site
    check_untouched(under_load.operator)
    under_load.operate("operation", event_filter={"state": "dead"})
    site.until(lambda ledger: not running_operations(ledger), within=END_TIMEOUT)
    site.until(lambda ledger: not unfinished(ledger))
    for instance, event_id in under_load.purged.items():
        assert under_load.post(instance, "old") == event_id
    events, after, attempts = {}, "", {}
    with site.ledger() as ledger:
        while page := ledger.page(EventFilter(), limit=500, after=after):
            events |= {stored.event.id: stored for stored in page}
            after = page[-1].event.id
        for stored in events.values():
            for delivery_status in stored.delivery_statuses:
                delivery_id = delivery_status.delivery_id
                outcomes = {attempt.number: attempt.outcome.value for attempt in ledger.attempts(delivery_id)}
                assert list(outcomes) == list(range(1, delivery_status.attempt + 1))
                attempts |= {(delivery_id, number): outcome for number, outcome in outcomes.items()}
    # I1: each 2xx has one durable row; `verify --against` compares all answers at the end.
    assert not set(under_load.purged.values()) & set(events)
    # I2: each delivery has ended, or is shown to an operator.
    assert not [stored for stored in events.values() if stored.state == "parked"]
    assert {event_id for event_id, stored in events.items() if stored.state == "dismissed"} == under_load.dismissed
    rerouted = [stored for event_id, stored in events.items() if event_id in under_load.rerouted]
    assert {len(stored.delivery_statuses) for stored in rerouted} <= {3}
    states = {
        status.delivery_id: (status.handler.partition(":")[2], status.state.value)
        for stored in events.values()
        for status in stored.delivery_statuses
    }
    assert set(states.values()) <= {
        *((name, "succeeded") for name in ("plain", "again", "late", "once", "scheduled", "held")),
        *((name, "unknown") for name in ("plain", "late", "once", "held")),
        *(("once", "dead"), ("once", "closed"), ("scheduled", "closed")),
    }, Counter(states.values())
    assert {states[delivery_id][1] for delivery_id in under_load.resolved & set(states)} <= {"succeeded"}
    # I3: each run has a recorded attempt, no attempt ran twice, and deliveries that may not run twice ran once.
    entered = Counter()
    for line in site.journal.read_text().splitlines():
        name, delivery, attempt = line.split()
        if delivery in states:
            entered[name, delivery, int(attempt)] += 1
    repeated = {delivery for (_, delivery, _), times in entered.items() if times > 1}
    assert not repeated, history(under_load, repeated)
    assert {(delivery, attempt) for _, delivery, attempt in entered} <= set(attempts)
    # The operator lets none of these run again: only dead deliveries are replayed, and these handlers never fail.
    # Their unknown deliveries are resolved as done.
    runs = Counter(delivery for name, delivery, _ in entered if name in {"plain", "late"})
    repeated = {delivery for delivery, times in runs.items() if times > 1}
    assert not repeated, history(under_load, repeated)
    succeeded = {attempt for attempt, outcome in attempts.items() if outcome == "succeeded"}
    assert succeeded <= {(delivery, attempt) for _, delivery, attempt in entered} | {
        (delivery, attempt) for delivery, attempt in succeeded if delivery in under_load.resolved
    }
    check_corrections(under_load.operator)
    check_operations(under_load.operator)
    under_load.server.stop()
    with site.ledger() as ledger:
        assert ledger.quick_check() is None  # of a file
    verified = site.run("verify", "--json", "--against", under_load.history.file, "--database", site.database)
    assert verified.returncode == 0, verified
    report = json.loads(verified.stdout)
    assert report["purged"] == len(under_load.purged)
    assert report["against"]["acknowledged"] >= len(under_load.event_ids)
    assert report["against"]["purged"] >= len(under_load.purged)
