"""Real servers, each a process of its own, clients that send any bytes, and environments of wheels."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import cache
from importlib.metadata import entry_points
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from flowhooks.execution.runners import procrastinate_schema
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.upgrade import upgrade
from support import faulty_proxy, fork_server, postgresql, process_trials, raw_http, waiting
from support.waiting import WAIT_TIMEOUT
from support.wheel_environment import Environment, build_wheel, locked

CHECKOUT = Path(__file__).parents[2]
ERROR = ["success", "message", "errorInfo", "timestamp", "status", "error", "path"]
PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}
INTERNALS = re.compile(
    r"Traceback|File \"|/[\w.-]+/[\w./-]+\.py|site-packages|sqlalchemy|sqlite|SELECT |INSERT |UPDATE ", re.IGNORECASE
)
"""Texts that no response may contain: tracebacks, paths and SQL."""


class Response(NamedTuple):
    """One response as it was received."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def event_id(self):
        """The id of the event that the response names."""
        return self.headers["Flowhooks-Event"]

    def check_error(self, status, *, path=None):
        """Check that this is an error with this status and exactly the contract's envelope; return its message."""
        assert self.status == status, (self.status, self.body[:500])
        body = self.json
        assert list(body) == ERROR
        assert body["success"] is False
        assert body["errorInfo"] == {"message": body["message"]}
        assert body["status"] == status
        assert body["error"] == PHRASES[status]
        assert datetime.fromisoformat(body["timestamp"]).utcoffset() is not None
        if path is not None:
            assert body["path"] == path
        assert body["message"].strip()
        assert not INTERNALS.search(body["message"]), body["message"]
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        return body["message"]


