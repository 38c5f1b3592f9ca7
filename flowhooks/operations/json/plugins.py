"""Encode plugins and their handlers as JSON."""

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
    """The events that a handler listens to.

    Attributes:
        callback_classes: callback classes.
        process_keys: process definition keys.
        versions: versions of the process definition, such as `>=3,<5`; empty: all.
        sources: engines; empty: all.
        kind: kind of callback.
        every: whether the handler listens to every event of that kind.
        conclusions: values of the event's conclusion; empty: any value, or none.
        when: JSON Pointers into the event's data, each with the expected value.
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
    """A handler, with its stored backlog.

    Attributes:
        id: `plugin:name`.
        availability: present; elsewhere if only other processes run the handler; or why it is unavailable: quarantined,
            denied, missing or retired.
        selectors: selectors, current or of the last load; null if they are no longer stored.
        retry: retry schedule of failed attempts; null: a failure is final, or the handler is not loaded.
        has_probe: whether the handler has a probe, which tells if a lost attempt did its work.
        order_by: key by which deliveries are ordered; null: none.
        concurrency: maximum number of deliveries that run at once; null: no limit.
        rate: maximum number of attempts that start in a second, minute or hour, such as 10/s; null: no limit.
        isolation: `process` if the handler runs in a process of its own, otherwise `thread`; null if it is not loaded.
        timeout: seconds after which an attempt is overdue; null if the handler is not loaded.
        memory_mib: memory limit of the handler's process in MiB; null if it has no process of its own.
        summary: description by the author.
        source_location: file and line of the function; empty if the handler is not loaded.
        backlog: stored deliveries and parked events that are not completed.
        dismissed_events: dismissed events, of the newest 10,000, that the handler would accept now; they are not
            delivered automatically.
        reroute_command: command that delivers the dismissed events; empty: there are none.
        paused_at: when the handler was paused; null: it is not paused.
        paused_by: operator who paused the handler; empty if not known, or if its circuit is open.
        pause_note: note of that operator; empty if there is none.
        circuit_reason: error that opened the circuit, because the last attempts failed; null: the circuit is closed.
        circuit_retry_at: earliest time of the next trial; null: the circuit is closed.
        damaged: which stored values of the handler are damaged; empty if none is.
    """

    id: str
    availability: str
    selectors: Annotated[dict[str, Any], SelectorsJson] | None
    retry: Annotated[dict[str, Any], Retry] | None
    has_probe: bool
    order_by: str | None
    concurrency: int | None
    rate: str | None
    isolation: str | None
    timeout: float | None
    memory_mib: int | None
    summary: str
    source_location: str
    backlog: Annotated[dict[str, Any], HandlerBacklog]
    dismissed_events: int
    reroute_command: str
    paused_at: TimestampJson | None
    paused_by: str
    pause_note: str
    circuit_reason: str | None
    circuit_retry_at: TimestampJson | None
    damaged: str


class PluginJson(TypedDict):
    """A plugin that was found, or that only has registered handlers.

    Attributes:
        name: name of the plugin.
        version: version of the plugin; empty if it has none.
        package: installed package of the plugin; empty if it is not from a package.
        origin: place that the plugin was loaded from.
        state: loaded, quarantined, denied, missing, elsewhere or retired.
        error: why the plugin is not loaded, one line.
        hooks: hooks that the plugin implements.
        handlers: handlers of the plugin.
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
    """Return a plugin without the details meant only for its author."""
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
    """Return a handler with its stored backlog."""
    handler, terms = status.handler, status.terms
    return {
        "id": status.id,
        "availability": status.availability,
        "selectors": _selectors(status.selectors) if status.selectors else None,
        "retry": asdict(handler.retry) if handler and handler.retry else None,
        "has_probe": bool(handler and handler.probe),
        "order_by": handler.order_by if handler else None,
        "concurrency": handler.concurrency if handler else None,
        "rate": handler.rate if handler else None,
        "isolation": terms.isolation if terms else None,
        "timeout": terms.timeout if terms else None,
        "memory_mib": terms.memory_mib if terms and terms.isolation == "process" else None,
        "summary": handler.summary if handler else "",
        "source_location": handler.source_location if handler else "",
        "backlog": asdict(status.backlog),
        "dismissed_events": status.dismissed.events if status.dismissed else 0,
        "reroute_command": reroute_command(status.id, status.dismissed) if status.dismissed else "",
        "paused_at": to_text(status.paused_at),
        "paused_by": status.paused_by,
        "pause_note": status.pause_note,
        "circuit_reason": status.circuit.reason if status.circuit else None,
        "circuit_retry_at": to_text(status.circuit.retry_at if status.circuit else None),
        "damaged": status.damage,
    }


def _selectors(selectors: Selectors) -> dict[str, Any]:
    # The format number is internal to the ledger.
    return {name: value for name, value in selectors.to_json().items() if name != "format"}
