"""Fixtures of the tests of alerts."""

from __future__ import annotations

import pytest

from flowhooks.background.alerts import notifier
from support.alert_listeners import EndListener, HangingListener, Listener, WatchedApp, fail
from support.waiting import until


@pytest.fixture
def listener():
    """A plugin's listener."""
    return Listener()


@pytest.fixture
def watch(harness, listens, make_plugin, eventually):
    """A function that opens an app with the plugin `p`, whose handlers `h` and `i` fail, and named listeners."""

    def open_app(start=False, alerts=(), handlers=None, **listeners):
        handlers = [listens(fail, name=name) for name in "hi"] if handlers is None else handlers
        plugins = {"p": make_plugin(*handlers)} if handlers else {"none": make_plugin()}
        for name, listener in listeners.items():
            hooks = {"alert_raised": lambda alert, listener=listener: listener.hook(alert)}
            if isinstance(listener, EndListener):
                hooks["alert_resolved"] = lambda alert, listener=listener: listener.end_hook(alert)
            plugins[name] = make_plugin(**hooks)
        return WatchedApp(harness.open(plugins=plugins, start=start, alerts=dict(alerts)), eventually)

    return open_app


@pytest.fixture
def hanging(monkeypatch):
    """A listener whose timeout is over as soon as it hangs; released at the end.

    The other listeners have the whole timeout: on a busy machine, a thread may stand still for more than a second.
    """
    hanging, original_wait = HangingListener(), notifier.AlertNotification.wait

    def wait_until_it_hangs(notification):
        if notification._name == "hanging" and not hanging.release.is_set():
            until(lambda: hanging.alerts)
            notification._deadline = 0.0
        return original_wait(notification)

    monkeypatch.setattr(notifier.AlertNotification, "wait", wait_until_it_hangs)
    yield hanging
    hanging.release.set()
