"""Fixtures shared by the tests of the commands."""

from __future__ import annotations

import http.client
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest
from click.testing import CliRunner

from flowhooks.app import App
from flowhooks.cli.main import main
from flowhooks.intake.callback import Callback
from flowhooks.settings import Settings
from support import fork_server
from support.logging_state import restore_logging  # noqa: F401 (a fixture)
from support.waiting import WAIT_TIMEOUT, until

PLUGIN = """
import os, pathlib, time
print("the shop opens")
from flowhooks import handler, hookimpl

HERE = pathlib.Path(__file__).parent

@handler(process_key="leave", callback_class=["com.example.Leave", "com.example.Other"])
def grant(event):
    return {"days": 3, "status": "已归档"}

@handler(process_key="order", versions=">=2")
def book(event):
    if not (HERE / "open").exists():
        raise ValueError("closed\\x1b[31m today\\n[red]really[/red]")

@handler(process_key="order", source="erp")
def copy(event):
    pass

@handler(process_key="endless")
def hang(event):
    (HERE / f"began-{event.flow_instance_id}").touch()
    time.sleep(3600)

@hookimpl
def handlers():
    return [grant, book, copy, hang]
"""


def post(base, instance, **body):
    """Send a callback; return its event's id from the response."""
    path = f"/flow/{instance}/call-back/complete"
    headers = {"Content-Type": "application/json", "Prefer": body.pop("prefer", "wait=20")}
    with closing(http.client.HTTPConnection(base.removeprefix("http://"), timeout=WAIT_TIMEOUT)) as connection:
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        response.read()
    return response.headers["Flowhooks-Event"]


