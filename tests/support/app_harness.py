"""flowhooks without HTTP on a real database, with a clock moved by hand: a `LedgerHarness` opens `RunningApp`s."""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import psycopg

from flowhooks import State, hookimpl
from flowhooks.app import App
from flowhooks.intake.callback import Answer, Callback, TakenIn
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.settings import (
    AlertsSettings,
    CircuitBreakerSettings,
    HttpSettings,
    IdentitySettings,
    LedgerSettings,
    RetentionSettings,
    RoutingSettings,
    RunnerSettings,
    SearchSettings,
    Settings,
)
from support.postgresql_sessions import ReusedConnection
from support.waiting import WAIT_TIMEOUT, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowhooks.intake.config import IntakeConfig
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.model.handler import Handler
    from flowhooks.testing import ManualClock

CALL_TIMEOUT = 20.0
"""Seconds that a caller waits for the outcome, and that a write waits for the database."""

STANDSTILL = "timestamptz '3000-01-01'"
"""The fixed time of PostgreSQL's clock for later jobs, which are stored as due after it."""

COUNT_PROBLEMS: Final = re.compile(
    r"were accepted, but|of its recorded route|an unknown state|but has no deliveries|as many attempts as it counts"
    r"|agree with its last attempt|runs at the same time as another|the database file is damaged"
)
"""Problems of a ledger that are failures even if the test has changed rows by SQL."""


def plugin(*handlers: Handler, **hooks: Callable[..., Any]) -> SimpleNamespace:
    """Make a plugin with these handlers and other hooks; functions without a mark are marked as hooks."""
    marked = {
        name: function if hasattr(function, "flowhooks_impl") else hookimpl(function)
        for name, function in hooks.items()
    }
    return SimpleNamespace(handlers=hookimpl(lambda: list(handlers)), **marked)


TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def ingress_callback(instance: str = "i1", *, key: str | None = "leave", source: str = "oa", **body: Any) -> Callback:
    """Make the callback of a request to the fixed URL of a source, as the intake receives it."""
    members = ({} if key is None else {"processDefinitionKey": key}) | body
    return Callback(
        source=source,
        kind="complete",
        flow_instance_id=instance,
        body=members,
        text=json.dumps(members),
        origin="ingress",
        raw_body=f"{json.dumps(members | {'id': instance}, indent=2)}\n",
        media_type="application/json; charset=utf-8",
        traceparent=TRACEPARENT,
    )


