"""Resolve and mask the secrets of plugins and engines.

Anywhere in a plugin's section, a table that is exactly `{env = "NAME"}` or `{file = "PATH"}` is replaced by the string
in that environment variable or file. So flowhooks.toml holds no secret and can be shown, stored and copied.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus

from flowhooks.errors import SettingsError
from flowhooks.settings.types import format_line, format_value
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from flowhooks.settings.definitions import Settings
    from flowhooks.settings.engine import EngineSettings

MAX_SECRET_BYTES: Final = 65_536
"""Maximum size of a secret file: several times a certificate chain with its key."""
MIN_REDACTED_CHARS: Final = 4
"""Minimum length of a masked secret. A shorter one would mask parts of ordinary words."""
MIN_REDACTED_LINE_CHARS: Final = 16
"""Minimum length of a single line of a multi-line secret that is masked on its own."""
REDACTED: Final = "…"

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")

SectionPath = tuple[str | int, ...]
"""Table names and list indexes that lead from a section to a value."""


def location_text(plugin: str, path: SectionPath) -> str:
    """Return the location of a value in a plugin's section, as in `[plugins.NAME] endpoints[0].secret`.

    Args:
        plugin: name of the plugin.
        path: table names and list indexes, from the section on.
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else format_value(part))
    return f"[plugins.{plugin}] {text}".rstrip()


