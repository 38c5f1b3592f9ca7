"""Options shared by several commands, and the settings made from them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import click

from flowhooks.errors import SettingsError
from flowhooks.settings import default_file, load, origin
from flowhooks.text import escape_control
from flowhooks.working_folder import WorkingFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.settings import Settings

MAX_PATH_CHARS: Final = 200
"""Maximum length of a path in an error."""


def utf8(value: str) -> str:
    """Check that an option or argument is valid Unicode; the shell can pass any bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8") from None
    return value


def read_file(file: Path, name: str = "file") -> bytes:
    """Return the content of a file that an option names.

    Args:
        file: the file.
        name: name of the file in an error.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        return file.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", error)
        raise SettingsError(f"the {name} {escape_control(str(file), MAX_PATH_CHARS)} cannot be read: {why}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSource:
    """Source of the settings, from a command's options.

    Attributes:
        config: the settings file; None: the default one.
        options: values by setting name; None means not given.
        folder: the folder where relative paths start.
    """

    config: Path | None
    options: Mapping[str, Any]
    folder: WorkingFolder = field(default_factory=WorkingFolder.current)

    @property
    def arguments(self) -> list[str]:
        """The given options as arguments of another command, which then reads the same settings."""
        words = [] if self.config is None else [f"--config={self.config}"]
        if (database := self.options["database"]) is not None:
            words.append(f"--database={database}")
        return words + [f"--plugins-dir={folder}" for folder in self.options["plugins_dirs"] or ()]

    def pin(self) -> Self:
        """Return a copy bound to the current settings file, so that a reload reports the file if it is missing."""
        return self if self.config is not None else replace(self, config=default_file(os.environ, self.folder.path))

    def load(self) -> Settings:
        """Read the settings.

        Raises:
            SettingsError: settings cannot be used; all problems, one per line.
        """
        return load(self.config, os.environ, self.options, self.folder.path)

    def origin(self, name: str) -> str:
        """Return where the value of the setting `name` comes from, for a message."""
        return origin(name, self.config, os.environ, self.options, self.folder.path)


def settings_source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--config`, `--database` and `--plugins-dir` to a command, which receives a `SettingsSource` first."""

    @click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Read settings from FILE [default: ./flowhooks.toml if it exists].",
    )
    @click.option(
        "--database",
        metavar="PATH",
        help="The ledger: the path of a SQLite file, or a PostgreSQL URL [default: flowhooks.db].",
    )
    @click.option(
        "--plugins-dir",
        "plugins_dirs",
        multiple=True,
        metavar="DIR",
        help="Also load the single-file plugins in DIR; may be given more than once.",
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
    """Add the options of `settings_source_options` to a command, which receives the settings first."""

    @settings_source_options
    @wraps(function)
    def wrapped(settings_source: SettingsSource, *args: Any, **kwargs: Any) -> Any:
        return function(settings_source.load(), *args, **kwargs)

    return wrapped


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json` to a command, which receives it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


_SETTINGS = frozenset({"listen", "admin", "insecure", "processes"})
"""Options of single commands that are settings with the same name."""


def page_options(rows: str, row: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--limit` and `--after` to a command that lists rows, newest first.

    Args:
        rows: the noun of the rows, such as `"entries"`.
        row: its singular.
    """
    after = f"Continue after this {row}, towards older ones."

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return limit_option(rows)(click.option("--after", type=utf8, default="", metavar="ID", help=after)(function))

    return decorate


def limit_option(rows: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that adds `--limit` to a command that lists rows."""
    return click.option(
        "--limit",
        type=click.IntRange(1, 1000),
        default=50,
        show_default=True,
        metavar="N",
        help=f"Maximum number of {rows}.",
    )
