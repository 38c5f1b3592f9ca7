"""A real Flowable without code of flowhooks: reconciliation runs the handler of each completed instance, despite kills.

Needs Java, Maven and Maven's downloads; without them the test is skipped with the reason.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from support import fork_server
from support.flowable_rest import FlowableServer, class_path
from support.ports import free_port
from support.waiting import until

pytestmark = [pytest.mark.java, pytest.mark.timeout(1200)]  # the first build downloads, and Flowable starts twice

DIAGRAM = Path(__file__).parents[1] / "data/engines/flowable/src/main/resources/contract.bpmn20.xml"
"""Processes that set the variable `conclusion` in the diagram."""
WAYS = ["approved", "rejected", "cancelled", "error", "terminate"]
INSTANCES = 200
WAIT_TIMEOUT = 300.0
"""Timeout of waits in seconds: the engine starts, and reconciles every five seconds."""
CONFIG = """
[sources.oa.engine]
client = "flowable"
url = "{url}"
username = "rest"
password = {{env = "OA_PASSWORD"}}
page_size = 50
reconcile_every = "5s"
grace = "1s"
children = true
timeout = 10
"""
PLUGIN = '''
import os, sqlite3
from contextlib import closing
from flowhooks import Retry, handler, hookimpl

def book(name, event):
    """Book once for each event, even if the process is killed before the result is recorded."""
    with closing(sqlite3.connect(os.environ["BOOKINGS"], timeout=60)) as database, database:
        database.execute(
            "INSERT OR IGNORE INTO bookings VALUES (?, ?, ?)", (event.id, name, event.flow_instance_id)
        )

SOON = Retry(attempts=100, delays=[0.1])

@handler(process_key="expense_approval", conclusion="approved", retry=SOON)
def pay(event):
    """Take the approved instances."""
    book("pay", event)

@handler(process_key="expense_approval", conclusion="rejected", retry=SOON)
def notify(event):
    """Take the rejected instances."""
    book("notify", event)

@handler(process_key="order", retry=SOON)
def ship(event):
    """Take the instances that have called others."""
    book("ship", event)

@hookimpl
def handlers():
    return [pay, notify, ship]
'''


class Site:
    """A folder with a ledger, a plugin and the settings, in which `flowhooks serve` runs and is killed."""

    def __init__(self, folder, engine_url):
        self.folder = folder
        self.ledger = folder / "flowhooks.db"
        self.bookings = folder / "bookings.db"
        self.listen = f"127.0.0.1:{free_port()}"
        (folder / "plugins").mkdir()
        (folder / "plugins/deeds.py").write_text(PLUGIN)
        (folder / "flowhooks.toml").write_text(CONFIG.format(url=engine_url))
        with closing(sqlite3.connect(self.bookings)) as database:
            database.execute("CREATE TABLE bookings (event_id TEXT, handler TEXT, instance TEXT, UNIQUE (event_id))")
        self.process = None

    def start(self):
        """Start the server, and wait until it serves."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
        self.process = fork_server.start(
            [
                *(*fork_server.FLOWHOOKS, "serve", "--database", str(self.ledger), "--listen", self.listen),
                *("--admin", "127.0.0.1:0", "--plugins-dir", str(self.folder / "plugins")),
            ],
            cwd=self.folder,
            env=kept
            | {"FLOWHOOKS_PLUGINS_ALLOW": "deeds,flowable", "OA_PASSWORD": "secret", "BOOKINGS": str(self.bookings)},
        )
        said = []
        for line in self.process.stderr:
            said.append(line.decode())
            if '"server_started"' in said[-1]:
                break
        else:
            pytest.fail("the server did not start:\n" + "".join(said))
        self._reading = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reading.start()

    def end(self, *, kill):
        """Kill the server with SIGKILL, or request a graceful shutdown; wait for its end."""
        (self.process.kill if kill else self.process.terminate)()
        code = self.process.wait(WAIT_TIMEOUT)
        self._reading.join()
        self.process.stderr.close()
        assert kill or code == 0

    def rows(self, sql, database=None):
        """The rows of a query."""
        with closing(sqlite3.connect(f"file:{database or self.ledger}?mode=ro", uri=True, timeout=60)) as opened:
            return opened.execute(sql).fetchall()

    def booked(self):
        """The bookings so far: handler and instance."""
        return self.rows("SELECT handler, instance FROM bookings", self.bookings)


