"""The type of the fixture `flowhooks_app`."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.testing.app import AppHarness


class AppFactory(Protocol):
    """The fixture `flowhooks_app`: a function that makes an `AppHarness` with the fixture's clock and a new folder."""

    def __call__(
        self,
        *plugins: object,
        names: Mapping[str, object] = MappingProxyType({}),
        settings: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        sources: Sequence[str] = (),
        database: str = "",
        receivers: Mapping[str, str] = MappingProxyType({}),
    ) -> AppHarness:
        """Make an app. The arguments are those of `AppHarness`."""
