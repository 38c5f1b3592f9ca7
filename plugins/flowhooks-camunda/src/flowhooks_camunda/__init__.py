"""The engine client `camunda`: reads finished process instances of Camunda 7, Operaton and CIB seven by REST.

A source selects it in its settings with `[sources.NAME.engine] client = "camunda"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks import hookimpl
from flowhooks_camunda.client import CamundaClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks import EngineClient, EngineConfig


@hookimpl
def engine_clients() -> Mapping[str, Callable[[EngineConfig], EngineClient]]:
    """Register the client under the name `camunda`."""
    return {"camunda": CamundaClient}
