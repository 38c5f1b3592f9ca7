"""One HTTP POST: no proxies, no redirects, so that a credential goes where it was sent and nowhere else."""

from __future__ import annotations

import http.client
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, quote, urlsplit

from flowhooks.errors import ServerUnreachable, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """What came back.

    Attributes:
        status: the HTTP status.
        reason: its words, as the server has them.
        headers: by lower-case name.
        body: the body's first bytes.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


def post(base: str, path: str, *, body: bytes, headers: Mapping[str, str], timeout: float) -> HttpResponse:
    """Post once.

    Args:
        base: such as `http://127.0.0.1:8080`; may end in a path of its own.
        path: already percent-encoded.
        body: is sent as it is.
        headers: are sent too.
        timeout: seconds that the server may say nothing.

    Raises:
        SettingsError: `base` is no such URL.
        ServerUnreachable: nothing that speaks HTTP answered; says why.
    """
    url = _split(base)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=timeout)
    try:
        connection.request("POST", quote(url.path.rstrip("/"), safe="/%:@") + path, body=body, headers=dict(headers))
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
        raise ServerUnreachable(f"{base} did not answer within {timeout:g} seconds") from None
    except OSError as error:
        raise ServerUnreachable(f"no answer from {base}: {_reason(error)}") from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise ServerUnreachable(f"what answers at {base} does not speak HTTP as it should: {error!r}") from None
    finally:
        connection.close()


def _split(base: str) -> SplitResult:
    if "@" in base:
        raise SettingsError("leave the credential out of the address: others can read a command's options")
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
        return "it closed the connection without an answer"
    system_text = (
        os.strerror(error.errno) if error.errno and error.errno > 0 and type(error).__module__ == "builtins" else ""
    )
    return (system_text or error.strerror or str(error) or type(error).__name__).lower()
