"""Options that select events, the same in every command."""

from __future__ import annotations

from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import utf8
from flowhooks.errors import SettingsError
from flowhooks.ledger.attempt_filters import parse_plugin
from flowhooks.ledger.name_search import MIN_PREFIX_CHARS
from flowhooks.ledger.queries import STATES, EventFilter
from flowhooks.model.delivery import Trigger
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.model.search_fields import FieldCondition, parse_field_condition
from flowhooks.model.trace_context import TRACE_ID
from flowhooks.operations.time_parsing import parse_time
from flowhooks.settings.types import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.ledger.reader import Reader


def timestamp(value: str) -> int:
    """Parse the time of an option into microseconds since 1970: ISO 8601, a date or a relative time.

    A time without a zone is UTC, like all printed times.
    """
    try:
        return parse_time(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is {error}") from None


def plugin_selector(value: str) -> str:
    """Check a plugin or a version of it, `NAME` or `NAME==VERSION`."""
    try:
        parse_plugin(value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None
    return value


def trace_id(value: str) -> str:
    """Check a trace id of W3C Trace Context."""
    if not TRACE_ID.fullmatch(value):
        raise click.BadParameter("it must be 32 hexadecimal digits in lower case")
    return value


def field_condition(value: str) -> FieldCondition:
    """Parse a condition on an indexed field."""
    try:
        return parse_field_condition(utf8(value))
    except SettingsError as error:
        raise click.BadParameter(str(error)) from None


TIME_EXAMPLES: Final = "such as 2h, 2026-11-24T09:30 (UTC) or 2026-11-24T09:30+08:00"


def filter_options(function: Callable[..., Any], *, with_handler: bool = True) -> Callable[..., Any]:
    """Add the options that select events to a command, which receives an `EventFilter` called `event_filter`.

    Args:
        function: the command.
        with_handler: whether to add `--handler`.
    """

    @click.option(
        "--id", "ids", type=utf8, multiple=True, metavar="ID", help="This event; may be given more than once."
    )
    @click.option(
        "--query",
        type=utf8,
        metavar="TEXT",
        help="Exactly this process instance id, event id or delivery id, or a business key that is TEXT or begins with "
        f"it ({MIN_PREFIX_CHARS} or more characters).",
    )
    @click.option(
        "--field",
        "conditions",
        type=field_condition,
        multiple=True,
        metavar="CONDITION",
        help="With such a value in the body: /vendor=ACME, /amount>=1000 or /amount<=1000, for a field that "
        "search.fields names; may be given more than once.",
    )
    @click.option("--flow", "flow_instance_id", type=utf8, metavar="ID", help="Process instance id of the engine.")
    @click.option("--business-key", type=utf8, metavar="KEY", help="This business key, exactly.")
    @click.option("--class", "callback_class", type=utf8, metavar="CLASS", help="This callback class, exactly.")
    @click.option("--key", "process_key", type=utf8, metavar="KEY", help="This process definition key, exactly.")
    @click.option(
        "--conclusion", type=utf8, metavar="TEXT", help="This conclusion, exactly, in the words that handlers use."
    )
    @click.option(
        "--state",
        type=click.Choice(STATES),
        metavar="STATE",
        help=f"With a delivery that is {', '.join(STATES[:-3])} or {STATES[-3]}; or parked, or dismissed.",
    )
    @click.option(
        "--dismissed-by",
        type=click.Choice([reason.value for reason in DismissedBy]),
        metavar="REASON",
        help="Dismissed because all conditions are false (condition), no handler listens to its kind (kind), a "
        "setting ignores its key (setting), or an operator dismissed it (operator).",
    )
    @click.option(
        "--origin",
        type=click.Choice([origin.value for origin in Origin]),
        metavar="ORIGIN",
        help="Made of a callback (callback), of a request to the fixed URL of a source (ingress), taken in from an "
        "engine's history (reconciled), or an accepted correction (correction).",
    )
    @click.option(
        "--trace-id", type=trace_id, metavar="ID", help="With this trace id in the traceparent of the request."
    )
    @click.option(
        "--error-group",
        type=utf8,
        metavar="ID",
        help="With a delivery whose last attempt has the error with this id, or an id that starts with these 8 or more "
        "characters.",
    )
    @click.option("--since", type=timestamp, metavar="TIME", help=f"Received at or after TIME, {TIME_EXAMPLES}.")
    @click.option("--until", type=timestamp, metavar="TIME", help="Received before TIME.")
    @click.option(
        "--plugin", type=plugin_selector, metavar="NAME[==VERSION]", help="With an attempt by this plugin, or version."
    )
    @click.option(
        "--trigger",
        type=click.Choice([trigger.value for trigger in Trigger]),
        metavar="TRIGGER",
        help=f"With an attempt that was started for this reason: {', '.join(Trigger)}.",
    )
    @click.option(
        "--attempted-since",
        type=timestamp,
        metavar="TIME",
        help="With an attempt that started at or after TIME; with --plugin and --trigger, such an attempt.",
    )
    @click.option(
        "--ran-by",
        type=plugin_selector,
        metavar="NAME[==VERSION]",
        help="With a delivery whose last attempt was by this plugin, or version.",
    )
    @wraps(function)
    def wrapped(
        *args: Any,
        ids: tuple[str, ...],
        conditions: tuple[FieldCondition, ...],
        since: int | None,
        until: int | None,
        **kwargs: Any,
    ) -> Any:
        if since is not None and until is not None and since >= until:
            raise click.UsageError("--since must be before --until.")
        filters = {name: kwargs.pop(name) for name in (*_FILTER_NAMES, *(["handler"] if with_handler else []))}
        try:
            event_filter = EventFilter(ids=ids, fields=conditions, since=since, until=until, **filters)
        except SettingsError as error:
            raise click.UsageError(str(error)) from None
        return function(*args, event_filter=event_filter, **kwargs)

    return _handler_option(wrapped) if with_handler else wrapped


def text_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument TEXT to a command that has `filter_options`; it is the same as `--query TEXT`."""

    @click.argument("searched", type=utf8, required=False, metavar="[TEXT]")
    @wraps(function)
    def wrapped(*args: Any, searched: str | None, event_filter: EventFilter, **kwargs: Any) -> Any:
        if searched is not None:
            if event_filter.query is not None or not searched:
                raise click.UsageError("Give one text that is not empty: as TEXT, or with --query.")
            event_filter = replace(event_filter, query=searched)
        return function(*args, event_filter=event_filter, **kwargs)

    return wrapped


def note_unknown_handler(reader: Reader, event_filter: EventFilter) -> None:
    """Print a note if a filter, which has found nothing, names a handler that is neither registered nor stored."""
    if event_filter.handler is None:
        return
    known = [handler.id for handler in reader.registered_handlers()]
    if event_filter.handler in known or reader.find_summaries(EventFilter(handler=event_filter.handler), limit=1):
        return
    suggestion = did_you_mean(event_filter.handler, known) or "; `flowhooks handlers list` lists the handlers"
    output.print_line(output.escape_newlines(f"No handler {event_filter.handler} is known{suggestion}"), err=True)


_FILTER_NAMES: Final = (
    "query",
    "flow_instance_id",
    "business_key",
    "callback_class",
    "process_key",
    "conclusion",
    "state",
    "dismissed_by",
    "origin",
    "trace_id",
    "attempted_since",
    "error_group",
    "plugin",
    "ran_by",
    "trigger",
)
_handler_option: Final = click.option(
    "--handler", type=utf8, metavar="PLUGIN:NAME", help="With a delivery for this handler."
)
