"""Bearer tokens of sources and operators, as SHA-256 digests.

Token files are read at the start and at each reload of the settings, so a token can be replaced without writing its
digest anywhere. A program that only reads the settings needs no access to the files.
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
    from flowhooks.settings.definitions import Settings

MIN_TOKEN_CHARS: Final = 20
"""Minimum length of a token in a file, so that it cannot be a password that can be guessed."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""Syntax of a bearer token; RFC 6750, section 2.1."""
_MAX_TOKEN_CHARS: Final = 1024


def operator_tokens(settings: Settings) -> dict[str, str]:
    """Return the names of operators by the SHA-256 of each of their tokens, in hexadecimal.

    Raises:
        SettingsError: a file cannot be read or holds no token, or two names share one; one line each, without the
            token.
    """
    owners: dict[str, str] = {}
    for name, source in settings.sources.items():
        owners |= dict.fromkeys(source.token_sha256, f"sources.{name}")
        if source.token_file:
            with suppress(ValueError):  # loading the sources' credentials reports it
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
                problems.append(f"{owner} and operators.{name} have the same token; give each its own token")
            names_by_token[token] = name
    if problems:
        raise SettingsError("\n".join(problems))
    return names_by_token


def check_operators(settings: Settings) -> None:
    """Check that each configured operator can be authenticated.

    Raises:
        SettingsError: a token cannot be read, or the package that checks passwords is missing; one line per problem.
    """
    problems = []
    try:
        operator_tokens(settings)
    except SettingsError as error:
        problems.append(str(error))
    if any(operator.password for operator in settings.operators.values()) and find_spec("argon2") is None:
        problems.append("an operator's password needs a package: pip install 'flowhooks[operators]'")
    if problems:
        raise SettingsError("\n".join(problems))


def token_digest_from_file(name: str) -> str:
    """Return the SHA-256 of the token in a file, in hexadecimal.

    Raises:
        ValueError: as with `token_from_file`.
    """
    return hashlib.sha256(token_from_file(name).encode("ascii")).hexdigest()


def token_from_file(name: str) -> str:
    """Return the token in a file.

    Raises:
        ValueError: the file cannot be read or holds no token; the message does not repeat the content.
    """
    token = secret_from_file(name, private=True)
    if not MIN_TOKEN_CHARS <= len(token) <= _MAX_TOKEN_CHARS or not _TOKEN.fullmatch(token):
        raise ValueError(
            f"the file does not hold a bearer token: one line of {MIN_TOKEN_CHARS} to {_MAX_TOKEN_CHARS} letters, "
            "digits and any of -._~+/"
        )
    return token
