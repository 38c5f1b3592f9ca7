"""Wait for files that are saved, for `flowhooks dev`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import SettingsError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Sequence

    Change = tuple[Any, str]

POLL_INTERVAL_MS: Final = 200
"""Milliseconds between two looks at the ledger."""
SUFFIXES: Final = (".json", ".toml")
"""Suffixes of the files whose changes restart the server, beside those of Python."""
DEBOUNCE_MS: Final = 400
"""Milliseconds within which changes of several files cause one restart."""


def import_watcher() -> tuple[Callable[..., Iterator[set[Change]]], Callable[..., bool]]:
    """Return the function that watches paths, and the filter of files that restart the server.

    Raises:
        SettingsError: watchfiles is not installed.
    """
    try:
        from watchfiles import PythonFilter, watch  # noqa: PLC0415 (an extra)
    except ImportError:
        raise SettingsError("flowhooks dev needs watchfiles: pip install 'flowhooks[dev]'") from None
    # Not the ledger and the logs, which may be in the same folder.
    return watch, PythonFilter(extra_extensions=SUFFIXES)


def saved_files(
    watch: Callable[..., Iterator[set[Change]]],
    is_source: Callable[..., bool],
    paths: Sequence[Path],
    stopping: threading.Event,
) -> Iterator[list[str]]:
    """Yield the names of saved files, or an empty list after each poll interval, until shutdown.

    Args:
        watch: watches paths, see `import_watcher`.
        is_source: whether a change in a folder counts.
        paths: the files and folders. Every change of such a file counts.
        stopping: set at shutdown.
    """
    folders = [path for path in paths if path.is_dir()]
    files = {str(path) for path in paths if path not in folders}
    # Most editors put a new file in the place of a saved one, so the folder of a file is watched.
    parents = {Path(file).parent for file in files}
    options = {
        "watch_filter": None,  # with a filter, nothing is yielded while only other files change, such as the ledger
        "debounce": DEBOUNCE_MS,
        "stop_event": stopping,
        "rust_timeout": POLL_INTERVAL_MS // 2,
        "yield_on_timeout": True,
        "raise_interrupt": False,
    }
    watchers = watch(*folders, **options), watch(*parents, recursive=False, **options)
    for in_folders, in_parents in zip(*watchers, strict=False):
        saved = {path for change, path in in_folders if is_source(change, path)}
        saved |= {path for _, path in in_parents if path in files}
        yield sorted({Path(path).name for path in saved})
