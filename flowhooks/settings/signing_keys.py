"""Location and expiry of the secrets with which engines sign."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from flowhooks.settings.types import SettingType

KEY_PREFIX: Final = "whsec_"
"""Prefix of a Standard Webhooks secret."""
MIN_KEY_BYTES: Final = 24
MAX_KEY_BYTES: Final = 64
"""Length limits of a decoded secret, from Standard Webhooks."""
MIN_TEXT_KEY_BYTES: Final = 16
"""Minimum length of a key that is a text: a shorter one could be found by trying, from one signed request."""
MAX_TEXT_KEY_BYTES: Final = 1024
MAX_SECRETS: Final = 8
"""Maximum number of secrets per source. An invalid signature is compared with all of them."""
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_ALLOWED: Final = 'a table such as {file = "PATH"} or {env = "NAME"}, with not_after if it expires'


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Location of a secret, never the secret itself.

    Attributes:
        file: path of the file that holds the secret; `""` if `env` is set.
        env: environment variable that holds the secret; `""` if `file` is set.
        not_after: time after which signatures made with the secret are refused; None: no expiry.
    """

    file: str = ""
    env: str = ""
    not_after: datetime | None = None

    @property
    def location(self) -> str:
        """Location of the secret, in words."""
        return f"the file {self.file}" if self.file else f"the variable {self.env}"


def secret() -> SettingType:
    """Return the type of a secret's location. Errors never repeat the value, which may be the secret itself."""

    def check(value: Any) -> Secret:
        if not isinstance(value, dict):
            raise ValueError(f"must be {_ALLOWED}, not the secret itself")  # noqa: TRY004 (as every check does)
        if not set(value) <= {"file", "env", "not_after"} or len({"file", "env"} & set(value)) != 1:
            raise ValueError(f"must be {_ALLOWED}, with no other members")
        return Secret(
            file=_file(value["file"]) if "file" in value else "",
            env=_variable(value["env"]) if "env" in value else "",
            not_after=_timestamp(value["not_after"]) if "not_after" in value else None,
        )

    return SettingType(_ALLOWED, check)


def secret_location() -> SettingType:
    """Return the type of the location of a password or a token: as `secret`, without an expiry time."""
    allowed = 'a table such as {file = "PATH"} or {env = "NAME"}'

    def check(value: Any) -> Secret:
        if not isinstance(value, dict) or len(value) != 1 or not set(value) <= {"file", "env"}:
            raise ValueError(f"must be {allowed}, not the secret itself")
        return secret().check(value)  # type: ignore[no-any-return]  # the check of `secret` returns a `Secret`

    return SettingType(allowed, check)


def decode_key(text: str) -> bytes:
    """Decode a secret into its key.

    Raises:
        ValueError: the text is not a secret; the message does not repeat it.
    """
    encoded = text.removeprefix(KEY_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True) if text.isascii() else b""
    except binascii.Error:
        key = b""
    if encoded == text or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(
            f"does not hold a Standard Webhooks secret: {KEY_PREFIX} and {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes in "
            "base64, in one line"
        )
    return key


def encode_text_key(text: str) -> bytes:
    """Return the key of a source with a signature scheme: the UTF-8 bytes of the secret, as the sender uses it.

    Raises:
        ValueError: the text is too short or too long, or has several lines; the message does not repeat it.
    """
    key = text.encode()
    if not MIN_TEXT_KEY_BYTES <= len(key) <= MAX_TEXT_KEY_BYTES or len(text.splitlines()) > 1:
        raise ValueError(
            f"does not hold a secret of {MIN_TEXT_KEY_BYTES} to {MAX_TEXT_KEY_BYTES} bytes, in one line, as the sender "
            "uses it"
        )
    return key


def _file(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable() or value.startswith(KEY_PREFIX):
        raise ValueError("must have the path of a file in file, not the secret itself")
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        raise ValueError("has '~' in file, which cannot be expanded because there is no home folder") from None


def _variable(value: Any) -> str:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value) or value.startswith(KEY_PREFIX):
        raise ValueError("must have the name of an environment variable in env, not the secret itself")
    return value


def _timestamp(value: Any) -> datetime:
    parsed = value
    if isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            parsed = None
    if not isinstance(parsed, datetime) or parsed.utcoffset() is None:
        raise ValueError("must have a time with a time zone in not_after, such as 2026-12-31T00:00:00Z")
    try:
        parsed.astimezone(UTC)
    except OverflowError:
        raise ValueError("must have a time from year 1 to year 9999 UTC in not_after; leave it out for never") from None
    return parsed
