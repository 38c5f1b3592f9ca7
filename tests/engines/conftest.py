"""A real server with plugins of its own, and real engines, each a process that a test controls by lines of text."""

from __future__ import annotations

import hashlib
import http.client
import json
import math
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from support import fork_server
from support.maven import JAVA, Build, skip_without_maven
from support.ports import free_port

PROJECTS = Path(__file__).parents[1] / "data/engines"
WAIT_TIMEOUT = 60.0
"""Timeout of waits in seconds: an engine creates its tables while other processes use the cores."""
FORKS = Path(__file__).parents[2] / "docs/how-to/engines/operaton-and-cib-seven.md"
"""The page about the forks of Camunda 7."""
START_TIMEOUT = 300.0
"""Timeout of the start of an engine in seconds: Spring Boot loads ten thousand classes first."""


class Response(NamedTuple):
    """One response as it was received."""

    status: int
    headers: http.client.HTTPMessage
    json: dict

    @property
    def event_id(self):
        """The id of the event that the response names."""
        return self.headers["Flowhooks-Event"]


class Site:
    """A folder with a ledger and a plugin, in which `flowhooks serve` is started and stopped, always on one port."""

    def __init__(self, folder, plugin, config=""):
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self.database = folder / "flowhooks.db"
        self.journal = folder / "journal"
        (folder / "plugins").mkdir()
        (folder / "plugins/deeds.py").write_text(plugin)
        (folder / "flowhooks.toml").write_text(config)
        self.process = None

    def start(self, **settings):
        """Start the server, and wait until it serves."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
        given = {f"FLOWHOOKS_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = fork_server.start(
            [
                *(*fork_server.FLOWHOOKS, "serve", "--database", str(self.database)),
                *("--listen", self.url.removeprefix("http://"), "--admin", "127.0.0.1:0"),
                *("--plugins-dir", str(self.folder / "plugins")),
            ],
            cwd=self.folder,
            env=kept | {"FLOWHOOKS_PLUGINS_ALLOW": "deeds", "JOURNAL": str(self.journal)} | given,
        )
        log_lines = []
        for line in self.process.stderr:
            log_lines.append(line.decode())
            if json.loads(line)["event"] == "server_started":
                break
        else:
            pytest.fail("the server did not start:\n" + "".join(log_lines))
        self._reading = threading.Thread(target=self.process.stderr.read, daemon=True)
        self._reading.start()
        return self

    def stop(self):
        """Request a graceful shutdown, and wait for it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(WAIT_TIMEOUT) == 0
            self._reading.join()
            self.process.stderr.close()
            self.process = None

    def post(self, instance, body, **headers):
        """Send one callback as an engine does; underscores in a header's name stand for dashes."""
        sent = {"Content-Type": "application/json; charset=utf-8"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        raw = body if isinstance(body, str) else json.dumps(body)
        with closing(http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=WAIT_TIMEOUT)) as connection:
            connection.request("POST", f"/flow/{instance}/call-back/complete", raw.encode(), sent)
            response = connection.getresponse()
            return Response(response.status, response.headers, json.loads(response.read()))

    def stored(self, instance):
        """The events of an instance in the ledger."""
        with closing(Reader(f"sqlite:///{self.database}")) as reader:
            return reader.page(EventFilter(flow_instance_id=instance), limit=100)

    def settled(self, instance):
        """The only event of an instance, once all of its deliveries have ended."""

        def ended():
            events = self.stored(instance)
            is_settled = bool(events) and all(
                status.state in {"succeeded", "dead"} for status in events[0].delivery_statuses
            )
            return events if is_settled else None

        (event,) = until(ended)
        return event

    def records(self, instance):
        """The records of handlers about an instance, in order."""
        lines = self.journal.read_text("utf-8").splitlines() if self.journal.exists() else []
        return [record for record in map(json.loads, lines) if record["instance"] == instance]

    def check_counts(self):
        """Check that every accepted callback is accounted for."""
        with closing(Reader(f"sqlite:///{self.database}")) as reader:
            assert reader.verify().problems == []


