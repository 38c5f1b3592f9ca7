"""Operations by name, with JSON in and out, for commands and the administration API."""

from __future__ import annotations

import inspect
import sys
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import MAX_TIME, MIN_TIME
from flowhooks.errors import SettingsError
from flowhooks.ledger.queries import MAX_PLUGINS, EventFilter
from flowhooks.model.bulk_operation import BulkAction, Operation
from flowhooks.model.search_fields import parse_field_condition
from flowhooks.operations.acknowledge import acknowledge
from flowhooks.operations.alert_test import send_test_alerts
from flowhooks.operations.bulk import (
    cancel_operation,
    pause_operation,
    plan_operation,
    resume_operation,
    set_operation_rate,
    start_operation,
)
from flowhooks.operations.corrections import accept_correction
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.engines import (
    ask_engine,
    close_gaps,
    confirm_reconciliation,
    decline_reconciliation,
    read_definitions,
    reconcile,
)
from flowhooks.operations.error_groups import complete_filter
from flowhooks.operations.index_fields import index_fields
from flowhooks.operations.json.bulk_operations import operation_to_json
from flowhooks.operations.operation_access import check_allowed, restrict
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.purge import purge
from flowhooks.operations.record_backup import record_backup
from flowhooks.operations.record_change import ChangeKind, record_change
from flowhooks.operations.reroute import reroute, reroute_parked
from flowhooks.operations.resolve import Resolution, resolve
from flowhooks.operations.retire import retire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flowhooks.operations.context import OperationContext

_TEXT_FIELDS: Final = frozenset(
    {
        "flow_instance_id",
        "business_key",
        "callback_class",
        "process_key",
        "conclusion",
        "dismissed_by",
        "origin",
        "trace_id",
        "handler",
        "state",
        "error_group",
        "plugin",
        "ran_by",
        "trigger",
        "query",
    }
)
_TIME_FIELDS: Final = frozenset({"since", "until", "attempted_since"})
_LIST_FIELDS: Final = ("ids", "delivery_ids", "fields", "handler_plugins")


def run_operation(context: OperationContext, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run one operation.

    Args:
        context: what operations work with; `by` is the operator.
        name: a key of `OPERATIONS`.
        arguments: its arguments, as JSON values.

    Returns:
        The operation's result, as JSON values; a bulk operation as the operator sees it.

    Raises:
        SettingsError: there is no such operation, or an argument is invalid.
        LedgerError: the operation is not possible.
        Forbidden: the role of the operator does not allow it.
        Unavailable: the ledger cannot be written at the moment.
    """
    if name not in OPERATIONS:
        raise SettingsError(f"there is no operation {name!r}; the operations are {', '.join(sorted(OPERATIONS))}")
    check_allowed(context, name)
    function, parsers = OPERATIONS[name]
    unknown = sorted(set(arguments) - set(parsers))
    if unknown:
        raise SettingsError(f"{name} takes {', '.join(parsers)}, not {', '.join(unknown)}")
    parsed = {key: parsers[key](key, value) for key, value in arguments.items()}
    if "event_filter" in parsed:
        context.access.check_filter(parsed["event_filter"])
        parsed["event_filter"] = complete_filter(
            context.reader,
            parsed["event_filter"],
            context.settings.search.fields,
            plugins=context.access.plugins,
        )
    try:
        inspect.signature(function).bind(context, **parsed)
    except TypeError:
        raise SettingsError(f"{name} needs more than {', '.join(sorted(parsed)) or 'nothing'}") from None
    result = function(context, **restrict(context, name, parsed))
    return operation_to_json(context.access.operation(result)) if isinstance(result, Operation) else asdict(result)


def filter_from_json(key: str, value: Any) -> EventFilter:
    """Parse an `EventFilter` from JSON.

    Raises:
        SettingsError: a name, type or state is invalid, a list is empty, or there are too many plugins.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"{key} must be an object")
    unknown = sorted(set(value) - {field.name for field in fields(EventFilter)})
    if unknown:
        raise SettingsError(f"{key} has no {', '.join(unknown)}")
    for name, member in value.items():
        fits = (
            isinstance(member, str)
            if name in _TEXT_FIELDS
            else type(member) is int
            if name in _TIME_FIELDS
            else isinstance(member, list)
        ) or member is None
        if not fits:
            raise SettingsError(f"{key}.{name} has the wrong type")
    lists: dict[str, tuple[Any, ...]] = {}
    for name in _LIST_FIELDS:
        items = value.get(name)
        if items is not None and not (items and all(isinstance(item, str) for item in items)):
            # An empty list would select every event, which its caller hardly wants.
            raise SettingsError(f"{key}.{name} must be a list of at least one string")
        lists[name] = tuple(items or ())
    if len(lists["handler_plugins"]) > MAX_PLUGINS:
        raise SettingsError(f"{key}.handler_plugins must be a list of at most {MAX_PLUGINS} strings")
    lists["fields"] = tuple(map(parse_field_condition, lists["fields"]))
    return EventFilter(**{**value, **lists})


