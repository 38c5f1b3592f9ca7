"""`flowhooks db purge` and `db backup`: their output, refusals, files and exit codes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from contextlib import closing

import pytest

from flowhooks.ledger.database import backups
from flowhooks.ledger.lock import Lock
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.upgrade import upgrade

PASSWORD = "sesame"


@pytest.fixture
def empty(tmp_path, new_database):
    """An empty ledger."""
    return shutil.copy(new_database, tmp_path / "flowhooks.db")


@pytest.fixture
def filled(harness, listens):
    """A ledger with two finished events and a parked one, all 100 days old; its database and ids."""
    flow = harness.open(listens(lambda event: None, name="h"))
    ids = [flow.take("i1").event_id, flow.take("i2").event_id, flow.take("i3", key="nobody").event_id]
    flow.close()
    return harness.url or str(harness.file), ids


def test_purge(run, filled, run_json):
    """The output has the deleted counts; --json has the operation's response and the affected ledger."""
    database, ids = filled
    result = run("db", "purge", "--older-than", "0s", "--yes", "--database", database)
    assert result.exit_code == 0, result.output
    assert "2 events with 2 deliveries purged, 1 of that age kept." in result.stdout
    done = run_json("db", "purge", "--older-than", "0s", "--state", "parked", "--yes", "--database", database)
    assert (done["purged"], done["dry_run"]) == (1, False)
    shown = run("events", "show", ids[0], "--database", database)
    assert shown.exit_code == 1
    assert "has been purged" in shown.output
    assert run("verify", "--database", database).exit_code == 0


def test_a_dry_run_and_a_filter(run, filled, run_json):
    """A dry run changes nothing, and filters narrow the selection."""
    database, _ = filled
    for words, wanted in (
        ((), 2),
        (("--handler", "p:h"), 2),
        (("--handler", "p:other"), 0),
        (("--key", "leave"), 2),
        (("--key", "nobody"), 0),
        (("--state", "dead"), 0),
        (("--state", "succeeded"), 2),
    ):
        done = run_json("db", "purge", "--older-than", "0s", "--dry-run", *words, "--database", database)
        assert done["purged"] == wanted
    result = run("db", "purge", "--older-than", "0s", "--dry-run", "--database", database)
    assert "2 events with 2 deliveries would be purged" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--yes",), "--older-than"),
        (("--older-than", "soon", "--yes"), "not a time"),
        (("--older-than", "90d", "--state", "unknown", "--yes"), "'unknown' is not one of"),
        (("--older-than", "90d"), "no terminal"),
    ],
)
def test_wrong_usage_of_purge(run, empty, words, said):
    """Wrong usage exits with 2 and a reason."""
    result = run("db", "purge", *words, "--database", str(empty))
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())


def test_backup(run, run_json, empty, tmp_path):
    """The output has size and duration; the copy is one complete file that only its owner can read."""
    target = tmp_path / "to" / "copy.db"
    target.parent.mkdir()
    result = run("db", "backup", str(target), "--database", str(empty))
    assert result.exit_code == 0, result.output
    assert f"Copied {empty} to {target}: 0." in result.stdout
    assert result.stdout.splitlines()[-1] == "The counts balance."
    assert [path.name for path in target.parent.iterdir()] == ["copy.db"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with closing(Reader(f"sqlite:///{target}")) as reader:
        assert reader.quick_check() is None
    # The name as in a URL would be that of another file.
    done = run_json("db", "backup", str(target.with_name("a%41?b #c.db")), "--database", str(empty))
    assert list(done) == ["source", "target", "bytes", "microseconds", "events", "problems", "balanced"]
    assert (done["source"], done["events"], done["balanced"]) == (str(empty), 0, True)
    assert done["bytes"] == target.stat().st_size


def test_a_backup_needs_no_lock(run, empty, tmp_path):
    """A backup only reads, so it works while another process holds the ledger's lock."""
    lock = Lock(empty)
    assert lock.acquire()
    try:
        assert run("db", "backup", str(tmp_path / "copy.db"), "--database", str(empty)).exit_code == 0
    finally:
        lock.release()


def test_a_failed_backup_leaves_no_file(run, empty, tmp_path):
    """A failure exits with 1 and one line without a password, and leaves no partial file."""
    there = tmp_path / "there.db"
    there.write_bytes(b"mine")
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE users (id)")
    truncated = tmp_path / "truncated.db"
    truncated.touch()
    before = sorted(tmp_path.iterdir())
    for target, source, said in (
        (there, empty, "exists already"),
        (tmp_path / "copy.db", truncated, "it is empty"),
        (tmp_path / "none" / "copy.db", empty, "cannot write"),
        (tmp_path / "copy.db", tmp_path / "none.db", "there is no database"),
        (tmp_path / "copy.db", foreign, "not a flowhooks ledger"),
        (tmp_path / "copy.db", f"postgresql://u:{PASSWORD}@h/books", "pg_dump"),
    ):
        result = run("db", "backup", str(target), "--database", str(source))
        assert result.exit_code == 1, result.output
        assert said in result.output
        assert PASSWORD not in result.output
    assert there.read_bytes() == b"mine"
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_of_the_target_is_named(run, empty, tmp_path, monkeypatch):
    """If the disk of the copy is full, the message names the copy, and no file is left."""
    connect = sqlite3.connect

    def connect_to_full_disk(file, **options):
        connection = connect(file, **options)
        if "copy" in str(file):
            connection.execute("PRAGMA max_page_count=1")  # SQLite reports it as it reports a full disk
        return connection

    monkeypatch.setattr(backups.sqlite3, "connect", connect_to_full_disk)
    result = run("db", "backup", str(tmp_path / "copy.db"), "--database", str(empty))
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: cannot write {tmp_path}/copy.db: the disk is full; free some space, or name a file on another disk\n",
    )
    assert not list(tmp_path.glob("*copy*"))


