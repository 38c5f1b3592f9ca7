"""The plugin of the page of recipes works as the page says, on a real PostgreSQL and with a real HTTP server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest

from flowhooks import Retry
from support.code_blocks import DOCS, blocks
from support.docs_stage import Stage, commands
from support.nested_pytest import pytest_words
from support.waiting import until

PAGE = DOCS / "how-to/plugin-recipes.md"
FILES = {
    block.file if "/" in str(block.file) else f"tests/{block.file}": block.text
    for block in blocks(PAGE, "python", "json")
}
"""The modules of the page, by path; the page names its tests without their folder."""
SHORT = Retry(attempts=12, delays=(2, 10, 30, 60, 120, 300))


@pytest.fixture
def database(postgresql_server):
    """An empty database."""
    name = f"purchasing_{uuid.uuid4().hex}"
    yield postgresql_server.make(name)
    postgresql_server.drop(name)


@pytest.fixture
def package(tmp_path):
    """The folder with the package and the tests of the page."""
    for file, text in FILES.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\npythonpath = src tests\naddopts = --import-mode=importlib\n"
    )
    return tmp_path


def run(folder, *arguments, **environment):
    """Run Python in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )


def replace(file, old, new):
    """Replace a text that is in a file."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_every_block_is_a_file():
    """Each Python block has a name, so that it is run or imported here."""
    assert "tests/None" not in FILES
    assert len(FILES) == len(blocks(PAGE, "python", "json"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lines", [5, pytest.param(60, marks=pytest.mark.long)])
def test_the_tests_of_the_page_pass(package, database, lines):
    """With every warning an error; the short set kills the handler at a few of its lines only."""
    replace(package / "tests/test_purchasing.py", "lines=60", f"lines={lines}")
    done = run(package, *pytest_words(package, "-q", "tests"), TEST_DATABASE=database)
    assert done.returncode == 0, done.stdout
    assert f"{sum(text.count('def test_') for text in FILES.values())} passed" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("erp.py", ', "Idempotency-Key": key', "", id="without the key"),
        pytest.param(
            "__init__.py", "key=delivery.id", "key=__import__('uuid').uuid4().hex", id="with another key each time"
        ),
    ],
)
def test_a_broken_plugin_is_reported(package, database, file, old, new):
    """The report has the line that the page shows."""
    replace(package / "src/acme_purchasing" / file, old, new)
    test = "tests/test_purchasing.py::test_each_order_is_stored_and_booked_once"
    done = run(package, *pytest_words(package, "-q", "--show-capture=no", test), TEST_DATABASE=database)
    assert done.returncode == 1
    (shown,) = [block.text for block in blocks(PAGE, "text") if block.text.startswith("!")]
    wanted = shown.partition(",")[0]  # the other places differ between Python versions
    assert wanted in done.stdout, done.stdout


@pytest.mark.timeout(600)
def test_the_types_are_correct(package, request):
    """Strict mypy finds nothing in the plugin and its tests."""
    cache = request.config.cache.mkdir("mypy-of-the-template")
    done = run(package, "-m", "mypy", "--strict", "--cache-dir", cache, "src", "tests", MYPYPATH="src:tests")
    assert done.returncode == 0, done.stdout


def test_schedules_match_the_code():
    """The table has the times of both schedules, and the text their sums."""
    text = PAGE.read_text("utf-8")
    assert f"retry=Retry(attempts={SHORT.attempts}, delays=(2, 10, 30, 60, 120, 300))," in text
    for attempts in range(1, SHORT.attempts + 1):
        shown = " | ".join(time_of(schedule, attempts) for schedule in (Retry(), SHORT))
        assert f"| {attempts} | {shown} |".replace("  ", " ") in text
    assert f"up to {span(sum_of(Retry()) * 1.1, 'h')}" in text
    assert f"up to {span(sum_of(SHORT) * 1.1, 'min')}" in text


def sum_of(schedule, attempts=None):
    """The seconds until a number of attempts have failed and the next one starts."""
    return sum(schedule.delay(made, 0.0) for made in range(1, attempts + 1 if attempts else schedule.attempts))


def time_of(schedule, attempts):
    """A cell of the table."""
    if attempts > schedule.attempts:
        return ""
    return "dead" if attempts == schedule.attempts else span(sum_of(schedule, attempts))


def span(seconds, most=""):
    """Seconds as the page writes them; `most`: rounded up, and without smaller units than minutes."""
    seconds = round(seconds) if not most else -(-round(seconds) // 60) * 60
    parts = {"h": seconds // 3600, "min": seconds // 60 % 60, "s": seconds % 60}
    return " ".join(f"{number} {unit}" for unit, number in parts.items() if number)


@pytest.fixture
def module(package, monkeypatch):
    """The page's module `acme_purchasing.database`, freshly imported."""
    monkeypatch.syspath_prepend(str(package / "src"))
    from acme_purchasing import database

    yield database
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_purchasing"]:
        del sys.modules[name]


