"""[alerts.routes.NAME]: which plugins are notified of which alerts."""

from __future__ import annotations

import pytest

from flowhooks import AlertCause, settings
from flowhooks.settings import AlertRoute, routed_notifiers, unknown_notifiers

ROUTES = """
[alerts]
poll_interval = 5

[alerts.routes.payments]
handlers = ["payments:*", "erp:book"]  # the team of payments
severity = "error"
notifiers = ["notice", "pager"]

[alerts.routes."all.conflicts"]
causes = ["conflict"]
notifiers = ["notice"]
"""


def test_routes_are_read(write_settings):
    """Each section is a route with its conditions, its notifiers, and its place in the file."""
    alerts = settings.load(write_settings(ROUTES), {}, {}).alerts
    assert alerts.poll_interval == 5
    assert alerts.routes == {
        "payments": AlertRoute(handlers=("payments:*", "erp:book"), severity="error", notifiers=("notice", "pager")),
        "all.conflicts": AlertRoute(causes=("conflict",), notifiers=("notice",)),
    }
    assert [route.location for route in alerts.routes.values()] == [
        "flowhooks.toml:8: alerts.routes.payments",
        "flowhooks.toml:12: alerts.routes.'all.conflicts'",
    ]


def test_without_routes(write_settings):
    """Without routes, every listener is notified of every alert."""
    assert settings.load(write_settings(""), {}, {}).alerts.routes == {}
    assert routed_notifiers({}, AlertCause.DEAD, "p:h", ["notice"]) == ["notice"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[alerts.routes.a]\nnotifiers = ["notice"]\nseverity = "eror"',
            "flowhooks.toml:3: alerts.routes.a.severity must be",
        ),
        (
            '[alerts.routes.a]\nnotifier = ["notice"]\n',
            "flowhooks.toml:2: alerts.routes.a.notifier is not a setting; did you mean notifiers?",
        ),
        (
            '[alerts.routes.a]\nnotifiers = ["notice"]\n[alerts.routes.b]\nhandlers = ["p:h"]\n',
            "flowhooks.toml:3: alerts.routes.b has no notifiers, the names of the plugins that are notified",
        ),
        (
            '[alerts.routes.a]\nnotifiers = ["notice"]\ncauses = ["ded"]\n',
            "flowhooks.toml:3: alerts.routes.a.causes item 1 must be",
        ),
        ("[alerts]\nroutes = 5", "flowhooks.toml:2: alerts.routes must be sections, [alerts.routes.NAME], not a value"),
        ('[alerts.routes."a b"]\nnotifiers = ["notice"]', "must have a name of 1 to 100 letters"),
    ],
)
def test_errors_are_reported_with_their_line(load_errors, text, line):
    """A wrong name or value is refused with the file and the line."""
    assert any(line in problem for problem in load_errors(text))


@pytest.mark.parametrize(
    ("cause", "subject", "told"),
    [
        (AlertCause.DEAD, "payments:book", ["notice", "pager"]),
        (AlertCause.OVERDUE, "payments:book", ["chat", "notice", "pager"]),  # only a warning
        (AlertCause.DEAD, "contracts:archive", ["chat", "notice", "pager"]),
        (AlertCause.QUARANTINED, "payments", ["notice", "pager"]),
        (AlertCause.CONFLICT, "oa", ["notice"]),
        (AlertCause.DEAD, "(others)", ["chat", "notice", "pager"]),
    ],
)
def test_an_alert_notifies_the_notifiers_of_matching_routes(write_settings, cause, subject, told):
    """An alert goes to the notifiers of the routes that match it, and to all if none does."""
    routes = settings.load(write_settings(ROUTES), {}, {}).alerts.routes
    assert routed_notifiers(routes, cause, subject, ["chat", "notice", "pager"]) == told


def test_a_route_of_handlers_is_for_alerts_about_handlers():
    """A pattern that also matches the name of a source, a host or a conclusion matches no alert about one."""
    about_handlers = {"dead", "unknown", "waiting", "circuit_open", "overdue", "quarantined", "condition"}
    route = AlertRoute(handlers=("pay*",), notifiers=("chat",))
    assert {cause for cause in AlertCause if route.matches(cause, "payroll")} == about_handlers


def test_an_alert_of_two_routes_notifies_both():
    """If several routes match, the notifiers of all of them are notified."""
    routes = {
        "a": AlertRoute(handlers=("p:*",), notifiers=("chat",)),
        "b": AlertRoute(severity="error", notifiers=("pager",)),
    }
    assert routed_notifiers(routes, AlertCause.DEAD, "p:h", ["chat", "notice", "pager"]) == ["chat", "pager"]


def test_a_notifier_that_receives_no_alerts_is_named(write_settings):
    """A notifier that is neither a listener nor unloaded is named with its line and a likely name."""
    routes = settings.load(write_settings(ROUTES), {}, {}).alerts.routes
    first, second = unknown_notifiers(routes, ["notices", "pager"], [])
    assert first == (
        "flowhooks.toml:8: alerts.routes.payments.notifiers names 'notice', but no plugin of this name receives "
        "alerts; did you mean notices?"
    )
    assert second.startswith("flowhooks.toml:12: alerts.routes.'all.conflicts'.notifiers names 'notice', but")
    assert unknown_notifiers(routes, ["pager"], ["notice"]) == []