def _string(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{key} must be a string")
    return value


def _string_list(key: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{key} must be a list of strings")
    return value


def _time(key: str, value: Any) -> int:
    if type(value) is not int or not MIN_TIME <= value <= MAX_TIME:
        raise SettingsError(f"{key} must be a time in microseconds since 1970, in the years 1 to 9999")
    return value


def _count(key: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise SettingsError(f"{key} must be a number of at least 0")
    return value


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{key} must be true or false")
    return value


def _action(key: str, value: Any) -> BulkAction:
    try:
        return BulkAction(value)
    except ValueError:
        raise SettingsError(f"{key} must be one of {', '.join(BulkAction)}") from None


def _rate(key: str, value: Any) -> float:
    if type(value) not in {int, float} or not 0 < value <= sys.float_info.max:
        raise SettingsError(f"{key} must be a number above 0")
    return float(value)


def _resolution(key: str, value: Any) -> Resolution:
    try:
        return Resolution(value)
    except ValueError:
        raise SettingsError(f"{key} must be one of {', '.join(Resolution)}") from None


def _change_kind(key: str, value: Any) -> ChangeKind:
    try:
        return ChangeKind(value)
    except ValueError:
        raise SettingsError(f"{key} must be one of {', '.join(ChangeKind)}") from None


OPERATIONS: Final[dict[str, tuple[Callable[..., Any], dict[str, Callable[[str, Any], Any]]]]] = {
    "resolve": (resolve, {"delivery_id": _string, "verdict": _resolution, "note": _string, "dry_run": _boolean}),
    "accept_correction": (
        accept_correction,
        {"event_id": _string, "digest": _string, "note": _string, "dry_run": _boolean},
    ),
    "reroute_parked": (reroute_parked, {"dry_run": _boolean, "after": _string}),
    "reroute": (reroute, {"event_filter": filter_from_json, "handler": _string, "dry_run": _boolean, "after": _string}),
    "dismiss": (dismiss, {"event_filter": filter_from_json, "note": _string, "dry_run": _boolean, "after": _string}),
    "acknowledge": (acknowledge, {"alerts": _string_list, "note": _string, "dry_run": _boolean}),
    "record_backup": (record_backup, {"name": _string, "size": _count}),
    "record_change": (record_change, {"kind": _change_kind, "plugins": _string_list}),
    "test_alerts": (send_test_alerts, {"route": _string}),
    "purge": (purge, {"event_filter": filter_from_json, "dry_run": _boolean, "after": _string}),
    "index_fields": (index_fields, {"dry_run": _boolean, "after": _string}),
    "retire": (retire, {"handlers": _string_list, "dry_run": _boolean}),
    "pause": (pause, {"handlers": _string_list, "note": _string, "dry_run": _boolean}),
    "resume": (resume, {"handlers": _string_list, "dry_run": _boolean}),
    "reconcile": (reconcile, {"source": _string, "since": _time, "declined": _boolean, "dry_run": _boolean}),
    "confirm_reconciliation": (
        confirm_reconciliation,
        {"source": _string, "instances": _count, "seen_until": _time, "dry_run": _boolean},
    ),
    "decline_reconciliation": (
        decline_reconciliation,
        {"source": _string, "note": _string, "instances": _count, "seen_until": _time, "dry_run": _boolean},
    ),
    "close_gaps": (
        close_gaps,
        {"source": _string, "note": _string, "found_until": _time, "dry_run": _boolean},
    ),
    "ask_engine": (ask_engine, {"instance": _string, "source": _string}),
    "read_definitions": (read_definitions, {"source": _string}),
    "plan_operation": (
        plan_operation,
        {"action": _action, "event_filter": filter_from_json, "note": _string, "rate": _rate},
    ),
    "start_operation": (
        start_operation,
        {"operation_id": _string, "note": _string, "rate": _rate, "unlimited": _boolean},
    ),
    "pause_operation": (pause_operation, {"operation_id": _string}),
    "resume_operation": (resume_operation, {"operation_id": _string}),
    "cancel_operation": (cancel_operation, {"operation_id": _string}),
    "set_operation_rate": (set_operation_rate, {"operation_id": _string, "rate": _rate}),
}
"""Operations by name, each with the parsers of its arguments."""

WAITING_OPERATIONS: Final = frozenset(
    {"reconcile", "decline_reconciliation", "ask_engine", "read_definitions", "test_alerts"}
)
"""Operations that may wait for minutes: for an engine, a round of reconciliation, or a receiver of alerts."""
