"""A start that waits for a plugin says for which one."""

from __future__ import annotations

import threading

import pytest

from flowhooks import hookimpl
from flowhooks.plugins import slow_loading

from .conftest import GOOD


class Slow:
    """A plugin whose start hook returns after an event."""

    def __init__(self):
        self.enough = threading.Event()

    @hookimpl
    def handlers(self):
        """Wait, as for a server that does not answer."""
        assert self.enough.wait(60)
        return []


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch):
    monkeypatch.setattr(slow_loading, "REPORT_INTERVAL", 0.02)


def test_a_slow_plugin_is_reported_repeatedly(site):
    """Its name and origin are reported after each interval; the plugins after it are loaded."""
    slow, reports = Slow(), []

    def report(plugin, seconds):
        reports.append((plugin.name, plugin.origin_text, seconds))
        if len(reports) == 3:
            slow.enough.set()

    site.single_file("good", GOOD)
    plugins = site.load(objects={"slow": slow}, on_slow=report)

    assert [name for name, _, _ in reports[:3]] == ["slow"] * 3
    assert reports[0][1] == "object"
    assert [(info.name, info.state) for info in plugins.infos] == [("slow", "loaded"), ("good", "loaded")]
    assert not [thread for thread in threading.enumerate() if thread.name == "slow-loading"]
