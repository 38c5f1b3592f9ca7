"""`flowhooks send`: post one callback, to try things out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import click

from flowhooks.cli import credential_options, output
from flowhooks.cli.http_client import post
from flowhooks.cli.options import json_option, read_file, utf8

if TYPE_CHECKING:
    from flowhooks.cli.http_client import HttpResponse

TIMEOUT_MARGIN: Final = 15.0
"""Seconds added to the longest wait that a server grants."""
MAX_WAIT_SECONDS: Final = 60.0
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


@click.command("send", short_help="Post one call-back, to try things out.")
@click.argument("flow_id", type=utf8, metavar="FLOW_ID")
@click.option(
    "--to", default="http://127.0.0.1:8080", show_default=True, type=utf8, metavar="URL", help="The server's address."
)
@click.option("--kind", default="complete", show_default=True, type=utf8, metavar="KIND", help="The kind of call-back.")
@click.option("--class", "callback_class", type=utf8, metavar="CLASS", help="callBackProcessClass in the body.")
@click.option("--key", type=utf8, metavar="KEY", help="processDefinitionKey in the body.")
@click.option("--business-key", type=utf8, metavar="KEY", help="businessKey in the body.")
@click.option("--version", type=int, metavar="N", help="processDefinitionVersion in the body.")
@click.option("--conclusion", type=utf8, metavar="TEXT", help="conclusion in the body, such as approved.")
@click.option("--definition-id", type=utf8, metavar="ID", help="processDefinitionId in the body.")
@click.option(
    "--data", type=utf8, metavar="JSON|@FILE|-", help="The body: JSON, a file of it, or - for the standard input."
)
@click.option(
    "--wait", type=click.FloatRange(0, MAX_WAIT_SECONDS), metavar="SECONDS", help="Wait so long for the handlers."
)
@click.option("--async", "at_once", is_flag=True, help="Do not wait for the handlers.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="The language of the answer's message.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Read the bearer token from FILE [default: the variable {credential_options.TOKEN_VARIABLE}, if it is set].",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=f"Sign it with the secret in FILE [default: the variable {credential_options.SECRET_VARIABLE}, if it is set].",
)
@json_option
def command(
    flow_id: str,
    *,
    to: str,
    kind: str,
    data: str | None,
    wait: float | None,
    at_once: bool,
    language: str | None,
    token_file: Path | None,
    secret_file: Path | None,
    as_json: bool,
    **members: Any,
) -> None:
    r"""Post one call-back to a server, as an engine would, and print what it answers.

    FLOW_ID is the process instance's id. What the options name is put into the body, over what --data has.
    It reads no settings, and uses no proxy. A token or a secret is never given as an option, where others could read
    it. With a secret the call-back is signed as Standard Webhooks has it, each time under a new id.

    \b
    Examples:
      flowhooks send 4711 --key contract_approval --business-key C-2026-17
      flowhooks send 4711 --key contract_approval --conclusion rejected
      flowhooks send 4711 --data @body.json --wait 30 --language zh
      flowhooks send 4711 --to https://flowhooks.example.com --secret-file /etc/flowhooks/erp

    Exit codes: 0 the answer is a success (2xx), 1 it is not or nobody answered, 2 wrong usage.
    """
    if at_once and wait is not None:
        raise click.UsageError("--wait and --async rule each other out.")
    if not flow_id:
        raise click.UsageError("FLOW_ID is empty.")
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if at_once or wait is not None:
        headers["Prefer"] = "respond-async" if at_once else f"wait={wait:g}"
    if language:
        headers["Accept-Language"] = language
    # A file given as an option takes precedence over all environment variables.
    if (token_file or not secret_file) and (token := credential_options.read_token(token_file)):
        headers["Authorization"] = f"Bearer {token}"
    body = _body(data, {_MEMBERS[name]: value for name, value in members.items() if value is not None})
    if (secret_file or not token_file) and (key := credential_options.read_key(secret_file)):
        headers |= _signature(key, body)
    answer = post(
        to,
        f"/flow/{quote(flow_id, safe=':~')}/call-back/{quote(kind, safe='')}",
        body=body,
        headers=headers,
        timeout=MAX_WAIT_SECONDS + TIMEOUT_MARGIN,
    )
    (_print_response_json if as_json else _print_response)(answer)
    if not 200 <= answer.status < 300:  # noqa: PLR2004 (HTTP's successes)
        raise SystemExit(1)


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
        raise click.UsageError("--data is not JSON in UTF-8.") from None
    if not isinstance(body, dict):
        raise click.UsageError("--data is not a JSON object.")
    if not members:
        return raw
    try:
        return json.dumps({**body, **members}, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        raise click.UsageError("--data has a number or a character that JSON cannot be written with.") from None


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
