"""The plugin authors' test kit: a real flowhooks for plugins under test, without a server and without waiting.

    from flowhooks.testing import exactly_once, make_event

    def test_a_contract_is_archived(flowhooks_app):
        app = flowhooks_app(my_plugin)
        answer = app.post("4711", callBackProcessClass="com.example.ContractSigned")
        assert answer.json == {"success": True}

The names below are imported at their first use, because pytest imports this package in every environment in which
flowhooks is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowhooks.testing.app import AppHarness
    from flowhooks.testing.app_factory import AppFactory
    from flowhooks.testing.clock import ManualClock
    from flowhooks.testing.engines.client_contract import EngineClientContract
    from flowhooks.testing.engines.driver import EngineDriver
    from flowhooks.testing.engines.fake_engine import FakeEngine
    from flowhooks.testing.engines.http_contract import HttpClientContract
    from flowhooks.testing.events import make_event, stored_events
    from flowhooks.testing.fault_injection.exactly_once import exactly_once
    from flowhooks.testing.fault_injection.report import Finding, Report
    from flowhooks.testing.views import DeliveryView, PostResult

__all__ = [
    "AppFactory",
    "AppHarness",
    "DeliveryView",
    "EngineClientContract",
    "EngineDriver",
    "FakeEngine",
    "Finding",
    "HttpClientContract",
    "ManualClock",
    "PostResult",
    "Report",
    "exactly_once",
    "make_event",
    "stored_events",
]

_HOMES: Final = {
    "AppFactory": "app_factory",
    "AppHarness": "app",
    "DeliveryView": "views",
    "EngineClientContract": "engines.client_contract",
    "EngineDriver": "engines.driver",
    "FakeEngine": "engines.fake_engine",
    "Finding": "fault_injection.report",
    "HttpClientContract": "engines.http_contract",
    "ManualClock": "clock",
    "PostResult": "views",
    "Report": "fault_injection.report",
    "exactly_once": "fault_injection.exactly_once",
    "make_event": "events",
    "stored_events": "events",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
