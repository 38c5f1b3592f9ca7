"""`flowhooks sources new`: create a credential and print its section of the settings."""

from __future__ import annotations

from pathlib import Path

import click

from flowhooks.cli import output
from flowhooks.cli.sources.ingress_examples import FORMATS, ingress_lines
from flowhooks.cli.sources.toml import new_secret, secret_variable, section_lines, source_name, write_private
from flowhooks.settings import Secret, Source
from flowhooks.web.callback.credentials import new_token


@click.command("new", short_help="Create a credential and print its settings section.")
@click.argument("name", callback=source_name)
@click.option(
    "--signed", "signs", is_flag=True, help="Create a secret with which the engine signs its callbacks (default)."
)
@click.option("--token", "by_token", is_flag=True, help="Create a bearer token instead of a secret.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the credential into the new file FILE, which only its owner can read.",
)
@click.option(
    "--ingress",
    "form",
    type=click.Choice(FORMATS),
    metavar="FORMAT",
    help="Also print an example of the section [sources.NAME.ingress], for a sender that can call only one fixed URL: "
    f"/in/NAME. FORMAT is {', '.join(FORMATS[:-1])} or {FORMATS[-1]}. Such a sender can rarely sign by Standard "
    "Webhooks, so --token is the default.",
)
def new_command(*, name: str, signs: bool, by_token: bool, file: Path | None, form: str | None) -> None:
    r"""Print the section of a new source, to be added to flowhooks.toml.

    The secret or token is made of 32 random bytes. With --file it is written to the file, and the section names the
    file. The user that the server runs as must be able to read the file. Without --file it is shown once, on the
    standard error. The section then has the hash of the token, or the name of an environment variable that must hold
    the secret.

    The name of a source is part of an event's identity: choose a name that you need not change. If the engine has sent
    callbacks without a credential, name its source `default`, so that its events keep their identities.

    \b
    Examples:
      flowhooks sources new erp --file /etc/flowhooks/erp >> flowhooks.toml
      flowhooks sources new erp
      flowhooks sources new crm --token --file /etc/flowhooks/crm
      flowhooks sources new yudao --ingress form --file /etc/flowhooks/yudao >> flowhooks.toml

    Exit codes: 0 printed, 2 wrong usage.
    """
    if signs and by_token:
        raise click.UsageError("--signed and --token exclude each other.")
    signs = signs or not (by_token or form)
    if signs:
        credential, what = new_secret(), "secret"
        location = Secret(file=str(file.absolute())) if file else Secret(env=secret_variable(name))
        source = Source(secrets=(location,))
    else:
        (credential, digest), what = new_token(), "token"
        source = Source(token_file=str(file.absolute())) if file else Source(token_sha256=(digest,))
    if file:
        write_private(file, credential)
    output.print_line()
    lines = list(section_lines(name, source))
    for line in lines + (list(ingress_lines(lines[0], form)) if form else []):
        output.print_line(line)
    if form:
        output.print_line(
            f"The sender calls POST /in/{name}. Change the example to its requests, and try it with a request in a "
            f"file: flowhooks sources test {name} --data FILE",
            err=True,
        )
    if file:
        output.print_line(f"The {what} of {name} is in {file}. Give it to the engine.", err=True)
        return
    if signs:
        output.print_line(
            f"Set the variable {source.secrets[0].env} to the secret in the server's environment.", err=True
        )
    output.print_line(f"The {what} of {name}, which is shown only once:", err=True)
    output.print_line(credential, err=True)
