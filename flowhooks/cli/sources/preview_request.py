"""Preview a request that a user gives to `flowhooks sources test`: its body in a file, and options."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import read_file
from flowhooks.cli.route_lookup import load_route_lookup
from flowhooks.cli.sources import preview, preview_text
from flowhooks.errors import SettingsError
from flowhooks.observability import logging
from flowhooks.settings.secrets import settings_redactor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowhooks.settings import Settings

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_REQUEST_LINE: Final = re.compile(rb"(?:GET|POST) [^ \r\n]+ HTTP/")


def preview_request(
    settings: Settings, name: str, file: Path, *, headers: Sequence[str], query: str | None, is_get: bool, as_json: bool
) -> None:
    """Preview the request whose body is in a file; `-` is standard input. Exits with 1 if it is not delivered.

    Raises:
        SettingsError: there is no such source, it has no fixed URL, or the file cannot be read.
        click.UsageError: a header is malformed, the file has more than the body, or only a receiver takes such a
            request.
    """
    source = settings.sources.get(name)
    if source is None:
        raise SettingsError(f"there is no source {name} in the settings; `flowhooks sources list` lists the sources")
    if source.ingress is None:
        raise SettingsError(
            f"{name} has no section [sources.{name}.ingress], so it has no fixed URL; `flowhooks routes --data` "
            "explains the body of a callback"
        )
    if is_get and not source.ingress.receiver:
        raise click.UsageError(f"{name} has no receiver, so GET is answered 401.")
    # Log at critical only: the printed result has the errors of plugins.
    logging.configure("critical", "text", redact=settings_redactor(settings, os.environ))
    body = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    if _REQUEST_LINE.match(body):
        raise click.UsageError(
            f"{file} has a whole HTTP request, but --data takes only its body: remove the lines up to the first empty "
            "one, and give headers with --header."
        )
    given = _parse_headers(headers)
    media_type = preview.default_media_type(source.ingress, headers=given, body=body)
    assumed = media_type is not None and "content-type" not in given
    if assumed and media_type:
        given["content-type"] = media_type
    given.setdefault("accept-language", _locale())
    request = preview.ExampleRequest(method="GET" if is_get else "POST", query=query or "", headers=given, body=body)
    loaded = load_route_lookup(settings)
    if problems := loaded.plugins.ingress_problems({name: source}):
        raise SettingsError("\n".join(problems))
    shown = preview.preview(settings, loaded, name, request)
    if as_json:
        output.print_json(preview_text.preview_to_json(name, request, shown, loaded.lookup, assumed=assumed))
    else:
        preview_text.print_preview(name, request, shown, loaded.lookup, assumed=assumed)
    if not preview_text.is_delivered(shown):
        raise SystemExit(1)


def _parse_headers(headers: Sequence[str]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for header in headers:
        name, colon, value = (part.strip() for part in header.partition(":"))
        if not colon or not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise click.BadParameter("write 'NAME: VALUE'", param_hint="--header")
        if "_" in name:
            raise click.BadParameter(f"a server ignores {name}, because it has a _: write a -", param_hint="--header")
        lower = name.lower()
        parsed[lower] = f"{parsed[lower]}, {value}" if lower in parsed else value
    return parsed


def _locale() -> str:
    """Return the language of messages in the environment, as a value of `Accept-Language`."""
    names = (os.environ.get(variable) for variable in ("LC_ALL", "LC_MESSAGES", "LANG"))
    return next((name for name in names if name), "").partition(".")[0]
