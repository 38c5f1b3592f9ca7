"""flowhooks without HTTP on a real SQLite file, with a clock moved by hand; after each test the books balance."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from contextlib import closing, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import hypothesis
import postgresql
import psycopg
import pytest
import structlog

from flowhooks import State, handler, hookimpl
from flowhooks.app import App
from flowhooks.intake import Answer, CallBack
from flowhooks.ledger import Reader, upgrade
from flowhooks.ledger.reading import EventFilter
from flowhooks.ledger.tables import metadata
from flowhooks.runners import jobs, procrastinate
from flowhooks.settings import (
    AlertsSettings,
    HttpSettings,
    IdentitySettings,
    IgnoreSettings,
    LedgerSettings,
    RetentionSettings,
    RunnerSettings,
    Settings,
)
from flowhooks.testing import HandClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowhooks.handler import Handler
    from flowhooks.ledger.reading import Standing

hypothesis.settings.register_profile("flowhooks", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("flowhooks")

PATIENCE = 20.0
"""Seconds for which something that must happen is waited for, on machines that are busy."""

MOST_PROCESSES = 4
"""Processes that tests run in at once at the most: with more, what measures time finds too little of it."""

STANDSTILL = "timestamptz '3000-01-01'"
"""The time at which PostgreSQL's clock stands still for jobs that are for later: they are stored as due after it."""
BY_HAND = f"""
CREATE FUNCTION by_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.scheduled_at := {STANDSTILL}
        + ceil(extract(epoch FROM NEW.scheduled_at - clock_timestamp())) * interval '1 second';
    RETURN NEW;
END $$;
CREATE TRIGGER by_hand BEFORE INSERT ON procrastinate_jobs
    FOR EACH ROW WHEN (NEW.scheduled_at IS NOT NULL) EXECUTE FUNCTION by_hand();
"""
"""So that jobs go by a clock that is moved by hand: `Flow.advance` moves them. Rounded up, for the time that storing
takes: what is thereby due a moment later is found by the sweep."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `make test` runs the tests in: one more than there are cores, for most tests wait a lot."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_PROCESSES, cores + 1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the houses that a test is not about, and long tests that nobody asked for."""
    items[:] = [item for item in items if _house(item) not in _other_houses(item)]
    if "long" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in set(long)]
        config.hook.pytest_deselected(items=long)


def _house(item: pytest.Item) -> str | None:
    """The house that a test is run in; None if it has none."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("house") if callspec else None


def _other_houses(item: pytest.Item) -> set[str]:
    """The houses that a test is not about: all that have another database, or a runner that is no matter."""
    others = set()
    if item.get_closest_marker("sqlite"):
        others |= {"postgresql", "procrastinate"}
    if item.get_closest_marker("postgresql"):
        others |= {"sqlite"}
    if item.get_closest_marker("embedded") or not item.get_closest_marker("runners"):
        others |= {"procrastinate"}
    return others


def until(condition: Callable[[], Any], *, seconds: float = PATIENCE) -> Any:
    """Wait until `condition` gives something true, and return that; fail the test if it never does."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"did not happen within {seconds} s: {condition}")
        time.sleep(0.005)
    return found


def plugin(*handlers: Handler, **hooks: Callable[..., Any]) -> SimpleNamespace:
    """A plugin with these handlers and other hooks, which are marked here."""
    marked = {
        name: function if hasattr(function, "flowhooks_impl") else hookimpl(function)
        for name, function in hooks.items()
    }
    return SimpleNamespace(handlers=hookimpl(lambda: list(handlers)), **marked)


