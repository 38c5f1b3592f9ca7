"""`flowhooks operators`: create and list operators."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options
from flowhooks.errors import SettingsError
from flowhooks.settings.access import BUILT_IN_ROLES
from flowhooks.settings.types import NAME, did_you_mean
from flowhooks.web.admin.passwords import MAX_CHARS, MIN_CHARS, hash_password
from flowhooks.web.callback.credentials import new_token

if TYPE_CHECKING:
    from flowhooks.settings import OperatorSettings, Settings

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@click.group("operators", short_help="Create and list operators.")
def command() -> None:
    """Create and list operators, who use the console with a password or the API with a token.

    Operators are configured only in flowhooks.toml. As soon as the settings have an operator, the console and the API
    require a credential.
    """


def _name(_context: click.Context, _param: click.Parameter, value: str) -> str:
    if not NAME.fullmatch(value):
        raise click.BadParameter("a name must have 1 to 100 letters, digits, '.', '_' or '-'")
    return value


@command.command("new")
@click.argument("name", callback=_name)
@click.option(
    "--role",
    callback=_name,
    required=True,
    metavar="ROLE",
    help="view: read everything; operate: also make changes; or the name of a section [roles.NAME].",
)
@click.option("--token", "by_token", is_flag=True, help="Create a bearer token, for a program, instead of a password.")
def new_command(*, name: str, role: str, by_token: bool) -> None:
    r"""Print the section of a new operator, to be added to flowhooks.toml.

    The command asks for the password twice and does not show it. Without a terminal it reads the password as one line
    from the standard input. Only the password's hash is printed. A token is shown once, on the standard error: store it
    for the program that uses it. No file is written. Send the server SIGHUP after you have added the section.

    \b
    Examples:
      flowhooks operators new li --role operate
      flowhooks operators new wang --role view >> flowhooks.toml
      flowhooks operators new prometheus --role view --token

    Exit codes: 0 printed, 2 wrong usage.
    """
    if by_token:
        token, digest = new_token()
        credential = f"token_sha256 = {json.dumps([digest])}"
    else:
        credential = f"password = {json.dumps(hash_password(_password(name)))}"
    if role not in BUILT_IN_ROLES:
        suggestion = did_you_mean(role, BUILT_IN_ROLES)
        output.print_line(f"The role {role} needs a section [roles.{_toml_key(role)}]{suggestion}", err=True)
    for line in ("", f"[operators.{_toml_key(name)}]", f"role = {json.dumps(role)}", credential):
        output.print_line(line)
    if by_token:
        output.print_line(f"The token of {name}, which is shown only once:", err=True)
        output.print_line(token, err=True)


def _toml_key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _password(name: str) -> str:
    if not _is_terminal():
        encoding = sys.stdin.encoding
        try:
            line = sys.stdin.buffer.readline().decode(encoding).removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise SettingsError(f"the password on the standard input is not {encoding.upper()}") from None
        if not line:
            raise SettingsError("the standard input holds no password; write it there in one line, or use a terminal")
        return line
    while True:
        password: str = click.prompt(
            f"Password of {name}", hide_input=True, confirmation_prompt="Repeat the password", err=True
        )
        if MIN_CHARS <= len(password) <= MAX_CHARS:
            return password
        output.print_line(f"A password must have {MIN_CHARS} to {MAX_CHARS} characters.", err=True)


@command.command("list")
@json_option
@settings_options
def list_command(settings: Settings, *, as_json: bool) -> None:
    r"""List the operators in the settings, with their roles and the kinds of their credentials.

    Secrets and hashes are not shown.

    \b
    Examples:
      flowhooks operators list
      flowhooks operators list --json

    Exit codes: 0 listed, 2 wrong usage.
    """
    operators = sorted(settings.operators.items())
    if as_json:
        listed = [
            {
                "name": name,
                "role": operator.role,
                "known_by": _credential_texts(operator),
                "token_file": operator.token_file or None,
            }
            for name, operator in operators
        ]
        output.print_json({"operators": listed})
    elif operators:
        rows = [
            (name, operator.role, ", ".join(_credential_texts(operator)), operator.token_file or "-")
            for name, operator in operators
        ]
        output.print_table(("name", "role", "credentials", "token file"), rows, free_text=("credentials",))
    elif settings.login.proxy:
        output.print_line(f"The settings have no operator, but the proxy {settings.login.proxy} logs operators in.")
    else:
        output.print_line("The settings have no operator: every user of the server's machine can operate it.")


def _credential_texts(operator: OperatorSettings) -> list[str]:
    words = ["password"] if operator.password else []
    if tokens := len(operator.token_sha256):
        words.append("1 token" if tokens == 1 else f"{tokens} tokens")
    return words + (["token file"] if operator.token_file else [])
