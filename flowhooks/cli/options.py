"""Options that several commands share, and the settings that come of them; it must not know what a command does."""

from __future__ import annotations

import os
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowhooks.settings import load

if TYPE_CHECKING:
    from collections.abc import Callable


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config`, `--database` and `--plugins-dir`, and hand it the settings as its first argument.

    Options of the command itself that are named in `setting_names` of its context object are settings too.
    """

    @click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Read settings from FILE [default: ./flowhooks.toml, if there is one].",
    )
    @click.option("--database", metavar="PATH", help="The ledger's file [default: flowhooks.db].")
    @click.option(
        "--plugins-dir",
        "plugins_dirs",
        multiple=True,
        metavar="DIR",
        help="Also load the single-file plugins in DIR; may be given several times.",
    )
    @wraps(function)
    def wrapped(
        *args: Any, config: Path | None, database: str | None, plugins_dirs: tuple[str, ...], **kwargs: Any
    ) -> Any:
        own = {name: kwargs.pop(name) for name in tuple(kwargs) if name in _SETTINGS}
        options = {"database": database, "plugins_dirs": list(plugins_dirs) or None, **own}
        return function(load(config, os.environ, options), *args, **kwargs)

    return wrapped


_SETTINGS = frozenset({"listen", "admin", "insecure", "wait"})
"""Options of single commands that are settings under the same name."""
