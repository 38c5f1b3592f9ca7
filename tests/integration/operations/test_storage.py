"""The size of the ledger, its growth and the retention in force; and the compaction of a SQLite file."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from flowhooks.background.alerts.maintenance_causes import SAMPLE_INTERVAL
from flowhooks.clock import DAY, SECOND
from flowhooks.errors import LedgerUnusable
from flowhooks.ledger.database import compaction
from flowhooks.ledger.lock import Lock
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.operations import compact
from flowhooks.operations.purge import purge
from flowhooks.operations.record_backup import record_backup
from flowhooks.operations.storage import read_storage

LARGE = "x" * 100_000
KILLED = """
import os, signal, sys
from flowhooks.ledger.database import compaction
from flowhooks.operations import compact

file, last = sys.argv[1], int(sys.argv[2])
calls = 0

def on_progress():
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0

compaction._on_progress, compaction._INSTRUCTIONS_PER_CHECK = on_progress, 10
compact.compact(f"sqlite:///{file}")
print(calls)
"""
"""A compaction that is killed while SQLite executes it, at one of its steps; or 0: not at all."""


def storage(flow):
    """The storage of the ledger now."""
    return read_storage(flow.app.ledger, flow.app.settings, flow.clock.now())


@pytest.fixture
def purged(harness, listens):
    """The file of a closed ledger from which large events were purged, and the ids of the events that are left."""
    flow = harness.open(listens(lambda event: None, name="h"))
    for number in range(20):
        flow.take(f"i{number}", text=LARGE)
    flow.clock.advance(DAY / SECOND)
    kept = flow.take("kept", text="short").event_id
    purge(flow.app.operation_context, EventFilter(until=flow.clock.now() - 1))
    flow.close()
    return flow.file, [kept]


def stored(file):
    """The rows of the events."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT * FROM events ORDER BY id").fetchall()


def test_storage_of_an_empty_ledger(harness):
    """An empty ledger has a size, no events and no growth, and the retention of the settings."""
    flow = harness.open(start=False, retention={"succeeded": 90, "dead": 0})
    found = storage(flow)
    assert found.bytes > 0
    assert (found.events, found.oldest_event_at, found.last_backup_at) == (0, None, None)
    assert (found.growth_bytes, found.growth_since, found.days_until_full) == (None, None, None)
    assert (found.retention["succeeded"], found.retention["dead"]) == (90, 0)
    assert found.alert_disk_free_mib == flow.app.settings.alerts.disk_free_mib


@pytest.mark.sqlite
def test_sqlite_has_wal_unused_page_and_disk_sizes(harness):
    """Of a SQLite file, the write-ahead log, the unused pages and the free disk are known."""
    found = storage(harness.open(start=False))
    assert (found.database, found.name) == ("SQLite", str(harness.file))
    assert found.unused_bytes is not None
    assert found.log_bytes is not None
    assert found.free_disk_bytes is not None


@pytest.mark.postgresql
def test_postgresql_has_no_wal_or_disk_sizes(harness):
    """Of PostgreSQL, they are not known here."""
    found = storage(harness.open(start=False))
    assert found.database == "PostgreSQL"
    assert (found.unused_bytes, found.log_bytes, found.free_disk_bytes) == (None, None, None)


def test_events_and_backups_are_counted(harness):
    """The number of stored events, the age of the oldest one, and the last backup are shown."""
    flow = harness.open(start=False)
    first = flow.clock.now()
    flow.take("i1", key="nobody", wait=0)
    flow.clock.advance(60)
    flow.take("i2", key="nobody", wait=0)
    record_backup(flow.app.operation_context)
    found = storage(flow)
    assert (found.events, found.last_backup_at) == (2, flow.clock.now())
    assert abs(found.oldest_event_at - first) < SECOND


def test_the_growth_is_recorded_without_an_alert(harness, monkeypatch):
    """The growth since the oldest size of a day is shown after an hour, with the days until the disk is full."""
    flow = harness.open(start=False)
    flow.app.alerts.poll()
    since = flow.clock.now()
    for number in range(12):
        flow.take(str(number), key="nobody", wait=0, text=os.urandom(100_000).hex())
    flow.clock.advance(SAMPLE_INTERVAL / SECOND)
    flow.app.alerts.poll()
    assert storage(flow).growth_bytes is None
    flow.clock.advance(12 * 3600 - SAMPLE_INTERVAL / SECOND)
    monkeypatch.setattr("flowhooks.ledger.database.free_disk_bytes", lambda _url: 10**9)
    found = storage(flow)
    assert found.growth_since == since
    assert found.growth_bytes > 1_000_000
    expected = (10**9 + (found.unused_bytes or 0)) / found.growth_bytes / 2
    assert found.days_until_full == pytest.approx(expected, abs=0.1)


