"""Identify the user that an authenticating reverse proxy names in headers.

The headers count only if the connection comes from the address that the settings name. Any other request that has one
of them is refused, whatever other credential it has, because somebody tries to be somebody else, or a proxy passes on
the headers of its clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.settings.access import MAX_GROUP_CHARS
from flowhooks.web.server.channel import REPEATED_HEADERS
from flowhooks.web.server.trusted_proxy import PEER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import LoginSettings

MAX_NAME_CHARS: Final = 100
"""Maximum length of a user's name, as of the names of operators."""
MAX_GROUPS: Final = 1_000
"""Maximum number of groups of a user."""
RESERVED_NAMES: Final = frozenset({"flowhooks", "local", "somebody", "unknown"})
"""Names that the audit log uses for actions without an operator."""


class ProxyUser(NamedTuple):
    """A user that the proxy has authenticated.

    Attributes:
        name: the user's name.
        groups: the names of the user's groups.
    """

    name: str
    groups: frozenset[str]


class InvalidLoginHeader(Exception):
    """A header that names the user is not from the proxy, or has no usable value.

    Its argument is the reason for the log, one line without a value from the request.
    """


def proxy_user(environ: Mapping[str, Any], login: LoginSettings) -> ProxyUser | None:
    """Return the user that the proxy names; None if the request has no such header, or no proxy is configured.

    Args:
        environ: the WSGI environ of the request.
        login: the settings.

    Raises:
        InvalidLoginHeader: the request has such a header and must be refused.
    """
    if not login.proxy:
        return None
    user_key, groups_key = _key(login.user_header), _key(login.groups_header)
    user, groups = environ.get(f"HTTP_{user_key}"), environ.get(f"HTTP_{groups_key}")
    if user is None and groups is None:
        return None
    if environ.get(PEER) != login.proxy:
        raise InvalidLoginHeader("the request does not come from login.proxy")
    # Without this member another server has read the headers, and nobody knows whether it has joined several of them.
    repeated = environ.get(REPEATED_HEADERS)
    if repeated is None or user_key in repeated or groups_key in repeated:
        raise InvalidLoginHeader("a login header is repeated")
    if user is None:
        raise InvalidLoginHeader("the header with the user's name is missing")
    return ProxyUser(_name(user), _groups(groups or "", login.groups_separator))


def _key(header: str) -> str:
    return header.upper().replace("-", "_")


def _name(value: str) -> str:
    name = _decoded(value)
    # A proxy that adds a header of its own to the client's may join the two with a comma.
    if not 0 < len(name) <= MAX_NAME_CHARS or "," in name or name != name.strip():
        raise InvalidLoginHeader("the user's name is empty, too long, or has a comma")
    if name.casefold() in RESERVED_NAMES:
        raise InvalidLoginHeader("the user's name stands for flowhooks itself in the audit log")
    return name


def _groups(value: str, separator: str) -> frozenset[str]:
    groups = {group.strip() for group in _decoded(value).split(separator)} - {""}
    if len(groups) > MAX_GROUPS or any(len(group) > MAX_GROUP_CHARS for group in groups):
        raise InvalidLoginHeader("the user has too many groups, or one with a name that is too long")
    return frozenset(groups)


def _decoded(value: str) -> str:
    try:
        text = value.encode("latin-1").decode()  # WSGI passes the bytes of a header as Latin-1
    except UnicodeError:
        raise InvalidLoginHeader("a login header is not UTF-8") from None
    if not text.isprintable():
        raise InvalidLoginHeader("a login header has control characters")
    return text
