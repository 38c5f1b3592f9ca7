"""The configuration that changes while a server runs: the live settings, and which handlers are registered."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flowhooks.intake.config import IntakeConfig
from flowhooks.operations.lookup import build_router

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flowhooks.ledger.handlers import RegisteredHandler
    from flowhooks.model.handler import Handler
    from flowhooks.settings import Settings


class LiveConfig:
    """Replaces the configuration as a whole, so that a callback never uses a mixture of two.

    Args:
        settings: the settings.
        loaded: the loaded handlers.
        missing: registered handlers that this process has not loaded.
        suspended: ids of handlers whose deliveries are suspended.

    Attributes:
        current: the configuration for new callbacks and operations.
    """

    def __init__(
        self,
        settings: Settings,
        loaded: Collection[Handler],
        missing: Sequence[RegisteredHandler],
        suspended: frozenset[str],
    ) -> None:
        self._loaded = loaded
        self._missing = missing
        self._lock = threading.Lock()
        self._listeners: list[Callable[[IntakeConfig], None]] = []
        router = build_router(loaded, missing, settings.routing.ignore_process_keys)
        self.current = IntakeConfig(settings=settings, router=router, missing_handlers=suspended)

    def subscribe(self, listener: Callable[[IntakeConfig], None]) -> None:
        """Call `listener` with each later configuration."""
        self._listeners.append(listener)

    def change_settings(self, settings: Settings) -> bool:
        """Use other settings; return whether parked events may have to be routed again."""
        with self._lock:
            current = self.current
            keys = settings.routing.ignore_process_keys
            is_changed = keys != current.settings.routing.ignore_process_keys
            router = build_router(self._loaded, self._missing, keys) if is_changed else current.router
            self._replace(IntakeConfig(settings=settings, router=router, missing_handlers=current.missing_handlers))
        return is_changed

    def change_missing(self, missing: Sequence[RegisteredHandler], suspended: frozenset[str]) -> None:
        """Use other registered handlers, after another process has registered or retired some."""
        with self._lock:
            self._missing = missing
            settings = self.current.settings
            router = build_router(self._loaded, missing, settings.routing.ignore_process_keys)
            self._replace(IntakeConfig(settings=settings, router=router, missing_handlers=suspended))

    def _replace(self, config: IntakeConfig) -> None:
        for listener in self._listeners:
            listener(config)
        self.current = config  # last, so that callbacks are routed as its readers expect
