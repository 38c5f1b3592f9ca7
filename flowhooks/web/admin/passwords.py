"""Password hashing and verification with Argon2id.

The parameters are argon2-cffi's defaults, which RFC 9106 recommends for machines with little memory: 64 MiB, three
passes, four lanes. A hash takes about 0.1 s. That is stricter than OWASP's recommendation.
"""

from __future__ import annotations

import base64
import secrets
import threading
import unicodedata
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from flowhooks.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

MIN_CHARS: Final = 12
"""Minimum length of a new password, in characters."""
MAX_CHARS: Final = 256
"""Maximum length of a password, in characters. A longer one is rejected before anything is computed from it."""
MAX_PARALLEL_VERIFICATIONS: Final = 2
"""Number of passwords that are verified at once. Each takes 64 MiB, and half of this listener's threads stay free."""
MAX_WAITING: Final = 64
"""Maximum number of logins that wait for their turn; each has a thread while it waits."""
MAX_WAIT_SECONDS: Final = 1.0
"""Seconds for which a login waits for its turn. About sixteen others are verified in that time."""
_DUMMY_PARAMETERS: Final = "$argon2id$v=19$m=65536,t=3,p=4"


def hash_password(password: str) -> str:
    """Return the hash of a password, for the settings.

    Raises:
        SettingsError: the password is too short or too long, or the package for hashes is not installed.
    """
    plain = _normalize(password)
    if not MIN_CHARS <= len(plain) <= MAX_CHARS:
        raise SettingsError(f"a password has {MIN_CHARS} to {MAX_CHARS} characters")
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415 (an optional dependency; tokens do not need it)
    except ImportError:
        raise SettingsError("a password needs a package: pip install 'flowhooks[operators]'") from None
    return PasswordHasher().hash(plain)


class TooManyVerifications(Exception):
    """The turn of this login did not come in time."""


class PasswordVerifier:
    """A verifier of passwords, at most `MAX_PARALLEL_VERIFICATIONS` at a time, the others in the order of arrival.

    In a flood of logins a new one waits, because immediate rejection would favour the client that tries most often.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._waiting: deque[threading.Event] = deque()

    def verify(
        self,
        password: str,
        password_hash: str | None,
        example_hash: str = "",
        *,
        while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> bool:
        """Return whether a password matches a hash; takes the same time if there is no hash.

        Args:
            password: the entered password, of any length.
            password_hash: the hash; None if there is no such operator, in which case the result is False.
            example_hash: the hash of an existing operator, whose parameters determine the time.
            while_waiting: a context for the wait, if there is one.

        Raises:
            TooManyVerifications: nothing was compared.
        """
        from argon2 import PasswordHasher  # noqa: PLC0415 (as above)
        from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415 (as above)

        self._begin(while_waiting)
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
            self._end()

    def _begin(self, while_waiting: Callable[[], AbstractContextManager[None]]) -> None:
        with self._lock:
            if self._running < MAX_PARALLEL_VERIFICATIONS:
                self._running += 1
                return
            if len(self._waiting) >= MAX_WAITING:
                raise TooManyVerifications
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            with while_waiting():
                turn.wait(MAX_WAIT_SECONDS)
        except BaseException:  # for example, the context could not start a thread
            if not self._withdraw(turn):
                self._end()
            raise
        if self._withdraw(turn):
            raise TooManyVerifications

    def _withdraw(self, turn: threading.Event) -> bool:
        """Stop waiting for a turn; return False if it has come."""
        with self._lock:
            if turn.is_set():
                return False
            self._waiting.remove(turn)
            return True

    def _end(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # the next one takes this place, so nobody can come before it
            else:
                self._running -= 1


def _normalize(password: str) -> str:
    # Keyboards differ in how they compose characters.
    short = password[: MAX_CHARS + 1].encode("utf-8", "replace").decode()
    return unicodedata.normalize("NFKC", short)


def _dummy_hash(example_hash: str) -> str:
    """Return a hash that no password matches, with the parameters of another one."""
    parameters = example_hash.rsplit("$", 2)[0] or _DUMMY_PARAMETERS
    salt, digest = (base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"{parameters}${salt}${digest}"
