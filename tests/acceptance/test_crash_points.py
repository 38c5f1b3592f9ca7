"""`kill -9` at every failpoint, on both databases: work continues from durable data without an operator.

One table defines for each point how it is reached and which attempt is lost there. Each round kills a process at its
point. Then the same server is started again or, on a shared ledger, another running process takes over.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import struct
import subprocess
import threading
import time
import warnings
from collections import Counter
from contextlib import closing
from itertools import count
from typing import NamedTuple

import pytest
from sqlalchemy import MetaData, create_engine, make_url

from flowhooks.failpoints import FAILPOINTS
from flowhooks.ledger import audit
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.upgrade import upgrade
from support.clients import send_callbacks, until_more
from support.journal import whole_lines
from support.process_trials import rows
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
    """Write down that it was entered, and be killed there if a test wants that."""
    line = f"{name} {delivery.id} {delivery.attempt} {event.flow_instance_id}\\n".encode()
    file = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line)
    os.close(file)
    if next(ENTERED) == LAST:
        os.kill(os.getpid(), signal.SIGKILL)

def work(delivery):
    """What is done once for each delivery's id, however often it is begun."""
    (FOLDER / "work" / delivery.id).touch()

@handler(process_key="crash")
def plain(event, delivery):
    """Not safe to run twice."""
    enter("plain", event, delivery)
    work(delivery)

@handler(process_key="crash", retry=AGAIN)
def again(event, delivery):
    """Safe to run twice; fails sometimes."""
    enter("again", event, delivery)
    work(delivery)
    if random.random() < 0.05:
        raise OSError("sometimes")

@handler(process_key="moody")
def moody(event, delivery):
    """Fails as long as it is not allowed."""
    enter("moody", event, delivery)
    if not (FOLDER / "allowed").exists():
        raise OSError("not yet")
    work(delivery)

def held(name):
    """A function that waits as long as the gate is shut."""
    def function(event, delivery):
        enter(name, event, delivery)
        while (FOLDER / "shut").exists():
            time.sleep(0.01)
        work(delivery)
    return function

@hookimpl
def handlers():
    return [
        plain,
        again,
        moody,
        handler(process_key=["held", "held-plain"], name="held_plain")(held("held_plain")),
        handler(process_key="held", name="held_again", retry=AGAIN)(held("held_again")),
    ]
'''
WANTED_LATER = '''
import os
from pathlib import Path
from flowhooks import handler, hookimpl

@handler(process_key="NAME")
def late(event, delivery):
    """A handler that is installed when its callbacks have come already."""
    with open(os.environ["JOURNAL"], "a") as journal:
        print("late", delivery.id, delivery.attempt, event.flow_instance_id, file=journal)
    (Path(os.environ["JOURNAL"]).parent / "work" / delivery.id).touch()

@hookimpl
def handlers():
    return [late]
