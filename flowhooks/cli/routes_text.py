"""Explain one look-up of `flowhooks routes`: which handlers an event would go to, and why."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks import schema
from flowhooks.cli import output
from flowhooks.cli.options import read_file
from flowhooks.errors import InvalidCallback, MalformedRequest
from flowhooks.model.event import DismissedBy, Event, EventState, ParkedBy, from_body
from flowhooks.operations.json.routing import explanation_to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowhooks.operations.lookup import Lookup
    from flowhooks.routing.index import Route
    from flowhooks.routing.router import CandidateMatch, Explanation
    from flowhooks.schema.schemas import Schemas
    from flowhooks.settings import Settings

MEMBER_OF_OPTION: Final = {
    "callback_class": "callBackProcessClass",
    "process_key": "processDefinitionKey",
    "version": "processDefinitionVersion",
    "conclusion": "conclusion",
}
"""Members of the body by the option that overrides them."""
_PARKED: Final = {
    ParkedBy.HANDLER: "No class or key handler matches: it is parked until a matching handler is installed",
    ParkedBy.CONDITION: "The condition of a handler cannot be decided because of {member}: it is parked for an "
    "operator",
    ParkedBy.NAME: "It has neither class nor key, so no handler can match: it is parked",
}
_DISMISSED: Final = {
    DismissedBy.CONDITION: "Handlers have its class or key, but the conditions of each are false: it is dismissed "
    "and answered 200",
    DismissedBy.KIND: "Handlers have its class or key, but none of them listens to this kind: it is dismissed and "
    "answered 200",
    DismissedBy.SETTING: "No class or key handler matches, and the setting routing.ignore_process_keys lists its "
    "key: it is dismissed and answered 200",
}
_SETTINGS: Final = {ParkedBy.HANDLER: "routing.no_handler", ParkedBy.NAME: "routing.no_name"}
_VALUES: Final = {True: "true", False: "false", None: "undecided"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An event to explain.

    Attributes:
        event: the event, made in the same way as from a callback.
        sent_conclusion: conclusion as sent by the engine; None: none was sent.
        schema_error: why the schema rejects the body, so that the callback is answered 422; `""` if it accepts it.
    """

    event: Event
    sent_conclusion: str | None
    schema_error: str


def make_example(settings: Settings, schemas: Schemas, *, file: Path | None, **options: Any) -> Example:
    """Make an event from the options, in the same way as from a callback.

    Args:
        settings: settings with the sources, each with its own words for conclusions.
        schemas: schemas that validate the body of a file.
        file: body of a callback; `-` is standard input; None: use only the options.
        **options: source, kind and the names of `MEMBER_OF_OPTION`, each a value or None. Without a source, it is the
            first one in the settings.

    Raises:
        SettingsError: the file cannot be read.
        click.UsageError: the file is not the JSON of a callback.
    """
    source = options["source"] or next(iter(settings.sources), "default")
    kind = options["kind"] or "complete"
    body = _body(file) if file else {}
    body |= {member: options[name] for name, member in MEMBER_OF_OPTION.items() if options[name] is not None}
    schema_error = _schema_error(schemas, kind, body) if file else ""
    source_settings = settings.sources.get(source)
    event = from_body(
        {} if schema_error else body,
        id="",
        source=source,
        kind=kind,
        flow_instance_id="",
        received_at=datetime.fromtimestamp(0, UTC),
        conclusions=source_settings.conclusion if source_settings else MappingProxyType({}),
    )
    return Example(
        event=event, sent_conclusion=(not schema_error and body.get("conclusion")) or None, schema_error=schema_error
    )


def _body(file: Path) -> dict[str, Any]:
    raw = sys.stdin.buffer.read() if str(file) == "-" else read_file(file)
    try:
        return schema.parse_callback(raw)
    except MalformedRequest as error:
        raise click.UsageError(f"--data is not the body of a callback. {error}") from None


def _schema_error(schemas: Schemas, kind: str, body: dict[str, Any]) -> str:
    if kind not in schemas.kinds:
        return ""
    try:
        schemas.check_body(kind, body)
    except InvalidCallback as error:
        return str(error)
    return ""


def outcome(settings: Settings, example: Example, route: Route) -> str:
    """Return `"delivered"`, `"parked"`, `"rejected"`, `"dismissed"`, or `"ignored"` if dismissed by a setting."""
    if example.schema_error:
        return "rejected"
    if route.state is EventState.ROUTED:
        return "delivered"
    if route.state is EventState.DISMISSED:
        return "ignored" if route.dismissed_by is DismissedBy.SETTING else "dismissed"
    policies = {ParkedBy.HANDLER: settings.routing.no_handler, ParkedBy.NAME: settings.routing.no_name}
    return "rejected" if route.parked_by and policies.get(route.parked_by) == "reject" else "parked"


