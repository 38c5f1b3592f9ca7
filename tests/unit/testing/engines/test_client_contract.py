"""The suite for engine clients: the fake engine passes it, and each wrong client fails it with a clear message."""

from __future__ import annotations

import pytest

from flowhooks import EndState, EngineConfig
from flowhooks.testing import EngineClientContract, EngineDriver, FakeEngine


class FakeDriver(EngineDriver):
    """Drives a fake engine; `wrong` makes its clients wrong."""

    def __init__(self, wrong=lambda client: client):
        self.engine = FakeEngine()
        self.engine.deploy("expense", 3)
        self.wrong = wrong
        self.given = {}

    def client(self, config):
        """A client of the fake engine."""
        return self.wrong(self.engine.client(config))

    def config(self):
        """Settings without an address."""
        return EngineConfig(source="oa", url="http://127.0.0.1:0")

    def start(self, *, business_key=None, variables=None, tenant_id=None):
        """Start an instance."""
        instance_id = self.engine.start()
        self.given[instance_id] = {"business_key": business_key, "variables": variables, "tenant_id": tenant_id}
        return instance_id

    def end(self, instance_id, end_state, **fields):
        """End an instance, and the parent that waits for it."""
        more = self.given[instance_id]
        definition = {"process_definition_id": "expense:3:17", "process_definition_key": "expense"}
        self.engine.finish(
            instance_id,
            end_state=end_state,
            end_event="end_ok",
            process_definition_version=3,
            **definition,
            **more,
            **fields,
        )
        if more.get("parent_id"):
            self.end(more["parent_id"], EndState.COMPLETED)
        return "end_ok"

    def definition(self):
        """The only definition."""
        return "expense", 3

    def end_together(self, instance_ids):
        """End instances with one end time."""
        now = self.engine.now()
        for instance_id in instance_ids:
            self.end(instance_id, EndState.COMPLETED, ended_at=now)

    def start_parent(self, variables):
        """Start a parent and its child."""
        parent, child = self.start(variables=variables), self.start()
        self.given[child]["parent_id"] = parent
        return parent, child

    def delete_history(self, instance_id):
        """Delete an instance."""
        self.engine.delete(instance_id)

    def deploy_many(self, count):
        """Deploy definitions."""
        keys = [f"many-{number}" for number in range(count)]
        for key in keys:
            self.engine.deploy(key)
        return keys


@pytest.fixture(scope="module")
def engine():
    """A fake engine for the whole suite."""
    return FakeDriver()


class TestFakeEngine(EngineClientContract):
    """The fake engine passes the whole suite."""


class Wrong:
    """A client that passes everything on; its subclasses are wrong in one way each."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        return getattr(self.client, name)
