"""Authenticate a request of Feishu: decrypt its body, and check its signature and its Verification Token.

The formats are documented in the pages "Encrypt Key" and "Verification Token" of the open platform. For any bytes of a
request, the functions raise no exception other than `NotAuthentic`.
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
"""Seconds by which the signed timestamp may differ from the server's clock, as in Standard Webhooks."""
MAX_TIMESTAMP_DIGITS: Final = 11
"""Digits of a signed timestamp in seconds, enough until the year 5138."""
BLOCK_BYTES: Final = 16
"""Length of an AES block, and of the initialization vector before the encrypted text."""
HANDSHAKE: Final = "url_verification"
"""Type of the request by which Feishu tests a new URL."""


class NotAuthentic(Exception):
    """The request cannot be authenticated. The text is the reason, and contains nothing that the sender wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The secrets of one source.

    Attributes:
        verification_token: the token that each request of Feishu contains.
        encrypt_key: the key of the encryption and the signature; `""`: the app has no such key.
    """

    verification_token: str = field(repr=False)
    encrypt_key: str = field(default="", repr=False)


def authenticate(request: ReceivedRequest, secrets: Secrets) -> dict[str, Any]:
    """Return the JSON object of an authentic request, decrypted.

    If there is an Encrypt Key, the request must be encrypted, and signed unless it is the handshake: Feishu does not
    sign the handshake. So all requests of a sender without the key are rejected.

    Raises:
        NotAuthentic: the request is not authentic, or its content is not a JSON object.
    """
    message = _parse_object(request.body)
    if secrets.encrypt_key:
        has_signature = "x-lark-signature" in request.headers
        if has_signature:
            _check_signature(request, secrets.encrypt_key)
        encrypted = message.get("encrypt")
        if not isinstance(encrypted, str):
            raise NotAuthentic("it is not encrypted, but the source has an encrypt_key")
        message = _parse_object(decrypt(encrypted, secrets.encrypt_key))
        if not has_signature and message.get("type") != HANDSHAKE:
            raise NotAuthentic("it has no X-Lark-Signature")
    elif "encrypt" in message:
        raise NotAuthentic("it is encrypted, but the source has no encrypt_key")
    header = message.get("header")
    token = header.get("token") if isinstance(header, dict) else message.get("token")
    if not isinstance(token, str) or not _is_equal(token, secrets.verification_token):
        raise NotAuthentic("its Verification Token is not that of the source")
    return message


def decrypt(encrypted: str, encrypt_key: str) -> bytes:
    """Return the plain bytes of a text: Base64 of an initialization vector and of AES-256-CBC blocks with PKCS #7.

    Raises:
        NotAuthentic: the text was not encrypted with this key.
    """
    try:
        raw = base64.b64decode(encrypted, validate=True)
        key = hashlib.sha256(encrypt_key.encode()).digest()
        decryptor = Cipher(algorithms.AES256(key), modes.CBC(raw[:BLOCK_BYTES])).decryptor()
        unpadder = PKCS7(BLOCK_BYTES * 8).unpadder()
        padded = decryptor.update(raw[BLOCK_BYTES:]) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:  # invalid Base64, an incomplete block, or an invalid padding
        raise NotAuthentic("it was not encrypted with the encrypt_key of the source") from None


def sign(*, timestamp: str, nonce: str, encrypt_key: str, body: bytes) -> str:
    """Return the value of `X-Lark-Signature`: a SHA-256 digest in hexadecimal digits."""
    return hashlib.sha256((timestamp + nonce + encrypt_key).encode("utf-8", "replace") + body).hexdigest()


def _check_signature(request: ReceivedRequest, encrypt_key: str) -> None:
    timestamp = request.headers.get("x-lark-request-timestamp", "")
    nonce = request.headers.get("x-lark-request-nonce", "")
    expected = sign(timestamp=timestamp, nonce=nonce, encrypt_key=encrypt_key, body=request.body)
    if not _is_equal(request.headers["x-lark-signature"], expected):
        raise NotAuthentic("its X-Lark-Signature is wrong; is the encrypt_key of the source that of the app?")
    # Checked after the signature, because an unsigned time proves nothing.
    is_number = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= MAX_TIMESTAMP_DIGITS
    if not is_number or abs(int(timestamp) - request.received_at.timestamp()) > MAX_CLOCK_SKEW:
        raise NotAuthentic("it was signed more than five minutes ago; is the clock of this machine right?")


def _is_equal(received: str, expected: str) -> bool:
    # As bytes, because compare_digest accepts only ASCII strings. "replace" is for half a surrogate pair in JSON.
    return hmac.compare_digest(received.encode("utf-8", "replace"), expected.encode())


def _parse_object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAuthentic("it is not JSON") from None
    if not isinstance(message, dict):
        raise NotAuthentic("it is no JSON object")
    return message
