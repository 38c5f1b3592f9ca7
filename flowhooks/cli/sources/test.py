"""`flowhooks sources test`: check credentials at a server, or preview a request, without creating an event."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import credential_options, output
from flowhooks.cli.http_client import local_url, post
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.sources.toml import has_ended, require_credential, source_name
from flowhooks.errors import SettingsError
from flowhooks.settings.credentials import read_signing_key
from flowhooks.settings.tokens import token_digest_from_file, token_from_file
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.settings import Settings, Source

TEST_PATH: Final = "/flow/flowhooks%20sources%20test/call-back/complete"
"""Path of the test request."""
TEST_BODY: Final = b'["flowhooks sources test"]'
"""Body of the test request: a list, which no callback is. If it is authenticated, it is rejected and not stored."""
UNKNOWN_TYPE: Final = {"Content-Type": "text/x-flowhooks-test"}
"""Header of a test request to `/in/NAME`. No format has this type, so an authenticated request is answered 415 and is
neither stored nor ignored."""
_AUTHENTICATED: Final = frozenset({400, 415, 422})
_TIMEOUT: Final = 15.0


@click.command("test", short_help="Check credentials at a server, or preview a request.")
@click.argument("name", callback=source_name)
@click.option("--to", type=utf8, metavar="URL", help="Address of the server [default: the setting listen].")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Read the bearer token from FILE [default: token_file, or the variable {credential_options.TOKEN_VARIABLE}].",
)
@click.option(
    "--data",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Show what the source makes of a request with the body in FILE, without a server; - for the standard input.",
)
@click.option(
    "--header",
    "headers",
    type=utf8,
    multiple=True,
    metavar="'NAME: VALUE'",
    help="With --data: a header of the request; may be given more than once [default: the Content-Type of the format].",
)
@click.option("--query", type=utf8, metavar="TEXT", help="With --data: the query of the request, such as a=1&b=2.")
@click.option("--get", "is_get", is_flag=True, help="With --data: the request is a GET, such as a handshake.")
@json_option
@settings_options
def test_command(
    settings: Settings, *, name: str, to: str | None, token_file: Path | None, file: Path | None, **options: Any
) -> None:
    r"""Check the credentials of a source at a server, or show with --data what the source makes of a request.

    Without --data, the command calls a server with each credential of the source that can be read here, and says which
    ones it accepts.

    An expired secret is not tried. The test request is not a callback and stores no event: the server authenticates it,
    and then rejects its body. A secret of [sources.NAME.signature] is tried at the fixed URL /in/NAME. Each test
    request is listed among the rejected requests. The command also sends a request without a credential, which the
    server must reject.

    With --data, the command needs no server and stores nothing. It shows what a request to the fixed URL /in/NAME
    becomes by [sources.NAME.ingress], or which rule ignores it; which handlers would get it, and why; and what the
    sender would be answered. A receiver is called with the request. Errors are in the language of the request's header
    Accept-Language, or of the environment. Credentials, addresses and rates are not checked.

    \b
    Examples:
      flowhooks sources test erp
      flowhooks sources test erp --to https://flowhooks.example.com
      flowhooks sources test yudao --data request.txt
      flowhooks sources test yudao --data request.txt --json | jq '.answer'

    Exit codes: 0 all credentials are accepted, 1 one is rejected or there is no answer, 2 wrong usage, or no such
    source. With --data: 0 the sender is answered with a success and no event is parked, otherwise 1.
    """
    if file is not None:
        if to is not None or token_file is not None:
            raise click.UsageError("--data calls no server: leave out --to and --token-file.")
        from flowhooks.cli.sources.preview_request import preview_request  # noqa: PLC0415 (loads schemas and plugins)

        preview_request(settings, name, file, **options)
        return
    if any(options.values()):
        raise click.UsageError("--header, --query, --get and --json need --data.")
    source = require_credential(name, settings)
    base = to or local_url(settings)
    credentials = list(_credentials(name, source, token_file))
    if not credentials and not (source.token_sha256 or source.token_file):
        raise SettingsError(f"all secrets of {name} have expired: `{command_line('sources', 'rotate', name)}`")
    if not credentials:
        raise SettingsError(
            f"no credential of {name} can be read here: give --token-file, or set the variable "
            f"{credential_options.TOKEN_VARIABLE}"
        )
    is_ok = _try_credential(base, "without a credential", {}, name=None)
    for what, headers, path in credentials:
        is_ok &= _try_credential(base, what, headers, name=name, path=path)
    if not is_ok:
        raise SystemExit(1)


def _try_credential(base: str, what: str, headers: dict[str, str], *, name: str | None, path: str = TEST_PATH) -> bool:
    sent = {"Content-Type": "application/json", "Accept-Language": "en"} | headers
    status = post(base, path, body=TEST_BODY, headers=sent, timeout=_TIMEOUT).status
    if status in _AUTHENTICATED:
        is_ok, message = (
            name is not None,
            f"accepted as source {name}" if name else ("accepted: callbacks need no credential"),
        )
    elif name is None and status == 401:  # noqa: PLR2004 (HTTP 401)
        is_ok, message = True, "rejected: 401, as expected"
    else:
        words = {
            401: "the credential is not known",
            403: "the address is not allowed",
            429: "the credential is known, but the rate limit is exceeded",
        }
        is_ok, message = False, f"rejected: {status}" + (f", {words[status]}" if status in words else "")
    output.print_line(f"{message} ({what})", style="green" if is_ok else "red")
    return is_ok


def _credentials(name: str, source: Source, token_file: Path | None) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield each credential of a source: its description, its headers, and the path where it is valid."""
    for secret in source.secrets:
        if has_ended(secret):
            output.print_line(f"not tried: the secret in {secret.location} has expired")
            continue
        try:
            key = read_signing_key(source, secret, os.environ)
        except ValueError as error:
            raise SettingsError(f"sources.{name}.secrets: {error}") from None
        what = f"signed with the secret in {secret.location}"
        if source.signature is None:
            yield what, credential_options.signature_headers(key, TEST_BODY), TEST_PATH
        else:
            headers = credential_options.scheme_headers(source.signature, key, TEST_BODY) | UNKNOWN_TYPE
            yield f"{what} by {source.signature.scheme}", headers, f"/in/{name}"
    if found := _find_token(name, source, token_file):
        token, where = found
        yield f"with the token in {where}", {"Authorization": f"Bearer {token}"}, TEST_PATH


def _find_token(name: str, source: Source, token_file: Path | None) -> tuple[str, str] | None:
    """Return the token of a source that can be read here, and where it was read; None if there is none."""
    if token_file is None and source.token_file:
        try:
            return token_from_file(source.token_file), f"the file {source.token_file}"
        except ValueError as error:
            raise SettingsError(f"sources.{name}.token_file: {error}") from None
    if not source.token_sha256 and not source.token_file:
        if token_file is not None:
            raise SettingsError(f"{name} has no token: leave out --token-file")
        return None  # a token in the variable is one of another source
    token = credential_options.read_token(token_file)
    if not token:
        return None
    where = f"the file {token_file}" if token_file else f"the variable {credential_options.TOKEN_VARIABLE}"
    if not _is_token(token, source):
        raise SettingsError(f"{where} holds no token of {name}: it matches neither token_sha256 nor token_file")
    return token, where


def _is_token(token: str, source: Source) -> bool:
    """Tell whether a token is one of a source. A server would accept that of another source, too."""
    digests = list(source.token_sha256)
    if source.token_file:
        try:
            digests.append(token_digest_from_file(source.token_file))
        except ValueError:
            return True  # only the server can read the file
    return hashlib.sha256(token.encode("ascii")).hexdigest() in digests