'''
SETTINGS = {
    "answer_wait": 0.5,
    "ledger__write_timeout": 2,
    "ledger__heartbeat_timeout": 1.5,
    "runner__threads": 4,
    "runner__kind": "embedded",
}
CLIENTS = 5
ASYNC = {"Prefer": "respond-async"}
ROUNDS = (
    "load",
    "recover",
    "reroute_parked",
    "reroute",
    "dismiss",
    "resolve",
    "correct",
    "purge",
    "sweep",
    "migrate",
    "copy",
)
FINAL = {name: {"succeeded", "unknown"} for name in ("plain", "held_plain", "late", "moody")}


class Way(NamedTuple):
    """How a point is reached, and the expected result.

    Attributes:
        by: the kind of round: a test of this file.
        later: the number of times of another round.
        role: the process that is killed, on a shared ledger.
        lost: whether the attempt is lost: `"before"` its function was entered, `"after"`, or not at all.
        jobs: whether the round concerns jobs of the runner procrastinate: `"only"`, or `"too"`.
    """

    by: str
    later: int = 0
    role: str = "server"
    lost: str = ""
    jobs: str = ""


TABLE = {
    "accept.begun": Way("load", 6),
    "accept.inserted": Way("load", 7),
    "accept.written": Way("load", 8, jobs="too"),
    "accept.committed": Way("load", 9),
    "answer.made": Way("load", 10),
    "claim.written": Way("load", 4, role="worker", jobs="too"),
    "attempt.marked": Way("load", 12, role="worker", lost="before", jobs="too"),
    "handler": Way("load", 9, role="worker", lost="after", jobs="too"),
    "attempt.ended": Way("load", 11, role="worker", lost="after"),
    "settle.written": Way("load", 5, role="worker", lost="after", jobs="too"),
    "settle.committed": Way("load", 6, role="worker"),
    "job.taken": Way("load", 7, role="worker", jobs="only"),
    "job.done": Way("load", 8, role="worker", jobs="only"),
    "sweep.written": Way("sweep", jobs="only"),
    "sweep.committed": Way("sweep", jobs="only"),
    "recover.written": Way("recover"),
    "recover.committed": Way("recover"),
    "reroute_parked.written": Way("reroute_parked", 2),
    "reroute_parked.committed": Way("reroute_parked", 2),
    "reroute.written": Way("reroute"),
    "reroute.committed": Way("reroute"),
    "dismiss.written": Way("dismiss"),
    "dismiss.committed": Way("dismiss"),
    "resolve.written": Way("resolve", 2),
    "resolve.committed": Way("resolve", 2),
    "correction.written": Way("correct"),
    "correction.committed": Way("correct"),
    "purge.written": Way("purge", 2),
    "purge.committed": Way("purge", 2),
    "migrate.applied": Way("migrate"),
    "migrate.committed": Way("migrate"),
    "migrate.jobs": Way("migrate", jobs="only"),
    "copy.written": Way("copy", 3),
    "copy.committed": Way("copy", 3),
}
"""Every failpoint, and `handler`: the middle of a handler's function."""
ELSEWHERE = {
    *("accept.locked", "late_callback.body_replaced", "late_callback.written"),
    *("take_in.written", "take_in.committed"),
    *(name for name in FAILPOINTS if name.startswith(("reconcile.", "restart.", "operation."))),
}
"""The points of reconciliation: `tests/integration/intake/test_take_in_crashes.py` has the rounds of the first five,
and `test_reconciliation` those of its own steps. `test_restart_kills` has those of a replacement,
and `test_operation_crashes` those of bulk operations."""
BY_HAND = {"reroute", "dismiss", "resolve", "correct"}
"""Operations for single events, only in the long set."""
LEFT_OUT = {
    "sqlite": {
        *("reroute_parked.committed", "purge.committed", "migrate.committed", "copy.committed"),
    },
    "postgresql": {
        *("accept.begun", "accept.inserted", "accept.committed", "answer.made", "claim.written", "attempt.marked"),
        *("attempt.ended", "settle.committed", "recover.committed", "reroute_parked.written", "purge.written"),
        *("migrate.applied", "copy.written"),
    },
    "procrastinate": {"accept.written", "claim.written", "attempt.marked", "handler", "settle.written"},
}
"""Cases that only the other places or the long set test."""


def rounds(by):
    """The rounds of one kind: (place, point, times); the short set has each point at least once."""
    found = []
    for at, way in TABLE.items():
        if way.by != by:
            continue
        places = [] if way.jobs == "only" else ["sqlite", "postgresql"]
        places += ["procrastinate"] if way.jobs else []
        for place in places:
            # On a shared ledger a command is killed, which reaches its point once.
            later = 0 if by == "resolve" and place != "sqlite" else way.later
            short = later if later and place != "sqlite" and by != "reroute_parked" else 1
            more = {1, later, 3 * later if by == "load" else later} - {0, short}
            first = pytest.mark.long if at in LEFT_OUT[place] or by in BY_HAND else ()
            found += [(place, at, short, first), *((place, at, times, pytest.mark.long) for times in sorted(more))]
    found.sort(key=lambda kill_round: ("sqlite", "postgresql", "procrastinate").index(kill_round[0]))
    return [pytest.param(*kill_round, marks=marks, id="-".join(map(str, kill_round))) for *kill_round, marks in found]


def test_the_table_has_every_point():
    """Each failpoint has a round that kills a process there."""
    assert set(TABLE) == {*FAILPOINTS, "handler"} - ELSEWHERE
    every = [parameter_set for by in ROUNDS for parameter_set in rounds(by)]
    assert {parameter_set.values[1] for parameter_set in every} == set(TABLE)
    assert {parameter_set.values[1] for parameter_set in every if not parameter_set.marks} == {
        at for at, way in TABLE.items() if way.by not in BY_HAND
    }
    assert len(every) == len({parameter_set.id for parameter_set in every})


class Place:
    """A site with its own ledger, the callbacks of this round, and the server that is running."""

    def __init__(self, site, **settings):
        self.site = site
        self.settings = SETTINGS | settings
        self.shares = not site.url.startswith("sqlite")
        self.live = []
        self.places = []
        self.after = ""
        self.number = count(1)
        (site.folder / "work").mkdir(exist_ok=True)
        site.plugin("demo", PLUGIN)

    @property
    def server(self):
        """The server that is running or ran last."""
        return self.live[0]

    def start(self):
        """Start a server that is not killed."""
        self.live = [self.site.start(**self.settings)]
        self.places[:] = [self.server.address]

    def rest(self):
        """Stop the running server."""
        for process in self.live:
            if process.process.poll() is None:
                process.stop()
        self.live = []

    def begin(self):
        """Begin a round with a running server and open gates."""
        if not self.live or self.server.process.poll() is not None:
            self.start()
        for name in ("shut", "allowed"):
            (self.site.folder / name).unlink(missing_ok=True)
        with self.site.ledger() as ledger:
            while page := ledger.page(EventFilter(), limit=500, after=self.after):
                self.after = page[-1].event.id
        return f"{next(self.number)}-"

    def doomed(self, at, times, *, ready=False, **settings):
        """Replace the running server by a server that will be killed at a point."""
        self.rest()
        self.live = [self.site.start(ready=ready, **(self.settings | crash(at, times) | settings))]
        if ready:
            self.places[:] = [self.server.address]
        return self.server

    def heir(self):
        """The processes that continue after a kill: the same server, started again."""
        self.start()

    def post(self, instance, key, **headers):
        """Send one callback to the running server, as `send` does."""
        return self.send(instance, {"processDefinitionKey": key}, **headers)

    def send(self, instance, body, **headers):
        """Send one callback to the running server; again if a busy machine did not store it in time."""
        return until(lambda: (answer := self.server.post(instance, body, **headers)).status != 503 and answer)

    def entered(self):
        """(handler, delivery, attempt, instance) of each run of a handler."""
        lines = whole_lines(self.site.journal)
        return [(name, delivery, int(attempt), instance) for name, delivery, attempt, instance in map(str.split, lines)]

    def events(self):
        """All events of this round by instance."""
        found, after = {}, self.after
        with self.site.ledger() as ledger:
            while page := ledger.page(EventFilter(), limit=500, after=after):
                assert not {stored_event.event.flow_instance_id for stored_event in page} & set(found)
                found |= {stored_event.event.flow_instance_id: stored_event for stored_event in page}
                after = page[-1].event.id
        return found

    def until_over(self):
        """Wait until no delivery is waiting or running."""
        self.site.until(lambda ledger: not unfinished(ledger))

    def check(self, taken=()):
        """Check I1, I2 and I3 when all work is finished; return this round's lost attempts as (delivery, attempt)."""
        self.until_over()
        stored = self.events()
        assert {instance for instance, _, _ in taken} - set(stored) == set()
        assert {(instance, stored[instance].event.id) for instance, _, _ in taken} == {
            callback[:2] for callback in taken
        }
        names = {
            delivery_status.delivery_id: delivery_status.handler.partition(":")[2]
            for it in stored.values()
            for delivery_status in it.delivery_statuses
        }
        marked = {}
        with self.site.ledger() as ledger:
            for stored_event in stored.values():
                for delivery_status in stored_event.delivery_statuses:
                    attempts = ledger.attempts(delivery_status.delivery_id)
                    assert [it.number for it in attempts] == list(range(1, delivery_status.attempt + 1))
                    marked |= {(delivery_status.delivery_id, it.number): it.outcome.value for it in attempts}
                    assert delivery_status.state in FINAL.get(names[delivery_status.delivery_id], {"succeeded"})
                    last = attempts[-1].outcome.value
                    assert (delivery_status.state, last) in {("succeeded", "succeeded"), ("unknown", "lost")}
            shown = {
                delivery_status.delivery_id
                for it in ledger.page(EventFilter(state="unknown"), limit=10_000)
                for delivery_status in it.delivery_statuses
                if delivery_status.state == "unknown"
            }
            assert ledger.verify().problems == []
        unknown = {
            delivery_status.delivery_id
            for it in stored.values()
            for delivery_status in it.delivery_statuses
            if delivery_status.state == "unknown"
        }
        assert unknown <= shown
        entered = Counter((delivery, attempt) for _, delivery, attempt, _ in self.entered() if delivery in names)
        assert set(entered.values()) <= {1}
        assert set(entered) <= set(marked)
        assert {attempt for attempt, outcome in marked.items() if outcome == "succeeded"} <= set(entered)
        once = Counter(delivery for delivery, _ in entered if names[delivery] == "plain")
        assert set(once.values()) <= {1}
        done = {file.name for file in (self.site.folder / "work").iterdir()}
        assert {delivery_id for delivery_id in names if delivery_id not in unknown} <= done
        return {attempt for attempt, outcome in marked.items() if outcome == "lost"}, set(entered)


class Cluster(Place):
    """Two servers without workers and two workers share the ledger; a third process of either kind is killed."""

    lives = ()

    def start(self):
        """Start all four processes."""
        servers = [self.site.start("--no-worker", **self.settings, ready=False) for _ in range(2)]
        self.live = [*servers, self.worker(), self.worker()]
        self.lives = [server.address for server in servers]
        self.places[:] = self.lives
        for worker in self.live[len(servers) :]:
            worker.until_logged("worker_started")  # before that, `rest` would end it with a signal

    def worker(self, **settings):
        """Start a worker."""
        return self.site.start_worker("--plugins-dir", self.site.plugins, ready=False, **self.settings, **settings)

    def doomed(self, at, times, *, ready=False, **settings):
        """Start one more process that will be killed at a point."""
        given = crash(at, times) | settings
        if TABLE[at].role == "worker":
            victim = self.worker(**given)
            victim.until_logged("worker_started")
            return victim
        victim = self.site.start("--no-worker", **self.settings, **given)
        self.places[:] = [victim.address, *self.lives]
        return victim

    def heir(self):
        """The processes that continue after a kill: those that are still running."""
        self.places[:] = self.lives


def unfinished(ledger):
    """The number of waiting or running deliveries."""
    tally = ledger.count_by_state()
    return tally["waiting"] + tally["running"] + tally["handler_missing"]


def crash(at, times):
    """The settings that kill a process at a point."""
    return {"test_in_handler": times} if at == "handler" else {"failpoint": f"{at}:{times}"}


def until_killed(victim, at, times):
    """Wait for the end of a process, and check that it was killed at the intended point."""
    try:
        victim.process.wait(WAIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        pytest.fail(f"{at} was not reached {times} times:\n" + "\n".join(victim.lines[-10:]))
    assert victim.wait() == -signal.SIGKILL, "\n".join(victim.lines[-20:])
    if at != "handler":
        assert f"killed at {at}:{times}, as FLOWHOOKS_FAILPOINT says" in victim.lines


@pytest.fixture(scope="module")
def new_postgresql(postgresql_server):
    """A function that makes an empty PostgreSQL database without tables."""
    made = []

    def make():
        made.append(f"crash_points_{len(made)}_{time.time_ns()}")
        return postgresql_server.make(made[-1])

    yield make
    for name in made:
        postgresql_server.drop(name)


@pytest.fixture(scope="module")
def place(make_site, new_postgresql):
    """A function that returns a place of a kind on a database; only the servers of the last place run."""
    made = {}

    def get(name, kind=Place):
        if name == "sqlite":
            kind = Place
        for other, place in made.items():
            if other != (name, kind):
                place.rest()
        if (name, kind) not in made:
            site, runner = make_site(), "procrastinate" if name == "procrastinate" else "embedded"
            if name != "sqlite":
                site.database = site.url = new_postgresql()
                done = site.run("db", "upgrade", "--database", site.url, runner__kind=runner)
                assert done.returncode == 0, done.stderr
            made[name, kind] = kind(site, runner__kind=runner)
        return made[name, kind]

    yield get
    for place in made.values():
        place.rest()
        verified = place.site.run("verify", "--database", place.site.database)
        assert verified.returncode == 0, verified


@pytest.mark.parametrize(("name", "at", "times"), rounds("load"))
def test_load(place, name, at, times):
    """Engines repeat callbacks until they get 2xx: each is stored once, and run as its handlers allow."""
    here = place(name, Cluster)
    prefix = here.begin()
    victim = here.doomed(at, times, ready=True)
    with send_callbacks(here.places, clients=CLIENTS, key="crash", name=prefix, pause=0.005) as (taken, problems):
        until_killed(victim, at, times)
        here.heir()
        until_more(taken, 2 * CLIENTS)
    assert problems == []
    lost, entered = here.check(taken)
    if TABLE[at].lost:
        assert lost & entered if TABLE[at].lost == "after" else lost - entered
    assert len(here.events()) >= len({instance for instance, _, _ in taken})


@pytest.mark.parametrize(("name", "at", "times"), rounds("recover"))
def test_recover(place, name, at, times):
    """A server is killed while it recovers running attempts: the next server recovers each attempt once."""
    here = place(name)
    prefix = here.begin()
    gate = here.site.folder / "shut"
    gate.touch()
    events = [here.post(f"{prefix}{number}", "held", **ASYNC).event_id for number in range(2)]
    here.site.until(lambda _ledger: sum(run[3].startswith(prefix) for run in here.entered()) == 4)
    here.server.kill()
    gate.unlink()
    until_killed(here.doomed(at, times), at, times)
    here.heir()
    lost, entered = here.check()
    assert len(lost) == 4
    assert lost <= entered
    with here.site.ledger() as ledger:
        for event_id in events:
            found = {it.handler: (it.state.value, it.attempt) for it in ledger.delivery_statuses(event_id)}
            assert found == {"demo:held_plain": ("unknown", 1), "demo:held_again": ("succeeded", 2)}


@pytest.mark.parametrize(("name", "at", "times"), rounds("reroute_parked"))
def test_reroute_parked(place, name, at, times):
    """A server is killed while it delivers parked events: each event gets one delivery, which runs once."""
    here = place(name)
    prefix = here.begin()
    key = f"late-{prefix[:-1]}"
    wanted = 5 if times == 1 else 505  # one transaction stores 500 of them
    with send_callbacks(here.places, clients=CLIENTS, key=key, name=prefix) as (taken, problems):
        until_more(taken, wanted)
    assert problems == []
    here.site.plugin(f"late_{prefix[:-1]}", WANTED_LATER.replace("NAME", key))
    until_killed(here.doomed(at, times), at, times)
    here.heir()
    here.site.until(lambda ledger: not ledger.page(EventFilter(state="parked"), limit=1))
    lost, entered = here.check(taken)
    ran = [delivery for name, delivery, _, instance in here.entered() if name == "late" and instance.startswith(prefix)]
    # Once a part is durable, its deliveries run in all threads.
    assert len(lost) <= (0 if (at, times) == ("reroute_parked.written", 1) else SETTINGS["runner__threads"])
    assert len(ran) == len(set(ran)) == len(entered)
    assert len(lost | entered) == len(here.events())


def commanded(here, at, times, *command):
    """Run commands in turn until the last one kills the server, or the command itself where it writes the ledger."""
    words = ("events", *command[0], "--yes", "--database", here.site.database)
    if here.shares:
        killed = here.site.run(*words, **here.settings, **crash(at, times))
        assert killed.returncode == -signal.SIGKILL, killed
        assert f"killed at {at}:{times}" in killed.stderr
        return
    for number, subcommand in enumerate(command, 1):
        done = here.site.run("events", *subcommand, "--yes", "--database", here.site.database, **here.settings)
        assert (done.returncode == 0) == (number < len(command)), done
    until_killed(here.server, at, times)
    here.heir()


@pytest.mark.parametrize(("name", "at", "times"), rounds("reroute"))
def test_reroute(place, name, at, times):
    """A killed reroute is applied or not; the repeated command completes it, and no finished delivery runs again."""
    here = place(name)
    prefix = here.begin()
    wanted = f"late-{prefix[:-1]}"
    body = {"processDefinitionKey": "crash", "callBackProcessClass": wanted}
    events = [here.server.post(f"{prefix}{number}", body, Prefer="wait=20").event_id for number in range(3)]
    here.until_over()
    here.site.plugin(f"late_{prefix[:-1]}", WANTED_LATER.replace('process_key="NAME"', f'callback_class="{wanted}"'))
    here.rest()
    if here.shares:
        here.start()
    else:
        here.doomed(at, times, ready=True)
    with here.site.ledger() as ledger:
        assert {len(ledger.delivery_statuses(event_id)) for event_id in events} == {2}
    words = ("reroute", *(f"--id={event_id}" for event_id in events))
    commanded(here, at, times, words)
    with here.site.ledger() as ledger:
        assert {len(ledger.delivery_statuses(event_id)) for event_id in events} == {2 if at == "reroute.written" else 3}
    again = here.site.run("events", *words, "--yes", "--database", here.site.database, **here.settings)
    assert again.returncode == 0, again.stderr
    lost, entered = here.check()
    assert not lost or at == "reroute.committed"  # the delivery is running by then
    ran = [run for run in here.entered() if run[3].startswith(prefix)]
    assert Counter(name for name, *_ in ran if name != "again") == {"plain": 3, "late": 3 - len(lost - entered)}
    assert {len(stored_event.delivery_statuses) for stored_event in here.events().values()} == {3}


@pytest.mark.parametrize(("name", "at", "times"), rounds("dismiss"))
def test_dismiss(place, name, at, times):
    """A killed dismissal is stored with its audit entry or not at all; the repeated command completes it."""
    here = place(name)
    prefix = here.begin()
    if not here.shares:
        here.doomed(at, times, ready=True)
    key = f"nobody-{prefix[:-1]}"
    for number in range(3):
        assert here.post(f"{prefix}{number}", key).status == 202
    words = ("dismiss", "--key", key, "--note", key)
    commanded(here, at, times, words)
    before = "parked" if at == "dismiss.written" else "dismissed"
    assert {stored_event.state for stored_event in here.events().values()} == {before}
    again = here.site.run("events", *words, "--yes", "--database", here.site.database, **here.settings)
    assert again.returncode == 0, again.stderr
    here.check()
    assert {stored_event.state for stored_event in here.events().values()} == {"dismissed"}
    with here.site.ledger() as ledger, ledger.connection() as connection:
        deeds = [entry for entry in audit.entries(connection, limit=100) if entry.detail.get("note") == key]
    assert [entry.detail["events"] for entry in deeds] == [3]


def delivery_status(ledger, event_id):
    """The state and the attempts of an event's only delivery."""
    (only,) = ledger.delivery_statuses(event_id)
    return only.state.value, only.attempt


@pytest.mark.parametrize(("name", "at", "times"), rounds("correct"))
def test_correct(place, name, at, times):
    """A killed correction is stored with its deliveries and audit entry or not at all; a repeat never stores two."""
    here = place(name)
    prefix = here.begin()
    if not here.shares:
        here.doomed(at, times, ready=True)
    body = {"processDefinitionKey": "held-plain", "businessKey": "first"}
    event_id = here.server.post(f"{prefix}0", body, Prefer="wait=20").event_id
    assert here.server.post(f"{prefix}0", body | {"businessKey": "second"}).status == 409
    with here.site.ledger() as ledger:
        (conflict,) = ledger.conflicts(event_id)
    words = ("correct", event_id, "--conflict", conflict.digest, "--note", prefix)
    commanded(here, at, times, words)
    with here.site.ledger() as ledger:
        (conflict,) = ledger.conflicts(event_id)
    assert (conflict.corrected_by is None) == (at == "correction.written")
    again = here.site.run("events", *words, "--yes", "--database", here.site.database, **here.settings)
    assert (again.returncode == 0) == (conflict.corrected_by is None), again.stderr
    here.until_over()
    with here.site.ledger() as ledger, ledger.connection() as connection:
        (conflict,) = ledger.conflicts(event_id)
        assert delivery_status(ledger, conflict.corrected_by) in {("succeeded", 1), ("unknown", 1)}
        deeds = [entry for entry in audit.entries(connection, limit=100) if entry.detail.get("note") == prefix]
        assert ledger.verify().problems == []
    assert [entry.target for entry in deeds] == [event_id]
    assert here.server.post(f"{prefix}0", body | {"businessKey": "second"}).event_id == conflict.corrected_by
    assert sum(run[3].startswith(prefix) for run in here.entered()) == 2


@pytest.mark.parametrize(("name", "at", "times"), rounds("resolve"))
def test_resolve(place, name, at, times):
    """A process is killed while it records an operator's decision: it is stored or not, and the operator sees which."""
    here = place(name)
    prefix = here.begin()
    gate = here.site.folder / "shut"
    gate.touch()
    events = [here.post(f"{prefix}{number}", "held-plain", **ASYNC).event_id for number in range(times)]
    here.site.until(lambda _ledger: sum(run[3].startswith(prefix) for run in here.entered()) == times)
    here.server.kill()
    gate.unlink()
    if here.shares:
        here.start()
    else:
        here.doomed(at, times, ready=True)
    here.site.until(lambda ledger: all(delivery_status(ledger, event_id) == ("unknown", 1) for event_id in events))
    with here.site.ledger() as ledger:
        ids = [ledger.delivery_statuses(event_id)[0].delivery_id for event_id in events]
    commanded(here, at, times, *(("resolve", delivery_id, "--did-not") for delivery_id in ids))
    with here.site.ledger() as ledger:
        state, attempt = delivery_status(ledger, events[-1])
    assert attempt == 1 if at == "resolve.written" else attempt == 2 or state == "waiting"
    again = here.site.run("events", "resolve", ids[-1], "--did-not", "--yes", "--database", here.site.database)
    # The delivery is still unknown: nothing was recorded, or its new attempt was lost again.
    assert (again.returncode == 0) == (state == "unknown"), again
    lost, entered = here.check()
    with here.site.ledger() as ledger:
        ends = [delivery_status(ledger, event_id) for event_id in events]
    assert {state for state, _ in ends} == {"succeeded"}
    attempts = sum(attempt for _, attempt in ends)
    assert sum(run[3].startswith(prefix) for run in here.entered()) == attempts - len(lost - entered)


@pytest.mark.parametrize(("name", "at", "times"), rounds("purge"))
def test_purge(place, name, at, times):
    """A killed purge deletes events completely or not at all; the same command deletes the rest, and none returns."""
    here = place(name)
    prefix = here.begin()
    if not here.shares:
        here.doomed(at, times, ready=True)
    wanted = 5 if times == 1 else 350  # one transaction deletes 100 of them
    with send_callbacks(here.places, clients=CLIENTS, key="held", name=prefix) as (taken, problems):
        until_more(taken, wanted)
    assert problems == []
    here.until_over()
    stored = set(here.events())
    words = ("db", "purge", "--older-than", "0s", "--key", "held", "--yes", "--database", here.site.database)
    killed = here.site.run(*words, **here.settings, **(crash(at, times) if here.shares else {}))
    if here.shares:
        assert killed.returncode == -signal.SIGKILL, killed
    else:
        assert killed.returncode == 1, killed
        until_killed(here.server, at, times)
        here.heir()
    left = set(here.events())
    assert (left == stored) == (at == "purge.written" and times == 1)
    here.site.balance()
    again = here.site.run(*words, **here.settings)
    assert again.returncode == 0, again.stderr
    assert here.events() == {}
    for instance, event_id, _ in taken[:20]:
        answer = here.send(instance, {"processDefinitionKey": "held", "businessKey": instance})
        assert (answer.status, answer.json, answer.event_id) == (200, {"success": True}, event_id)
    assert here.events() == {}
    here.site.balance()


@pytest.mark.parametrize(("name", "at", "times"), rounds("sweep"))
def test_sweep(place, name, at, times):
    """A process is killed while it recreates a dead worker's job: the next one does it, and the delivery runs once."""
    here = place(name)
    prefix = here.begin()
    # The server of an earlier round may have stored a second job, which would be the first one that is taken.
    until(lambda: not rows(here.site.url, "SELECT id FROM procrastinate_jobs WHERE status = 'todo'"))
    # With one thread, the delivery does not start with its callback, so that it needs a job.
    victim = here.doomed("job.taken", 1, ready=True, runner__threads=1)
    with contextlib.suppress(OSError):  # the server ends by itself
        # For one handler only: the job of a second one would run and be lost while the second server creates this one.
        here.post(prefix, "held-plain", **ASYNC)
    until_killed(victim, "job.taken", 1)
    until_killed(here.doomed(at, times), at, times)
    here.heir()
    lost, entered = here.check()
    assert not lost
    assert len(entered) == 1
    assert sum(name == "held_plain" and instance == prefix for name, _, _, instance in here.entered()) == 1


@pytest.mark.parametrize(("name", "at", "times"), rounds("migrate"))
def test_migrate(make_site, new_postgresql, name, at, times):
    """A process is killed while it creates tables: the same command completes them, with the same result as one run."""
    site = make_site()
    database = site.database if name == "sqlite" else new_postgresql()
    words = ("db", "upgrade", "--database", database)
    runner = {"runner__kind": name} if name == "procrastinate" else {}
    killed = site.run(*words, **runner, **crash(at, times))
    assert killed.returncode == -signal.SIGKILL, killed
    again = site.run(*words, **runner)
    assert again.returncode == 0, again.stderr
    assert ("Created" in again.stdout) == (at == "migrate.applied")
    url = site.url if name == "sqlite" else database
    unused = make_site()
    whole = unused.url if name == "sqlite" else new_postgresql()
    upgrade(whole)
    assert schema(url) == schema(whole)
    site.database = site.url = url
    site.plugin("demo", PLUGIN)
    (site.folder / "work").mkdir()
    server = site.start(**SETTINGS | runner)
    until(lambda: server.post("i", {"processDefinitionKey": "crash"}, Prefer="wait=20").status == 200)
    server.stop()
    site.balance()


def schema(url):
    """Every table and index of flowhooks in a database, as created."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg") if "postgresql" in url else url)
    try:
        found = MetaData()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index")
            found.reflect(engine)
        return {
            (table.name, tuple((column.name, str(column.type), column.nullable) for column in table.columns))
            for table in found.tables.values()
            if not table.name.startswith("procrastinate")
        } - {("job_migrations", (("name", "TEXT", False), ("applied_at", "TIMESTAMP", False)))}
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def to_copy(make_site):
    """A ledger on SQLite with data, including open deliveries."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    (site.folder / "work").mkdir()
    server = site.start(**SETTINGS, test_in_handler=700)
    with send_callbacks([server.address], clients=CLIENTS, key="crash") as (taken, _):
        until_killed(server, "handler", 700)
    assert taken
    return site


@pytest.mark.parametrize(("name", "at", "times"), rounds("copy"))
def test_copy(to_copy, make_site, new_postgresql, name, at, times):  # noqa: PLR0917 (fixtures, and a round)
    """A killed copy is continued by the same command, and all digests of the copy are equal."""
    site = make_site()
    target = f"sqlite:///{site.database}" if name == "sqlite" else new_postgresql()
    words = ("db", "copy", to_copy.url, target)
    killed = site.run(*words, **crash(at, times))
    assert killed.returncode == -signal.SIGKILL, killed
    again = site.run(*words, "--json")
    assert again.returncode == 0, again.stderr
    kept = sum(table["kept"] for table in json.loads(again.stdout)["tables"].values())
    assert (kept > 0) == (at == "copy.committed" or times > 1)
    with to_copy.ledger() as source, closing(Reader(target)) as copied:
        assert copied.verify().accepted == source.verify().accepted
        assert copied.verify().problems == []


def backfilled(database):
    """Numbers of the write-ahead log's index: its last frame, the frames surely copied, and the frames attempted."""
    raw = database.with_name(database.name + "-shm").read_bytes()
    (last,) = struct.unpack_from("=I", raw, 16)
    (sure,) = struct.unpack_from("=I", raw, 96)
    (tried,) = struct.unpack_from("=I", raw, 128)
    return last, sure, tried


def stopped_in_a_checkpoint(site, server, sent):
    """Stop the server at each write to its file until it is in a checkpoint; return whether it was.

    The index is read while the server is stopped: on a busy machine the checkpoint may otherwise end before the read.
    """
    before = site.database.stat().st_mtime_ns
    while sent.is_alive():
        if site.database.stat().st_mtime_ns == before:
            continue
        server.freeze()
        last, sure, tried = backfilled(site.database)
        if sure < tried <= last:
            return True
        before = site.database.stat().st_mtime_ns
        server.signal(signal.SIGCONT)
    return False


@pytest.mark.parametrize("wanted", [1, pytest.param(6, marks=pytest.mark.long)])
def test_kill_during_a_checkpoint(make_site, wanted):
    """SQLite is killed while it copies its log into its file: no acknowledged callback is missing.

    SQLite has no failpoints of flowhooks, so this test watches the file, which only a checkpoint writes.
    """
    site = make_site()
    (site.folder / "work").mkdir()
    site.plugin("demo", PLUGIN)
    taken, caught = {}, 0
    for number in range(10 + 2 * wanted):
        server = site.start(**SETTINGS)
        sent = threading.Thread(target=fill, args=(server, f"{number}-", taken), daemon=True)
        sent.start()
        stopped_in_a_checkpoint(site, server, sent)
        server.process.kill()
        server.wait()
        sent.join(WAIT_TIMEOUT)
        last, sure, tried = backfilled(site.database)
        caught += sure < tried <= last
        with site.ledger() as ledger:
            assert ledger.quick_check() is None
        if caught == wanted:
            break
    assert caught == wanted
    server = site.start(**SETTINGS)
    site.until(lambda ledger: not unfinished(ledger))
    with site.ledger() as ledger:
        for instance, event_id in taken.items():
            (found,) = ledger.page(EventFilter(flow_instance_id=instance), limit=10)
            assert found.event.id == event_id
        assert ledger.quick_check() is None
    site.balance()
    server.stop()


def fill(server, name, taken):
    """Send large callbacks in turn until the server has exited."""
    padding = "x" * 200_000
    with contextlib.suppress(OSError, http.client.HTTPException):
        for number in range(400):
            answer = server.post(f"{name}{number}", {"processDefinitionKey": "crash", "padding": padding}, **ASYNC)
            if answer.status in {200, 202}:
                taken[f"{name}{number}"] = answer.event_id