def hints(settings: Settings, schemas: Schemas, example: Example, explanation: Explanation) -> list[str]:
    """Return hints at what was meant, including unknown sources and kinds, which the router cannot detect."""
    event, texts = example.event, []
    if event.kind not in schemas.kinds:
        texts.append(
            f"there is no kind of callback {event.kind!r}: its path is answered 404; the kinds are "
            f"{', '.join(schemas.kinds)}"
        )
    if settings.calling_sources and event.source not in settings.sources:
        texts.append(f"there is no source {event.source!r}; the settings have {', '.join(settings.sources)}")
    if explanation.route.unknown_conclusion:
        texts.append(f"no handler of its class or key requires the conclusion {event.conclusion!r}")
    return [*texts, *explanation.hints]


def to_json(example: Example, lookup_result: Lookup, explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as JSON, without its result and hints."""
    event = example.event
    explained: dict[str, Any] = {**explanation_to_json(explanation, lookup_result.availability)}
    if example.schema_error:  # a rejected body is not routed
        explained |= {"state": None, "parked_by": None}
    return {
        "event": {
            "callback_class": event.callback_class,
            "process_key": event.process_definition_key,
            "version": event.process_definition_version,
            "source": event.source,
            "kind": event.kind,
            "conclusion": event.conclusion,
            "conclusion_sent": example.sent_conclusion,
        },
        "schema_error": example.schema_error or None,
        **explained,
    }


def show(
    example: Example, lookup_result: Lookup, explanation: Explanation, *, result: str, hints: Sequence[str]
) -> None:
    """Print the explanation as text."""
    output.print_line(
        f"A callback of kind {example.event.kind} from {example.event.source}, with {_names_text(example)}:"
    )
    output.print_line()
    if explanation.verdicts:
        output.print_table(
            ("gets it", "handler", "state", "matched on", "reason"),
            [
                (
                    _gets_text(candidate),
                    candidate.handler_id,
                    lookup_result.availability(candidate.handler_id),
                    candidate.matched_on,
                    _reason_text(candidate),
                )
                for candidate in explanation.verdicts
            ],
            free_text=("reason",),
        )
        output.print_line()
    output.print_line(
        _outcome_text(example, explanation.route, result), style="green" if result == "delivered" else "yellow"
    )
    if member := explanation.route.undecided if result == "delivered" else "":
        output.print_line(
            f"A condition on {member} cannot be decided: that handler does not match, and an alert is raised.",
            style="yellow",
        )
    if any(
        lookup_result.availability(handler) not in {"present", "elsewhere"} for handler in explanation.route.handlers
    ):
        output.print_line("A handler that is not present still gets its delivery, which waits for the plugin.")
    for hint in hints:
        output.print_line(f"Hint: {hint}.")


def unreadable_text(handlers: Sequence[str]) -> str:
    """Return the message that nothing can be routed because a newer version registered handlers."""
    return (
        "Unreadable: a newer version of flowhooks has registered "
        f"{', '.join(handlers[:3])}{', …' if handlers[3:] else ''}. This version routes nothing until it is "
        "upgraded, too. If there is no newer version, the row is damaged: run `flowhooks verify`."
    )


def _names_text(example: Example) -> str:
    event = example.event
    values = {
        "class": event.callback_class,
        "key": event.process_definition_key,
        "version": event.process_definition_version,
        "conclusion": event.conclusion,
    }
    named = [f"{word} {value}" for word, value in values.items() if value not in {None, ""}]
    if event.conclusion != example.sent_conclusion:
        named[-1] += f" (sent as {example.sent_conclusion})"
    if event.callback_class or event.process_definition_key:
        return ", ".join(named)
    return ", ".join(["neither class nor key", *named])


def _gets_text(candidate: CandidateMatch) -> str:
    return "yes" if candidate.matched else "undecided" if candidate.undecided else "no"


def _reason_text(candidate: CandidateMatch) -> str:
    if len(candidate.conditions) <= 1:
        return candidate.reason
    return "\n".join(
        [candidate.reason, *(f"  {condition.member}: {_VALUES[condition.holds]}" for condition in candidate.conditions)]
    )


def _outcome_text(example: Example, route: Route, result: str) -> str:
    if example.schema_error:
        return f"The schema rejects this body, so the callback is answered 422. {example.schema_error}"
    handlers = ", ".join(route.handlers)
    if result == "delivered":
        return f"It is delivered to {handlers}."
    suffix = f"; it is still delivered to {handlers}." if handlers else "."
    if route.dismissed_by:
        return _DISMISSED[route.dismissed_by] + suffix
    parked = route.parked_by or ParkedBy.HANDLER
    if result == "rejected":
        why = _PARKED[parked].partition(": ")[0]
        return f"{why}: it is rejected with 422 because of the setting {_SETTINGS[parked]}."
    return _PARKED[parked].format(member=route.undecided) + suffix
