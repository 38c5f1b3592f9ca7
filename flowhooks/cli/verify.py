"""`flowhooks verify`: the ledger's books as a table, or as JSON; it must not know how they are balanced."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options
from flowhooks.ledger.reader import Reader
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.ledger.consistency import ConsistencyReport
    from flowhooks.settings import Settings


@click.command("verify", short_help="Whether all that was accepted is accounted for.")
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool) -> None:
    r"""Go over the whole ledger and say whether all that was accepted is accounted for.

    Every event that was accepted is stored or was purged, has the body that was received and the deliveries of its
    route, and every delivery agrees with its attempts. It only reads, and may run beside a server.

    \b
    Examples:
      flowhooks verify
      flowhooks verify --json | jq .balanced

    Exit codes: 0 the books balance, 1 they do not (or the ledger cannot be read), 2 wrong usage.
    """
    reader = Reader(database_url(settings))
    try:
        books = reader.verify()
    finally:
        reader.close()
    if as_json:
        output.print_json({"balanced": books.is_consistent, **asdict(books)})
    else:
        output.print_table(("what", "how many"), _rows(books))
        output.print_line()
        for one in books.trouble:
            output.print_line(f"trouble: {one}", style="red")
        output.print_line("The books balance." if books.is_consistent else "The books do not balance.")
    if not books.is_consistent:
        raise SystemExit(1)


def _rows(books: ConsistencyReport) -> Iterator[tuple[str, str]]:
    yield "events accepted", f"{books.accepted:>12,}"
    yield "events stored", f"{books.stored:>12,}"
    yield "events purged", f"{books.purged:>12,}"
    for state, count in books.events.items():
        yield f"  {state}", f"{count:>12,}"
    yield "deliveries", f"{sum(books.deliveries.values()):>12,}"
    for state, count in books.deliveries.items():
        yield f"  {state}", f"{count:>12,}"
    yield "attempts", f"{books.attempts:>12,}"
