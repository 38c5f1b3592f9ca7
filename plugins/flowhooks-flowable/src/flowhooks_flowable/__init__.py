"""The engine client `flowable`: reads how process instances of Flowable 6.3 or later ended, by REST."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks import hookimpl
from flowhooks_flowable.client import FlowableClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks import EngineClient, EngineConfig


@hookimpl
def engine_clients() -> Mapping[str, Callable[[EngineConfig], EngineClient]]:
    """Register the client for `[sources.NAME.engine] client = "flowable"`."""
    return {"flowable": FlowableClient}
