"""`flowhooks verify`: print the ledger's consistency report as a table or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options
from flowhooks.clock import to_text
from flowhooks.ledger.reader import Reader
from flowhooks.operations.history import FINDINGS, HistoryReport, check_history
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.ledger.consistency import ConsistencyReport
    from flowhooks.settings import Settings


@click.command("verify", short_help="Verify that every accepted callback is accounted for.")
@click.option(
    "--against",
    "history_file",
    metavar="FILE",
    type=click.File("rb"),
    help="Also compare a client's history of callbacks, in JSON lines, with the ledger; - reads standard input.",
)
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool, history_file: BinaryIO | None) -> None:
    r"""Check the whole ledger and say whether every accepted callback is accounted for.

    Each accepted event must be stored or purged, have the body that was received and the deliveries of its route. Each
    delivery must agree with its attempts. The command only reads, and may run beside a server.

    With --against, what a client was answered is compared with what is stored. Each line of FILE is a JSON object with
    these members; a member that is not known is left out or null:

    \b
      flowInstanceId        the process instance id of the path, percent-decoded; required
      status                the HTTP status; null: no answer arrived; required
      body, or bodySha256   the body as sent, or the SHA-256 of its bytes; one of them is required
      event                 the header Flowhooks-Event of the answer
      source                the name of the source, or a former name; default: default
      kind                  the last part of the path; default: complete
      callBackProcessClass  default: the member of the body
      time                  when the answer arrived

    \b
    Examples:
      flowhooks verify
      flowhooks verify --json | jq .balanced
      flowhooks verify --against callbacks.jsonl

    Exit codes: 0 the counts balance and the history agrees, 1 they do not (or the ledger cannot be read), 2 wrong
    usage.
    """
    reader = Reader(database_url(settings))
    try:
        report = reader.verify()
        history = None if history_file is None else check_history(reader, history_file, settings)
    finally:
        reader.close()
    if as_json:
        against = {} if history is None else {"against": {"agrees": history.is_consistent, **asdict(history)}}
        histories = {source: to_text(read_until) for source, read_until in report.histories.items()}
        output.print_json({"balanced": report.is_consistent, **asdict(report), "histories": histories, **against})
    else:
        output.print_table(("what", "count"), _rows(report))
        output.print_line()
        for problem in report.problems:
            output.print_line(f"problem: {problem}", style="red")
        output.print_line("The counts balance." if report.is_consistent else "The counts do not balance.")
        if history is not None:
            _print_history(history)
    if not report.is_consistent or (history is not None and not history.is_consistent):
        raise SystemExit(1)


def _print_history(history: HistoryReport) -> None:
    output.print_line()
    output.print_table(
        ("line of the history", "count"),
        [
            ("all", f"{history.lines:>12,}"),
            ("acknowledged", f"{history.acknowledged:>12,}"),
            ("  purged since", f"{history.purged:>12,}"),
            ("  too old to tell", f"{history.expired:>12,}"),
            ("conflict (409)", f"{history.conflicts:>12,}"),
            ("rejected (4xx)", f"{history.rejected:>12,}"),
            ("no answer, or 5xx", f"{history.unanswered:>12,}"),
            *((FINDINGS[kind], f"{count:>12,}") for kind, count in history.findings.items()),
        ],
    )
    output.print_line()
    for problem in history.problems:
        output.print_line(f"problem: {problem}", style="red")
    output.print_line("The history agrees." if history.is_consistent else "The history does not agree.")


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
    for source, read_until in report.histories.items():
        yield f"history of {source} read until", output.format_time(read_until)
