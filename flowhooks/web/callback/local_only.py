"""The check of callbacks while no source is configured: only programs on this machine may send them.

Without a credential, no other property distinguishes an engine from a client behind a proxy, or from a web page in a
browser on this machine.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flowhooks.errors import Forbidden
from flowhooks.settings import host_and_port
from flowhooks.web.browser_origin import host_of, is_loopback_name, is_same_origin, name_of
from flowhooks.web.server.trusted_proxy import is_forwarded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import Settings


def check(environ: Mapping[str, Any], settings: Settings) -> None:
    """Reject a callback that a proxy forwarded or a web page sent.

    With the setting `insecure`, other machines may call, also through a proxy, but web pages still may not.

    Raises:
        Forbidden: the callback is rejected.
    """
    host = host_of(environ)
    local = _is_local(host, settings.listen)
    if not settings.insecure:
        has_proxy = settings.http.trusted_proxy or settings.login.proxy or settings.public_url
        if has_proxy or is_forwarded(environ):
            raise Forbidden("no_source_proxy")
        if not local:
            raise Forbidden("no_source_host")
    same = is_same_origin(environ, f"http://{host}")
    # DNS rebinding: a site whose name was pointed at this machine has the listener's origin, under a name that is not
    # local.
    if same is False or (same and not local):
        raise Forbidden("no_source_page")


@lru_cache(maxsize=16)  # a host is as long as headers may be
def _is_local(host: str, listen: str) -> bool:
    """Tell whether `Host` is loopback or the listening address; HTTP/1.0 may omit it."""
    return not host or is_loopback_name(host) or name_of(host) == host_and_port(listen)[0].lower()