class RunningApp:
    """A started `App` with helper methods for tests."""

    def __init__(self, app: App, clock: ManualClock, file: Path, url: str = "") -> None:
        self.url = url
        self.app = app
        self.clock = clock
        self.file = file
        self.closed = False
        self.changed = False

    def take(
        self,
        instance: str = "i1",
        *,
        key: str | None = "leave",
        callback_class: str | None = None,
        wait: float = CALL_TIMEOUT,
        source: str = "default",
        kind: str = "complete",
        message: str | None = None,
        config: IntakeConfig | None = None,
        **body: Any,
    ) -> Answer:
        """Send a callback; `message` is its webhook id, and `config` the configuration when it arrived."""
        named = {"processDefinitionKey": key, "callBackProcessClass": callback_class}
        members = {name: value for name, value in named.items() if value is not None} | body
        return self.app.intake.accept(
            Callback(
                source=source,
                kind=kind,
                flow_instance_id=instance,
                body=members,
                text=json.dumps(members),
                webhook_id=message,
            ),
            wait=wait,
            config=config,
        )

    def take_in(
        self,
        instance: str = "i1",
        *,
        key: str | None = "leave",
        callback_class: str | None = None,
        source: str = "oa",
        kind: str = "complete",
        started_at: int | None = None,
        ended_at: int | None = None,
        end_undecided: bool = False,
        **body: Any,
    ) -> TakenIn:
        """Take in a finished instance as reconciliation does."""
        named = {"processDefinitionKey": key, "callBackProcessClass": callback_class, "endState": "completed"}
        members = {name: value for name, value in named.items() if value is not None} | body
        return self.app.intake.take_in(
            Callback(
                source=source,
                kind=kind,
                flow_instance_id=instance,
                body=members,
                text=json.dumps(members),
                origin="reconciled",
                started_at=started_at,
                ended_at=ended_at,
                end_undecided=end_undecided,
            )
        )

    @property
    def address(self) -> str:
        """The URL of its database."""
        return self.url or f"sqlite:///{self.file}"

    def advance(self, seconds: float) -> None:
        """Move the clock and the due times of jobs, and wake the runner."""
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

    def delivery_statuses(self, event_id: str) -> tuple[DeliveryStatus, ...]:
        """The stored states of an event's deliveries."""
        return self.app.ledger.delivery_statuses(event_id)

    def only(self, event_id: str) -> DeliveryStatus:
        """The stored state of an event's only delivery."""
        (delivery_status,) = self.delivery_statuses(event_id)
        return delivery_status

    def settled(self, event_id: str, state: State, *, attempt: int | None = None) -> DeliveryStatus:
        """The only delivery of an event, once it is in `state` (after attempt number `attempt`)."""
        return until(
            lambda: next(
                (
                    delivery_status
                    for delivery_status in self.delivery_statuses(event_id)
                    if delivery_status.state is state and (attempt is None or delivery_status.attempt == attempt)
                ),
                None,
            )
        )

    def is_idle(self) -> bool:
        """Whether no delivery is waiting or running."""
        counts = self.app.ledger.count_by_state()
        return counts["waiting"] + counts["running"] == 0

    def events(self, **filters: Any) -> list[str]:
        """The ids of the events that match a filter, oldest first."""
        return [stored.event.id for stored in self.app.ledger.page(EventFilter(**filters), limit=10_000)]

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read or write over another connection to the same database."""
        self.changed = self.changed or not statement.lstrip().upper().startswith("SELECT")
        if self.url:
            with ReusedConnection.connect(self.url, autocommit=True) as connection:
                cursor = connection.execute(statement.replace("?", "%s"), values)
                return cursor.fetchall() if cursor.description else []
        with closing(sqlite3.connect(self.file, timeout=CALL_TIMEOUT, isolation_level=None)) as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def locked(self, *, timeout: float | None = None) -> Iterator[None]:
        """Keep the database locked against writes; other writers fail after `timeout` seconds."""
        before, self.app.ledger.write_timeout = (
            self.app.ledger.write_timeout,
            timeout or self.app.ledger.write_timeout,
        )
        if self.url:
            with psycopg.connect(self.url) as connection:
                connection.execute("LOCK TABLE events, deliveries, attempts, counters IN EXCLUSIVE MODE")
                try:
                    yield
                finally:
                    connection.rollback()
                    self.app.ledger.write_timeout = before
            return
        with closing(sqlite3.connect(self.file, timeout=CALL_TIMEOUT, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                connection.execute("ROLLBACK")
                self.app.ledger.write_timeout = before

    def until_undecided(self, event_id: str) -> DeliveryStatus:
        """The only delivery of an event, once it waits because its handler's condition is undecided."""
        return until(
            lambda: next(
                (
                    delivery_status
                    for delivery_status in self.delivery_statuses(event_id)
                    if delivery_status.comment and delivery_status.due_at is None
                ),
                None,
            )
        )

    def close(self, timeout: float = WAIT_TIMEOUT) -> bool:
        """Stop the app as the server does."""
        self.closed = True
        return self.app.close(timeout)


