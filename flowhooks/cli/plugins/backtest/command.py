"""`flowhooks plugins try`: report which stored events a plugin would handle differently from the installed plugins."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.filters import filter_options
from flowhooks.cli.options import json_option, settings_source_options, utf8
from flowhooks.cli.plugins import pip
from flowhooks.cli.plugins.backtest import report
from flowhooks.cli.plugins.backtest.environment import trial_environment
from flowhooks.cli.plugins.backtest.evaluation import Evaluation
from flowhooks.cli.plugins.install import diff_plugins
from flowhooks.clock import SECOND, to_text
from flowhooks.ledger.reader import Reader
from flowhooks.operations.backtest import Comparison, event_to_json
from flowhooks.operations.error_groups import complete_filter
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from flowhooks.cli.options import SettingsSource
    from flowhooks.cli.plugins.backtest.environment import TrialEnvironment
    from flowhooks.ledger.queries import EventFilter, StoredEvent

MAX_EVENTS: Final = 100_000
"""Maximum number of events of one trial: an event takes about a millisecond."""
PAGE_SIZE: Final = 50
"""Number of events that are in memory at once. A body has at most 1 MiB by default."""


@click.command("try", short_help="Compare a plugin with the installed one on stored events.")
@click.argument("requirements", type=utf8, nargs=-1, required=True, metavar="WHEEL_OR_DIR...")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_EVENTS),
    default=1000,
    show_default=True,
    metavar="N",
    help="Maximum number of events, the newest ones.",
)
@filter_options
@json_option
@settings_source_options
def try_command(
    settings_source: SettingsSource,
    *,
    requirements: tuple[str, ...],
    event_filter: EventFilter,
    limit: int,
    as_json: bool,
) -> None:
    r"""Report which stored events a plugin would handle differently from the plugins that are installed.

    WHEEL_OR_DIR is a wheel, the folder of a package, or any other requirement of pip. It is installed into a temporary
    environment, which also has all packages of this one, and is deleted afterwards. Options after -- are passed to pip,
    such as --no-index.

    Two new processes then evaluate the stored events, one with the installed plugins and one with the others. They load
    the plugins as a server does, so import and configuration code runs; no handler is entered, and nothing is stored. A
    server may be running. The report has the events that would go to other handlers, whose conditions would have
    another result, or whose data would violate the schemas, grouped by class, key and conclusion. Reasons may quote
    values of bodies.

    \b
    Examples:
      flowhooks plugins try ./acme-leave
      flowhooks plugins try dist/acme_leave-2.0.0-py3-none-any.whl --limit 10000 --key leave_request
      flowhooks plugins try ./acme-leave --since 7d --json | jq '.differences[].samples'

    Exit codes: 0 no difference; 1 there are differences, a plugin cannot be used, or the trial failed; 2 wrong usage.
    """
    targets, pip_options = _split(requirements)
    settings = settings_source.load()
    pip.check_available(("--break-system-packages",))  # nothing is installed into this environment
    with closing(Reader(database_url(settings))) as reader:
        event_filter = complete_filter(reader, event_filter, settings.search.fields)
        output.print_line("Creating a temporary environment.", err=True)
        with trial_environment(targets, pip_options) as environment:
            result = _compare(settings_source, environment, islice(_newest(reader, event_filter), limit), total=limit)
    if as_json:
        output.print_json(result)
    else:
        report.print_report(result)
    if result["differences"] or result["problems"]:
        raise SystemExit(1)


def _split(requirements: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return what to install, and the options for pip, which begin with the first word that starts with `-`."""
    first = next((number for number, word in enumerate(requirements) if word.startswith("-")), len(requirements))
    targets = list(requirements[:first])
    if not targets:
        raise click.UsageError("Nothing to try: give a wheel or the folder of a package.")
    for target in targets:
        folder = Path(target)
        if folder.is_dir() and not any((folder / name).is_file() for name in ("pyproject.toml", "setup.py")):
            raise click.UsageError(
                f"The folder {target} is no package: it has no pyproject.toml. `flowhooks plugins new` makes a package."
            )
    return targets, list(requirements[first:])


def _newest(reader: Reader, event_filter: EventFilter) -> Iterator[StoredEvent]:
    after = ""
    while page := reader.find(event_filter, limit=PAGE_SIZE, after=after):
        yield from page
        after = page[-1].event.id


def _compare(
    settings_source: SettingsSource, environment: TrialEnvironment, events: Iterator[StoredEvent], *, total: int
) -> dict[str, Any]:
    tried = environment.plugins()
    if not tried:
        raise click.ClickException("it has no plugin: no package that was installed has an entry point of flowhooks")
    arguments = settings_source.arguments
    with (
        Evaluation("the installed plugins", sys.executable, arguments) as old,
        Evaluation("the tried plugins", environment.python, arguments, environment.environ) as new,
    ):
        plugins_before, plugins_after = old.plugins(), new.plugins()
        comparison, numbers = _evaluate(old, new, events, total=total)
    return {
        "tried": tried,
        "plugins": diff_plugins(plugins_before, plugins_after),
        "problems": _problem(plugins_before, plugins_after, tried),
        "events": numbers,
        "differences": report.groups_to_json(comparison),
    }


def _evaluate(
    old: Evaluation, new: Evaluation, events: Iterator[StoredEvent], *, total: int
) -> tuple[Comparison, dict[str, Any]]:
    comparison = Comparison()
    damaged = 0
    times: list[datetime] = []
    with output.progress_bar("Evaluating", lambda: total) as advance:
        for stored in events:
            advance(1)
            if stored.damage:
                damaged += 1
                continue
            line = json.dumps(event_to_json(stored.event))
            old.request(line)
            new.request(line)
            comparison.add(stored.event, old.outcome(), new.outcome())
            times = [*times[:1], stored.event.received_at]
    numbers = {
        "compared": comparison.compared,
        "different": comparison.different,
        "damaged": damaged,
        "newest_received_at": _time_text(times[:1]),
        "oldest_received_at": _time_text(times[-1:]),
    }
    return comparison, numbers


def _time_text(times: Sequence[datetime]) -> str | None:
    return to_text(round(times[0].timestamp() * SECOND)) if times else None


def _problem(
    before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], tried: dict[str, str]
) -> list[dict[str, str]]:
    """Return the plugins that are not loaded among the others: the tried ones, and those that are loaded now."""
    loaded = {plugin["name"] for plugin in before if plugin["state"] == "loaded"}
    return [
        {"plugin": plugin["name"], "state": plugin["state"], "error": plugin["error"]}
        for plugin in after
        if plugin["origin"] and plugin["state"] != "loaded" and plugin["name"] in {*tried, *loaded}
    ]
