"""Bulk operations as JSON, for the administration API and for `--json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

from flowhooks.operations.json.encoding import dataclass_to_json

if TYPE_CHECKING:
    from flowhooks.model.bulk_operation import Operation, OperationItem

OperationJson: TypeAlias = "Annotated[dict[str, Any], Operation]"
OperationItemJson: TypeAlias = "Annotated[dict[str, Any], OperationItem]"


class OperationsJson(TypedDict):
    """Bulk operations.

    Attributes:
        operations: the operations, the newest first.
        next: the value of `after` for the next older operations; empty if there are none.
    """

    operations: list[OperationJson]
    next: str


class OperationItemsJson(TypedDict):
    """The deliveries of a bulk operation's plan.

    Attributes:
        items: the deliveries, in the order in which they are released.
        next: the value of `after` for the deliveries that follow; empty if there are none.
    """

    items: list[OperationItemJson]
    next: str


def operation_to_json(operation: Operation) -> dict[str, Any]:
    """Return an operation as JSON values."""
    return dataclass_to_json(operation) | {"event_filter": dict(operation.event_filter)}


def operation_item_to_json(item: OperationItem) -> dict[str, Any]:
    """Return a delivery of a plan as JSON values."""
    return dataclass_to_json(item)
