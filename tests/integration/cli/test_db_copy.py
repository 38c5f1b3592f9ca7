"""`flowhooks db copy`: its output, refusals and exit codes, without passwords."""

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
    """An empty ledger."""
    return shutil.copy(new_database, tmp_path / "source.db")


def test_output_has_a_line_for_each_table(run, source, tmp_path, postgresql_url):
    """The output has a line for each table and says that both copies are equal."""
    result = run("db", "copy", str(source), postgresql_url)
    assert result.exit_code == 0, result.output
    assert all(table.name in result.stdout for table in metadata.tables.values())
    assert f"holds the same data as {source}: all counts and digests match." in result.stdout
    assert result.stdout.splitlines()[-1] == "The counts balance."


def test_json(run_json, source, tmp_path):
    """The JSON is one document; each location may be a URL or a relative path."""
    done = run_json("db", "copy", f"sqlite:///{source}", "target.db")
    assert list(done) == ["source", "target", "made", "tables", "balanced", "problems"]
    assert (done["source"], done["target"]) == (str(source), str(tmp_path / "target.db"))
    assert (done["made"], done["balanced"], done["problems"]) == (True, True, [])
    assert done["tables"].keys() == metadata.tables.keys()
    for table in done["tables"].values():
        assert (table["rows"], table["kept"], len(table["digest"])) == (0, 0, 64)
    assert not run_json("db", "copy", str(source), "target.db")["made"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing argument 'SOURCE'"),
        (("a.db",), "Missing argument 'TARGET'"),
        (("a.db", "b.db", f"postgresql://u:{PASSWORD}@h/c"), "Give two databases"),
        (("a.db", "./a.db"), "the same database"),
        (("postgresql://u@h/c", f"postgresql://other:{PASSWORD}@h:5432/c"), "the same database"),
        (("a.db", f"postgresql://u:{PASSWORD}@h:port/c"), "with a port from 1 to 65535"),
        (("a.db", f"mysql://u:{PASSWORD}@h/c"), "mysql:// is not supported"),
        (("sqlite://a.db", "b.db"), "three slashes"),
        ((":memory:", "b.db"), "a ledger in memory"),
        (("a.db", "b.db", "--config", "none.toml"), "none.toml"),
    ],
)
def test_wrong_usage(run, tmp_path, words, said):
    """Wrong usage exits with 2 and a reason without a password."""
    result = run("db", "copy", *words)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert PASSWORD not in result.output
    assert not list(tmp_path.glob("*.db*"))


def test_an_unusable_location(run, source, tmp_path):
    """An unusable location exits with 1 and one line without a password."""
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


def test_a_locked_source_or_target_is_refused(run, source, server, tmp_path):
    """A server with the source or a command with the target is named, with the remedy."""
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


def test_a_target_with_other_data_is_refused(run, source, tmp_path, new_database):
    """A target with other data exits with 1 and the row's key; standard output is empty."""
    target = shutil.copy(new_database, tmp_path / "target.db")
    with closing(sqlite3.connect(target)) as connection, connection:
        connection.execute("INSERT INTO counters VALUES ('accepted', '00000000-0000-7000-8000-000000000001', 1)")
    result = run("db", "copy", str(source), str(target), "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert (
        "it has a row of counters (accepted, 00000000-0000-7000-8000-000000000001), which the source does not have"
        in result.stderr
    )


def test_a_ledger_whose_counts_do_not_balance(run, run_json, source, tmp_path):
    """A ledger whose counts do not balance is copied unchanged, with exit code 1 as from `verify`."""
    with closing(sqlite3.connect(source)) as connection, connection:
        connection.execute("INSERT INTO counters VALUES ('accepted', '00000000-0000-7000-8000-000000000001', 1)")
    done = run_json("db", "copy", str(source), "target.db", code=1)
    assert not done["balanced"]
    assert len(done["problems"]) == 1
    plain = run("db", "copy", str(source), "target.db")
    assert plain.exit_code == 1
    assert plain.stdout.splitlines()[-1] == "The counts do not balance, as they did not in the source."


def test_settings_that_cannot_be_used_are_wrong_usage(run, source, tmp_path):
    """Invalid settings are refused, because the expiry time of processes is read from them."""
    (tmp_path / "flowhooks.toml").write_text("[ledger]\nheartbeat_timeout = -1\n")
    result = run("db", "copy", str(source), "target.db")
    assert result.exit_code == 2
    assert "heartbeat_timeout" in result.output


def test_help_names_both_locations(run):
    """The help names both locations, and says that passwords need not be given."""
    text = " ".join(run("db", "copy", "--help").stdout.split())
    assert "flowhooks db copy flowhooks.db postgresql://" in text
    assert "PGPASSWORD" in text
