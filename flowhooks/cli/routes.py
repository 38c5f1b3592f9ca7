"""`flowhooks routes`: list all routes, or explain one look-up."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowhooks.cli import output, routes_text
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.plugins import text
from flowhooks.cli.route_lookup import load_route_lookup
from flowhooks.clock import to_text
from flowhooks.observability import logging
from flowhooks.settings.secrets import settings_redactor

if TYPE_CHECKING:
    from flowhooks.operations.lookup import Lookup
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings


@click.command("routes", short_help="List the routes, or explain where an event would go.")
@click.option(
    "--class", "callback_class", type=utf8, metavar="CLASS", help="Explain an event with this callBackProcessClass."
)
@click.option("--key", "process_key", type=utf8, metavar="KEY", help="Explain an event with this processDefinitionKey.")
@click.option("--version", type=int, metavar="N", help="Explain an event with this processDefinitionVersion.")
@click.option(
    "--source",
    type=utf8,
    metavar="NAME",
    help="Explain an event from this source [default: the first source in the settings].",
)
@click.option(
    "--kind", type=utf8, metavar="KIND", help="Explain an event of this kind of callback [default: complete]."
)
@click.option(
    "--conclusion", type=utf8, metavar="TEXT", help="Explain an event with this conclusion, as the engine sends it."
)
@click.option(
    "--data",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Explain an event with the body in FILE; - for the standard input. Other options override its members.",
)
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool, **options: Any) -> None:
    r"""List which handler listens to what, or explain handler by handler where an event would go.

    Without options the command lists the routes. With options it explains one event: which handlers match, which do
    not, and why. For each condition it shows yes, no, or undecided if the event lacks the member or the member has
    another type. Give the body of a callback with --data if handlers have conditions on it. The table
    [sources.NAME.conclusion] of the settings is applied to the conclusion.

    Registered handlers that are not loaded now are listed too, because they still get deliveries. Handlers that only
    other processes run are marked *elsewhere*. The command changes nothing and needs no running server. It uses the
    plugins that are installed now.

    \b
    Examples:
      flowhooks routes
      flowhooks routes --key contract_approval --version 3 --conclusion approved
      flowhooks routes --data body.json --source erp
      flowhooks routes --class com.example.ContractSigned --source erp --json

    Exit codes: 0 done; 1 the event would be parked or rejected, or the body is not what the callback takes;
    2 wrong usage.
    """
    # Log at critical only: the printed result has the plugins that cannot be used.
    logging.configure("critical", "text", redact=settings_redactor(settings, os.environ))
    loaded = load_route_lookup(settings)
    schemas, plugins, lookup_result = loaded.schemas, loaded.plugins, loaded.lookup
    paused = {handler.id: handler.paused_at for handler in loaded.registered}
    if any(value is not None for value in options.values()):
        example = routes_text.make_example(settings, schemas, **options)
        explanation = lookup_result.router.explain_event(example.event)
        result = routes_text.outcome(settings, example, explanation.route)
        hints = routes_text.hints(settings, schemas, example, explanation)
        if as_json:
            output.print_json(
                {**routes_text.to_json(example, lookup_result, explanation), "result": result, "hints": hints}
            )
        else:
            routes_text.show(example, lookup_result, explanation, result=result, hints=hints)
        if result in {"parked", "rejected"}:
            raise SystemExit(1)
        return
    listeners = [
        {
            **asdict(route),
            **_ordering(route.handler_id, lookup_result, plugins),
            "state": lookup_result.availability(route.handler_id),
            "paused_at": to_text(paused.get(route.handler_id)),
        }
        for route in lookup_result.router.subscriptions()
    ]
    quarantined = [info for info in plugins.infos if info.state == "quarantined"]
    if as_json:
        output.print_json(
            {
                "routes": listeners,
                "quarantined": [{"plugin": info.name, "error": info.error} for info in quarantined],
                "unreadable": list(lookup_result.router.unreadable_handlers),
            }
        )
        return
    if listeners:
        output.print_table(
            ("kind", "by", "value", "versions", "sources", "handler", "state", "conditions", "turns"),
            [
                (
                    route["kind"],
                    route["by"],
                    route["value"] or "-",
                    route["versions"] or "any",
                    ", ".join(route["sources"]) or "any",
                    route["handler_id"],
                    f"{route['state']}, paused" if route["paused_at"] else route["state"],
                    text.conditions_text(route["conclusions"], route["when"]) or "-",
                    text.ordering_text(route["order_by"], route["concurrency"], route["rate"]) or "-",
                )
                for route in listeners
            ],
            free_text=("sources", "conditions", "turns"),
            optional=("conditions", "turns"),
        )
        output.print_line()
    output.print_line(_summary(listeners))
    if lookup_result.router.unreadable_handlers:
        output.print_line(routes_text.unreadable_text(lookup_result.router.unreadable_handlers), style="red")
    for info in quarantined:
        output.print_line(f"Quarantined: {info.error}", style="red")


def _ordering(handler_id: str, lookup_result: Lookup, plugins: Plugins) -> dict[str, Any]:
    """Return a handler's order key and limits; the limits are known only for loaded handlers."""
    handler = plugins.handlers.get(handler_id)
    return {
        "order_by": lookup_result.router.order_by(handler_id),
        "concurrency": None if handler is None else handler.concurrency,
        "rate": None if handler is None else handler.rate,
    }


def _summary(listeners: list[dict[str, Any]]) -> str:
    states = {route["handler_id"]: route["state"] for route in listeners}
    if not states:
        return "No handler is registered: every callback would be parked."
    counts = [
        (state, sum(handler_state == state for handler_state in states.values()))
        for state in dict.fromkeys(states.values())
    ]
    by_state = ", ".join(f"{count:,} {state}" for state, count in counts)
    return f"{output.pluralize(len(listeners), 'route')} to {output.pluralize(len(states), 'handler')}: {by_state}."
