"""A transaction is committed to a file that was moved away, or overwritten, before any caller was answered."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from flowhooks import State
from flowhooks.background import file_watch
from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.ledger import file_guard
from flowhooks.ledger.database import engines
from flowhooks.ledger.file_guard import FileGuard
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.sqlite


@pytest.fixture
def away(harness):
    """The path to which the file is moved."""
    return harness.file.with_name("away.db")


def test_a_commit_to_a_moved_file_is_not_acknowledged(ledger_steps, harness, away):
    """The work raises Unavailable and is not repeated; readers do not read."""
    done = []

    def moved(_transaction):
        done.append(harness.file.rename(away))

    with pytest.raises(Unavailable):
        ledger_steps.ledger.write(moved)
    with pytest.raises(Unavailable):
        ledger_steps.store(ledger_steps.new("meanwhile"))
    with pytest.raises(LedgerUnusable, match="cannot be found"):
        ledger_steps.ledger.count_by_state()
    assert len(done) == 1
    away.rename(harness.file)
    ledger_steps.store(ledger_steps.new("afterwards"))


def test_attempts_committed_to_a_moved_file_are_recovered(harness, listens, ledger_steps_of, away, eventually):
    """A delivery that such a transaction marked as running runs once the file is back."""
    entered = []
    flow = harness.open(listens(lambda event: entered.append(event.flow_instance_id)))
    ledger_steps = ledger_steps_of(flow)
    ledger_steps.eventually = eventually
    eventually(lambda: flow.app.runner._slots._free)  # a delivery is marked when it is stored only if a thread is free
    results = ledger_steps.run_in_one_batch(
        lambda: flow.take("i1"), lambda: ledger_steps.ledger.write(lambda _transaction: harness.file.rename(away))
    )
    assert [type(result) for result in results] == [Unavailable] * 2
    assert entered == []
    away.rename(harness.file)
    eventually(lambda: flow.sql("SELECT state FROM deliveries") == [("succeeded",)])
    assert entered == ["i1"]
    # The engine got 503 and repeats the callback.
    answer = flow.take("i1")
    assert answer.status == "done"
    delivery_status = flow.only(answer.event_id)
    # The first attempt was marked, and did not run.
    assert (delivery_status.state, delivery_status.attempt) == (State.SUCCEEDED, 2)
    assert entered == ["i1"]


def test_reading_creates_no_file(harness, ledger_steps, away):
    """A reader that connects while the file is away fails, and leaves the path free for the file."""
    harness.file.rename(away)
    assert "unable to open" in engines.check_file(f"sqlite:///{harness.file}")
    assert not harness.file.exists()
    away.rename(harness.file)
    ledger_steps.store(ledger_steps.new("afterwards"))


def test_a_whole_batch_for_a_moved_file_is_rejected(ledger_steps, harness, away):
    """No work of the batch is acknowledged."""
    results = ledger_steps.run_in_one_batch(
        lambda: ledger_steps.accept("i1", "p:a"),
        lambda: ledger_steps.ledger.write(lambda _transaction: harness.file.rename(away)),
        lambda: ledger_steps.accept("i2", "p:a"),
    )
    assert [type(result) for result in results] == [Unavailable] * 3
    away.rename(harness.file)
    ledger_steps.accept("i1", "p:a")


OVERWRITE = """
import pathlib, sqlite3, sys
file = pathlib.Path(sys.argv[1])
# The log stays if a delayed reader of the server uses it for longer than the timeout.
sqlite3.connect(file, timeout=60, isolation_level=None).execute("PRAGMA wal_checkpoint(TRUNCATE)")
if sys.argv[2] == "copy":
    file.with_suffix(".old").write_bytes(file.read_bytes())
if sys.argv[2] == "restore":
    with file.open("r+b") as opened:
        opened.truncate(opened.write(file.with_suffix(".old").read_bytes()))
