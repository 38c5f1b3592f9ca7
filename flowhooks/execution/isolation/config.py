"""What the nursery is told at its start, so that it loads what the server has loaded.

It goes through a socket: in arguments and in the environment everybody on the machine could read it.
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
from flowhooks.schema import Schemas

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from flowhooks.settings import Settings

_LENGTH: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkServerConfig:
    """What the nursery is told.

    Attributes:
        path: where modules are imported from.
        dirs: the folders of single-file plugins.
        allow: names of the only plugins that are loaded; empty: all.
        deny: names of plugins that are not loaded.
        safe_mode: whether none is.
        sections: the settings' `[plugins.NAME]`. Their secrets are not in here: the nursery looks them up itself.
        schemas_dir: the folder of schema files; `""`: none.
        cores: the processor cores that handlers may use; empty: no matter.
        level: the least severe level that is logged.
        version: of flowhooks, which may have been upgraded since the server was started.
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
        """What makes a nursery load what this process loads by `settings`."""
        return cls(
            path=tuple(sys.path),
            dirs=tuple(Path(folder).absolute() for folder in settings.plugins_dirs),
            allow=settings.plugins_allow,
            deny=settings.plugins_deny,
            safe_mode=settings.safe_mode,
            sections={name: dict(section) for name, section in settings.plugins.items()},
            schemas_dir=str(Path(settings.schemas_dir).absolute()) if settings.schemas_dir else "",
            cores=cores,
            level=logging.getLogger().level,
        )

    def send(self, stream: socket.socket) -> None:
        """Tell it. Pickled, for settings may hold dates, and it is the server that is believed here."""
        body = pickle.dumps(self)
        stream.sendall(_LENGTH.pack(len(body)) + body)

    @classmethod
    def receive(cls, stream: socket.socket) -> Self:
        """What was told.

        Raises:
            EOFError: nothing was.
        """
        (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
        config: Self = pickle.loads(_exactly(stream, length))  # noqa: S301 (from the server that has started this process)
        return config

    def load(self) -> Plugins:
        """Load the plugins.

        Raises:
            SettingsError: a folder or schema file cannot be used.
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
