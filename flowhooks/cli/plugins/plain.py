"""Plugins and their handlers as JSON has them; it must not know where they come from."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flowhooks.clock import to_text

if TYPE_CHECKING:
    from flowhooks.operations.survey import Listed, Surveyed


def plugin_to_json(one: Surveyed) -> dict[str, Any]:
    """One plugin, with everything but what is for its author alone."""
    info = one.info
    return {
        "name": one.name,
        "version": info.version if info else "",
        "package": info.distribution if info else "",
        "origin": info.origin if info else "",
        "state": one.state,
        "error": info.error if info else "",
        "hooks": list(info.hooks) if info else [],
        "handlers": [handler_to_json(handler) for handler in one.handlers],
    }


def handler_to_json(one: Listed) -> dict[str, Any]:
    """One handler, with what is stored for it."""
    handler = one.handler
    return {
        "id": one.id,
        "standing": one.standing,
        "paused_since": None if one.paused_at is None else to_text(one.paused_at),
        "listens": one.selectors.to_json() if one.selectors else None,
        "retry": asdict(handler.retry) if handler and handler.retry else None,
        "probe": bool(handler and handler.probe),
        "order_by": handler.order_by if handler else None,
        "concurrency": handler.concurrency if handler else None,
        "summary": handler.summary if handler else "",
        "where": handler.where if handler else "",
        "backlog": asdict(one.backlog),
    }
