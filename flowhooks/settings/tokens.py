"""Bearer tokens, those in files among them, as their SHA-256s.

A file is read at the start and whenever the settings are read again, so that a token can be replaced without writing a
hash of it anywhere. Whoever only reads the settings does not need to be able to read it.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from flowhooks.errors import SettingsError
from flowhooks.settings.secrets import secret_from_file

if TYPE_CHECKING:
    from flowhooks.settings.model import Settings

MIN_TOKEN_CHARS: Final = 20
"""Characters of a token in a file: nobody is to write a password into it that can be guessed."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token may look like; RFC 6750, section 2.1."""
_MAX_TOKEN_CHARS: Final = 1024


def operator_tokens(settings: Settings) -> dict[str, str]:
    """The names of operators by the SHA-256 of each of their tokens, in hexadecimal.

    Raises:
        SettingsError: a file cannot be read or holds no token, or a token names two; a line for each, never a token.
    """
    owners: dict[str, str] = {}
    for name, source in settings.sources.items():
        owners |= dict.fromkeys(source.token_sha256, f"sources.{name}")
        if source.token_file:
            with suppress(ValueError):  # whoever lets sources in says so
                owners[token_digest_from_file(source.token_file)] = f"sources.{name}"
    names_by_token: dict[str, str] = {}
    problems = []
    for name, operator in settings.operators.items():
        tokens = list(operator.token_sha256)
        if operator.token_file:
            try:
                tokens.append(token_digest_from_file(operator.token_file))
            except ValueError as error:
                problems.append(f"operators.{name}.token_file: {error}")
        for token in tokens:
            if (owner := owners.setdefault(token, f"operators.{name}")) != f"operators.{name}":
                problems.append(f"{owner} and operators.{name} have the same token; a token names one of them")
            names_by_token[token] = name
    if problems:
        raise SettingsError("\n".join(problems))
    return names_by_token


def check_operators(settings: Settings) -> None:
    """See that everybody named in the settings could come in.

    Raises:
        SettingsError: a token cannot be had, or nothing is installed that checks passwords; one line for each.
    """
    problems = []
    try:
        operator_tokens(settings)
    except SettingsError as error:
        problems.append(str(error))
    if any(operator.password for operator in settings.operators.values()) and find_spec("argon2") is None:
        problems.append("the password of an operator needs a package: pip install 'flowhooks[operators]'")
    if problems:
        raise SettingsError("\n".join(problems))


def token_digest_from_file(name: str) -> str:
    """The SHA-256 of the token that a file holds, in hexadecimal.

    Raises:
        ValueError: as `token_from_file`.
    """
    return hashlib.sha256(token_from_file(name).encode("ascii")).hexdigest()


def token_from_file(name: str) -> str:
    """The token that a file holds.

    Raises:
        ValueError: it cannot be had, or is none; nothing of it is repeated.
    """
    token = secret_from_file(name, private=True)
    if not MIN_TOKEN_CHARS <= len(token) <= _MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
        raise ValueError(
            f"the file holds no bearer token: one line of {MIN_TOKEN_CHARS} to {_MAX_TOKEN_CHARS} letters, "
            "digits and any of -._~+/"
        )
    return token
