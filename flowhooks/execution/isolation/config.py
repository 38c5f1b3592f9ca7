"""The configuration of the fork server, so that it loads the same plugins as the server.

It is sent through a socket. Other users of the machine could read command-line arguments and the environment.
"""

from __future__ import annotations

import logging
import os
import pickle
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import flowhooks
from flowhooks.plugins.plugins import Plugins
from flowhooks.schema.schemas import Schemas

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from flowhooks.settings import Settings

_LENGTH: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkServerConfig:
    """The configuration of the fork server.

    Attributes:
        path: the server's `sys.path`.
        dirs: the directories of single-file plugins.
        allow: names of the only plugins that are loaded; empty: all.
        deny: names of plugins that are not loaded.
        safe_mode: whether no plugin is loaded.
        sections: the settings' sections `[plugins.NAME]`, without secrets: the fork server reads these itself.
        schemas_dir: the directory of schema files; `""`: none.
        cores: the CPU cores that handlers may use; empty: any.
        level: the lowest log level that is logged.
        version: the server's version of flowhooks; the installed one may have been upgraded since the server started.
    """

    path: tuple[str, ...]
    dirs: tuple[Path, ...]
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    safe_mode: bool
    sections: Mapping[str, Mapping[str, Any]] = field(repr=False)
    schemas_dir: str
    cores: frozenset[int]
    level: int
    version: str = flowhooks.__version__

    @classmethod
    def from_settings(cls, settings: Settings, cores: frozenset[int] = frozenset()) -> Self:
        """Create the configuration that loads the same plugins as `settings` do in this process."""
        return cls(
            path=tuple(sys.path),
            dirs=tuple(map(Path, settings.plugins_dirs)),
            allow=settings.plugins_allow,
            deny=settings.plugins_deny,
            safe_mode=settings.safe_mode,
            sections={name: dict(section) for name, section in settings.plugins.items()},
            schemas_dir=settings.schemas_dir,
            cores=cores,
            level=logging.getLogger().level,
        )

    def send(self, stream: socket.socket) -> None:
        """Send the configuration to the fork server."""
        # Pickle, because settings may contain dates. The fork server trusts the server.
        body = pickle.dumps(self)
        stream.sendall(_LENGTH.pack(len(body)) + body)

    @classmethod
    def receive(cls, stream: socket.socket) -> Self:
        """Receive the configuration from the server.

        Raises:
            EOFError: the connection was closed first.
        """
        (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
        config: Self = pickle.loads(_exactly(stream, length))  # noqa: S301 (from the server that has started this process)
        return config

    def load(self) -> Plugins:
        """Load the plugins.

        Raises:
            SettingsError: a directory or schema file cannot be used.
        """
        return Plugins.load(
            dirs=self.dirs,
            allow=self.allow,
            deny=self.deny,
            safe_mode=self.safe_mode,
            sections=self.sections,
            schemas=Schemas.load([Path(self.schemas_dir)] if self.schemas_dir else []),
            environ=os.environ,
        )


def _exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data
