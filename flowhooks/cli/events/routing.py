"""`flowhooks events drain`, `reroute` and `dismiss`: where events go after all; it must not know how it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flowhooks.cli.events import words
from flowhooks.cli.events.mass import (
    Act,
    Meant,
    act,
    dry_run_option,
    mass_options,
    note_option,
    performed,
    report,
)
from flowhooks.cli.options import json_option, settings_options
from flowhooks.ledger.reading import EventFilter
from flowhooks.operations.dismiss import of_parked

if TYPE_CHECKING:
    from flowhooks.settings import Settings


@click.command("drain", short_help="Deliver parked events that are wanted by now.")
@dry_run_option
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
    what = Act(operation="drain", arguments={"dry_run": dry_run}, in_words=words.drained, question=lambda _planned: "")
    report(performed(settings, what, wanted=EventFilter(state="parked")), words.drained, as_json=as_json)


@click.command("reroute", short_help="Route events again, by the handlers that there are now.")
@mass_options
def reroute_command(meant: Meant) -> None:
    r"""Route events again, by the handlers that there are now, and deliver them to those that they lack.

    Parked events get their deliveries; dismissed ones too, or are parked again if nobody wants them; routed ones get
    deliveries for handlers that were installed since. What an event has is neither changed nor run again, and no
    delivery is taken away. --handler and --state mean what the events have already. A running server goes by the
    plugins it has loaded: after installing one, start it anew. It asks before it does anything, unless --yes is
    given: what a handler does cannot be undone.

    \b
    Examples:
      flowhooks events reroute 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11
      flowhooks events reroute --key contract_approval --since 2026-11-01 --dry-run
      flowhooks events reroute --state dismissed --key travel_request

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    what = Act(operation="reroute", arguments={}, in_words=words.rerouted, question=words.reroute_question)
    act(meant, what)


@click.command("dismiss", short_help="Say that nobody need want parked events.")
@note_option
@mass_options
def dismiss_command(meant: Meant, *, note: str) -> None:
    r"""Say that nobody need want parked events: they are kept, and wait for nobody any more.

    Which ones: those of the events with these IDs, or that the filter means, that are parked; --all means all that
    are parked. An engine that calls back again is answered 200. `flowhooks events reroute` undoes it. For a key that
    nobody will ever need, name it in the setting ignore.process_key.

    \b
    Examples:
      flowhooks events dismiss 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11 --note "sent by a test"
      flowhooks events dismiss --key travel_request --until 2026-11-01 --dry-run
      flowhooks events dismiss --all --yes

    Exit codes: 0 done (or nothing to do), 1 trouble, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    what = Act(
        operation="dismiss",
        arguments={"note": note},
        in_words=words.dismissed,
        question=words.dismiss_question,
        goes_through=of_parked(meant.wanted),
    )
    act(meant, what)
