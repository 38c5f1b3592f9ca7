"""Passwords: made into Argon2id hashes and compared with them.

The parameters are argon2-cffi's defaults, those of RFC 9106 for machines with little memory: 64 MiB, three passes, four
lanes, a tenth of a second. That is more than OWASP asks for.
"""

from __future__ import annotations

import base64
import secrets
import threading
import unicodedata
from typing import Final

from flowhooks.errors import SettingsError

MIN_CHARS: Final = 12
"""Characters of a new password."""
MAX_CHARS: Final = 256
"""Characters of a password: what is longer is refused before anything is computed of it."""
MAX_PARALLEL_VERIFICATIONS: Final = 2
"""Passwords that are compared at the same time: each takes 64 MiB, and half of this listener's threads stay free."""
_DUMMY_PARAMETERS: Final = "$argon2id$v=19$m=65536,t=3,p=4"


def hash_password(password: str) -> str:
    """The hash of a password, as the settings hold it.

    Raises:
        SettingsError: the password is too short or too long, or what makes hashes is not installed.
    """
    plain = _normalize(password)
    if not MIN_CHARS <= len(plain) <= MAX_CHARS:
        raise SettingsError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415 (an extra, which those with tokens only do without)
    except ImportError:
        raise SettingsError("a password needs a package: pip install 'flowhooks[operators]'") from None
    return PasswordHasher().hash(plain)


class TooManyVerifications(Exception):
    """As many passwords are being compared as may be at once."""


class PasswordVerifier:
    """Compares passwords with hashes, a few at a time."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(MAX_PARALLEL_VERIFICATIONS)

    def verify(self, password: str, password_hash: str | None, example_hash: str = "") -> bool:
        """Whether a password is the one that was hashed; takes the same time where there is no such hash.

        Args:
            password: what was given, of any length.
            password_hash: the hash; None: whoever is asked for does not exist, and the answer is no.
            example_hash: a hash of somebody who does exist, which says how long it is to take.

        Raises:
            TooManyVerifications: it is not known; nothing was compared.
        """
        from argon2 import PasswordHasher  # noqa: PLC0415 (as above)
        from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 (as above)

        if not self._slots.acquire(blocking=False):
            raise TooManyVerifications
        try:
            normalized = _normalize(password)
            is_short_enough = len(normalized) <= MAX_CHARS
            return (
                PasswordHasher().verify(
                    password_hash or _dummy_hash(example_hash), normalized if is_short_enough else ""
                )
                and is_short_enough
                and password_hash is not None
            )
        except (VerificationError, InvalidHashError):
            return False
        finally:
            self._slots.release()


def _normalize(password: str) -> str:
    # Keyboards differ in how they compose characters.
    short = password[: MAX_CHARS + 1].encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFKC", short)


def _dummy_hash(example_hash: str) -> str:
    """Return a hash that no password matches, with the parameters of another one."""
    parameters = example_hash.rsplit("$", 2)[0] or _DUMMY_PARAMETERS
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"{parameters}${salt}${digest}"
