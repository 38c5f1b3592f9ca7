"""The host name and the page from which a browser sent a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_SITES = frozenset({"same-origin", "none"})
"""Values of `Sec-Fetch-Site` for a page of the same origin, and for an address that the user entered."""


def host_of(environ: Mapping[str, Any]) -> str:
    """Return the header `Host` in lower case; `""` if it is missing."""
    return str(environ.get("HTTP_HOST", "")).strip().lower()


def name_of(host: str) -> str:
    """Return a value of `Host` without its port."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def is_loopback_name(host: str) -> bool:
    """Return whether a value of `Host` is a loopback name of this machine, which no web site can have."""
    return is_loopback(name_of(host))


def is_same_origin(environ: Mapping[str, Any], own: str) -> bool | None:
    """Return whether a browser sent a request from a page of this server.

    Browsers state that in `Sec-Fetch-Site` or, if the page has neither TLS nor a loopback name, in `Origin`.

    Args:
        environ: the request.
        own: the origin of this server's pages.

    Returns:
        None if the request has neither header, as requests of programs do.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    origin = environ.get("HTTP_ORIGIN")
    if site is not None:
        return site in OWN_SITES
    return None if origin is None else origin == own
