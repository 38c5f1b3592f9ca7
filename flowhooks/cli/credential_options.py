"""Credentials of commands that send callbacks: tokens and signatures.

Both are read from files or environment variables, never from an option, which other users of the machine could read.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Final

from flowhooks.cli.options import read_file
from flowhooks.clock import SECOND, Clock
from flowhooks.errors import SettingsError
from flowhooks.settings.secrets import secret_from_file
from flowhooks.settings.signing_keys import decode_key
from flowhooks.web.callback import signature_schemes, signatures

if TYPE_CHECKING:
    from pathlib import Path

    from flowhooks.settings import SignatureSettings

TOKEN_VARIABLE: Final = "FLOWHOOKS_TOKEN"  # noqa: S105 (the variable's name)
SECRET_VARIABLE: Final = "FLOWHOOKS_SECRET"  # noqa: S105 (the variable's name)


def read_token(file: Path | None) -> str:
    """Return the token in a file or in the environment variable; `""` if there is none.

    Raises:
        SettingsError: the file cannot be read or holds no token; the message does not repeat the content.
    """
    source = f"the file {file}" if file else f"the variable {TOKEN_VARIABLE}"
    text = read_file(file, "token file").decode(errors="replace") if file else os.environ.get(TOKEN_VARIABLE, "")
    token = text.strip()
    if file and not token:
        raise SettingsError(f"{source} is empty")
    if not token.isascii() or not token.isprintable() or set(token) & set(" ,"):
        raise SettingsError(f"{source} does not hold a single token of printable ASCII without spaces and commas")
    return token


def read_key(file: Path | None) -> bytes | None:
    """Return the secret in a file or in the environment variable; None if there is none.

    Raises:
        SettingsError: the file cannot be read or holds no secret; the message does not repeat the content.
    """
    source = f"the file {file}" if file else f"the variable {SECRET_VARIABLE}"
    try:
        text = secret_from_file(str(file)) if file else os.environ.get(SECRET_VARIABLE, "")
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if not text:
        return None
    try:
        return decode_key(text)
    except ValueError as error:
        raise SettingsError(f"{source} {error}") from None


def signature_headers(key: bytes, body: bytes) -> dict[str, str]:
    """Return the headers that sign a body, with the current time and a new message id."""
    clock = Clock()
    return signatures.sign([key], body, message=clock.new_id(), at=clock.now())


def scheme_headers(scheme: SignatureSettings, key: bytes, body: bytes) -> dict[str, str]:
    """Return the headers that sign a body by a signature scheme, with the current time and a new id."""
    clock = Clock()
    headers: dict[str, str] = {}
    signed_prefix = b""
    if scheme.timestamp_header:
        headers[scheme.timestamp_header] = str(clock.now() // SECOND)
        signed_prefix = f"{headers[scheme.timestamp_header]}.".encode("ascii")
    if scheme.id_header:
        headers[scheme.id_header] = clock.new_id()
    digest = signature_schemes.compute(key, signed_prefix, body, scheme.hash_name)
    encoded = digest.hex() if scheme.encoding == "hex" else base64.b64encode(digest).decode("ascii")
    return {**headers, scheme.header: scheme.prefix + encoded}
