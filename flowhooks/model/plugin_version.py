"""The version of a plugin that a process has loaded, as stored with each attempt."""

from __future__ import annotations

from typing import Final, NamedTuple

_SHORT_DIGEST: Final = 16


class PluginVersion(NamedTuple):
    """The version of a plugin, and the digest of its files.

    Attributes:
        version: the plugin's version; `""` if it has none.
        digest: SHA-256 of the plugin's files; `""` if it has none.
    """

    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.version} {self.digest[:_SHORT_DIGEST]}".strip()


UNKNOWN_VERSION: Final = PluginVersion("", "")
"""Of a handler that is not loaded."""
