"""Plugins and their handlers as JSON has them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from flowhooks.clock import to_text
from flowhooks.operations.deliverable_events import reroute_command

if TYPE_CHECKING:
    from flowhooks.ledger.stats import HandlerBacklog
    from flowhooks.model.retry import Retry
    from flowhooks.model.selectors import Selectors
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.plugin_status import HandlerStatus, PluginStatus


class SelectorsJson(TypedDict):
    """What a handler listens to.

    Attributes:
        callback_classes: call-back classes.
        process_keys: process definition keys.
        versions: of the process definition, such as `>=3,<5`; empty: every one.
        sources: engines; empty: every one.
        kind: the kind of call-back.
        every: whether it listens to every event of that kind.
        conclusions: values of the event's conclusion; empty: every one and none.
        when: JSON Pointers into the event's data, each with what is expected there.
    """

    callback_classes: list[str]
    process_keys: list[str]
    versions: str
    sources: list[str]
    kind: str
    every: bool
    conclusions: list[str]
    when: dict[str, Any]


class HandlerJson(TypedDict):
    """A handler, with what is stored for it.

    Attributes:
        id: `plugin:name`.
        availability: present; elsewhere if only other processes run it; or why it is not there: quarantined, denied,
            missing or retired.
        selectors: what it listens to, or did when it was last loaded; null where that was forgotten.
        retry: when a failed attempt is made again; null: a failure is final, or it is not loaded.
        has_probe: whether it can tell if a lost attempt did its work.
        order_by: what its deliveries are ordered by; null: nothing.
        concurrency: how many of them run at once at the most; null: any number.
        isolation: `process` if it runs in a process of its own, else `thread`; null where it is not loaded.
        timeout: seconds after which one of its attempts is overdue; null where it is not loaded.
        memory_mib: mebibytes that its process may take; null where it has none of its own.
        summary: what its author says of it.
        source_location: file and line of its function; empty where it is not loaded.
        backlog: what is stored for it and not done with.
        dismissed_events: dismissed events, of the newest 10,000, that it would take now: no installation delivers them.
        reroute_command: the command that delivers those; empty: there are none.
        paused_at: when it was paused; null: it is not.
        circuit_reason: the error for which flowhooks itself paused it, because its last attempts failed; null: its
            circuit is closed.
        circuit_retry_at: from when one of its deliveries is tried; null: its circuit is closed.
    """

    id: str
    availability: str
    selectors: Annotated[dict[str, Any], SelectorsJson] | None
    retry: Annotated[dict[str, Any], Retry] | None
    has_probe: bool
    order_by: str | None
    concurrency: int | None
    isolation: str | None
    timeout: float | None
    memory_mib: int | None
    summary: str
    source_location: str
    backlog: Annotated[dict[str, Any], HandlerBacklog]
    dismissed_events: int
    reroute_command: str
    paused_at: TimestampJson | None
    circuit_reason: str | None
    circuit_retry_at: TimestampJson | None


class PluginJson(TypedDict):
    """A plugin that was found, or that only has registered handlers.

    Attributes:
        name: its name.
        version: its version; empty where it has none.
        package: the installed package that it comes from; empty where it comes from none.
        origin: from where it was loaded.
        state: loaded, quarantined, denied, missing, elsewhere or retired.
        error: why it is not loaded, one line.
        hooks: the hooks that it implements.
        handlers: its handlers.
    """

    name: str
    version: str
    package: str
    origin: str
    state: str
    error: str
    hooks: list[str]
    handlers: list[HandlerJson]


def plugin_to_json(plugin: PluginStatus) -> PluginJson:
    """One plugin, with everything but what is for its author alone."""
    info = plugin.info
    return {
        "name": plugin.name,
        "version": info.version if info else "",
        "package": info.distribution if info else "",
        "origin": info.origin if info else "",
        "state": plugin.state,
        "error": info.error if info else "",
        "hooks": list(info.hooks) if info else [],
        "handlers": [handler_to_json(handler) for handler in plugin.handlers],
    }


def handler_to_json(status: HandlerStatus) -> HandlerJson:
    """One handler, with what is stored for it."""
    handler, terms = status.handler, status.terms
    return {
        "id": status.id,
        "availability": status.availability,
        "selectors": _selectors(status.selectors) if status.selectors else None,
        "retry": asdict(handler.retry) if handler and handler.retry else None,
        "has_probe": bool(handler and handler.probe),
        "order_by": handler.order_by if handler else None,
        "concurrency": handler.concurrency if handler else None,
        "isolation": terms.isolation if terms else None,
        "timeout": terms.timeout if terms else None,
        "memory_mib": terms.memory_mib if terms and terms.isolation == "process" else None,
        "summary": handler.summary if handler else "",
        "source_location": handler.source_location if handler else "",
        "backlog": asdict(status.backlog),
        "dismissed_events": status.dismissed.events if status.dismissed else 0,
        "reroute_command": reroute_command(status.id, status.dismissed) if status.dismissed else "",
        "paused_at": to_text(status.paused_at),
        "circuit_reason": status.circuit.reason if status.circuit else None,
        "circuit_retry_at": to_text(status.circuit.retry_at if status.circuit else None),
    }


def _selectors(selectors: Selectors) -> dict[str, Any]:
    # The format number belongs to the ledger.
    return {name: value for name, value in selectors.to_json().items() if name != "format"}
