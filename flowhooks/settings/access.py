"""The sections [login], [roles.NAME] and [masking]: log-in through a proxy, and what roles may see and change."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks.settings import types
from flowhooks.settings.field import setting
from flowhooks.settings.signature import header_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.settings.named_sections import OperatorSettings

BUILT_IN_ROLES: Final = ("view", "operate")
"""Roles that need no section: each sees everything, and `operate` may also make changes."""
MAX_GROUP_CHARS: Final = 255
"""Maximum length of a group's name."""
_RESERVED_HEADERS: Final = frozenset(
    {
        *("authorization", "connection", "content-length", "content-type", "cookie", "forwarded", "host", "origin"),
        *("referer", "sec-fetch-mode", "sec-fetch-site", "transfer-encoding", "upgrade", "via"),
        *("x-forwarded-by", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"),
    }
)
"""Headers that have another meaning for the server, or that it removes."""


def identity_header() -> types.SettingType:
    """Return the type of the name of a header that states a user or the user's groups."""
    named = header_name()

    def check(value: Any) -> str:
        name = str(named.check(value))
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"must not be {name}, which has another meaning")
        return name

    return types.SettingType('the name of a header, such as "X-Forwarded-User"', check)


def group_roles() -> types.SettingType:
    """Return the type of a section of roles by group. The environment has it as `group=role,group=role`."""
    allowed = 'a section of roles by group, such as {ops = "operate"}'

    def check(value: Any) -> Mapping[str, str]:
        if not isinstance(value, dict):
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")  # noqa: TRY004 (as every check does)
        for group, role in value.items():
            if not 0 < len(group) <= MAX_GROUP_CHARS or not group.isprintable() or group != group.strip():
                raise ValueError(
                    f"must not have the group {types.format_value(group)}: a group's name has 1 to {MAX_GROUP_CHARS} "
                    "printable characters, and no space at its start and end"
                )
            if not isinstance(role, str) or not types.NAME.fullmatch(role):
                raise ValueError(
                    f"at {types.format_value(group)} must be a role's name, not {types.format_value(role)}"
                )
        return MappingProxyType(dict(value))

    def parse(text: str) -> Any:
        pairs = [part.strip().rpartition("=") for part in text.split(",") if part.strip()]
        return {group: role for group, _, role in pairs} if all(equals for _, equals, _ in pairs) else text

    return types.SettingType(allowed, check, parse)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginSettings:
    """Log-in by the headers of an authenticating reverse proxy, such as oauth2-proxy or Authelia."""

    proxy: str = setting(
        "",
        types.ip_address(),
        "IP address of the reverse proxy that logs operators in and names them in headers. From any other address "
        "these headers are refused. Empty: no proxy logs operators in.",
        live=True,
    )
    user_header: str = setting(
        "X-Forwarded-User",
        identity_header(),
        "Header with the name of the operator. The proxy must remove it from what clients send.",
        live=True,
    )
    groups_header: str = setting(
        "X-Forwarded-Groups",
        identity_header(),
        "Header with the groups of the operator. The proxy must remove it from what clients send.",
        live=True,
    )
    groups_separator: Literal[",", ";", "|"] = setting(
        ",", types.one_of(",", ";", "|"), "Character between two groups in their header.", live=True
    )
    groups: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "doc": "Role of each group. The first group here that an operator has decides; an operator without such a "
            "group is refused.",
            "kind": group_roles(),
            "live": True,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSettings:
    """A role of operators. Its name is the section's name: [roles.NAME]. view and operate need no section."""

    may: Literal["view", "operate"] = field(
        metadata={
            "doc": "Rights of the role: view reads; operate may also make changes.",
            "kind": types.one_of(*BUILT_IN_ROLES),
        },
    )
    plugins: tuple[str, ...] = setting(
        (),
        types.list_of(types.name(), min_items=1),
        "Names of the plugins whose handlers, deliveries, events, errors, alerts and operations the role sees and "
        "changes. Default: all, and everything else, too.",
    )
    masked: bool = setting(
        False,
        types.boolean(),
        "Whether the values of masking.fields are hidden from the role, and with them results, errors, logs and "
        "tracebacks of handlers.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingSettings:
    """Members of bodies that are hidden from roles with `masked`."""

    fields: tuple[str, ...] = setting(
        (),
        types.list_of(types.pointer()),
        'JSON Pointers to members of the body whose values are hidden from masked roles, such as "/salary". Where a '
        "pointer meets a list, it applies to each item.",
        live=True,
    )


def find_problems(
    login: LoginSettings,
    masking: MaskingSettings,
    roles: Mapping[str, RoleSettings],
    operators: Mapping[str, OperatorSettings],
) -> Iterator[str]:
    """Yield what is wrong with roles, masking and the log-in through a proxy, taken together; one line each."""
    known = [*BUILT_IN_ROLES, *roles]
    used = [(f"operators.{name}.role", operator.role) for name, operator in operators.items()]
    used += [(f"login.groups.{types.format_line(group)}", role) for group, role in login.groups.items()]
    for where, role in used:
        if role not in known:
            yield (
                f"{where} is {types.format_value(role)}, but there is no such role: use view or operate, or add "
                f"[roles.{role}]{types.did_you_mean(role, known)}"
            )
    if login.proxy and not login.groups:
        yield (
            "login.proxy is set, but login.groups has no group, so nobody could log in: add [login.groups], such as "
            'ops = "operate"'
        )
    if login.groups and not login.proxy:
        yield "login.groups has no effect without login.proxy, the address of the proxy that logs operators in"
    if login.user_header.lower() == login.groups_header.lower():
        yield f"login.user_header and login.groups_header are both {login.user_header}: give each its own header"
    if any(role.masked for role in roles.values()) and not masking.fields:
        yield "a role is masked, but masking.fields names no member of a body: name what is hidden, or remove masked"
