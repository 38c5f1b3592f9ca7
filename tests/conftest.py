"""Databases for all tests; the counts of each ledger are checked after the test that opened it."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import shutil
import threading
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import falcon.routing.compiled
import hypothesis
import psycopg
import pytest
import structlog

from flowhooks import handler
from flowhooks.execution.runners import job_sweeper, procrastinate, procrastinate_schema
from flowhooks.ledger.migrations import runner
from flowhooks.ledger.tables import metadata
from flowhooks.ledger.upgrade import upgrade
from flowhooks.testing import ManualClock
from support import alembic_tables, collection_order, log_output, postgresql, postgresql_facts, postgresql_sessions
from support.app_harness import STANDSTILL, LedgerHarness, close_readers, plugin
from support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import SimpleNamespace

    from alembic.config import Config
    from sqlalchemy import Connection

    from flowhooks.model.handler import Handler

# Tests start hundreds of processes: without compiled files each of them would compile flowhooks again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A slow run on a busy machine is no failure. Inputs are the same each time; `make test-random` looks for new ones.
hypothesis.settings.register_profile("flowhooks", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("random", deadline=None, max_examples=2_000)
hypothesis.settings.load_profile("flowhooks")

# For each of the 83 routes of the administration listener, Falcon asks about two dozen methods, most of which are one.
falcon.routing.compiled.iscoroutinefunction = functools.lru_cache(inspect.iscoroutinefunction)

log_output.print_to_stdout()
postgresql_facts.share()

MAX_PROCESSES = 4
"""The maximum number of test processes: with more, tests that measure time get too little processor time."""

TABLES = tuple(table.name for table in reversed(metadata.sorted_tables))
"""The tables of a ledger, in an order in which they can be emptied."""
JOB_TABLES = ("procrastinate_periodic_defers", "procrastinate_events", "procrastinate_jobs", "procrastinate_workers")

MANUAL_JOB_CLOCK = f"""
CREATE FUNCTION by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.scheduled_at := {STANDSTILL}
        + ceil(extract(epoch FROM NEW.scheduled_at - clock_timestamp())) * interval '1 second';
    RETURN NEW;
END $$;
CREATE TRIGGER by_hand BEFORE INSERT ON procrastinate_jobs
    FOR EACH ROW WHEN (NEW.scheduled_at IS NOT NULL) EXECUTE FUNCTION by_hand();
"""
"""A trigger that makes jobs use a clock that only `RunningApp.advance` moves. Due times are rounded up to whole
seconds, because storing a job takes time: the sweep finds a delivery that is due a moment later."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The number of processes of `pytest -n auto`: one and a half times the cores, because tests also wait."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_PROCESSES, cores + cores // 2)