class Server:
    """`flowhooks serve` in a process of its own.

    Attributes:
        env: its environment, with which commands use the same ledger.
        folder: the folder of its plugin; the handler `book` fails until the folder has a file `open`.
        call_backs: the URL of its callback listener.
        admin: the URL of its administration listener.
    """

    OWN = frozenset({"leave", "dead", "parked", "hostile", "twice", "killed", "resolved"})
    """The flow instances of the events that the shared server starts with."""

    def __init__(self, folder, database):
        self.folder = folder
        (folder / "shop.py").write_text(PLUGIN)
        self.env = {
            "FLOWHOOKS_DATABASE": str(database),
            "FLOWHOOKS_PLUGINS_DIRS": str(folder),
            "FLOWHOOKS_PLUGINS_ALLOW": "shop",
            "FLOWHOOKS_CPU_AFFINITY": "no",  # otherwise the servers of all test processes use the same core
            "FLOWHOOKS_ANSWER_WAIT": "60",  # on a busy machine, an outcome may take longer than the default
        }

    def start(self):
        """Start the server, and wait until it serves."""
        command = [*fork_server.FLOWHOOKS, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = fork_server.start(command, env=environment(self.env))
        for line in self.process.stderr:
            record = json.loads(line)
            if record["event"] == "server_started":
                self.call_backs, self.admin = record["call_backs"], record["admin"]
                break
        else:
            pytest.fail("the server did not start")
        self._reading = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reading.start()

    def end(self, number=signal.SIGTERM):
        """End the server by a signal."""
        self.process.send_signal(number)
        self.process.wait(WAIT_TIMEOUT)
        self._reading.join()
        self.process.stderr.close()

    def post(self, instance, **body):
        """Send a callback; return its event's id from the response."""
        return post(self.call_backs, instance, **body)

    def sql(self, statement, *values):
        """Read or write in the ledger, beside the server."""
        with closing(sqlite3.connect(self.env["FLOWHOOKS_DATABASE"], WAIT_TIMEOUT, isolation_level=None)) as ledger:
            return ledger.execute(statement, values).fetchall()


def environment(variables):
    """This process's environment without flowhooks' variables, and with `variables`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    return inherited | {"COLUMNS": "100"} | variables


HOSTILE = "a\x1b[31m\x07b\nc\u202ed[red]e[/red]\x9b\x7f:smile:"
"""A value with colours, bells, line breaks, direction marks and markup."""


@pytest.fixture(scope="session")
def server(tmp_path_factory, new_database):
    """A server with an event of each kind, named by its flow instance. The server was killed once while a handler ran.

    leave: succeeded, `again`: its callback was repeated with other data; dead: dead; parked; killed, resolved: unknown;
    hostile: with HOSTILE for its business key; twice: two events, one for each class.
    """
    folder = tmp_path_factory.mktemp("shop")
    database = folder / "shop.db"
    shutil.copy(new_database, database)
    server = Server(folder, database)
    server.start()
    for instance in ("killed", "resolved"):
        server.post(instance, processDefinitionKey="endless", prefer="respond-async")
        until((folder / f"began-{instance}").exists)
    server.end(signal.SIGKILL)
    server.start()
    server.post("leave", processDefinitionKey="leave", processDefinitionVersion=2)
    server.post("leave", processDefinitionKey="leave", processDefinitionVersion=2)
    server.post("leave", processDefinitionKey="leave", processDefinitionVersion=3)
    server.post("dead", processDefinitionKey="order", processDefinitionVersion=2)
    server.post("parked", processDefinitionKey="ordre", note="\u5408\u540c")
    server.post("hostile", processDefinitionKey="leave", businessKey=HOSTILE)
    server.post("twice", callBackProcessClass="com.example.Leave")
    server.post("twice", callBackProcessClass="com.example.Other")
    yield server
    server.end()
    assert server.process.returncode == 0


@pytest.fixture(scope="session")
def make_shop():
    """A function that makes a `Server`, not started, for a plugin folder and a database."""
    return Server


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that runs `flowhooks` with these arguments in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FLOWHOOKS_")]:
        monkeypatch.delenv(name)

    def run(*arguments, server=None, given="", **env):
        env = {"COLUMNS": "100", "FLOWHOOKS_PLUGINS_ALLOW": "none"} | (server.env if server else {}) | env
        return CliRunner(env=env).invoke(main, arguments, input=given, catch_exceptions=False)

    return run


@pytest.fixture
def run_json(run):
    """A function that runs `flowhooks ... --json` and returns its output parsed as JSON."""

    def run_command(*arguments, code=0, **more):
        result = run(*arguments, "--json", **more)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return run_command


@pytest.fixture
def wait_for_state(run_json, server):
    """A function that waits until the only delivery of an instance is in a state, and returns the delivery."""

    def wait(instance, state):
        def look():
            (event,) = run_json("events", "show", instance, server=server)["events"]
            (delivery,) = event["deliveries"]
            return delivery if delivery["state"] == state else None

        return until(look)

    return wait


@pytest.fixture(scope="session")
def hostile():
    """A value that must be escaped before it is printed to a terminal."""
    return HOSTILE


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A function that returns the command line of flowhooks for an environment; the command is forked if possible."""
    file = tmp_path_factory.mktemp("program") / "flowhooks"
    fork_server.program(file)
    return lambda env: [file] if fork_server.can_fork(env) else fork_server.FLOWHOOKS


@pytest.fixture(scope="session")
def spawn(program):
    """A function that starts a command in its own process, whose output is read as text."""

    def start(*arguments, server=None, **env):
        env = environment((server.env if server else {}) | env)
        return subprocess.Popen(
            [*program(env), *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run_at_terminal(server, program):
    """A function that runs a command at a terminal and types a reply; returns the output and the exit code.

    `at_question` is called when the command asks, before the reply is typed.
    """

    def run(*arguments, typed, at_question=None, **env):
        controller, terminal = pty.openpty()
        env = environment(server.env) | {"TERM": "xterm"} | env
        process = subprocess.Popen(
            [*program(env), *arguments],
            env=env,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        if at_question is None:
            os.write(controller, typed.encode())
        printed = b""
        try:
            while chunk := os.read(controller, 65536):
                printed += chunk
                if at_question is not None and b"[y/N]" in printed:
                    at_question()
                    at_question = None
                    os.write(controller, typed.encode())
        except OSError:  # Linux reports this if the other end is closed
            pass
        os.close(controller)
        return printed.decode(), process.wait(WAIT_TIMEOUT)

    return run


@pytest.fixture
def stopped_server(tmp_path, new_database):
    """The files of a stopped server: a ledger with four dead deliveries, and its plugin."""
    file = tmp_path / "left.db"
    shutil.copy(new_database, file)
    folder = tmp_path / "plugins"
    folder.mkdir()
    stopped_server = Server(folder, file)
    app = App(Settings(database=str(file), plugins_dirs=(str(folder),), plugins_allow=("shop",)))
    app.start()
    body = {"processDefinitionKey": "order", "processDefinitionVersion": 2}
    for number in range(4):
        call_back = Callback(
            source="default", kind="complete", flow_instance_id=f"f{number}", body=body, text=json.dumps(body)
        )
        app.intake.accept(call_back, wait=20)
    app.close(20)
    with closing(sqlite3.connect(file)) as ledger, ledger:
        ledger.execute("DELETE FROM alerts")  # a slow server checks for alerts again after the last delivery is dead
    stopped_server.file = file
    return stopped_server
