"""Make the relative paths of settings absolute before plugins are loaded, which may change the working folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowhooks.errors import SettingsError
from flowhooks.settings.addresses import resolve_database
from flowhooks.settings.secrets import secret_reference

if TYPE_CHECKING:
    from flowhooks.settings.definitions import Settings
    from flowhooks.settings.named_sections import Source
    from flowhooks.settings.signing_keys import Secret


def absolute(path: str | Path, folder: Path | None) -> Path:
    """Return a path that starts at a folder; an absolute path is returned as it is.

    Args:
        path: the path.
        folder: the folder; None if the working folder cannot be used.

    Raises:
        SettingsError: the path is relative, and there is no folder.
    """
    if folder is None and not Path(path).is_absolute():
        raise SettingsError(
            "the working folder cannot be used: it was removed, or this user may not enter it; start flowhooks in "
            "another folder, or use absolute paths only"
        )
    return (folder or Path()) / path


def resolve_paths(settings: Settings, folder: Path | None) -> Settings:
    """Return the settings with absolute paths only.

    Args:
        settings: settings that were loaded.
        folder: as for `absolute`.

    Raises:
        SettingsError: as with `absolute`.
    """

    def file(name: str) -> str:
        try:
            return str(absolute(Path(name).expanduser(), folder)) if name else ""
        except RuntimeError:  # there is no home folder, which reading the file reports
            return name

    def secret(location: Secret) -> Secret:
        return replace(location, file=file(location.file))

    def source(values: Source) -> Source:
        engine = values.engine and replace(
            values.engine,
            password=values.engine.password and secret(values.engine.password),
            token=values.engine.token and secret(values.engine.token),
        )
        secrets = tuple(map(secret, values.secrets))
        return replace(values, token_file=file(values.token_file), secrets=secrets, engine=engine)

    def references(value: Any) -> Any:
        if isinstance(value, list):
            return [references(item) for item in value]
        if not isinstance(value, dict):
            return value
        how, name = secret_reference(value) or ("", "")
        return {"file": file(name)} if how == "file" else section(value)

    def section(values: dict[str, Any]) -> dict[str, Any]:
        return {key: references(value) for key, value in values.items()}

    return replace(
        settings,
        database=resolve_database(settings.database, file),
        plugins_dirs=tuple(map(file, settings.plugins_dirs)),
        schemas_dir=file(settings.schemas_dir),
        sources={name: source(values) for name, values in settings.sources.items()},
        operators={
            name: replace(values, token_file=file(values.token_file)) for name, values in settings.operators.items()
        },
        plugins={name: section(dict(values)) for name, values in settings.plugins.items()},
    )
