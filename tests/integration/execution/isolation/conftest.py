"""The unruly plugin, and pools of processes that have loaded it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flowhooks import Event
from flowhooks.execution.isolation import ProcessPool, callers
from flowhooks.model.delivery import Delivery
from flowhooks.model.invocation import Invocation
from flowhooks.settings import RunnerSettings, Settings
from flowhooks.working_folder import WorkingFolder

FOLDER = Path(__file__).parent / "plugins"
PASSWORD = "correct horse battery staple"


class PoolHarness:
    """A pool that runs handlers of a plugin, without a ledger."""

    def __init__(self, folder: Path = FOLDER, name: str = "unruly", *, threads: int = 4, **settings):
        self.settings = Settings(
            plugins_dirs=(str(folder),),
            plugins_allow=(name,),
            plugins={name: {"password": {"env": "UNRULY_PASSWORD"}}} if name == "unruly" else {},
            runner=RunnerSettings(threads=threads),
            **settings,
        )
        self.name = name
        self.reasons: list[str] = []
        environ = {**os.environ, "UNRULY_PASSWORD": PASSWORD}
        from flowhooks.plugins.from_settings import load

        started_in = WorkingFolder.current()
        _, self.plugins = load(self.settings, environ=environ)
        self.pool = ProcessPool.from_settings(
            self.settings, self.plugins, environ, folder=started_in, on_ended=self.reasons.append
        )
        self.calls = callers(self.pool)
        self.pool.start()

    def delivery(self, handler: str) -> Delivery:
        """A delivery of the handler."""
        return Delivery(id="d1", event_id="e1", handler=f"{self.name}:{handler}", attempt=3)

    def run(self, handler: str, *, delivery: Delivery | None = None, invocation: Invocation | None = None, **data):
        """Run a delivery and return the handler's result."""
        delivery = delivery or self.delivery(handler)
        with invocation or invocation_of(delivery):
            return self.calls[delivery.handler].run(event_of(**data), delivery)

    def invocation(self, handler: str) -> Invocation:
        """An invocation of the handler, which learns whether the handler was entered."""
        return invocation_of(self.delivery(handler))

    def probe(self, handler: str, **data):
        """Call the handler's probe and return its answer."""
        delivery = self.delivery(handler)
        return self.calls[delivery.handler].probe(event_of(**data), delivery)


def invocation_of(delivery: Delivery) -> Invocation:
    """An invocation for an attempt that has no transaction."""
    return Invocation(delivery.id, delivery.attempt)


def event_of(**data) -> Event:
    """An event with this data."""
    return Event(id="e1", flow_instance_id="i1", business_key="b1", data=data, received_at=datetime.now(UTC))


@pytest.fixture(scope="module")
def pool_harness():
    """A pool shared by all tests of a module."""
    harness = PoolHarness()
    yield harness
    harness.pool.close()


@pytest.fixture
def make_pool_harness():
    """A function that makes a pool."""
    harnesses = []

    def make(*args, **options) -> PoolHarness:
        harnesses.append(PoolHarness(*args, **options))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.pool.close()


def has_process_exited(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def has_exited():
    """Whether a process has ended."""
    return has_process_exited
