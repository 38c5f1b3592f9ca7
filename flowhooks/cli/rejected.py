"""`flowhooks rejected`: list rejected callbacks with their reasons."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.filters import TIME_EXAMPLES, timestamp
from flowhooks.cli.options import json_option, page_options, settings_options, utf8
from flowhooks.ledger import rejected_requests
from flowhooks.ledger.reader import Reader
from flowhooks.operations.json.encoding import dataclass_to_json
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.ledger.rejected_requests import RejectedRequest
    from flowhooks.settings import Settings


@click.group("rejected", short_help="List rejected callbacks with their reasons.")
def command() -> None:
    """List rejected callbacks with their reasons.

    A rejected callback was answered with an error, and no event was stored for it. The engine must correct it or send
    it again. Equal requests share an entry with their number. The last 1,000 entries are kept; for each status and
    source at most 100, and at least the last 10.
    """


@command.command("list", short_help="List rejected callbacks, newest first.")
@click.option("--status", type=click.IntRange(400, 599), metavar="N", help="Answered with this HTTP status.")
@click.option(
    "--source",
    type=utf8,
    metavar="NAME",
    help=f'Of this source; "{rejected_requests.NO_SOURCE}" is for requests whose source is not known: without a valid '
    "credential, or rejected before it was checked.",
)
@click.option("--flow", "flow_instance_id", type=utf8, metavar="ID", help="Process instance id of the engine.")
@click.option("--path", type=utf8, metavar="TEXT", help="With this text in the path.")
@click.option("--since", type=timestamp, metavar="TIME", help=f"Last rejected at or after TIME, {TIME_EXAMPLES}.")
@click.option("--until", type=timestamp, metavar="TIME", help="Last rejected before TIME.")
@page_options("entries", "entry")
@json_option
@settings_options
def list_command(
    settings: Settings,
    *,
    status: int | None,
    source: str | None,
    flow_instance_id: str | None,
    path: str | None,
    since: int | None,
    until: int | None,
    limit: int,
    after: str,
    as_json: bool,
) -> None:
    r"""List rejected callbacks, newest first: time, number, status, source, path and reason.

    A conflict (409) names the event that it contradicts. The reason of a 422 has each violation of the schema. Requests
    of one sender that are answered 401, 403 or 429 share an entry with the last path. Times are UTC. With --json,
    "next" is the value for --after; it is "" at the end.

    \b
    Examples:
      flowhooks rejected list --since 1h
      flowhooks rejected list --status 409 --source oa
      flowhooks rejected list --flow 4711 --json

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be before --until.")
    request_filter = rejected_requests.RejectedFilter(
        status=status,
        source=rejected_requests.parse_source(source),
        flow_instance_id=flow_instance_id,
        path=path,
        since=since,
        until=until,
    )
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        found = rejected_requests.latest(connection, limit=limit + 1, before=after, request_filter=request_filter)
    next_id = found[limit - 1].id if len(found) > limit else ""
    del found[limit:]
    if as_json:
        output.print_json({"rejected_requests": [dataclass_to_json(request) for request in found], "next": next_id})
        return
    if not found:
        is_narrowed = after or request_filter != rejected_requests.RejectedFilter()
        output.print_line("No matching entries." if is_narrowed else "No callback was rejected.")
        return
    output.print_table(
        ("last (UTC), id", "status, source", "path, reason"),
        [(_when_text(request), _who_text(request), _why_text(request)) for request in found],
        free_text=("path, reason",),
    )
    if next_id:
        output.print_line()
        output.print_line(f"There are more entries: add --after {next_id}")


@command.command("show", short_help="Show everything about a rejected callback.")
@click.argument("request_id", type=utf8, metavar="ID")
@json_option
@settings_options
def show_command(settings: Settings, *, request_id: str, as_json: bool) -> None:
    r"""Show everything that is stored of a rejected callback. Its body is not stored.

    The body of a conflict (409) is stored with the event that it contradicts: `flowhooks events show` prints it. An id
    is valid until a further equal request gives the entry another one.

    \b
    Examples:
      flowhooks rejected show 019ab2c4-5d20-7000-8000-0c0d5e6f7a8b
      flowhooks rejected show 019ab2c4-5d20-7000-8000-0c0d5e6f7a8b --json | jq -r .reason_zh

    Exit codes: 0 done, 1 there is no such entry or the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        request = rejected_requests.read(connection, request_id)
    if as_json:
        output.print_json(dataclass_to_json(request))
        return
    lines = {
        "status": str(request.status),
        "last": output.format_time(request.rejected_at),
        "first": output.format_time(request.first_rejected_at),
        "requests": f"{request.count:,}",
        "source": request.source or rejected_requests.NO_SOURCE,
        "path": request.path,
        "address": request.address or "-",
        "user agent": request.user_agent or "-",
        "event": request.event_id or "-",
    }
    for name, value in lines.items():
        output.print_line(f"{name:<12}{value}")
    output.print_lines(f"\n{request.reason_en}")
    if request.event_id:
        output.print_lines(f"\nNext: flowhooks events show {request.event_id}")


def _when_text(request: RejectedRequest) -> str:
    text = f"{output.format_time(request.rejected_at)}\n  {request.id}"
    return text + (
        f"\n{request.count:,} since {output.format_time(request.first_rejected_at)}" if request.count > 1 else ""
    )


def _who_text(request: RejectedRequest) -> str:
    return f"{request.status}\n{request.source or rejected_requests.NO_SOURCE}"


def _why_text(request: RejectedRequest) -> str:
    event = f"\nevent {request.event_id}" if request.event_id else ""
    return f"{output.escape_newlines(request.path)}\n{output.escape_newlines(request.reason_en)}{event}"
