"""The settings: what there is to set, its defaults, and how it is read; it must not know who uses it.

tree      the settings themselves, one frozen dataclass for each section
named     the sections that the user names: sources, operators, handlers
single    how one setting is declared
loading   defaults < flowhooks.toml < environment < options
changing  what a running process goes by anew, and what only the next one does
kinds     what one setting may be, and how its text is read
places    addresses to listen on, and where the database lies
secrets   what a plugin's section takes from the environment and from files
signing   where the secrets are with which engines sign
tokens    bearer tokens, and those of operators
known     what sources are known by, read from where it is
"""

from __future__ import annotations

from flowhooks.settings.addresses import host_and_port, is_loopback
from flowhooks.settings.credentials import Key, Known, check_sources, known_sources
from flowhooks.settings.loading import load, usual_file
from flowhooks.settings.model import (
    AlertsSettings,
    Described,
    HttpSettings,
    IdentitySettings,
    IgnoreSettings,
    LedgerSettings,
    LogSettings,
    RetentionSettings,
    RoutingSettings,
    RunnerSettings,
    Settings,
    ShutdownSettings,
    check_binds,
    check_processes,
    check_removed,
    database_url,
    describe,
)
from flowhooks.settings.reload import Change, change, live
from flowhooks.settings.sections import HandlerSettings, Network, OperatorSettings, Source
from flowhooks.settings.signing_keys import Secret
from flowhooks.settings.tokens import check_operators, operator_tokens

__all__ = [
    "AlertsSettings",
    "Change",
    "Described",
    "HandlerSettings",
    "HttpSettings",
    "IdentitySettings",
    "IgnoreSettings",
    "Key",
    "Known",
    "LedgerSettings",
    "LogSettings",
    "Network",
    "OperatorSettings",
    "RetentionSettings",
    "RoutingSettings",
    "RunnerSettings",
    "Secret",
    "Settings",
    "ShutdownSettings",
    "Source",
    "change",
    "check_binds",
    "check_operators",
    "check_processes",
    "check_removed",
    "check_sources",
    "database_url",
    "describe",
    "host_and_port",
    "is_loopback",
    "known_sources",
    "live",
    "load",
    "operator_tokens",
    "usual_file",
]
