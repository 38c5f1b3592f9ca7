"""`flowhooks events replay`, `resolve` and `drain`: what operators do; it must not know how any of it is done."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import asking, output
from flowhooks.cli.events import words
from flowhooks.cli.filters import filter_options
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.errors import NotFound
from flowhooks.ledger import Reader
from flowhooks.ledger.reading import EventFilter
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.settings import Settings

MOST_IDS: Final = 1000
"""Ids given one by one; who means more has a filter for them."""

_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_yes = click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal to ask on.")


@click.command("replay", short_help="Run dead deliveries again.")
@click.argument("event_ids", type=utf8, nargs=-1, metavar="[ID]...")
@filter_options
@click.option("--all", "everything", is_flag=True, help="Mean every event that there is.")
@click.option("--again", is_flag=True, help="Also run deliveries that succeeded: their work is done a second time.")
@click.option("--after", type=utf8, default="", metavar="ID", help="Go on after this event, where a replay stopped.")
@_dry_run
@_yes
@json_option
@settings_options
def replay_command(
    settings: Settings,
    *,
    event_ids: tuple[str, ...],
    wanted: EventFilter,
    everything: bool,
    again: bool,
    after: str,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    r"""Run dead deliveries again, each with a fresh retry schedule; their history is kept.

    Which ones: those of the events with these IDs, or that the filter means; --handler and --state narrow
    deliveries too. Nothing is routed anew. It asks before it does anything, unless --yes is given.

    \b
    Examples:
      flowhooks events replay 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events replay --handler contracts:archive_contract --since 2d --dry-run
      flowhooks events replay --all --yes
      flowhooks events replay --state succeeded --flow 4711 --again

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    wanted = replace(wanted, ids=tuple(dict.fromkeys((*event_ids, *wanted.ids))))
    if wanted.narrows == everything:
        raise click.UsageError(
            "--all means every event; leave out the IDs and filters, or --all."
            if everything
            else "Which events? Give IDs or a filter, or --all for every event."
        )
    if len(wanted.ids) > MOST_IDS:
        raise click.UsageError(f"Give {MOST_IDS:,} IDs at the most, or a filter.")
    _refuse_without_terminal(yes or dry_run)
    with closing(Reader(database_url(settings))) as reader:
        _refuse_unknown(reader, wanted.ids)
    # Not even an empty list of ids is sent: none at all would mean every event, and is refused.
    arguments = {"wanted": wanted.to_json(), **({"after": after} if after else {})}

    def perform(*, again: bool, dry_run: bool) -> dict[str, Any]:
        return _performed(
            settings,
            "replay",
            {**arguments, "again": again, "dry_run": dry_run},
            words.replayed,
            going_on="; to go on where it stopped, add --after {after}" if again else "; the same command goes on",
            wanted=wanted,
        )

    if yes and not dry_run:
        _report(perform(again=again, dry_run=False), words.replayed, as_json=as_json)
        return
    planned = perform(again=again, dry_run=True)
    if dry_run or not planned["deliveries"]:
        _report(planned | {"dry_run": dry_run}, words.replayed, as_json=as_json)
        return
    dead = perform(again=False, dry_run=True)["deliveries"] if again else planned["deliveries"]
    click.confirm(words.question(dead, planned["deliveries"] - dead), abort=True, err=True)
    _report(perform(again=again, dry_run=False), words.replayed, as_json=as_json)


@click.command("resolve", short_help="Say what became of one delivery.")
@click.argument("delivery_id", type=utf8, metavar="DELIVERY_ID")
@click.option("--did", "verdict", flag_value="did", help="It did its work: it has succeeded.")
@click.option("--did-not", "verdict", flag_value="did-not", help="It did not: it is run again.")
@click.option("--close", "verdict", flag_value="close", help="Nothing more is needed, whatever it did.")
@click.option("--note", type=utf8, default="", metavar="TEXT", help="Why, for those who look later.")
@_dry_run
@_yes
@json_option
@settings_options
def resolve_command(
    settings: Settings, *, delivery_id: str, verdict: str | None, note: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    r"""Say of one delivery what the machine cannot know: whether its work was done, or that none is needed.

    --did and --did-not are for unknown deliveries; --close is for unknown, dead and waiting ones.
    The ids of deliveries are in `flowhooks events show`. It asks first, unless --yes is given.

    \b
    Examples:
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --did --note "found in the archive"
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --did-not
      flowhooks events resolve 019ab2c4-5d1f-7000-8000-aa30b1c2d3e4 --close --yes

    Exit codes: 0 done, 1 it cannot be said of this delivery, 2 wrong usage.
    """
    if verdict is None:
        raise click.UsageError("Say what became of it: --did, --did-not or --close.")
    _refuse_without_terminal(yes or dry_run)
    arguments = {"delivery_id": delivery_id, "verdict": verdict, "note": note}
    if not (dry_run or yes):
        planned = asking.perform(settings, "resolve", {**arguments, "dry_run": True})
        click.confirm(f"{words.resolved(planned)} Go on?", abort=True, err=True)
    _report(asking.perform(settings, "resolve", {**arguments, "dry_run": dry_run}), words.resolved, as_json=as_json)


@click.command("drain", short_help="Deliver parked events that are wanted by now.")
@_dry_run
@json_option
@settings_options
def drain_command(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    r"""Deliver parked events that a handler wants by now, the oldest first.

    A server does this by itself when it starts. A running one goes by the plugins it has loaded: after
    installing one, start it anew.

    \b
    Examples:
      flowhooks events drain --dry-run
      flowhooks events drain

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    done = _performed(
        settings,
        "drain",
        {"dry_run": dry_run},
        words.drained,
        going_on="; the same command goes on",
        wanted=EventFilter(state="parked"),
    )
    _report(done, words.drained, as_json=as_json)


def _refuse_without_terminal(needs_none: bool) -> None:
    if not needs_none and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on: give --yes, or --dry-run to see what would be done.")


def _refuse_unknown(reader: Reader, ids: tuple[str, ...]) -> None:
    if ids:
        known = {one.event.id for one in reader.page(EventFilter(ids=ids), limit=len(ids))}
        if unknown := [one for one in ids if one not in known]:
            raise NotFound(f"there is no event {', '.join(unknown[:5])}{', …' if len(unknown) > 5 else ''}")  # noqa: PLR2004 (enough to see it)


def _performed(
    settings: Settings,
    name: str,
    arguments: Mapping[str, Any],
    in_words: Callable[[Mapping[str, Any]], str],
    *,
    going_on: str,
    wanted: EventFilter,
) -> dict[str, Any]:
    """Do a paged operation; one that stops half-way says how far it has come and how to go on."""

    def total() -> int:
        with closing(Reader(database_url(settings))) as reader:
            return reader.how_many(wanted)

    try:
        return asking.perform(settings, name, arguments, progress=(name, total))
    except asking.Stopped as stopped:
        so_far = f" Until then: {in_words(stopped.done)}" if stopped.done else ""
        how = going_on.format(after=stopped.after)
        raise _Ended(f"{stopped}{how}.{so_far}", asking.INTERRUPTED if stopped.interrupted else 1) from None


class _Ended(click.ClickException):
    """An operation did not come to its end."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it for the class, and reads it of the instance


def _report(done: Mapping[str, Any], in_words: Callable[[Mapping[str, Any]], str], *, as_json: bool) -> None:
    if as_json:
        output.emit(done)
        return
    output.line(in_words(done))
    if waits := words.waiting_for_a_server(done):
        output.line(waits)
