"""`flowhooks routes`: every way to a handler, and one look-up explained; it must not know how a look-up is done."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import logs, output
from flowhooks.cli.asking import load
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.plugins import words
from flowhooks.clock import to_text
from flowhooks.errors import FlowhooksError
from flowhooks.event import DismissedBy, EventState, ParkedBy
from flowhooks.ledger import Reader, dialects
from flowhooks.ledger.liveness import run_by
from flowhooks.operations.lookup import lookup
from flowhooks.settings import database_url
from flowhooks.settings.secrets import masking

if TYPE_CHECKING:
    from flowhooks.ledger.known import KnownHandler
    from flowhooks.operations.lookup import Lookup
    from flowhooks.plugins import Plugins
    from flowhooks.router import Explanation
    from flowhooks.settings import Settings


@click.command("routes", short_help="Which handler listens to what; explain one look-up.")
@click.option("--class", "callback_class", type=utf8, metavar="CLASS", help="Explain: its callBackProcessClass.")
@click.option("--key", "process_key", type=utf8, metavar="KEY", help="Explain: its processDefinitionKey.")
@click.option("--version", type=int, metavar="N", help="Explain: its processDefinitionVersion.")
@click.option("--source", type=utf8, metavar="NAME", help="Explain: the engine that sends it [default: default].")
@click.option("--kind", type=utf8, metavar="KIND", help="Explain: the kind of call-back [default: complete].")
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool, **asked: Any) -> None:
    r"""Show which handler listens to what; or explain where one event would go, handler by handler.

    Handlers that the ledger remembers but that are not loaded now are among them: they still get deliveries. Those
    that other processes run are *elsewhere*. What is ordered, or runs so many at once at the most, is said too.
    It changes nothing and needs no running server; it goes by the plugins that are installed now.

    \b
    Examples:
      flowhooks routes
      flowhooks routes --key contract_approval --version 3
      flowhooks routes --class com.example.ContractSigned --source erp --json

    Exit codes: 0 done; 1 the look-up that was asked for finds nobody, so the event would be parked or refused;
    2 wrong usage.
    """
    # At critical: plugins that cannot be used are in what is printed.
    logs.configure("critical", "text", conceal=masking(settings.plugins, os.environ))
    schemas, plugins = load(settings)
    known, run = _known(settings)
    found = lookup(plugins, known, settings.ignore.process_key, run=run)
    paused = {one.id: one.paused_at for one in known}
    if any(value is not None for value in asked.values()):
        asked = {**asked, "source": asked["source"] or "default", "kind": asked["kind"] or "complete"}
        explanation = found.router.explain(**asked)
        hints = [*_own_hints(settings, schemas.kinds, asked), *explanation.hints]
        verdict = _verdict(settings, explanation)
        (_explain_json if as_json else _explain)(asked, found, explanation, hints, verdict)
        if verdict in {"parked", "refused"}:
            raise SystemExit(1)
        return
    listeners = [
        {
            **asdict(one),
            **_turns(one.handler_id, found, plugins),
            "state": found.standing(one.handler_id),
            "paused_since": to_text(paused.get(one.handler_id)),
        }
        for one in found.router.all()
    ]
    quarantined = [info for info in plugins.infos if info.state == "quarantined"]
    if as_json:
        output.emit(
            {"routes": listeners, "quarantined": [{"plugin": info.name, "error": info.error} for info in quarantined]}
        )
        return
    if listeners:
        # Few handlers take turns, and a table is soon too wide.
        turns = [words.ordered(one["order_by"], one["concurrency"]) for one in listeners]
        output.table(
            ("kind", "by", "value", "versions", "sources", "handler", "state", *(["turns"] if any(turns) else [])),
            [
                (
                    one["kind"],
                    one["by"],
                    one["value"] or "-",
                    one["versions"] or "any",
                    ", ".join(one["sources"]) or "any",
                    one["handler_id"],
                    f"{one['state']}, paused" if one["paused_since"] else one["state"],
                    *([turn or "-"] if any(turns) else []),
                )
                for one, turn in zip(listeners, turns, strict=True)
            ],
            unbroken=("state", "by"),
        )
        output.line()
    output.line(_summary(listeners))
    for info in quarantined:
        output.line(f"Quarantined: {info.error}", style="red")


def _turns(handler_id: str, found: Lookup, plugins: Plugins) -> dict[str, Any]:
    """What a handler's deliveries wait for besides their time; a limit is known only of what is loaded."""
    handler = plugins.handlers.get(handler_id)
    return {
        "order_by": found.router.order_by(handler_id),
        "concurrency": None if handler is None else handler.concurrency,
    }


