"""A service to which events are forwarded, read from the settings."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx2
from standardwebhooks.webhooks import Webhook

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 65)
"""Valid lengths of a key in bytes: 24 to 64, from the Standard Webhooks specification, "Signature scheme"."""
_PORTS: Final = range(1, 65_536)
_RESERVED_HEADERS: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "traceparent", "transfer-encoding", "user-agent"}
    | {"webhook-id", "webhook-timestamp", "webhook-signature"}
)
"""Header fields that the message sets, so the settings cannot contain them."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""Syntax of the name of a header field (RFC 9110, 5.6.2)."""
_HEADER_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?")
"""Syntax of the value of a header field: ASCII without line breaks, so that it cannot start another field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A service, with the selectors of the events that are forwarded to it.

    Attributes:
        name: name of the endpoint and of its handler.
        url: address to which messages are posted. User info and query may be secret, so neither is ever shown.
        signers: signers of the messages, one for each secret.
        callback_classes: values of `callBackProcessClass`.
        process_keys: values of `processDefinitionKey`.
        every: whether every event of the kind is forwarded.
        kind: the kind of callback.
        timeout: seconds for the whole request, until the status and the header fields of the response have arrived.
        headers: additional header fields.
    """

    name: str
    url: httpx2.URL = field(repr=False)
    signers: tuple[Webhook, ...] = field(repr=False)
    callback_classes: tuple[str, ...] = ()
    process_keys: tuple[str, ...] = ()
    every: bool = False
    kind: str = "complete"
    timeout: float = 10.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """Host of the URL, the only part that may be shown."""
        return self.url.host

    @classmethod
    def from_settings(cls, section: Mapping[str, Any]) -> Endpoint:
        """Create an endpoint from a section that the schema of the settings has accepted.

        Raises:
            ValueError: the endpoint is invalid. The message has its name and the reason, without its secrets.
        """
        name = section["name"]
        try:
            return cls(
                name=name,
                url=_parse_url(section["url"]),
                signers=tuple(map(_build_signer, _as_tuple(section["secret"]))),
                callback_classes=_as_tuple(section.get("callback_class", ())),
                process_keys=_as_tuple(section.get("process_key", ())),
                every=_check_selectors(section),
                kind=section.get("kind", "complete"),
                timeout=float(section.get("timeout", 10.0)),
                headers=_check_headers(section.get("headers", {})),
            )
        except ValueError as error:
            raise ValueError(f"endpoint {name!r} in [[plugins.webhooks.endpoints]]: {error}") from None


def _as_tuple(value: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_selectors(section: Mapping[str, Any]) -> bool:
    """Return the setting `every`.

    Raises:
        ValueError: the section has no selector, so it would select no event.
    """
    every: bool = section.get("every", False)
    if not (every or section.get("process_key") or section.get("callback_class")):
        raise ValueError("give the events that it receives: process_key, callback_class or every = true")
    return every


def _parse_url(text: str) -> httpx2.URL:
    try:
        url = httpx2.URL(text)
        url.raw_host.decode("ascii").encode("idna")  # as in each lookup of the host, which rejects an invalid label
    except (httpx2.InvalidURL, UnicodeError):
        raise ValueError("its url cannot be read") from None  # the library's message may contain the whole URL
    if url.port is not None and url.port not in _PORTS:
        raise ValueError("its url cannot be read")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("its url must begin with http:// or https:// and a host")
    return url


def _build_signer(secret: str) -> Webhook:
    key = b""
    if secret.startswith(KEY_PREFIX):
        try:
            encoded = secret.removeprefix(KEY_PREFIX)
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)  # padding is optional
        except binascii.Error:
            key = b""
    if len(key) not in KEY_BYTES:
        raise ValueError(
            f"its secret must be {KEY_PREFIX} followed by {KEY_BYTES.start} to {KEY_BYTES.stop - 1} bytes in base64"
        )
    return Webhook(secret)


def _check_headers(fields: Mapping[str, str]) -> dict[str, str]:
    for name, value in fields.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header field")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"the header field {name} is set by the message itself")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the header field {name} must be printable ASCII on one line")
    return dict(fields)
