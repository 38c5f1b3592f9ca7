"""Passwords: made into Argon2id hashes and compared with them; it must not know whose they are.

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

LEAST: Final = 12
"""Characters of a new password."""
LONGEST: Final = 256
"""Characters of a password: what is longer is refused before anything is computed of it."""
AT_ONCE: Final = 2
"""Passwords that are compared at the same time: each takes 64 MiB, and half of this listener's threads stay free."""
_DUMMY: Final = "$argon2id$v=19$m=65536,t=3,p=4"


def hashed(password: str) -> str:
    """The hash of a password, as the settings hold it.

    Raises:
        SettingsError: the password is too short or too long, or what makes hashes is not installed.
    """
    plain = _plain(password)
    if not LEAST <= len(plain) <= LONGEST:
        raise SettingsError(f"a password has {LEAST} to {LONGEST} characters")
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415 (an extra, which those with tokens only do without)
    except ImportError:
        raise SettingsError("a password needs a package: pip install 'flowhooks[operators]'") from None
    return PasswordHasher().hash(plain)


class Busy(Exception):
    """As many passwords are being compared as may be at once."""


class Passwords:
    """Compares passwords with hashes, a few at a time."""

    def __init__(self) -> None:
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def match(self, password: str, known: str | None, like: str = "") -> bool:
        """Whether a password is the one that was hashed; takes the same time where there is no such hash.

        Args:
            password: what was given, of any length.
            known: the hash; None: whoever is asked for does not exist, and the answer is no.
            like: a hash of somebody who does exist, which says how long it is to take.

        Raises:
            Busy: it is not known; nothing was compared.
        """
        from argon2 import PasswordHasher  # noqa: PLC0415 (as above)
        from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 (as above)

        if not self._room.acquire(blocking=False):
            raise Busy
        try:
            plain = _plain(password)
            fits = len(plain) <= LONGEST
            return (
                PasswordHasher().verify(known or _nobodys(like), plain if fits else "") and fits and known is not None
            )
        except (VerificationError, InvalidHashError):
            return False
        finally:
            self._room.release()


def _plain(password: str) -> str:
    """The password in the one form that every keyboard comes to."""
    short = password[: LONGEST + 1].encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFKC", short)


def _nobodys(like: str) -> str:
    """A hash that no password has, with the parameters of another."""
    parameters = like.rsplit("$", 2)[0] or _DUMMY
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"{parameters}${salt}${digest}"
