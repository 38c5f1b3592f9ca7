"""`flowhooks overview`: what fails now, why deliveries wait, and the processes that run."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.http_client import ask_readiness
from flowhooks.cli.operations_client import live_servers_and_workers, lock_owner
from flowhooks.cli.options import json_option, settings_options
from flowhooks.clock import Clock, to_text
from flowhooks.errors import ServerUnreachable
from flowhooks.ledger import alert_queries, audit, stats
from flowhooks.ledger.reader import Reader
from flowhooks.operations.failing_now import CONDITIONS, failing_now
from flowhooks.operations.json.overview import condition_to_json
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.ledger.processes import LiveProcess
    from flowhooks.ledger.stats import WaitingCounts
    from flowhooks.operations.failing_now import FailingNow
    from flowhooks.settings import Settings

_NO_SERVER: Final = "no server or worker is running: no callback is accepted, and no delivery runs"
_ONLY_WORKERS: Final = "no server is running, only workers: no callback is accepted"
_STATES: Final = ("waiting", "running", "dead", "unknown", "handler_missing", "parked")


@click.command("overview", short_help="Show what fails now, and why deliveries wait.")
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool) -> None:
    r"""Show what fails now, why deliveries wait, and which servers and workers run. It changes nothing.

    The first lines say that no server runs or, on SQLite, why the server is not ready, as its `/readyz`
    does. Then come lasting conditions such as silent sources and a full disk, whether they are acknowledged or not,
    and each other open alert that nobody has acknowledged. They are followed by each open circuit, each paused
    handler with the operator's note, and the errors with the most failures in the last hour. An error is named if
    one of its deliveries is dead, unknown or retried. At most 20 conditions, circuits and paused handlers each are
    named; a line has the number of the others. The last lines are the numbers of open deliveries and parked events.
    Of the waiting deliveries, "due" could run now, "retrying" run again later, "blocked" wait for an earlier
    delivery or a limit, and "paused" wait for their handler. "handler missing" wait for a plugin. The command works
    without a server, too. Times are UTC.

    \b
    Examples:
      flowhooks overview
      flowhooks overview --json | jq '.failing.alerts[].subject'

    Exit codes: 0 nothing fails, 1 no server runs, the server is not ready, an alert is not acknowledged, a
    circuit is open, or the database cannot be read; 2 wrong usage. Paused handlers, errors and acknowledged conditions
    are no failure.
    """
    now = Clock().now()
    holder = lock_owner(settings)
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        processes = live_servers_and_workers(settings, connection, holder)
        started = audit.entries(connection, limit=1, action="start") if processes else []
        version = str(started[0].detail.get("version", "")) if started else ""
        open_alerts = alert_queries.open_alerts(connection)
        failing = failing_now(connection, open_alerts, now)
        counts = stats.count_by_state(connection, limit=stats.MAX_COUNTED)
        waiting = stats.count_waiting(connection, now)
    problems = _server_problems(processes, holder)
    alerts = [alert for alert in reversed(open_alerts) if alert.acknowledged_at is None]
    if as_json:
        output.print_json(
            {
                "generated_at": to_text(now),
                "version": version,
                "processes": [_process_to_json(process) for process in processes],
                "problems": problems,
                "failing": _failing_to_json(failing, alerts),
                "counts": counts,
                "count_limit": stats.MAX_COUNTED,
                "waiting": waiting._asdict(),
            }
        )
    else:
        if processes:
            _print_processes(processes, version, now)
            output.print_line()
        lines = [*map(output.escape_newlines, problems), *_failing_lines(failing, alerts)]
        output.print_line("Failing now:" if lines else "Nothing fails now.", style="red" if lines else "green")
        for line in lines:
            output.print_line(f"  {line}")
        output.print_line()
        _print_counts(counts, waiting)
    if problems or alerts or failing.circuits:
        raise SystemExit(1)


def _server_problems(processes: list[LiveProcess], holder: LockOwner | None) -> list[str]:
    """Return why the server is not ready, or that none runs."""
    if holder is None or not holder.admin:
        # Servers on PostgreSQL are not asked: the ledger does not have their addresses.
        if any(process.kind == "server" for process in processes):
            return []
        return [_ONLY_WORKERS if processes else _NO_SERVER]
    try:
        return [f"process {holder.pid} is not ready: {problem}" for problem in ask_readiness(holder.admin)]
    except ServerUnreachable as error:
        return [f"process {holder.pid} does not answer: {error}"]


def _print_processes(processes: list[LiveProcess], version: str, now: int) -> None:
    if version:
        output.print_line(f"flowhooks {version}")
    for process in processes:
        running = output.format_duration(max(0, now - process.since))
        output.print_line(
            f"{process.kind} {process.pid} on {output.escape_newlines(process.host)}, running for {running}"
        )


def _failing_lines(failing: FailingNow, alerts: list[OpenAlert]) -> Iterator[str]:
    one_line = output.escape_newlines
    others = [alert for alert in alerts if alert.cause not in CONDITIONS]
    for alert in (*failing.conditions, *others):
        by = f" by {one_line(alert.acknowledged_by)}" if alert.acknowledged_by else ""
        acknowledged = "" if alert.acknowledged_at is None else f", acknowledged{by}"
        since = output.format_time(alert.started_at)
        yield f"alert {alert.cause} since {since}{acknowledged}: {one_line(alert.message)}"
    for circuit in failing.circuits:
        since = output.format_time(circuit.since)
        yield f"circuit of {one_line(circuit.handler)} open since {since}: {one_line(circuit.reason)}"
    for paused in failing.paused:
        by = f" by {one_line(paused.by)}" if paused.by else ""
        note = f": {one_line(paused.note)}" if paused.note else ""
        yield f"{one_line(paused.handler)} paused since {output.format_time(paused.since)}{by}{note}"
    if failing.left_out:
        yield f"{failing.left_out:,} more: see `flowhooks alerts list` and `flowhooks handlers list`"
    for group in failing.error_groups:
        failures = output.pluralize(group.last_hour, "failure")
        yield (
            f"error of {one_line(group.handler)}, {failures} in the last hour, last "
            f"{output.format_time(group.last_seen_at)}: {one_line(group.error)}; see `flowhooks errors show "
            f"{group.fingerprint[:12]}`"
        )


def _print_counts(counts: Mapping[str, int], waiting: WaitingCounts) -> None:
    for state in _STATES:
        reasons = ", ".join(
            f"{_number(number, stats.MAX_GROUPED)} {'paused or circuit open' if name == 'paused' else name}"
            for name, number in waiting._asdict().items()
        )
        number = _number(counts[state], stats.MAX_COUNTED)
        output.print_line(f"{state.replace('_', ' '):<16} {number:>8}{f'  ({reasons})' if state == 'waiting' else ''}")


def _number(number: int, limit: int) -> str:
    return f"{limit:,}+" if number > limit else f"{number:,}"


def _process_to_json(process: LiveProcess) -> dict[str, Any]:
    return {"kind": process.kind, "host": process.host, "pid": process.pid, "started_at": to_text(process.since)}


def _failing_to_json(failing: FailingNow, alerts: list[OpenAlert]) -> dict[str, Any]:
    return {
        "alerts": [
            {
                "id": alert.id,
                "cause": alert.cause.value,
                "subject": alert.subject,
                "message": alert.message,
                "count": alert.count,
                "started_at": to_text(alert.started_at),
            }
            for alert in alerts
        ],
        "conditions": [condition_to_json(alert) for alert in failing.conditions],
        "circuits": [circuit._asdict() | {"since": to_text(circuit.since)} for circuit in failing.circuits],
        "paused": [paused._asdict() | {"since": to_text(paused.since)} for paused in failing.paused],
        "left_out": failing.left_out,
        "error_groups": [
            group._asdict() | {"last_seen_at": to_text(group.last_seen_at)} for group in failing.error_groups
        ],
    }
