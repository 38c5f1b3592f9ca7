"""The settings as the reference lists them, in the order of a settings file."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.settings.access import RoleSettings
from flowhooks.settings.alerts import AlertRoute
from flowhooks.settings.definitions import Settings, iter_settings, variable
from flowhooks.settings.engine import EngineSettings
from flowhooks.settings.ingress import IngressSettings
from flowhooks.settings.named_sections import HandlerSettings, OperatorSettings, Source
from flowhooks.settings.signature import SignatureSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field


class SettingReference(NamedTuple):
    """A setting as listed in the reference.

    Attributes:
        name: dotted name; NAME is a part chosen by the user.
        type: allowed values, in words.
        default: default as written in TOML; `""` if there is none.
        variable: environment variable; `""` if only the file can set it.
        doc: description, one line.
    """

    name: str
    type: str
    default: str
    variable: str
    doc: str


USER_NAMED: Final[Mapping[str, type]] = {
    "alerts.routes.NAME": AlertRoute,
    "sources.NAME": Source,
    "sources.NAME.engine": EngineSettings,
    "sources.NAME.ingress": IngressSettings,
    "sources.NAME.signature": SignatureSettings,
    "operators.NAME": OperatorSettings,
    "roles.NAME": RoleSettings,
    'handlers."PLUGIN:NAME"': HandlerSettings,
}
"""The sections with names that the user chooses."""


def describe() -> Iterator[SettingReference]:
    """Yield all settings in the order of a settings file."""
    for name, spec in iter_settings():
        yield _reference(name, spec, variable(name))
    for section, kind in USER_NAMED.items():
        for spec in fields(kind):
            if "kind" in spec.metadata:
                yield _reference(f"{section}.{spec.name}", spec, "")
    whole = next(spec for spec in fields(Settings) if spec.name == "plugins")
    yield SettingReference(
        "plugins.NAME", "a section of any shape, at most 64 levels deep", "", "", whole.metadata["doc"]
    )


def _reference(name: str, spec: Field[Any], variable: str) -> SettingReference:
    default = "" if spec.default in (MISSING, None) else json.dumps(spec.default)
    return SettingReference(name, spec.metadata["kind"].allowed, default, variable, spec.metadata["doc"])
