"""`flowhooks alerts`: list and acknowledge alerts, and test whether their messages arrive."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.clock import to_text
from flowhooks.ledger import alert_queries
from flowhooks.ledger.reader import Reader
from flowhooks.operations.json.encoding import dataclass_to_json
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.settings import Settings

MAX_CLOSED_ALERTS: Final = 100
"""Maximum number of closed alerts shown, newest first."""


@click.group("alerts", short_help="List, acknowledge and test alerts.")
def command() -> None:
    """List, acknowledge and test alerts.

    An alert is raised once per cause and stays open until its cause is gone. Listeners are notified again when it has
    grown. Acknowledging an alert shows your colleagues that you are working on it. It does not close the alert, and
    listeners are still notified of growth.
    """


@command.command("list", short_help="List open alerts, unacknowledged ones first.")
@click.option("--all", "everything", is_flag=True, help=f"Also list the last {MAX_CLOSED_ALERTS} closed alerts.")
@json_option
@settings_options
def list_command(settings: Settings, *, everything: bool, as_json: bool) -> None:
    r"""List the open alerts, unacknowledged ones first.

    For each alert the list shows how many deliveries or events share it, how many of them are new since its last
    notification, and the last error. Times are UTC.

    \b
    Examples:
      flowhooks alerts list
      flowhooks alerts list --all --json

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        rows: list[tuple[OpenAlert, int | None]] = [(alert, None) for alert in alert_queries.open_alerts(connection)]
        closed_alerts = alert_queries.recently_closed(connection, limit=MAX_CLOSED_ALERTS) if everything else []
    rows.sort(key=lambda row: row[0].acknowledged_at is not None)
    rows += closed_alerts
    if as_json:
        output.print_json(
            {"alerts": [dataclass_to_json(alert) | {"closed_at": to_text(closed_at)} for alert, closed_at in rows]}
        )
        return
    if not rows:
        output.print_line("No alert is open.")
        return
    output.print_table(
        ("alert, since (UTC)", "about", "message"),
        [
            (
                f"{alert.id}\n  {output.format_time(alert.started_at)}",
                _summary_text(alert, closed_at),
                _message_text(alert),
            )
            for alert, closed_at in rows
        ],
        free_text=("message",),
    )


@command.command("acknowledge", short_help="Acknowledge open alerts.")
@click.argument("alerts", type=utf8, nargs=-1, required=True, metavar="ID...")
@click.option("--note", type=utf8, default="", metavar="TEXT", help="Note for other operators, kept in the audit log.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@json_option
@settings_options
def acknowledge_command(settings: Settings, *, alerts: Sequence[str], note: str, dry_run: bool, as_json: bool) -> None:
    r"""Acknowledge open alerts. They stay listed until their causes are gone.

    The list then shows who acknowledged an alert, and when. An acknowledgement cannot be undone. After it, listeners
    are notified again only when the count has doubled and has risen by at least 10. If the cause goes away and returns,
    a new alert is raised.

    \b
    Examples:
      flowhooks alerts acknowledge 019ab2c4-5d20-7000-8000-0c0d5e6f7a8b
      flowhooks alerts acknowledge 019ab2c4-5d20-7000-8000-0c0d5e6f7a8b --note "the archive is down until noon"

    Exit codes: 0 done, 1 one of them is not open or was acknowledged before, 2 wrong usage.
    """
    done = operations_client.run_operation(
        settings, "acknowledge", {"alerts": list(alerts), "note": note, "dry_run": dry_run}
    )
    if as_json:
        output.print_json(done)
    else:
        output.print_line(_result_text(done))
    if done["skipped"]:
        raise click.exceptions.Exit(1)


@command.command("test", short_help="Send a test message through each plugin that receives alerts.")
@click.option("--route", type=utf8, default="", metavar="NAME", help="Only the plugins of [alerts.routes.NAME].")
@json_option
@settings_options
def test_command(settings: Settings, *, route: str, as_json: bool) -> None:
    r"""Send a test message through each plugin that receives alerts, and show which of them delivered it.

    If a server runs, it sends the messages with its settings. Otherwise this process loads the plugins and sends them.

    \b
    Examples:
      flowhooks alerts test
      flowhooks alerts test --route payments

    Exit codes: 0 each plugin accepted the message, 1 one did not, or there is none, 2 wrong usage.
    """
    done = operations_client.run_operation(settings, "test_alerts", {"route": route} if route else {})
    errors: Mapping[str, str] = done["errors"]
    if as_json:
        output.print_json(done)
    elif not errors:
        output.print_line("No plugin receives alerts. flowhooks-notice sends mails and chat messages.")
    for plugin, error in () if as_json else errors.items():
        result = f"failed: {output.escape_newlines(error)}" if error else "accepted"
        output.print_line(f"{output.escape_newlines(plugin)}: {result}")
    if not errors or any(errors.values()):
        raise click.exceptions.Exit(1)


def _result_text(done: Mapping[str, Any]) -> str:
    count, skipped = len(done["alerts"]), done["skipped"]
    verb = "would be" if done["dry_run"] else "is" if count == 1 else "are"
    text = f"{output.pluralize(count, 'alert')} {verb} acknowledged."
    if skipped:
        text += f" Skipped, because not open or acknowledged before: {', '.join(skipped)}."
    return text


def _message_text(alert: OpenAlert) -> str:
    error = f"\nlast error: {output.escape_newlines(alert.last_error)}" if alert.last_error else ""
    return f"{output.escape_newlines(alert.message)}{error}"


def _summary_text(alert: OpenAlert, closed_at: int | None) -> str:
    new = alert.count - alert.notified_count
    lines = [
        f"{alert.cause} {output.escape_newlines(alert.subject)}",
        f"{alert.count:,}{f' (+{new:,})' if new else ''}, last {output.format_time(alert.last_at)}",
    ]
    for plugin, error in alert.notification_errors.items():
        lines.append(f"not delivered by {output.escape_newlines(plugin)}: {output.escape_newlines(error)}")
    if alert.acknowledged_at is not None:
        lines += [
            f"acknowledged {output.format_time(alert.acknowledged_at)}",
            f"  by {output.escape_newlines(alert.acknowledged_by) or '-'}",
        ]
    if closed_at is not None:
        lines.append(f"closed {output.format_time(closed_at)}")
    return "\n".join(lines)