def pytest_configure(config: pytest.Config) -> None:
    """Make each test process start collecting in a different folder."""
    collection_order.rotate_folders(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the databases that do not matter for a test, and long tests that were not requested."""
    collection_order.sort(config, items)
    items[:] = [item for item in items if _combination(item) not in _other_combinations(item)]
    for item in items:
        if item.get_closest_marker("either") and _combination(item) in _other_combinations(item, either=True):
            item.add_marker(pytest.mark.long)
    if "long" not in config.option.markexpr:
        long = {item for item in items if item.get_closest_marker("long")}
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=list(long))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Disable garbage collection while pytest collects tests, because nearly all new objects stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude the objects of thousands of tests from garbage collection, and collect rarely.

    With the standard threshold of 700 objects, collections took a seventh of the tests' processor time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 5)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, None, None]:
    """Print at the end how many tests in real workflow engines were skipped: a line among others is easily missed."""
    yield
    skipped = [
        report for report in terminalreporter.stats.get("skipped", ()) if {"java", "engine"} & report.keywords.keys()
    ]
    for reason, count in Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped).items():
        terminalreporter.line(f"*** {count} tests in real workflow engines were SKIPPED: {reason}", red=True)


def _combination(item: pytest.Item) -> str | None:
    """The combination of database and runner in which a test runs; None if it has none."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("harness") if callspec else None


def _other_combinations(item: pytest.Item, *, either: bool = False) -> set[str]:
    """The combinations in which a test does not run: other databases, or other runners if the runner does not matter.

    With `either`, also the combinations with PostgreSQL, unless the test is about processes that share a ledger.
    """
    others = set()
    if item.get_closest_marker("sqlite") or (either and not item.get_closest_marker("postgresql")):
        others |= {"postgresql", "procrastinate"}
    if item.get_closest_marker("postgresql"):
        others |= {"sqlite"}
    if item.get_closest_marker("embedded") or not item.get_closest_marker("runners"):
        others |= {"procrastinate"}
    return others


@pytest.fixture
def clock() -> ManualClock:
    """A clock that is moved by hand."""
    return ManualClock()


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, made once for all tests."""
    file = tmp_path_factory.mktemp("new") / "flowhooks.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def pending_migration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A function that adds a migration that existing ledgers lack, and returns its number.

    The migration exists until the end of the test, in this process only.
    """
    number = f"{int(runner.HEAD) + 1:04}"
    folder = tmp_path_factory.mktemp("versions")
    (folder / f"{number}_further.py").write_text(
        f'"""A further migration."""\n\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
        f'revision = "{number}"\ndown_revision = "{runner.HEAD}"\nbranch_labels = depends_on = None\n\n\n'
        'def upgrade():\n    op.add_column("deliveries", sa.Column("further", sa.Text))\n'
    )
    configure = runner._config

    def with_further(connection: Connection | None = None) -> Config:
        config = configure(connection)
        versions = Path(runner.__file__).with_name("versions")
        config.set_main_option("path_separator", "os")
        config.set_main_option("version_locations", os.pathsep.join(map(str, (versions, folder))).replace("%", "%%"))
        return config

    with pytest.MonkeyPatch.context() as patch:

        def pending() -> str:
            patch.setattr(runner, "_config", with_further)
            patch.setattr(runner, "HEAD", number)
            patch.setattr(runner, "create_tables", alembic_tables.create_tables)  # which have the further column
            return number

        yield pending


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A temporary PostgreSQL server."""
    with postgresql.server() as server:
        postgresql_sessions.share(server)
        yield server
        close_readers()
        postgresql.close_connections()
        postgresql_sessions.close_free()


@pytest.fixture(scope="session")
def postgresql_ledger(postgresql_server: postgresql.Server) -> Iterator[str]:
    """A ledger on PostgreSQL, shared by all tests that change no tables."""
    name = f"flowhooks_{uuid.uuid4().hex}"
    url = postgresql_server.make(name)
    upgrade(url)
    yield url
    postgresql_server.drop(name)


@pytest.fixture
def postgresql_url(postgresql_ledger: str) -> str:
    """An empty ledger on PostgreSQL."""
    postgresql.empty(postgresql_ledger, TABLES)
    return postgresql_ledger


@pytest.fixture(scope="session")
def ledger_with_jobs(postgresql_server: postgresql.Server) -> Iterator[str]:
    """A ledger with the job tables, whose clock is moved by hand."""
    name = f"flowhooks_jobs_{uuid.uuid4().hex}"
    url = postgresql_server.make(name)
    upgrade(url)
    procrastinate_schema.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(MANUAL_JOB_CLOCK)
    yield url
    postgresql_server.drop(name)


@pytest.fixture
def jobs_url(ledger_with_jobs: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of that ledger, emptied. Runners poll for jobs often."""
    monkeypatch.setattr(procrastinate, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(procrastinate, "IDLE_POLL_INTERVAL", 0.05)
    monkeypatch.setattr(job_sweeper, "SWEEP_INTERVAL", 0.5)
    postgresql.empty(ledger_with_jobs, (*JOB_TABLES, *TABLES))
    return ledger_with_jobs


@pytest.fixture(params=["sqlite", "postgresql", "procrastinate"])
def harness(request, tmp_path: Path, clock: ManualClock, new_database: Path) -> Iterator[LedgerHarness]:
    """Opens `App`s on one database. At the end it closes all of them, and checks the counts.

    The third combination is PostgreSQL with the other runner, for tests that are marked `runners`.
    """
    if request.param == "postgresql":
        harness = LedgerHarness(tmp_path, clock, request.getfixturevalue("postgresql_url"))
    elif request.param == "procrastinate":
        harness = LedgerHarness(tmp_path, clock, request.getfixturevalue("jobs_url"), runner=request.param)
    else:
        harness = LedgerHarness(tmp_path, clock)
        shutil.copy(new_database, harness.file)
    yield harness
    harness.end()


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """A function that waits until a condition holds."""
    return until


@pytest.fixture
def make_plugin() -> Callable[..., SimpleNamespace]:
    """A function that makes a plugin of handlers and hooks."""
    return plugin


@pytest.fixture
def listens() -> Callable[..., Handler]:
    """A function that makes a handler for the key `leave`: `listens(function, retry=...)`."""

    def make(function: Callable[..., Any], *, process_key: Any = "leave", **options: Any) -> Handler:
        options.setdefault("name", getattr(function, "__name__", "h").strip("<>"))
        if options.get("callback_class") or options.get("every"):
            process_key = options.pop("process_key", ())
        return handler(process_key=process_key, **options)(function)

    return make


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """The log records of the test."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """A function that calls functions at the same moment in threads, and returns their results or errors."""

    def run(*functions: Callable[[], Any]) -> list[Any]:
        gate = threading.Barrier(len(functions))
        results: list[Any] = [None] * len(functions)

        def call(index: int, function: Callable[[], Any]) -> None:
            gate.wait()
            try:
                results[index] = function()
            except Exception as error:  # noqa: BLE001 (handed to the test)
                results[index] = error

        threads = [threading.Thread(target=call, args=entry) for entry in enumerate(functions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        return results

    return run