def applied(database):
    """The number of executed migrations."""
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT count(*) FROM purchasing.migrations").fetchone()[0]


def test_the_tables_are_created_once(module, database, together, monkeypatch):
    """Two processes with several threads each, at the same moment: each statement is executed once."""
    monkeypatch.setattr(module, "LIMITS", {})  # on a busy machine, one may wait for the other for more than 5 s
    processes = [module.Database(), module.Database()]

    def use(connections):
        connections.url = database
        with connections.transaction() as connection:
            return connection.execute("SELECT count(*) FROM purchasing.orders").fetchone()[0]

    assert together(*(lambda each=each: use(each) for each in processes * 4)) == [0] * 8
    assert applied(database) == len(module.MIGRATIONS)
    for each in processes:
        each.close()


def test_a_new_version_adds_its_statements(module, database, monkeypatch):
    """Only the new statement is executed; if it fails, nothing has changed, and the next use tries again."""
    connections = module.Database()
    connections.url = database
    before = module.MIGRATIONS
    monkeypatch.setattr(module, "MIGRATIONS", before[:1])
    with connections.transaction():
        assert applied(database) == 1
    connections.close()
    monkeypatch.setattr(module, "MIGRATIONS", (*before, "ALTER TABLE purchasing.nothing ADD COLUMN x text"))
    with pytest.raises(psycopg.errors.UndefinedTable):
        connections.transaction()
    assert applied(database) == 1
    monkeypatch.setattr(module, "MIGRATIONS", before)
    with connections.transaction() as connection:
        assert connection.execute("SELECT erp_number FROM purchasing.orders").fetchall() == []
    connections.close()


def test_a_database_that_is_down_is_named(module):
    """The error is PostgreSQL's reason, and no pool is left behind."""
    connections = module.Database()
    connections.url = "postgresql://127.0.0.1:1/nothing"
    before = set(threading.enumerate())
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        connections.transaction()
    assert set(threading.enumerate()) <= before


def test_a_slow_statement_and_a_lock_fail(module, database):
    """The limits are those of the session."""
    connections = module.Database()
    connections.url = database
    with connections.transaction() as connection:
        settings = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout')"
        assert connection.execute(settings).fetchone() == ("10s", "5s")
    connections.close()


def stage_of(package, database, erp, isolation):
    """A server with the plugin, whose handler runs in a thread or in a process of its own."""
    settings = f"""
[plugins.purchasing]
database = {{env = "PURCHASING_DATABASE"}}
erp = "{erp}"
token = {{env = "ERP_TOKEN"}}

[handlers."purchasing:create_order"]
isolation = "{isolation}"
"""
    plugin = "from acme_purchasing import configure, handlers, schemas\n"
    stage = Stage(package / "stage", handlers={"purchasing": plugin}, settings=settings)
    stage.environment |= {
        "PURCHASING_DATABASE": database,
        "ERP_TOKEN": "secret-of-the-erp",
        "PYTHONPATH": str(package / "src"),
        "FLOWHOOKS_ANSWER_WAIT": "50",  # a busy machine needs time to start the process of a handler
    }
    return stage


