"""`flowhooks init`: write a settings file in which every setting is explained."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.errors import SettingsError
from flowhooks.settings import describe
from flowhooks.settings.loading import DEFAULT_FILE
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.settings import SettingReference

_WIDTH = 100
_INTRODUCTION = """\
# Settings of flowhooks. Each setting is explained and has its default: remove the "# " before a
# setting to change it. Environment variables such as FLOWHOOKS_HTTP_THREADS and options of commands
# go before this file. `flowhooks config show` prints what is in force; `flowhooks check` finds
# mistakes. Secrets do not belong into this file: name a file or a variable that holds them."""


@click.command("init", short_help="Write a commented settings file.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), default=DEFAULT_FILE)
def command(*, file: Path) -> None:
    r"""Write a settings file in which every setting is explained and has its default.

    FILE is ./flowhooks.toml by default. An existing file is never changed. The file is valid as it is written: a server
    that reads it behaves as without it.

    \b
    Examples:
      flowhooks init
      flowhooks init /etc/flowhooks/flowhooks.toml

    Exit codes: 0 done, 2 the file exists or cannot be written.
    """
    shown = escape_control(str(file))
    try:
        written = file.open("x", encoding="utf-8")
    except FileExistsError:
        raise SettingsError(f"{shown} exists already and was not changed; give another FILE") from None
    except OSError as error:
        raise _not_written(shown, error) from None
    try:
        with written:
            written.write(template())
    except OSError as error:
        file.unlink(missing_ok=True)
        raise _not_written(shown, error) from None
    output.print_line(f"{file} is written. Next: read it, then start `flowhooks serve`.")


def _not_written(file: str, error: OSError) -> SettingsError:
    return SettingsError(f"{file} cannot be written: {error.strerror}")


def template() -> str:
    """Return the settings file with all settings as comments."""
    return "\n".join([_INTRODUCTION, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    section = ""
    for setting in describe():
        *parents, key = setting.name.rsplit(".", 1)
        named = parents[0] if parents else ""
        if setting.name == "plugins.NAME":
            named, key = setting.name, ""
        if named != section:
            section = named
            # A header with a name that the user chooses is a comment, too.
            header = f"[{section}]"
            yield ""
            yield f"# {header}" if "NAME" in section else header
        yield ""
        yield from textwrap.wrap(
            _explain(setting), _WIDTH, initial_indent="## ", subsequent_indent="## ", break_long_words=False
        )
        if key:
            yield f"# {key} = {setting.default}" if setting.default else f"# {key} ="


def _explain(setting: SettingReference) -> str:
    allowed = f" Must be {setting.type}." if setting.type else ""
    return f"{setting.doc}{allowed}"
