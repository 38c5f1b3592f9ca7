"""A source whose engine reports no instances, so that only a test takes instances in. No tests of its own."""

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
        """Return a product."""
        return EngineInfo(product="Silent")

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return an empty page."""
        del since, until, cursor
        return FinishedPage(instances=())

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Report that every instance is running."""
        del instance_id
        return InstanceStatus.RUNNING

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return no definitions."""
        return ()

    def close(self) -> None:
        """Do nothing."""


def silent_source(**options: Any) -> Source:
    """Make a source with a `SilentClient`, whose history flowhooks reads."""
    engine = EngineSettings(client="silent", url="http://engine.invalid", reconcile_every=86_400.0)
    return Source(**{"token_sha256": _TOKEN, "engine": engine} | options)


def with_silent_engine(*handlers: Handler, **options: Any) -> dict[str, Any]:
    """Return arguments for `LedgerHarness.open`: these handlers, and the source `oa` with a `SilentClient`."""
    return {
        "plugins": {"p": plugin(*handlers, engine_clients=lambda: {"silent": SilentClient})},
        "sources": {"oa": silent_source(**options)},
    }
