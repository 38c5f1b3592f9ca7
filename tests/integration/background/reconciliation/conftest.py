"""An app that asks a `FakeEngine`."""

from __future__ import annotations

from typing import Any

import pytest

from flowhooks.background.reconciliation import pace
from flowhooks.testing.engines.fake_engine import FakeEngine
from support.app_harness import plugin
from support.asked_engine import MINUTE, ReconciledApp, grant, settings_of


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch):
    """Rounds do not pause between pages, although other threads of this process are busy."""
    monkeypatch.setattr(pace, "MAX_SHARE", 1.0)


@pytest.fixture
def engine(clock):
    """An engine in memory, whose clock is the test's."""
    return FakeEngine(clock)


@pytest.fixture
def open_app(harness, clock, engine):
    """A function that opens an app that asks the engine; the test starts its rounds."""

    def open_with(section: dict[str, Any] | None = None, *, start: bool = False, **given: Any) -> ReconciledApp:
        plugins = given.pop("plugins", {"p": plugin(grant, engine_clients=lambda: {"fake": engine.client})})
        sources = given.pop("sources", None) or {"oa": settings_of(section)}
        flow = harness.open(plugins=plugins, sources=sources, start=start, **given)
        return ReconciledApp(harness, clock, engine, flow)

    return open_with


@pytest.fixture
def asked(open_app):
    """An app that asks the engine, after its first contact."""
    app = open_app()
    app.round()
    app.clock.advance(MINUTE)
    return app