class Flow:
    """A started `App`, with what tests ask of it."""

    def __init__(self, app: App, clock: HandClock, file: Path, url: str = "") -> None:
        self.url = url
        self.app = app
        self.clock = clock
        self.file = file
        self.closed = False

    def take(
        self,
        instance: str = "i1",
        *,
        key: str | None = "leave",
        callback_class: str | None = None,
        wait: float = PATIENCE,
        source: str = "default",
        kind: str = "complete",
        message: str | None = None,
        **body: Any,
    ) -> Answer:
        """Send a call-back; with `message`, one that was signed under that id."""
        named = {"processDefinitionKey": key, "callBackProcessClass": callback_class}
        whole = {name: value for name, value in named.items() if value is not None} | body
        return self.app.intake.take(
            CallBack(
                source=source,
                kind=kind,
                flow_instance_id=instance,
                body=whole,
                text=json.dumps(whole),
                message=message,
            ),
            wait=wait,
        )

    @property
    def address(self) -> str:
        """The URL of its database."""
        return self.url or f"sqlite:///{self.file}"

    def advance(self, seconds: float) -> None:
        """Move the clock, that of the jobs too, and have the runner look."""
        self.clock.advance(seconds)
        if self.app.settings.runner.kind == "procrastinate":
            moved = "scheduled_at - ? * interval '1 second'"
            self.sql(
                f"UPDATE procrastinate_jobs SET scheduled_at = CASE WHEN {moved} > {STANDSTILL} THEN {moved} END"
                f" WHERE scheduled_at > {STANDSTILL}",
                seconds,
                seconds,
            )
        self.app.runner.wake()

    def standings(self, event_id: str) -> tuple[Standing, ...]:
        """How the deliveries of an event stand in the ledger."""
        return self.app.ledger.standings(event_id)

    def only(self, event_id: str) -> Standing:
        """How the one delivery of an event stands."""
        (standing,) = self.standings(event_id)
        return standing

    def settled(self, event_id: str, state: State, *, attempt: int | None = None) -> Standing:
        """The one delivery of an event, once it is in `state` (after attempt number `attempt`)."""
        return until(
            lambda: next(
                (
                    one
                    for one in self.standings(event_id)
                    if one.state is state and (attempt is None or one.attempt == attempt)
                ),
                None,
            )
        )

    def at_rest(self) -> bool:
        """Whether nothing waits or runs any more."""
        tally = self.app.ledger.tally()
        return tally["waiting"] + tally["running"] == 0

    def events(self, **wanted: Any) -> list[str]:
        """The ids of the events that a filter means, the oldest first."""
        return [stored.event.id for stored in self.app.ledger.page(EventFilter(**wanted), limit=10_000)]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What another connection to the same database reads or writes."""
        if self.url:
            with psycopg.connect(self.url, autocommit=True) as connection:
                found = connection.execute(statement.replace("?", "%s"), values)
                return found.fetchall() if found.description else []
        with closing(sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def locked(self, *, timeout: float | None = None) -> Iterator[None]:
        """Keep the database locked against every write; who writes meanwhile gives up after `timeout` seconds."""
        before, self.app.ledger.timeout = self.app.ledger.timeout, timeout or self.app.ledger.timeout
        if self.url:
            with psycopg.connect(self.url) as connection:
                connection.execute("LOCK TABLE events, deliveries, attempts, counters IN EXCLUSIVE MODE")
                try:
                    yield
                finally:
                    connection.rollback()
                    self.app.ledger.timeout = before
            return
        with closing(sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")
                self.app.ledger.timeout = before

    def close(self, timeout: float = PATIENCE) -> bool:
        """Stop it as the server does."""
        self.closed = True
        return self.app.close(timeout)


class House:
    """Starts and restarts `App`s on one database file."""

    def __init__(self, folder: Path, clock: HandClock, url: str = "", *, runner: str = "embedded") -> None:
        self.url = url
        self.runner = runner
        self.folder = folder
        self.clock = clock
        self.file = folder / "flowhooks.db"
        self.check_books = True
        self._flows: list[Flow] = []

    @property
    def address(self) -> str:
        """The URL of its database."""
        return self.url or f"sqlite:///{self.file}"

    def settings(self, *, allow: tuple[str, ...] = ("none",), **given: Any) -> Settings:
        """Settings for the database of this house, without the plugins that happen to be installed."""
        sections: dict[str, Any] = {}
        given["ledger"] = {"timeout": PATIENCE} | given.get("ledger", {})
        given["runner"] = {"kind": self.runner, "hold_after": 0} | given.get("runner", {})
        for name, section in (
            ("http", HttpSettings),
            ("runner", RunnerSettings),
            ("ledger", LedgerSettings),
            ("identity", IdentitySettings),
            ("ignore", IgnoreSettings),
            ("alerts", AlertsSettings),
            ("retention", RetentionSettings),
        ):
            if name in given:
                sections[name] = section(**given.pop(name))
        return Settings(database=self.url or str(self.file), plugins_allow=allow, **sections, **given)

    def open(
        self,
        *handlers: Handler,
        plugins: dict[str, object] | None = None,
        start: bool = True,
        sections: dict[str, dict[str, Any]] | None = None,
        environ: dict[str, str] | None = None,
        allow: tuple[str, ...] = (),
        **given: Any,
    ) -> Flow:
        """An `App` with the plugin `p` of these handlers, or with other plugins by name, and their sections.

        Those of `allow` are looked for as a server does.
        """
        objects = {"p": plugin(*handlers)} if plugins is None and handlers else dict(plugins or {})
        settings = self.settings(allow=(*objects, *allow) or ("none",), plugins=sections or {}, **given)
        app = App(settings, clock=self.clock, objects=objects, environ=environ)
        flow = Flow(app, self.clock, self.file, self.url)
        self._flows.append(flow)
        if start:
            app.start()
        return flow

    def crash(self, flow: Flow) -> None:
        """Leave everything as a process does that is killed: nothing is settled any more."""
        flow.close(0)

    def end(self) -> None:
        """Close what is open, and see that the books balance."""
        for flow in self._flows:
            if not flow.closed:
                assert flow.close(), "something was still running at the end"
        if self.check_books and (self.url or self.file.exists()):
            reader = Reader(self.address)
            try:
                assert reader.balance().trouble == []
                assert reader.quick_check() is None
            finally:
                reader.close()


@pytest.fixture
def clock() -> HandClock:
    """A clock that is moved by hand."""
    return HandClock()


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with nothing in it, made once for all tests."""
    file = tmp_path_factory.mktemp("new") / "flowhooks.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[postgresql.Server]:
    """A PostgreSQL that is thrown away at the end."""
    with postgresql.server() as server:
        yield server


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
    """A ledger on PostgreSQL with nothing in it."""
    names = ", ".join(table.name for table in metadata.sorted_tables)
    with psycopg.connect(postgresql_ledger, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {names}")
    return postgresql_ledger


@pytest.fixture(scope="session")
def ledger_with_jobs(postgresql_server: postgresql.Server) -> Iterator[str]:
    """A ledger with the tables of jobs, whose clock is moved by hand."""
    name = f"flowhooks_jobs_{uuid.uuid4().hex}"
    url = postgresql_server.make(name)
    upgrade(url)
    jobs.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(BY_HAND)
    yield url
    postgresql_server.drop(name)


@pytest.fixture
def jobs_url(ledger_with_jobs: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same with nothing in it; whoever waits for jobs looks often."""
    monkeypatch.setattr(procrastinate, "POLL_EVERY", 0.05)
    monkeypatch.setattr(procrastinate, "STOP_EVERY", 0.02)
    monkeypatch.setattr(procrastinate, "SWEEP_EVERY", 0.5)
    names = ", ".join(table.name for table in metadata.sorted_tables)
    with psycopg.connect(ledger_with_jobs, autocommit=True) as connection:
        connection.execute(f"TRUNCATE {names}, procrastinate_jobs, procrastinate_workers CASCADE")
    return ledger_with_jobs


@pytest.fixture(params=["sqlite", "postgresql", "procrastinate"])
def house(request, tmp_path: Path, clock: HandClock, new_database: Path) -> Iterator[House]:
    """Where `App`s are opened; all are closed at the end, and the books are checked.

    The third one is PostgreSQL with the other runner, for tests that are marked `runners`.
    """
    if request.param == "postgresql":
        house = House(tmp_path, clock, request.getfixturevalue("postgresql_url"))
    elif request.param == "procrastinate":
        house = House(tmp_path, clock, request.getfixturevalue("jobs_url"), runner=request.param)
    else:
        house = House(tmp_path, clock)
        shutil.copy(new_database, house.file)
    yield house
    house.end()


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

    def make(function: Callable[..., Any], *, process_key: Any = "leave", **given: Any) -> Handler:
        given.setdefault("name", getattr(function, "__name__", "h").strip("<>"))
        if given.get("callback_class") or given.get("every"):
            process_key = given.pop("process_key", ())
        return handler(process_key=process_key, **given)(function)

    return make


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What is logged meanwhile."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def together() -> Callable[..., list[Any]]:
    """A function that calls functions at the same moment, each in a thread, and returns their results or errors."""

    def run(*functions: Callable[[], Any]) -> list[Any]:
        gate = threading.Barrier(len(functions))
        results: list[Any] = [None] * len(functions)

        def one(place: int, function: Callable[[], Any]) -> None:
            gate.wait()
            try:
                results[place] = function()
            except Exception as error:  # noqa: BLE001 (handed to the test)
                results[place] = error

        threads = [threading.Thread(target=one, args=entry) for entry in enumerate(functions)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        return results

    return run
