"""Detect by the content of its source file whether the code of a handler has changed."""

from __future__ import annotations

import hashlib
from inspect import unwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.model.handler import Handler


def plugin_versions(handlers: Mapping[str, Handler], version: Callable[[str], str]) -> dict[str, str]:
    """Return the plugin version of each handler, followed by the digest of its function's source file, by handler id.

    Args:
        handlers: loaded handlers, by id.
        version: returns the version of a plugin by its name.
    """
    return {
        handler_id: f"{version(handlers[handler_id].plugin)} {digest}".strip()
        for handler_id, digest in source_digests(handlers).items()
    }


def source_digests(handlers: Mapping[str, Handler]) -> dict[str, str]:
    """Return the digest of the current source file of each handler's function, by handler id; `""` if there is no file.

    Args:
        handlers: loaded handlers, by id.
    """
    digests: dict[str, str] = {}
    by_handler = {}
    for handler_id, handler in handlers.items():
        code = getattr(unwrap(handler.function), "__code__", None)
        name = code.co_filename if code else ""
        if name not in digests:
            digests[name] = _digest(name)
        by_handler[handler_id] = digests[name]
    return by_handler


def _digest(name: str) -> str:
    try:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    except (OSError, ValueError):  # code without a file, or from an archive
        return ""
