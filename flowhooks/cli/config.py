"""`flowhooks config show`: print the settings in force, and where each value comes from."""

from __future__ import annotations

import json
import os
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_source_options
from flowhooks.ledger import database
from flowhooks.settings import Secret, database_url, default_file
from flowhooks.settings.origins import settings_in_force
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from flowhooks.cli.options import SettingsSource
    from flowhooks.settings.origins import SettingInForce


@click.group("config", short_help="Show the settings in force.")
def command() -> None:
    """Show the settings in force. These commands do not change them."""


@command.command("show", short_help="Show each setting and where its value comes from.")
@click.option("--all", "show_all", is_flag=True, help="Show settings that have their default, too.")
@json_option
@settings_source_options
def show_command(settings_source: SettingsSource, *, show_all: bool, as_json: bool) -> None:
    r"""Show the settings that a command started here would use, and where each value comes from.

    Settings come from flowhooks.toml, then from FLOWHOOKS_... variables, then from options; later ones win. Values that
    may be secrets are hidden, and so are all values of plugins except the location of a secret. A running server may
    have been started with other settings.

    \b
    Examples:
      flowhooks config show
      flowhooks config show --all
      flowhooks config show --config /etc/flowhooks/flowhooks.toml --json

    Exit codes: 0 done, 2 wrong usage, or the settings cannot be used.
    """
    settings = settings_source.load()
    shown_database = database.display_name(database_url(settings))
    found = [
        (setting, shown_database if setting.name == "database" else _plain(setting.value))
        for setting in settings_in_force(settings, settings_source.config, os.environ, settings_source.options)
        if show_all or as_json or setting.origin != "default"
    ]
    path = settings_source.config or default_file(os.environ)
    if as_json:
        document = {
            "file": None if path is None else str(path),
            "settings": [_to_json(setting, value) for setting, value in found],
        }
        output.print_json(document)
        return
    output.print_line(f"Settings file: {path or 'none'}")
    if not found:
        output.print_line("All settings have their defaults; --all shows them.")
        return
    output.print_line()
    output.print_table(
        ("setting", "value", "from"),
        [
            (escape_control(setting.name), escape_control(_text(value)), setting.location or setting.origin)
            for setting, value in found
        ],
        free_text=("value",),
    )


def _to_json(setting: SettingInForce, value: Any) -> dict[str, Any]:
    return {"name": setting.name, "value": value, "origin": setting.origin, "location": setting.location}


def _plain(value: Any) -> Any:
    """Return a value as JSON; of a secret only its location."""
    if isinstance(value, Secret):
        return {"file": value.file} if value.file else {"env": value.env}
    if is_dataclass(value):
        names = value.__dataclass_fields__
        return {name: _plain(getattr(value, name)) for name in names if getattr(value, name) is not None}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "items"):
        return {key: _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)
