"""`flowhooks check` and its findings."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flowhooks.cli import http_client, operations_client
from flowhooks.ledger.lock import Lock, LockOwner
from flowhooks.operations.check.database import is_affected
from flowhooks.plugins import slow_loading


@pytest.fixture
def findings(run_json):
    """Runs `check --json`, checks its exit code and counts, and returns the findings of a subject."""

    def look(about, **more):
        code = more.pop("code", 0)
        found = run_json("check", code=code, **more)
        marks = [finding["mark"] for finding in found["findings"]]
        assert (found["problems"], found["notes"]) == (marks.count("problem"), marks.count("note"))
        assert bool(found["problems"]) == bool(code)
        for finding in found["findings"]:
            assert set(finding) == {"mark", "about", "what", "why", "next", "traceback", "facts"}
        return [finding for finding in found["findings"] if finding["about"] == about]

    return look


@pytest.fixture
def folder(tmp_path):
    """An empty plugin folder."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    return folder


def test_check_beside_a_server(server, findings):
    """`check` reports the server and its addresses, and the work for operators with the commands that show it."""
    (holder,) = findings("server", server=server)
    assert holder["mark"] == "ok"
    assert holder["what"] == f"process {server.process.pid} serves; its administration is at {server.admin}"
    counts = findings("deliveries", server=server)
    assert counts[0]["mark"] == "ok"
    dead = next(finding for finding in counts if finding["what"].endswith(" dead"))
    assert dead["mark"] == "note"
    assert "flowhooks events list --state dead" in dead["next"]
    parked = next(finding for finding in counts if finding["what"].endswith(" parked"))
    assert "key ordre (1)" in parked["why"]
    assert findings("routes", server=server)[0]["what"] == "6 routes to 4 handlers"


def test_parked_events_are_explained_by_their_reason(stopped_server, findings):
    """Each reason for which events are parked has its own next step; classes and keys are named once."""
    for instance, reason, key in (("f0", "condition", "cond"), ("f1", "condition", "cond"), ("f2", "name", None)):
        stopped_server.sql(
            "UPDATE events SET state = 'parked', parked_by = ?, process_definition_key = ?, conclusion = ? "
            "WHERE flow_instance_id = ?",
            *(reason, key, instance, instance),
        )
    parked = [
        finding for finding in findings("deliveries", server=stopped_server) if finding["what"].endswith(" parked")
    ]
    assert [(finding["what"], finding["why"]) for finding in parked] == [
        ("2 parked", "the condition of a handler is undecided: key cond (2)"),
        ("1 parked", "they have neither class nor key, so no handler can match them"),
    ]
    assert "reroute --parked" in parked[0]["next"]
    assert "install a handler" not in f"{parked}"
    assert "events dismiss" in parked[1]["next"]


def test_check_changes_nothing(findings, tmp_path):
    """`check` creates no missing database, and reports it as a note."""
    database = findings("database")
    assert {finding["mark"] for finding in database} <= {"note"}
    assert database[-1]["what"] == f"{tmp_path}/flowhooks.db does not exist yet"
    assert findings("plugins")[-1]["mark"] == "note"
    assert not list(tmp_path.iterdir())


def test_a_plugin_that_the_server_has_not_loaded(stopped_server, findings):
    """A handler that is loaded here and not by the running server is a note, and a failure if a delivery waits."""
    stopped_server.env |= {"FLOWHOOKS_SAFE_MODE": "true"}
    stopped_server.start()
    try:
        as_restarted = {"server": stopped_server, "FLOWHOOKS_SAFE_MODE": "false"}
        (found,) = findings("handlers", **as_restarted)
        what = f"the running server (process {stopped_server.process.pid}) does not run 4 handlers loaded here: "
        assert (found["mark"], found["what"].startswith(what)) == ("note", True), found
        assert "restart the server" in found["next"]
        stopped_server.post("late", processDefinitionKey="order", processDefinitionVersion=2, prefer="respond-async")
        (found,) = findings("handlers", code=1, **as_restarted)
        assert (found["mark"], found["why"]) == ("problem", "1 delivery waits for them")
    finally:
        stopped_server.end()
    assert findings("handlers", server=stopped_server, FLOWHOOKS_SAFE_MODE="false") == []


