"""Send one HTTP request, without proxies or redirects, so that a credential reaches only the given server."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, quote, urlsplit

from flowhooks.errors import ServerUnreachable, SettingsError
from flowhooks.settings import host_and_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import Settings

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
"""Maximum number of bytes read of a response body."""
READY_TIMEOUT: Final = 10.0
"""Maximum seconds without an answer to `/readyz`, which tries a small write if the last one failed."""
_WILDCARD_HOSTS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 (addresses that are not called)


class ResponseTimeout(ServerUnreachable):
    """A server did not answer in time, and may have received the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An HTTP response.

    Attributes:
        status: HTTP status.
        reason: reason phrase.
        headers: headers by lower-case name.
        body: body, cut to `MAX_RESPONSE_BYTES`.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


def local_url(settings: Settings) -> str:
    """Return the URL at which programs on this machine reach the server of these settings."""
    host, port = host_and_port(settings.listen)
    if host in _WILDCARD_HOSTS:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def post(base: str, path: str, *, body: bytes, headers: Mapping[str, str], timeout: float) -> HttpResponse:
    """Send one POST request.

    Args:
        base: URL of the server, such as `http://127.0.0.1:8080`; may end with a path.
        path: path after `base`, percent-encoded.
        body: request body, sent unchanged.
        headers: request headers.
        timeout: maximum seconds without data from the server.

    Raises:
        SettingsError: `base` is not a URL of this form.
        ServerUnreachable: no HTTP response was received; the message says why. After a timeout it is `ResponseTimeout`.
    """
    return _send("POST", base, path, body=body, headers=headers, timeout=timeout)


def ask_readiness(admin: str) -> list[str]:
    """Return why the server at this administration address is not ready; empty if it is ready.

    Raises:
        ServerUnreachable: it has not answered as a server does.
    """
    response = _send("GET", admin, "/readyz", body=None, headers={}, timeout=READY_TIMEOUT)
    try:
        return [str(reason) for reason in json.loads(response.body)["trouble"]]
    except (ValueError, KeyError, TypeError):
        raise ServerUnreachable(f"the answer of {admin} is not from a server of flowhooks") from None


def _send(
    method: str, base: str, path: str, *, body: bytes | None, headers: Mapping[str, str], timeout: float
) -> HttpResponse:
    url = _split(base)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.request(method, quote(url.path.rstrip("/"), safe="/%:@") + path, body=body, headers=dict(headers))
        response = connection.getresponse()
        content = response.read(MAX_RESPONSE_BYTES)
        if response.length and len(content) < MAX_RESPONSE_BYTES:
            raise http.client.IncompleteRead(content, response.length)
        return HttpResponse(
            status=response.status,
            reason=response.reason,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=content,
        )
    except TimeoutError:
        raise ResponseTimeout(f"{base} did not answer within {timeout:g} seconds") from None
    except OSError as error:
        raise ServerUnreachable(f"no answer from {base}: {_reason(error)}") from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise ServerUnreachable(f"the answer of {base} is not valid HTTP: {error!r}") from None
    finally:
        connection.close()


def _split(base: str) -> SplitResult:
    if "@" in base:
        raise SettingsError(
            "leave the credential out of the address, because other users can read the options of a command"
        )
    try:
        url = urlsplit(base)
        port = url.port
    except ValueError:
        port = -1
    if port == -1 or url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise SettingsError(f"{base!r} is not the address of a server; write http://HOST:PORT")
    return url


def _reason(error: OSError) -> str:
    # `strerror` of a TLS error is not its message.
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    system_text = (
        os.strerror(error.errno) if error.errno and error.errno > 0 and type(error).__module__ == "builtins" else ""
    )
    return (system_text or error.strerror or str(error) or type(error).__name__).lower()