def _known(settings: Settings) -> tuple[list[KnownHandler], frozenset[str]]:
    """What the ledger remembers, and which of that processes run; nothing where there is no ledger yet.

    Where it cannot be read, a word of that.
    """
    url = database_url(settings)
    file = dialects.database_file(url)
    if file is not None and not file.exists():
        return [], frozenset()
    try:
        reader = Reader(url)
    except FlowhooksError as error:
        output.line(f"Without the handlers that the ledger remembers: {error}", err=True)
        return [], frozenset()
    try:
        return reader.known(), run_by(reader.living(settings.ledger.stale_after))
    finally:
        reader.close()


def _summary(listeners: list[dict[str, Any]]) -> str:
    states = {one["handler_id"]: one["state"] for one in listeners}
    if not states:
        return "No handler is known: every call-back would be parked."
    counts = [(state, sum(one == state for one in states.values())) for state in dict.fromkeys(states.values())]
    by_state = ", ".join(f"{count:,} {state}" for state, count in counts)
    return f"{output.several(len(listeners), 'route')} to {output.several(len(states), 'handler')}: {by_state}."


def _own_hints(settings: Settings, kinds: tuple[str, ...], asked: dict[str, Any]) -> list[str]:
    """What the router cannot know: which engines and kinds of call-back there are."""
    hints = []
    if asked["kind"] not in kinds:
        hints.append(
            f"there is no kind of call-back {asked['kind']!r}: its path is answered 404; {', '.join(kinds)} are"
        )
    if settings.sources and asked["source"] not in settings.sources:
        hints.append(f"no source is called {asked['source']!r}; the settings have {', '.join(settings.sources)}")
    return hints


def _verdict(settings: Settings, explanation: Explanation) -> str:
    """`"delivered"`, `"parked"`, `"refused"`, `"dismissed"`, or `"ignored"` where a setting dismisses the event."""
    route, routing = explanation.route, settings.routing
    if route.state is EventState.ROUTED:
        return "delivered"
    if route.state is EventState.DISMISSED:
        return "ignored" if route.dismissed_by is DismissedBy.SETTING else "dismissed"
    refused = {ParkedBy.HANDLER: routing.no_handler, ParkedBy.NAME: routing.no_name}
    return "refused" if route.parked_by and refused.get(route.parked_by) == "reject" else "parked"


def _explain_json(
    asked: dict[str, Any], found: Lookup, explanation: Explanation, hints: list[str], verdict: str
) -> None:
    output.emit(
        {
            "asked": asked,
            "verdict": verdict,
            "handlers": dict(explanation.route.handlers),
            "candidates": [{**asdict(one), "state": found.standing(one.handler_id)} for one in explanation.verdicts],
            "hints": hints,
        }
    )


def _explain(asked: dict[str, Any], found: Lookup, explanation: Explanation, hints: list[str], verdict: str) -> None:
    names = {"callback_class": "class", "process_key": "key", "version": "version"}
    given = ", ".join(f"{word} {asked[name]}" for name, word in names.items() if asked[name] not in {None, ""})
    given = given or "neither class nor key"
    output.line(f"A call-back of kind {asked['kind']} from {asked['source']}, with {given}:")
    output.line()
    if explanation.verdicts:
        output.table(
            ("", "handler", "state", "shares", "why"),
            [
                ("won" if one.won else "lost", one.handler_id, found.standing(one.handler_id), one.shares, one.why)
                for one in explanation.verdicts
            ],
            unbroken=("", "state"),
        )
        output.line()
    handlers = ", ".join(explanation.route.handlers)
    so = {
        "delivered": f"It goes to {handlers}.",
        "parked": "No class or key handler wants it: it is parked until one is installed"
        + (f"; {handlers} gets it all the same." if handlers else "."),
        "refused": "No class or key handler wants it: it is refused with 422, as the setting routing.no_handler says.",
        "dismissed": "Handlers have its class or key, but it is not for them: it is dismissed and answered 200"
        + (f"; {handlers} gets it all the same." if handlers else "."),
        "ignored": "No class or key handler wants it, and none is needed, as the setting ignore.process_key says"
        + (f"; {handlers} gets it." if handlers else "."),
    }
    output.line(so[verdict], style="green" if verdict == "delivered" else "yellow")
    if any(found.standing(handler) not in {"present", "elsewhere"} for handler in explanation.route.handlers):
        output.line("A handler that is not present gets its delivery all the same, which waits for its plugin.")
    for hint in hints:
        output.line(f"Hint: {hint}.")
