"""Schemas that apply to one plugin only: to its settings, and to the data of the events of its own deliveries.

Two plugins may require different data for one class. So these schemas never join the schemas in force, which they may
refer to.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flowhooks import messages
from flowhooks.errors import SettingsError
from flowhooks.schema import files
from flowhooks.schema.schemas import MAX_SHOWN_VIOLATIONS, MAX_VIOLATIONS, Schemas, build_validators
from flowhooks.schema.violations import MAX_ALLOWED_CHARS, Violation, violations
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from flowhooks.schema.fast_path import FastPathValidator

_SETTING_MESSAGES: Final[Mapping[str, str]] = {
    "schema.required": "must have {name}",
    "schema.dependentRequired": "must have {name} too, because it has {given}",
    "schema.nothing": "is not a setting",
}
"""Messages that differ for settings: a settings file has no null, and its members are called settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSchemas:
    """Schemas of a plugin's own settings and of the data that its handlers accept.

    Created by `load_plugin_schemas`.

    Attributes:
        classes: values of `callBackProcessClass` that have a schema, sorted.
        keys: values of `processDefinitionKey` that have a schema, sorted.
    """

    classes: tuple[str, ...]
    keys: tuple[str, ...]
    _validators: Mapping[str, FastPathValidator]
    _setting_names: tuple[str, ...]

    @property
    def has_settings_schema(self) -> bool:
        """Whether there is a schema of the plugin's settings."""
        return files.SETTINGS_FILE in self._validators

    @property
    def has_data_schemas(self) -> bool:
        """Whether there is a schema of any event's data."""
        return bool(self.classes or self.keys)

    def settings_violations(self, section: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
        """Return the violations of the plugin's section: each location with a sentence that never repeats the value.

        Returns:
            The first 20 violations; empty if there is no such schema.
        """
        validator = self._validators.get(files.SETTINGS_FILE)
        if validator is None:
            return []
        try:
            violations_found = _find_violations([validator], section)
        except Exception:  # noqa: BLE001 (jsonschema's own limits, such as of nesting and of huge numbers)
            return [((), f"could not be checked against {files.SETTINGS_FILE}")]
        return [
            (violation.path, self._setting_message(violation)) for violation in violations_found[:MAX_SHOWN_VIOLATIONS]
        ]

    def _setting_message(self, violation: Violation) -> str:
        params = dict(violation.params)
        if violation.key not in _SETTING_MESSAGES:
            return messages.text(violation.key, "en", **params)
        message = _SETTING_MESSAGES[violation.key].format_map(params)
        if violation.key == "schema.nothing" and len(violation.path) == 1 and self._setting_names:
            message += f"; the settings are {escape_control(', '.join(self._setting_names), MAX_ALLOWED_CHARS)}"
        return message

    def why_data_invalid(
        self, data: Mapping[str, Any], *, callback_class: str | None, process_key: str | None
    ) -> str | None:
        """Return why an event's data violates the plugin's schemas; None if it is valid.

        Args:
            data: the whole body.
            callback_class: `callBackProcessClass` of the event.
            process_key: `processDefinitionKey` of the event.

        Returns:
            The first 20 violations of each schema on one line, each with its JSON Pointer, never the value.
        """
        problems: list[str] = []
        for folder, value, known in (
            (files.CLASS_FOLDER, callback_class, self.classes),
            (files.KEY_FOLDER, process_key, self.keys),
        ):
            if value is not None and value in known:
                problems += _data_violations(self._validators[f"{folder}{value}{files.SUFFIX}"], folder + value, data)
        return "; ".join(problems) or None


def _data_violations(validator: FastPathValidator, name: str, data: Mapping[str, Any]) -> Iterator[str]:
    file = escape_control(f"{name}{files.SUFFIX}", MAX_ALLOWED_CHARS)
    try:
        violations_found = _find_violations([validator], data)
    except Exception:  # noqa: BLE001 (as for settings)
        yield f"the data could not be checked against {file}"
        return
    if violations_found:
        clauses = (
            f"{violation.pointer or '/'}: {messages.text(violation.key, 'en', **dict(violation.params))}"
            for violation in violations_found[:MAX_SHOWN_VIOLATIONS]
        )
        more = (
            ""
            if len(violations_found) <= MAX_SHOWN_VIOLATIONS
            else f" (the first {MAX_SHOWN_VIOLATIONS} of {_count_text(len(violations_found))} violations)"
        )
        yield f"the data does not match {file}{more}: {'; '.join(clauses)}"


def _count_text(count: int) -> str:
    return f"more than {MAX_VIOLATIONS}" if count > MAX_VIOLATIONS else str(count)


def _find_violations(checks: Sequence[FastPathValidator], value: Any) -> list[Violation]:
    # The validators first answer yes or no, which is much faster than a list.
    if all(check.is_valid(value) for check in checks):
        return []
    return violations(value, chain.from_iterable(check.iter_errors(value) for check in checks), MAX_VIOLATIONS + 1)


def load_plugin_schemas(schemas: Schemas, folders: Sequence[Path]) -> tuple[Schemas, PluginSchemas]:
    """Load a plugin's schema folders.

    Args:
        schemas: the schemas in force.
        folders: folders structured like `schemas/`, which may also have `settings.schema.json` and `data/` for the
            plugin itself.

    Returns:
        The schemas in force with those that the folders add, and the schemas of the plugin itself.

    Raises:
        SettingsError: a folder or file cannot be used; one line that names it.
    """
    own: dict[str, files.Document] = {}
    for folder in folders:
        shared = {}
        for name, document in files.read_folder(folder).items():
            if not files.is_plugin_only(name):
                shared[name] = document
            elif own.setdefault(name, document) != document:
                raise SettingsError(f"schema file {folder / name}: another folder of the plugin already has this file")
        schemas = schemas.with_documents(shared, folder)
    return schemas, _plugin_schemas(schemas, own)


def _plugin_schemas(schemas: Schemas, own: dict[str, files.Document]) -> PluginSchemas:
    checks = build_validators({**schemas.documents, **own}) if own else {}
    return PluginSchemas(
        classes=tuple(sorted(files.names_in(own, files.CLASS_FOLDER))),
        keys=tuple(sorted(files.names_in(own, files.KEY_FOLDER))),
        _validators=MappingProxyType({name: checks[name] for name in own}),
        _setting_names=tuple(own.get(files.SETTINGS_FILE, {}).get("properties", ())),
    )
