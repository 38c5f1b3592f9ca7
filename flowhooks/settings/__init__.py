"""The settings, their defaults, and how they are read.

model         the settings, one frozen dataclass per section
sections      the sections that the user names: sources, operators, handlers
field         declaration of one setting
access        log-in of operators through a proxy, roles, and masking
loading       reads settings: defaults < flowhooks.toml < environment < options
reload        which changed settings a running process applies, and which need a restart
types         value types of settings, and how they are parsed
addresses     listener addresses and the database URL
alerts        the section of alerts, with its routes
engine        the section of a source's engine
ingress       the section of a source's fixed URL
signature     the section of a source's signature, if it is not by Standard Webhooks
engine_checks checks that concern several sources or settings of engines
secrets       secrets of plugins and engines, from the environment or files
signing_keys  locations of the secrets with which engines sign
locations     locations in the settings file, for error messages
paths         makes relative paths absolute
start_checks  checks before a start or a reload
tokens        bearer tokens, in particular of operators
credentials   credentials of sources, read from their locations
"""

from __future__ import annotations

from flowhooks.settings.access import LoginSettings, MaskingSettings, RoleSettings
from flowhooks.settings.addresses import host_and_port, is_loopback
from flowhooks.settings.alerts import AlertRoute, AlertsSettings, routed_notifiers, unknown_notifiers
from flowhooks.settings.credentials import SigningKey, SourceCredentials, check_sources, load_source_credentials
from flowhooks.settings.definitions import (
    CircuitBreakerSettings,
    HttpSettings,
    IdentitySettings,
    LedgerSettings,
    LogSettings,
    RetentionSettings,
    RoutingSettings,
    RunnerSettings,
    SearchSettings,
    Settings,
    ShutdownSettings,
    database_url,
)
from flowhooks.settings.engine import EngineSettings
from flowhooks.settings.ingress import IngressSettings, ValueTable
from flowhooks.settings.ingress_checks import unknown_kinds, unknown_receivers
from flowhooks.settings.loading import default_file, load, origin
from flowhooks.settings.named_sections import HandlerSettings, Network, OperatorSettings, Source
from flowhooks.settings.reference import SettingReference, describe
from flowhooks.settings.reload import SettingsDiff, diff, live_names
from flowhooks.settings.signature import SignatureSettings
from flowhooks.settings.signing_keys import Secret
from flowhooks.settings.start_checks import check_binds, check_processes, check_removed
from flowhooks.settings.tokens import check_operators, operator_tokens

__all__ = [
    "AlertRoute",
    "AlertsSettings",
    "CircuitBreakerSettings",
    "EngineSettings",
    "HandlerSettings",
    "HttpSettings",
    "IdentitySettings",
    "IngressSettings",
    "LedgerSettings",
    "LogSettings",
    "LoginSettings",
    "MaskingSettings",
    "Network",
    "OperatorSettings",
    "RetentionSettings",
    "RoleSettings",
    "RoutingSettings",
    "RunnerSettings",
    "SearchSettings",
    "Secret",
    "SettingReference",
    "Settings",
    "SettingsDiff",
    "ShutdownSettings",
    "SignatureSettings",
    "SigningKey",
    "Source",
    "SourceCredentials",
    "ValueTable",
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
    "origin",
    "routed_notifiers",
    "unknown_kinds",
    "unknown_notifiers",
    "unknown_receivers",
]
