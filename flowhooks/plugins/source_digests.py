"""Detect by the content of its source files whether the code of a handler has changed."""

from __future__ import annotations

import hashlib
from functools import cache
from inspect import unwrap
from pathlib import Path
from typing import TYPE_CHECKING

from flowhooks.model.plugin_version import PluginVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.model.handler import Handler


def plugin_versions(handlers: Mapping[str, Handler], version: Callable[[str], str]) -> dict[str, PluginVersion]:
    """Return the version of each handler's plugin with the digest of its source files, by handler id.

    Args:
        handlers: loaded handlers, by id.
        version: returns the version of a plugin by its name.
    """
    return {
        handler_id: PluginVersion(version(handlers[handler_id].plugin), digest)
        for handler_id, digest in source_digests(handlers).items()
    }


def source_digests(handlers: Mapping[str, Handler]) -> dict[str, str]:
    """Return the digest of the current source files of each handler, by handler id; `""` if there is no file.

    The files are all Python files of the package that the handler's function is in, or the function's file if it is in
    no package. The digest of one file is its SHA-256. The digest of a package is the SHA-256 of what `sha256sum` prints
    for its files, with relative paths in bytewise order.

    Args:
        handlers: loaded handlers, by id.
    """
    digest_of = cache(_digest)  # several handlers have the same file
    return {handler_id: digest_of(_file_of(handler)) for handler_id, handler in handlers.items()}


def _file_of(handler: Handler) -> str:
    function = unwrap(handler.function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return code.co_filename if code else ""


def _package_of(file: str) -> Path:
    """Return the folder of the outermost package that a file is in; the file itself if it is in none."""
    path = Path(file)
    # The root and `.` have no name. They are no packages, and each is its own parent.
    while path.parent.name and (path.parent / "__init__.py").is_file():
        path = path.parent
    return path


def _digest(file: str) -> str:
    if not file:
        return ""
    try:
        path = _package_of(file)
        if not path.is_dir():
            return hashlib.sha256(path.read_bytes()).hexdigest()
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*.py")}
        lines = [f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}\n" for name in sorted(files)]
        return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
    except (OSError, ValueError):  # code without a file, or from an archive
        return ""
