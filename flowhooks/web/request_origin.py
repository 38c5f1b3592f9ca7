"""Under which name, and from which page, a browser has sent a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_SITES = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for a page of the same origin, and for an address that the user has entered."""


def host_of(environ: Mapping[str, Any]) -> str:
    """The header `Host` in lower case; `""` if there is none."""
    return str(environ.get("HTTP_HOST", "")).strip().lower()


def name_of(host: str) -> str:
    """A value of `Host` without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def is_loopback_name(host: str) -> bool:
    """Whether a value of `Host` is a name of this machine, which no web site can have."""
    return is_loopback(name_of(host))


def is_same_origin(environ: Mapping[str, Any], own: str) -> bool | None:
    """Whether a browser has sent a request from a page of our own.

    Browsers say so in `Sec-Fetch-Site`, or, where a page has neither TLS nor a name of loopback, in `Origin`.

    Args:
        environ: the request.
        own: the origin of our own pages.

    Returns:
        None if the request has neither header, as those of programs.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    origin = environ.get("HTTP_ORIGIN")
    if site is not None:
        return site in OWN_SITES
    return None if origin is None else origin == own
