"""`flowhooks sources new`: create a credential and print its section of the settings."""

from __future__ import annotations

from pathlib import Path

import click

from flowhooks.cli import output
from flowhooks.cli.sources.toml import new_secret, secret_variable, section_lines, source_name, write_private
from flowhooks.settings import Secret, Source
from flowhooks.web.callback.credentials import new_token


@click.command("new", short_help="Make a credential, and the section that knows it.")
@click.argument("name", callback=source_name)
@click.option("--signed", "signs", is_flag=True, help="It signs its call-backs with a secret; so it is by default.")
@click.option("--token", "by_token", is_flag=True, help="It sends a bearer token, in place of a signature.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it into FILE, which must not be there yet, for its owner only.",
)
def new_command(*, name: str, signs: bool, by_token: bool, file: Path | None) -> None:
    r"""Print the section that lets an engine in, to be added to flowhooks.toml.

    The secret, or the token, is made of 32 random bytes. With --file it is written there, and the section names the
    file; the user that the server runs as must be able to read it. Without, it is shown once, on the standard error:
    of a token the section then has the hash, of a secret the name of an environment variable that is to hold it.

    The name is part of an event's identity, so choose it for good. An engine that has called back without a credential
    until now keeps its events under the name `default`.

    \b
    Examples:
      flowhooks sources new erp --file /etc/flowhooks/erp >> flowhooks.toml
      flowhooks sources new erp
      flowhooks sources new crm --token --file /etc/flowhooks/crm

    Exit codes: 0 printed, 2 wrong usage.
    """
    if signs and by_token:
        raise click.UsageError("--signed and --token rule each other out.")
    signs = not by_token
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
    for line in section_lines(name, source):
        output.print_line(line)
    if file:
        output.print_line(f"The {what} of {name} is in {file}: give the engine the same.", err=True)
        return
    if signs:
        output.print_line(
            f"The secret is to be in the variable {source.secrets[0].env} where the server is started.", err=True
        )
    output.print_line(f"The {what} of {name}, which is not shown again:", err=True)
    output.print_line(credential, err=True)
