"""The settings: what there is to set, its defaults, and how it is read.

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
from flowhooks.settings.credentials import SigningKey, SourceCredentials, check_sources, load_source_credentials
from flowhooks.settings.loading import default_file, load
from flowhooks.settings.model import (
    AlertsSettings,
    CircuitBreakerSettings,
    HttpSettings,
    IdentitySettings,
    LedgerSettings,
    LogSettings,
    RetentionSettings,
    RoutingSettings,
    RunnerSettings,
    SettingReference,
    Settings,
    ShutdownSettings,
    check_binds,
    check_processes,
    check_removed,
    database_url,
    describe,
)
from flowhooks.settings.reload import SettingsDiff, diff, live_names
from flowhooks.settings.sections import HandlerSettings, Network, OperatorSettings, Source
from flowhooks.settings.signing_keys import Secret
from flowhooks.settings.tokens import check_operators, operator_tokens

__all__ = [
    "AlertsSettings",
    "CircuitBreakerSettings",
    "HandlerSettings",
    "HttpSettings",
    "IdentitySettings",
    "LedgerSettings",
    "LogSettings",
    "Network",
    "OperatorSettings",
    "RetentionSettings",
    "RoutingSettings",
    "RunnerSettings",
    "Secret",
    "SettingReference",
    "Settings",
    "SettingsDiff",
    "ShutdownSettings",
    "SigningKey",
    "Source",
    "SourceCredentials",
    "check_binds",
    "check_operators",
    "check_processes",
    "check_removed",
    "check_sources",
    "database_url",
    "default_file",
    "describe",
    "diff",
    "host_and_port",
    "is_loopback",
    "live_names",
    "load",
    "load_source_credentials",
    "operator_tokens",
]