ORDER = {"processDefinitionKey": "po_approval", "conclusion": "approved", "amount": 1200, "vendor": "Brick & Co"}


@pytest.fixture
def erp(package, monkeypatch):
    """The ERP of the page."""
    monkeypatch.syspath_prepend(str(package / "tests"))
    from erp_server import erp_server

    with erp_server() as server:
        yield server
    del sys.modules["erp_server"]


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_plugin_runs_in_a_server(package, database, erp, isolation):
    """Two orders use one connection or two; the record of the handler has the fields of the page in both ways."""
    stage = stage_of(package, database, erp.url, isolation)
    stage.start()
    try:
        stage.post("17", ORDER | {"businessKey": "B-1"})
        stage.post("18", ORDER | {"businessKey": "B-2"})
        record = stage.next_record("acme_purchasing")
        shown = stage.run("flowhooks events show 17 --log").stdout
    finally:
        stage.stop()
    assert sorted(erp.orders.values()) == ["B-1", "B-2"]
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT business_key, erp_number FROM purchasing.orders ORDER BY 1").fetchall()
        assert rows == [("B-1", "PO-1"), ("B-2", "PO-2")]
    page = PAGE.read_text("utf-8")
    example = json.loads(next(line for line in page.split("\n") if line.startswith('    {"time"')))
    assert example.keys() == record.keys()
    same = ("event", "level", "logger", "handler", "flow_instance_id", "business_key", "source", "attempt")
    assert {name: record[name] for name in same} == {name: example[name] for name in same}
    assert "info acme_purchasing: booking order B-1" in shown


class Redirecting(BaseHTTPRequestHandler):
    """Redirects each POST to the server `elsewhere`, and answers each GET as the ERP would answer an order."""

    def do_POST(self):
        """Answer with a redirect."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(302, b"")

    def do_GET(self):
        """Answer with a number."""
        self._answer(200, b'{"number": "PO-1"}')

    def _answer(self, status, body):
        self.server.seen.append((self.command, self.headers["Authorization"]))
        self.send_response(status)
        self.send_header("Location", f"{self.server.elsewhere}/login")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture
def two_servers():
    """An ERP that redirects each order, and the server to which it redirects."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.seen, server.elsewhere = [], f"http://localhost:{servers[1].server_port}"
        thread.start()
    yield servers
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_redirect_of_the_erp_is_a_failed_attempt(package, database, two_servers):
    """The server to which it leads gets no request, and so no token; no number is stored."""
    erp, other = two_servers
    stage = stage_of(package, database, f"http://127.0.0.1:{erp.server_port}", "thread")
    stage.start()
    try:
        stage.post("17", ORDER | {"businessKey": "B-1"}, Prefer="respond-async")
        until(lambda: "HTTP Error 302" in stage.run("flowhooks events show 17").stdout or other.seen)
    finally:
        stage.stop()
    assert other.seen == []
    assert set(erp.seen) == {("POST", "Bearer secret-of-the-erp")}
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT erp_number FROM purchasing.orders").fetchall() == [(None,)]


def test_the_commands_of_the_page_run(package, database):
    """They show what blocks an order, try it again, and give it up; then the next change of the order starts."""
    stage = stage_of(package, database, "http://127.0.0.1:1", "thread")
    stage.start()
    try:
        for flow in ("17", "18"):
            stage.post(flow, ORDER | {"businessKey": "B-1"}, Prefer="respond-async")
        said = []
        for block in blocks(PAGE, "sh"):
            for command in commands(block):
                done = stage.run(command.text)
                while " close " in command.text and done.returncode == 0 and "1 closed" not in done.stdout:
                    done = stage.run(command.text)  # the delivery was not waiting, because an attempt was running
                assert done.returncode == 0, f"{command.text}\n{done.stdout}{done.stderr}"
                said.append(done.stdout)
        until(lambda: "Connection refused" in stage.run("flowhooks events show 18").stdout)
    finally:
        stage.stop()
    assert "blocked by" in said[0]
    assert "closed" in said[-1]
