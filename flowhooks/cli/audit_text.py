"""Describe audit entries in words.

Values in an audit entry come from users: the caller escapes them before it prints this text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks.cli.output import format_time, pluralize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.ledger.audit import AuditEntry

INTERFACE_TEXTS: Final = {
    "console": "in the console",
    "api": "through the API",
    "cli": "by a command",
    "server": "in the server",
}
_RESOLUTION_TEXTS: Final = {
    "did": "its work was done",
    "did-not": "its work was not done, run it again",
    "close": "closed, nothing more is needed",
}


def actor_text(entry: AuditEntry) -> str:
    """Return the operator of an entry and the interface that they used."""
    return f"{entry.actor} {INTERFACE_TEXTS.get(entry.interface, entry.interface)}"


def describe(entry: AuditEntry) -> str:
    """Describe an operation in words. An operation unknown to this version is shown as stored."""
    detail = entry.detail
    if damage := detail.get("damaged"):
        return f"{entry.action} {damage}"
    to_text = _DESCRIPTIONS.get(entry.action)
    try:
        text = to_text(detail) if to_text else None
    except (LookupError, TypeError, ValueError, AttributeError):  # written by another version
        text = None
    if text is None:
        return f"{entry.action} {json.dumps(detail, ensure_ascii=False)}"
    if after := detail.get("after"):  # it was stopped there, or the rest needed no change
        text += f", up to event {after}"
    if (not entry.target or entry.action == "operation") and (selection := filter_text(detail.get("event_filter"))):
        text += f" ({selection})"
    return f"{text}: {note}" if (note := detail.get("note")) else text


_ACTION_TEXTS: Final = {
    "replay": "to replay",
    "rerun": "to run again, including succeeded ones",
    "mark-done": "to mark as done",
    "mark-not-done": "to mark as not done and run again",
    "close": "to close",
    "run-now": "to run now",
}


def _operated(detail: Mapping[str, Any]) -> str:
    change = detail["change"]
    if change == "started":
        action = _ACTION_TEXTS[detail["operation"]]
        rate = f", {detail['rate']:g} per second" if detail["rate"] is not None else ""
        return f"started an operation on {_deliveries_text(detail)} {action}{rate}"
    if change == "rate":
        rate = "no limit" if detail["rate"] is None else f"{detail['rate']:g} per second"
        return f"set the rate of an operation to {rate}"
    return f"{_CHANGE_TEXTS[change]} an operation"


_CHANGE_TEXTS: Final = {"paused": "paused", "resumed": "resumed", "cancelled": "cancelled"}


def _resolved(detail: Mapping[str, Any]) -> str:
    return f"resolved delivery {detail['delivery']} for {detail['handler']}: {_RESOLUTION_TEXTS[detail['verdict']]}"


def _rerouted(detail: Mapping[str, Any]) -> str:
    created = (
        f", with {pluralize(detail['deliveries'], 'new delivery', 'new deliveries')}" if detail["deliveries"] else ""
    )
    only = f", only for {detail['handler']}" if "handler" in detail else ""
    return f"routed {pluralize(detail['events'], 'event')} again{only}{created}"


def _acknowledged(detail: Mapping[str, Any]) -> str:
    return f"acknowledged {pluralize(len(detail['alerts']), 'alert')} ({', '.join(detail['about'])})"


def _exported(detail: Mapping[str, Any]) -> str:
    bodies = {"none": "", "stored": " with bodies", "masked": " with masked bodies"}[detail["bodies"]]
    file = f"as {detail['format']}{bodies}, from {detail['address']}"
    if detail["result"] == "started":
        return f"started to export events {file}; it has not ended"
    end = "" if detail["result"] == "complete" else "; it was interrupted"
    return f"exported {pluralize(detail['events'], 'event')} {file}{end}"


def _handlers_text(verb: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda detail: f"{verb} {', '.join(detail['handlers'])}"


def _started(detail: Mapping[str, Any]) -> str:
    plugins = ", ".join(f"{name} {change}" for name, change in detail.get("plugins_changed", {}).items())
    settings = ", ".join(detail.get("settings_changed", ()))
    text = f"started a {detail['kind']} of flowhooks {detail['version']}{_times_text(detail)}"
    text += f"; plugins changed: {plugins}" if plugins else ""
    return text + (f"; settings changed: {settings}" if settings else "")


def _reloaded(detail: Mapping[str, Any]) -> str:
    changed = ", ".join(detail["changed"]) or "none changed"
    later = f"; changed, but read only at a start: {', '.join(detail['needs_restart'])}"
    return f"read the settings again{_times_text(detail)}: {changed}{later if detail['needs_restart'] else ''}"


def _times_text(detail: Mapping[str, Any]) -> str:
    """Return how often the same was done within an hour; `""` if once."""
    return f", {detail['count']:,} times until {format_time(detail['last_at'])}" if "count" in detail else ""


_DESCRIPTIONS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "operation": _operated,
    "resolve": _resolved,
    "reroute_parked": lambda detail: f"routed {pluralize(detail['events'], 'parked event')} again",
    "reroute": _rerouted,
    "dismiss": lambda detail: f"dismissed {pluralize(detail['events'], 'parked event')}",
    "accept_correction": lambda detail: (
        f"accepted the body {detail['digest'][:12]} as event {detail['correction']}, with {_deliveries_text(detail)}"
    ),
    "acknowledge": _acknowledged,
    "record_backup": lambda detail: f"recorded a backup{' (' + detail['name'] + ')' if detail['name'] else ''}",
    "test_alerts": lambda detail: f"sent a test message through {', '.join(detail['errors']) or 'no plugin'}",
    "export": _exported,
    "purge": lambda detail: f"purged {pluralize(detail['events'], 'event')}",
    "index_fields": lambda detail: (
        f"indexed {pluralize(detail['events'], 'event')} by {', '.join(detail['fields']) or 'no field'}"
    ),
    "install": lambda detail: f"installed plugins: {', '.join(detail['plugins'])}",
    "uninstall": lambda detail: f"uninstalled plugins: {', '.join(detail['plugins'])}",
    "restart": lambda _detail: "asked the server to restart",
    "compact": lambda _detail: "compacted the database",
    "retire": _handlers_text("retired"),
    "pause": _handlers_text("paused"),
    "resume": _handlers_text("resumed"),
    "reconcile": lambda detail: f"reconciled with the engine{_since_text(detail)}",
    "confirm_reconciliation": lambda detail: f"let {pluralize(detail['instances'], 'instance')} be taken in",
    "close_gaps": lambda detail: f"closed {pluralize(detail['gaps'], 'gap')} in the history of the engine",
    "start": _started,
    "reload": _reloaded,
    "login": lambda detail: f"logged in from {detail['address']}",
    "logout": lambda detail: f"logged out from {detail['address']}",
    "login_refused": lambda detail: f"login refused{_times_text(detail)}, from {detail['address']}",
    "decline_reconciliation": lambda detail: f"declined to take in {pluralize(detail['instances'], 'instance')}",
}
ACTIONS: Final = frozenset(_DESCRIPTIONS)
"""The actions that this version records."""


def _deliveries_text(detail: Mapping[str, Any]) -> str:
    return pluralize(detail["deliveries"], "delivery", "deliveries")


def _since_text(detail: Mapping[str, Any]) -> str:
    declined = ", with declined instances" if "declined" in detail else ""
    return f", reading its history since {detail['since']}{declined}" if "since" in detail else ""


def filter_text(filters: Any) -> str:
    """Return a filter as command-line options; `""` if it is none."""
    if not isinstance(filters, dict):
        return ""
    if not filters:
        return "--all"
    words = []
    for name, value in filters.items():
        if name == "ids":
            words.append(pluralize(len(value), "id"))
        elif name == "delivery_ids":
            words.append(pluralize(len(value), "delivery id"))
        elif name == "fields":
            words += [f"--field {condition}" for condition in value]
        elif name in {"since", "until", "attempted_since"}:
            words.append(f"--{name.replace('_', '-')} {format_time(value)}")
        else:
            words.append(f"--{_OPTION_NAMES.get(name, name.replace('_', '-'))} {value}")
    return " ".join(words)


_OPTION_NAMES: Final = {
    "flow_instance_id": "flow",
    "business_key": "business-key",
    "callback_class": "class",
    "process_key": "key",
}
