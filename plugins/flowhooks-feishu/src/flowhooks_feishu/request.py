"""Authenticate a request of Feishu: decrypt it, and check its signature and its Verification Token.

The formats are those of the open platform's pages "Encrypt Key" and "Verification Token". No function raises an
exception for any bytes of a request, except `NotAuthentic`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

if TYPE_CHECKING:
    from flowhooks import ReceivedRequest

MAX_CLOCK_SKEW: Final = 300.0
"""Seconds by which the signed time may differ from the server's, as in Standard Webhooks."""
BLOCK_BYTES: Final = 16
"""Length of a block of AES, and of the initialization vector before the encrypted text."""
HANDSHAKE: Final = "url_verification"
"""Type of the request by which Feishu tests a new URL."""


class NotAuthentic(Exception):
    """The request is not known to be from Feishu. The text says why, without anything that the sender wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secrets of one source.

    Attributes:
        verification_token: what each request of Feishu contains.
        encrypt_key: the key of encryption and signature; `""`: the app has none.
    """

    verification_token: str = field(repr=False)
    encrypt_key: str = field(default="", repr=False)


def read(request: ReceivedRequest, secrets: Secrets) -> dict[str, Any]:
    """Return the JSON object of an authentic request, decrypted.

    If there is an Encrypt Key, the request must be encrypted, and signed unless it is the handshake: Feishu does not
    sign the handshake. So nobody without the key can send anything.

    Raises:
        NotAuthentic: the request is not authentic, or what it contains is no JSON object.
    """
    message = _object(request.body)
    if secrets.encrypt_key:
        has_signature = "x-lark-signature" in request.headers
        if has_signature:
            _check_signature(request, secrets.encrypt_key)
        encrypted = message.get("encrypt")
        if not isinstance(encrypted, str):
            raise NotAuthentic("it is not encrypted, but the source has an encrypt_key")
        message = _object(decrypt(encrypted, secrets.encrypt_key))
        if not has_signature and message.get("type") != HANDSHAKE:
            raise NotAuthentic("it has no X-Lark-Signature")
    elif "encrypt" in message:
        raise NotAuthentic("it is encrypted, but the source has no encrypt_key")
    header = message.get("header")
    token = header.get("token") if isinstance(header, dict) else message.get("token")
    if not isinstance(token, str) or not _equal(token, secrets.verification_token):
        raise NotAuthentic("its Verification Token is not that of the source")
    return message


def decrypt(encrypted: str, encrypt_key: str) -> bytes:
    """Return the plain bytes of an encrypted text: Base64 of an initialization vector and AES-256-CBC with PKCS #7.

    Raises:
        NotAuthentic: it was not encrypted with this key.
    """
    try:
        raw = base64.b64decode(encrypted, validate=True)
        key = hashlib.sha256(encrypt_key.encode()).digest()
        decryptor = Cipher(algorithms.AES256(key), modes.CBC(raw[:BLOCK_BYTES])).decryptor()
        unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
        padded = decryptor.update(raw[BLOCK_BYTES:]) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:  # no Base64, no whole blocks, or an invalid padding
        raise NotAuthentic("it was not encrypted with the encrypt_key of the source") from None


def sign(*, timestamp: str, nonce: str, encrypt_key: str, body: bytes) -> str:
    """Return the value of `X-Lark-Signature`: a SHA-256 digest in hexadecimal digits."""
    return hashlib.sha256((timestamp + nonce + encrypt_key).encode("utf-8", "replace") + body).hexdigest()


def _check_signature(request: ReceivedRequest, encrypt_key: str) -> None:
    timestamp = request.headers.get("x-lark-request-timestamp", "")
    nonce = request.headers.get("x-lark-request-nonce", "")
    expected = sign(timestamp=timestamp, nonce=nonce, encrypt_key=encrypt_key, body=request.body)
    if not _equal(request.headers["x-lark-signature"], expected):
        raise NotAuthentic("its X-Lark-Signature is wrong; is the encrypt_key of the source that of the app?")
    # Only now, because an unsigned time proves nothing. Eleven digits are enough until the year 5138.
    is_number = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 11  # noqa: PLR2004 (digits)
    if not is_number or abs(int(timestamp) - request.received_at.timestamp()) > MAX_CLOCK_SKEW:
        raise NotAuthentic("it was signed more than five minutes ago; is the clock of this machine right?")


def _equal(given: str, expected: str) -> bool:
    # As bytes: of two strings, compare_digest accepts only ASCII. "replace" is for half a surrogate pair in JSON.
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAuthentic("it is not JSON") from None
    if not isinstance(message, dict):
        raise NotAuthentic("it is no JSON object")
    return message
