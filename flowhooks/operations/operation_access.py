"""Restrict operations to what the operator's role may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import Forbidden, NotFound
from flowhooks.ledger import alert_queries, bulk_operations

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.operations.access import Access
    from flowhooks.operations.context import OperationContext


def restrict(context: OperationContext, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation, restricted to the access of the operator.

    An object that the operator does not see is treated as one that does not exist.

    Args:
        context: what operations work with.
        name: the operation's name.
        arguments: its parsed arguments.

    Raises:
        Forbidden: the role may not do this.
        NotFound: the operator does not see the object.
    """
    access = context.access
    if access.is_full:
        return arguments
    check_allowed(context, name)
    check = _CHECKS.get(name)
    if "event_filter" in arguments:
        arguments = {**arguments, "event_filter": access.restrict(arguments["event_filter"])}
    return arguments if check is None else check(context, arguments)


def check_allowed(context: OperationContext, name: str) -> None:
    """Check that the role of the operator may run an operation of this name at all.

    Raises:
        Forbidden: it may not.
    """
    if not is_allowed(context.access, name):
        raise Forbidden("operator_scope")


def is_allowed(access: Access, name: str) -> bool:
    """Return whether a role may run an operation of this name at all."""
    return not (access.is_limited and name not in _CHECKS) and not (access.is_masked and name not in _FOR_MASKED_ROLES)


def _delivery(context: OperationContext, arguments: dict[str, Any]) -> dict[str, Any]:
    found = context.reader.shown_delivery(arguments.get("delivery_id", ""))
    if found is not None and not context.access.sees(found[1].handler):
        raise NotFound(f"there is no delivery {arguments['delivery_id']}")
    return arguments


def _alerts(context: OperationContext, arguments: dict[str, Any]) -> dict[str, Any]:
    with context.reader.connection() as connection:
        seen = {alert.id for alert in alert_queries.open_alerts(connection) if context.access.sees_alert(alert)}
    return {**arguments, "alerts": [alert for alert in arguments.get("alerts", ()) if alert in seen]}


def _operation(context: OperationContext, arguments: dict[str, Any]) -> dict[str, Any]:
    with context.reader.connection() as connection:
        operation = bulk_operations.read_operation(connection, arguments.get("operation_id", ""))
    if operation is not None and not context.access.sees_filter(operation.event_filter):
        raise NotFound(f"there is no operation {operation.id}")
    return arguments


def _checked_elsewhere(_context: OperationContext, arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


_CHECKS: Final[dict[str, Callable[[OperationContext, dict[str, Any]], dict[str, Any]]]] = {
    "resolve": _delivery,
    "acknowledge": _alerts,
    # These two select among the handlers that the operator sees.
    "pause": _checked_elsewhere,
    "resume": _checked_elsewhere,
    # Its filter is restricted.
    "plan_operation": _checked_elsewhere,
    "start_operation": _operation,
    "pause_operation": _operation,
    "resume_operation": _operation,
    "cancel_operation": _operation,
    "set_operation_rate": _operation,
}
"""The operations that a limited role may run, each with the check of its arguments."""
_FOR_MASKED_ROLES: Final = frozenset(
    {
        *_CHECKS,
        *("reroute_parked", "reroute", "dismiss", "purge", "retire", "record_backup", "record_change", "test_alerts"),
        *("confirm_reconciliation", "decline_reconciliation", "close_gaps"),
    }
)
"""The operations that a masked role may run.

For the others the operator has to see bodies or answers of engines. Each new operation has to be considered first: its
result is shown as it is, unless it is a bulk operation.
"""
