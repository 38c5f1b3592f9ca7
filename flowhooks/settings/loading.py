"""Read settings from a file, the environment and a command's options."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import SettingsError
from flowhooks.settings import access, ingress, signature
from flowhooks.settings.access import RoleSettings
from flowhooks.settings.alerts import AlertRoute
from flowhooks.settings.definitions import Settings, iter_settings, variable
from flowhooks.settings.engine import EngineSettings
from flowhooks.settings.engine_checks import find_problems
from flowhooks.settings.ingress import IngressSettings
from flowhooks.settings.locations import Locations
from flowhooks.settings.named_sections import HandlerSettings, OperatorSettings, Source
from flowhooks.settings.paths import absolute, resolve_paths
from flowhooks.settings.secrets import secret_variables
from flowhooks.settings.signature import SignatureSettings
from flowhooks.settings.types import NAME, SettingType, did_you_mean, format_line, format_value

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

DEFAULT_FILE: Final = "flowhooks.toml"
ENV_PREFIX: Final = "FLOWHOOKS_"

_TYPES: Final[Mapping[str, SettingType]] = {name: field.metadata["kind"] for name, field in iter_settings()}
_SECTIONS: Final = frozenset(name.partition(".")[0] for name in _TYPES if "." in name)
_NAMED_SECTIONS: Final = ("sources", "operators", "roles", "handlers", "plugins")
"""Sections that contain sections named by the user. They can only be set in the file."""
_VARIABLES: Final = {variable(name): name for name in _TYPES}
_NOT_SETTINGS: Final = re.compile(r"FLOWHOOKS_(CONFIG|FAILPOINT|SUPERVISOR_FD|SECRET|TOKEN|TEST_.*)", re.DOTALL)
"""Environment variables of flowhooks that are not settings: the path of the settings file, the file descriptor of the
link to the supervisor, a token or secret to send with, and variables of the project's own tests.
"""
_SERVICE_LINKS: Final = re.compile(
    r"FLOWHOOKS_(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=[0-9]+|"
    r"PORT(_[0-9]+_[A-Z]+)?=(tcp|udp|sctp)://.*|PORT_[0-9]+_[A-Z]+_(PROTO|PORT|ADDR)=.*)"
)
"""Variables, as NAME=value, that Kubernetes sets in every container for a service whose name starts with `flowhooks`.
"""
_SUBSECTIONS: Final = ("engine", "ingress", "signature")
"""Sections within the section of a source."""
_MAX_PLUGIN_DEPTH: Final = 64
"""Maximum levels of tables and lists in the section of a plugin, which are read recursively."""
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_HANDLER: Final = re.compile(rf"(?:{NAME.pattern}):(?:{NAME.pattern})")


def load(
    config: Path | None, environ: Mapping[str, str], options: Mapping[str, Any], folder: Path | None = Path()
) -> Settings:
    """Read the settings: defaults, then the file, then the environment, then options. Each overrides the previous ones.

    Args:
        config: the settings file; None: the file that FLOWHOOKS_CONFIG names, or ./flowhooks.toml if it exists.
        environ: the environment, such as `os.environ`. Lists are comma-separated. Booleans are true, false, 1, 0, yes
            and no.
        options: values by dotted name, such as `{"http.threads": 4}`; None means not given. A string is parsed like an
            environment variable. A list replaces the list in the file.
        folder: the folder where relative paths start; None if the working folder cannot be used. Default: paths in the
            settings stay relative.

    Raises:
        SettingsError: settings cannot be used; all problems, one per line.
    """
    problems: list[str] = []
    path = default_file(environ, folder) if config is None else Path(config)
    table, locations = _read(path, folder, problems) if path else ({}, Locations(None))
    has_routes = isinstance(table.get("alerts"), dict) and "routes" in table["alerts"]
    routes = table["alerts"].pop("routes") if has_routes else {}
    values, named, plugins = _from_table(table, locations, problems)
    if path and routes != {}:
        values["alerts.routes"] = _alert_routes(routes, locations, problems)
    secrets = {
        *secret_variables(plugins.values()),
        *(secret.env for source in named["sources"].values() for secret in source.secrets),
        *(secret.env for source in named["sources"].values() if source.engine for secret in source.engine.secrets),
    }
    values |= _from_environ(environ, secrets, problems)
    values |= _from_options(options, problems)
    settings = _build(values, named, plugins)
    if not problems and settings.listen == settings.admin and not settings.listen.endswith(":0"):
        problems.append(f"listen and admin are both {format_value(settings.listen)}: give each its own address")
    for name, source in settings.sources.items():
        if source.max_body_bytes is not None and source.max_body_bytes > settings.http.max_body_bytes:
            problems.append(
                f"{_dotted('sources', name)}.max_body_bytes is {source.max_body_bytes}, but must be at most "
                f"http.max_body_bytes, {settings.http.max_body_bytes}"
            )
    problems += find_problems(settings.sources)
    problems += access.find_problems(settings.login, settings.masking, settings.roles, settings.operators)
    if problems:
        raise SettingsError("\n".join(problems))
    return resolve_paths(settings, folder)


def _dotted(*keys: str) -> str:
    return ".".join(key if _BARE_KEY.fullmatch(key) else format_value(key) for key in keys)


def default_file(environ: Mapping[str, str], folder: Path | None = Path()) -> Path | None:
    """Return the settings file that `load` reads if none is given; None if there is none."""
    if named := environ.get("FLOWHOOKS_CONFIG"):
        return Path(named)
    # A dangling link must be an error: starting with the defaults instead would be a surprise.
    return Path(DEFAULT_FILE) if folder is not None and os.path.lexists(folder / DEFAULT_FILE) else None


def origin(
    name: str,
    config: Path | None,
    environ: Mapping[str, str],
    options: Mapping[str, Any],
    folder: Path | None = Path(),
) -> str:
    """Return where the value of a setting comes from: an option, a variable, the settings file or the default.

    Args:
        name: name of a setting outside sections, such as `listen`.
        config: as for `load`.
        environ: as for `load`.
        options: as for `load`.
        folder: as for `load`.
    """
    if options.get(name) is not None:
        return f"option --{name}"
    if variable(name) in environ:
        return f"environment variable {variable(name)}"
    path = default_file(environ, folder) if config is None else config
    if path and name in _read(path, folder, [])[0]:
        return f"{format_line(path)}: {name}"
    return f"default of {name}"


def _read(path: Path, folder: Path | None, problems: list[str]) -> tuple[dict[str, Any], Locations]:
    try:
        text = absolute(path, folder).read_bytes().decode("utf-8-sig")
        return tomllib.loads(text), Locations(path, text)
    except OSError as error:
        problems.append(f"{format_line(path)}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"{format_line(path)}: is not UTF-8 at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{format_line(path)}: is not TOML: {format_line(error)}")
    except (ValueError, RecursionError):  # NUL in the path, or a number or nesting beyond Python's limits
        problems.append(f"{format_line(path)}: cannot be read: it is not a settings file")
    return {}, Locations(path)


def _from_table(
    table: Mapping[str, Any], locations: Locations, problems: list[str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    values: dict[str, Any] = {}
    named: dict[str, dict[str, Any]] = {"sources": {}, "operators": {}, "roles": {}, "handlers": {}}
    plugins: dict[str, dict[str, Any]] = {}
    read: dict[str, Callable[..., Any]] = {
        "sources": _source,
        "operators": _operator,
        "roles": _role,
        "handlers": _handler,
    }
    for key, value in table.items():
        where = locations.of(key)
        if key in {*named, "plugins"}:
            for name, section in _named_sections(key, value, locations, problems):
                if key == "plugins":
                    plugins[name] = section
                elif parsed := read[key](name, section, locations, problems):
                    named[key][name] = parsed
        elif "." in key:  # a quoted key: "http.threads" is not http.threads
            problems.append(f"{where}{_dotted(key)} is not a setting")
        elif key in _SECTIONS:
            if not isinstance(value, dict):
                problems.append(f"{where}{key} must be a section, [{key}], not {format_value(value)}")
                continue
            for inner, single in value.items():
                located = f"{locations.of(key, inner)}{_dotted(key, inner)}"
                _set_value(values, f"{key}.{inner}", single, located, problems)
        else:
            _set_value(values, key, value, f"{where}{_dotted(key)}", problems)
    problems.extend(_shared_tokens(named, locations))
    return values, named, plugins


def _is_too_deep(section: Mapping[str, Any]) -> bool:
    level: list[Any] = [section]
    for _ in range(_MAX_PLUGIN_DEPTH):
        values = (value for part in level for value in (part.values() if isinstance(part, dict) else part))
        level = [value for value in values if isinstance(value, dict | list)]
    return bool(level)


def _set_value(values: dict[str, Any], name: str, value: Any, where: str, problems: list[str]) -> None:
    if kind := _TYPES.get(name):
        try:
            values[name] = kind.check(value)
        except ValueError as error:
            problems.append(f"{where} {error}")
    elif isinstance(value, dict):
        sections = sorted({*_SECTIONS, *_NAMED_SECTIONS})
        hint = did_you_mean(name, sections) or f"; the sections are {', '.join(sections)}"
        problems.append(f"{where} is not a section{hint}")
    else:
        problems.append(f"{where} is not a setting{did_you_mean(name, _TYPES)}")


def _named_sections(
    key: str, value: Any, locations: Locations, problems: list[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    keys = key.split(".")
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else "a value"
        problems.append(f"{locations.of(*keys)}{key} must be sections, [{key}.NAME], not {what}")
        return
    for name, section in value.items():
        where = locations.of(*keys, name)
        if not isinstance(section, dict):
            problems.append(f"{where}{_dotted(key, name)} must be a section, [{key}.NAME], not a single value")
        elif key == "handlers":
            if _HANDLER.fullmatch(name):
                yield name, section
            else:
                problems.append(
                    f'{where}[{_dotted(key, name)}] must have a handler\'s id as its name: [handlers."plugin:name"]'
                )
        elif not NAME.fullmatch(name):
            problems.append(
                f"{where}[{_dotted(key, name)}] must have a name of 1 to 100 letters, digits, '.', '_' or '-'"
            )
        elif key == "plugins" and _is_too_deep(section):
            problems.append(f"{where}{_dotted(key, name)} is nested more than {_MAX_PLUGIN_DEPTH} levels deep")
        else:
            yield name, section


def _source(name: str, section: Mapping[str, Any], locations: Locations, problems: list[str]) -> Source | None:
    location = f"{locations.of('sources', name)}{_dotted('sources', name)}"
    plain = {key: value for key, value in section.items() if key not in _SUBSECTIONS}
    values = _check_section(("sources", name), Source, plain, locations, problems)
    has_receiver = isinstance(section.get("ingress"), dict) and "receiver" in section["ingress"]
    has_credential = has_receiver or not {"token_sha256", "token_file", "secrets"}.isdisjoint(section)
    if not has_credential and "engine" not in section:
        problems.append(
            f"{location} has no token_sha256, token_file or secrets, so no engine can authenticate as this source, and "
            "no section engine, so flowhooks cannot ask it"
        )
        return None
    before = len(problems)
    subsections: dict[str, Any] = {}
    if "engine" in section:
        subsections["engine"] = _engine(name, section["engine"], locations, problems)
    if "ingress" in section:
        subsections["ingress"] = _ingress(name, section["ingress"], locations, problems)
        if not has_credential:
            problems.append(
                f"{locations.of('sources', name, 'ingress')}{_dotted('sources', name)} has a section ingress, but no "
                "token_sha256, token_file, secrets or receiver, so nobody can send requests to it"
            )
    if "signature" in section:
        subsections["signature"] = _signature(name, section, locations, problems)
    return None if values is None or len(problems) > before else Source(**values, **subsections)


def _ingress(name: str, section: Any, locations: Locations, problems: list[str]) -> IngressSettings | None:
    keys = ("sources", name, "ingress")
    before = len(problems)
    values = _check_section(keys, IngressSettings, section, locations, problems)
    if isinstance(section, dict):
        problems += [
            f"{locations.of(*keys, key)}{_dotted(*keys)} has {what}" for key, what in ingress.find_problems(section)
        ]
    if values is None or len(problems) > before:
        return None
    return IngressSettings(**values, location=locations.of(*keys))


def _signature(
    name: str, source: Mapping[str, Any], locations: Locations, problems: list[str]
) -> SignatureSettings | None:
    keys = ("sources", name, "signature")
    section = source["signature"]
    before = len(problems)
    values = _check_section(keys, SignatureSettings, section, locations, problems)
    if isinstance(section, dict):
        problems += [
            f"{locations.of(*keys, key)}{_dotted(*keys)} {what}" for key, what in signature.find_problems(section)
        ]
    where = locations.of(*keys)
    if "secrets" not in source:
        problems.append(f"{where}{_dotted(*keys)} has no key: add secrets to [{_dotted('sources', name)}]")
    if "ingress" not in source:
        problems.append(
            f"{where}{_dotted(*keys)} is for requests to /in/{name}, but {_dotted('sources', name)} has no section "
            "ingress"
        )
    elif isinstance(source["ingress"], dict) and "receiver" in source["ingress"]:
        problems.append(
            f"{where}{_dotted(*keys)} is never used, because a receiver authenticates the requests: remove one of the "
            "two"
        )
    return None if values is None or len(problems) > before else SignatureSettings(**values)


def _engine(name: str, section: Any, locations: Locations, problems: list[str]) -> EngineSettings | None:
    keys = ("sources", name, "engine")
    before = len(problems)
    values = _check_section(keys, EngineSettings, section, locations, problems)
    if not isinstance(section, dict):
        return None
    location = f"{locations.of(*keys)}{_dotted(*keys)}"
    problems += [
        f"{location} has no {required}, {why}"
        for required, why in (("client", "the name of an engine client"), ("url", "the engine's base URL"))
        if required not in section
    ]
    if "token" in section and {"username", "password"} & section.keys():
        problems.append(f"{location} has a token, and a username or a password: give one of the two")
    return None if values is None or len(problems) > before else EngineSettings(**values)


def _operator(
    name: str, section: Mapping[str, Any], locations: Locations, problems: list[str]
) -> OperatorSettings | None:
    location = f"{locations.of('operators', name)}{_dotted('operators', name)}"
    values = _check_section(("operators", name), OperatorSettings, section, locations, problems)
    if "role" not in section:
        problems.append(f'{location} has no role: "view" may read everything, "operate" may also make changes')
    if not {"password", "token_sha256", "token_file"}.intersection(section):
        problems.append(
            f"{location} has no password, token_sha256 or token_file, so nobody can log in as this operator"
        )
        return None
    return None if values is None or "role" not in values else OperatorSettings(**values)


def _role(name: str, section: Mapping[str, Any], locations: Locations, problems: list[str]) -> RoleSettings | None:
    location = f"{locations.of('roles', name)}{_dotted('roles', name)}"
    if name in access.BUILT_IN_ROLES:
        problems.append(f"{location} is a role that exists already: choose another name")
        return None
    values = _check_section(("roles", name), RoleSettings, section, locations, problems)
    if "may" not in section:
        problems.append(f'{location} has no may: "view" may read, "operate" may also make changes')
    return None if values is None or "may" not in values else RoleSettings(**values)


def _handler(
    name: str, section: Mapping[str, Any], locations: Locations, problems: list[str]
) -> HandlerSettings | None:
    values = _check_section(("handlers", name), HandlerSettings, section, locations, problems)
    return None if values is None else HandlerSettings(**values)


def _alert_routes(value: Any, locations: Locations, problems: list[str]) -> dict[str, AlertRoute]:
    routes: dict[str, AlertRoute] = {}
    for name, section in _named_sections("alerts.routes", value, locations, problems):
        keys = ("alerts", "routes", name)
        before = len(problems)
        values = _check_section(keys, AlertRoute, section, locations, problems)
        if "notifiers" not in section:
            problems.append(
                f"{locations.of(*keys)}{_dotted(*keys)} has no notifiers, the names of the plugins that are notified"
            )
        if values is not None and len(problems) == before:
            routes[name] = AlertRoute(**values, location=f"{locations.of(*keys, 'notifiers')}{_dotted(*keys)}")
    return routes


def _check_section(
    keys: tuple[str, ...], kind: type, section: Any, locations: Locations, problems: list[str]
) -> dict[str, Any] | None:
    """Return the values of a section; None if one is invalid. Errors name the line, and never repeat a credential."""
    dotted = _dotted(*keys)
    if not isinstance(section, dict):
        problems.append(f"{locations.of(*keys)}{dotted} must be a section, [{dotted}], not {format_value(section)}")
        return None
    kinds: dict[str, SettingType] = {
        field.name: field.metadata["kind"] for field in fields(kind) if "kind" in field.metadata
    }
    values: dict[str, Any] = {}
    before = len(problems)
    for inner, value in section.items():
        location = locations.of(*keys, inner) + dotted
        if inner not in kinds:
            # Do not repeat the value: it may be the token itself.
            problems.append(f"{location}.{_dotted(inner)} is not a setting{did_you_mean(inner, kinds)}")
            continue
        try:
            values[inner] = kinds[inner].check(value)
        except ValueError as error:
            problems.append(f"{location}.{_dotted(inner)} {error}")
    return values if len(problems) == before else None


def _shared_tokens(named: Mapping[str, Mapping[str, Any]], locations: Locations) -> Iterable[str]:
    """Report a token that two names share: an engine must not become an operator."""
    owners: dict[str, tuple[str, str]] = {}
    for key in ("sources", "operators"):
        for name, section in named[key].items():
            for token in section.token_sha256:
                other, whose = owners.setdefault(token, (key, name))
                if (other, whose) != (key, name):
                    who = f"{key} {whose} and {name}" if other == key else f"{other} {whose} and {key} {name}"
                    where = locations.of(key, name, "token_sha256")
                    yield f"{where}{who} have the same token_sha256; give each its own token"


def _from_environ(environ: Mapping[str, str], secrets: Container[str], problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key in sorted(key for key in environ if key.startswith(ENV_PREFIX)):
        if name := _VARIABLES.get(key):
            try:
                values[name] = _TYPES[name].check(_TYPES[name].parse(environ[key]))
            except ValueError as error:
                problems.append(f"environment variable {key} {error}")
        elif key in secrets:
            continue
        elif not _NOT_SETTINGS.fullmatch(key) and not _SERVICE_LINKS.fullmatch(f"{key}={environ[key]}"):
            suffix = key.removeprefix(ENV_PREFIX)
            only = [section for section in _NAMED_SECTIONS if suffix.startswith(f"{section.upper()}_")]
            hint = f"; write [{only[0]}.NAME] in the settings file" if only else ""
            hint += did_you_mean(
                suffix, (variable_name.removeprefix(ENV_PREFIX) for variable_name in _VARIABLES), ENV_PREFIX
            )
            problems.append(f"environment variable {format_line(key)} is not a setting{hint}")
    return values


def _from_options(options: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in options.items():
        if value is None:
            continue
        if not (kind := _TYPES.get(name)):
            problems.append(f"option {format_line(name)} is not a setting{did_you_mean(name, _TYPES)}")
            continue
        try:
            values[name] = kind.check(kind.parse(value) if isinstance(value, str) else value)
        except ValueError as error:
            problems.append(f"option {name} {error}")
    return values


def _build(
    values: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]], plugins: Mapping[str, Mapping[str, Any]]
) -> Settings:
    top: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for name, value in values.items():
        section, dot, inner = name.partition(".")
        if dot:
            sections[section][inner] = value
        else:
            top[name] = value
    for field in fields(Settings):
        if field.name in sections:
            top[field.name] = field.default_factory(**sections[field.name])  # type: ignore[operator] # each section has its dataclass for a factory
    return Settings(
        **top,
        sources=named["sources"],
        operators=named["operators"],
        roles=named["roles"],
        handlers=named["handlers"],
        plugins=plugins,
    )
