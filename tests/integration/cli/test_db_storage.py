"""`flowhooks db size` and `db compact`: their output, refusals and exit codes."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from flowhooks.ledger import audit
from flowhooks.ledger.lock import Lock, LockOwner
from flowhooks.ledger.reader import Reader


@pytest.fixture
def file(tmp_path, new_database):
    """The file of a ledger with unused pages."""
    copy = shutil.copy(new_database, tmp_path / "flowhooks.db")
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE filler (text)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(3000000))")
        connection.execute("DROP TABLE filler")
    return copy


def test_size(run, run_json, file):
    """The text has sizes in MB and the days of the retention; --json has bytes."""
    result = run("db", "size", "--database", str(file))
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["database"] == f"{file} (SQLite)"
    assert "are unused and are filled before the file grows" in lines["size"]
    assert "keep succeeded     400 days" in result.stdout
    assert "keep dead          forever" in result.stdout
    assert "keep trend minutes" in result.stdout
    assert "last backup        not recorded: alerts.backup_max_age is not set" in result.stdout
    expected = run("db", "size", "--database", str(file), FLOWHOOKS_ALERTS_BACKUP_MAX_AGE="26")
    assert "last backup        none is recorded" in expected.stdout
    found = run_json("db", "size", "--database", str(file))
    assert found["bytes"] == file.stat().st_size
    assert found["unused_bytes"] >= 3_000_000
    assert (found["events"], found["oldest_event_at"], found["growth_bytes"]) == (0, None, None)
    assert found["retention"]["audit"] == 400


def test_compact(run, file):
    """The output has the sizes before and after and the space that it needs; the audit log has an entry."""
    before = file.stat().st_size
    planned = run("db", "compact", "--dry-run", "--database", str(file))
    assert planned.exit_code == 0, planned.output
    assert "are unused. Compacting needs" in planned.stdout
    assert file.stat().st_size == before
    result = run("db", "compact", "--database", str(file))
    assert result.exit_code == 0, result.output
    assert f"Compacted {file}: {before / 1_000_000:.1f} MB before" in result.stdout
    assert file.stat().st_size < before - 3_000_000
    with closing(Reader(f"sqlite:///{file}")) as reader, reader.connection() as connection:
        (entry,) = audit.entries(connection, limit=10)
    assert (entry.action, entry.interface) == ("compact", "cli")
    listed = run("audit", "--database", str(file))
    assert "compacted the database" in listed.stdout


def test_compact_as_json(run_json, file):
    """--json has the sizes, also of a dry run."""
    before = file.stat().st_size
    plan = run_json("db", "compact", "--dry-run", "--database", str(file))
    assert list(plan) == ["database", "file_bytes", "unused_bytes", "needed_bytes", "free_bytes"]
    assert plan["file_bytes"] == before
    done = run_json("db", "compact", "--database", str(file))
    assert list(done) == ["database", "before_bytes", "after_bytes", "microseconds"]
    assert done["before_bytes"] == before


def test_compact_is_refused_while_a_server_runs(run, file):
    """The refusal names the server; a dry run and the size only read."""
    lock = Lock(file)
    assert lock.acquire()
    try:
        lock.write_owner(LockOwner(pid=4711, admin="http://127.0.0.1:9", token="t"))
        result = run("db", "compact", "--database", str(file))
        assert result.exit_code == 1
        assert "the server (process 4711, http://127.0.0.1:9) uses" in result.output
        for words in (("size",), ("compact", "--dry-run")):
            assert run("db", *words, "--database", str(file)).exit_code == 0
    finally:
        lock.release()


def test_compact_on_postgresql_and_of_a_missing_file(run, tmp_path):
    """Neither is possible, and no error shows a password or leaves a file."""
    for address, said in (
        ("postgresql://u:sesame@h/books", "autovacuum"),
        (str(tmp_path / "none.db"), "there is no database"),
    ):
        result = run("db", "compact", "--database", address)
        assert result.exit_code == 1
        assert said in result.output
        assert "sesame" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_stops_compact(run, file, monkeypatch):
    """Ctrl-C exits with 130."""

    def interrupt(_file):
        raise KeyboardInterrupt

    monkeypatch.setattr("flowhooks.ledger.database.compact_file", interrupt)
    result = run("db", "compact", "--database", str(file))
    assert result.exit_code == 130
    assert "Stopped. The data is unchanged." in result.output
