"""`flowhooks db copy` as it is called: what it prints, refuses and exits with, and that it never shows a password."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from flowhooks.ledger.lock import Lock
from flowhooks.ledger.tables import metadata

PASSWORD = "sesame"


@pytest.fixture
def source(tmp_path, new_database):
    """A ledger with nothing in it."""
    return shutil.copy(new_database, tmp_path / "source.db")


def test_it_says_what_it_did(run, source, tmp_path, postgresql_url):
    """A line for each table, and that both are the same."""
    result = run("db", "copy", str(source), postgresql_url)
    assert result.exit_code == 0, result.output
    assert all(table.name in result.stdout for table in metadata.tables.values())
    assert f"holds the same data as {source}: all counts and digests match." in result.stdout
    assert result.stdout.splitlines()[-1] == "The counts balance."


def test_json(asked, source, tmp_path):
    """One document; each of the two may also be an URL or a path from here."""
    done = asked("db", "copy", f"sqlite:///{source}", "target.db")
    assert list(done) == ["source", "target", "made", "tables", "balanced", "trouble"]
    assert (done["source"], done["target"]) == (str(source), str(tmp_path / "target.db"))
    assert (done["made"], done["balanced"], done["trouble"]) == (True, True, [])
    assert done["tables"].keys() == metadata.tables.keys()
    for one in done["tables"].values():
        assert (one["rows"], one["kept"], len(one["digest"])) == (0, 0, 64)
    assert not asked("db", "copy", str(source), "target.db")["made"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing argument 'SOURCE'"),
        (("a.db",), "Missing argument 'TARGET'"),
        (("a.db", "b.db", f"postgresql://u:{PASSWORD}@h/c"), "Give two databases"),
        (("a.db", "./a.db"), "the same database"),
        (("postgresql://u@h/c", f"postgresql://other:{PASSWORD}@h:5432/c"), "the same database"),
        (("a.db", f"postgresql://u:{PASSWORD}@h:port/c"), "not a database URL"),
        (("a.db", f"mysql://u:{PASSWORD}@h/c"), "mysql:// is not supported"),
        (("sqlite://a.db", "b.db"), "three slashes"),
        ((":memory:", "b.db"), "a ledger in memory"),
        (("a.db", "b.db", "--config", "none.toml"), "none.toml"),
    ],
)
def test_wrong_usage(run, tmp_path, words, said):
    """Exit code 2, what is wrong, and no password."""
    result = run("db", "copy", *words)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert PASSWORD not in result.output
    assert not list(tmp_path.glob("*.db*"))


def test_trouble(run, source, tmp_path):
    """Exit code 1 and one line, without a password, where one of them cannot be used."""
    for words, said in (
        ((tmp_path / "none.db", tmp_path / "t.db"), f"there is no database at {tmp_path / 'none.db'}"),
        ((source, tmp_path / "none" / "t.db"), "does not exist"),
        ((source, f"postgresql://u:{PASSWORD}@127.0.0.1:1/books"), "cannot use the database books on 127.0.0.1"),
        ((f"postgresql://u:{PASSWORD}@127.0.0.1:1/books", source), "cannot use the database books on 127.0.0.1"),
    ):
        result = run("db", "copy", *map(str, words))
        assert result.exit_code == 1, result.output
        assert said in result.output
        assert PASSWORD not in result.output
        assert result.stdout == ""
    assert not (tmp_path / "none.db.lock").exists()


def test_what_another_process_has_is_refused(run, source, server, tmp_path):
    """Of a server that serves the source, or a command that has the target, it says who it is, and what to do."""
    served = run("db", "copy", server.env["FLOWHOOKS_DATABASE"], str(tmp_path / "t.db"))
    assert served.exit_code == 1
    assert (
        f"is in use by process {server.process.pid}, a server ({server.admin}): stop the process, then" in served.output
    )
    assert not (tmp_path / "t.db").exists()
    lock = Lock(tmp_path / "t.db")
    assert lock.acquire()
    try:
        taken = run("db", "copy", str(source), str(tmp_path / "t.db"))
    finally:
        lock.release()
    assert taken.exit_code == 1
    assert "t.db is in use by process" in taken.output
    assert run("db", "copy", str(source), str(tmp_path / "t.db")).exit_code == 0


def test_other_books_are_refused(run, source, tmp_path, new_database):
    """A target that holds what the source does not: exit code 1, the row's key, and nothing on the standard output."""
    target = shutil.copy(new_database, tmp_path / "target.db")
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute("INSERT INTO counters VALUES ('accepted', 'somebody', 1)")
    result = run("db", "copy", str(source), str(target), "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "it has a row of counters (accepted, somebody), which the source does not have" in result.stderr


def test_books_that_do_not_balance(run, asked, source, tmp_path):
    """They are copied as they are, and it exits with 1, as `verify` does."""
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("INSERT INTO counters VALUES ('accepted', 'somebody', 1)")
    done = asked("db", "copy", str(source), "target.db", code=1)
    assert not done["balanced"]
    assert len(done["trouble"]) == 1
    plain = run("db", "copy", str(source), "target.db")
    assert plain.exit_code == 1
    assert plain.stdout.splitlines()[-1] == "The counts do not balance, as they did not in the source."


def test_settings_that_cannot_be_used_are_wrong_usage(run, source, tmp_path):
    """The settings are read for how long a silent process counts as alive."""
    (tmp_path / "flowhooks.toml").write_text("[ledger]\nheartbeat_timeout = -1\n")
    result = run("db", "copy", str(source), "target.db")
    assert result.exit_code == 2
    assert "heartbeat_timeout" in result.output


def test_help_says_how(run):
    """Its help names both places, and that passwords need not be given."""
    text = " ".join(run("db", "copy", "--help").stdout.split())
    assert "flowhooks db copy flowhooks.db postgresql://" in text
    assert "PGPASSWORD" in text
