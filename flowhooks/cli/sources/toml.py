"""Write a source as a section of the settings, and create new credentials."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Final

import click

from flowhooks.errors import SettingsError
from flowhooks.settings.credentials import expires_at
from flowhooks.settings.signing_keys import KEY_PREFIX
from flowhooks.settings.types import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flowhooks.settings import Secret, Settings, Source

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_SECRET_BYTES: Final = 32
"""Bytes of a new secret, the same as the output of the hash (SHA-256) that it is used with."""


def source_name(_context: click.Context, _param: click.Parameter, value: str) -> str:
    """Check the name of a source given as an argument."""
    if not NAME.fullmatch(value):
        raise click.BadParameter("a name must have 1 to 100 letters, digits, '.', '_' or '-'")
    return value


def new_secret() -> str:
    """Return a new Standard Webhooks secret of 32 random bytes."""
    return KEY_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode("ascii")


def secret_variable(name: str) -> str:
    """Return the name of an environment variable for a source's secret."""
    return "SOURCE_" + re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_SECRET"


def has_ended(secret: Secret) -> bool:
    """Tell whether a secret has expired."""
    end = expires_at(secret)
    return end is not None and end < time.time_ns() // 1000


def section_lines(name: str, source: Source) -> Iterator[str]:
    """Yield the lines of a source's section in TOML that have its credentials."""
    yield f"[sources.{name if _BARE_KEY.fullmatch(name) else json.dumps(name)}]"
    if source.token_sha256:
        yield f"token_sha256 = {json.dumps(source.token_sha256)}"
    if source.token_file:
        yield f"token_file = {_toml_string(source.token_file)}"
    if source.secrets:
        yield "secrets = ["
        yield from (f"  {_toml_secret(secret)}," for secret in source.secrets)
        yield "]"


def require_credential(name: str, settings: Settings) -> Source:
    """Return a source that has a credential in the settings.

    Raises:
        SettingsError: there is no such source, or it has no credential; the message says why.
    """
    source = settings.sources.get(name)
    if source is None:
        raise SettingsError(f"there is no source {name} in the settings; `flowhooks sources list` lists the sources")
    if source.ingress is not None and source.ingress.receiver:
        raise SettingsError(
            f"the plugin {source.ingress.receiver} checks the credentials of {name}, so only its sender can make a "
            "request that is accepted: send a test request from there. `flowhooks sources test "
            f"{name} --data FILE` shows what the plugin makes of a request"
        )
    if not source.has_credential:
        raise SettingsError(f"{name} is pull-only: it has no credential, so no engine can call as this source")
    return source


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, or none.

    Raises:
        SettingsError: the file exists or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SettingsError(f"the file {path} exists already and was not changed; choose another file") from None
    except (OSError, ValueError) as error:
        raise _not_written(path, error) from None
    try:
        with open(descriptor, "w", encoding="ascii") as opened:  # noqa: PTH123 (it is open already)
            opened.write(f"{text}\n")
            opened.flush()
            os.fsync(descriptor)
    except (OSError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise _not_written(path, error) from None


def _not_written(path: Path, error: OSError | ValueError) -> SettingsError:
    return SettingsError(f"the file {path} cannot be written: {getattr(error, 'strerror', None) or error}")


def _toml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)  # for printable text, a JSON string is a TOML string


def _toml_secret(secret: Secret) -> str:
    location = f"file = {_toml_string(secret.file)}" if secret.file else f"env = {_toml_string(secret.env)}"
    return "{" + location + (f", not_after = {secret.not_after.isoformat()}" if secret.not_after else "") + "}"
