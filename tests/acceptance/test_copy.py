"""`flowhooks db copy` in its own process: killed and repeated, and applied to the ledger of a killed server."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from contextlib import closing

import psycopg
import pytest

from flowhooks.ledger import row_stream
from flowhooks.ledger.checksums import texts_sha256
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.tables import metadata
from flowhooks.ledger.upgrade import upgrade
from support.waiting import until

PLUGIN = """
import os, pathlib, time
from flowhooks import Retry, handler, hookimpl

def _work(event, delivery):
    with open(os.environ["JOURNAL"], "a") as journal:
        print(event.flow_instance_id, delivery.attempt, file=journal, flush=True)
    gate = pathlib.Path(os.environ["JOURNAL"]).with_name("shut")
    while gate.exists():
        time.sleep(0.01)

@handler(process_key="once")
def once(event, delivery):
    _work(event, delivery)

@handler(process_key="again", retry=Retry(attempts=5, delays=[0.05], jitter=0))
def again(event, delivery):
    _work(event, delivery)

@hookimpl
def handlers():
    return [once, again]
"""
EVENTS = row_stream.MAX_BATCH_ROWS * 3
MADE_AT = 0x019AB2C40000 * 1000
"""The creation time of the ids of its events, in microseconds since 1970."""
PROCESS = "019ab2c4-0000-7000-8000-ffffffffffff"
"""The id of the process that made the ledger's rows."""


@pytest.fixture
def other(postgresql_server):
    """An empty PostgreSQL database."""
    name = "flowhooks_copy_target"
    yield postgresql_server.make(name)
    postgresql_server.drop(name)


def fill(file, count=EVENTS):
    """Make a ledger with `count` events, each delivered."""
    upgrade(f"sqlite:///{file}")
    ids = [f"019ab2c4-0000-7000-8000-{number:012x}" for number in range(count)]
    body = json.dumps({"processDefinitionKey": "leave", "text": "合同"}, ensure_ascii=False)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany(
            "INSERT INTO events (id, source, kind, flow_instance_id, callback_class, process_definition_key, body, "
            "digest, state, route, route_size, repeats, received_at, identity_sha256) "
            f"VALUES (?, 's', 'complete', ?, '', 'leave', ?, '{'0' * 64}', 'routed', ?, 1, 0, {MADE_AT}, ?)",
            [
                (event_id, event_id, body, '{"p:h": "key leave"}', texts_sha256(("s", "complete", event_id, "")))
                for event_id in ids
            ],
        )
        connection.executemany(
            "INSERT INTO deliveries (id, event_id, handler, state, attempt, retry_base, comment, created_at, "
            f"changed_at) VALUES (?, ?, 'p:h', 'succeeded', 1, 0, '', {MADE_AT}, {MADE_AT})",
            [(event_id, event_id) for event_id in ids],
        )
        connection.executemany(
            "INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback) "
            f"VALUES (?, 1, '{PROCESS}', {MADE_AT}, {MADE_AT}, 'succeeded', '', '')",
            [(delivery_id,) for delivery_id in ids],
        )
        connection.execute(f"INSERT INTO counters VALUES ('accepted', '{PROCESS}', ?)", (count,))
        connection.execute(
            f"INSERT INTO processes VALUES ('{PROCESS}', 'here', 1, {MADE_AT}, NULL, {MADE_AT}, 'server', '[\"p:h\"]')"
        )
    return ids


