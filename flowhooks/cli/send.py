"""`flowhooks send`: post one callback, to try things out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from flowhooks.cli import credential_options, output
from flowhooks.cli.http_client import ResponseTimeout, local_url, post
from flowhooks.cli.options import SettingsSource, json_option, read_file, utf8
from flowhooks.errors import ServerUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.cli.http_client import HttpResponse

TIMEOUT_MARGIN: Final = 15.0
"""Seconds added to the longest wait that a server grants."""
MAX_WAIT_SECONDS: Final = 60
_HEADERS: Final = {
    "flowhooks-event": "Flowhooks-Event",
    "preference-applied": "Preference-Applied",
    "retry-after": "Retry-After",
    "allow": "Allow",
}
"""Response headers to print, by their lower-case names."""
_MEMBERS: Final = {
    "callback_class": "callBackProcessClass",
    "key": "processDefinitionKey",
    "business_key": "businessKey",
    "version": "processDefinitionVersion",
    "definition_id": "processDefinitionId",
    "conclusion": "conclusion",
}


@click.command("send", short_help="Send a test callback to a server.")
@click.argument("flow_id", type=utf8, metavar="FLOW_ID")
@click.option("--to", type=utf8, metavar="URL", help="Address of the server [default: the setting listen].")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read the setting listen from FILE [default: ./flowhooks.toml if it exists].",
)
@click.option("--kind", default="complete", show_default=True, type=utf8, metavar="KIND", help="Kind of the callback.")
@click.option("--class", "callback_class", type=utf8, metavar="CLASS", help="The body's callBackProcessClass.")
@click.option("--key", type=utf8, metavar="KEY", help="The body's processDefinitionKey.")
@click.option("--business-key", type=utf8, metavar="KEY", help="The body's businessKey.")
@click.option("--version", type=int, metavar="N", help="The body's processDefinitionVersion.")
@click.option("--conclusion", type=utf8, metavar="TEXT", help="The body's conclusion, such as approved.")
@click.option("--definition-id", type=utf8, metavar="ID", help="The body's processDefinitionId.")
@click.option(
    "--data",
    type=utf8,
    metavar="JSON|@FILE|-",
    help="The body: JSON, @ and the name of a file, or - for the standard input.",
)
@click.option(
    "--wait",
    type=click.IntRange(0, MAX_WAIT_SECONDS),
    metavar="SECONDS",
    help="Whole seconds to wait for the handlers.",
)
@click.option("--async", "at_once", is_flag=True, help="Do not wait for the handlers.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="Language of the message in the answer.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Read the bearer token from FILE [default: the variable {credential_options.TOKEN_VARIABLE} if it is set].",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Sign the callback with the secret in FILE [default: the variable {credential_options.SECRET_VARIABLE} if "
    "it is set].",
)
@json_option
def command(
    flow_id: str,
    *,
    to: str | None,
    config: Path | None,
    kind: str,
    data: str | None,
    wait: int | None,
    at_once: bool,
    language: str | None,
    token_file: Path | None,
    secret_file: Path | None,
    as_json: bool,
    **members: Any,
) -> None:
    r"""Send a callback to a server, as an engine would, and print the answer.

    FLOW_ID is the id of the process instance. Options override the members of --data. Without --to, the callback is
    sent to the server of the settings on this machine. No proxy is used. A token or a secret cannot be given as an
    option, because other users can read the options of a command. With a secret the callback is signed according to
    Standard Webhooks, each time under a new id.

    \b
    Examples:
      flowhooks send 4711 --key contract_approval --business-key C-2026-17
      flowhooks send 4711 --key contract_approval --conclusion rejected
      flowhooks send 4711 --data @body.json --wait 30 --language zh
      flowhooks send 4711 --to https://flowhooks.example.com --secret-file /etc/flowhooks/erp

    Exit codes: 0 the answer is a success (2xx) of flowhooks, 1 it is not or there is no answer, 2 wrong usage.
    """
    if at_once and wait is not None:
        raise click.UsageError("--wait and --async exclude each other.")
    if not flow_id:
        raise click.UsageError("FLOW_ID is empty.")
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if at_once or wait is not None:
        headers["Prefer"] = "respond-async" if at_once else f"wait={wait}"
    if language:
        headers["Accept-Language"] = language
    # A file given as an option takes precedence over all environment variables.
    if (token_file or not secret_file) and (token := credential_options.read_token(token_file)):
        headers["Authorization"] = f"Bearer {token}"
    body = _body(data, {_MEMBERS[name]: value for name, value in members.items() if value is not None})
    if (secret_file or not token_file) and (key := credential_options.read_key(secret_file)):
        headers |= _signature(key, body)
    base = to or local_url(SettingsSource(config=config, options={"database": None}).load())
    path = f"/flow/{quote(flow_id, safe=':~')}/call-back/{quote(kind, safe='')}"
    answer = _post(base, path, body, headers)
    (_print_response_json if as_json else _print_response)(answer)
    if not 200 <= answer.status < 300:  # noqa: PLR2004 (HTTP's successes)
        raise SystemExit(1)
    if "flowhooks-event" not in answer.headers:  # such as the login page of a proxy
        raise click.ClickException(f"HTTP {answer.status} without Flowhooks-Event: not answered by flowhooks")


def _post(base: str, path: str, body: bytes, headers: Mapping[str, str]) -> HttpResponse:
    try:
        return post(base, path, body=body, headers=headers, timeout=MAX_WAIT_SECONDS + TIMEOUT_MARGIN)
    except ResponseTimeout:
        raise
    except ServerUnreachable as error:
        next_step = "start the server with `flowhooks serve`, or name its address with --to"
        raise ServerUnreachable(f"{error}; {next_step}") from None


def _signature(key: bytes, body: bytes) -> dict[str, str]:
    try:
        return credential_options.signature_headers(key, body)
    except UnicodeDecodeError:
        raise click.UsageError("--data is not UTF-8, so it cannot be signed.") from None


def _body(data: str | None, members: dict[str, Any]) -> bytes:
    if data is None:
        return json.dumps(members, ensure_ascii=False).encode()
    raw = _raw(data)
    try:
        body = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        hint = "" if data.startswith("@") else " For a file write @FILE."
        raise click.UsageError(f"--data is not JSON in UTF-8.{hint}") from None
    if not isinstance(body, dict):
        raise click.UsageError("--data is not a JSON object.")
    if not members:
        return raw
    try:
        return json.dumps({**body, **members}, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise click.UsageError("--data contains a number or a character that JSON cannot represent.") from None


def _raw(data: str) -> bytes:
    if data == "-":
        return sys.stdin.buffer.read()
    return read_file(Path(data[1:])) if data.startswith("@") else data.encode()


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _shown_headers(answer: HttpResponse) -> dict[str, str]:
    return {name: answer.headers[lower] for lower, name in _HEADERS.items() if lower in answer.headers}


def _print_response_json(answer: HttpResponse) -> None:
    text = answer.body.decode(errors="replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = text
    output.print_json(
        {"status": answer.status, "reason": answer.reason, "headers": _shown_headers(answer), "body": body}
    )


def _print_response(answer: HttpResponse) -> None:
    is_success = 200 <= answer.status < 300  # noqa: PLR2004 (HTTP's successes)
    output.print_line(f"{answer.status} {answer.reason}", style="green" if is_success else "red")
    for name, value in _shown_headers(answer).items():
        output.print_line(f"{name}: {value}")
    output.print_line()
    output.print_lines(output.format_body(answer.body.decode(errors="replace")))
