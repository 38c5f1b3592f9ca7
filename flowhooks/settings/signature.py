"""The section `[sources.NAME.signature]`: how a sender with a fixed URL signs, if not by Standard Webhooks."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks.settings import types
from flowhooks.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]{1,100}")
"""A header's name (RFC 9110, section 5.1) without `_`, which servers cannot distinguish from `-`."""
_HASHES: Final = {"hmac-sha256": "sha256", "hmac-sm3": "sm3"}
"""The hash function of each scheme, as `hashlib` names it."""


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

    @property
    def hash_name(self) -> str:
        """The hash function of the scheme, as `hashlib` names it."""
        return _HASHES[self.scheme]

    @staticmethod
    def environ_name(header: str) -> str:
        """Return the name of a header in a WSGI environment."""
        name = header.upper().replace("-", "_")
        return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"


def find_problems(section: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each problem that concerns more than the value of one setting, as (setting or `""`, sentence end)."""
    if "scheme" not in section:
        yield "", 'has no scheme, which is "hmac-sha256" or "hmac-sm3"'
    elif section["scheme"] == "hmac-sm3" and "sm3" not in hashlib.algorithms_available:
        yield "scheme", "has the scheme hmac-sm3, but the OpenSSL of this Python has no SM3"
    if "header" not in section:
        yield "", "has no header, the name of the header that has the signature"
    owners: dict[str, str] = {}
    for key in ("header", "timestamp_header", "id_header"):
        name = section.get(key)
        if isinstance(name, str) and (owner := owners.setdefault(name.lower(), key)) != key:
            yield key, f"has one header for {owner} and {key}: give each its own header"