@pytest.fixture
def engine(tmp_path):
    """A Flowable, whose database survives its kill."""
    class_path()  # first, because it may skip
    folder = tmp_path / "engine"
    folder.mkdir()
    with closing(FlowableServer(folder)) as server:
        yield server.start()


@pytest.fixture
def site(tmp_path, engine):
    """A flowhooks server that asks this engine."""
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder, engine.url)
    site.start()
    yield site
    if site.process.poll() is None:
        site.end(kill=True)


def start_instance(engine, way):
    """Start an instance; return its id. An instance that ends with an error has a caller, which catches the error."""
    if way != "error":
        return engine.start_instance("expense_approval", business_key="E-1")
    return engine.called(engine.start_instance("order", variables={"called": "expense_approval"}))


def end_instance(engine, instance, way):
    """End an instance in this way."""
    if way == "cancelled":
        engine.cancel(instance)
    else:
        decisions = {"error": "fraud", "terminate": "stopped"}
        engine.complete(instance, decision=decisions.get(way, way))


def test_each_completed_instance_is_handled_once_despite_kills(engine, site):
    """Of 200 ends of five kinds the completed ones run the handler of their conclusion once; the others run none.

    flowhooks is killed twice and Flowable once, while instances end.
    """
    engine.deploy(DIAGRAM.read_bytes())
    until(lambda: site.rows("SELECT 1 FROM engine_positions WHERE succeeded_at > 0"), seconds=WAIT_TIMEOUT)
    ways = {start_instance(engine, way): way for _ in range(INSTANCES // len(WAYS)) for way in WAYS}
    callers = {row["id"] for row in engine.instances("order")}
    assert (len(ways), len(callers)) == (INSTANCES, INSTANCES // len(WAYS))

    for number, (instance, way) in enumerate(ways.items()):
        if number in {60, 140}:
            until(lambda number=number: len(site.booked()) >= number / 4, seconds=WAIT_TIMEOUT)
            site.end(kill=True)
        if number in {80, 160}:
            site.start()
        if number == 100:
            engine.kill()
            engine.start()
        end_instance(engine, instance, way)

    known = ways.keys() | callers
    open_rows = "SELECT count(*) FROM engine_instances WHERE disposition = 'in_grace'"
    in_book = "SELECT count(*) FROM engine_instances"
    until(
        lambda: site.rows(in_book) == [(len(known),)] and site.rows(open_rows) == [(0,)],
        seconds=WAIT_TIMEOUT,
        poll=0.2,
        why=lambda: site.rows("SELECT disposition, rule, count(*) FROM engine_instances GROUP BY 1, 2"),
    )
    handlers = {"approved": "pay", "rejected": "notify"}
    expected = {(handlers[way], instance) for instance, way in ways.items() if way in handlers}
    expected |= {("ship", caller) for caller in callers}
    until(lambda: len(site.booked()) >= len(expected), seconds=WAIT_TIMEOUT, poll=0.2, why=site.booked)
    site.end(kill=False)

    assert Counter(site.booked()) == Counter(expected)
    skipped = site.rows("SELECT rule, count(*) FROM engine_instances WHERE disposition = 'skipped' GROUP BY 1")
    assert skipped == [("end_state", 3 * INSTANCES // len(WAYS))]
    with closing(Reader(f"sqlite:///{site.ledger}")) as reader:
        events = reader.page(EventFilter(), limit=1000)
        assert Counter(stored_event.event.flow_instance_id for stored_event in events) == Counter(
            instance for _, instance in expected
        )
        assert {(stored_event.event.origin, stored_event.event.source) for stored_event in events} == {
            ("reconciled", "oa")
        }
        assert {status.state.value for stored_event in events for status in stored_event.delivery_statuses} == {
            "succeeded"
        }
        assert reader.verify().problems == []
