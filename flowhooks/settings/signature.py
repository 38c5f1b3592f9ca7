"""The section `[sources.NAME.signature]`: how a sender with a fixed URL signs, if not by Standard Webhooks."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from flowhooks.settings import types
from flowhooks.settings.field import setting

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,100}")
"""A header's name (RFC 9110, section 5.1) without `_`, which servers cannot distinguish from `-`."""


def header_name() -> types.SettingType:
    """Return the type of the name of an HTTP header."""
    allowed = 'the name of a header, such as "X-Signature"'

    def check(value: Any) -> str:
        if not isinstance(value, str) or not _HEADER.fullmatch(value):
            raise ValueError(f"must be {allowed}, not {types.format_value(value)}")
        return value

    return types.SettingType(allowed, check)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureSettings:
    """A signature of the request's body by an HMAC. The keys are the texts that `secrets` of the source locates."""

    scheme: Literal["hmac-sha256", "hmac-sm3"] = field(
        metadata={
            "doc": "Algorithm of the signature.",
            "kind": types.one_of("hmac-sha256", "hmac-sm3"),
        }
    )
    header: str = field(
        metadata={"doc": "Header that has the signature, such as X-Hub-Signature-256.", "kind": header_name()}
    )
    encoding: Literal["hex", "base64"] = setting(
        "hex", types.one_of("hex", "base64"), "Encoding of the signature in its header."
    )
    prefix: str = setting("", types.text(), 'Text before the signature in its header, such as "sha256=".')
    timestamp_header: str = setting(
        "",
        header_name(),
        "Header that has the time of the request, in seconds or milliseconds since 1970. The signature is then over "
        "the time, a full stop and the body, and requests that are older or newer than 5 minutes are refused. "
        "Default: the signature is over the body.",
    )
    id_header: str = setting(
        "",
        header_name(),
        "Header that has the id of the request. A request with an id that was used for another body is refused.",
    )

    def environ_name(self, header: str) -> str:
        """Return the name of a header in a WSGI environment."""
        return f"HTTP_{header.upper().replace('-', '_')}"