class Engine:
    """A process with a workflow engine or an application in it."""

    def __init__(self, command, *, url, token=None, cwd=None, extra_environ=None):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
        environ = (
            inherited | {"FLOWHOOKS_URL": url} | ({"FLOWHOOKS_TOKEN": token} if token else {}) | (extra_environ or {})
        )
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._output = queue.SimpleQueue()
        self._log = []
        self._readers = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=lambda: self._log.extend(self.process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def ready(self):
        """Wait until the engine accepts commands."""
        assert self._next(START_TIMEOUT) == {"ready": True}
        return self

    def _listen(self):
        for line in self.process.stdout:
            self._output.put(line)
        self._output.put("")

    def _next(self, seconds=WAIT_TIMEOUT):
        try:
            line = self._output.get(timeout=seconds)
        except queue.Empty:
            line = ""
        assert line, "the engine printed nothing:\n" + "".join(self._log[-60:])
        return json.loads(line)

    def ask(self, *words):
        """Send one command; return its response, which may be an error."""
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return self._next()

    def do(self, *words):
        """Send one command that must succeed."""
        response = self.ask(*words)
        assert "error" not in response, (response, "".join(self._log[-60:]))
        return response

    @property
    def log(self):
        """The text that the process has written to its log."""
        return "".join(self._log)

    def outbox(self):
        """The callbacks that the engine has not sent successfully."""
        return self.do("look")["outbox"]

    def kill(self):
        """Kill the process."""
        self.process.kill()
        self._end()

    def close(self):
        """Shut the engine down."""
        if self.process.returncode is None:
            self.process.stdin.close()
            self.process.wait(WAIT_TIMEOUT)
            self._end()

    def _end(self):
        self.process.wait(WAIT_TIMEOUT)
        for reader in self._readers:
            reader.join(WAIT_TIMEOUT)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(BrokenPipeError):  # the engine was killed before it read all of its input
                stream.close()


class Pair(NamedTuple):
    """An engine and the flowhooks server that it calls back."""

    name: str
    token: str
    site: Site
    engine: Engine

    @property
    def family(self):
        """The engine whose page has the code."""
        return "camunda-7" if self.name in {"operaton", "cib-seven"} else self.name

    def wait_until_sent(self):
        """Wait until the engine has no callback left to send."""
        until(lambda: self.engine.outbox() == [])

    def send_again(self, instance):
        """Post the callback of an instance again as the engine sent it; return the response."""
        (event,) = self.site.stored(instance)
        return self.site.post(instance, event.body, Authorization=f"Bearer {self.token}")


def until(condition):
    """Wait until `condition` returns a true value, and return it."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)
    return result


@pytest.fixture(scope="session")
def wait_until():
    """A function that waits until a condition holds."""
    return until


@pytest.fixture(scope="module")
def make_site(tmp_path_factory):
    """Make a site: `make_site(plugin, config)`; at the end it is stopped and its counts are checked."""
    sites = []

    def make(plugin, config=""):
        sites.append(Site(tmp_path_factory.mktemp("site"), plugin, config))
        return sites[-1]

    yield make
    for site in sites:
        site.stop()
        site.check_counts()


def forks():
    """Each fork of Camunda 7, as its page describes it: the folder's name, the Maven dependency, the words of `sed`."""
    parts = FORKS.read_text("utf-8").split("\n## ")[1:]
    for name in ("operaton", "cib-seven"):
        (part,) = (part for part in parts if part.partition("\n")[0].lower().replace(" ", "-") == name)
        (dependency,) = re.findall(r"^```xml\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        (command,) = re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        yield (
            name,
            dependency,
            [word for word in shlex.split(command.replace("\\\n", "")) if not word.endswith(".java")],
        )


def fork(folder, name, dependency, sed):
    """Make the project of a fork from the project of Camunda 7, with the `sed` and the dependency of its page."""
    project = folder / name
    shutil.copytree(folder / "camunda-7", project)
    subprocess.run([*sed, *map(str, project.rglob("*.java"))], check=True)
    pom = (project / "pom.xml").read_text("utf-8")
    camunda_dependencies = re.compile(r" *<dependency>\s*<groupId>org.camunda.bpm<.*?</dependency>\n", re.DOTALL)
    pom = camunda_dependencies.sub(lambda _: dependency, pom)
    pom = pom.replace("<artifactId>camunda-7<", f"<artifactId>{name}<").replace("release>11<", "release>17<")
    (project / "pom.xml").write_text(pom, "utf-8")
    parent = (folder / "pom.xml").read_text("utf-8")
    parent = parent.replace("</modules>", f"  <module>{name}</module>\n  </modules>")
    (folder / "pom.xml").write_text(parent, "utf-8")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The Java code, compiled by Maven outside of the checkout."""
    skip_without_maven()
    folder = tmp_path_factory.mktemp("java") / "engines"
    shutil.copytree(PROJECTS, folder, ignore=shutil.ignore_patterns("target", "__pycache__"))
    for name, dependency, sed in forks():
        fork(folder, name, dependency, sed)
    return Build(folder)


@pytest.fixture(scope="session")
def class_path(built):
    """The class path of one folder: `class_path("flowable")`; skips the test without Java or Maven's downloads."""
    return built.class_path


@pytest.fixture(scope="module")
def start_process():
    """Start a process that a test drives: `start_process(command, url=…, token=…)`; all are ended at the end."""
    running = []

    def start(command, **given):
        running.append(Engine(command, **given))
        return running[-1].ready()

    yield start
    for engine in running:
        engine.close()


@pytest.fixture(scope="module")
def start_engine(class_path, start_process, tmp_path_factory):
    """Start an engine in Java: `start_engine("flowable", url=…, token=…)`; the default is Camunda 7 or a fork."""
    mains = {"java": "House", "flowable": "Flowable", "activiti": "Activiti", "camunda-8": "Camunda8"}

    def start(name, *arguments, **given):
        words = arguments or [str(tmp_path_factory.mktemp("engine") / "engine")]
        command = [*JAVA, "-cp", class_path(name), f"com.example.harness.{mains.get(name, 'Camunda')}Harness", *words]
        return start_process(command, **given)

    return start


class StatusHandler(BaseHTTPRequestHandler):
    """Responds with the status in the instance's id, like flowhooks or a proxy in front of it."""

    def do_POST(self):
        """Respond, or cut the connection off."""
        self.rfile.read(int(self.headers["Content-Length"]))
        status, _, more = self.path.split("/")[2].partition("-")
        if status == "cut":
            self.close_connection = True
            return
        self.send_response(int(status))
        if more == "stored":
            self.send_header("Flowhooks-Event", "0197-1")
        elif more:
            self.send_header("Retry-After", more)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        """Log nothing."""


@pytest.fixture
def status_server():
    """The URL of a server that responds with the status in the instance's id."""
    with ThreadingHTTPServer(("127.0.0.1", 0), StatusHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class Relay(ThreadingHTTPServer):
    """Passes callbacks on to flowhooks, or answers each with a login page while `shows_login` is true.

    From a certain callback on it keeps flowhooks' answers to itself.
    """

    def __init__(self, site_url, passed):
        super().__init__(("127.0.0.1", 0), RelayHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.site_url, self.left = site_url, passed
        self.shows_login = False
        self.kept = threading.Event()
        self.over = threading.Event()


class RelayHandler(BaseHTTPRequestHandler):
    """One request of an engine."""

    def do_POST(self):
        """Pass it on; answer, or wait until the tests are over and answer nothing."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.shows_login:
            self._answer(200, {"Content-Type": "text/html"}, b"<form>Log in, please</form>")
            return
        headers = {name: self.headers[name] for name in ("Content-Type", "Authorization", "Prefer")}
        address = self.server.site_url.removeprefix("http://")
        with closing(http.client.HTTPConnection(address, timeout=WAIT_TIMEOUT)) as connection:
            try:
                connection.request("POST", self.path, body, headers)
            except ConnectionRefusedError:
                self.close_connection = True
                return
            answer = connection.getresponse()
            said = answer.read()
        self.server.left -= 1
        if self.server.left < 0:
            self.server.kept.set()
            self.server.over.wait()
            self.close_connection = True
            return
        event_id = answer.headers["Flowhooks-Event"]
        self._answer(answer.status, {"Flowhooks-Event": event_id} if event_id else {}, said)

    def _answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Log nothing."""


@pytest.fixture(scope="module")
def relay():
    """Start a relay: `relay(url)` answers all callbacks, and `relay(url, 5)` the first five."""
    started = []

    def start(site_url, passed=math.inf):
        server = Relay(site_url, passed)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def pair_of(class_path, make_site, start_engine, source):
    """An engine beside a server that knows its token, started once: `pair_of("flowable", plugin)`."""
    pairs = {}

    def find(name, plugin, *arguments):
        if name not in pairs:
            class_path(name)  # first, because it may skip
            token = f"the-token-of-{name}"
            site = make_site(plugin, source(name, token)).start()
            pairs[name] = Pair(name, token, site, start_engine(name, *arguments, url=site.url, token=token))
        return pairs[name]

    return find


def sha256(token):
    """The form of a token in the settings."""
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture(scope="session")
def source():
    """The section of the settings for one engine: `source("flowable", token)`."""
    return lambda name, token: f'[sources.{name}]\ntoken_sha256 = ["{sha256(token)}"]\n'