def test_findings_as_text(server, run, folder):
    """Each finding is a line with its mark, with lines for reason and next step; the last line is the total."""
    (folder / "broken.py").write_text("raise ValueError('[red]no[/red]\\x1b[31m')")
    text = run("check", server=server, FLOWHOOKS_PLUGINS_DIRS=str(folder), FLOWHOOKS_PLUGINS_ALLOW="broken").stdout
    lines = text.splitlines()
    problems = next(number for number, line in enumerate(lines) if line.startswith("problem  plugins "))
    assert "broken cannot be used and is quarantined" in lines[problems]
    assert lines[problems + 1].strip().startswith("why: plugin 'broken' (file")
    assert "[red]no[/red]" in lines[problems + 1]
    assert "flowhooks plugins show broken" in lines[problems + 2]
    assert lines[-1].startswith("2 problems, ")
    assert "\x1b" not in text


def test_a_broken_plugin_is_a_finding(findings, folder):
    """Any failure while loading is a finding with the error's line, and the traceback in JSON."""
    for name, source in (
        ("exits", "import sys\nsys.exit(3)"),
        ("raises", "def f():\n    1 / 0\nf()"),
        ("spoilt", "def (:"),
        ("works", "from flowhooks import hookimpl\n@hookimpl\ndef handlers():\n    return []"),
    ):
        (folder / f"{name}.py").write_text(source)
    found = findings(
        "plugins", code=1, FLOWHOOKS_PLUGINS_DIRS=str(folder), FLOWHOOKS_PLUGINS_ALLOW="exits,raises,spoilt,works"
    )
    by_name = {finding["what"].split()[0]: finding for finding in found}
    assert [by_name[name]["mark"] for name in ("exits", "raises", "spoilt", "works")] == ["problem"] * 3 + ["ok"]
    assert by_name["raises"]["why"].endswith(f"ZeroDivisionError: division by zero ({folder}/raises.py:2)")
    assert by_name["raises"]["traceback"].startswith("Traceback")
    assert "it called sys.exit()" in by_name["exits"]["why"]
    assert by_name["raises"]["next"] == (
        f"correct {folder}/raises.py, and check again; `flowhooks plugins show raises` has its traceback"
    )


def test_the_command_that_shows_a_traceback_has_the_options_given(run, run_json, folder, tmp_path):
    """The command finds the plugin, because it reads the same settings."""
    (folder / "broken.py").write_text("raise ValueError")
    (tmp_path / "my.toml").write_text('plugins_allow = ["broken"]\n')
    options = ("--config=my.toml", "--plugins-dir=plugins")
    found = run_json("check", *options, code=1, FLOWHOOKS_PLUGINS_ALLOW=None)["findings"]
    (step,) = [finding["next"] for finding in found if "broken" in finding["what"]]
    assert f"`flowhooks plugins show broken {' '.join(options)}` has its traceback" in step
    assert "ValueError" in run("plugins", "show", "broken", *options, FLOWHOOKS_PLUGINS_ALLOW=None).stdout


def test_advice_for_a_missing_module(findings, folder):
    """A module that a plugin imports may not be installed."""
    (folder / "imp.py").write_text("import no_such_module")
    found = findings("plugins", code=1, FLOWHOOKS_PLUGINS_DIRS=str(folder), FLOWHOOKS_PLUGINS_ALLOW="imp")
    (problem,) = [finding for finding in found if finding["mark"] == "problem"]
    assert problem["next"].startswith(f"correct {folder}/imp.py or install the module, and check again")


def test_advice_for_a_plugin_with_wrong_settings(findings, folder):
    """If the settings are wrong, the advice is to correct the settings, not the plugin."""
    (folder / "choosy.py").write_text(
        "from flowhooks import hookimpl\n@hookimpl\ndef configure(settings):\n"
        "    raise ValueError('[plugins.choosy] colour must be green')"
    )
    (folder / "empty.py").write_text("from flowhooks import hookimpl\n@hookimpl\ndef handlers():\n    return [print]")
    env = {"FLOWHOOKS_PLUGINS_DIRS": str(folder), "FLOWHOOKS_PLUGINS_ALLOW": "choosy,empty"}
    choosy, empty = (finding for finding in findings("plugins", code=1, **env) if finding["mark"] == "problem")
    assert choosy["next"].startswith("correct the section [plugins.choosy] of the settings, and check again")
    assert empty["next"] == f"correct {folder}/empty.py, and check again"