class LedgerHarness:
    """Starts and restarts `App`s on one database file."""

    def __init__(self, folder: Path, clock: ManualClock, url: str = "", *, runner: str = "embedded") -> None:
        self.url = url
        self.runner = runner
        self.folder = folder
        self.clock = clock
        self.file = folder / "flowhooks.db"
        self.check_at_end = True
        self.opened: list[RunningApp] = []

    @property
    def address(self) -> str:
        """The URL of its database."""
        return self.url or f"sqlite:///{self.file}"

    def settings(self, *, allow: tuple[str, ...] = ("none",), **values: Any) -> Settings:
        """Settings for this database, without the plugins that are installed in this environment."""
        sections: dict[str, Any] = {}
        values["ledger"] = {"write_timeout": CALL_TIMEOUT} | values.get("ledger", {})
        values["runner"] = {"kind": self.runner} | values.get("runner", {})
        values["circuit_breaker"] = {"failures": 0} | values.get("circuit_breaker", {})
        for name, section in (
            ("http", HttpSettings),
            ("runner", RunnerSettings),
            ("circuit_breaker", CircuitBreakerSettings),
            ("ledger", LedgerSettings),
            ("identity", IdentitySettings),
            ("routing", RoutingSettings),
            ("alerts", AlertsSettings),
            ("retention", RetentionSettings),
            ("search", SearchSettings),
        ):
            if name in values:
                sections[name] = section(**values.pop(name))
        return Settings(database=self.url or str(self.file), plugins_allow=allow, **sections, **values)

    def open(
        self,
        *handlers: Handler,
        plugins: dict[str, object] | None = None,
        start: bool = True,
        sections: dict[str, dict[str, Any]] | None = None,
        environ: dict[str, str] | None = None,
        allow: tuple[str, ...] = (),
        kind: str = "server",
        **values: Any,
    ) -> RunningApp:
        """An `App` with the plugin `p` of these handlers, or with other plugins by name, and their sections.

        Plugins of `allow` are loaded as a server loads them.
        """
        objects = {"p": plugin(*handlers)} if plugins is None and handlers else dict(plugins or {})
        settings = self.settings(allow=(*objects, *allow) or ("none",), plugins=sections or {}, **values)
        entry_points = None if allow else ()  # finding them takes a fifth of the start
        app = App(settings, clock=self.clock, objects=objects, entry_points=entry_points, environ=environ, kind=kind)
        flow = RunningApp(app, self.clock, self.file, self.url)
        self.opened.append(flow)
        if start:
            app.start()
        return flow

    def crash(self, flow: RunningApp) -> None:
        """Stop an app as a kill does: no further result of an attempt is recorded."""
        flow.close(0)

    def end(self) -> None:
        """Close all apps, and check that the counts balance."""
        for flow in self.opened:
            if not flow.closed:
                assert flow.close(), "something was still running at the end"
        if self.check_at_end and (self.url or self.file.exists()):
            with _reading(self) as reader:
                problems = reader.verify().problems
                if any(flow.changed for flow in self.opened):
                    # A manual change by a test may violate other rules, but the counts must balance.
                    problems = [line for line in problems if COUNT_PROBLEMS.search(line)]
                assert not problems, problems


_READERS: dict[str, Reader] = {}
"""Readers for the checks at the end of tests, by URL.

They keep their compiled queries, and on PostgreSQL their connection, for which the server plans the queries once.
"""
_LINKS = tempfile.TemporaryDirectory(prefix="flowhooks-checked-")


@contextmanager
def _reading(harness: LedgerHarness) -> Iterator[Reader]:
    """Yield a reader of a test's database. Readers are reused: compiling queries takes longer than running them."""
    url = harness.url
    if not url:  # each test has its own file, and a link makes them share one URL
        link = Path(_LINKS.name) / "flowhooks.db"
        link.unlink(missing_ok=True)
        link.symlink_to(harness.file)
        url = f"sqlite:///{link}"
    if url not in _READERS:
        _READERS[url] = Reader(url)
    try:
        yield _READERS[url]
    finally:
        if not harness.url:
            _READERS[url]._engine.dispose()


def close_readers() -> None:
    """Close the connections that are kept for the checks at the end of tests."""
    while _READERS:
        _READERS.popitem()[1]._engine.dispose()
