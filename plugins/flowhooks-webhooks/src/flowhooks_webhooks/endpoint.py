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

PREFIX: Final = "whsec_"
KEY_BYTES: Final = range(24, 65)
"""How long a key may be, in bytes: 24 to 64, from the Standard Webhooks specification, "Signature scheme"."""
_RESERVED_HEADERS: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "traceparent", "transfer-encoding", "user-agent"}
    | {"webhook-id", "webhook-timestamp", "webhook-signature"}
)
"""Header fields that the message itself sets."""
_FIELD: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""The form of a header field's name (RFC 9110, 5.6.2)."""
_VALUE: Final = re.compile(r"[!-~]([ \t!-~]*[!-~])?")
"""Values of header fields, in ASCII: nothing that could begin another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A service, and which events it wants.

    Attributes:
        name: the handler's name, too.
        url: where messages are posted. Its user info and query may be secret, so neither is ever shown.
        webhooks: what signs, one for each secret.
        callback_classes: values of `callBackProcessClass`.
        process_keys: values of `processDefinitionKey`.
        every: every event of the kind.
        kind: the kind of callback.
        timeout: seconds for the whole request, until the status and the header fields of the answer have arrived.
        headers: further header fields.
    """

    name: str
    url: httpx2.URL = field(repr=False)
    webhooks: tuple[Webhook, ...] = field(repr=False)
    callback_classes: tuple[str, ...] = ()
    process_keys: tuple[str, ...] = ()
    every: bool = False
    kind: str = "complete"
    timeout: float = 10.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def host(self) -> str:
        """The part of the URL that may be shown."""
        return self.url.host

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> Endpoint:
        """An endpoint of a section that the settings' schema has accepted.

        Raises:
            ValueError: it cannot be used; says which endpoint and why, without any of its secrets.
        """
        name = section["name"]
        try:
            return cls(
                name=name,
                url=_url(section["url"]),
                webhooks=tuple(map(_webhook, _several(section["secret"]))),
                callback_classes=_several(section.get("callback_class", ())),
                process_keys=_several(section.get("process_key", ())),
                every=_every(section),
                kind=section.get("kind", "complete"),
                timeout=float(section.get("timeout", 10.0)),
                headers=_headers(section.get("headers", {})),
            )
        except ValueError as error:
            raise ValueError(f"endpoint {name!r} in [[plugins.webhooks.endpoints]]: {error}") from None


def _several(given: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _every(section: Mapping[str, Any]) -> bool:
    every: bool = section.get("every", False)
    if not (every or section.get("process_key") or section.get("callback_class")):
        raise ValueError("give the events that it receives: process_key, callback_class or every = true")
    return every


def _url(given: str) -> httpx2.URL:
    try:
        url = httpx2.URL(given)
    except httpx2.InvalidURL:
        raise ValueError("its url cannot be read") from None  # the library's own words may show all of it
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError("its url must begin with http:// or https:// and a host")
    return url


def _webhook(secret: str) -> Webhook:
    key = b""
    if secret.startswith(PREFIX):
        try:
            text = secret.removeprefix(PREFIX)
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # padding may be left out
        except binascii.Error:
            key = b""
    if len(key) not in KEY_BYTES:
        raise ValueError(
            f"its secret must be {PREFIX} followed by {KEY_BYTES.start} to {KEY_BYTES.stop - 1} bytes in base64"
        )
    return Webhook(secret)


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    for name, value in given.items():
        if not _FIELD.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a header field")
        if name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"the header field {name} is set by the message itself")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the header field {name} must be printable ASCII on one line")
    return dict(given)
