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
from support.clients import calling, until_more
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
    """Write down that it was entered; wait as long as the gate of this instance is shut."""
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
    """Fails at first, and is not repeated by itself."""
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
LATE = '''
import os
from flowhooks import handler, hookimpl

@handler(SELECTOR, name="late")
def late(event, delivery):
    """A handler that is installed when its callbacks have come already."""
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
EARLY = {"recover", "reroute_parked", "reroute"}
"""Points that must be prepared before the start of the server that is killed there."""
AT_ONCE = {"migrate", "recover", "reroute_parked"}
"""Points that the start of a server reaches."""
BY_LOAD = {"accept", "answer", "claim", "attempt", "handler", "settle", "operation", "correction"}
"""Points that engines and the operator reach all the time."""
OF_SERVER = {*AT_ONCE, *BY_LOAD}
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
        self.told = {}
        self.history = ClientHistory(site.folder / "answers.jsonl")
        self.purged = {}
        self.dismissed = set()
        self.resolved = set()
        self.prepared = {}
        self.owed = []
        self.rerouted = set()
        self.operator = Operator(self)
        site.plugin("demo", PLUGIN)

    def start(self, at="", times=1):
        """Start the server again, which will be killed at a point."""
        point = {"test_in_handler": times} if at == "handler" else {"failpoint": f"{at}:{times}"}
        listen = f"{self.address[0]}:{self.address[1]}"
        self.server = self.site.start(
            config=self.operator.config,
            ready=False,
            listen=listen,
            **SETTINGS,
            **(point if at not in {"", "checkpoint"} else {}),
        )

    def until_killed(self, at, times):
        """Wait for its end, and check that it was killed at the intended point."""
        try:
            self.server.process.wait(END_TIMEOUT)  # the operator may have to finish a round of operations first
        except subprocess.TimeoutExpired:
            pytest.fail(f"{at} was not reached {times} times:\n" + "\n".join(self.server.lines[-10:]))
        assert self.server.wait() == -signal.SIGKILL, "\n".join(self.server.lines[-20:])
        if at not in {"handler", "checkpoint"}:
            assert f"killed at {at}:{times}, as FLOWHOOKS_FAILPOINT says" in self.server.lines
        self.open_gates()

    def open_gates(self):
        """Release the waiting handlers."""
        for gate in self.site.folder.glob("shut-*"):
            gate.unlink()

    def post(self, instance, key, **more):
        """Send one callback, repeated until it is accepted; return the event's id."""
        end = time.monotonic() + WAIT_TIMEOUT
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                answer = self.call(instance, {"processDefinitionKey": key} | more)
                assert answer.status in {200, 202, 500, 503}, answer
                if answer.status != 503:
                    self.told[instance] = answer.event_id
                    return answer.event_id
            time.sleep(0.05)
        raise AssertionError(f"{instance} was not taken")

    def call(self, instance, body, server=None):
        """One callback, and its answer for the history."""
        answer = None
        try:
            answer = (server or self.server).post(instance, body, Prefer="respond-async")
        finally:
            self.history.add(instance, json.dumps(body), answer and answer.status, (answer and answer.event_id) or None)
        return answer

    def operate(self, name, *, may_be_done=False, **arguments):
        """Request an operation, which may kill the server."""
        if name == "operation":
            self._replay(**arguments)
            return
        after = {}
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                answer, was_unavailable = asked_again(self.server, self.site.token(), name, **arguments, **after)
                may_be_done |= was_unavailable
                assert answer.status == 200 or (may_be_done and answer.status == 409), answer
                if not answer.json.get("next"):
                    break
                after = {"after": answer.json["next"]}

    def _replay(self, event_filter):
        """Run dead deliveries again by a bulk operation, whose release may kill the server."""
        token = self.site.token()
        planned, _ = asked_again(self.server, token, "plan_operation", action="replay", event_filter=event_filter)
        assert planned.status == 200, planned
        with contextlib.suppress(OSError, http.client.HTTPException):
            started, was_unavailable = asked_again(
                self.server, token, "start_operation", operation_id=planned.json["id"]
            )
            assert started.status == 200 or (was_unavailable and started.status == 409), started

    def prepare(self, at, name):
        """Prepare the data that a point needs."""
        kind = at.partition(".")[0]
        if kind in self.prepared:
            return
        match kind:
            case "recover":
                (self.site.folder / f"shut-{name}").touch()
                self.post(name, "crash")
                self.site.until(lambda ledger: running(ledger, self.told[name]) == 2)
                self.prepared[kind] = name
            case "reroute_parked":
                self.prepared[kind] = [self.post(f"{name}-{number}", name) for number in range(3)]
                self.site.plugin(name.replace("-", "_"), LATE.replace("SELECTOR", f'process_key="{name}"'))
            case "reroute":
                self.prepared[kind] = [
                    self.post(f"{name}-{number}", "crash", callBackProcessClass=name) for number in range(3)
                ]
                self.site.plugin(name.replace("-", "_"), LATE.replace("SELECTOR", f'callback_class="{name}"'))
            case "purge" | "dismiss":
                key = {"purge": "old"}.get(kind, name)
                ids = [self.post(f"{name}-{number}", key) for number in range(3)]
                self.site.until(lambda ledger: not any(running(ledger, one, waiting=True) for one in ids))
                self.prepared[kind] = ids

    def act(self, at, kind):
        """Reach a point by an operation, which must be completed later."""
        ids = self.prepared.pop(kind, [])
        match kind:
            case "reroute":
                asked = {"event_filter": {"ids": ids}}
            case "dismiss":
                self.dismissed |= set(ids)
                asked = {"event_filter": {"ids": ids}, "note": "needs no handler"}
            case "purge":
                done = self.settled(ids)
                self.purged |= {instance: event for instance, event in list(self.told.items()) if event in done}
                asked = {"event_filter": {"ids": list(done), "until": time.time_ns() // 1000}}
            case "resolve":
                # Those of other handlers are resolved by the operator.
                asked = EventFilter(state="unknown", handler="demo:plain")
                (unknown,) = self.site.until(lambda ledger: ledger.page(asked, limit=1))
                one = next(it.delivery_id for it in unknown.delivery_statuses if it.handler == "demo:plain")
                self.resolved.add(one)
                asked = {"delivery_id": one, "verdict": "did", "note": "looked"}
        if kind == "reroute":
            self.rerouted |= set(ids)
        self.cut_off(at, kind, asked)
        self.owed.append((kind, asked))

    def cut_off(self, at, kind, asked):
        """Request the operation that kills the server."""
        self.operate(kind, **asked)
        self.until_killed(at, 1)

    def make_good(self):
        """Repeat interrupted operations; completed ones are refused or change nothing."""
        for kind, asked in self.owed:
            self.operate(kind, may_be_done=True, **asked)
        self.owed = []

    def settled(self, ids):
        """The events whose deliveries have all succeeded."""
        with self.site.ledger() as ledger:
            return {one for one in ids if {it.state for it in ledger.delivery_statuses(one)} <= {"succeeded"}}

    def kill_at(self, at, times, number, following):
        """Start a server, prepare the next one's data, and kill it at a point."""
        kind = at.partition(".")[0]
        self.start(at, times)
        if kind not in AT_ONCE | BY_LOAD:
            self.server.until_logged("server_started")
            self.prepare(at, f"{kind}-{number}")
            ahead = following.partition(".")[0]
            if ahead in EARLY:
                self.prepare(following, f"{ahead}-{number + 1}")
            self.make_good()
            until_more(self.taken, 2 * CLIENTS)
            if kind != "checkpoint":
                self.act(at, kind)
                return
            self.checkpoint(number)
        self.until_killed(at, times)
        if kind in AT_ONCE:
            self.prepared.pop(kind, None)
        if kind in AT_ONCE | BY_LOAD and (ahead := following.partition(".")[0]) in EARLY:
            self.prepare_ahead(following, f"{ahead}-{number + 1}")

    def prepare_ahead(self, at, name):
        """Prepare the data of the next point by a server that is killed as soon as they are there."""
        self.start()
        self.server.until_logged("server_started")
        self.prepare(at, name)
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
                answer = self.call(instance, body)
                if answer.status in {200, 202}:
                    self.told[instance] = answer.event_id

    def go_on(self):
        """Start a server that is not killed, after a kill in the middle of a handler that the operator resolves."""
        self.start()
        self.server.until_logged("server_started")
        self.operator.hold("held-last")
        self.server.kill()
        self.open_gates()
        self.start()
        self.server.until_logged("server_started")
        self.make_good()


class SharedLoadUnderCrashes(LoadUnderCrashes):
    """The same on a shared ledger: operations are commands, which are killed themselves, unless a server does them."""

    def start(self, at="", times=1):
        """Start the server; only points of the load or the start kill it."""
        super().start(at if at.partition(".")[0] in OF_SERVER else "", times)

    def operate(self, name, *, may_be_done=False, failpoint=None, **arguments):
        """Run a command, which may be killed at a point."""
        words = [f"--id={one}" for one in arguments.get("event_filter", {}).get("ids", ())]
        words += ["--note", arguments["note"]] if name == "dismiss" else []
        words = [arguments["delivery_id"], "--did"] if name == "resolve" else words
        words = ["--older-than", "0s", "--key", "old"] if name == "purge" else words
        words = [*(words or ["--state", "dead"]), "--detach"] if name == "operation" else words
        group = "db" if name == "purge" else "events"
        name = "replay" if name == "operation" else name
        point = {"failpoint": f"{failpoint}:1"} if failpoint else {}
        done = self.site.run(group, name, *words, "--yes", "--database", self.site.database, **SETTINGS, **point)
        assert (done.returncode == -signal.SIGKILL) == bool(failpoint), done
        assert done.returncode <= may_be_done, done

    def cut_off(self, at, kind, asked):
        """Kill the command and the server too, so that the next one has attempts to recover."""
        if kind in OF_SERVER:
            super().cut_off(at, kind, asked)
            return
        self.operate(kind, failpoint=at, **asked)
        self.server.kill()
        self.open_gates()


def running(ledger, event_id, *, waiting=False):
    """The number of an event's running or waiting deliveries."""
    return sum(
        one.state == "running" or (waiting and one.state == "waiting") for one in ledger.delivery_statuses(event_id)
    )


def unfinished(ledger):
    """The number of waiting or running deliveries."""
    tally = ledger.count_by_state()
    return tally["waiting"] + tally["running"] + tally["handler_missing"]


def asked_again(server, token, name, **arguments):
    """Request an operation until the answer is not 503, which says that its commit took too long.

    Returns:
        The answer, and whether an earlier request may have done it.
    """
    answers = []

    def is_answered():
        answers.append(server.operate(token, name, **arguments))
        return answers[-1].status != 503

    until(is_answered)
    return answers[-1], len(answers) > 1


def running_operations(ledger):
    """The bulk operations whose deliveries are not all released and executed."""
    with ledger.connection() as connection:
        return open_operations(connection)


def kill_in_turn(under_load, chain):
    """Kill servers in turn at (point, time) of `chain`, and check the result."""
    with calling(
        [under_load.address], clients=CLIENTS, key="crash", pause=0.02, backing_off=0.4, history=under_load.history
    ) as (
        taken,
        problems,
    ):
        under_load.taken = taken
        with operating(under_load):
            for number, (at, times) in enumerate(chain):
                under_load.kill_at(at, times, number, chain[number + 1][0] if number + 1 < len(chain) else "")
            under_load.go_on()
            until_more(taken, 4 * CLIENTS)
    assert problems == []
    check(under_load)


def history(under_load, deliveries):
    """All facts about deliveries: states, attempts, entered attempts, and requested operations."""
    site, found = under_load.site, []
    with site.ledger() as ledger:
        for one in sorted(deliveries):
            found += ["", repr(ledger.delivery(one)[1]), *map(repr, ledger.attempts(one))]
            found += [line for line in site.journal.read_text().splitlines() if one in line]
            found += [
                f"{server.process.pid}: {line}" for server in site._servers for line in server.lines if one in line
            ]
        with ledger.connection() as connection:
            found += ["", *map(repr, audit.entries(connection, limit=100))]
    for server in site._servers:
        for event in (
            "deliveries_recovered",
            "process_expired",
            "stale_attempt",
            "runner_fault",
            "ledger_write_failed",
        ):
            found += [f"{server.process.pid}: {record}" for record in server.logged(event)]
    return "\n".join(found)


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
        for one in events.values():
            for delivery_status in one.delivery_statuses:
                numbers = {it.number: it.outcome.value for it in ledger.attempts(delivery_status.delivery_id)}
                assert list(numbers) == list(range(1, delivery_status.attempt + 1))
                attempts |= {(delivery_status.delivery_id, number): outcome for number, outcome in numbers.items()}
    # I1: each 2xx has one durable row; `verify --against` compares all answers at the end.
    assert not set(under_load.purged.values()) & set(events)
    # I2: each delivery has ended, or is shown to an operator.
    assert not [one for one in events.values() if one.state == "parked"]
    assert {one.event.id for one in events.values() if one.state == "dismissed"} == under_load.dismissed
    assert {len(one.delivery_statuses) for one in events.values() if one.event.id in under_load.rerouted} <= {3}
    states = {
        one.delivery_id: (one.handler.partition(":")[2], one.state.value)
        for it in events.values()
        for one in it.delivery_statuses
    }
    assert set(states.values()) <= {
        *((name, "succeeded") for name in ("plain", "again", "late", "once", "scheduled", "held")),
        *((name, "unknown") for name in ("plain", "late", "once", "held")),
        *(("once", "dead"), ("once", "closed"), ("scheduled", "closed")),
    }, Counter(states.values())
    assert {states[one][1] for one in under_load.resolved & set(states)} <= {"succeeded"}
    # I3: nothing ran without a mark, no attempt twice, and what may not run twice ran once.
    entered = Counter()
    for line in site.journal.read_text().splitlines():
        name, delivery, attempt = line.split()
        if delivery in states:
            entered[name, delivery, int(attempt)] += 1
    again = {one for (_, one, _), times in entered.items() if times > 1}
    assert not again, history(under_load, again)
    assert {(delivery, attempt) for _, delivery, attempt in entered} <= set(attempts)
    # No operator lets one of these run again: replayed is only what is dead, and they never fail; *unknown* ones are
    # said to have done their work.
    once = Counter(delivery for name, delivery, _ in entered if name in {"plain", "late"})
    again = {one for one, times in once.items() if times > 1}
    assert not again, history(under_load, again)
    done = {one for one, outcome in attempts.items() if outcome == "succeeded"}
    assert done <= {(delivery, attempt) for _, delivery, attempt in entered} | {
        (delivery, attempt) for delivery, attempt in done if delivery in under_load.resolved
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
    assert report["against"]["acknowledged"] >= len(under_load.told)
    assert report["against"]["purged"] >= len(under_load.purged)
