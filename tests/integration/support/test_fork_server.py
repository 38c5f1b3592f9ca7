"""Forks of flowhooks behave like started processes in output, exit and environment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support import fork_server

SERVE = (*fork_server.FLOWHOOKS, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
ALONE = {"FLOWHOOKS_PLUGINS_ALLOW": "none"}

PLUGIN = """
import os
import sys
import flowhooks

@flowhooks.handler(process_key="leave")
def grant(event):
    pass

@flowhooks.hookimpl
def handlers():
    print(sys.path, os.environ["PYTHONPATH"])
    return [grant]
"""


def environ(**more):
    """An environment without flowhooks' settings except these."""
    return {name: it for name, it in os.environ.items() if not name.startswith("FLOWHOOKS_")} | ALONE | more


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["check", "--database", "here.db"],
        ["nothing-of-that-name"],
        ["events", "list", "--database", "missing/ledger.db"],
    ],
    ids=lambda words: words[0],
)
def test_a_fork_has_the_output_and_exit_code_of_a_started_process(tmp_path, words):
    """Standard output, errors and exit code are equal."""
    command = [*fork_server.FLOWHOOKS, *words]
    forked = fork_server.run(command, cwd=tmp_path, env=environ())
    started = subprocess.run(command, cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False)
    program = tmp_path / "flowhooks"
    fork_server.program(program)
    asked = subprocess.run([program, *words], cwd=tmp_path, env=environ(), capture_output=True, text=True, check=False)
    wanted = (started.stdout, started.stderr, started.returncode)
    assert (forked.stdout, forked.stderr, forked.returncode) == wanted
    assert (asked.stdout, asked.stderr, asked.returncode) == wanted
    assert forked.stdout + forked.stderr


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_a_forked_server_has_the_requested_environment(tmp_path, end):
    """A fork has the requested folder, environment, files and session, and ends by a signal."""
    seen = []
    for told, kind in (({}, fork_server.Forked), ({"PYTHONHASHSEED": "1"}, subprocess.Popen)):
        env = environ(FLOWHOOKS_DATABASE="own.db", PYTHONFAULTHANDLER="1", **told)
        server = fork_server.start(SERVE, cwd=tmp_path, env=env, own_session=True)
        assert isinstance(server, kind)
        assert any(b'"server_started"' in line for line in server.stderr)
        at = Path(f"/proc/{server.pid}")
        files = [(at / "fd" / number).readlink() for number in "01"]
        seen.append([(at / "cwd").readlink(), files, os.getsid(server.pid) == server.pid])
        server.send_signal(end)
        server.stderr.read()
        server.stderr.close()
        assert server.wait(30) == (0 if end == signal.SIGTERM else -end)
        assert server.poll() == server.returncode
        server.kill()  # an ended process cannot be killed
    assert seen[0] == seen[1]
    assert (tmp_path / "own.db").exists()


def test_children_of_forked_and_started_servers_are_equal(tmp_path):
    """A successor of a forked server has the parent, group, folder, input, limits and cores of one that is started."""
    seen = []
    for forks_children in (True, False):
        server = fork_server.start(
            SERVE, cwd=tmp_path, env=environ(FLOWHOOKS_DATABASE="own.db"), forks_children=forks_children
        )
        assert any(b'"server_started"' in line for line in server.stderr)
        server.send_signal(signal.SIGUSR2)
        logged = map(json.loads, iter(server.stderr.readline, b""))
        successor = next(record["process"] for record in logged if record["event"] == "process_started")
        next(record for record in logged if record["event"] == "ledger_taken_over" and record["pid"] == successor)
        at = Path(f"/proc/{successor}")
        status = at.joinpath("status").read_text()
        seen.append(
            [
                (at / "cmdline").read_bytes() == b"\0".join(map(os.fsencode, SERVE)) + b"\0",
                int(re.search(r"PPid:\t(\d+)", status)[1]) == server.pid,
                os.getpgid(successor) == successor,
                (at / "cwd").readlink(),
                (at / "fd/0").readlink(),
                at.joinpath("limits").read_text(),
                os.sched_getaffinity(successor),
            ]
        )
        server.terminate()
        server.stderr.read()
        server.stderr.close()
        assert server.wait(30) == 0
    assert [is_started for is_started, *_ in seen] == [False, True]
    assert seen[0][1:] == seen[1][1:]
    assert seen[0][1:3] == [True, True]


def test_a_too_short_wait_raises_a_timeout(tmp_path):
    """A wait that is too short raises the usual exception."""
    server = fork_server.start(SERVE, cwd=tmp_path, env=environ())
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(0.01)
    server.kill()
    assert server.wait(30) == -signal.SIGKILL
    server.stderr.close()


def test_a_fork_is_killed_at_the_named_failpoint(tmp_path):
    """It says and ends as what is started."""
    seen = []
    for number, told in enumerate(({}, {"PYTHONHASHSEED": "1"})):
        command = [*fork_server.FLOWHOOKS, "db", "upgrade", "--database", f"{number}.db"]
        ended = fork_server.run(command, cwd=tmp_path, env=environ(FLOWHOOKS_FAILPOINT="migrate.applied:1", **told))
        seen.append([ended.stdout, ended.stderr, ended.returncode])
    assert seen[0] == seen[1]
    assert "killed at migrate.applied:1" in seen[0][1]
    assert seen[0][2] == -signal.SIGKILL


def test_a_fork_uses_pythonpath(tmp_path):
    """A plugin in the folder of PYTHONPATH is found there, and the variable is set."""
    info = tmp_path / "packages/acme_leave-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-leave\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text("[flowhooks]\nleave = acme_leave\n")
    (info.parent / "acme_leave.py").write_text(PLUGIN)
    seen = []
    for told in ({}, {"PYTHONHASHSEED": "1"}):
        env = environ(FLOWHOOKS_PLUGINS_ALLOW="leave", **told)
        command = [*fork_server.FLOWHOOKS, "routes", "--key", "leave"]
        ended = fork_server.run(command, cwd=tmp_path, env=env, python_path=str(info.parent))
        seen.append([ended.stdout, ended.stderr, ended.returncode])
    assert seen[0] == seen[1]
    assert "leave:grant" in seen[0][0]


@pytest.mark.parametrize("name", ["PYTHONWARNINGS", "LC_ALL", "MALLOC_ARENA_MAX"])
def test_a_command_with_variables_read_at_start_is_not_forked(tmp_path, name):
    """A command whose variables are only read at a start is started, not forked."""
    process = fork_server.start([*fork_server.FLOWHOOKS, "--version"], cwd=tmp_path, env=environ(**{name: ""}))
    assert isinstance(process, subprocess.Popen)
    process.communicate()
