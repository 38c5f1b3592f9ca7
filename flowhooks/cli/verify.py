"""`flowhooks verify`: print the ledger's consistency report as a table or as JSON."""

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


@click.command("verify", short_help="Verify that every accepted callback is accounted for.")
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool) -> None:
    r"""Check the whole ledger and say whether every accepted callback is accounted for.

    Each accepted event must be stored or purged, have the body that was received and the deliveries of its route. Each
    delivery must agree with its attempts. The command only reads, and may run beside a server.

    \b
    Examples:
      flowhooks verify
      flowhooks verify --json | jq .balanced

    Exit codes: 0 the counts balance, 1 they do not (or the ledger cannot be read), 2 wrong usage.
    """
    reader = Reader(database_url(settings))
    try:
        report = reader.verify()
    finally:
        reader.close()
    if as_json:
        output.print_json({"balanced": report.is_consistent, **asdict(report)})
    else:
        output.print_table(("what", "count"), _rows(report))
        output.print_line()
        for problem in report.trouble:
            output.print_line(f"trouble: {problem}", style="red")
        output.print_line("The counts balance." if report.is_consistent else "The counts do not balance.")
    if not report.is_consistent:
        raise SystemExit(1)


def _rows(report: ConsistencyReport) -> Iterator[tuple[str, str]]:
    yield "events accepted", f"{report.accepted:>12,}"
    yield "events stored", f"{report.stored:>12,}"
    yield "events purged", f"{report.purged:>12,}"
    for state, count in report.events.items():
        yield f"  {state}", f"{count:>12,}"
    yield "deliveries", f"{sum(report.deliveries.values()):>12,}"
    for state, count in report.deliveries.items():
        yield f"  {state}", f"{count:>12,}"
    yield "attempts", f"{report.attempts:>12,}"
