"""The section [alerts]: when alerts are raised, and which plugins are notified of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from flowhooks.model.alert import HANDLER_CAUSES, AlertCause, AlertSeverity
from flowhooks.settings import types
from flowhooks.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DAY_SECONDS: Final = 86400.0
_QUARANTINED: Final = AlertCause.QUARANTINED
_MAY_CONCERN_HANDLERS: Final = HANDLER_CAUSES | {_QUARANTINED, AlertCause.CONDITION}
"""Causes whose subject can be a handler or its plugin. A pattern could match the name of a source, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRoute:
    """Which plugins are notified of which alerts. Its name is the section's name: [alerts.routes.NAME].

    An alert that matches a route is sent to the notifiers of all routes that it matches, and to no other plugin. An
    alert that matches none is sent to every plugin that implements `alert_raised`.
    """

    notifiers: tuple[str, ...] = field(
        metadata={
            "doc": "Names of the plugins that are notified, such as notice.",
            "kind": types.list_of(types.name(), min_items=1),
        },
    )
    handlers: tuple[str, ...] = setting(
        (),
        types.list_of(types.text(min_chars=1)),
        "Ids of handlers, with * for any characters. The route is then only for alerts about these handlers and their "
        "plugins; empty: all alerts.",
    )
    causes: tuple[str, ...] = setting(
        (),
        types.list_of(types.one_of(*(cause for cause in AlertCause if cause is not AlertCause.TEST))),
        "Causes of alerts; empty: all.",
    )
    severity: str = setting(
        AlertSeverity.INFO.value, types.one_of(*AlertSeverity), "The lowest severity that the route is for."
    )
    location: str = field(default="", compare=False)

    def matches(self, cause: AlertCause, subject: str) -> bool:
        """Return whether the route is for alerts of a cause about a subject."""
        if cause.severity.rank < AlertSeverity(self.severity).rank or (self.causes and cause.value not in self.causes):
            return False
        if not self.handlers:
            return True
        if cause not in _MAY_CONCERN_HANDLERS:
            return False
        # Handlers of a quarantined plugin wait, so it concerns those who are responsible for them.
        return any(
            fnmatchcase(subject, pattern.partition(":")[0] if cause is _QUARANTINED else pattern)
            for pattern in self.handlers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsSettings:
    """Settings that decide when plugins are notified of alerts."""

    poll_interval: float = setting(10.0, types.seconds(0, 3600), "Seconds between two checks for alerts.", live=True)
    parked_after: float = setting(
        3600.0,
        types.seconds(0, 10 * _DAY_SECONDS, zero=True),
        "Seconds that an event may be parked before an alert is raised; 0: at once.",
        live=True,
    )
    waiting_after: float = setting(
        3600.0,
        types.seconds(0, 10 * _DAY_SECONDS),
        "Seconds after which an alert is raised for a delivery that is due but has not started, or whose plugin is "
        "not loaded.",
        live=True,
    )
    disk_free_mib: int = setting(
        1024,
        types.integer(0, 2**30),
        "Free space, in mebibytes, on the disk of a SQLite ledger below which an alert is raised; 0: never.",
        live=True,
    )
    ledger_max_mib: int = setting(
        0,
        types.integer(0, 2**30),
        "Size of the ledger in mebibytes above which an alert is raised; 0: never.",
        live=True,
    )
    ledger_growth_mib: int = setting(
        0,
        types.integer(0, 2**30),
        "Growth of the ledger in 24 hours, in mebibytes, above which an alert is raised; 0: never.",
        live=True,
    )
    backup_max_age: float = setting(
        0.0,
        types.duration(0, 366 * _DAY_SECONDS),
        'Age of the last recorded backup above which an alert is raised, in seconds or as in "1d"; 0: never.',
        live=True,
    )
    key_expires_within: float = setting(
        14 * _DAY_SECONDS,
        types.duration(0, 366 * _DAY_SECONDS),
        'Time before the last credential of a source expires from which an alert is raised, in seconds or as in "14d"; '
        "0: never.",
        live=True,
    )
    routes: Mapping[str, AlertRoute] = field(
        default_factory=dict, metadata={"doc": "Which plugins are notified of which alerts, by the name of the route."}
    )


def routed_notifiers(
    routes: Mapping[str, AlertRoute], cause: AlertCause, subject: str, listeners: Sequence[str]
) -> Sequence[str]:
    """Return which listeners are notified of an alert: those of all routes that match it, or all if none does."""
    matching = [route for route in routes.values() if route.matches(cause, subject)]
    if not matching:
        return listeners
    chosen = {name for route in matching for name in route.notifiers}
    return [name for name in listeners if name in chosen]


def unknown_notifiers(routes: Mapping[str, AlertRoute], listeners: Sequence[str], unloaded: Sequence[str]) -> list[str]:
    """Return a sentence for each notifier of a route that receives no alerts.

    Args:
        routes: the routes, by name.
        listeners: names of the plugins that receive alerts.
        unloaded: names of further plugins that may receive alerts, but are not loaded: denied or quarantined.
    """
    return [
        f"{route.location}.notifiers names {types.format_value(name)}, but no plugin of this name receives alerts"
        f"{types.did_you_mean(name, listeners)}"
        for route in routes.values()
        for name in route.notifiers
        if name not in listeners and name not in unloaded
    ]
