"""`flowhooks sources rotate`: create a new credential beside the old one, without changing the settings."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import settings_options
from flowhooks.cli.sources.toml import new_secret, require_credential, section_lines, source_name, write_private
from flowhooks.errors import SettingsError
from flowhooks.settings import Secret
from flowhooks.settings.signing_keys import MAX_SECRETS
from flowhooks.settings.tokens import token_digest_from_file
from flowhooks.web.callback.credentials import new_token

if TYPE_CHECKING:
    from flowhooks.settings import Settings, Source

DEFAULT_KEEP_DAYS: Final = 7.0
"""Default number of days for which the old secret stays valid."""
_NEXT_STEPS: Final = (
    "1. Replace token_sha256, token_file and secrets of the source by these lines: it then has both credentials.",
    "2. Send the server SIGHUP, and check that its log has settings_reloaded.",
    "3. Give the engine the new {what}, and check it: flowhooks sources test {name}",
    "4. Remove the old {what} from the section, send SIGHUP again, and delete the file or variable that holds it.",
)


def _days(context: click.Context, param: click.Parameter, value: float) -> float:
    if math.isnan(value):  # click accepts nan in every range
        raise click.BadParameter("nan is not a number of days", context, param)
    return value


@click.command("rotate", short_help="Create a new credential beside the old one.")
@click.argument("name", callback=source_name)
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the credential into FILE [default: beside the file of the old credential].",
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 3650),
    callback=_days,
    default=DEFAULT_KEEP_DAYS,
    show_default=True,
    metavar="DAYS",
    help="Days for which the old secret stays valid. An old token stays valid until it is removed.",
)
@settings_options
def rotate_command(settings: Settings, *, name: str, file: Path | None, keep: float) -> None:
    r"""Create a new secret or token for a source, and print the lines of its section with the old and the new one.

    The new credential is written to a file that only its owner can read. The settings are not changed. The next steps
    are printed on the standard error: update the server first, then the engine.

    \b
    Examples:
      flowhooks sources rotate erp
      flowhooks sources rotate erp --file /etc/flowhooks/erp-2027 --keep 1

    Exit codes: 0 created and printed, 2 wrong usage, or no such source.
    """
    source = require_credential(name, settings)
    if len(source.secrets) >= MAX_SECRETS:
        raise SettingsError(
            f"{name} has {len(source.secrets)} secrets, which is the maximum; first remove secrets that have expired "
            "or are no longer used from its section"
        )
    now = datetime.now(UTC).replace(microsecond=0)
    signs = bool(source.secrets)
    old = next((secret.file for secret in source.secrets if secret.file), "") if signs else source.token_file
    if file is None and not old:
        raise SettingsError("there is no old file that gives a folder for the new one; give a file with --file")
    file = (file or Path(old).with_name(f"{name}-{now:%Y%m%dT%H%M%S}")).absolute()
    if signs:
        credential, what = new_secret(), "secret"
        changed = _with_secret(source, file, now + timedelta(days=keep))
    else:
        (credential, _), what = new_token(), "token"
        changed = _with_token(source, file)
    write_private(file, credential)
    for line in section_lines(name, changed):
        output.print_line(line)
    output.print_line(f"The new {what} of {name} is in {file}.", err=True)
    for line in _NEXT_STEPS:
        output.print_line(line.format(what=what, name=name), err=True)


def _with_secret(source: Source, file: Path, until: datetime) -> Source:
    """Put the new secret first; the old ones stay valid until `until` at the latest."""
    old = [
        secret if secret.not_after is not None and secret.not_after <= until else replace(secret, not_after=until)
        for secret in source.secrets
    ]
    return replace(source, secrets=(Secret(file=str(file)), *old))


def _with_token(source: Source, file: Path) -> Source:
    """Keep the old token by its hash, because a source has one token file."""
    known = list(source.token_sha256)
    if source.token_file:
        try:
            known.append(token_digest_from_file(source.token_file))
        except ValueError as error:
            raise SettingsError(f"the old token cannot be read: {error}") from None
    return replace(source, token_file=str(file), token_sha256=tuple(dict.fromkeys(known)))
