"""Starts of the server that fail: one clear line, an exit code, no traceback, and no process left."""

from __future__ import annotations

import shutil
import socket
import sqlite3
from contextlib import closing

import pytest

from support.waiting import WAIT_TIMEOUT

SERVE = ("serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


@pytest.fixture(scope="module")
def ended(tmp_path_factory, spawn, new_database, server):
    """The exit code and output of every start of the table below; they run together to save time."""
    folder = tmp_path_factory.mktemp("starts")
    (folder / "text.db").write_text("not a database, and long enough to be read as none\n" * 20)
    (folder / "folder.db").mkdir()
    shutil.copy(new_database, folder / "newer.db")
    with closing(sqlite3.connect(folder / "newer.db", isolation_level=None)) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    def at(name):
        return (*SERVE, "--database", str(folder / name))

    starts = {
        "callback port taken": ("serve", "--listen", f"127.0.0.1:{port}", *at("a.db")[3:]),
        "admin port taken": (*at("b.db"), "--admin", f"127.0.0.1:{port}"),
        "no folder": at("nothing/x.db"),
        "a folder": at("folder.db"),
        "not writable": (*SERVE, "--database", "/proc/flowhooks.db"),
        "newer": at("newer.db"),
        "text": at("text.db"),
        "in use": (*SERVE, "--database", server.env["FLOWHOOKS_DATABASE"]),
        "no plugins folder": (*at("d.db"), "--plugins-dir", str(folder / "nothing")),
    }
    started = {name: spawn(*arguments, FLOWHOOKS_SAFE_MODE="yes") for name, arguments in starts.items()}
    try:
        # All processes load at once, which takes long on a busy machine.
        said = {name: process.communicate(timeout=4 * WAIT_TIMEOUT) for name, process in started.items()}
        printed = {name: (*said[name], started[name].returncode) for name in started}
    finally:
        for process in started.values():
            process.kill()
        taken.close()
    return folder, port, printed


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (
            "callback port taken",
            1,
            "option --listen: cannot listen on 127.0.0.1:{port}: address already in use (is another server running?)",
        ),
        (
            "admin port taken",
            1,
            "option --admin: cannot listen on 127.0.0.1:{port}: address already in use (is another server running?)",
        ),
        ("no folder", 1, "cannot use the database {folder}/nothing/x.db: the folder {folder}/nothing does not exist"),
        ("a folder", 1, "cannot create the database file {folder}/folder.db: Is a directory"),
        ("not writable", 1, "cannot create the lock file /proc/flowhooks.db.lock: No such file or directory"),
        (
            "newer",
            1,
            "cannot use the database {folder}/newer.db: it was written by a newer flowhooks (its tables are at",
        ),
        (
            "text",
            1,
            "cannot use the database {folder}/text.db: it is no SQLite database, or its header is damaged: correct ",
        ),
        ("in use", 1, "is in use by process {pid}, whose administration is at"),
        ("no plugins folder", 2, "the plugins folder {folder}/nothing cannot be read: No such file or directory"),
    ],
)
def test_a_start_that_cannot_succeed(ended, server, name, code, said):
    """The line names the obstacle and its place; there is no traceback and no log."""
    folder, port, printed = ended
    out, err, returned = printed[name]
    assert (returned, out) == (code, "")
    assert said.format(folder=folder, port=port, pid=server.process.pid) in err
    first, *others = err.splitlines()
    assert '"server_starting"' in first
    said_last = [line for line in others if '"ledger_created"' not in line]  # it is made before it listens
    assert len(said_last) == 1
    assert said_last[0].startswith("Error: ")
    if name in {"folder", "text"}:  # the file of another program is not changed
        assert not list((folder / "folder.db").iterdir())
        assert (folder / "text.db").read_text().startswith("not a database")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--config", "unknown.toml"),
            "unknown.toml:1: listn is not a setting; did you mean listen?\nunknown.toml:2: answer_wait must",
        ),
        (("--config", "broken.toml"), "broken.toml: is not TOML:"),
        (("--config", "nothing.toml"), "nothing.toml: cannot be read: No such file or directory"),
        (("--listen", "0.0.0.0:0"), "accepts callbacks from other machines, but no credential is configured"),
        (("--listen", "nonsense"), "option listen must be host:port, not 'nonsense': the port is missing"),
        (("--database", "mysql://user:secret@host/db"), "mysql:// is not supported"),
    ],
)
def test_settings_that_cannot_be_used(run, tmp_path, arguments, said):
    """Each problem is a line, the exit code is 2, no password is repeated, and no file is created."""
    (tmp_path / "unknown.toml").write_text("listn = 1\nanswer_wait = 100\n")
    (tmp_path / "broken.toml").write_text("listen = \n")
    result = run(*SERVE, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr
    assert "secret" not in result.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_start_ends_although_a_plugin_has_left_a_thread(tmp_path, spawn):
    """The process exits with the code of the error, so that its service manager or supervisor starts it again."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stays.py").write_text(
        "import threading\n\nthreading.Thread(target=threading.Event().wait, name='stays').start()\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ("--database", str(tmp_path / "a.db"), "--plugins-dir", str(tmp_path / "plugins"))
        process = spawn("serve", "--listen", address, "--admin", "127.0.0.1:0", *options)
        try:
            _, err = process.communicate(timeout=WAIT_TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, "address already in use" in err) == (1, True)
    assert '"abandoned_threads"' in err
    assert "stays" in err