@pytest.mark.sqlite
def test_compaction_returns_unused_space(purged):
    """The file becomes smaller by at least its unused pages, and has the same events."""
    file, kept = purged
    before = stored(file)
    plan = compact.plan_compaction(f"sqlite:///{file}")
    assert plan.unused_bytes > 1_000_000
    assert plan.file_bytes == file.stat().st_size
    result = compact.compact(f"sqlite:///{file}")
    assert (result.before_bytes, result.after_bytes) == (plan.file_bytes, file.stat().st_size)
    assert result.after_bytes <= plan.file_bytes - plan.unused_bytes
    assert [row[0] for row in before] == kept
    assert stored(file) == before
    with closing(Reader(f"sqlite:///{file}")) as reader:
        assert reader.quick_check() is None
        assert reader.verify().is_consistent
    assert Lock(file).owner() is None


@pytest.mark.sqlite
def test_compaction_needs_free_space(purged, monkeypatch):
    """If the disk has too little space for the copies, nothing is changed."""
    file, _ = purged
    monkeypatch.setattr("flowhooks.ledger.database.free_disk_bytes", lambda _url: 1_000_000)
    before = file.read_bytes()
    with pytest.raises(LedgerUnusable, match=r"of free space on its disk, which has 1\.0 MB; nothing was changed"):
        compact.compact(f"sqlite:///{file}")
    assert file.read_bytes() == before
    assert Lock(file).owner() is None


@pytest.mark.sqlite
def test_compaction_during_a_read(purged):
    """A command that only reads meanwhile has its snapshot, and the file becomes smaller after it has ended."""
    file, kept = purged
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert [row[0] for row in reader.execute("SELECT id FROM events")] == kept
        compact.compact(f"sqlite:///{file}")
        assert [row[0] for row in reader.execute("SELECT id FROM events")] == kept
    plan = compact.plan_compaction(f"sqlite:///{file}")
    assert plan.unused_bytes == 0
    assert file.stat().st_size == plan.file_bytes


@pytest.mark.sqlite
def test_compaction_is_refused_while_the_ledger_is_locked(purged):
    """Another process may not have the ledger's lock."""
    file, _ = purged
    before, lock = file.read_bytes(), Lock(file)
    assert lock.acquire()
    try:
        with pytest.raises(LedgerUnusable, match="is in use by process"):
            compact.compact(f"sqlite:///{file}")
    finally:
        lock.release()
    assert file.read_bytes() == before


@pytest.mark.sqlite
def test_a_missing_file_is_not_created(tmp_path):
    """A wrong path is refused, and leaves no file."""
    with pytest.raises(LedgerUnusable, match="there is no database"):
        compact.compact(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.postgresql
def test_postgresql_is_not_compacted(harness):
    """The refusal explains autovacuum."""
    flow = harness.open(start=False)
    with pytest.raises(LedgerUnusable, match="autovacuum"):
        compact.compact(flow.address)


@pytest.mark.sqlite
def test_ctrl_c_interrupts_a_compaction(purged, monkeypatch):
    """An exception in Python, as Ctrl-C raises it, stops VACUUM, and the file keeps its content."""
    file, _ = purged
    before = stored(file)
    size = file.stat().st_size

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(compaction, "_on_progress", interrupt)
    monkeypatch.setattr(compaction, "_INSTRUCTIONS_PER_CHECK", 1)
    with pytest.raises(KeyboardInterrupt):
        compact.compact(f"sqlite:///{file}")
    assert stored(file) == before
    assert file.stat().st_size == size
    assert Lock(file).owner() is None


@pytest.mark.sqlite
def test_a_killed_compaction_loses_nothing(purged, tmp_path):
    """Wherever the process is killed, the events are the same, and the next compaction works."""
    file, _ = purged
    before = stored(file)

    def run(copy, last):
        return subprocess.run([sys.executable, "-c", KILLED, copy, str(last)], capture_output=True, check=False)

    whole = run(shutil.copy(file, tmp_path / "whole.db"), 0)
    steps = int(whole.stdout)
    for last in (1, steps // 2, steps):
        copy = Path(shutil.copy(file, tmp_path / f"killed-{last}.db"))
        assert run(copy, last).returncode == -signal.SIGKILL
        assert stored(copy) == before
        compact.compact(f"sqlite:///{copy}")
        assert stored(copy) == before
        with closing(Reader(f"sqlite:///{copy}")) as reader:
            assert reader.quick_check() is None