if sys.argv[2] == "damage":
    part_of_a_body = file.read_bytes().index(b"x" * 4_000)
    with file.open("r+b") as opened:
        opened.seek(part_of_a_body // 4_096 * 4_096)
        opened.write(bytes(4_096))
"""
"""A program that writes to a ledger's file. A process that closes the file loses SQLite's locks on it."""


def overwrite(harness, *how):
    """Move the log into the database file, and overwrite it as told, or not."""
    subprocess.run([sys.executable, "-c", OVERWRITE, str(harness.file), *how], check=True)


@pytest.fixture
def filled(harness, monkeypatch):
    """An app with a ledger of some hundred pages, whose counts are not checked at the end.

    Its writer moves the log into the file after every 50 pages.
    """
    monkeypatch.setattr(engines, "CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(file_watch, "POLL_INTERVAL", 0.02)
    harness.check_at_end = False
    flow = harness.open()
    flow.app.alerts.stop(WAIT_TIMEOUT)  # its check after a second could read or write while a test overwrites the file
    for number in range(20):
        flow.take(f"i{number}", key="nobody", pad="x" * 10_000)
    return flow


def test_a_callback_to_a_damaged_file_is_not_acknowledged(harness, filled, logged):
    """A page is overwritten at the same size: the next callback is not acknowledged."""
    overwrite(harness, "damage")
    with pytest.raises(Unavailable):
        filled.take("after", key="nobody")
    (record,) = [entry for entry in logged if entry["event"] == "database_damaged"]
    assert "another program has written to it" in record["why"]
    assert filled.app.readiness_problems()[0] == record["why"]  # the runner may have noticed it, too


@pytest.mark.parametrize("pad", ["", "x" * 100_000], ids=["at the same size", "at a smaller size"])
def test_a_callback_to_an_older_copy_is_not_acknowledged(harness, filled, logged, pad):
    """A copy that is intact lacks events that were acknowledged: no further callback is."""
    overwrite(harness, "copy")
    for number in range(3):
        filled.take(f"lost-{number}", key="nobody", pad=pad)
    overwrite(harness, "restore")
    with pytest.raises(Unavailable):
        filled.take("after", key="nobody")
    (record,) = [entry for entry in logged if entry["event"] == "database_damaged"]
    assert "it is an older copy, with 20 of the 23 events" in record["why"]


def test_a_file_is_checked_after_a_write_of_another_program(harness, filled, monkeypatch):
    """A file that is intact is checked once after each modification, and not after the server's own ones."""
    checks = []
    guard = filled.app.ledger.guard
    check = guard._check
    monkeypatch.setattr(guard, "_check", lambda accepted: checks.append(1) or check(accepted))
    for expected in (1, 2):
        filled.take(f"before-{expected}", key="nobody")
        overwrite(harness, "checkpoint")
        for number in range(5):
            assert filled.take(f"after-{expected}-{number}", key="nobody").status == "parked"
        assert len(checks) == expected
    modified = harness.file.stat().st_mtime_ns
    for number in range(60):
        filled.take(f"later-{number}", key="nobody", pad="x" * 10_000)
    assert harness.file.stat().st_mtime_ns > modified
    assert len(checks) == 2


def test_a_check_of_a_moved_file_is_repeated(harness, filled, away, monkeypatch):
    """A check that finds no file reports no damage, and is repeated once the file is back."""
    guard = filled.app.ledger.guard
    check, results = guard._check, []

    def moved(accepted):
        harness.file.rename(away)
        monkeypatch.setattr(guard, "_check", lambda accepted: results.append(check(accepted)))
        return check(accepted)

    monkeypatch.setattr(guard, "_check", moved)
    filled.take("before", key="nobody")
    overwrite(harness, "checkpoint")
    with pytest.raises(Unavailable):
        filled.take("meanwhile", key="nobody")
    away.rename(harness.file)
    assert filled.take("after", key="nobody").status == "parked"
    assert results == [None]


def test_a_large_file_is_checked_in_the_background(harness, filled, monkeypatch, eventually):
    """The check of a large file would delay a callback, so damage is found soon after it."""
    monkeypatch.setattr(file_guard, "MAX_BYTES_CHECKED_AT_ONCE", 0)
    overwrite(harness, "damage")
    with suppress(Unavailable):
        filled.take("after", key="nobody")
    eventually(filled.app.readiness_problems)
    with pytest.raises(Unavailable):
        filled.take("later", key="nobody")


def test_a_large_file_that_changes_during_its_check_is_checked_again(tmp_path, monkeypatch):
    """The check reads the file as it was at its start, so a later write of another program needs another check."""
    monkeypatch.setattr(file_guard, "MAX_BYTES_CHECKED_AT_ONCE", 0)
    file = tmp_path / "ledger.db"
    file.write_bytes(b"x")
    file.with_name("ledger.db-wal").touch()
    times = iter((1, 2))

    def write():
        second = next(times)
        os.utime(file, (second, second))
        assert guard.find_problem_quickly() is None

    def check(accepted):
        if not checks:
            write()
        checks.append(accepted)

    checks, guard = [], FileGuard(file, check)
    write()
    assert guard.unchecked
    guard.check()
    assert guard.unchecked
    guard.check()
    assert (guard.unchecked, len(checks)) == (False, 2)
