"""Options that several commands share, and the settings that come of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from flowhooks.errors import SettingsError
from flowhooks.settings import default_file, load
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.settings import Settings

MAX_PATH_CHARS: Final = 200
"""Characters of a path that an error repeats."""


def utf8(value: str) -> str:
    """The type of an option or argument that is text; what the shell passes on may be any bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8") from None
    return value


def read_file(file: Path, name: str = "file") -> bytes:
    """What is in a file that an option names.

    Args:
        file: the file.
        name: what an error calls it.

    Raises:
        SettingsError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", error)
        raise SettingsError(f"the {name} {escape_control(str(file), MAX_PATH_CHARS)} cannot be read: {why}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSource:
    """Where the settings are to come from, as a command was told.

    Attributes:
        config: the file, or None for the usual one.
        options: values by the setting's name; None means not given.
    """

    config: Path | None
    options: Mapping[str, Any]

    @property
    def arguments(self) -> list[str]:
        """The options that were given, as another command takes them, so that it comes to the same settings."""
        words = [] if self.config is None else [f"--config={self.config}"]
        if (database := self.options["database"]) is not None:
            words.append(f"--database={database}")
        return words + [f"--plugins-dir={folder}" for folder in self.options["plugins_dirs"] or ()]

    def pin(self) -> Self:
        """The same, from the file that is there now: gone later, it is missed, not taken for one that never was."""
        return self if self.config is not None else replace(self, config=default_file(os.environ))

    def load(self) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: something cannot be used; every problem that there is, one a line.
        """
        return load(self.config, os.environ, self.options)


def settings_source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config`, `--database` and `--plugins-dir`; pass it a `SettingsSource` first."""

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
        setting_options = {name: kwargs.pop(name) for name in tuple(kwargs) if name in _SETTINGS}
        options = {"database": database, "plugins_dirs": list(plugins_dirs) or None, **setting_options}
        return function(SettingsSource(config=config, options=options), *args, **kwargs)

    return wrapped


def settings_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of `settings_source_options`, and hand it the settings as its first argument."""

    @settings_source_options
    @wraps(function)
    def wrapped(settings_source: SettingsSource, *args: Any, **kwargs: Any) -> Any:
        return function(settings_source.load(), *args, **kwargs)

    return wrapped


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--json`, as its argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(function)


_SETTINGS = frozenset({"listen", "admin", "insecure", "processes"})
"""Options of single commands that are settings under the same name."""