class Server:
    """One `flowhooks serve` or `flowhooks worker` and its log; `ready` is the event that it logs when it is ready."""

    def __init__(self, command, *, folder, environ, ready="server_started", forks_children=False):
        self._ready = ready
        self.records = []
        self.lines = []
        self._changed = threading.Condition(threading.RLock())
        # Own session, because Ctrl-C must reach only the tests, which then stop the server themselves.
        self.process = fork_server.start(
            command, cwd=folder, env=environ, own_session=True, forks_children=forks_children
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        for raw in self.process.stderr:
            line = raw.decode("utf-8", "backslashreplace").rstrip("\n")
            try:
                record = json.loads(line)
            except ValueError:
                record = {"event": None}
            with self._changed:
                self.lines.append(line)
                self.records.append(record)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def logged(self, event, **values):
        """The records of this log event so far that have these values."""
        with self._changed:
            return [record for record in self.records if record["event"] == event and values.items() <= record.items()]

    def until_logged(self, event, *, times=1, within=WAIT_TIMEOUT, **values):
        """Wait until this log event with these values has been logged `times` times; return the last record."""
        end = time.monotonic() + within
        with self._changed:
            while len(records := self.logged(event, **values)) < times:
                last = "\n".join(self.lines[-20:])
                assert self._listener.is_alive(), f"the server has ended, without {event} {values}:\n{last}"
                remaining = end - time.monotonic()
                assert remaining > 0, f"{event} {values} was logged {len(records)} times, not {times}:\n{last}"
                self._changed.wait(remaining)
            return records[times - 1]

    def reload(self, event="settings_reloaded"):
        """Send SIGHUP, wait until the resulting event is logged, and return its record."""
        before = len(self.logged(event))
        self.signal(signal.SIGHUP)
        return self.until_logged(event, times=before + 1)

    @property
    def address(self):
        """(host, port) of the callback listener."""
        return _parse_address(self.until_logged("server_started")["call_backs"])

    @property
    def admin(self):
        """(host, port) of the administration listener."""
        return _parse_address(self.until_logged(self._ready)["admin"])

    def ask(self, method, path, body=None, headers=None, *, admin=False, timeout=30):
        """Send one request on a new connection; retry if the server closed it because this client sent too slowly.

        Retry also after status 408: a server that was delayed while it read a large body sends it, too.
        """
        address, attempts = self.admin if admin else self.address, count(1)
        while True:
            is_last = next(attempts) == raw_http.MAX_TRIES
            started_at = time.monotonic()
            with closing(http.client.HTTPConnection(*address, timeout=timeout)) as connection:
                connection.connect()
                with suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # the server responded before the whole request was sent
                    connection.request(method, path, body, headers or {})
                is_slow = time.monotonic() - started_at > raw_http.MIN_DELAY
                try:
                    response = read(connection.getresponse())
                except ConnectionError:
                    if not is_slow or is_last:
                        raise
                else:
                    if response.status != 408 or is_last:
                        return response

    def post(self, instance, body, *, kind="complete", timeout=30, **headers):
        """Send one callback; underscores in a header's name stand for dashes."""
        raw_body = body if isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"Content-Type": "application/json"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.ask("POST", f"/flow/{instance}/call-back/{kind}", raw_body, all_headers, timeout=timeout)

    def send(self, raw, *, half_close=False, timeout=WAIT_TIMEOUT):
        """Send bytes on a new connection; return everything received until the server closes it."""
        return raw_http.exchange(self.address, raw, half_close=half_close, timeout=timeout)

    def operate(self, token, name, **arguments):
        """Call one operation of the administration API."""
        headers = {"Authorization": f"Bearer {token}"}
        return self.ask("POST", f"/api/operations/{name}", json.dumps(arguments), headers, admin=True)

    def memory(self):
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def signal(self, number=signal.SIGTERM):
        """Send a signal."""
        self.process.send_signal(number)

    def freeze(self):
        """Send SIGSTOP, and wait until the process is stopped: its threads run until its main thread gets it."""
        self.signal(signal.SIGSTOP)
        process = Path(f"/proc/{self.process.pid}/stat")
        waiting.until(lambda: process.read_text().rpartition(")")[2].split()[0] == "T")

    def wait(self, timeout=WAIT_TIMEOUT):
        """Wait for the end of the process and its complete log; return the exit code."""
        timed_out = False
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            self.process.send_signal(signal.SIGABRT)  # the server then prints the stack of each thread
            code = self.process.wait(timeout)
        self._listener.join(timeout)
        assert not self._listener.is_alive(), "a process that the server started is still running"
        self.process.stderr.close()
        assert not timed_out, "the server did not end:\n" + "\n".join(self.lines[-200:])
        return code

    def stop(self):
        """Request an orderly shutdown."""
        self.signal()
        assert self.wait() == 0, "\n".join(self.lines[-20:])

    def kill(self):
        """Kill the process."""
        self.process.kill()
        self.wait()

    def check_log(self):
        """Check that the log has one JSON object per line, and no traceback except those of plugins."""
        for line, record in self.log():
            assert isinstance(record, dict), line
            assert record["event"] is not None, line
            assert "traceback" not in record, line

    def log(self):
        """Every line so far with its parsed record."""
        with self._changed:
            return list(zip(self.lines, self.records, strict=True))


def _parse_address(url):
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def read(response):
    """A complete response of `http.client`."""
    return Response(response.status, response.headers, response.read())


@cache
def installed_plugins():
    """The names of the installed plugins, as a setting."""
    return ",".join(entry_point.name for entry_point in entry_points(group="flowhooks"))


class Site:
    """A folder with all files of a server, in which servers can be started repeatedly.

    Attributes:
        forks_children: whether the processes that a server or worker starts are forked, too. Default: they are started.
    """

    def __init__(self, folder):
        self.folder = folder
        self.database = folder / "flowhooks.db"
        self.url = f"sqlite:///{self.database}"
        self.plugins = folder / "plugins"
        self.plugins.mkdir(parents=True)
        self.journal = folder / "journal"
        self.flowhooks = [sys.executable, "-m", "flowhooks"]
        self.forks_children = False
        self._servers = []

    def plugin(self, name, source):
        """Install or replace a single-file plugin."""
        (self.plugins / f"{name}.py").write_text(source)

    def remove(self, name):
        """Remove a plugin."""
        (self.plugins / f"{name}.py").unlink()

    def _environ(self, settings):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
        # Otherwise the servers of all test processes would choose the same core.
        settings = {"cpu_affinity": False} | settings
        variables = {f"FLOWHOOKS_{name.upper().replace('__', '_')}": str(value) for name, value in settings.items()}
        return inherited | variables | {"JOURNAL": str(self.journal), "PYTHONFAULTHANDLER": "1"}

    def command(self, *words):
        """A flowhooks command in this folder, where only the packages that the test installs are installed."""
        return [*map(str, self.flowhooks), *map(str, words)]

    def start(self, *words, config="", ready=True, listen="127.0.0.1:0", admin="127.0.0.1:0", **settings):
        """Start a server. Settings are given by name with `__` for the dot, such as `ledger__write_timeout=1`."""
        (self.folder / "flowhooks.toml").write_text(config)
        server = Server(
            self.command(
                "serve",
                *("--listen", listen, "--admin", admin),
                *("--database", self.database, "--plugins-dir", self.plugins, *words),
            ),
            folder=self.folder,
            environ=self._environ({"plugins_deny": installed_plugins()} | settings),
            forks_children=self.forks_children,
        )
        self._servers.append(server)
        if ready:
            server.until_logged("server_started")
        return server

    def launch(self, command, environ):
        """Start a server with a command that the test gives."""
        self._servers.append(Server(command, folder=self.folder, environ=environ))
        return self._servers[-1]

    def start_worker(self, *words, ready=True, **settings):
        """Start a worker with the plugins of the given folders."""
        worker = Server(
            self.command("worker", "--database", self.database, *words),
            folder=self.folder,
            environ=self._environ({"plugins_deny": installed_plugins()} | settings),
            ready="worker_started",
            forks_children=self.forks_children,
        )
        self._servers.append(worker)
        if ready:
            worker.until_logged("worker_started")
        return worker

    def run(self, *words, **settings):
        """Run a flowhooks command until it ends."""
        return fork_server.run(self.command(*words), cwd=self.folder, env=self._environ(settings))

    def token(self):
        """The headers for the administration API, from the lock file."""
        return json.loads(self.database.with_name("flowhooks.db.lock").read_text())["token"]

    @contextmanager
    def ledger(self):
        """The ledger, opened for reading."""
        with closing(Reader(self.url)) as reader:
            yield reader

    def balance(self):
        """Check that the counts balance, and return them."""
        with self.ledger() as ledger:
            counts = ledger.verify()
        assert counts.problems == []
        return counts

    def until(self, condition, *, within=WAIT_TIMEOUT):
        """Wait until `wanted(ledger)` is true; return its result."""
        with self.ledger() as ledger:
            return waiting.until(lambda: condition(ledger), seconds=within, poll=0.02, why=ledger.verify)

    def close(self):
        """Kill every server that is still running, and the processes that it has started."""
        for server in self._servers:
            if server.process.poll() is None:
                server.process.kill()
                _kill_session(server.process.pid)
            server.wait()


def _kill_session(leader):
    """Kill the processes of a session, such as the successor of a server that was killed."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if os.getsid(int(entry.name)) == leader:
                os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture
def environment(tmp_path):
    """A new environment in which nothing is installed yet."""
    return Environment(tmp_path / "environment")


@pytest.fixture
def environment_with_flowhooks(shared_folder, built, tmp_path):
    """A new environment in which the wheel of flowhooks is installed, a copy of one for all test processes."""
    with locked(shared_folder / "environment.lock"):
        installed = shared_folder / "environment"
        if not installed.exists():
            Environment(shared_folder / "installing").install(built(CHECKOUT))
            (shared_folder / "installing").rename(installed)
    return Environment(tmp_path / "environment", like=installed)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder for files that are made once for all test processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def built(shared_folder):
    """A function that builds the wheel of a folder without downloads; once for all test processes."""

    @cache
    def build(project):
        folder = shared_folder / "wheels" / project.name
        with locked(folder / "lock"):
            if not list(folder.glob("*.whl")):
                build_wheel(project, folder)
            (wheel,) = folder.glob("*.whl")
            return wheel

    return build


@pytest.fixture(scope="module")
def make_site(tmp_path_factory):
    """A function that makes a site for all tests of a file."""
    sites = []

    def make():
        sites.append(Site(tmp_path_factory.mktemp("site") / "here"))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture(params=["embedded", pytest.param("procrastinate", marks=pytest.mark.long)])
def sharing(request, make_site, postgresql_url):
    """A site whose processes share a ledger on PostgreSQL, with each runner in turn."""
    site = make_site()
    site.settings = {"runner__kind": request.param}
    if request.param == "procrastinate":
        result = site.run("db", "upgrade", "--database", postgresql_url, **site.settings)
        assert result.returncode == 0, result.stderr
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute("TRUNCATE procrastinate_jobs, procrastinate_workers CASCADE")
    site.database = site.url = postgresql_url
    yield site
    site.close()  # the next test uses the same database, and a failed test leaves its processes running


@pytest.fixture(scope="session")
def breakable_server():
    """A PostgreSQL server that tests may break; each test leaves it running."""
    with postgresql.breakable() as server:
        url = server.make("ledger")
        upgrade(url)
        procrastinate_schema.upgrade(url)
        yield server


@pytest.fixture
def broken(breakable_server, make_site):
    """A site with a new database on a server and a proxy that tests may break."""
    name = f"flowhooks_{uuid.uuid4().hex}"
    site = make_site()
    site.server = breakable_server
    site.direct = site.url = breakable_server.make(name, template="ledger")
    site.proxy = faulty_proxy.Proxy(breakable_server.port)
    site.proxied = f"postgresql://postgres@127.0.0.1:{site.proxy.port}/{name}"
    site.database = site.direct
    site.plugin("p", process_trials.PLUGIN)
    yield site
    site.close()
    site.proxy.close()
    breakable_server.drop(name)


@pytest.fixture
def site(tmp_path):
    """A site for one test."""
    site = Site(tmp_path / "site")
    yield site
    site.close()