def resolve_secrets(
    section: Mapping[str, Any], *, plugin: str, environ: Mapping[str, str]
) -> tuple[dict[str, Any], set[str]]:
    """Return a copy of a plugin's section with its secrets filled in, and the set of these secrets.

    Args:
        section: the section `[plugins.NAME]`; it is itself never a secret reference.
        plugin: name of the plugin.
        environ: the environment, such as `os.environ`.

    Raises:
        SettingsError: a secret cannot be read; one line that names each location and says what to do, never a value.
    """
    problems: list[str] = []
    secrets: set[str] = set()

    def copy(value: Any, path: SectionPath) -> Any:
        if isinstance(value, dict):
            if path and (reference := secret_reference(value)):
                try:
                    secret = _READERS[reference[0]](reference[1], environ)
                except ValueError as error:
                    problems.append(f"{location_text(plugin, path)}: {error}")
                    return ""
                secrets.add(secret)
                return secret
            return {key: copy(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [copy(item, (*path, index)) for index, item in enumerate(value)]
        return value

    result = {key: copy(value, (key,)) for key, value in section.items()}
    if problems:
        raise SettingsError("; ".join(problems))
    return result, secrets


def secret_variables(sections: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the environment variables that these sections take secrets from."""
    return (name for how, name in _secret_references(sections) if how == "env")


def settings_redactor(settings: Settings, environ: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that masks the readable secrets of all plugins and engines, as `redactor` does.

    Args:
        settings: the settings.
        environ: the environment, such as `os.environ`.
    """
    return redactor(_settings_secrets(settings, environ))


class SettingsRedactor:
    """Masks the readable secrets of all settings that were added, as `redactor` does.

    A plugin may keep a secret of earlier settings, so these stay masked.

    Args:
        environ: the environment, such as `os.environ`.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._secrets: set[str] = set()
        self._redact = redactor(())

    def add(self, settings: Settings) -> None:
        """From now on, mask the secrets of these settings, too."""
        self._secrets |= _settings_secrets(settings, self._environ)
        self._redact = redactor(self._secrets)

    def __call__(self, text: str) -> str:
        """Return the text with its secrets masked."""
        return self._redact(text)


def _settings_secrets(settings: Settings, environ: Mapping[str, str]) -> set[str]:
    secrets = set()
    for how, name in _secret_references(settings.plugins.values()):
        with suppress(ValueError):  # loading the plugin reports it
            # A file that every user can read is masked too: the plugin may read it itself.
            secrets.add(secret_from_file(name) if how == "file" else secret_from_environ(name, environ))
    for source in settings.sources.values():
        if source.engine is not None:
            with suppress(ValueError):  # creating the engine client reports it
                secrets |= set(read_engine_secrets(source.engine, environ).values())
    return secrets


def read_engine_secrets(engine: EngineSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Read the password and the token of an engine; return each that is set, by its name.

    With a password, `"basic"` is the credential that HTTP Basic authentication makes of it.

    Raises:
        ValueError: a secret cannot be read; the message names the setting, and never repeats the content.
    """
    values = {}
    for name, secret in (("password", engine.password), ("token", engine.token)):
        if secret is not None:
            try:
                values[name] = (
                    secret_from_file(secret.file, private=True)
                    if secret.file
                    else secret_from_environ(secret.env, environ)
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    if "password" in values:
        values["basic"] = base64.b64encode(f"{engine.username}:{values['password']}".encode()).decode()
    return values


def _secret_references(sections: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of each secret reference in these sections."""
    for section in sections:
        for value in section.values():
            yield from _references_within(value)


def _references_within(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if reference := secret_reference(value):
            yield reference
        for item in value.values():
            yield from _references_within(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references_within(item)


def secret_reference(table: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the kind and the name if `table` is a secret reference."""
    if len(table) == 1:
        ((how, name),) = table.items()
        if how in _READERS and isinstance(name, str):
            return how, name
    return None


def secret_from_environ(name: str, environ: Mapping[str, str]) -> str:
    """Return the secret in an environment variable.

    Args:
        name: name of the variable.
        environ: the environment, such as `os.environ`.

    Raises:
        ValueError: the secret cannot be read; the message says why and what to do.
    """
    if not name:
        raise ValueError("env = must be the name of an environment variable, not an empty string")
    value = environ.get(name)
    if not value:
        what = "is empty" if value == "" else "is not set"
        raise ValueError(f"the environment variable {format_line(name)} {what}; set it in the environment of flowhooks")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the environment variable {format_line(name)} is not UTF-8; set it to text") from None
    return value


def _secret_from_private_file(name: str, environ: Mapping[str, str]) -> str:  # noqa: ARG001 (as `secret_from_environ`)
    return secret_from_file(name, private=True)


def secret_from_file(name: str, *, private: bool = False) -> str:
    """Return the secret in a file, without the line end.

    Args:
        name: path of the file.
        private: whether to refuse a file that every user of this machine can read or write.

    Raises:
        ValueError: the secret cannot be read; the message says why and what to do, and never repeats the content.
    """
    file = f"the file {format_line(name)}"
    try:
        content = _read_file(Path(name).expanduser(), file, private=private)
        text = content.decode()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}; write the secret into it") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 at byte {error.start + 1}; a secret must be text") from None
    except RuntimeError:
        raise ValueError(f"{file} cannot be read: '~' cannot be expanded because there is no home folder") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{file} is empty; write the secret into it")
    if text.startswith("\ufeff"):
        raise ValueError(f"{file} starts with a byte order mark; save it as UTF-8 without one")
    return text


def _read_file(path: Path, file: str, *, private: bool) -> bytes:
    if "\0" in str(path):
        raise ValueError(f"{file} cannot be read: its name contains a NUL character")
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:  # noqa: PTH123 (it is open already)
        mode = os.fstat(descriptor).st_mode
        if private and stat.S_ISREG(mode) and mode & stat.S_IRWXO:
            raise ValueError(f"{file} can be read or written by every user of this machine; restrict it with chmod o=")
        if not stat.S_ISREG(mode):
            raise ValueError(f"{file} is not a regular file; give a file that holds only the secret")
        content = opened.read(MAX_SECRET_BYTES + 1)
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"{file} has more than {MAX_SECRET_BYTES} bytes; give a file that holds only the secret")
    return content


_READERS: Final[Mapping[str, Callable[[str, Mapping[str, str]], str]]] = {
    "env": secret_from_environ,
    "file": _secret_from_private_file,
}
"""Keys of a secret reference, each with the function that reads the secret."""


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that replaces each occurrence of a secret in a text with `…`.

    A secret of at least 4 characters is found unchanged, as written by `repr`, JSON and URLs, in JSON that `repr` or
    JSON has written, with its white space collapsed, and, if it has several lines, by its longer lines. Values that a
    plugin derives from a secret, such as a hash, are not found.

    Args:
        secrets: the values.
    """
    forms = {form for secret in secrets if len(secret.strip()) >= MIN_REDACTED_CHARS for form in _forms(secret)}
    if not forms:
        return lambda text: text
    # The longest form comes first, so that a secret that starts with another one is masked completely.
    pattern = re.compile("|".join(map(re.escape, sorted(forms, key=lambda form: (-len(form), form)))))
    return lambda text: pattern.sub(REDACTED, text)


def _forms(secret: str) -> Iterator[str]:
    """Yield the forms in which a text may contain a secret."""
    yield secret
    in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for text in (secret, *in_json):
        yield text
        yield json.dumps(text)[1:-1]
        # Within a text with a `"`, `repr` escapes each `'`.
        for quotes in ("", '"'):
            yield repr(quotes + text)[1 + len(quotes) : -1]
            yield ascii(quotes + text)[1 + len(quotes) : -1]
            yield repr((quotes + text).encode())[2 + len(quotes) : -1]
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    joined = one_line(secret)
    if len(joined) >= MIN_REDACTED_CHARS:
        yield joined
    for line in secret.splitlines()[:1000]:
        if len(line.strip()) >= MIN_REDACTED_LINE_CHARS:
            yield line.strip()