def test_a_backup_of_an_older_version(run, run_json, tmp_path, pending_migration):
    """A ledger of an older version can be backed up before its upgrade; its counts are not checked."""
    old = tmp_path / "old.db"
    _, before = upgrade(f"sqlite:///{old}")
    pending_migration()
    result = run("db", "backup", str(tmp_path / "copy.db"), "--database", str(old))
    assert result.exit_code == 0, result.output
    assert "older version" in result.stdout
    assert run_json("db", "backup", str(tmp_path / "second.db"), "--database", str(old))["balanced"] is None
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(before,)]


def test_a_backup_whose_counts_do_not_balance(run, empty, tmp_path):
    """A ledger whose counts do not balance is backed up, with exit code 1."""
    with closing(sqlite3.connect(empty)) as connection:
        connection.execute("INSERT INTO counters VALUES ('accepted', 'x', 7)")
        connection.commit()
    result = run("db", "backup", str(tmp_path / "copy.db"), "--database", str(empty))
    assert result.exit_code == 1, result.output
    assert "problem: 7 events were accepted, but 0 are stored" in result.stdout
    assert (tmp_path / "copy.db").exists()


def test_an_incomplete_copy_is_no_backup(run, empty, tmp_path):
    """An incomplete copy does not get the target's name."""
    with empty.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 4))
    result = run("db", "backup", str(tmp_path / "copy.db"), "--database", str(empty))
    assert result.exit_code == 1, result.output
    assert not list(tmp_path.glob("*copy*"))


def test_backups_are_recorded_with_backup_max_age(empty, run, run_json, tmp_path):
    """With alerts.backup_max_age, a backup is recorded with its size; another tool's backup is recorded on request."""

    def recorded():
        with closing(sqlite3.connect(empty)) as connection:
            return connection.execute("SELECT kind, value, detail FROM maintenance").fetchall()

    assert run("db", "backup", str(tmp_path / "a.db"), "--database", str(empty)).exit_code == 0
    assert recorded() == []
    watched = {"FLOWHOOKS_ALERTS_BACKUP_MAX_AGE": "86400"}
    target = tmp_path / "b.db"
    assert run("db", "backup", str(target), "--database", str(empty), **watched).exit_code == 0
    assert recorded() == [("backup", target.stat().st_size, str(target))]
    undecodable = tmp_path / "c\udcff.db"
    assert run("db", "backup", str(undecodable), "--database", str(empty), **watched).exit_code == 0
    assert recorded()[0][2] == str(tmp_path / "c\\udcff.db")
    result = run("db", "record-backup", "--name", "dump-7", "--database", str(empty))
    assert (result.exit_code, result.stdout) == (0, "The backup is recorded.\n")
    assert recorded() == [("backup", 0, "dump-7")]
