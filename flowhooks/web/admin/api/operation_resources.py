"""The resources of bulk operations."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

from flowhooks.errors import NotFound
from flowhooks.ledger import bulk_operations
from flowhooks.model.bulk_operation import ITEM_CHOICES, Operation, parse_item_choice
from flowhooks.operations.access import FULL, sees_operation
from flowhooks.operations.json.bulk_operations import (
    OperationItemsJson,
    OperationsJson,
    operation_item_to_json,
    operation_to_json,
)
from flowhooks.operations.registry import OPERATIONS
from flowhooks.operations.seen_page import seen_page
from flowhooks.web.admin.api.parameters import (
    AFTER,
    ID,
    PAGE_SIZE,
    cursor_from_query,
    limit_from_query,
    limit_parameter,
)
from flowhooks.web.admin.api.query import Parameter, parse_boolean
from flowhooks.web.admin.api.resource import Resource
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.operations.access import Access


_ID: Final = re.compile(r"[0-9a-f-]{36}", re.ASCII)


class OperationNameMiddleware:
    """Answers a POST to `/api/operations/{name}` with 404 if no operation has this name.

    Otherwise it would reach `OperationResource`, whose 405 says nothing about the name.
    """

    def process_resource(
        self, request: falcon.Request, _response: falcon.Response, resource: object, path: Mapping[str, str]
    ) -> None:
        """Check the name, after the request was authenticated and before its resource is called.

        Raises:
            LocalizedHTTPError: no operation has this name.
        """
        if request.method == "POST" and isinstance(resource, OperationResource) and not _ID.fullmatch(path["id"]):
            raise LocalizedHTTPError(404, "no_such_operation_name", names=", ".join(sorted(OPERATIONS)))


class OperationsResource(Resource):
    """`GET /api/operations`."""

    path = "/api/operations"
    description = "Bulk operations with their progress, newest first. / 批量操作及其进度，最新的在前。"
    parameters = (
        Parameter(
            name="active",
            description="Whether to list only operations that are running, paused or being planned. / "
            "是否只列出正在执行、已暂停或正在制定计划的操作。",
            schema={"type": "boolean", "default": False},
        ),
        limit_parameter(PAGE_SIZE),
        AFTER,
    )
    response_type = OperationsJson
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> OperationsJson:
        """Return one page of operations."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, query: Mapping[str, list[str]], _path: Mapping[str, str], access: Access, /
    ) -> OperationsJson:
        """Return one page of the operations that the operator sees."""
        limit = limit_from_query(query)
        active_only = parse_boolean("active", query["active"][0]) if "active" in query else False
        with self.app.ledger.connection() as connection:

            def read(before: str, count: int) -> tuple[Operation, ...]:
                return bulk_operations.list_operations(connection, limit=count, before=before, active_only=active_only)

            page = seen_page(read, sees_operation(access), limit=limit, before=cursor_from_query(query))
        return {
            "operations": [operation_to_json(access.operation(operation)) for operation in page.items],
            "next": page.next,
        }


class OperationResource(Resource):
    """`GET /api/operations/{id}`."""

    path = "/api/operations/{id}"
    description = "A bulk operation with its progress. / 一个批量操作及其进度。"
    response_type = cast("type", Annotated[dict[str, Any], Operation])
    path_description = "The id of an operation. / 操作的 ID。"
    not_found = "no_such_operation"
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the operation."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, _query: Mapping[str, list[str]], path: Mapping[str, str], access: Access, /
    ) -> Mapping[str, Any]:
        """Return the operation if the operator sees it."""
        with self.app.ledger.connection() as connection:
            operation = bulk_operations.read_operation(connection, path["id"].replace("\0", ""))
        if operation is None or not access.sees_filter(operation.event_filter):
            raise NotFound(f"there is no operation {path['id']}")
        return operation_to_json(access.operation(operation))


class OperationItemsResource(Resource):
    """`GET /api/operations/{id}/items`."""

    path = "/api/operations/{id}/items"
    description = (
        "The deliveries of a bulk operation's plan, in the order in which they are released. / "
        "批量操作计划中的投递，按释放顺序排列。"
    )
    parameters = (
        Parameter(
            name="status",
            description="Only deliveries with this status, or with this result at present; remaining: not released or "
            "not executed yet. / 只看该状态的投递，或目前为该结果的投递；remaining：尚未释放或尚未执行。",
            schema={"type": "string", "enum": list(ITEM_CHOICES)},
        ),
        limit_parameter(PAGE_SIZE),
        Parameter(
            name="after",
            description="Continue after this delivery: next of the previous response. / "
            "从该投递之后继续，取自上一次响应的 next。",
            schema=ID,
        ),
    )
    response_type = OperationItemsJson
    path_description = OperationResource.path_description
    not_found = "no_such_operation"
    for_limited_roles = for_masked_roles = True

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> OperationItemsJson:
        """Return one page of the plan."""
        return self.get_restricted(query, path, FULL)

    def get_restricted(
        self, query: Mapping[str, list[str]], path: Mapping[str, str], access: Access, /
    ) -> OperationItemsJson:
        """Return one page of the plan if the operator sees the operation."""
        limit, operation_id = limit_from_query(query), path["id"].replace("\0", "")
        status = query["status"][0] if "status" in query else None
        if status is not None and status not in ITEM_CHOICES:
            raise LocalizedHTTPError(422, "query_choice", name="status", values=", ".join(ITEM_CHOICES))
        after = cursor_from_query(query)
        with self.app.ledger.connection() as connection:
            operation = bulk_operations.read_operation(connection, operation_id)
            if operation is None or not access.sees_filter(operation.event_filter):
                raise NotFound(f"there is no operation {operation_id}")
            found = bulk_operations.operation_items(
                connection,
                operation_id,
                status=None if status is None else parse_item_choice(status),
                after=after,
                limit=limit + 1,
            )
        return {
            "items": [operation_item_to_json(item) for item in found[:limit]],
            "next": found[limit - 1].delivery_id if found[limit:] else "",
        }
