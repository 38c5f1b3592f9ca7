"""Credentials of sources, read from the locations that the settings name.

Files are read at the start of a server and at each reload of its settings, so a secret can be replaced without writing
it into the settings. A program that only reads the settings needs no access to the files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from flowhooks.errors import SettingsError
from flowhooks.settings.secrets import secret_from_environ, secret_from_file
from flowhooks.settings.signing_keys import decode_key, encode_text_key
from flowhooks.settings.tokens import token_digest_from_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.settings.definitions import Settings
    from flowhooks.settings.named_sections import Source
    from flowhooks.settings.signing_keys import Secret

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A signing secret that has been read.

    Attributes:
        key: bytes of the key.
        not_after: time of expiry in microseconds since 1970; None: no expiry.
    """

    key: bytes = field(repr=False)
    not_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCredentials:
    """Credentials of one source.

    Attributes:
        tokens: SHA-256 of each token, in hexadecimal.
        keys: signing keys: of Standard Webhooks, or of the source's signature scheme if it has one.
    """

    tokens: tuple[str, ...] = field(default=(), repr=False)
    keys: tuple[SigningKey, ...] = ()


def load_source_credentials(settings: Settings, environ: Mapping[str, str]) -> dict[str, SourceCredentials]:
    """Load the credentials of each source that may call, by its name.

    Args:
        settings: the settings.
        environ: the environment, such as `os.environ`.

    Raises:
        SettingsError: a token or secret cannot be read, or two names share one; one line per problem, without the
            value.
    """
    problems: list[str] = []
    by_source = {
        name: _load_credentials(name, source, environ, problems) for name, source in settings.calling_sources.items()
    }
    problems += _find_shared(settings, by_source)
    if problems:
        raise SettingsError("\n".join(problems))
    return by_source


def check_sources(settings: Settings, environ: Mapping[str, str]) -> None:
    """Check that all credentials of sources can be read.

    Raises:
        SettingsError: a credential cannot be used; one line per problem.
    """
    load_source_credentials(settings, environ)


def read_secret(secret: Secret, environ: Mapping[str, str]) -> str:
    """Read a secret from its location.

    Raises:
        ValueError: the secret cannot be read or is invalid; the message does not repeat it.
    """
    text = _read_text(secret, environ)
    try:
        decode_key(text)
    except ValueError as error:
        raise ValueError(f"{secret.location} {error}") from None
    return text


def read_signing_key(source: Source, secret: Secret, environ: Mapping[str, str]) -> bytes:
    """Read one of the secrets of a source; return the key with which the source signs.

    The secret of a source with a signature scheme is any text; otherwise it is a Standard Webhooks secret.

    Raises:
        ValueError: the secret cannot be read or is invalid; the message does not repeat it.
    """
    if source.signature is None:
        return decode_key(read_secret(secret, environ))
    text = _read_text(secret, environ)
    try:
        return encode_text_key(text)
    except ValueError as error:
        raise ValueError(f"{secret.location} {error}") from None


def expires_at(secret: Secret) -> int | None:
    """Return the expiry time of a secret in microseconds since 1970; None: no expiry."""
    return None if secret.not_after is None else (secret.not_after - _EPOCH) // timedelta(microseconds=1)


def _read_text(secret: Secret, environ: Mapping[str, str]) -> str:
    return secret_from_file(secret.file, private=True) if secret.file else secret_from_environ(secret.env, environ)


def _load_credentials(name: str, source: Source, environ: Mapping[str, str], problems: list[str]) -> SourceCredentials:
    tokens, keys = list(source.token_sha256), []
    if source.token_file:
        try:
            tokens.append(token_digest_from_file(source.token_file))
        except ValueError as error:
            problems.append(f"sources.{name}.token_file: {error}")
    for secret in source.secrets:
        try:
            keys.append(SigningKey(key=read_signing_key(source, secret, environ), not_after=expires_at(secret)))
        except ValueError as error:
            problems.append(f"sources.{name}.secrets: {error}")
    return SourceCredentials(tokens=tuple(dict.fromkeys(tokens)), keys=tuple(keys))


def _find_shared(settings: Settings, by_source: Mapping[str, SourceCredentials]) -> Iterator[str]:
    owners: dict[str | bytes, str] = {
        token: f"operators.{name}" for name, operator in settings.operators.items() for token in operator.token_sha256
    }
    for name, source_credentials in by_source.items():
        credentials: list[str | bytes] = [*source_credentials.tokens, *(key.key for key in source_credentials.keys)]
        for credential in dict.fromkeys(credentials):
            if (owner := owners.setdefault(credential, f"sources.{name}")) != f"sources.{name}":
                what = "secret" if isinstance(credential, bytes) else "token"
                yield f"{owner} and sources.{name} have the same {what}; give each its own {what}"