@pytest.mark.parametrize(
    ("env", "why", "to_do"),
    [
        ({"FLOWHOOKS_PLUGINS_DIRS": ""}, "the plugin is not installed", "--plugins-dir"),
        ({"FLOWHOOKS_PLUGINS_DENY": "shop"}, "the plugin is disabled by the settings", "plugins_deny"),
        ({"FLOWHOOKS_SAFE_MODE": "yes"}, "the plugin is disabled by the settings", "plugins_deny"),
    ],
)
def test_missing_handlers_are_findings(server, findings, env, why, to_do):
    """Missing handlers are named with plugin, reason and remedy; their routes are kept."""
    (missing,) = findings("handlers", code=1, server=server, **env)
    assert missing["what"] == (
        "4 registered handlers of plugin shop are not loaded: shop:book, shop:copy, shop:grant, shop:hang"
    )
    assert missing["why"].startswith(why)
    assert to_do in missing["next"]
    assert findings("routes", code=1, server=server, **env)[0]["what"] == "6 routes to 4 handlers"


def test_invalid_settings_are_findings(findings, tmp_path):
    """Each invalid setting is a finding, and nothing else is checked."""
    (tmp_path / "flowhooks.toml").write_text('listn = "x"\nanswer_wait = 99\n')
    found = findings("settings", code=1)
    assert [finding["what"] for finding in found] == [
        "flowhooks.toml:1: listn is not a setting; did you mean listen?",
        "flowhooks.toml:2: answer_wait must be a number of seconds, 0 to 60, not 99",
    ]


def test_public_listeners(findings):
    """Public listeners without a credential are a failure; with `insecure`, a note."""
    found = findings("binds", code=1, FLOWHOOKS_LISTEN="0.0.0.0:8080", FLOWHOOKS_ADMIN="0.0.0.0:8081")
    assert [finding["mark"] for finding in found] == ["problem", "problem"]
    (found,) = findings("binds", FLOWHOOKS_LISTEN="0.0.0.0:8080", FLOWHOOKS_INSECURE="1")
    assert (found["mark"], found["why"]) == ("note", "other machines can use listen without a credential (insecure)")


def test_missing_folders_are_findings(findings, tmp_path):
    """Missing folders of plugins and of schema files are findings."""
    for name in ("FLOWHOOKS_PLUGINS_DIRS", "FLOWHOOKS_SCHEMAS_DIR"):
        (found,) = findings("plugins", code=1, **{name: str(tmp_path / "nothing")})
        assert found["mark"] == "problem"
        assert str(tmp_path / "nothing") in found["what"]


@pytest.fixture
def place(tmp_path, new_database):
    """Makes a path of some sort for a database."""
    file = tmp_path / "some.db"

    def change(statement):
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute(statement)

    def make(sort):
        match sort:
            case "text":
                file.write_text("not a database, and long enough to be read as none\n" * 20)
            case "folder":
                file.mkdir()
            case "no folder":
                return str(tmp_path / "nothing" / "some.db")
            case "empty":
                file.touch()
            case "other's":
                change("CREATE TABLE t (a)")
            case "newer":
                shutil.copy(new_database, file)
                change("UPDATE alembic_version SET version_num = '9999'")
        return str(file)

    return make


@pytest.mark.parametrize(
    ("sort", "mark", "said"),
    [
        ("text", "problem", "file is not a database"),
        ("folder", "problem", "is a folder"),
        ("no folder", "problem", "nothing does not exist"),
        ("other's", "problem", "it is not a flowhooks ledger: it has other tables (t)"),
        ("newer", "problem", "it was written by a newer flowhooks"),
        ("empty", "note", "it is empty: start the server once, or run `flowhooks db upgrade`"),
    ],
)
def test_unusable_databases_are_findings(findings, place, sort, mark, said):
    """Each unusable database has its own text; a database that only needs an upgrade is a note."""
    last = findings("database", code=int(mark == "problem"), FLOWHOOKS_DATABASE=place(sort))[-1]
    assert last["mark"] == mark
    assert said in last["what"]


def test_a_file_that_cannot_be_written(findings, tmp_path, monkeypatch):
    """The check asks the system for write access and does not write; root can write, so the test fakes a refusal."""
    (tmp_path / "flowhooks.db").touch()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path) and access(path, mode))
    last = findings("database", code=1)[-1]
    assert last["what"] == f"{tmp_path} cannot be written"


def test_a_damaged_file_is_a_finding(server, findings, tmp_path):
    """Overwritten pages are found by the database's own check, and no exception escapes."""
    with closing(sqlite3.connect(server.env["FLOWHOOKS_DATABASE"])) as whole:
        whole.execute("VACUUM INTO ?", [str(tmp_path / "flowhooks.db")])
    with (tmp_path / "flowhooks.db").open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 40960)
    last = findings("database", code=1)[-1]
    assert last["mark"] == "problem"
    assert str(tmp_path / "flowhooks.db") in last["what"]