def counted(url):
    """The number of rows of each table."""
    names = [table.name for table in metadata.sorted_tables]
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    with psycopg.connect(url) as connection:
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def killed(site, source, target, waits):
    """Copy in another process, and kill it once `waits` returns that it is in the middle."""
    process = subprocess.Popen(
        site.command("db", "copy", source, target),
        cwd=site.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:

        def in_the_middle():
            assert process.poll() is None, process.stderr.read()
            return waits()

        until(in_the_middle, poll=0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def copied(site, source, target):
    """Copy completely and return the summary."""
    done = site.run("db", "copy", source, target, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_waiting(connection):
    """Whether a process of flowhooks waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'flowhooks' AND wait_event_type = 'Lock'"
    return connection.execute(query).fetchone()[0] > 0


def test_a_killed_copy_to_postgresql_is_repeated(make_site, other):
    """A copy killed in the third batch of events is repeated; it keeps two batches and copies the rest."""
    site = make_site()
    ids = fill(site.database)
    upgrade(other)
    with psycopg.connect(other) as blocking, psycopg.connect(other, autocommit=True) as watching:
        # A row locked by an open transaction blocks other writers of that row.
        blocking.execute(
            "INSERT INTO events (id, source, kind, flow_instance_id, callback_class, body, digest, state, route, "
            "route_size, repeats, received_at, identity_sha256) "
            "VALUES (%s, 'x', 'x', 'x', 'x', '', '', 'x', '{}', 0, 0, 0, 'x')",
            (ids[row_stream.MAX_BATCH_ROWS * 2 + 7],),
        )
        killed(site, site.database, other, lambda: is_waiting(watching))
        blocking.rollback()
    # The transaction ends when the server notices that its client is gone.
    assert counted(other) | {"processes": 0, "counters": 0} == dict.fromkeys(counted(other), 0) | {
        "events": row_stream.MAX_BATCH_ROWS * 2
    }
    summary = copied(site, site.database, other)
    assert summary["tables"]["events"] | {"digest": ""} == {
        "rows": EVENTS,
        "kept": row_stream.MAX_BATCH_ROWS * 2,
        "digest": "",
    }
    assert summary["balanced"]
    assert counted(other) == counted(site.url)


def test_a_killed_copy_to_sqlite_is_repeated(make_site, other):
    """A copy killed before the attempts is repeated, and continues in the same file."""
    site = make_site()
    fill(site.database)
    copied(site, site.database, other)
    target = f"sqlite:///{site.folder / 'back.db'}"
    with psycopg.connect(other) as blocking, psycopg.connect(other, autocommit=True) as watching:
        blocking.execute("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
        killed(site, other, target, lambda: is_waiting(watching))
    assert counted(target) == counted(site.url) | {"attempts": 0}
    summary = copied(site, other, target)
    assert summary["tables"]["deliveries"]["kept"] == EVENTS
    assert summary["tables"]["attempts"]["kept"] == 0
    assert summary["balanced"]
    assert counted(target) == counted(site.url)


def test_the_ledger_of_a_killed_server_is_copied(make_site, other):
    """The first start on PostgreSQL recovers running attempts and continues all other work."""
    site = make_site()
    site.plugin("p", PLUGIN)
    shut = site.folder / "shut"
    shut.touch()
    server = site.start()
    events = {
        key: server.post(f"i-{key}", {"processDefinitionKey": key}, Prefer="respond-async").event_id
        for key in ("once", "again", "nobody")
    }
    site.until(lambda _ledger: site.journal.exists() and len(site.journal.read_text().splitlines()) == 2)

    refused = site.run("db", "copy", site.database, other)
    assert refused.returncode == 1
    assert f"in use by process {server.process.pid}, a server" in refused.stderr
    assert "stop the process, then copy again" in refused.stderr

    server.kill()
    shut.unlink()
    assert copied(site, site.database, other)["tables"]["deliveries"]["rows"] == 2
    site.database = site.url = other
    heir = site.start()
    heir.until_logged("deliveries_recovered", now_waiting=1, now_unknown=1)
    site.until(lambda ledger: ledger.delivery_statuses(events["again"])[0].state == "succeeded")
    with site.ledger() as ledger:
        (unknown,) = ledger.delivery_statuses(events["once"])
        assert (unknown.state, unknown.attempt) == ("unknown", 1)
        assert ledger.event(events["nobody"]).state == "parked"
    assert sorted(site.journal.read_text().splitlines()) == ["i-again 1", "i-again 2", "i-once 1"]
    heir.stop()
    site.balance()


def test_copy_from_postgresql_back_to_sqlite(make_site, other):
    """A server uses the file to which data accepted on PostgreSQL was copied."""
    site = make_site()
    site.plugin("p", PLUGIN)
    upgrade(other)
    file, site.database, site.url = site.database, other, other
    server = site.start()
    event_id = server.post("i", {"processDefinitionKey": "once"}).event_id
    refused = site.run("db", "copy", other, file)
    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    server.stop()
    assert copied(site, other, file)["made"]
    site.database, site.url = file, f"sqlite:///{file}"
    server = site.start()
    again = server.post("i", {"processDefinitionKey": "once"})
    assert (again.status, again.event_id) == (200, event_id)
    server.stop()
    site.balance()
    with closing(Reader(site.url)) as reader:
        assert reader.verify().attempts == 1
