"""`flowhooks verify` and `flowhooks db upgrade`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from flowhooks.ledger.reader import Reader


def test_counts_that_balance(server, run_json, run):
    """Beside a server the counts are printed as JSON and as a table."""
    books = run_json("verify", server=server)
    assert (books["balanced"], books["problems"]) == (True, [])
    assert books["accepted"] == books["stored"] == sum(books["events"].values())
    result = run("verify", server=server)
    assert result.exit_code == 0
    assert result.stdout.endswith("\n\nThe counts balance.\n")


def test_ctrl_c_has_an_exit_code_of_its_own(server, run, monkeypatch):
    """Ctrl-C ends a command with an exit code of its own: 1 would say that the counts do not balance."""

    def interrupted(_reader):
        raise KeyboardInterrupt  # no signal: the tests may run in the background, where SIGINT is ignored

    monkeypatch.setattr(Reader, "verify", interrupted)
    result = run("verify", server=server)
    assert (result.exit_code, result.stderr) == (130, "\nAborted!\n")


def test_counts_that_do_not_balance(server, run_json, run, tmp_path):
    """A missing delivery is a line, and the exit code is 1."""
    file = tmp_path / "flowhooks.db"
    with closing(sqlite3.connect(server.env["FLOWHOOKS_DATABASE"])) as whole:
        whole.execute("VACUUM INTO ?", [str(file)])
    with closing(sqlite3.connect(file, isolation_level=None)) as spoilt:
        spoilt.execute("DELETE FROM deliveries WHERE id = (SELECT min(id) FROM deliveries)")
    problems = run_json("verify", code=1)["problems"]
    assert problems[0].endswith("does not have the deliveries of its recorded route")
    assert any(line.endswith("has deliveries to other handlers than its route") for line in problems)
    result = run("verify")
    assert result.exit_code == 1
    assert "".join(f"problem: {line}\n" for line in problems) + "The counts do not balance.\n" in result.stdout


def test_upgrade_creates_the_database(run, tmp_path):
    """The first run creates the database, the second changes nothing, and `verify` can read it."""
    first = run("db", "upgrade")
    assert (first.exit_code, first.stdout[:8]) == (0, "Created ")
    assert str(tmp_path / "flowhooks.db") in first.stdout
    assert "nothing was changed" in run("db", "upgrade").stdout
    assert run("verify").exit_code == 0


def test_upgrade_refuses_a_newer_or_foreign_database(run, tmp_path):
    """A newer database or one of another program is one line, and the file is unchanged."""
    run("db", "upgrade")
    file = tmp_path / "flowhooks.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (("db", "upgrade"), ("verify",), ("events", "list")):
        result = run(*command)
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: cannot use the database {file}: it was written by a newer flowhooks")
        assert result.output.count("\n") == 1
    with closing(sqlite3.connect(file)) as newer:
        assert newer.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]


def test_a_history_is_compared(server, run_json, run, tmp_path):
    """Beside a server: counts, what was found, and exit code 1; as JSON and as a table; also from standard input."""
    event = run_json("events", "list", "--limit", "1", server=server)["events"][0]
    answer = {"flowInstanceId": event["flow_instance_id"], "status": 200, "event": event["id"], "bodySha256": "0" * 64}
    file = tmp_path / "callbacks.jsonl"
    file.write_text(json.dumps(answer | {"status": None}) + "\n")
    agreed = run_json("verify", "--against", file, server=server)["against"]
    assert agreed["agrees"] is True
    assert (agreed["lines"], agreed["unanswered"], agreed["findings"], agreed["problems"]) == (1, 1, {}, [])
    file.write_text(file.read_text() + json.dumps(answer | {"flowInstanceId": "gone\x1b[31m", "event": None}) + "\n{")
    found = run_json("verify", "--against", file, server=server, code=1)
    assert found["balanced"] is True
    assert found["against"]["findings"] == {"malformed": 1, "lost": 1}
    result = run("verify", "--against", file, server=server)
    assert result.exit_code == 1
    assert "problem: line 3: not JSON\n" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stdout.endswith("\nThe history does not agree.\n")
    assert run("verify", "--against", tmp_path / "none.jsonl", server=server).exit_code == 2
