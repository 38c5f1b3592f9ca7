"""The configuration for a callback, which changes atomically when settings or plugins change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowhooks.routing.router import Router
    from flowhooks.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """The configuration for a callback, from its credential to its route. One object, so that it changes atomically.

    Attributes:
        settings: the current settings.
        router: selects the handlers of an event.
        missing_handlers: ids of handlers that are missing or retired, so that their deliveries are suspended.
    """

    settings: Settings
    router: Router
    missing_handlers: frozenset[str]