def test_another_process_has_the_lock(findings, tmp_path):
    """A running command that holds the lock is a note; an unidentified process is a failure."""
    lock = Lock(tmp_path / "flowhooks.db")
    assert lock.acquire()
    (found,) = findings("server")
    assert (found["mark"], "is using the database exclusively" in found["what"]) == ("note", True)
    lock.path.write_text("")
    (found,) = findings("server", code=1)
    assert "its id is not known" in found["what"]
    lock.release()


@pytest.fixture
def serve_at(stopped_server):
    """A function that makes the stopped server's lock name a server at this port; returns the server's address."""
    lock = Lock(stopped_server.file)
    assert lock.acquire()

    def write_owner(port):
        lock.write_owner(LockOwner(pid=4711, admin=f"http://127.0.0.1:{port}", token="secret-token"))
        return f"http://127.0.0.1:{port}"

    yield write_owner
    lock.release()


class NotReady(BaseHTTPRequestHandler):
    """A server with two troubles."""

    def do_GET(self):
        """Answer `/readyz`."""
        assert (self.path, self.headers["Authorization"]) == ("/readyz", None)
        self.send_response(503)
        self.end_headers()
        self.wfile.write(
            b'{"ready": false, "trouble": ["the last write failed (database is locked)", "it is stopping"]}'
        )

    def log_message(self, *args):
        """Log nothing."""


def test_a_server_that_is_not_ready(stopped_server, serve_at, findings):
    """Each trouble that `/readyz` names is a problem."""
    with HTTPServer(("127.0.0.1", 0), NotReady) as other:
        thread = threading.Thread(target=other.handle_request, daemon=True)
        thread.start()
        serve_at(other.server_port)
        problems = [found for found in findings("server", server=stopped_server, code=1) if found["mark"] == "problem"]
        thread.join()
    assert [found["what"] for found in problems] == [
        "process 4711 is not ready: the last write failed (database is locked)",
        "process 4711 is not ready: it is stopping",
    ]
    step = "end the other program that holds a lock on the database file (`lsof FILE` names it)"
    assert [found["next"] for found in problems] == [step, ""]


def test_a_server_that_does_not_answer(stopped_server, serve_at, findings, monkeypatch):
    """A server that is silent, or refuses connections, is a problem with a next step."""
    monkeypatch.setattr(http_client, "READY_TIMEOUT", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        admin = serve_at(silent.getsockname()[1])
        found = findings("server", server=stopped_server, code=1)[-1]
        assert found["what"] == f"process 4711 does not answer: {admin} did not answer within 0.01 seconds"
        assert "if it hangs, stop it" in found["next"]
    found = findings("server", server=stopped_server, code=1)[-1]
    assert found["what"] == f"process 4711 does not answer: no answer from {admin}: connection refused"


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.45.0", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.50.12", False),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.53.0", False),
        ("4.0.0", False),
        ("unknown", True),
    ],
)
def test_releases_with_the_wal_reset_bug(version, affected):
    """SQLite 3.7.0 to 3.51.2 has the bug, except branches with the fix."""
    assert is_affected(version) is affected


SLOW = """
import threading
from flowhooks import hookimpl

assert threading.said.wait(60)

@hookimpl
def handlers():
    return []
"""


def test_a_plugin_that_is_slow_to_load_is_named(run, folder, monkeypatch):
    """While it loads, standard error says which plugin the command waits for; the findings follow."""
    said = threading.Event()
    monkeypatch.setattr(slow_loading, "REPORT_INTERVAL", 0.02)
    monkeypatch.setattr(operations_client.output, "print_line", tell(said, operations_client.output.print_line))
    monkeypatch.setattr("threading.said", said, raising=False)
    (folder / "slow.py").write_text(SLOW)
    result = run("check", FLOWHOOKS_PLUGINS_DIRS=str(folder), FLOWHOOKS_PLUGINS_ALLOW="slow")
    assert f"Waiting for plugin slow (file {folder}/slow.py), which has been loading for " in result.stderr
    assert result.stdout.splitlines()[-1].startswith("0 problems, ")


def tell(event, function):
    """A function that also sets an event after each call."""

    def called(*arguments, **named):
        function(*arguments, **named)
        event.set()

    return called


def test_a_file_whose_name_cannot_be_used_is_renamed(findings, folder):
    """The next step for a plugin file with a name that cannot be used is to rename the file."""
    (folder / "bad name.py").write_text("")
    (bad,) = [
        finding
        for finding in findings("plugins", code=1, FLOWHOOKS_PLUGINS_DIRS=str(folder), FLOWHOOKS_PLUGINS_ALLOW="")
        if finding["what"].startswith("bad name ")
    ]
    assert bad["next"] == f"rename {folder}/bad name.py, and check again"
