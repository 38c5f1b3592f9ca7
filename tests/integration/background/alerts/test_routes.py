"""Which listeners are notified, and test messages to them."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flowhooks import AlertCause
from flowhooks.background.alerts import notifier
from flowhooks.errors import NotFound, SettingsError
from flowhooks.operations.context import Actor
from flowhooks.operations.registry import run_operation
from flowhooks.settings import AlertRoute
from support.alert_listeners import Listener

pytestmark = pytest.mark.either


def test_a_route_selects_the_listeners(watch, listener):
    """An alert that a route matches is sent to its notifiers only, and is then complete; others go to everybody."""
    pager = Listener()
    routes = {"h": AlertRoute(handlers=("p:h",), severity="error", notifiers=("pager",))}
    watched = watch(mail=listener, pager=pager, alerts={"routes": routes})
    watched.dead("i1")
    watched.poll(2)
    assert [alert.subject for alert in listener.alerts] == ["p:i"]
    assert [alert.subject for alert in pager.alerts] == ["p:h", "p:i"]
    assert [row[3] for row in watched.rows()] == ['["pager"]', '["mail", "pager"]']


def test_a_route_to_an_unknown_plugin_is_refused(watch, listener):
    """A server does not start if a route names a plugin that receives no alerts."""
    route = AlertRoute(notifiers=("mial",), location="flowhooks.toml:3: alerts.routes.a")
    with pytest.raises(SettingsError, match=r"toml:3: alerts.routes.a.notifiers names 'mial', .* did you mean mail\?"):
        watch(mail=listener, alerts={"routes": {"a": route}})


def test_a_test_message(watch, listener, logged):
    """The test calls each plugin that receives alerts, or those of a route, and returns their errors."""
    pager = Listener()
    routes = {"a": AlertRoute(handlers=("p:*",), notifiers=("pager",))}
    watched = watch(mail=listener, pager=pager, alerts={"routes": routes})
    listener.error = OSError("smtp.example.com:587: connection refused")
    context = replace(watched.flow.app.operation_context, by=Actor("ann", "cli"))
    done = run_operation(context, "test_alerts", {})
    assert done == {"route": "", "errors": {"mail": "smtp.example.com:587: connection refused", "pager": ""}}
    assert run_operation(context, "test_alerts", {"route": "a"}) == {"route": "a", "errors": {"pager": ""}}
    assert (len(listener.alerts), len(pager.alerts)) == (1, 2)
    alert = pager.alerts[0]
    assert (alert.cause, alert.subject) == (AlertCause.TEST, "all plugins")
    assert alert.message.endswith("sent by ann with `flowhooks alerts test`. Nothing is wrong.")
    with pytest.raises(NotFound, match="there is no route 'b'; the routes are a"):
        run_operation(context, "test_alerts", {"route": "b"})
    assert watched.rows() == []
    assert watched.flow.sql("SELECT action, target FROM audit_log ORDER BY id") == [
        ("test_alerts", ""),
        ("test_alerts", "a"),
    ]


def test_a_test_message_waits_for_all_plugins_together(watch, listener, monkeypatch):
    """Plugins that hang have the same timeout, so that the answer comes before the command gives up."""
    elapsed = [0.0]

    class Never(threading.Event):
        def wait(self, timeout):
            elapsed[0] += timeout
            return False

    watched = watch(mail=listener, pager=Listener())
    monkeypatch.setattr(notifier, "threading", SimpleNamespace(Event=Never, Thread=threading.Thread))
    monkeypatch.setattr(notifier, "time", SimpleNamespace(monotonic=lambda: elapsed[0]))
    done = run_operation(watched.flow.app.operation_context, "test_alerts", {})
    assert set(done["errors"].values()) == {"the plugin did not return within 20 seconds"}
    assert elapsed == [notifier.NOTIFY_TIMEOUT]
