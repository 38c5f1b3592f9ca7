"""A source whose engine tells of no instances, so that only a test takes instances in. No tests of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.model.engine import EngineInfo, FinishedInstance, FinishedPage, InstanceStatus, ProcessDefinition
from flowhooks.settings import Source
from flowhooks.settings.engine import EngineSettings
from support.app_harness import plugin

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from flowhooks.model.engine import EngineConfig
    from flowhooks.model.handler import Handler

_TOKEN = ("0" * 64,)


class SilentClient:
    """An engine client without instances."""

    def __init__(self, config: EngineConfig) -> None:
        del config

    def check(self) -> EngineInfo:
        """A product."""
        return EngineInfo(product="Silent")

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Nothing."""
        del since, until, cursor
        return FinishedPage(instances=())

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """No instance ends."""
        del instance_id
        return InstanceStatus.RUNNING

    def definitions(self) -> Sequence[ProcessDefinition]:
        """None."""
        return ()

    def close(self) -> None:
        """Do nothing."""


def asked_source(**given: Any) -> Source:
    """A source whose engine flowhooks asks."""
    engine = EngineSettings(client="silent", url="http://engine.invalid", reconcile_every=86_400.0)
    return Source(**{"token_sha256": _TOKEN, "engine": engine} | given)


def asked(*handlers: Handler, **given: Any) -> dict[str, Any]:
    """Arguments for `LedgerHarness.open`: these handlers, and the source `oa`, whose engine flowhooks asks."""
    return {
        "plugins": {"p": plugin(*handlers, engine_clients=lambda: {"silent": SilentClient})},
        "sources": {"oa": asked_source(**given)},
    }
